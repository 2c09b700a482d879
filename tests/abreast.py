"""How the suite runs in several processes (`pytest -n 3`): what is handed out together, and what first.

Most tests wait more than they work, for processes that start, limits that pass, connections that drain. A module's
tests go to one process, so that what the module shares is made once. The modules listed in `APART` share nothing, or
something cheap, and take long: each of their tests goes wherever there is room. What measures the machine says so
(`@pytest.mark.alone`): nothing runs beside it.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

APART = frozenset(
    f"tests/{name}.py"
    for name in (
        "e2e/test_demo",
        "e2e/test_geodns",
        "e2e/test_large",
        "e2e/test_site",
        "fault/test_clients",
        "fault/test_fleet_processes",
        "fault/test_machine",
        "fault/test_worker_death",
        "geodns/test_processes",
        "loadtests/test_load",
        "purge/coordinator/test_process",
        "purge/test_nats_bus",
        "supervisor/test_processes",
        "supervisor/test_reload",
        "supervisor/test_warm_restart",
    )
)

FIRST = ("loadtests", "e2e", "fault", "conformance/test_suite", "supervisor", "purge", "edge", "geodns")
"""Where the tests are that take long: begun last, they would be what everybody waits for."""


def rank(item: pytest.Item) -> int:
    if item.get_closest_marker("alone"):
        return len(FIRST) + 1
    below = item.nodeid.removeprefix("tests/")
    return next((i for i, start in enumerate(FIRST) if below.startswith(start)), len(FIRST))


class Abreast(LoadScopeScheduling):
    """Hands out modules, and single tests of those in `APART`, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return nodeid if module in APART else module


@contextmanager
def turn(item: pytest.Item) -> Iterator[None]:
    """For the time of one test. One that is to be alone begins when those that the others run have ended."""
    folder = Path(item.config.option.basetemp).parent  # all processes of a run have theirs in it
    alone = item.get_closest_marker("alone") is not None
    with (folder / "door").open("a+b") as door, (folder / "room").open("a+b") as room:
        # Locks of the process: what a test has forked does not hold them when this one is gone.
        fcntl.lockf(door, fcntl.LOCK_EX)  # who waits for the room to be empty keeps the door
        fcntl.lockf(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.lockf(door, fcntl.LOCK_UN)
        yield
