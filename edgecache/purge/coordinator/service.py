"""What callers may ask of a coordinator, whatever the transport: checked, counted, logged, and waited for.

A purge is refused wholly or logged wholly. What is refused is refused before it is logged: its syntax, what its token
allows, its rate. From the moment it is logged it will reach every edge, whatever becomes of whoever asked.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edgecache import __version__
from edgecache.http.tasks import spawn
from edgecache.observe.metrics import Figure
from edgecache.purge.bus import BusError, Caller, KeyReused, PurgeBus, Record, TooLarge, Truncated
from edgecache.purge.coordinator.attached import Waited
from edgecache.purge.coordinator.hub import Hub
from edgecache.purge.coordinator.limits import RateLimiter, cost
from edgecache.purge.coordinator.tokens import Denied, Grant, TokenBook
from edgecache.purge.frames import IDEMPOTENCY_KEY
from edgecache.purge.message import PurgeError, PurgeOrder
from edgecache.purge.patterns import check_enabled
from edgecache.purge.tags import check_order

_log = logging.getLogger("edgecache.purge")

COMPACT_S: Final = 60.0
TRY_S: Final = 5.0
"""The same where purges cannot be logged: a balancer may send no purge that would find out that they can."""


class Refused(Exception):
    """A call that has changed nothing. `status` as in HTTP; `retry_s`: when it may be tried again."""

    def __init__(
        self, status: int, detail: str, *, path: str = "", code: str = "", retry_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.path = path
        self.code = code
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True)
class Purged:
    """The answer to a purge."""

    record: Record
    again: bool
    waited: Waited | None
    """None where nobody waited."""


@dataclass(slots=True)
class _Counts:
    purges: int = 0
    repeated: int = 0
    denied: int = 0
    limited: int = 0
    failed: int = 0
    incomplete: int = 0


class Coordinator:
    """Belongs to one event loop. The bus is the caller's: started before, closed after."""

    def __init__(
        self,
        bus: PurgeBus,
        book: TokenBook,
        hub: Hub,
        *,
        wall: Callable[[], float],
        rate: float,
        burst: float,
        wait_s: float = 10.0,
        match: bool = False,
    ) -> None:
        """`wait_s`: how long a purge waits for edges where its caller does not say. `match`: purges may name regular
        expressions."""
        self.bus = bus
        self.book = book
        self.hub = hub
        self.wall = wall
        self.draining = False
        self._limiter = RateLimiter(rate, burst)
        self._wait_s = wait_s
        self._match = match
        self._counts = _Counts()
        self._since = wall()
        self._compacting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.hub.start()
        self._compacting = spawn(self._compact(), "purge-compaction")

    async def close(self) -> None:
        """Edges are told; what was accepted stays accepted."""
        self.draining = True
        if self._compacting is not None:
            self._compacting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._compacting
        await self.hub.close("the coordinator stops")

    def configure(self, *, rate: float, burst: float, wait_s: float) -> None:
        """Take over what may change while it runs."""
        self._limiter.configure(rate, burst)
        self._wait_s = wait_s

    async def purge(
        self,
        order: PurgeOrder,
        grant: Grant,
        address: str,
        *,
        key: str | None = None,
        wait: bool = True,
        timeout_s: float | None = None,
    ) -> Purged:
        """`order` as it came; its source becomes the token's name. Raises `Refused`."""
        if self.draining:
            raise Refused(503, "the coordinator is stopping", retry_s=1)
        if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
            raise Refused(400, "an idempotency key is 1 to 200 visible ASCII characters", path="Idempotency-Key")
        try:
            order = grant.narrowed(order)
            check_enabled(order, enabled=self._match, setting="coordinator.dialects.patterns")
            check_order(order)
        except Denied as error:
            self._counts.denied += 1
            raise Refused(403, str(error), code="scope") from None
        except PurgeError as error:
            raise Refused(error.status, error.detail, path=error.path) from None
        amount = cost(order.targets)
        if pause := self._limiter.take(grant.name, amount, self.hub.clock(), grant.rate):
            self._counts.limited += 1
            raise Refused(429, "this token purges more often than it may", retry_s=pause)
        order = dataclasses.replace(order, source=grant.name)
        own_key = None if key is None else f"{grant.name} {key}"
        try:
            appended = await self.bus.append(order, now=self.wall(), caller=Caller(grant.name, address), key=own_key)
        except KeyReused as error:
            raise Refused(409, error.detail, code="idempotency-key-reused") from None
        except TooLarge as error:
            raise Refused(413, error.detail) from None
        except BusError as error:
            self._counts.failed += 1
            remedy = f"; {error.remedy}" if error.remedy else ""
            said = error.detail if error.unsure else f"not purged: {error.detail}"
            raise Refused(503, f"{said}{remedy}", code="log-unavailable", retry_s=1) from None
        self._counts.purges += not appended.again
        self._counts.repeated += appended.again
        waited = None
        if wait:
            waited = await self.hub.wait(appended.record.sequence, self.hub.clock(), timeout_s or self._wait_s)
            self._counts.incomplete += not all(edge.applied for edge in waited.edges)
        return Purged(appended.record, appended.again, waited)

    async def find(self, sequence: int) -> tuple[Record, Waited]:
        """A purge, and which edges have it now. Raises `Refused`."""
        state = self.bus.state()
        if not state.floor < sequence <= state.head:
            raise Refused(404, f"no purge {sequence} is kept; there are {state.floor + 1} to {state.head}")
        try:
            [record] = await self.bus.read(sequence - 1, 1)
        except Truncated as error:
            raise Refused(404, error.detail) from None
        except BusError as error:
            raise Refused(503, error.detail, code="log-unavailable", retry_s=1) from None
        return record, self.hub.applied(sequence)

    def ready(self) -> tuple[bool, str]:
        if self.draining:
            return False, "stopping"
        if self.bus.failing:
            return False, self.bus.failing
        return True, f"{self.hub.connected} edges connected"

    def stats(self) -> dict[str, Any]:
        state, hub, counts = self.bus.state(), self.hub, self._counts
        return {
            "coordinator": {
                "version": __version__,
                "since": self._since,
                "log": {"id": state.log, "floor": state.floor, "head": state.head, "failing": self.bus.failing},
                "purges": dataclasses.asdict(counts),
                "edges": {
                    "connected": hub.connected,
                    "away": hub.away,
                    "behind": hub.behind,
                    "most_lag": hub.most_lag(),
                    **dataclasses.asdict(hub.tally),
                },
                "tokens": len(self.book),
            }
        }

    def figures(self) -> list[Figure]:
        """For Prometheus."""
        state, hub, counts = self.bus.state(), self.hub, self._counts
        tally = hub.tally
        return [
            Figure("coordinator_purges", "Purges logged.", counts.purges, counter=True),
            Figure("coordinator_purges_repeated", "Purges asked for again.", counts.repeated, counter=True),
            Figure("coordinator_purges_denied", "Purges a token did not allow.", counts.denied, counter=True),
            Figure("coordinator_purges_limited", "Purges beyond a token's rate.", counts.limited, counter=True),
            Figure("coordinator_purges_failed", "Purges that could not be logged.", counts.failed, counter=True),
            Figure(
                "coordinator_purges_incomplete",
                "Purges that some connected edge did not confirm in time.",
                counts.incomplete,
                counter=True,
            ),
            Figure("coordinator_log_head", "Number of the newest purge.", state.head),
            Figure("coordinator_log_floor", "Number up to which purges are no longer kept.", state.floor),
            Figure("coordinator_log_failing", "1 while purges cannot be logged.", float(bool(self.bus.failing))),
            Figure("coordinator_edges_connected", "Edges connected.", hub.connected),
            Figure("coordinator_edges_away", "Edges that were connected lately and are not.", hub.away),
            Figure("coordinator_edges_behind", "Connected edges that lack entries.", hub.behind),
            Figure("coordinator_edges_most_lag", "Entries the slowest edge has not confirmed.", hub.most_lag()),
            Figure("coordinator_edges_joined", "Subscriptions begun.", tally.joined, counter=True),
            Figure("coordinator_edges_reset", "Subscriptions the log did not cover.", tally.reset, counter=True),
            Figure("coordinator_edges_cut", "Subscriptions ended by the coordinator.", tally.cut, counter=True),
            Figure("coordinator_frames", "Frames of purges sent.", tally.frames, counter=True),
        ]

    async def _compact(self) -> None:
        told = ""
        while True:
            try:
                await self.bus.compact(self.wall())
                told = ""
            except BusError as error:
                if told != error.detail:
                    _log.warning("the log is not compacted: %s", error, extra={"remedy": error.remedy})
                told = error.detail
            for _ in range(round(COMPACT_S / TRY_S)):
                await asyncio.sleep(TRY_S)
                if self.bus.failing:
                    break
