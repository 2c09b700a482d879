"""A fleet of real processes that are killed: a coordinator, an edge with a disk and one without."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.supervisor.kit import Node, alive, exchange, node, origin, until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

PATHS = [f"/{i}" for i in range(10)]
MAX_SILENCE_S = 1.5


class Coordinator:
    """`edgecache coordinator`, as often as it is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self.token = folder / "coordinator.token"
        made = subprocess.run(
            [*self._command(), "token", "add", "all", "--scope", "admin"], check=True, capture_output=True, text=True
        )
        self.token.write_text(made.stdout)

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "edgecache", "coordinator"),
            *("--listen", f"127.0.0.1:{self._port}", "--data", str(self._folder / "log")),
        ]

    def start(self) -> None:
        with (self._folder / "coordinator.out").open("ab") as out:
            self._process = subprocess.Popen(self._command(), stdout=out, stderr=out)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path)
    made.start()
    yield made
    made.kill()


@contextlib.contextmanager
def edge(folder: Path, made: Coordinator, origin_url: str, **settings: Any) -> Iterator[Node]:
    folder.mkdir(exist_ok=True)
    purge = {"coordinator": made.url, "token_file": str(made.token), "max_silence": f"{MAX_SILENCE_S}s"}
    config = {"origin": origin_url, "name": folder.name, "workers": 1, **settings}
    with node(folder, {**config, "purge": {**purge, **settings.get("purge", {})}}) as running:
        yield running


def fleet_of(running: Node) -> dict[str, Any]:
    found: dict[str, Any] = running.stats()["purges"]
    return found


def ask(running: Node, paths: list[str] = PATHS) -> list[str]:
    """Cache-Status of each."""

    async def all_of_them() -> list[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        found = []
        for path in paths:
            status, fields, _ = await exchange(reader, writer, path)
            assert status == 200
            found.append(fields["cache-status"])
        writer.close()
        return found

    return asyncio.run(all_of_them())


def hits(found: list[str]) -> int:
    return sum("; hit" in status for status in found)


def serving(running: Node) -> bool:
    """Does a control process answer, and has it caught up?"""
    try:
        return bool(running.ask("/readyz")["detail"] == "serving")
    except OSError:
        return False


def kill(running: Node) -> None:
    children = [process.pid for process in running.processes()]
    for pid in (*children, running.process.pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, children)))


def test_what_was_confirmed_is_purged_after_every_process_was_killed(coordinator: Coordinator, tmp_path: Path) -> None:
    """The edge is killed right after it has confirmed, and the coordinator too: nobody can tell it again, and it goes
    on by itself. What was purged is not served, what was not is."""
    disk = {"path": str(tmp_path / "disk"), "size": "64MiB", "admit": "always"}
    settings = {"disk": disk, "purge": {"when_silent": "serve"}}
    with origin() as source:
        with edge(tmp_path / "a", coordinator, source.url, **settings) as a:
            until(lambda: fleet_of(a)["caught_up"])
            ask(a)
            until(lambda: a.stats()["disk"]["records"] == len(PATHS))
            purged = a.ask("/v1/purge", {"urls": [f"http://site{path}" for path in PATHS[:4]], "wait": True})
            kill(a)
            coordinator.kill()
            assert [(each["edge"], each["applied"]) for each in purged["edges"]] == [("a", True)]
        del source.asked[:]
        with edge(tmp_path / "a", coordinator, source.url, **settings) as a:
            assert hits(ask(a)) == len(PATHS) - 4
            assert sorted(source.asked) == PATHS[:4]
            assert not fleet_of(a)["connected"]


def test_the_deaths_of_a_control_process_and_of_the_coordinator(coordinator: Coordinator, tmp_path: Path) -> None:
    with origin() as source, edge(tmp_path / "b", coordinator, source.url) as b:
        until(lambda: fleet_of(b)["caught_up"])
        ask(b)
        assert hits(ask(b)) == len(PATHS)
        # Another control process goes on where this one was: what is stored stays.
        [control] = [process.pid for process in b.processes() if process.name == "edgecache-ctl"]
        os.kill(control, signal.SIGKILL)
        until(lambda: [p.pid for p in b.processes() if p.name == "edgecache-ctl"] not in ([], [control]))
        until(lambda: serving(b))
        assert hits(ask(b)) == len(PATHS)
        assert fleet_of(b)["resets"] == 0
        # Nobody speaks any more: the workers find out by themselves, and the origin confirms what is used.
        coordinator.kill()
        until(lambda: fleet_of(b)["silent"])
        found = ask(b)
        assert hits(found) == 0
        assert all("detail=coordinator-silent" in status for status in found)
        assert b.ask("/v1/purge", {"keys": ["all-of-it"]})["error"]["code"] == "unavailable"
        # It is back, with its log.
        coordinator.start()
        until(lambda: fleet_of(b)["caught_up"])
        assert hits(ask(b)) == len(PATHS)
        assert fleet_of(b)["resets"] == 0
        purged = b.ask("/v1/purge", {"keys": ["all-of-it"], "wait": True})
        assert (purged["sequence"], purged["edges"][0]["applied"]) == (1, True)
        assert hits(ask(b)) == 0
        assert b.end() == 0
