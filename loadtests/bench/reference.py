"""The eviction policies as simulators have them, in plain Python: one cache, octets of bodies counted and nothing else.

An object that is larger than the whole cache, or than `most`, never enters. LRU is what the arena is held to; SIEVE
(NSDI'24) and S3-FIFO (SOSP'23) show what the arena's own, with its bounded table of ghosts, should come to.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .tracefile import Trace

PIECE = 100_000


@dataclass(frozen=True, slots=True)
class Hits:
    count: int
    octets: int


class Lru:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self.cached: OrderedDict[int, int] = OrderedDict()

    def ask(self, number: int, size: int) -> bool:
        """Whether it is there; from now on it is, if it fits at all."""
        cached = self.cached
        if number in cached:
            cached.move_to_end(number)
            return True
        if size <= self.capacity:
            while self.used + size > self.capacity:
                self.used -= cached.popitem(last=False)[1]
            cached[number] = size
            self.used += size
        return False


class Sieve:
    """A linked list as two dicts, 0 the end on both sides: so numbers go in one higher."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self.size: dict[int, int] = {}
        self.visited: set[int] = set()
        self.newer: dict[int, int] = {0: 0}
        self.older: dict[int, int] = {0: 0}
        self.hand = 0

    def ask(self, number: int, size: int) -> bool:
        number += 1
        if number in self.size:
            self.visited.add(number)
            return True
        if size <= self.capacity:
            while self.used + size > self.capacity:
                self._evict()
            newest = self.older[0]
            self.newer[number], self.older[number] = 0, newest
            self.newer[newest] = self.older[0] = number
            self.size[number] = size
            self.used += size
        return False

    def _evict(self) -> None:
        at = self.hand or self.newer[0]
        while at in self.visited:
            self.visited.remove(at)
            at = self.newer[at] or self.newer[0]
        newer, older = self.newer.pop(at), self.older.pop(at)
        self.newer[older], self.older[newer] = newer, older
        self.hand = newer
        self.used -= self.size.pop(at)


class S3Fifo:
    """Ghosts in one queue of any length, as many counting as nine tenths of the objects there are."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = self.small_used = 0
        self.small: OrderedDict[int, int] = OrderedDict()
        self.main: OrderedDict[int, int] = OrderedDict()
        self.uses: dict[int, int] = {}
        self.ghosts: dict[int, int] = {}
        self.noted = 0

    def ask(self, number: int, size: int) -> bool:
        uses = self.uses.get(number)
        if uses is not None:
            self.uses[number] = min(uses + 1, 3)
            return True
        if size <= self.capacity:
            while self.used + size > self.capacity:
                self._step()
            stamp = self.ghosts.pop(number, None)
            if stamp is not None and self.noted - stamp < len(self.uses) - len(self.uses) // 10:
                self.main[number] = size
            else:
                self.small[number] = size
                self.small_used += size
            self.uses[number] = 0
            self.used += size
        return False

    def _step(self) -> None:
        """Evict one object, or give it another turn."""
        if self.small and (not self.main or 10 * self.small_used >= self.capacity):
            number, size = self.small.popitem(last=False)
            self.small_used -= size
            stays = self.uses[number] >= 2
            self.uses[number] = 0
            if not stays:
                self.noted += 1
                self.ghosts[number] = self.noted
        else:
            number, size = self.main.popitem(last=False)
            stays = self.uses[number] > 0
            self.uses[number] -= 1
        if stays:
            self.main[number] = size
        else:
            del self.uses[number]
            self.used -= size


POLICIES: dict[str, type[Lru | Sieve | S3Fifo]] = {"lru": Lru, "sieve": Sieve, "s3fifo": S3Fifo}


def play(policy: str, trace: Trace, capacity: int, most: int, told: Callable[[int], object] = lambda _: None) -> Hits:
    """What a cache of `capacity` octets makes of the trace; `told` the number of requests played, now and then."""
    cache = POLICIES[policy](capacity)
    ask = cache.ask
    sizes: Sequence[int] = trace.sizes
    count = octets = 0
    for begin in range(0, len(trace.asked), PIECE):
        piece = trace.asked[begin : begin + PIECE]
        for number in piece:
            size = sizes[number]
            if size <= most and ask(number, size):
                count += 1
                octets += size
        told(len(piece))
    return Hits(count, octets)
