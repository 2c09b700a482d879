"""Patterns in the arena: what is older than one is not used before it has been compared."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from edgecache._native import probe
from edgecache._native.arena import Arena, hash_key

NUMBERS: dict[str, Any] = {"born_at": 1.0, "fresh_until": 2e9, "stale_until": 0.0, "flags": 0, "status": 200}
COPIED, MISS = 2, 0


def key(name: object) -> bytes:
    return hash_key(bytes(16), str(name).encode())


def make(size: int = 1 << 20) -> Arena:
    return Arena(size, max_object=8 << 10, shards=1, purge_slots=64, processes=4)


def put(arena: Arena, name: object, *, fill_seq: int | None = None, tags: tuple[int, ...] = (7,)) -> bool:
    fill = arena.sequence() if fill_seq is None else fill_seq
    return arena.put(key(name), b"head", b"meta", [b"body"], fill_seq=fill, tags=tags, **NUMBERS)


def ban(arena: Arena, text: bytes = b"\0x", *, tag: int = 9, soft: bool = False) -> int:
    return arena.append_purge([], soft=soft, patterns=[(tag, text)])


def lane(arena: Arena, name: object) -> int:
    """What the fast lane finds."""
    return probe.lookup(arena, key(name), 1.0, 0, True, 1 << 16, 0)[0]


def test_what_is_older_is_absent_until_it_has_been_compared():
    arena = make()
    put(arena, "old")
    assert arena.newest_pattern() == 0
    assert arena.unresolved(key("old")) is None
    number = ban(arena)
    assert arena.newest_pattern() == number
    assert arena.get(key("old")) is None
    assert arena.peek(key("old")) is None
    assert lane(arena, "old") == MISS
    unresolved = arena.unresolved(key("old"))
    assert unresolved is not None
    assert (unresolved.meta, unresolved.fill_seq, unresolved.tags()) == (b"meta", 0, [7])
    assert arena.get(key("old"), number - 1) is None
    found = arena.get(key("old"), number)
    assert found is not None
    assert found.fill_seq == number, "it counts as filled then"
    assert arena.unresolved(key("old")) is None
    assert lane(arena, "old") == COPIED
    arena.check()


def test_what_is_newer_or_a_mark_needs_no_comparing():
    arena = make()
    put(arena, "mark", tags=())
    number = ban(arena)
    put(arena, "new", fill_seq=number)
    assert arena.get(key("mark")) is not None
    assert arena.get(key("new")) is not None
    assert lane(arena, "new") == COPIED


@pytest.mark.parametrize(("soft", "there"), [(False, False), (True, True)])
def test_what_matches_is_purged_by_its_tag(soft: bool, there: bool):
    arena = make()
    put(arena, "old")
    put(arena, "other", tags=(8,))
    number = ban(arena, soft=soft)
    arena.apply_purge(number, [7], soft=soft)
    found = arena.get(key("old"), number)
    assert (found is not None) is there
    if found is not None:
        assert found.soft_purged
        assert lane(arena, "old") != COPIED
        arena.append_purge([1], soft=False)
        again = arena.get(key("old"))
        assert again is not None
        assert again.soft_purged, "once compared, it says so itself"
    other = arena.get(key("other"), number)
    assert other is not None
    assert not other.soft_purged


def test_a_later_purge_of_a_compared_entry_counts():
    arena = make()
    put(arena, "old")
    number = ban(arena)
    assert arena.get(key("old"), number) is not None
    arena.append_purge([7], soft=False)
    assert arena.get(key("old")) is None
    assert arena.unresolved(key("old")) is None


def test_what_is_stored_late_has_to_be_compared():
    arena = make()
    before = arena.sequence()
    number = ban(arena)
    assert put(arena, "late", fill_seq=before)
    assert arena.get(key("late")) is None
    assert lane(arena, "late") == MISS
    assert arena.get(key("late"), number) is not None
    generation = arena.get(key("late")).generation  # type: ignore[union-attr]
    ban(arena)
    fresh = {**NUMBERS, "fill_seq": arena.sequence(), "tags": [7]}
    assert not arena.freshen(key("late"), generation, b"h", b"m", **fresh), "not before it has been compared"


def test_the_list_is_read_once_for_each_change():
    arena = make()
    version, newest, listed = arena.patterns() or (0, 0, [])
    assert (newest, listed) == (0, [])
    first, second = ban(arena, b"h\0a", tag=5), ban(arena, b"\0b" * 9, tag=0, soft=True)
    changed = arena.patterns(version)
    assert changed is not None
    assert changed[1:] == (second, [(first, 5, False, b"h\0a"), (second, 0, True, b"\0b" * 9)])
    assert arena.patterns(changed[0]) is None


@pytest.mark.parametrize(("tag", "soft"), [(9, False), (9, True), (0, False), (0, True)])
def test_the_oldest_become_what_covers_them(tag: int, soft: bool):
    """1,000 are remembered, and no more."""
    arena = make(256 << 20)
    for name, own in (("covered", 9), ("other", 8), ("compared", 9)):
        put(arena, name, tags=(own,))
    ban(arena, tag=tag, soft=soft)
    for i in range(999):
        newest = ban(arena, b"\0%d" % i, tag=5)
    assert arena.get(key("compared"), newest) is not None
    assert (len((arena.patterns() or (0, 0, []))[2]), arena.stats()["folds"]) == (1000, 0)
    newest = ban(arena, tag=5)
    assert (len((arena.patterns() or (0, 0, []))[2]), arena.stats()["folds"]) == (1000, 1)
    for name, covered in (("covered", True), ("other", tag == 0), ("compared", False)):
        found = arena.get(key(name), newest)
        assert (found is None) == (covered and not soft), name
        assert found is None or found.soft_purged == covered, name


def test_a_text_that_is_larger_than_its_room_is_widened_at_once():
    arena = make()
    put(arena, "covered", tags=(9,))
    number = ban(arena, b"x" * 60_000)
    assert arena.newest_pattern() == 0
    assert arena.sequence() == number
    assert arena.get(key("covered")) is None


def test_retired_patterns():
    arena = make()
    put(arena, "old")
    first, second = ban(arena), ban(arena)
    arena.retire_patterns(first, forgotten=False)
    assert arena.newest_pattern() == second
    assert arena.retired() == first
    assert not put(arena, "late", fill_seq=0), "it may never be compared"
    assert put(arena, "mark", fill_seq=0, tags=())
    arena.retire_patterns(first, forgotten=True)
    assert [each[0] for each in (arena.patterns() or (0, 0, []))[2]] == [second]
    assert arena.get(key("old"), second) is not None
    arena.retire_patterns(second, forgotten=True)
    assert arena.newest_pattern() == 0
    assert arena.get(key("old")) is not None
    assert not put(arena, "late", fill_seq=first)
    assert put(arena, "new", fill_seq=second)


def test_keys_are_found_bucket_by_bucket():
    arena = make(4 << 20)
    names = [f"n{i}" for i in range(300)]
    for name in names:
        put(arena, name)
    put(arena, "mark", tags=())
    number = ban(arena)
    put(arena, "new", fill_seq=number)
    found: list[bytes] = []
    bucket = 0
    while True:
        keys, bucket = arena.unresolved_keys(0, bucket, 7)
        found += keys
        if not bucket:
            break
    assert sorted(found) == sorted(map(key, names))
    for name in names:
        arena.get(key(name), number)
    assert arena.unresolved_keys(0, 0, 1 << 20) == ([], 0)
    with pytest.raises(IndexError):
        arena.unresolved_keys(1, 0, 1)


def dies(work: Callable[[], None]) -> bool:
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.fault
@pytest.mark.parametrize("what", ["add", "fold", "retire"])
def test_who_dies_while_patterns_change_loses_none(what: str):
    """More may be purged than was asked, never less: at each point where a process can die."""
    assert sum(_die_at(point, what) for point in range(12))


def _die_at(point: int, what: str) -> bool:
    arena = make()
    text = b"\0" + b"t" * (1000 if what == "fold" else 10)
    put(arena, "old")
    numbers = [ban(arena, text, tag=7 if i else 5) for i in range(4 if what == "fold" else 2)]

    def work() -> None:
        probe.crash_after(point)
        if what == "retire":
            arena.retire_patterns(numbers[0], forgotten=True)
        else:
            ban(arena, text, tag=7)

    died = dies(work)
    number = ban(arena, b"\0after")
    listed = [each[0] for each in (arena.patterns() or (0, 0, []))[2]]
    assert listed[-1] == number
    if died and not set(numbers[1:]) <= set(listed):
        assert arena.get(key("old"), number) is None, "patterns are lost, and what they may have matched is not purged"
    arena.check()
    return died


def test_restored_in_order():
    arena = make()
    arena.apply_purge(4, [], soft=False, patterns=[(9, b"\0a")])
    arena.apply_purge(6, [], soft=True, patterns=[(0, b"\0b"), (9, b"\0c")])
    assert arena.sequence() == 6
    assert (arena.patterns() or (0, 0, []))[2] == [(4, 9, False, b"\0a"), (6, 0, True, b"\0b"), (6, 9, True, b"\0c")]
