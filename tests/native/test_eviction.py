"""What each eviction policy is for, in the small. Their exact order is compared with a model in test_arena_model.py."""

import gc
import random
from collections.abc import Iterable
from typing import Any

import pytest

from edgecache._native import probe
from edgecache._native.arena import Arena, Entry, hash_key

NUMBERS: dict[str, Any] = {
    "born_at": 1.0,
    "fresh_until": 2.0,
    "stale_until": 0.0,
    "flags": 0,
    "status": 200,
    "fill_seq": 0,
    "tags": (),
}
EVICTIONS = ["lru", "sieve", "s3fifo"]


def key(name: object) -> bytes:
    return hash_key(bytes(16), str(name).encode())


def make(eviction: str, size: int = 600_000, max_object: int = 20_000) -> Arena:
    return Arena(size, max_object=max_object, shards=1, processes=1, pin_above=40_000, eviction=eviction)


def ask(arena: Arena, names: Iterable[object], size: int = 1000) -> int:
    """As a cache is used: get, and put what is not there. How many were there."""
    hits = 0
    for name in names:
        if arena.get(key(name)) is not None:
            hits += 1
        else:
            arena.put(key(name), b"", b"", [bytes(size)], **NUMBERS)
    return hits


def there(arena: Arena, names: Iterable[object]) -> list[object]:
    return [name for name in names if arena.peek(key(name)) is not None]


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_a_scan_and_what_was_popular_before_it(eviction: str) -> None:
    arena = make(eviction)
    popular = range(50)
    for _ in range(4):
        ask(arena, popular)
    ask(arena, (("scan", i) for i in range(2000)))
    arena.check()
    left = there(arena, popular)
    assert left == ([] if eviction == "lru" else list(popular))


@pytest.mark.parametrize("eviction", ["sieve", "s3fifo"])
def test_a_scan_with_hits_among_it(eviction: str) -> None:
    """Of Zipf requests with as many that come once, more are hits than under LRU."""
    draw = random.Random(1)
    ranks = [rank for rank in range(1, 5000) for _ in range(round(5000 / rank**1.1))]
    names = [name for i in range(30_000) for name in (draw.choice(ranks), ("once", i))]
    assert ask(make(eviction), names) > 1.05 * ask(make("lru"), names)


def test_sieve_keeps_places_and_its_hand() -> None:
    arena = make("sieve")
    names = ["a", "b", "c", "d"]
    ask(arena, names)
    ask(arena, ["b", "d"])
    main, small = probe.queues(arena, 0)
    assert [(name, uses) for name, uses, _ in main] == [(key("d"), 1), (key("c"), 0), (key("b"), 1), (key("a"), 0)]
    assert small == []
    i = 0
    while arena.stats()["evictions"] == 0:
        ask(arena, [("x", i)])
        i += 1
    assert there(arena, names) == ["b", "c", "d"]
    while arena.stats()["evictions"] == 1:
        ask(arena, [("x", i)])
        i += 1
    assert there(arena, names) == ["b", "d"]
    main, _ = probe.queues(arena, 0)
    # b lost its mark as the hand passed it, and kept its place; the hand stands at d, the next to look at.
    assert [(name, uses, hand) for name, uses, hand in main[-2:]] == [(key("d"), 1, True), (key("b"), 0, False)]


def test_s3fifo_lets_in_what_was_asked_for_thrice_or_comes_back() -> None:
    arena = make("s3fifo")
    ask(arena, ["thrice", "twice", "once", "thrice", "twice", "thrice"])
    i = 0
    while there(arena, ["once"]):
        ask(arena, [("x", i)])
        i += 1
    main, _ = probe.queues(arena, 0)
    assert [name for name, _, _ in main] == [key("thrice")]
    assert there(arena, ["once", "twice", "thrice"]) == ["thrice"]
    ask(arena, ["once"])
    main, small = probe.queues(arena, 0)
    assert [name for name, _, _ in main] == [key("once"), key("thrice")]
    ask(arena, ["never seen"])
    assert probe.queues(arena, 0)[1][0][0] == key("never seen")
    assert len(small) == len(arena) - 2


def test_s3fifo_forgets_ghosts() -> None:
    arena = make("s3fifo")
    ask(arena, ["old"])
    ask(arena, (("x", i) for i in range(3000)))
    ask(arena, ["old"])
    assert probe.queues(arena, 0)[0] == []


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_what_is_freshened_or_replaced_keeps_what_was_known_of_it(eviction: str) -> None:
    arena = make(eviction)
    ask(arena, ["a", "b", "c", "b", "b", "b"])
    entry = arena.peek(key("b"))
    assert entry is not None
    assert arena.freshen(key("b"), entry.generation, b"h" * 300, b"", **NUMBERS)
    arena.check()
    order = [[(name, uses) for name, uses, _ in queue] for queue in probe.queues(arena, 0)]
    a, b, c = key("a"), key("b"), key("c")
    assert (
        order
        == {
            "lru": [[(b, 1), (c, 0), (a, 0)], []],
            "sieve": [[(c, 0), (b, 1), (a, 0)], []],
            "s3fifo": [[], [(c, 0), (b, 3), (a, 0)]],
        }[eviction]
    )
    arena.put(b, b"", b"", [b"new"], **NUMBERS)
    arena.check()
    main, small = probe.queues(arena, 0)
    assert (main or small)[0][:2] == (b, {"lru": 1, "sieve": 1, "s3fifo": 3}[eviction])


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_what_is_being_sent_is_passed_over(eviction: str) -> None:
    """Most of memory pinned, some of it popular; the rest still makes room, to the last object."""
    arena = Arena(1 << 20, max_object=100_000, shards=1, processes=1, pin_above=10_000, eviction=eviction)
    held: list[Entry | None] = []
    for i in range(8):
        arena.put(key(i), b"", b"", [bytes(99_000)], **NUMBERS)
        held.append(arena.get(key(i)))
        if i % 2:
            ask(arena, [i] * 3)
    for i in range(300):
        assert arena.put(key(("x", i)), b"", b"", [bytes(i * 31 % 5000)], **NUMBERS)
        arena.check()
    assert there(arena, range(8)) == list(range(8))
    while arena.put(key(("y", len(held))), b"", b"", [bytes(60_000)], **NUMBERS):
        held.append(arena.get(key(("y", len(held)))))
        arena.check()
    for i in range(300):
        assert arena.put(key(("z", i)), b"", b"", [bytes(i * 31 % 2000)], **NUMBERS)
        arena.check()
    assert arena.stats()["pins"] == len(held)
    assert all(entry is not None for entry in held)
    held.clear()
    gc.collect()
    assert arena.put(key("large"), b"", b"", [bytes(99_000)], **NUMBERS)
    arena.check()


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_an_object_of_1_kib_costs_at_most_160_octets(eviction: str) -> None:
    arena = Arena(32 << 20, eviction=eviction)
    probe.bench_put(arena, random.Random(1).randbytes(16 * 40_000), 200, 1024, 1)
    layout, stats = probe.layout(arena), arena.stats()
    assert stats["evictions"] > 0
    assert layout["object_header"] + 7 * (4 + layout["buckets"] * layout["bucket"] / layout["units"]) <= 160
    assert arena.size / stats["objects"] <= (1224 + 160) * 1.15
    arena.check()


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ValueError, match="one of lru, sieve, s3fifo, not 'fifo'"):
        Arena(16 << 20, eviction="fifo")
    assert Arena(16 << 20).eviction == "lru"
