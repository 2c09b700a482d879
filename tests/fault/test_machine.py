"""What the machine does to an edge and a coordinator: a disk fills up, a clock jumps."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecache.admin.client import AdminClient, ClientError
from edgecache.purge.coordinator import tokens
from tests.fault.wild import Wild, get, wild
from tests.purge.coordinator.test_process import Process as Coordinator
from tests.supervisor import kit
from tests.supervisor.kit import body_of

pytestmark = pytest.mark.fault

FAKETIME = [
    Path("/usr/lib", triple, "faketime/libfaketime.so.1") for triple in ("x86_64-linux-gnu", "aarch64-linux-gnu")
]


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up(tmp_path: Path, small_disk: Path) -> None:
    """Serving goes on, right; the tier says that it is off; and comes back by itself when there is room."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(40 << 20))
    config = {
        "memory": {"size": "8MiB", "max_object": "100KiB"},
        "disk": {"path": str(small_disk / "cache"), "size": "1GiB", "admit": "always"},
    }
    with wild() as origin, kit.node(tmp_path, {"origin": origin.url, **config}) as node:

        def ask(numbers: range) -> None:
            for number in numbers:
                got = get(node.port, f"/o/{number}")
                assert (got.status, got.body, got.whole) == (200, body_of(f"/o/{number}"), True)

        asked = 0
        until = time.monotonic() + 60
        while not node.stats()["disk"]["failures"]:
            assert time.monotonic() < until, "the disk never filled up"
            ask(range(asked, asked + 100))
            asked += 100
        ask(range(0, asked, 7))
        node.said(r"(?i)disk")
        ballast.unlink()
        kit.until(lambda: node.stats()["disk"]["on"] == 1, 60)
        stored = node.stats()["disk"]["stored"]
        ask(range(asked, asked + 50))
        kit.until(lambda: node.stats()["disk"]["stored"] > stored, 30)
        ask(range(0, asked, 11))
        assert node.stats()["processes"]["died"] == 0


# --- a clock that jumps ---


class Clock:
    """The wall clock of the edge, through libfaketime: a file says by how much it is off. The monotonic one goes on."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.step(0)

    def step(self, seconds: int) -> None:
        part = self.file.with_suffix(".part")
        part.write_text(f"{seconds:+d}\n")
        part.rename(self.file)


@pytest.fixture
def stepped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Clock, Wild, kit.Node]]:
    library = next((path for path in FAKETIME if path.exists()), None)
    if library is None:
        reason = "libfaketime is not installed (Debian: apt-get install faketime)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    clock = Clock(tmp_path / "clock")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(clock.file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    with wild() as origin, kit.node(tmp_path, {"origin": origin.url}) as node:
        monkeypatch.delenv("LD_PRELOAD")
        yield clock, origin, node


@pytest.mark.parametrize("way", [+7200, -7200], ids=["forwards", "backwards"])
def test_a_clock_that_steps_and_steps_back(stepped: tuple[Clock, Wild, kit.Node], way: int) -> None:
    """Right bodies, purges that hold, ages that are none too small, and normal again when the clock is right."""
    clock, origin, node = stepped
    paths = [f"/o/{number}" for number in range(5)]

    def ask() -> list[str]:
        found = []
        for path in paths:
            got = get(node.port, path)
            assert (got.status, got.body) == (200, body_of(path))
            assert int(got.fields.get("age", "0")) >= 0
            found.append(got.fields["cache-status"])
        return found

    origin.max_age = 600
    ask()
    assert all("; hit" in status for status in ask())
    clock.step(way)
    first = ask()
    if way > 0:
        assert all("fwd=stale" in status or "fwd=uri-miss" in status for status in first), "two hours old by now"
    # What was purged stays purged, whichever way the clock goes: numbers order purges, not times.
    ask()
    node.ask("/v1/purge", {"keys": ["all"], "wait": True})
    asked = len(origin.asked)
    ask()
    assert len(origin.asked) - asked == len(paths)
    clock.step(0)
    origin.max_age = 1
    node.ask("/v1/purge", {"keys": ["all"], "wait": True})
    asked = len(origin.asked)
    ask()
    assert len(origin.asked) - asked == len(paths)
    time.sleep(1.2)
    asked = len(origin.asked)
    ask()  # fresh for a second, and that second is over
    assert len(origin.asked) - asked == len(paths)
    assert node.stats()["processes"]["died"] == 0
    assert node.stats()["requests"]["total"] == 7 * len(paths)


def test_what_was_stored_while_the_clock_was_ahead_is_not_fresh_for_longer(
    stepped: tuple[Clock, Wild, kit.Node],
) -> None:
    """Stored two hours ahead and fresh for one second: after the step back it is not from the future, but stale."""
    clock, origin, node = stepped
    clock.step(+7200)
    assert get(node.port, "/o/1").status == 200
    clock.step(0)
    time.sleep(1.5)
    asked = len(origin.asked)
    assert get(node.port, "/o/1").body == body_of("/o/1")
    assert len(origin.asked) == asked + 1


def test_a_coordinator_whose_disk_fills_up(small_disk: Path) -> None:
    """It refuses purges and says why, keeps all it has taken, and takes them again when there is room."""
    folder, ballast = small_disk / "data", small_disk / "ballast"
    token = tokens.add(folder / "tokens.json", "all", [tokens.Scope.ADMIN], now=0)
    taken = []
    with Coordinator("--listen", "127.0.0.1:0", "--data", folder) as process:
        client = AdminClient(process.url, token)

        def purge(name: str) -> None:
            taken.append((client.purge({"keys": [name], "wait": False})["sequence"], name))

        purge("before")
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        with pytest.raises(ClientError, match=r"no room .* free space"):  # noqa: PT012 - whichever is the first
            for i in range(1000):
                purge(f"{i}" * 100)
        with pytest.raises(ClientError, match="no room"):
            purge("refused")
        process.until("purges are refused: no room")
        ballast.unlink()
        purge("after")
        process.until("purges can be logged again")
        assert client.stats()["coordinator"]["log"]["failing"] == ""
        process.end(signal.SIGKILL)
    with Coordinator("--listen", "127.0.0.1:0", "--data", folder) as process:
        client = AdminClient(process.url, token)
        kept = [(sequence, client._ask("GET", f"/v1/purge/{sequence}")["order"]["keys"][0]) for sequence, _ in taken]
        assert kept == taken
        assert client.stats()["coordinator"]["log"]["head"] == len(taken)
        assert process.end(signal.SIGTERM) == 0
