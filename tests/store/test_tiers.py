"""Memory and disk as one store, without an edge: who may write what, and what may never come back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgecache._native.arena import FLAG_HIT_FOR_PASS, Arena
from edgecache.store import tiers
from edgecache.store.disk import DiskStore, disk_key
from edgecache.store.diskentry import DiskEntry
from edgecache.store.memory import MemoryStore, Record
from edgecache.store.tiers import TieredStore
from edgecache.store.volume import MIN_SIZE, Put
from tests.store.kit import record


@asynccontextmanager
async def tiered(
    path: Path, *, always: bool = True, large: int = 1 << 30, beside: TieredStore | None = None
) -> AsyncIterator[TieredStore]:
    """Each one has a memory of its own, as after a restart; or that of another process, `beside`."""
    arena = Arena(4 << 20, max_object=1 << 16) if beside is None else beside.arena
    memory = MemoryStore(arena) if beside is None else MemoryStore(arena, beside.secret)
    disk = DiskStore(path, MIN_SIZE, owner=1 if beside is None else 2, purged=arena.purged, retry_s=0.02)
    store = TieredStore(memory, disk, always=always, large=large)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def read(store: TieredStore, text: str) -> bytes | None:
    entry = store.get(store.key(text))
    return None if entry is None else entry.read(0, entry.body_size)


async def test_what_was_stored_comes_up(tmp_path: Path) -> None:
    async with tiered(tmp_path) as store:
        assert store.put(store.key("a"), record("a", tags=(1,)), [b"one", b"two"])
        assert store.put(store.variant_key(store.key("a"), b"gzip"), record("b"), [b"zipped"])
    async with tiered(tmp_path) as store:
        keys = [store.key("a"), store.variant_key(store.key("a"), b"gzip"), store.key("b")]
        assert read(store, "a") is None
        assert await store.load(keys)
        assert read(store, "a") == b"onetwo"
        entry = store.get(keys[1])
        assert entry is not None
        assert entry.head == record("b").head
        assert not await store.load(keys[2:])


async def test_what_came_into_memory_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    async with tiered(tmp_path) as store:
        store.put(store.key("a"), record("a"), [b"old"])
    async with tiered(tmp_path) as store:
        loading = asyncio.ensure_future(store.load([store.key("a")]))
        await asyncio.sleep(0)
        store.put(store.key("a"), record("a"), [b"new"])
        await loading
        assert read(store, "a") == b"new"


async def test_what_was_purged_meanwhile_does_not_come_up(tmp_path: Path) -> None:
    async with tiered(tmp_path) as store:
        store.put(store.key("a"), record("a", tags=(7,)), [b"old"])
    async with tiered(tmp_path) as store:
        loading = asyncio.ensure_future(store.load([store.key("a")]))
        await asyncio.sleep(0)
        store.arena.append_purge([7], soft=False)
        await loading
        assert read(store, "a") is None


@pytest.mark.parametrize("newer", ["not yet asked for", "removed", "hit-for-pass"])
async def test_what_it_replaced_is_not_left_on_disk(tmp_path: Path, newer: str) -> None:
    async with tiered(tmp_path) as store:
        store.put(store.key("a"), record("a"), [b"old"])
    async with tiered(tmp_path, always=False) as store:
        match newer:
            case "removed":
                store.remove(store.key("a"))
            case "hit-for-pass":
                marker = Record(b"", b"", 0.0, 9e9, 0.0, FLAG_HIT_FOR_PASS, 0, 0, ())
                store.put(store.key("a"), marker, [])
            case _:
                store.put(store.key("a"), record("a"), [b"new"])
    async with tiered(tmp_path) as store:
        assert not await store.load([store.key("a")])


async def test_only_what_is_asked_for_again_or_large_is_written(tmp_path: Path) -> None:
    async with tiered(tmp_path, always=False, large=1000) as store:
        for text, size in (("once", 10), ("again", 10), ("later", 10), ("much later", 10), ("large", 1000)):
            store.put(store.key(text), record(text), [bytes(size)])
        read(store, "again")
        now = tiers.wall_clock()
        store.look(now + tiers.LOOK_AFTER_S[0])
        read(store, "later")
        store.look(now + sum(tiers.LOOK_AFTER_S[:2]))
        store.look(now + sum(tiers.LOOK_AFTER_S))
        read(store, "much later")
        store.look(now + sum(tiers.LOOK_AFTER_S) + 10 * tiers.LOOK_AFTER_S[-1])
        await store.disk.flush()
        found = ("again", "later", "much later", "large")
        for text, there in (("once", False), *((text, True) for text in found)):
            entry = await store.disk.get(disk_key(text))
            assert (entry is not None) == there, text
            if entry is not None:
                entry.close()


async def test_a_freshened_response_is_written_anew(tmp_path: Path) -> None:
    async with tiered(tmp_path) as store:
        store.put(store.key("a"), record("before"), [b"body"])
        entry = store.get(store.key("a"))
        assert entry is not None
        assert store.freshen(store.key("a"), entry.generation, record("after"))
    async with tiered(tmp_path) as store:
        assert await store.load([store.key("a")])
        entry = store.get(store.key("a"))
        assert entry is not None
        assert (entry.head, entry.read(0, 10)) == (record("after").head, b"body")


async def test_the_end_writes_what_only_memory_has(tmp_path: Path) -> None:
    async with tiered(tmp_path, always=False) as store:
        for text in ("kept", "purged", "removed", "changed"):
            store.put(store.key(text), record(text, tags=(len(text),)), [b"before"])
        store.remove(store.key("removed"))
        store.arena.append_purge([len("purged")], soft=False)
        entry = store.get(store.key("changed"))
        assert entry is not None
        assert store.freshen(store.key("changed"), entry.generation, record("after"))
        marker = Record(b"", b"", 0.0, 9e9, 0.0, FLAG_HIT_FOR_PASS, 0, 0, ())
        store.put(store.key("passing"), marker, [])
        assert await store.save(5.0) >= 1
        assert await store.save(5.0) == 0
    async with tiered(tmp_path) as store:
        texts = ("kept", "purged", "removed", "changed", "passing")
        await store.load([store.key(text) for text in texts])
        found = {text: read(store, text) for text in texts}
        assert found == {"kept": b"before", "purged": None, "removed": None, "changed": b"before", "passing": None}
        entry = store.get(store.key("changed"))
        assert entry is not None
        assert entry.head == record("after").head


async def test_the_end_begins_with_what_is_worth_most_and_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tiered(tmp_path, always=False) as store:
        store.disk._queue_bytes = 3000
        texts = ("first", "used", "last")
        for text in texts:
            store.put(store.key(text), record(text), [bytes(2000)])
        read(store, "used")
        wrote: list[bytes] = []
        put = store.disk.put
        monkeypatch.setattr(store.disk, "put", lambda key, *rest: wrote.append(key) or put(key, *rest))
        assert await store.save(5.0) == 3
        assert wrote == [disk_key(text) for text in ("used", "last", "first")]
        assert (store.disk.counters.stored, store.disk.counters.dropped) == (3, 0)


async def test_the_end_goes_on_where_the_look_has_written_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tiered(tmp_path, always=False) as store:
        texts = ("first", "second", "third")
        for text in texts:
            store.put(store.key(text), record(text), [b"x"])
            read(store, text)
        patiently = store.disk.put_patiently

        async def waiting(key: bytes, record: Record, body: Sequence[bytes], stored: Callable[[int], None]) -> bool:
            store.look(tiers.wall_clock() + tiers.LOOK_AFTER_S[0])
            return await patiently(key, record, body, stored)

        monkeypatch.setattr(store.disk, "put_patiently", waiting)
        assert await store.save(5.0) == 1
        for text in texts:
            assert await store.disk.get(disk_key(text)) is not None


async def test_a_patient_store_waits_for_what_is_being_written_too(tmp_path: Path) -> None:
    async with tiered(tmp_path) as store:
        store.disk._queue_bytes = 3000
        assert store.disk.put(disk_key("a"), record("a"), [bytes(2000)])
        while store.disk._jobs:  # noqa: ASYNC110 - the writer takes it in a step of its own
            await asyncio.sleep(0)
        assert await store.disk.put_patiently(disk_key("b"), record("b"), [bytes(2000)])
        assert not await store.disk.put_patiently(disk_key("c"), record("c"), [bytes(4000)])


async def test_the_end_takes_no_longer_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tiered(tmp_path, always=False) as store:
        for text in ("a", "b"):
            store.put(store.key(text), record(text), [b"x"])
        stuck = asyncio.Event()
        with monkeypatch.context() as patch:
            patch.setattr(store.disk, "flush", stuck.wait)
            assert await store.save(0.01) == 2
        store.put(store.key("c"), record("c"), [b"x"])
        store.disk._turn_off(OSError(5, "Input/output error"))
        assert await store.save(5.0) == 0


async def test_what_others_change_while_it_is_written_is_not_left_on_disk(tmp_path: Path) -> None:
    """Another process, which goes on, and thinks that there is nothing on disk."""
    async with tiered(tmp_path, always=False) as store:
        texts = ("same", "replaced", "removed")
        for text in texts:
            store.put(store.key(text), record(text), [b"old"])
        other = MemoryStore(store.arena, store.secret)
        flush = store.disk.flush

        async def meanwhile() -> None:
            await flush()
            other.put(other.key("replaced"), record("replaced"), [b"new"])
            other.remove(other.key("removed"))

        store.disk.flush = meanwhile  # type: ignore[method-assign]
        await store.save(5.0)
        store.disk.flush = flush  # type: ignore[method-assign]
    async with tiered(tmp_path) as store:
        await store.load([store.key(text) for text in texts])
        assert {text: read(store, text) for text in texts} == {"same": b"old", "replaced": None, "removed": None}


@pytest.mark.parametrize("what", ["replaced", "removed", "not to be stored any more"])
async def test_what_another_process_has_written_since_the_look_does_not_come_back(tmp_path: Path, what: str) -> None:
    async with tiered(tmp_path, always=False) as store:
        key = store.key("a")
        assert not await store.load([key]), "there is nothing on disk, as far as this process knows"
        async with tiered(tmp_path, beside=store) as other:
            other.put(other.key("a"), record("a"), [b"old"])
        match what:
            case "replaced":
                store.put(key, record("a"), [b"new"])
            case "removed":
                assert store.remove(key)
            case _:
                store.put(key, replace(record("a"), flags=FLAG_HIT_FOR_PASS), [])
    async with tiered(tmp_path) as store:
        await store.load([store.key("a")])
        assert read(store, "a") is None


def evict(store: TieredStore, key: bytes) -> None:
    for number in {*range(256)} - {key[0]}:
        store.arena.put(
            bytes([number, *key[1:]]), b"", b"", [bytes(1 << 15)], born_at=0.0, fresh_until=9e9,
            stale_until=0.0, flags=0, status=200, fill_seq=0, tags=(),
        )  # fmt: skip
    assert store.peek(key) is None


@asynccontextmanager
async def held_up(store: TieredStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Its process is late at the disk: what it has queued is written after the block."""
    go_on, write = threading.Event(), store.disk._volume.put

    def late(puts: Sequence[Put], now: float, *, settle: bool = True) -> None:
        assert go_on.wait(60)
        write(puts, now, settle=settle)

    with monkeypatch.context() as patch:
        patch.setattr(store.disk._volume, "put", late)
        try:
            yield
        finally:
            go_on.set()
            await store.disk.flush()


@pytest.mark.parametrize(
    "what", ["replaced", "replaced, asked for once", "freshened", "not stored", "removed", "evicted"]
)
async def test_what_is_written_late_does_not_outlast_what_came_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async with (
        tiered(tmp_path) as late,
        tiered(tmp_path, beside=late, always=what != "replaced, asked for once") as other,
    ):
        key = other.key("a")
        async with held_up(late, monkeypatch):
            assert late.put(late.key("a"), record("before"), [b"old"])
            match what:
                case "replaced" | "replaced, asked for once":
                    other.put(key, record("after"), [b"new"])
                case "freshened":
                    entry = other.peek(key)
                    assert entry is not None
                    assert other.freshen(key, entry.generation, replace(record("after"), fresh_until=8e9))
                case "not stored":
                    other.put(key, replace(record("after"), flags=FLAG_HIT_FOR_PASS), [])
                case "removed":
                    assert other.remove(key)
                case _:
                    evict(other, key)
            await other.disk.flush()
    async with tiered(tmp_path) as store:
        await store.load([store.key("a")])
        assert read(store, "a") == (b"old" if what == "evicted" else None)


@pytest.mark.parametrize("what", ["replaced and evicted", "replaced and purged", "evicted and removed", "saved"])
async def test_what_is_written_late_does_not_outlast_what_is_gone_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async with tiered(tmp_path, always=what != "saved") as late, tiered(tmp_path, beside=late) as other:
        key = other.key("a")
        async with held_up(late, monkeypatch):
            late.put(late.key("a"), record("before", tags=(1,)), [b"old"])
            match what:
                case "replaced and evicted":
                    other.put(key, record("after"), [b"new"])
                    evict(other, key)
                case "replaced and purged":
                    other.put(key, record("after", tags=(1, 2)), [b"new"])
                    other.arena.append_purge([2], soft=False)
                case "evicted and removed":
                    evict(other, key)
                    other.remove(key)
                case _:
                    assert await late.save(0.05) == 1, "it takes longer than it may"
                    other.put(key, record("after"), [b"new"])
            await other.disk.flush()
    async with tiered(tmp_path) as store:
        await store.load([store.key("a")])
        assert read(store, "a") is None


async def test_what_is_written_late_in_place_of_the_newer_has_that_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tiered(tmp_path) as late, tiered(tmp_path, beside=late) as other:
        async with held_up(late, monkeypatch):
            late.put(late.key("a"), record("a"), [b"body"])
            entry = other.peek(other.key("a"))
            assert entry is not None
            assert other.freshen(other.key("a"), entry.generation, replace(record("after"), fresh_until=8e9))
            await other.disk.flush()
        late.look(tiers.wall_clock() + tiers.LOOK_AFTER_S[0])
    async with tiered(tmp_path) as store:
        await store.load([store.key("a")])
        entry = store.peek(store.key("a"))
        assert entry is not None
        assert entry.head == record("after").head


async def test_the_end_removes_nothing_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tiered(tmp_path, always=False) as store, tiered(tmp_path, beside=store) as other:
        store.put(store.key("a"), record("before"), [b"old"])
        flush = store.disk.flush

        async def meanwhile() -> None:
            await flush()
            other.put(other.key("a"), record("after"), [b"new"])
            await other.disk.flush()

        with monkeypatch.context() as patch:
            patch.setattr(store.disk, "flush", meanwhile)
            assert await store.save(5.0) == 1
    async with tiered(tmp_path) as store:
        await store.load([store.key("a")])
        assert read(store, "a") == b"new"


@pytest.mark.parametrize("what", ["replaced", "removed"])
async def test_what_was_absent_once_is_looked_for_again(tmp_path: Path, what: str) -> None:
    """Another process has written it since, and memory has let go of it."""
    async with tiered(tmp_path, always=False) as store, tiered(tmp_path, beside=store) as other:
        key = store.key("a")
        assert not await store.load([key])
        other.put(other.key("a"), record("before"), [b"old"])
        await other.disk.flush()
        evict(store, key)
        if what == "replaced":
            store.put(key, record("after"), [b"new"])
        else:
            store.remove(key)
    async with tiered(tmp_path) as store:
        assert not await store.load([store.key("a")])


async def test_what_is_not_found_for_its_removal_may_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tiered(tmp_path, always=False, large=3) as late, tiered(tmp_path, beside=late) as other:
        key = late.key("a")
        go_on, remove = threading.Event(), late.disk._volume.remove
        monkeypatch.setattr(late.disk._volume, "remove", lambda *rest: go_on.wait(60) and remove(*rest))
        async with held_up(late, monkeypatch):
            late.put(key, record("before"), [b"old"])
            other.put(other.key("a"), record("after"), [b"new"])
            go = asyncio.ensure_future(late.disk.flush())

            async def compared() -> None:
                while not late.disk.removing(disk_key("a")):  # noqa: ASYNC110 - the writer comes to it in its turn
                    await asyncio.sleep(0)

            monkeypatch.setattr(late.disk, "flush", compared)
        await other.disk.flush()
        other.put(other.key("a"), record("after"), [b"new"])
        await other.disk.flush()
        evict(late, key)
        assert not await late.load([key])
        late.put(key, record("newest"), [b"x"])
        go_on.set()
        await go
        monkeypatch.undo()
    async with tiered(tmp_path) as store:
        assert not await store.load([store.key("a")])


async def test_what_is_removed_on_its_way_up_does_not_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tiered(tmp_path) as store:
        store.put(store.key("a"), record("a"), [b"old"])
    async with tiered(tmp_path) as store, tiered(tmp_path, beside=store) as other:
        found, go_on, get = asyncio.Event(), asyncio.Event(), store.disk.get

        async def slowly(key: bytes) -> DiskEntry | None:
            entry = await get(key)
            found.set()
            await go_on.wait()
            return entry

        monkeypatch.setattr(store.disk, "get", slowly)
        loading = asyncio.ensure_future(store.load([store.key("a")]))
        await found.wait()
        other.put(other.key("a"), record("b"), [b"new"])
        assert other.remove(other.key("a"))
        go_on.set()
        assert not await loading
        assert read(store, "a") is None


async def test_what_is_new_costs_the_disk_nothing(tmp_path: Path) -> None:
    async with tiered(tmp_path, always=False) as store:
        await store.load([store.key("a")])
        store.put(store.key("a"), record("a"), [b"one"])
        assert (await store.disk.stats())["bytes_queued"] == 0


async def test_what_memory_knows_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "KEYS_MAX", 100)
    monkeypatch.setattr(tiers, "PENDING_MAX", 30)
    async with tiered(tmp_path, always=False) as store:
        for i in range(1000):
            store.put(store.key(str(i)), record(i), [b"x"])
        assert len(store._keys) <= 100
        assert len(store._pending[0]) <= 10
        assert len(store._unwritten) <= 100


async def test_removals_while_it_is_off_are_done_when_it_is_on(tmp_path: Path) -> None:
    async with tiered(tmp_path) as store:
        store.put(store.key("a"), record("a"), [b"old"])
        await store.disk.flush()
        store.disk._turn_off(OSError(5, "Input/output error"))
        store.put(store.key("a"), record("a"), [b"new"])
        for _ in range(1000):
            if store.disk.on:
                break
            await asyncio.sleep(0.01)
        await store.disk.flush()
        entry = await store.disk.get(disk_key("a"))
        assert entry is None
