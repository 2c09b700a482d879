"""What the arena does, in plain Python: objects in dicts, memory as a count of units, purges as a dict."""

from dataclasses import dataclass, field

from eviction_model import Policy, policy

from edgecache._native import probe
from edgecache._native.arena import Arena

HEADER, BODY_HEADER, UNIT = 104, 16, 192
FOLD_CLASSES = 64


def units(size: int) -> int:
    return -(-size // UNIT)


@dataclass
class Body:
    data: bytes
    units: int
    pins: int = 0
    orphan: bool = False


@dataclass
class Stored:
    head: bytes
    meta: bytes
    body: bytes
    numbers: dict[str, float]
    tags: list[int]
    generation: int
    units: int
    own: Body | None
    soft: bool = False
    """It was found soft-purged when purges were to be forgotten."""

    @property
    def fill_seq(self) -> int:
        return int(self.numbers["fill_seq"])


@dataclass
class Purges:
    """The purge table, folding included."""

    capacity: int
    hard: dict[int, int] = field(default_factory=dict)
    soft: dict[int, int] = field(default_factory=dict)
    floor_hard: int = 0
    floor_soft: int = 0
    sequence: int = 0
    folds: int = 0
    proved: int = 0
    forgotten: int = 0

    def apply(self, sequence: int, tags: list[int], soft: bool) -> None:
        for tag in tags:
            self._note(sequence, tag, soft)
        self.sequence = max(self.sequence, sequence)

    def _note(self, sequence: int, tag: int, soft: bool) -> None:
        if sequence <= self.floor_hard or (soft and sequence <= self.floor_soft):
            return
        known = set(self.hard) | set(self.soft)
        if tag not in known and len(known) * 4 >= self.capacity * 3:
            self._fold()
            self._note(sequence, tag, soft)
            return
        table = self.soft if soft else self.hard
        table[tag] = max(table.get(tag, 0), sequence)

    def _fold(self) -> None:
        newest = {tag: max(self.hard.get(tag, 0), self.soft.get(tag, 0)) for tag in {*self.hard, *self.soft}}
        low, high = min(newest.values()), max(newest.values())
        width = (high - low) // FOLD_CLASSES + 1
        ends = (low + (i + 1) * width - 1 for i in range(FOLD_CLASSES))
        line = next(end for end in ends if sum(n <= end for n in newest.values()) * 2 >= len(newest))
        for tag, number in newest.items():
            if number <= line:
                self.floor_hard = max(self.floor_hard, self.hard.pop(tag, 0))
                self.floor_soft = max(self.floor_soft, self.soft.pop(tag, 0))
        self.folds += 1

    def forget(self, through: int, soft: bool) -> None:
        if not self.proved < through <= self.sequence:
            return
        for tag in {*self.hard, *self.soft}:
            if max(self.hard.get(tag, 0), self.soft.get(tag, 0)) <= through and (soft or tag not in self.soft):
                self.hard.pop(tag, None)
                self.soft.pop(tag, None)
                self.forgotten += 1
        self.floor_hard = max(self.floor_hard, through)
        self.proved = through

    def raise_floor(self, sequence: int, soft: bool) -> None:
        if soft:
            self.floor_soft = max(self.floor_soft, sequence)
        else:
            self.floor_hard = max(self.floor_hard, sequence)
        self.sequence = max(self.sequence, sequence)

    def verdict(self, fill_seq: int, tags: list[int]) -> int:
        if max([self.floor_hard, *(self.hard.get(tag, 0) for tag in tags)]) > fill_seq:
            return 2
        return int(max([self.floor_soft, *(self.soft.get(tag, 0) for tag in tags)]) > fill_seq)


class ModelShard:
    def __init__(self, total: int, reserve: int, policy: Policy) -> None:
        self.objects: dict[bytes, Stored] = {}
        self.policy = policy
        self.total = self.free = total
        self.reserve = reserve
        self.pinned: list[Body] = []
        self.generation = 0
        self.evictions = self.inserts = self.hits = self.misses = self.purged = 0

    def drop(self, key: bytes) -> None:
        stored = self.objects.pop(key)
        self.policy.leave(key)
        self.free += stored.units
        if stored.own and stored.own.pins:
            stored.own.orphan = True
        elif stored.own:
            self.free += stored.own.units

    def make_room(self, need: int, spared: bytes | None = None) -> bool:
        if self.free >= need + self.reserve:
            return True
        if need > self.total - sum(body.units for body in self.pinned):
            return False
        self.policy.begin()
        while self.free < need + self.reserve:
            key = self.policy.victim(lambda key: key == spared or self.pinning(key))
            if key is None:
                break
            self.evictions += 1
            self.drop(key)
        return self.free >= need

    def pinning(self, key: bytes) -> bool:
        own = self.objects[key].own
        return own is not None and own.pins > 0

    def pin(self, body: Body, count: int) -> None:
        if body.pins == 0:
            self.pinned.append(body)
        body.pins += count
        if body.pins == 0:
            self.pinned = [other for other in self.pinned if other is not body]
            if body.orphan:
                self.free += body.units


class Model:
    def __init__(self, arena: Arena) -> None:
        layout = probe.layout(arena)
        assert (layout["unit"], layout["object_header"], layout["body_header"]) == (UNIT, HEADER, BODY_HEADER)
        self.max_object = arena.max_object
        self.pin_above = arena.pin_above
        total, reserve = layout["units"], layout["reserve"]
        self.shards = [
            ModelShard(total, reserve, policy(arena.eviction, total - reserve, layout["buckets"]))
            for _ in range(arena.shards)
        ]
        self.purges = Purges(layout["purge_slots"])

    def shard(self, key: bytes) -> ModelShard:
        return self.shards[((int.from_bytes(key[8:], "little") >> 32) * len(self.shards)) >> 32]

    def valid(self, key: bytes, peek: bool = False) -> Stored | None:
        shard = self.shard(key)
        stored = shard.objects.get(key)
        if stored and self.purges.verdict(stored.fill_seq, stored.tags) == 2:
            if not peek:
                shard.purged += 1
                shard.drop(key)
            return None
        return stored

    def soft_purged(self, stored: Stored) -> bool:
        return stored.soft or self.purges.verdict(stored.fill_seq, stored.tags) == 1

    def prove(self, through: int) -> None:
        for shard in self.shards:
            for key in list(shard.objects):
                stored = self.valid(key)
                if stored is not None:
                    stored.soft = self.soft_purged(stored)
                    stored.numbers = {**stored.numbers, "fill_seq": max(stored.fill_seq, through)}

    def get(self, key: bytes) -> Stored | None:
        stored = self.valid(key)
        shard = self.shard(key)
        shard.hits += stored is not None
        shard.misses += stored is None
        if stored:
            shard.policy.use(key)
        return stored

    def put(
        self, key: bytes, head: bytes, meta: bytes, body: bytes, tags: list[int], numbers: dict[str, float]
    ) -> bool:
        shard = self.shard(key)
        front = len(head) + len(meta) + 8 * len(tags)
        if front + len(body) > self.max_object or len(tags) > 1024:
            return False
        if self.purges.verdict(int(numbers["fill_seq"]), tags):
            return False
        own = None
        if len(body) > self.pin_above:
            own = Body(body, units(BODY_HEADER + len(body)))
            if not shard.make_room(own.units):
                return False
            shard.free -= own.units
            shard.pin(own, 1)
        past = None
        if key in shard.objects:
            past = shard.policy.past(key)
            shard.drop(key)
        need = units(HEADER + front + (0 if own else len(body)))
        if not shard.make_room(need):
            if own:
                own.orphan = True
                shard.pin(own, -1)
            return False
        shard.free -= need
        shard.generation += 1
        shard.objects[key] = Stored(head, meta, body, numbers, tags, shard.generation, need, own)
        shard.policy.join(key, need + (own.units if own else 0), past)
        shard.inserts += 1
        if own:
            shard.pin(own, -1)
        return True

    def freshen(
        self, key: bytes, generation: int, head: bytes, meta: bytes, tags: list[int], numbers: dict[str, float]
    ) -> bool:
        shard = self.shard(key)
        if len(tags) > 1024:
            return False
        stored = self.valid(key)
        front = len(head) + len(meta) + 8 * len(tags)
        if stored is None or stored.generation != generation:
            return False
        if self.purges.verdict(int(numbers["fill_seq"]), tags) or front + len(stored.body) > self.max_object:
            return False
        need = units(HEADER + front + (0 if stored.own else len(stored.body)))
        if not shard.make_room(need, key):
            return False
        shard.free += stored.units - need
        shard.objects[key] = Stored(head, meta, stored.body, numbers, tags, generation, need, stored.own)
        shard.policy.freshen(key, need + (stored.own.units if stored.own else 0))
        return True

    def remove(self, key: bytes, generation: int) -> bool:
        stored = self.valid(key)
        if stored is None or generation not in {0, stored.generation}:
            return False
        self.shard(key).drop(key)
        return True
