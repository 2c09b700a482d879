"""Edges as the hub knows them: attached here, elsewhere, or gone; and who waits for them. Values without behaviour."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edgecache.purge.bus import EdgeReport
from edgecache.purge.frames import Hello
from edgecache.purge.message import EdgeReceipt


class Connection(Protocol):
    """One edge's connection, as far as it matters here."""

    address: str

    def write(self, frame: bytes) -> None:
        """A whole WebSocket frame; does not wait, and fails silently where the connection is gone."""
        ...

    def backlog(self) -> int:
        """Octets written and not taken yet."""
        ...

    async def send(self, text: str) -> None:
        """Waits until the edge takes what was written. Raises OSError where the connection is gone."""
        ...

    def cut(self, reason: str) -> None:
        """End it; does not wait."""
        ...


class Attachment:
    """One run of an edge, attached to this coordinator or another one."""

    __slots__ = ("acked", "edge", "heard", "instance", "since", "version")

    def __init__(self, edge: str, instance: str, version: str, since: float, heard: float) -> None:
        self.edge = edge
        self.instance = instance
        self.version = version
        self.since = since
        self.heard = heard
        """By the hub's `clock`."""
        self.acked = 0


class Remote(Attachment):
    """Attached to another coordinator, or to the bus itself."""

    __slots__ = ("direct",)

    def __init__(self, report: EdgeReport) -> None:
        super().__init__(report.edge, report.instance, report.version, report.since, 0.0)
        self.direct = report.direct

    def report(self) -> EdgeReport:
        return EdgeReport(self.edge, self.instance, self.version, self.acked, True, self.since, self.direct)


class Subscriber(Attachment):
    """Attached here."""

    __slots__ = ("acks", "allowed", "catching", "connection", "current", "sent")

    def __init__(
        self, hello: Hello, connection: Connection, allowed: Callable[[], bool], since: float, heard: float
    ) -> None:
        super().__init__(hello.edge, hello.instance, hello.version, since, heard)
        self.connection = connection
        self.allowed = allowed
        self.sent = 0
        self.acks = 0
        """How many it has sent."""
        self.current = False
        self.catching: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of an edge that has gone."""

    at: float
    position: int
    version: str
    address: str


@dataclass(slots=True)
class Waiter:
    sequence: int
    begun: float
    pending: set[str]
    durations: dict[str, float]
    gone: set[str] = field(default_factory=set)
    """Of those pending, the ones that are not connected any more, and need not be waited for."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    doubting: asyncio.TimerHandle | None = None

    def look(self) -> None:
        if self.pending <= self.gone:
            self.done.set()


@dataclass(frozen=True, slots=True)
class EdgeState:
    """One edge, as `GET /v1/edges` shows it."""

    edge: str
    connected: bool
    instances: int
    """More than one at a time: two edges by one name, or one whose last connection is not known to be dead."""
    position: int
    lag: int
    version: str
    since: float
    """When it connected, or was last seen."""
    address: str


@dataclass(frozen=True, slots=True)
class Waited:
    edges: tuple[EdgeReceipt, ...]
    away: tuple[str, ...]
    """Edges that were connected before and are not now, but for those named above."""


@dataclass(slots=True)
class Tally:
    """Since the start."""

    joined: int = 0
    reset: int = 0
    cut: int = 0
    behind: int = 0
    frames: int = 0
