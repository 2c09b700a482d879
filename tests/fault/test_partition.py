"""An edge that cannot hear its coordinator, though both run and no connection is closed: a network that is cut."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fault.test_fleet_processes import PATHS, Coordinator, ask, edge, fleet_of, hits
from tests.supervisor.kit import origin, until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

PATIENT = {"max_silence": "4s"}


class Relay:
    """Hands octets on both ways, until it is cut: then it takes none, and tells nobody."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._door = socket.create_server(("127.0.0.1", 0))
        self._whole = threading.Event()
        self._whole.set()
        self._over = False
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            self._whole.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                thread = threading.Thread(target=self._hand_on, args=(one, other), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _hand_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                self._whole.wait()
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._whole.set()
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for each in self._open:
            each.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Coordinator, Relay]]:
    coordinator = Coordinator(tmp_path)
    coordinator.start()
    relay = Relay(int(coordinator.url.rpartition(":")[2]))
    try:
        yield coordinator, relay
    finally:
        relay.close()
        coordinator.kill()


def test_a_partitioned_edge_asks_until_it_has_heard_what_it_missed(
    fleet: tuple[Coordinator, Relay], tmp_path: Path
) -> None:
    """What is purged meanwhile is not used without asking once max_silence is over, and not at all after."""
    coordinator, relay = fleet
    behind = SimpleNamespace(url=relay.url, token=coordinator.token)
    with (
        origin() as source,
        edge(tmp_path / "near", coordinator, source.url, purge=PATIENT) as near,
        edge(tmp_path / "far", behind, source.url, purge=PATIENT) as far,  # type: ignore[arg-type]
    ):
        until(lambda: fleet_of(near)["caught_up"] and fleet_of(far)["caught_up"])
        first = near.ask("/v1/purge", {"keys": ["all-of-it"], "wait": True})["sequence"]
        until(lambda: fleet_of(far)["position"] == first)
        for each in (near, far):
            until(lambda each=each: hits(ask(each)) == len(PATHS))  # type: ignore[misc]
        resets = fleet_of(far)["resets"]
        relay.cut()
        second = near.ask("/v1/purge", {"keys": ["all-of-it"]})["sequence"]
        assert second == first + 1
        until(lambda: fleet_of(near)["position"] == second)
        assert hits(ask(near)) == 0
        until(lambda: fleet_of(far)["silent"])
        asked = len(source.asked)
        assert hits(ask(far)) == 0, "nothing is used without the origin's word"
        assert len(source.asked) - asked == len(PATHS)
        assert fleet_of(far)["position"] == first
        # It hears again, by itself, and of what it missed.
        relay.mend()
        until(lambda: fleet_of(far)["caught_up"] and fleet_of(far)["position"] == second)
        until(lambda: hits(ask(far)) == len(PATHS))
        assert fleet_of(far)["resets"] == resets
        purged = near.ask("/v1/purge", {"keys": ["all-of-it"], "wait": True})
        assert sorted((each["edge"], each["applied"]) for each in purged["edges"]) == [
            ("far", True),
            ("near", True),
        ]
        assert hits(ask(far)) == hits(ask(near)) == 0
