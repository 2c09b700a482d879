"""What a coordinator knows of its edges outlives its restart: who is away, since when, how far they had come."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgecache.purge.coordinator.hub import MOST_SEEN, Hub
from edgecache.purge.coordinator.roster import FILE, Known, Roster, read, write
from edgecache.purge.frames import Hello
from edgecache.purge.sqlite_log import SqliteLog
from tests.purge.bus_contract import append

NOW = 1_800_000_000.0
DAY_S = 86_400.0


class Wire:
    """A connection that takes everything."""

    address = "192.0.2.7"

    def write(self, frame: bytes) -> None: ...
    def backlog(self) -> int:
        return 0

    async def send(self, text: str) -> None: ...
    def cut(self, reason: str) -> None: ...


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW

    @asynccontextmanager
    async def hub(self, **options: Any) -> AsyncIterator[Hub]:
        """As `edgecache coordinator` puts it together."""
        log = SqliteLog(self.folder)
        await log.start()
        hub = Hub(log, wall=lambda: self.now, remember_s=DAY_S)
        roster = Roster(self.folder, hub, log=lambda: log.state().log, **options)
        await roster.start()
        await hub.start()
        try:
            yield hub
        finally:
            await hub.close("the end")
            await roster.close()
            await log.close()

    async def join(self, hub: Hub, name: str, acked: int = 0) -> None:
        state = hub._bus.state()
        subscriber = await hub.join(Hello(name, f"of {name}", "1.2", None), Wire())
        assert subscriber.sent == state.head
        if acked:
            hub.ack(subscriber, acked)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def listed(hub: Hub) -> list[tuple[str, bool, float, int]]:
    return [(state.edge, state.connected, state.since, state.lag) for state in hub.edges()]


async def test_edges_that_were_connected_are_away_since_the_end(world: World) -> None:
    async with world.hub() as hub:
        await append(hub._bus, "one")
        await world.join(hub, "a", acked=1)
        await append(hub._bus, "two")
        world.now += 60
    world.now += 60
    async with world.hub() as hub:
        assert listed(hub) == [("a", False, NOW + 60, 1)]
        assert hub.edges()[0].address == Wire.address
        assert hub.edges()[0].version == "1.2"
        waited = await hub.wait(2, 0.0, 1.0)
        assert (waited.edges, waited.away) == ((), ("a",))
        await world.join(hub, "a")
        assert [(state.edge, state.connected) for state in hub.edges()] == [("a", True)]


async def test_one_that_was_away_stays_so_since_when_it_went(world: World) -> None:
    world_edges = [Known("gone", NOW - 100, 0, "1", ""), Known("long gone", NOW - DAY_S - 1, 0, "1", "")]
    world_edges.append(Known("from the future", NOW + 1e6, 0, "1", ""))
    write(world.folder / FILE, "another log", world_edges)
    for _ in range(2):
        async with world.hub() as hub:
            assert listed(hub) == [("from the future", False, NOW, 0), ("gone", False, NOW - 100, 0)]


async def test_it_is_written_while_it_runs(world: World) -> None:
    """What a kill leaves: those connected are away since the last time."""
    async with world.hub(every_s=0.01) as hub:
        await world.join(hub, "a")
        async with asyncio.timeout(10):
            while not (known := read(world.folder / FILE, hub._bus.state().log)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert known == [Known("a", NOW, 0, "1.2", Wire.address)]


async def test_positions_of_another_log_mean_nothing(world: World) -> None:
    write(world.folder / FILE, "another log", [Known("a", NOW, 7, "1", "")])
    assert read(world.folder / FILE, "another log")[0].position == 7
    async with world.hub() as hub:
        assert hub.edges()[0].position == 0


async def test_it_is_bounded(world: World) -> None:
    write(world.folder / FILE, "", [Known(f"edge-{i}", NOW - i % 7, 0, "1", "") for i in range(MOST_SEEN + 5)])
    async with world.hub() as hub:
        assert hub.away == MOST_SEEN


@pytest.mark.parametrize(
    ("text", "edges"),
    [
        ("", []),
        ("[]", []),
        ("{", []),
        ('{"version": 2, "log": "", "edges": []}', []),
        ('{"version": 1, "log": "", "edges": [{"edge": "a"}]}', []),
        ('{"version": 1, "log": "", "edges": {"a": 1}}', []),
        (json.dumps({"version": 1, "log": "", "edges": [{"edge": 7, "version": "", "address": "", "seen": 1}]}), []),
    ],
    ids=["empty", "a list", "half", "a later version", "half an edge", "no list", "no name"],
)
async def test_a_file_that_is_none_costs_the_list(world: World, text: str, edges: list[Known]) -> None:
    (world.folder / FILE).write_text(text)
    assert read(world.folder / FILE, "") == edges
    async with world.hub() as hub:
        assert hub.edges() == []
        await world.join(hub, "a")
    assert [known.edge for known in read(world.folder / FILE, "")] == ["a"]


async def test_a_folder_that_takes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with world.hub(every_s=0.01) as hub:
        (world.folder / FILE).mkdir()
        await world.join(hub, "a")
        async with asyncio.timeout(10):
            while "are not kept" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await append(hub._bus, "one")
    assert caplog.text.count("are not kept") == 1
