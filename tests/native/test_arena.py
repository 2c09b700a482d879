"""The arena's promises one by one: bounds, refusals, purges, pins, counters, errors."""

import gc
import os
import resource
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from edgecache._native import probe
from edgecache._native.arena import OVERHEAD, Arena, Entry, hash_key, hash_tag

SECRET = bytes(16)
NUMBERS: dict[str, Any] = {
    "born_at": 1.5,
    "fresh_until": 2.5,
    "stale_until": 3.5,
    "flags": 4,
    "status": 200,
    "fill_seq": 0,
}


def key(name: object) -> bytes:
    return hash_key(SECRET, str(name).encode())


def put(arena: Arena, name: object, body: bytes = b"body", *, tags: Sequence[int] = (), **numbers: Any) -> bool:
    return arena.put(key(name), b"head", b"meta", [body], tags=tags, **{**NUMBERS, **numbers})


@pytest.fixture
def arena() -> Arena:
    return Arena(4 << 20, max_object=64 << 10, shards=2)


# --- objects ---


def test_what_is_put_is_got(arena: Arena) -> None:
    assert arena.put(key(1), b"H" * 300, b"M" * 100, [b"ab", b"", b"cd"], tags=[7, 2**64 - 1], **NUMBERS)
    entry = arena.get(key(1))
    assert entry is not None
    assert (entry.key, entry.head, entry.meta, entry.body_size) == (key(1), b"H" * 300, b"M" * 100, 4)
    assert (entry.born_at, entry.fresh_until, entry.stale_until) == (1.5, 2.5, 3.5)
    assert (entry.flags, entry.status, entry.fill_seq, entry.soft_purged) == (4, 200, 0, False)
    assert entry.tags() == [7, 2**64 - 1]
    assert (entry.read(0, 4), entry.read(1, 2), entry.read(3, 9), entry.read(4, 1)) == (b"abcd", b"bc", b"d", b"")


@pytest.mark.parametrize("size", [0, 1, 191, 192, 193, 32768, 32769, 60000], ids=str)
def test_bodies_of_every_kind_of_size(arena: Arena, size: int) -> None:
    body = os.urandom(size)
    assert arena.put(key(1), b"", b"", [body], tags=[], **NUMBERS)
    with_entry = arena.get(key(1))
    assert with_entry is not None
    assert with_entry.read(0, 1 << 63) == body
    assert with_entry.read(size // 3, 1000) == body[size // 3 : size // 3 + 1000]
    arena.check()


def test_an_entry_is_a_snapshot(arena: Arena) -> None:
    put(arena, 1, b"old" * 20000)
    old = arena.get(key(1))
    assert old is not None
    put(arena, 1, b"new")
    assert old.read(0, 1 << 20) == b"old" * 20000
    arena.remove(key(1))
    for i in range(200):
        put(arena, i, b"other" * 12000)
    assert old.read(0, 1 << 20) == b"old" * 20000
    assert arena.stats()["pins"] == 1
    old.close()
    old.close()
    assert arena.stats()["pins"] == 0
    with pytest.raises(ValueError, match="closed"):
        old.read(0, 1)
    arena.check()


def test_a_pin_goes_with_its_entry(arena: Arena) -> None:
    put(arena, 1, b"x" * 50000)
    entry: Entry | None = arena.get(key(1))
    assert arena.stats()["pins"] == 1
    arena.remove(key(1))
    assert arena.stats()["bytes_pinned"] == arena.stats()["bytes_used"] > 50000
    del entry
    gc.collect()
    assert (arena.stats()["pins"], arena.stats()["bytes_used"]) == (0, 0)


def test_an_entry_keeps_its_arena() -> None:
    arena = Arena(4 << 20, max_object=64 << 10)
    put(arena, 1, b"x" * 50000)
    entry = arena.get(key(1))
    assert entry is not None
    del arena
    gc.collect()
    assert entry.read(49999, 5) == b"x"


def test_without_a_free_record_a_large_body_is_copied() -> None:
    arena = Arena(32 << 20, max_object=64 << 10, shards=1, processes=1)
    entries = []
    for i in range(400):
        assert put(arena, i, bytes([i % 256]) * 40000)
        entries.append(arena.get(key(i)))
    assert 0 < arena.stats()["pins"] < 400
    arena.check()
    assert all(e is not None and e.read(0, 1 << 20) == bytes([i % 256]) * 40000 for i, e in enumerate(entries))


def test_peek_changes_neither_recency_nor_counters() -> None:
    arena = Arena(600_000, max_object=20_000, shards=1, processes=1)
    put(arena, "first", b"x" * 10000)
    put(arena, "second", b"x" * 10000)
    assert arena.peek(key("first")) is not None
    assert arena.peek(key("none")) is None
    i = 0
    while arena.stats()["evictions"] == 0:
        put(arena, i, b"x" * 10000)
        i += 1
    assert arena.peek(key("first")) is None
    assert (arena.stats()["hits"], arena.stats()["misses"]) == (0, 0)


def test_the_least_recently_used_goes_first() -> None:
    arena = Arena(600_000, max_object=20_000, shards=1, processes=1)
    put(arena, "first", b"x" * 10000)
    put(arena, "second", b"x" * 10000)
    assert arena.get(key("first")) is not None
    i = 0
    while arena.stats()["evictions"] == 0:
        put(arena, i, b"x" * 10000)
        i += 1
    assert arena.peek(key("first")) is not None
    assert arena.peek(key("second")) is None


def test_put_refuses_what_is_too_large_or_has_too_many_tags(arena: Arena) -> None:
    put(arena, 1, b"stays")
    assert not put(arena, 1, b"x" * (64 << 10))
    assert not put(arena, 1, b"x", tags=list(range(1, 1026)))
    assert put(arena, 2, b"x", tags=list(range(1, 1025)))
    entry = arena.get(key(1))
    assert entry is not None
    assert entry.read(0, 9) == b"stays"
    many = arena.get(key(2))
    assert many is not None
    assert many.tags() == list(range(1, 1025))


def test_freshen_changes_the_front_and_keeps_the_body(arena: Arena) -> None:
    for size in (100, 50000):
        body = os.urandom(size)
        put(arena, 1, body, tags=[1])
        before = arena.get(key(1))
        assert before is not None
        assert not arena.freshen(key(1), before.generation + 1, b"h", b"m", tags=[], **NUMBERS)
        numbers = {**NUMBERS, "fresh_until": 99.0, "fill_seq": 5}
        assert arena.freshen(key(1), before.generation, b"new head" * 50, b"m2", tags=[8, 9], **numbers)
        after = arena.get(key(1))
        assert after is not None
        assert (after.head, after.meta, after.tags()) == (b"new head" * 50, b"m2", [8, 9])
        assert (after.fresh_until, after.fill_seq, after.generation) == (99.0, 5, before.generation)
        assert after.read(0, 1 << 20) == before.read(0, 1 << 20) == body
        arena.check()
    assert not arena.freshen(key(2), 1, b"h", b"m", tags=[], **NUMBERS)


def test_remove_by_generation(arena: Arena) -> None:
    put(arena, 1)
    put(arena, 1)
    entry = arena.get(key(1))
    assert entry is not None
    assert not arena.remove(key(1), entry.generation - 1)
    assert arena.remove(key(1), entry.generation)
    assert not arena.remove(key(1))


# --- bounds ---


def test_pinned_memory_counts_and_put_says_when_there_is_no_room() -> None:
    arena = Arena(4 << 20, max_object=300_000, shards=1)
    held: list[Entry | None] = []
    while len(held) < 100 and put(arena, len(held), b"x" * 299_000):
        held.append(arena.get(key(len(held))))
        arena.check()
    assert 8 <= len(held) == len(arena) == arena.stats()["pins"] < 100
    assert not put(arena, "small", b"x" * 200_000)
    assert arena.stats()["bytes_used"] <= arena.size
    for i, entry in enumerate(held):
        assert entry is not None
        assert entry.read(298_990, 100) == b"x" * 10, i
    held.clear()
    del entry
    gc.collect()
    assert put(arena, "next", b"x" * 299_000)
    arena.check()


def resident() -> int:
    """Octets of shared memory this process has touched."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("RssShmem"))
    return int(line.split()[1]) * 1024


def test_resident_memory_stays_within_the_size() -> None:
    size = 16 << 20
    before = resident()
    arena = Arena(size, max_object=200_000)
    for i in range(3000):
        put(arena, i, bytes(i * 37 % 150_000))
    assert 0 < resident() - before <= size + resource.getpagesize()
    assert arena.stats()["evictions"] > 1000


def test_an_object_of_1_kib_costs_at_most_160_octets_and_15_percent() -> None:
    arena = Arena(64 << 20)
    head = b"x" * 200
    for i in range(100_000):
        arena.put(key(i), head, b"", [b"y" * 1024], tags=[], **NUMBERS)
    layout, stats = probe.layout(arena), arena.stats()
    assert stats["evictions"] > 0
    per_unit = 4 + layout["buckets"] * layout["bucket"] / layout["units"]
    overhead = layout["object_header"] + 7 * per_unit
    assert overhead <= 160
    assert abs(overhead - OVERHEAD) < 2
    slack = stats["bytes_slack"] / stats["objects"]
    assert slack <= 0.15 * 1024
    # All in all, what the mapping spends an object, with every table and what is kept free.
    assert arena.size / stats["objects"] <= (1224 + 160) * 1.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1000}, "needs at least [0-9]+ for its index"),
        ({"size": 8 << 20}, "1048576"),
        ({"size": 1 << 20, "max_object": 1000, "shards": 4097}, "shards must be between"),
        ({"size": 1 << 20, "max_object": 0}, "max_object must be between"),
        ({"size": -1}, "size must be between"),
        ({"size": 1 << 20, "max_object": 1000, "processes": 0}, "processes must be between"),
    ],
    ids=["tiny", "eight of the largest", "shards", "max_object", "size", "processes"],
)
def test_what_cannot_be_built_is_said(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arena(**arguments)


@pytest.mark.parametrize("max_object", [1, 1000, 40_000, 1 << 20])
@pytest.mark.parametrize("shards", [1, 5])
def test_the_least_that_is_named_is_the_least(max_object: int, shards: int) -> None:
    with pytest.raises(ValueError, match="at least") as caught:
        Arena(1, max_object=max_object, shards=shards)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    arena = Arena(least, max_object=max_object, shards=shards)
    for shard in range(shards):
        high = ((shard << 32) // shards + 1) << 32
        for i in range(8):
            name = struct.pack("<QQ", i, high)
            assert arena.put(name, b"", b"", [b"x" * max_object], tags=[], **NUMBERS)
    assert len(arena) == 8 * shards
    arena.check()
    with pytest.raises(ValueError, match="at least"):
        Arena(least - 1, max_object=max_object, shards=shards)


# --- purges ---


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purge_concerns_what_was_filled_before_it(arena: Arena, soft: bool) -> None:
    a, b = hash_tag(b"a"), hash_tag(b"b")
    put(arena, "old", tags=[b, a])
    put(arena, "other", tags=[b])
    arena.apply_purge(5, [a], soft=soft)
    assert arena.sequence() == 5
    assert not put(arena, "late", tags=[a], fill_seq=4)
    assert put(arena, "new", tags=[a], fill_seq=5)
    old, other, new = (arena.get(key(name)) for name in ("old", "other", "new"))
    assert other is not None
    assert not other.soft_purged
    assert new is not None
    assert not new.soft_purged
    if soft:
        assert old is not None
        assert old.soft_purged
        assert arena.freshen(key("old"), old.generation, b"h", b"m", tags=[a], **{**NUMBERS, "fill_seq": 5})
        fresh = arena.get(key("old"))
        assert fresh is not None
        assert not fresh.soft_purged
    else:
        assert old is None
        assert len(arena) == 2
    assert [arena.purged(n, [a]) for n in (4, 5)] == [1 if soft else 2, 0]
    assert arena.purged(0, [b]) == 0


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_the_floor_concerns_everything(arena: Arena, soft: bool) -> None:
    put(arena, "old", tags=[])
    arena.raise_floor(9, soft=soft)
    assert arena.sequence() == 9
    old = arena.get(key("old"))
    assert (old is not None and old.soft_purged) if soft else old is None
    assert not put(arena, "late", fill_seq=8)
    assert put(arena, "new", fill_seq=9)


def test_a_full_table_purges_more_never_less() -> None:
    arena = Arena(4 << 20, max_object=64 << 10, purge_slots=64)
    for number in range(1, 1001):
        put(arena, number, tags=[number], fill_seq=number - 1)
    for number in range(1, 1001):
        arena.apply_purge(number, [number], soft=False)
    assert arena.stats()["folds"] > 5
    assert all(arena.purged(number - 1, [number]) == 2 for number in range(1, 1001))
    assert all(arena.get(key(number)) is None for number in range(1, 1001))
    assert arena.purged(1000, [1000]) == 0
    assert arena.purged(999, [5]) == 0


def test_one_purge_with_more_tags_than_the_table_has_slots() -> None:
    arena = Arena(4 << 20, max_object=64 << 10, purge_slots=64)
    arena.apply_purge(7, list(range(1, 500)), soft=False)
    assert {arena.purged(6, [tag]) for tag in range(1, 500)} == {2}
    assert arena.purged(7, list(range(1, 500))) == 0


# --- arguments and counters ---


def test_counters(arena: Arena) -> None:
    arena.add(3)
    arena.add(3, 10)
    arena.add(1023, -4)
    assert (arena.counter(3), arena.counter(1023), arena.counter(0)) == (11, -4, 0)
    for bad in (-1, 1024):
        with pytest.raises(IndexError):
            arena.add(bad)
        with pytest.raises(IndexError):
            arena.counter(bad)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"key": b"short"}, ValueError),
        ({"head": None}, TypeError),
        ({"body": ["text"]}, TypeError),
        ({"tags": [0]}, ValueError),
        ({"tags": [-1]}, OverflowError),
        ({"tags": [1 << 64]}, OverflowError),
        ({"fill_seq": -1}, OverflowError),
        ({"status": 70000}, OverflowError),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_arguments_out_of_range(arena: Arena, change: dict[str, Any], error: type[Exception]) -> None:
    arguments = {"key": key(1), "head": b"", "meta": b"", "body": [b""], "tags": [], **NUMBERS, **change}
    with pytest.raises(error):
        arena.put(**arguments)
    assert len(arena) == 0


def test_slots_out_of_range(arena: Arena) -> None:
    for bad in (-1, 64):
        with pytest.raises(ValueError, match="process slots"):
            arena.attach(bad)
        with pytest.raises(ValueError, match="process slots"):
            arena.release_slot(bad)
    with pytest.raises(TypeError):
        Entry()


@pytest.mark.parametrize("eviction", ["lru", "sieve", "s3fifo"])
def test_an_entry_knows_whether_it_was_asked_for(eviction: str) -> None:
    arena = Arena(4 << 20, max_object=1 << 16, eviction=eviction)
    key = b"k" * 16

    def store() -> None:
        numbers = {"born_at": 0.0, "fresh_until": 9e9, "stale_until": 0.0}
        assert arena.put(key, b"", b"", [b"x"], flags=0, status=200, fill_seq=0, tags=(), **numbers)

    def used() -> bool:
        entry = arena.peek(key)
        assert entry is not None
        return entry.used

    store()
    assert not used()
    assert not used(), "looking without asking changes nothing"
    arena.get(key)
    assert used()
    store()
    assert used(), "nor does what replaces it forget"
