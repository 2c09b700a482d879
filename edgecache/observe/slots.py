"""The layout of the shared counters: which number each figure has, so that any process (and compiled code) can count.

    slot 0 … NODE_SLOTS-1                 figures of the node (`NodeSlot`)
    NODE_SLOTS + process*GAUGES + …       what one process has open now (`Gauge`), by its slot in the arena
    REMOVALS_AT + first octet of the key  how often one was removed from memory, by hand and not by a purge
    CHANGES_AT + half of that octet       how often one was replaced or freshened, or was not there to be removed
    WRITES_AT + a quarter of it           how often one was written to the disk
    SITES_AT + site*SITE_SLOTS + …        one block per labelled site:
      + (outcome*CLASSES + class)*CELL      a cell per outcome and status class: a histogram of durations
          + 0 … BUCKETS-1                     requests whose duration fell into this bucket (not cumulative)
          + BUCKETS                           sum of durations, microseconds
      + ORIGIN … ORIGIN+CELL-1              the same histogram for the origin's time to its response head
      + BYTES_IN, BYTES_OUT                 body octets received from and sent to clients
      + ABORTED                             responses cut off before their end

Bucket k counts durations of at most 32·2^k microseconds (and more than half of that); the last has no upper bound.
Its number is `(µs - 1 >> 5).bit_length()`, a shift and a count of leading zeros. Class 0 is "no status".
Sites beyond the number of blocks share the last block, labelled "other". Blocks for some sites that a reload may bring
are laid out beforehand, and a site keeps its block, and its counts, for as long as the arena lives.
"""

from collections.abc import Iterable
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
    CLIENT_ACCEPTED = 1
    CLIENT_OVER_LIMIT = 2
    CLIENT_MALFORMED = 3
    CLIENT_TIMED_OUT = 4
    CLIENT_STALLED = 5
    PROCESSES_DIED = 6
    """Processes that ended without being told to."""
    RELOADS = 7
    RELOADS_REFUSED = 8
    WORKERS = 9
    """No counter but a state, as those below: how many there should be. States are set by the supervisor."""
    WORKERS_READY = 10
    DRAINING = 11
    """1 from the moment the whole node stops."""
    GENERATION = 12
    """Of the configuration: 1 at start, one more with each reload."""
    DISK_HITS = 13
    DISK_MISSES = 14
    DISK_STORED = 15
    DISK_DROPPED = 16
    DISK_REFUSED = 17
    DISK_CORRUPT = 18
    DISK_EVICTED = 19
    DISK_EXPIRED = 20
    DISK_PURGED = 21
    DISK_ORPHANS = 22
    DISK_FAILURES = 23
    DISK_RECORDS = 24
    """States again, set by the process that sweeps the disk tier."""
    DISK_BYTES_USED = 25
    DISK_ON = 26
    DISK_SENT = 40
    CLIENT_NO_DESCRIPTORS = 41
    PATTERN_CHECKS = 42
    """Stored URLs compared with patterns, with all that are newer at once."""
    PATTERN_MATCHES = 43
    PATTERN_UNDECIDED = 44
    """Comparisons given up for their time, that count as matching."""


class Gauge(IntEnum):
    """What a process has open now. Values are part of the layout: add at the end only, below GAUGES."""

    CONNECTIONS = 0
    FILLS = 1
    TASKS = 2
    """Of the event loop."""


NODE_SLOTS: Final = 64
GAUGES: Final = 8
MAX_PROCESSES: Final = 64
"""As many as the arena has process slots."""
REMOVALS_AT: Final = NODE_SLOTS + MAX_PROCESSES * GAUGES
CHANGES_AT: Final = REMOVALS_AT + 256
WRITES_AT: Final = CHANGES_AT + 128
SITES_AT: Final = WRITES_AT + 64
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
    number = ((microseconds - 1) >> 5).bit_length() if microseconds > 0 else 0
    return number if number < BUCKETS else BUCKETS - 1


class ProcessGauges:
    """What this process has open, where all processes can read it."""

    def __init__(self, counters: Counters, process: int) -> None:
        self._add = counters.add
        self._at = gauges_of(process)
        self._values = [0] * GAUGES

    def change(self, gauge: Gauge, by: int) -> None:
        self._values[gauge] += by
        self._add(self._at + gauge, by)

    def set(self, gauge: Gauge, value: int) -> None:
        if by := value - self._values[gauge]:
            self.change(gauge, by)


def gauges_of(process: int) -> int:
    """Where the gauges of the process in this slot begin."""
    return NODE_SLOTS + process * GAUGES


def gauge_total(counters: Counters, gauge: Gauge) -> int:
    """The sum over all processes."""
    return sum(counters.read(gauges_of(process) + gauge) for process in range(MAX_PROCESSES))


def gauges_clear(counters: Counters, process: int) -> None:
    """Whoever was in this slot is no more: so is what it had open."""
    for gauge in Gauge:
        put(counters, gauges_of(process) + gauge, 0)


def put(counters: Counters, slot: int, value: int) -> None:
    """Set what is not a counter. Only where nobody else changes it at the same time."""
    counters.add(slot, value - counters.read(slot))


class Layout:
    """Where the figures of these sites are."""

    def __init__(self, sites: tuple[str, ...], spare: int = 0) -> None:
        """`spare`: blocks for sites that come later."""
        self._blocks: dict[str, int] = {}
        self._named = min(len(sites) + spare, MAX_SITES)
        """Blocks for one site each."""
        self.common = bool(spare) or len(sites) > MAX_SITES
        """Another one follows, for all other sites and for requests that are no site's."""
        self.slots = SITES_AT + (self._named + self.common) * SITE_SLOTS
        """How many counters are needed in all."""
        self.labels: tuple[str, ...] = ()
        """Of the blocks that are some site's."""
        self.extend(sites)

    def extend(self, sites: Iterable[str]) -> tuple[str, ...]:
        """Give a block to each site that has none, while there are any. Returns the sites that share the last."""
        crowd = []
        for site in sites:
            if site in self._blocks:
                continue
            if len(self._blocks) < self._named:
                self._blocks[site] = SITES_AT + len(self._blocks) * SITE_SLOTS
            else:
                crowd.append(site)
        others = (OTHER,) if crowd or OTHER in self.labels else ()
        self.labels = (*self._blocks, *others)
        return tuple(crowd)

    def block(self, site: str) -> int:
        """Where this site's block begins."""
        return self._blocks.get(site, SITES_AT + (self._named - (not self.common)) * SITE_SLOTS)


def cell(outcome_index: int, status: int) -> int:
    """Where the cell of an outcome (its place in `OUTCOMES`) and a status begins, within a site's block."""
    kind = status // 100
    return (outcome_index * CLASSES + (kind if 0 < kind < CLASSES else 0)) * CELL
