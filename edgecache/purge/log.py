"""The purges of a node on its own: each is numbered and applied to the arena, and orders are logged.

Any process of the node may purge: the arena allots the numbers, and a number is allotted and applied in one step. Where
there is a disk tier, a keeper writes each purge down. What somebody has ordered is logged beside (`orderbook`), with
who it was; what an unsafe request of a client purges is not.
"""

import time
from collections.abc import Callable, Iterable

from edgecache._native.arena import Arena
from edgecache.purge.bans import carry_out
from edgecache.purge.bus import AuditRecord, BusError, Caller, KeyReused, Record
from edgecache.purge.frames import IDEMPOTENCY_KEY, order_text
from edgecache.purge.keeper import PurgeKeeper
from edgecache.purge.ledger import Entry
from edgecache.purge.message import EdgeReceipt, PurgeError, PurgeMessage, PurgeOrder, PurgeReceipt
from edgecache.purge.orderbook import NotKept, OrderBook
from edgecache.purge.tags import order_tags


class LocalLog:
    """Applies purges on this node. Once `append` has returned, no worker serves what the order covers."""

    def __init__(
        self,
        arena: Arena,
        *,
        edge: str,
        sites: Callable[[], Iterable[str]],
        cache_keys: Callable[[str], Iterable[str]],
        clock: Callable[[], float],
        book: OrderBook,
        keeper: PurgeKeeper | None = None,
        match: bool = False,
    ) -> None:
        """`book`: where orders are logged. `keeper`: where purges are to outlive a restart, since what they cover
        does. `match`: patterns are compared here, not widened."""
        self._arena = arena
        self._edge = edge
        self._sites = sites
        self._cache_keys = cache_keys
        self._clock = clock
        self._book = book
        self.keeper = keeper
        self._match = match

    def append(self, order: PurgeOrder) -> PurgeReceipt:
        """Number and apply one that nobody ordered, whole or not at all. Raises `PurgeError`."""
        begun = time.perf_counter()
        message = self._application(order)()
        if self.keeper is not None:
            self.keeper.keep(message)
        done = EdgeReceipt(self._edge, True, time.perf_counter() - begun)
        return PurgeReceipt(message.sequence, (done,), time=message.time)

    async def purge(self, order: PurgeOrder, caller: Caller, key: str | None = None) -> PurgeReceipt:
        """Apply and log an order, whole or not at all. With an idempotency key, the caller's own: once. Raises
        `PurgeError`."""
        begun = time.perf_counter()
        if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
            raise PurgeError("an idempotency key is 1 to 200 visible ASCII characters", path="Idempotency-Key")
        apply = self._application(order)
        own_key = None if key is None else f"{caller.token} {key}"
        entry = Entry(order, order_text(order), self._clock(), caller, own_key)
        try:
            logged = await self._book.log(entry, apply)
        except KeyReused as error:
            raise PurgeError(error.detail, status=409, code="idempotency-key-reused") from None
        except NotKept as error:
            raise PurgeError(f"{error.detail}: a restart may undo it", status=500, code="not-kept") from None
        except BusError as error:
            raise PurgeError(f"not purged: {error.detail}", status=503, code="log-unavailable") from None
        done = EdgeReceipt(self._edge, True, time.perf_counter() - begun)
        return PurgeReceipt(logged.record.sequence, (done,), time=logged.record.time, again=logged.again)

    async def find(self, sequence: int) -> Record | None:
        """None where it was no order, or is not known any more. Raises `PurgeError`."""
        try:
            return await self._book.find(sequence)
        except BusError as error:
            raise _unavailable(error) from None

    async def audit(self, *, before: int | None, limit: int) -> Iterable[AuditRecord]:
        """Newest first, of those numbered less than `before`. Raises `PurgeError`."""
        try:
            return await self._book.audit(before=before, limit=limit)
        except BusError as error:
            raise _unavailable(error) from None

    async def compact(self) -> None:
        """Forget orders that need not be known any longer. Raises `BusError`."""
        await self._book.compact(self._clock())

    def _application(self, order: PurgeOrder) -> Callable[[], PurgeMessage]:
        """What puts it in force, and cannot fail. Raises `PurgeError`."""
        tags = order_tags(order, sites=self._sites(), cache_keys=self._cache_keys)

        def apply() -> PurgeMessage:
            return carry_out(self._arena, order, tags, now=self._clock(), match=self._match)

        return apply


def _unavailable(error: BusError) -> PurgeError:
    return PurgeError(error.detail, status=503, code="log-unavailable")
