"""The layout of the shared counters: which number each figure has, so that any process (and compiled code) can count.

    slot 0 … NODE_SLOTS-1                 figures of the node (`NodeSlot`)
    NODE_SLOTS + site*SITE_SLOTS + …      one block per labelled site:
      + (outcome*CLASSES + class)*CELL      a cell per outcome and status class: a histogram of durations
          + 0 … BUCKETS-1                     requests whose duration fell into this bucket (not cumulative)
          + BUCKETS                           sum of durations, microseconds
      + ORIGIN … ORIGIN+CELL-1              the same histogram for the origin's time to its response head
      + BYTES_IN, BYTES_OUT                 body octets received from and sent to clients
      + ABORTED                             responses cut off before their end

Bucket k counts durations of at most 32·2^k microseconds (and more than half of that); the last has no upper bound.
Its number is `(µs - 1 >> 5).bit_length()`, a shift and a count of leading zeros. Class 0 is "no status".
Sites beyond `MAX_SITES` share the last block, labelled "other".
"""

from enum import IntEnum
from typing import Final, Protocol

from edgecache.observe.events import Outcome


class Counters(Protocol):
    """Integers that only grow, all 0 at first; in shared memory where several processes count."""

    def add(self, slot: int, amount: int = 1) -> None: ...

    def read(self, slot: int) -> int: ...


class LocalCounters:
    """Counters of one process."""

    def __init__(self, slots: int) -> None:
        self._slots = [0] * slots

    def add(self, slot: int, amount: int = 1) -> None:
        self._slots[slot] += amount

    def read(self, slot: int) -> int:
        return self._slots[slot]


class ArenaLike(Protocol):
    """What of `_native.arena.Arena` is needed here."""

    def add(self, counter: int, amount: int = 1) -> None: ...

    def counter(self, counter: int) -> int: ...


class ArenaCounters:
    """Counters in the arena, common to all processes that share it."""

    def __init__(self, arena: ArenaLike) -> None:
        self.add = arena.add
        self.read = arena.counter


class NodeSlot(IntEnum):
    """Figures of the whole node. Values are part of the layout: add at the end only, below NODE_SLOTS."""

    LOG_DROPPED = 0
    """Access log lines lost."""


NODE_SLOTS: Final = 64
BUCKETS: Final = 20
CELL: Final = BUCKETS + 1
CLASSES: Final = 6
"""Status classes: none, 1xx … 5xx."""
MAX_OUTCOMES: Final = 8
ORIGIN: Final = MAX_OUTCOMES * CLASSES * CELL
BYTES_IN: Final = ORIGIN + CELL
BYTES_OUT: Final = BYTES_IN + 1
ABORTED: Final = BYTES_IN + 2
SITE_SLOTS: Final = ABORTED + 1
MAX_SITES: Final = 64
OTHER: Final = "other"

BOUNDS_S: Final[tuple[float, ...]] = tuple(32e-6 * (1 << k) for k in range(BUCKETS - 1))
"""Upper bounds of all buckets but the last."""

OUTCOMES: Final = tuple(Outcome)
assert len(OUTCOMES) <= MAX_OUTCOMES


def bucket(microseconds: int) -> int:
    """The bucket a duration falls into."""
    return min(BUCKETS - 1, (max(microseconds - 1, 0) >> 5).bit_length())


class Layout:
    """Where the figures of these sites are."""

    def __init__(self, sites: tuple[str, ...]) -> None:
        named = sites[:MAX_SITES]
        self.labels: tuple[str, ...] = named if len(sites) <= MAX_SITES else (*named, OTHER)
        self._blocks = {name: NODE_SLOTS + index * SITE_SLOTS for index, name in enumerate(named)}
        self._other = NODE_SLOTS + (len(self.labels) - 1) * SITE_SLOTS
        self.slots = NODE_SLOTS + len(self.labels) * SITE_SLOTS
        """How many counters are needed in all."""

    def block(self, site: str) -> int:
        """Where this site's block begins."""
        return self._blocks.get(site, self._other)


def cell(outcome_index: int, status: int) -> int:
    """Where the cell of an outcome (its place in `OUTCOMES`) and a status begins, within a site's block."""
    kind = status // 100
    return (outcome_index * CLASSES + (kind if 0 < kind < CLASSES else 0)) * CELL
