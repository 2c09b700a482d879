"""Purges are forgotten once nothing stored needs them, and not before: against a memory that forgets nothing."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache._native.arena import Arena
from edgecache.purge import forgetting
from edgecache.purge.forgetting import LATE_S, PART, Forgetting
from edgecache.purge.message import PurgeOrder
from edgecache.store.disk import DiskStore
from edgecache.store.memory import MemoryStore
from edgecache.store.tiers import TieredStore
from edgecache.store.volume import MIN_SIZE
from tests.edge import world as edges
from tests.store.kit import record

SLOTS = 64
NUMBERS = {"born_at": 1.0, "fresh_until": 9e9, "stale_until": 0.0, "flags": 0, "status": 200}


def key(number: int) -> bytes:
    return number.to_bytes(8, "little") + (number * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "little")


def put(arena: Arena, number: int, tags: list[int], fill_seq: int) -> bool:
    return arena.put(key(number), b"", b"", [b"x"], tags=tags, fill_seq=fill_seq, **NUMBERS)  # type: ignore[arg-type]


@dataclass
class Plain:
    """Every purge there ever was, and what is stored."""

    hard: dict[int, int] = field(default_factory=dict)
    soft: dict[int, int] = field(default_factory=dict)
    stored: dict[int, tuple[int, list[int]]] = field(default_factory=dict)

    def verdict(self, fill_seq: int, tags: list[int]) -> int:
        if any(self.hard.get(tag, 0) > fill_seq for tag in tags):
            return 2
        return int(any(self.soft.get(tag, 0) > fill_seq for tag in tags))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 40), st.lists(st.integers(1, 20), max_size=3), st.integers(0, 3)),
        st.tuples(st.just("purge"), st.integers(1, 20), st.booleans(), st.just(0)),
        # Of tags that nothing carries: what fills a table.
        st.tuples(st.just("many"), st.integers(1, SLOTS // 4), st.booleans(), st.just(0)),
        st.tuples(st.just("time"), st.integers(1, 100), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(operations=operations)
def test_nothing_that_was_purged_is_valid_and_nothing_else_is_lost(operations: list[tuple]) -> None:  # type: ignore[type-arg]
    """Looked at as often as here, the table is never full, so nothing may be purged that was not."""
    arena, plain, clock = Arena(4 << 20, max_object=64 << 10, purge_slots=SLOTS), Plain(), Clock()
    tidier = Forgetting(arena, clock=clock)
    fresh = 1000

    async def run() -> None:
        nonlocal fresh
        for what, a, b, back in operations:
            if what == "put":
                # What began before the last forgetting may be refused; what began since then is judged as it is.
                fill_seq = max(arena.sequence() - back, 0)
                done = put(arena, a, b, fill_seq)
                good = plain.verdict(fill_seq, b) == 0
                assert done <= good
                assert done == good or fill_seq < arena.proved()
                if done:
                    plain.stored[a] = (fill_seq, b)
            elif what == "time":
                clock.now += a
            else:
                tags = [a] if what == "purge" else list(range(fresh, fresh := fresh + a))
                number = arena.append_purge(tags, soft=b)
                (plain.soft if b else plain.hard).update(dict.fromkeys(tags, number))
            await tidier.look()
            for number, (fill_seq, tags) in plain.stored.items():
                entry, verdict = arena.peek(key(number)), plain.verdict(fill_seq, tags)
                assert (entry is None) == (verdict == 2)
                assert entry is None or entry.soft_purged == (verdict == 1)

    asyncio.run(run())
    assert arena.stats()["folds"] == 0
    arena.check()


async def test_the_table_never_fills(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred times as many keys as it has slots, and what none of them tags stays."""
    arena, clock = Arena(4 << 20, max_object=64 << 10, purge_slots=SLOTS), Clock()
    tidier = Forgetting(arena, clock=clock)
    assert put(arena, 1, [7], 0)
    for number in range(100 * SLOTS):
        arena.append_purge([1000 + number], soft=number % 3 == 0)
        await tidier.look()
        clock.now += 0.1
    assert arena.peek(key(1)) is not None
    figures = arena.stats()
    assert (figures["folds"], figures["purge_slots"]) == (0, SLOTS)
    assert figures["purges_forgotten"] > 99 * SLOTS
    assert "full" not in caplog.text


async def test_what_is_under_way_is_stored_where_the_table_has_room() -> None:
    arena, clock = Arena(4 << 20, max_object=64 << 10, purge_slots=SLOTS), Clock()
    tidier = Forgetting(arena, clock=clock)
    crowd(arena, 1000)
    assert await tidier.look() == 0, "so few may stay, and nobody knows how old they are"
    begun = arena.sequence()
    clock.now += LATE_S
    crowd(arena, 2000)
    assert await tidier.look() == SLOTS // PART, "those of a minute ago"
    assert put(arena, 1, [7], begun)
    clock.now += 1
    crowd(arena, 3000)
    crowd(arena, 4000)
    assert await tidier.look() == 3 * SLOTS // PART, "too many came since"
    assert not put(arena, 1, [7], begun)


async def test_more_at_once_than_there_is_room_for_is_folded_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    arena, clock = Arena(4 << 20, max_object=64 << 10, purge_slots=SLOTS), Clock()
    tidier = Forgetting(arena, clock=clock)
    await tidier.look()
    assert put(arena, 1, [7], 0)
    for lot in range(2):
        arena.append_purge(list(range(1000 * (lot + 1), 1000 * (lot + 1) + SLOTS)), soft=False)
        await tidier.look()
    assert arena.peek(key(1)) is None, "more is purged, never less"
    assert caplog.text.count("purge table was full") == 1
    assert "purge.table_slots" in caplog.records[0].__dict__["remedy"]


# --- with a disk tier ---


@dataclass
class Node:
    arena: Arena
    store: TieredStore
    tidier: Forgetting

    def memory_only(self) -> None:
        """Let memory lose everything, as if it had been evicted."""
        for number in range(10):
            self.arena.remove(self.store.key(f"http://site/{number}"))

    async def body(self, number: int) -> bytes | None:
        name = self.store.key(f"http://site/{number}")
        await self.store.load([name])
        entry = self.store.get(name)
        return None if entry is None else entry.read(0, entry.body_size)

    async def put(self, number: int, *tags: int, size: int = 10) -> bool:
        name = self.store.key(f"http://site/{number}")
        stored = record(str(number), fill_seq=self.arena.sequence(), tags=tags)
        done = self.store.put(name, stored, [bytes([number]) * size])
        await self.store.disk.flush()
        return done

    async def forget(self) -> None:
        """Until the sweep has been over the disk and the table is empty enough."""
        before = self.arena.proved()
        async with asyncio.timeout(20):
            while self.arena.proved() == before:
                await self.tidier.look()
                await asyncio.sleep(0.005)


@asynccontextmanager
async def node(path: Path) -> AsyncIterator[Node]:
    arena = Arena(8 << 20, max_object=256 << 10, purge_slots=SLOTS)
    disk = DiskStore(
        path, MIN_SIZE, owner=1, purged=arena.purged, proved=arena.proved, sequence=arena.sequence, retry_s=0.02
    )
    store = TieredStore(MemoryStore(arena), disk, always=True, large=1 << 30)
    await store.start()
    tidier = Forgetting(arena, clock=Clock(), disk_clean=lambda: disk.clean_through, sweep_soon=disk.sweep_soon)
    try:
        yield Node(arena, store, tidier)
    finally:
        await store.close()


def crowd(arena: Arena, first: int) -> None:
    """Purges of what nobody has."""
    arena.append_purge(list(range(first, first + SLOTS // PART)), soft=False)


@pytest.mark.parametrize("size", [10, 200_000], ids=["in the row", "in a file"])
async def test_what_is_on_disk_stays_good(tmp_path: Path, size: int) -> None:
    async with node(tmp_path) as here:
        for number in range(4):
            assert await here.put(number, number + 1, size=size)
        here.arena.append_purge([2], soft=False)
        here.arena.append_purge([3], soft=True)
        crowd(here.arena, 1000)
        await here.forget()
        assert here.arena.purged(0, [2]) == 2, "by the floor"
        here.memory_only()
        found = [await here.body(number) for number in range(4)]
        assert [None if body is None else body[:1] for body in found] == [b"\0", None, None, b"\3"]
        # It is what was filled at the start that is in memory now, and is judged by all that comes.
        here.arena.append_purge([1], soft=False)
        assert await here.body(0) is None
        crowd(here.arena, 2000)
        await here.forget()
        here.memory_only()
        assert [await here.body(number) is None for number in range(4)] == [True, True, True, False]


async def test_nothing_is_forgotten_before_the_disk_is_clean(tmp_path: Path) -> None:
    async with node(tmp_path) as here:
        assert await here.put(0, 1)
        here.tidier._disk_clean = lambda: 0
        here.arena.append_purge([1], soft=False)
        crowd(here.arena, 1000)
        assert await here.tidier.look() == 0
        assert here.arena.proved() == 0
        here.memory_only()
        assert await here.body(0) is None


async def test_a_record_known_by_its_file_is_judged_as_when_it_was_found(tmp_path: Path) -> None:
    """Its row may have gone with a purge that is forgotten, and its file be there for a moment more."""
    async with node(tmp_path) as here:
        disk, volume = here.store.disk, here.store.disk._volume
        assert await here.put(0, 1, size=200_000)
        entry = volume.get(here.store._keys[here.store.key("http://site/0")])
        assert entry is not None
        known = entry.known
        entry.close()
        again = volume.reopen(known)
        assert again is not None
        again.close()
        crowd(here.arena, 1000)
        here.arena.append_purge([9], soft=False)
        await here.forget()
        assert disk.clean_through == here.arena.proved()
        assert volume.reopen(known) is None
        entry = volume.get(known.key)
        assert entry is not None
        assert entry.proved == here.arena.proved()
        entry.close()


async def test_a_soft_purged_entry_is_not_written_as_if_it_were_good(tmp_path: Path) -> None:
    """In memory it carries a later number by now, and says itself that it is soft-purged."""
    async with node(tmp_path) as here:
        name = here.store.key("http://site/0")
        stored = record("0", fill_seq=0, tags=(1,))
        assert here.arena.put(
            name,
            stored.head,
            stored.meta,
            [b"x"],
            tags=[1],
            fill_seq=0,
            **NUMBERS,  # type: ignore[arg-type]
        )
        here.arena.append_purge([1], soft=True)
        crowd(here.arena, 1000)
        await here.forget()
        entry = here.arena.peek(name)
        assert entry is not None
        assert entry.soft_purged
        assert entry.fill_seq == here.arena.proved()
        assert here.store._consider(name)
        await here.store.disk.flush()
        assert await here.store.disk.present([here.store._keys[name]]) == set()


@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
async def test_an_edge_forgets_by_itself(tmp_path: Path, disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "LOOK_S", 0.01)
    more = {"disk": {"path": str(tmp_path / "disk"), "size": "64MiB", "admit": "always"}} if disk else {}
    async with edges.world(purge={"table_slots": SLOTS}, **more) as here:
        here.answers("one", Cache_Control="max-age=600", Surrogate_Key="a")
        await here.get()
        memory = here.edge.control._shared.arena
        for lot in range(6):
            before = memory.stats()["purges_forgotten"]
            await here.edge.purge(PurgeOrder(keys=tuple(f"{lot}-{i}" for i in range(SLOTS // PART + 1))), wait=True)
            await edges.until(lambda before=before: memory.stats()["purges_forgotten"] > before)  # type: ignore[misc]
        assert memory.stats()["folds"] == 0
        assert "hit" in (await here.get()).cache_status
        assert b"edgecache_memory_purges_forgotten_total 1" in here.edge.metrics()
        await here.edge.purge(PurgeOrder(keys=("a",)), wait=True)
        assert "hit" not in (await here.get()).cache_status
