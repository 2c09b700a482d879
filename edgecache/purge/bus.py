"""What carries purges, as purging sees it (DESIGN §7): a log for the coordinator, a feed for the edge.

Nothing here knows a transport. The built-in bus (SQLite, WebSocket) and any other pass the same contract tests.

**Positions.** A log has an identity of its own and numbers its entries 1, 2, 3 … An edge remembers (log, number, time)
of the last entry it has applied. The time is there because a database restored from a backup numbers differently
from what edges have already heard: where the log's entry of that number has another time, the edge has seen
another history. An edge whose position the log does not cover is *reset*: it takes everything it has stored as
purged, and the head as its position. Its own arena numbers purges by itself; these numbers never meet.

**Order.** Entries reach an edge in the order of their numbers, each once per connection, none left out.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgecache.purge.message import PurgeOrder


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far an edge has come. `sequence` 0 and `time` 0: before the first entry of this log."""

    log: str
    sequence: int
    time: float


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One numbered order. `time`: seconds since the epoch when it was logged, never compared with the edge's clock."""

    sequence: int
    time: float
    order: PurgeOrder


@dataclass(frozen=True, slots=True)
class Record:
    """The same as the log keeps it: the order in its canonical text (`frames.order_text`), to be sent on as it is."""

    sequence: int
    time: float
    text: str


@dataclass(frozen=True, slots=True)
class LogState:
    log: str
    floor: int
    """Entries up to this one are no longer there."""
    head: int
    """The newest entry; 0: none yet."""
    head_time: float

    @property
    def position(self) -> LogPosition:
        return LogPosition(self.log, self.head, self.head_time)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked, for the audit record."""

    token: str
    """The token's name, never the token."""
    address: str


@dataclass(frozen=True, slots=True)
class Appended:
    record: Record
    again: bool
    """The idempotency key was known: this is the entry of the first call, and nothing was logged."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    sequence: int
    time: float
    token: str
    address: str
    kind: str
    targets: int
    summary: str
    """What was purged, shortened."""


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """What an edge has said, passed on between coordinators that share a bus."""

    edge: str
    instance: str
    """One run of the edge: a restarted one, or two by the same name, are told apart."""
    version: str
    position: int
    """The last number of this bus's log that it has applied and keeps."""
    connected: bool
    since: float
    direct: bool = False
    """Said on the bus by the edge itself: `PurgeBus.gone` knows of it."""


class BusError(Exception):
    """A purge that was not logged, or a log that cannot be read. `remedy` is for the operator. `unsure`: the purge may
    have been logged all the same; `detail` says so."""

    def __init__(self, detail: str, *, remedy: str = "", unsure: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy
        self.unsure = unsure


class KeyReused(BusError):
    """The idempotency key was used for another order."""


class TooLarge(BusError):
    """The order's text is longer than a log takes."""


class Truncated(BusError):
    """Entries that were asked for have been compacted away."""


class PurgeBus(Protocol):
    """The coordinator's side: the durable log, and what other coordinators on it say of their edges."""

    shared: bool
    """May other coordinators use it? Then each tells the others of its edges."""

    @property
    def failing(self) -> str:
        """Why purges cannot be logged, as last known; "" where they can."""
        ...

    async def start(self) -> None:
        """Raises `BusError`."""
        ...

    async def close(self) -> None:
        """What has been appended is on stable storage afterwards."""
        ...

    def state(self) -> LogState:
        """As last known; does not wait."""
        ...

    async def append(self, order: PurgeOrder, *, now: float, caller: Caller, key: str | None = None) -> Appended:
        """Give it the next number. On stable storage when this returns, and once. `key`: an idempotency key, the
        caller's own. Raises `BusError` when it is not logged (or not known to be); cancelled, it may be logged."""
        ...

    async def read(self, after: int, limit: int) -> Sequence[Record]:
        """Entries with numbers greater than `after`, oldest first, without gap; empty at the head.
        Raises `Truncated`, `BusError`."""
        ...

    async def covers(self, position: LogPosition) -> bool:
        """May an edge go on from here? Raises `BusError`."""
        ...

    def follow(self, after: int) -> AsyncGenerator[Sequence[Record], None]:
        """Entries after this number as they become durable, whoever appended them, in batches, without end.
        Raises `Truncated`, `BusError`."""
        ...

    async def compact(self, now: float) -> LogState:
        """Forget what the bus's limits of age and count allow. Where it is `failing`, this tries whether it still is.
        Raises `BusError`."""
        ...

    async def audit(self, *, before: int | None, limit: int) -> Sequence[AuditRecord]:
        """Newest first, of those numbered less than `before`. Raises `BusError`."""
        ...

    async def report(self, report: EdgeReport) -> None:
        """Tell the other coordinators what an edge of ours has said. Nothing where there are none."""
        ...

    def reports(self) -> AsyncGenerator[EdgeReport, None]:
        """What edges have said to other coordinators. Without end, and empty where there are none."""
        ...

    async def gone(self, report: EdgeReport, *, within_s: float) -> bool:
        """Is this run of an edge, whose report was `direct`, not connected to the bus any more? False, after that time
        at most, where that is not known; one that is connected reports at once. Raises `BusError`."""
        ...


@dataclass(frozen=True, slots=True)
class Welcome:
    """Connected. Entries after `position` follow, those up to `head` at once."""

    position: LogPosition
    head: int
    reset: bool
    """The position the edge named is not covered: everything stored counts as purged, and `position` is its new one."""
    heartbeat_s: float


@dataclass(frozen=True, slots=True)
class Purges:
    """In the order of their numbers, the first one more than the last entry or the welcome's position."""

    entries: tuple[LogEntry, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Every entry up to `head` has been sent before this."""

    head: int
    time: float


@dataclass(frozen=True, slots=True)
class Lost:
    """No connection any more, or none yet. The feed tries again by itself."""

    reason: str
    retry_s: float


FeedEvent = Welcome | Purges | Heartbeat | Lost


class Feed(Protocol):
    """The edge's side: one subscription, kept up for as long as its events are read."""

    def events(self, position: Callable[[], LogPosition | None]) -> AsyncGenerator[FeedEvent, None]:
        """Without end; connects, and again after each `Lost`, with backoff and jitter. An event has been dealt with
        wholly when the next is asked for; `position` is asked before each connection (None: none known yet)."""
        ...

    def ack(self, sequence: int) -> None:
        """Entries up to this one are applied, for every worker, and will be after a restart too. Does not wait; acks
        of a lost connection are not repeated, since the position says the same."""
        ...

    async def close(self) -> None:
        """Also while events are read: they end."""
        ...
