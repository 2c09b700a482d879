"""The arena against its plain Python model, operation by operation, with everything checked after each step."""

import random
from dataclasses import dataclass
from itertools import pairwise

import pytest
from arena_model import Body, Model, ModelShard
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgecache._native import probe
from edgecache._native.arena import Arena, Entry
from edgecache.policy.stale import CLOCK_SLACK_S

MAX_OBJECT = 3000
KEYS = [bytes([i]) * 8 + bytes(7) + bytes([i * 73 % 256]) for i in range(1, 61)]

keys = st.sampled_from(KEYS)
picks = st.integers(0, 119)
tag_lists = st.lists(st.integers(1, 12), max_size=4) | st.just(list(range(1, 41)))
sizes = st.integers(0, 700) | st.integers(0, 3100) | st.sampled_from([600, 601, 2990])
ages = st.integers(0, 6)


def pattern(size: int, seed: int) -> bytes:
    return bytes((seed + i * 31) % 251 for i in range(size))


def cut(body: bytes, pieces: int) -> list[bytes]:
    ends = [len(body) * i // pieces for i in range(pieces + 1)]
    return [body[a:b] for a, b in pairwise(ends)]


@dataclass
class Held:
    entry: Entry
    shard: ModelShard
    body: Body
    slot: int


class ArenaAgainstModel(RuleBasedStateMachine):
    eviction = "lru"

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(
            80_000,
            max_object=MAX_OBJECT,
            shards=2,
            purge_slots=16,
            counters=4,
            processes=3,
            pin_above=600,
            eviction=self.eviction,
        )
        self.model = Model(self.arena)
        self.held: list[Held] = []
        self.slot = 0
        self.clock = 0

    def pick(self, number: int) -> bytes:
        """A key that is there, three times of four."""
        there = [key for shard in self.model.shards for key in shard.objects]
        return there[number % len(there)] if number < 90 and there else KEYS[number % len(KEYS)]

    def numbers(self, age: int) -> dict[str, float]:
        self.clock += 1
        return {
            "born_at": self.clock + 0.25,
            "fresh_until": self.clock * 2.0,
            "stale_until": self.clock * 3.0,
            "flags": self.clock % 64,
            "status": 200 + self.clock % 300,
            "fill_seq": max(self.model.purges.sequence - age, 0),
        }

    @rule(
        key=keys, head=sizes, meta=st.integers(0, 300), body=sizes, tags=tag_lists, age=ages, pieces=st.integers(1, 4)
    )
    def put(self, key: bytes, head: int, meta: int, body: int, tags: list[int], age: int, pieces: int) -> None:
        numbers = self.numbers(age)
        parts = pattern(head, 1), pattern(meta, 2), pattern(body, self.clock)
        stored = self.arena.put(key, *parts[:2], cut(parts[2], pieces), tags=tags, **numbers)  # type: ignore[arg-type]
        assert stored == self.model.put(key, *parts, tags, numbers)

    @rule(first=st.integers(0, 59), count=st.integers(5, 40), body=st.integers(0, 2600))
    def fill(self, first: int, count: int, body: int) -> None:
        """Many at once, so that memory gets full and is cut in pieces."""
        for i in range(count):
            self.put(KEYS[(first + i) % len(KEYS)], 100, 20, body + i, [i % 12 + 1], 0, 2)

    @rule(pick=picks, head=sizes, meta=st.integers(0, 300), tags=tag_lists, age=ages, late=st.booleans())
    def freshen(self, pick: int, head: int, meta: int, tags: list[int], age: int, late: bool) -> None:
        key = self.pick(pick)
        there = self.model.shard(key).objects.get(key)
        generation = (there.generation if there else 1) + late
        numbers = self.numbers(age)
        parts = pattern(head, 3), pattern(meta, 4)
        done = self.arena.freshen(key, generation, *parts, tags=tags, **numbers)  # type: ignore[arg-type]
        assert done == self.model.freshen(key, generation, *parts, tags, numbers)

    @rule(pick=picks, hold=st.booleans())
    def get(self, pick: int, hold: bool) -> None:
        key = self.pick(pick)
        entry, stored = self.arena.get(key), self.model.get(key)
        assert (entry is None) == (stored is None)
        if entry is None or stored is None:
            return
        assert (entry.key, entry.head, entry.meta) == (key, stored.head, stored.meta)
        assert entry.tags() == stored.tags
        assert {name: getattr(entry, name) for name in stored.numbers} == stored.numbers
        assert entry.generation == stored.generation
        assert entry.soft_purged == self.model.soft_purged(stored)
        assert entry.body_size == len(stored.body)
        assert entry.read(0, 1 << 40) == stored.body
        middle = len(stored.body) // 2
        assert entry.read(middle, 100) == stored.body[middle : middle + 100]
        assert entry.read(len(stored.body), 1) == b""
        if hold and stored.own and len(self.held) < 6:
            self.model.shard(key).pin(stored.own, 1)
            self.held.append(Held(entry, self.model.shard(key), stored.own, self.slot))
        else:
            entry.close()

    @rule(pick=picks)
    def peek(self, pick: int) -> None:
        key = self.pick(pick)
        entry, stored = self.arena.peek(key), self.model.valid(key, peek=True)
        assert (entry is None) == (stored is None)
        if entry and stored:
            assert entry.read(0, 1 << 40) == stored.body

    @rule(
        pick=picks,
        denied=st.sampled_from([0, 1, 63]),
        now=st.integers(0, 60),
        want_body=st.booleans(),
        room=st.sampled_from([50, 900, 10_000]),
        gap=st.sampled_from([0, 7]),
    )
    def lookup(self, pick: int, denied: int, now: int, want_body: bool, room: int, gap: int) -> None:
        key = self.pick(pick)
        outcome, octets = probe.lookup(self.arena, key, now, denied, want_body, room, gap)
        shard = self.model.shard(key)
        stored = self.model.valid(key)
        if stored is None:
            assert outcome == 0
            return
        numbers = stored.numbers
        front = stored.meta + stored.head
        body = stored.body if want_body else b""
        if (
            self.model.soft_purged(stored)
            or int(numbers["flags"]) & denied
            or now >= numbers["fresh_until"]
            or numbers["born_at"] > now + CLOCK_SLACK_S
        ):
            assert outcome == 1
        elif len(front) + gap + (0 if stored.own else len(body)) > room:
            assert outcome == 4
        else:
            assert outcome == (3 if stored.own and body else 2)
            assert octets == front + bytes(gap) + body
            shard.hits += 1
            shard.policy.use(key)

    @rule(pick=picks, stale=st.booleans())
    def remove(self, pick: int, stale: bool) -> None:
        key = self.pick(pick)
        there = self.model.shard(key).objects.get(key)
        generation = there.generation + 1 if there and stale else 0
        assert self.arena.remove(key, generation) == self.model.remove(key, generation)

    @rule(tags=st.lists(st.integers(1, 40), min_size=1, max_size=3), soft=st.booleans(), back=st.integers(-1, 2))
    def purge(self, tags: list[int], soft: bool, back: int) -> None:
        sequence = max(self.model.purges.sequence - back, 1)
        self.arena.apply_purge(sequence, tags, soft=soft)
        self.model.purges.apply(sequence, tags, soft)

    @rule(back=st.integers(0, 6), soft=st.booleans())
    def raise_floor(self, back: int, soft: bool) -> None:
        sequence = max(self.model.purges.sequence - back, 0)
        self.arena.raise_floor(sequence, soft=soft)
        self.model.purges.raise_floor(sequence, soft)

    @rule(back=st.integers(0, 6), soft=st.booleans(), buckets=st.sampled_from([1, 7, 1000]))
    def forget(self, back: int, soft: bool, buckets: int) -> None:
        """Compare everything with all purges, then forget the older ones."""
        through = max(self.model.purges.sequence - back, 0)
        for shard in range(self.arena.shards):
            bucket = self.arena.prove(shard, 0, buckets, through)
            while bucket:
                bucket = self.arena.prove(shard, bucket, buckets, through)
        self.model.prove(through)
        before = self.model.purges.forgotten
        gone = self.arena.forget_purges(through, soft=soft)
        self.model.purges.forget(through, soft)
        assert gone == self.model.purges.forgotten - before
        assert self.arena.proved() == self.model.purges.proved

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        held.entry.close()
        held.shard.pin(held.body, -1)

    @rule()
    def change_slot(self) -> None:
        self.slot = (self.slot + 1) % 3
        self.arena.attach(self.slot)

    @rule(slot=st.integers(0, 2))
    def release_slot(self, slot: int) -> None:
        """The process of that slot died: its pins go, and what it held is never closed."""
        self.arena.release_slot(slot)
        for held in [held for held in self.held if held.slot == slot]:
            held.shard.pin(held.body, -1)
            held.entry.close()  # finds no record, so changes nothing
            self.held.remove(held)

    @invariant()
    def consistent(self) -> None:
        self.arena.check()
        assert len(self.arena) == sum(len(shard.objects) for shard in self.model.shards)
        stats = self.arena.stats()
        shards = self.model.shards
        for number, shard in enumerate(shards):
            assert probe.queues(self.arena, number) == shard.policy.listed()
        assert stats["bytes_used"] == sum(shard.total - shard.free for shard in shards) * 192 <= self.arena.size
        assert stats["bytes_body"] == sum(len(o.body) for shard in shards for o in shard.objects.values())
        for name in ("evictions", "inserts", "hits", "misses", "purged"):
            assert stats[name] == sum(getattr(shard, name) for shard in shards), name
        assert stats["pins"] == sum(body.pins for shard in shards for body in shard.pinned)
        assert probe.pinned_units(self.arena) == [sum(body.units for body in shard.pinned) for shard in shards]
        assert stats["folds"] == self.model.purges.folds
        assert stats["purges_forgotten"] == self.model.purges.forgotten
        assert stats["purge_slots_used"] == len({*self.model.purges.hard, *self.model.purges.soft})
        assert self.arena.sequence() == self.model.purges.sequence
        for held in self.held:
            assert held.entry.read(0, 1 << 40) == held.body.data

    @invariant()
    def same_verdicts(self) -> None:
        sequence = self.model.purges.sequence
        for tag in range(1, 41, 3):
            for fill_seq in (max(sequence - 2, 0), sequence):
                assert self.arena.purged(fill_seq, [tag]) == self.model.purges.verdict(fill_seq, [tag])

    def teardown(self) -> None:
        for held in self.held:
            held.entry.close()


class SieveAgainstModel(ArenaAgainstModel):
    eviction = "sieve"


class S3FifoAgainstModel(ArenaAgainstModel):
    eviction = "s3fifo"


MACHINES = [ArenaAgainstModel, SieveAgainstModel, S3FifoAgainstModel]
TestArenaAgainstModel = ArenaAgainstModel.TestCase
TestSieveAgainstModel = SieveAgainstModel.TestCase
TestS3FifoAgainstModel = S3FifoAgainstModel.TestCase
TestArenaAgainstModel.settings = TestSieveAgainstModel.settings = TestS3FifoAgainstModel.settings = settings(
    max_examples=50, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("eviction", ["lru", "sieve", "s3fifo"])
def test_the_same_order_of_evictions_over_many_keys(eviction: str) -> None:
    """More objects than memory holds several times over, some popular; all there is is compared, place by place."""
    draw = random.Random(1)
    arena = Arena(400_000, max_object=8000, shards=1, processes=1, purge_slots=16, counters=4, eviction=eviction)
    model = Model(arena)
    shard = model.shards[0]
    names = [draw.randbytes(16) for _ in range(2500)]
    numbers = {"born_at": 1.0, "fresh_until": 2.0, "stale_until": 0.0, "flags": 0, "status": 200, "fill_seq": 0}
    for step in range(30_000):
        name = names[int(len(names) * draw.random() ** 4)]
        if model.get(name) is None:
            assert arena.get(name) is None
            body = bytes(step * 37 % draw.choice([900, 2500, 7000]))
            assert model.put(name, b"", b"", body, [], numbers)
            assert arena.put(name, b"", b"", [body], tags=[], **numbers)  # type: ignore[arg-type]
        else:
            assert arena.get(name) is not None
        if step % 50 == 0:
            assert probe.queues(arena, 0) == shard.policy.listed(), step
    assert arena.stats()["evictions"] == shard.evictions > 5000
    assert arena.stats()["hits"] == shard.hits > 8000
    arena.check()


@pytest.mark.parametrize("machine_class", MACHINES, ids=lambda machine: machine.eviction)
@pytest.mark.parametrize("seed", range(2))
def test_long_random_run(seed: int, machine_class: type[ArenaAgainstModel]) -> None:
    """As above but thousands of steps long, so that memory is full, broken up and reused many times over."""
    draw = random.Random(seed)
    machine = machine_class()
    try:
        for step in range(3000):
            key, pick = draw.choice(KEYS), draw.randrange(120)
            tags = draw.sample(range(1, 13), draw.randrange(4))
            match draw.randrange(24):
                case 0:
                    machine.purge([draw.randint(1, 40)], draw.random() < 0.5, draw.choice([-1, -1, 0, 1]))
                case 1 if draw.random() < 0.2:
                    machine.forget(draw.choice([0, 0, 1, 5]), draw.random() < 0.5, draw.choice([3, 1000]))
                case 1:
                    machine.remove(pick, draw.random() < 0.3)
                case 2 | 3 | 4:
                    machine.freshen(pick, draw.randrange(700), draw.randrange(50), tags, draw.choice([0, 0, 1]), False)
                case 5 | 6 | 7 | 8 | 9 | 10:
                    machine.get(pick, draw.random() < 0.3)
                case 11 | 12:
                    machine.lookup(pick, 0, 0, draw.random() < 0.7, 10_000, draw.choice([0, 7]))
                case 13 if machine.held:
                    held = machine.held.pop(draw.randrange(len(machine.held)))
                    held.entry.close()
                    held.shard.pin(held.body, -1)
                case 14 if draw.random() < 0.1:
                    machine.release_slot(draw.randrange(3))
                case 15:
                    machine.change_slot()
                case _:
                    body = draw.choice([draw.randrange(800), draw.randrange(2600), draw.randrange(2600)])
                    machine.put(key, draw.randrange(300), draw.randrange(60), body, tags, draw.choice([0, 0, 1]), 3)
            if step % 10 == 0:
                machine.consistent()
        machine.same_verdicts()
        assert machine.arena.stats()["evictions"] > 100
    finally:
        machine.teardown()
