"""What an edge does with the purges of a fleet: pure of transports and clocks, one instance a node (DESIGN §7).

Entries are applied in the order of the log, each to the arena at once, and so to all workers in one instant. The
numbers they get there are the node's own; beside them goes the position in the log. Three promises:

- A position is told to the coordinator (as an acknowledgement, or when connecting) only once everything up to it is in
  the arena and, where there is a disk tier, on stable storage: a crash right after it brings nothing back.
- What cannot be placed in the log's order (another log, a history that was rolled back, a gap) is answered by purging
  everything, before it is acknowledged and before the node is trusted.
- The node is trusted only while it is connected and has what there was when it connected; each sign of life prolongs
  that, and nothing else does.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import assert_never

from edgecache._native.arena import Arena
from edgecache.purge.bans import carry_out
from edgecache.purge.bus import FeedEvent, Heartbeat, LogEntry, LogPosition, Lost, Purges, Welcome
from edgecache.purge.message import PurgeError, PurgeKind, PurgeMessage
from edgecache.purge.tags import order_tags

_log = logging.getLogger("edgecache.purge")

MOST_UNKEPT = 100_000
"""Entries remembered until they are kept. Where a disk takes none, they are forgotten, and applied again if sent again.
"""


@dataclass(frozen=True, slots=True)
class Work:
    """What was applied, and is to be kept before it is acknowledged."""

    messages: tuple[PurgeMessage, ...]
    position: LogPosition
    history: int
    """Which of the histories met so far the position is of."""


class Applier:
    """Belongs to one event loop."""

    def __init__(
        self,
        arena: Arena,
        *,
        sites: Callable[[], Iterable[str]],
        cache_keys: Callable[[str], Iterable[str]],
        trust: Callable[[], None],
        position: LogPosition | None,
        match: bool = False,
    ) -> None:
        """`trust`: prolongs the arena's deadline. `position`: up to where everything is applied, and kept. `match`:
        patterns are compared here, not widened."""
        self._arena = arena
        self._sites = sites
        self._cache_keys = cache_keys
        self._trust = trust
        self._match = match
        self._kept = position
        self._applied = position
        self._history = 0
        self._unkept: dict[int, float] = {}
        """Number and time of the entries applied and not kept yet."""
        self._goal = 0
        self.connected = False
        self.caught_up = False
        self.head = 0
        """The newest number heard of."""
        self.purges = 0
        """Entries applied by this process."""
        self.resets = 0

    def position(self) -> LogPosition | None:
        """What may be told to a coordinator."""
        return self._kept

    @property
    def applied(self) -> int:
        return self._applied.sequence if self._applied is not None else 0

    def handle(self, event: FeedEvent) -> Work | None:
        """Apply it. What is returned is to be kept, in order, and then given to `kept`."""
        match event:
            case Welcome():
                work = self._begin(event)
            case Purges(entries):
                work = self._apply(entries)
            case Heartbeat(head):
                self.head = max(self.head, head)
                work = None
            case Lost():
                self.connected = self.caught_up = False
                return None
            case _:
                assert_never(event)
        self.caught_up = self.caught_up or self.applied >= self._goal
        if self.caught_up:
            self._trust()
        return work

    def kept(self, work: Work) -> int | None:
        """What to acknowledge, now that it is kept; None where the log it is of is not the one we follow any more."""
        if work.history != self._history:
            return None
        self._kept = work.position
        for number in [number for number in self._unkept if number <= work.position.sequence]:
            del self._unkept[number]
        return work.position.sequence

    def _begin(self, welcome: Welcome) -> Work | None:
        self.connected = True
        self.caught_up = False
        self._goal = self.head = welcome.head
        known = self._kept
        if welcome.reset or known is None or known != welcome.position:
            return self._reset(welcome.position)
        return None

    def _reset(self, position: LogPosition) -> Work:
        self._history += 1
        self._unkept.clear()
        self.resets += 1
        self._applied = position
        self._kept = None
        _log.info("everything stored counts as purged: the coordinator's log does not go back to what is known here")
        return Work((self._everything("reset"),), position, self._history)

    def _apply(self, entries: tuple[LogEntry, ...]) -> Work | None:
        messages = []
        for entry in entries:
            self.head = max(self.head, entry.sequence)
            if self._unkept.get(entry.sequence) == entry.time:
                continue  # sent again, since it was not acknowledged when the connection was lost
            messages.append(self._message(entry))
            self._unkept[entry.sequence] = entry.time
            self.purges += 1
        if len(self._unkept) > MOST_UNKEPT:
            self._unkept.clear()
        if not messages:
            return None
        assert self._applied is not None  # a welcome came first
        last = entries[-1]
        self._applied = LogPosition(self._applied.log, last.sequence, last.time)
        return Work(tuple(messages), self._applied, self._history)

    def _message(self, entry: LogEntry) -> PurgeMessage:
        """Into the arena."""
        order = entry.order
        sites = tuple(self._sites())
        if order.site is not None:
            sites = (*sites, order.site)  # also where it is not configured now: what is stored may be from before
        try:
            tags = order_tags(order, sites=sites, cache_keys=self._cache_keys)
        except PurgeError as error:
            _log.error("purge %d cannot be read here (%s): everything is purged instead", entry.sequence, error)
            return self._everything(order.source)
        return carry_out(self._arena, order, tags, now=entry.time, match=self._match)

    def _everything(self, source: str) -> PurgeMessage:
        number = self._arena.append_purge([], soft=False, everything=True)
        return PurgeMessage(number, 0.0, PurgeKind.HARD, (), True, source)
