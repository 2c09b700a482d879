"""Processes that die inside critical sections: content may be lost, integrity never."""

import hashlib
import os
import random
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from edgecache._native import probe
from edgecache._native.arena import Arena, hash_key

pytestmark = pytest.mark.fault

NUMBERS: dict[str, Any] = {"born_at": 1.0, "fresh_until": 2.0, "stale_until": 0.0, "flags": 0, "status": 200}


def key(name: object) -> bytes:
    return hash_key(bytes(16), str(name).encode())


def octets(size: int, seed: object) -> bytes:
    """Octets that can be checked by themselves: a digest of the rest comes first."""
    rest = random.Random(str(seed)).randbytes(max(size - 16, 0))
    return hashlib.md5(rest).digest() + rest


def whole(body: bytes) -> bool:
    return hashlib.md5(body[16:]).digest() == body[:16]


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a fork that ends without a trace of the parent's: exit status 0, or 1 and the traceback."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(pid: int) -> int:
    """How it ended: exit status, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def make(eviction: str = "lru") -> Arena:
    arena = Arena(300_000, max_object=12_000, shards=1, purge_slots=16, processes=4, pin_above=2000, eviction=eviction)
    for i in range(40):
        size = 300 + i * 211
        arena.put(key(i), b"head", b"meta", [octets(size, i)], fill_seq=0, tags=[i + 1, 100], **NUMBERS)
    for i in (1, 4, 7, 7, 20, 20, 20):
        arena.get(key(i))
    return arena


def replace(arena: Arena) -> None:
    arena.put(key(39), b"h" * 500, b"", [octets(900, "new")], fill_seq=0, tags=[1], **NUMBERS)


def store_large(arena: Arena) -> None:
    for i in range(10):
        arena.put(key(("large", i)), b"h", b"", [octets(9000, i)], fill_seq=0, tags=[1], **NUMBERS)


def freshen(arena: Arena) -> None:
    for i in (38, 39):
        entry = arena.peek(key(i))
        assert entry is not None
        arena.freshen(key(i), entry.generation, b"h" * 900, b"", fill_seq=0, tags=[2], **NUMBERS)
        entry.close()


def remove(arena: Arena) -> None:
    for i in range(40):
        arena.remove(key(i))


def hold_and_remove(arena: Arena) -> None:
    entry = arena.get(key(39))
    assert entry is not None
    arena.remove(key(39))
    entry.close()


def get_purged(arena: Arena) -> None:
    arena.raise_floor(1, soft=False)
    for i in range(40):
        arena.get(key(i))


def release(arena: Arena) -> None:
    entries = [arena.get(key(i)) for i in (37, 38, 39)]
    arena.remove(key(38))
    arena.release_slot(1)
    assert all(entries)


def purge(arena: Arena) -> None:
    for number in range(1, 40):
        arena.apply_purge(number, [number, number + 1], soft=number % 3 == 0)
    arena.raise_floor(50, soft=True)


def evict(arena: Arena) -> None:
    """Room for many, some of whom come back."""
    for i in range(40):
        arena.put(key(("new", i % 30)), b"h", b"", [octets(3000, i)], fill_seq=0, tags=[1], **NUMBERS)


def forget(arena: Arena) -> None:
    """What is purged goes, and so do the purges."""
    arena.apply_purge(2, [7], soft=False)
    arena.apply_purge(3, [2], soft=True)
    for shard in range(arena.shards):
        bucket = arena.prove(shard, 0, 4, 3)
        while bucket:
            bucket = arena.prove(shard, bucket, 4, 3)
    arena.forget_purges(3, soft=False)


OPERATIONS = [replace, store_large, freshen, remove, hold_and_remove, get_purged, release, purge, evict, forget]


@pytest.mark.parametrize(
    ("operation", "eviction"),
    [(operation, "lru") for operation in OPERATIONS]
    + [(operation, eviction) for eviction in ("sieve", "s3fifo") for operation in (replace, freshen, remove, evict)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_death_at_any_point_of_an_operation(operation: Callable[[Arena], None], eviction: str) -> None:
    """Dies at the 1st, 2nd, … crash point of the operation, until it gets through; goes on from there each time."""
    died = 0
    for point in [*range(1, 40), *range(40, 400, 7), *range(400, 2000, 111)]:
        arena = make(eviction)
        held = arena.get(key(38))
        before = arena.get(key(36))
        assert held is not None
        assert before is not None
        arena.remove(key(36))  # its body is now nobody's but ours

        def work(arena: Arena = arena, point: int = point) -> None:
            arena.attach(1)
            probe.crash_after(point)
            operation(arena)

        ended = wait(fork(work))
        assert ended in {0, -signal.SIGKILL}
        arena.attach(0)
        replace(arena)
        arena.check()
        assert arena.stats()["recovered"] <= 1
        arena.release_slot(1)
        arena.check()
        # What this process was reading is still there, whatever became of the shard.
        assert held.read(0, 1 << 20) == octets(300 + 38 * 211, 38)
        assert before.read(0, 1 << 20) == octets(300 + 36 * 211, 36)
        assert arena.stats()["pins"] == 2
        held.close()
        before.close()
        for i in range(40):
            entry = arena.get(key(i))
            assert entry is None or whole(entry.read(0, 1 << 20))
        entry = None
        store_large(arena)
        arena.check()
        assert arena.stats()["pins"] == 0
        died += ended != 0
        if ended == 0:
            break
    else:
        pytest.fail("the operation never got through")
    assert died >= 3


def test_a_death_with_the_lock_held_empties_that_shard_only() -> None:
    arena = Arena(1 << 20, max_object=4000, shards=4)
    names = [key(i) for i in range(100)]
    for name in names:
        arena.put(name, b"", b"", [name], fill_seq=0, tags=[], **NUMBERS)
    before = len(arena)

    def die() -> None:
        probe.lock_shard(arena, 2)
        os.kill(os.getpid(), signal.SIGKILL)

    assert wait(fork(die)) == -signal.SIGKILL
    left = [name for name in names if arena.get(name) is not None]
    lost = {((int.from_bytes(name[8:], "little") >> 32) * 4) >> 32 for name in names if name not in left}
    assert lost == {2}
    assert len(arena) == len(left) < before
    assert arena.stats()["recovered"] == 1
    arena.check()


def test_an_emptied_shard_remembers_nothing_it_let_go() -> None:
    arena = make("s3fifo")
    evict(arena)
    old = key(0)  # the first to go, so its ghost has the lowest number
    assert arena.peek(old) is None

    def die() -> None:
        probe.lock_shard(arena, 0)
        os.kill(os.getpid(), signal.SIGKILL)

    assert wait(fork(die)) == -signal.SIGKILL
    before, i = arena.stats()["evictions"], 0
    while arena.stats()["evictions"] < before + 5:
        arena.put(key(("later", i)), b"", b"", [bytes(1500)], fill_seq=0, tags=[], **NUMBERS)
        i += 1
    arena.put(old, b"", b"", [b"x"], fill_seq=0, tags=[], **NUMBERS)
    assert arena.stats()["recovered"] == 1
    assert probe.queues(arena, 0)[0] == []


def test_a_death_in_the_purge_table_purges_more_never_less() -> None:
    arena = make()
    arena.apply_purge(3, [5], soft=False)

    def die() -> None:
        probe.lock_purges(arena)
        os.kill(os.getpid(), signal.SIGKILL)

    assert wait(fork(die)) == -signal.SIGKILL
    arena.apply_purge(4, [6], soft=False)
    assert [arena.purged(3, [tag]) for tag in (5, 6, 7)] == [0, 2, 0]
    assert arena.purged(2, [5]) == 2
    for point in range(1, 200):
        other = make()

        def work(arena: Arena = other, point: int = point) -> None:
            probe.crash_after(point)
            purge(arena)
            arena.forget_purges(20, soft=point % 2 == 0)

        ended = wait(fork(work))
        applied = other.sequence()
        for number in range(1, applied + 1):
            if number < 40:
                expected = 1 if number % 3 == 0 else 2
                assert other.purged(number - 1, [number]) >= expected, (point, number)
        other.apply_purge(60, [1], soft=False)
        assert other.purged(59, [1]) == 2
        assert other.purged(60, list(range(1, 200))) == 0
        if ended == 0:
            break
    else:
        pytest.fail("never got through")


def test_a_child_that_died_reading_leaves_its_pin_to_be_released() -> None:
    arena = make()

    def read() -> None:
        arena.attach(2)
        entry = arena.get(key(39))
        assert entry is not None
        os.kill(os.getpid(), signal.SIGKILL)

    assert wait(fork(read)) == -signal.SIGKILL
    assert arena.stats()["pins"] == 1
    arena.remove(key(39))
    assert arena.stats()["bytes_pinned"] > 8000
    arena.release_slot(2)
    assert (arena.stats()["pins"], arena.stats()["bytes_pinned"], arena.stats()["recovered"]) == (0, 0, 0)
    arena.check()


def test_a_fork_without_a_slot_copies_and_leaves_its_parents_pins() -> None:
    arena = make()
    inherited = arena.get(key(39))
    assert inherited is not None

    def read() -> None:
        own = arena.get(key(38))
        assert own is not None
        assert whole(own.read(0, 1 << 20))
        assert arena.stats()["pins"] == 1
        assert whole(inherited.read(0, 1 << 20))
        inherited.close()
        assert arena.stats()["pins"] == 1
        assert arena.put(key("x"), b"", b"", [octets(9000, 1)], fill_seq=0, tags=[], **NUMBERS)

    assert wait(fork(read)) == 0
    assert arena.stats()["pins"] == 1
    entry = arena.get(key("x"))
    assert entry is not None
    assert whole(entry.read(0, 1 << 20))
    arena.check()


# --- many processes at once ---

NAMES = [key(i) for i in range(300)]


def hammer(arena: Arena, slot: int, seed: int, steps: int) -> None:
    """Random operations, every octet that is read checked, some entries held over many steps."""
    arena.attach(slot)
    draw = random.Random(seed)
    bodies = [octets(size, seed * 100 + i) for i, size in enumerate([20, 150, 700, 3000, 3000, 9000, 11000])]
    held: list[Any] = []
    for _ in range(steps):
        name = draw.choice(NAMES)
        action = draw.randrange(100)
        if action < 55:
            entry = arena.get(name)
            if entry is not None:
                assert whole(entry.read(0, 1 << 20))
                assert entry.head == entry.key
                if draw.random() < 0.2:
                    held.append(entry)
        elif action < 80:
            body = draw.choice(bodies)
            tags = [draw.randint(1, 60) for _ in range(draw.randrange(4))]
            half = len(body) // 2
            fill_seq = arena.sequence()
            arena.put(name, name, b"m" * 9, [body[:half], body[half:]], fill_seq=fill_seq, tags=tags, **NUMBERS)
        elif action < 88:
            entry = arena.peek(name)
            if entry is not None:
                arena.freshen(
                    name,
                    entry.generation,
                    name,
                    b"n" * draw.randrange(300),
                    fill_seq=arena.sequence(),
                    tags=[3],
                    **NUMBERS,
                )
        elif action < 94:
            arena.remove(name)
        elif action < 99:
            arena.apply_purge(arena.sequence() + 1, [draw.randint(1, 60)], soft=draw.random() < 0.3)
        else:
            arena.add(1)
        while len(held) > 6 or (held and draw.random() < 0.1):
            entry = held.pop(draw.randrange(len(held)))
            assert whole(entry.read(0, 1 << 20))
    probe.crash_after(0)


@pytest.mark.parametrize("eviction", ["lru", "sieve", "s3fifo"])
def test_hammer_by_three_processes_of_which_some_are_killed(eviction: str) -> None:
    arena = Arena(700_000, max_object=12_000, shards=2, purge_slots=32, processes=4, pin_above=2000, eviction=eviction)
    draw = random.Random(5)
    killed = finished = 0
    workers: dict[int, int] = {}
    started = 0
    while finished < 6 or killed < 40:
        while len(workers) < 3:
            slot = next(slot for slot in range(1, 4) if slot not in workers.values())
            arena.release_slot(slot)
            started += 1
            crash = draw.randint(50, 4000) if draw.random() < 0.5 else 0
            alarm = draw.uniform(0.001, 0.1) if not crash and draw.random() < 0.6 else 0.0

            def work(slot: int = slot, seed: int = started, crash: int = crash, alarm: float = alarm) -> None:
                # Dies at a crash point, or at any instruction whatever: an alarm nobody handles ends the process.
                probe.crash_after(crash)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, alarm)
                hammer(arena, slot, seed, 2500)

            workers[fork(work)] = slot
        pid, status = os.wait()
        slot = workers.pop(pid)
        ended = os.waitstatus_to_exitcode(status)
        assert ended in {0, -signal.SIGKILL, -signal.SIGALRM}
        arena.release_slot(slot)
        killed += ended != 0
        finished += ended == 0
        assert started < 200
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for slot in workers.values():
        arena.release_slot(slot)
    arena.check()
    stats = arena.stats()
    assert stats["pins"] == stats["bytes_pinned"] == 0
    assert stats["recovered"] >= 10
    assert stats["bytes_used"] <= arena.size
    for name in NAMES:
        entry = arena.get(name)
        assert entry is None or whole(entry.read(0, 1 << 20))
    arena.check()


def test_a_purge_is_seen_everywhere_the_moment_it_returns() -> None:
    """One process purges and says so through a pipe; another keeps storing what it fetched before and gets it back."""
    arena = Arena(1 << 20, max_object=4000, shards=2, processes=2)
    name = key("page")
    ready, done = os.pipe()

    def purger() -> None:
        arena.attach(1)
        for number in range(1, 3001):
            arena.apply_purge(number, [7], soft=False)
            os.write(done, b"x")

    pid = fork(purger)
    os.close(done)
    known = seen = 0
    while known < 3000:
        fill_seq = arena.sequence()
        arena.put(name, b"", b"", [str(fill_seq).encode()], fill_seq=fill_seq, tags=[7], **NUMBERS)
        known += len(os.read(ready, 1 + known % 7))
        entry = arena.get(name)
        if entry is not None:
            seen += 1
            # At least `known` purges had returned before the look-up: nothing filled before them may come back.
            assert int(entry.read(0, 9)) >= known
    os.close(ready)
    assert wait(pid) == 0
    assert arena.get(name) is None or arena.sequence() == 3000


def test_a_purge_while_a_large_body_is_copied_in() -> None:
    """Such a copy is made without the lock, and takes long enough for a purge to come and go in the midst of it."""
    arena = Arena(12 << 20, max_object=1 << 20, shards=1, processes=2)
    name = key("page")
    body = bytes(1_000_000)
    go, begin = os.pipe()
    ready, done = os.pipe()

    def purger() -> None:
        os.close(begin)
        arena.attach(1)
        while os.read(go, 1):
            arena.apply_purge(arena.sequence() + 1, [7], soft=False)
            os.write(done, b"x")

    pid = fork(purger)
    os.close(go)
    refused = rounds = 0
    while refused < 20 and rounds < 500:
        rounds += 1
        fill_seq = arena.sequence()
        os.write(begin, b"x")
        refused += not arena.put(name, b"", b"", [body], fill_seq=fill_seq, tags=[7], **NUMBERS)
        assert os.read(ready, 1) == b"x"
        assert arena.get(name) is None
        assert arena.stats()["pins"] == 0
    for end in (begin, ready, done):
        os.close(end)
    assert wait(pid) == 0
    arena.check()
