"""A purge of many tags is one step for readers in all processes; and the deadline that all of them keep."""

import math
import os
import signal
import time

import pytest

from edgecache._native.arena import Arena

MANY = 10_000
NUMBERS = {"born_at": 0.0, "fresh_until": 9e9, "stale_until": 9e9, "flags": 0, "status": 200}


def tags(first: int) -> list[int]:
    return list(range(first, first + MANY))


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_ten_thousand_targets_are_one_step(soft: bool) -> None:
    """Who finds the first purged finds the last purged, and the other way round, while another process purges."""
    arena = Arena(32 << 20, max_object=64 << 10, purge_slots=1 << 15, processes=2)
    first, last = b"first".ljust(16), b"last".ljust(16)
    rounds, begun = 60, time.monotonic()
    pid = os.fork()
    if pid == 0:
        arena.attach(1)
        parent = os.getppid()
        ahead = list(reversed(tags(1)))
        for number in range(rounds):
            while arena.counter(0) <= number:  # the reader is about to look
                os.sched_yield()  # the other may be waiting for this very core
                if os.getppid() != parent or time.monotonic() > begun + 90:
                    os._exit(1)
            arena.append_purge(ahead if number % 2 else tags(1), soft=soft)
        os._exit(0)
    # Which of the two a writer notes first alternates, and so does which one is looked at first.
    ends = ((first, [1]), (last, [MANY]))
    seen = 0
    for number in range(rounds):
        before = arena.sequence()
        for key, tag in ends:
            assert arena.put(key, b"", b"", [b"x"], fill_seq=before, tags=tag, **NUMBERS)
        arena.add(0)
        (key, tag), (other_key, other_tag) = ends if number % 4 < 2 else ends[::-1]
        looks = 0
        while not arena.purged(before, tag):
            looks += 1
            os.sched_yield()
            assert time.monotonic() < begun + 80, "the writer does not come"
            entry = arena.peek(key)
            if entry is None or entry.soft_purged:
                break
        assert arena.purged(before, other_tag)
        other = arena.peek(other_key)
        assert other is None or other.soft_purged
        seen += looks > 0
        while arena.sequence() == before:
            os.sched_yield()
            assert time.monotonic() < begun + 80, "the writer does not come"
    assert os.waitpid(pid, 0)[1] == 0
    assert seen > rounds // 4
    arena.check()


def test_a_writer_that_dies_in_the_midst_leaves_nobody_waiting() -> None:
    arena = Arena(8 << 20, max_object=64 << 10, processes=2)
    arena.append_purge([1], soft=False)
    for point in range(1, 40):
        pid = os.fork()
        if pid == 0:
            from edgecache._native import probe

            probe.crash_after(point)
            arena.append_purge(list(range(1, 30)), soft=False)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        before = arena.sequence()
        arena.purged(before, list(range(1, 30)))
        number = arena.append_purge([5], soft=False)
        assert number > before
        assert arena.purged(number, list(range(1, 30))) == 0
        if code == 0:
            return
        assert code == -signal.SIGKILL
    pytest.fail("never got through")


def test_the_deadline() -> None:
    arena = Arena(8 << 20, max_object=64 << 10)
    assert not arena.silent()
    assert arena.trusted_until() == math.inf
    arena.trust(0.0)
    assert arena.silent()
    until = time.monotonic() + 0.05
    arena.trust(until)
    assert arena.trusted_until() == pytest.approx(until)
    while not arena.silent():
        assert time.monotonic() < until + 5
    assert time.monotonic() >= until
    arena.trust(math.inf)
    assert not arena.silent()
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="moment"):
            arena.trust(wrong)


def test_the_deadline_is_everybodys() -> None:
    arena = Arena(8 << 20, max_object=64 << 10, processes=2)
    pid = os.fork()
    if pid == 0:
        arena.trust(0.0)
        os._exit(0)
    os.waitpid(pid, 0)
    assert arena.silent()
