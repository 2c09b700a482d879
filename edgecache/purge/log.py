"""The purge log of a node on its own: numbers each order, applies it to the arena, and keeps the last ones to show.

Any process of the node may append: the arena allots the numbers, and a number is allotted and applied in one step.
The log lives as long as what it guards: the memory tier, which a restart empties too. Where there is a disk tier, a
keeper writes each purge down.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable

from edgecache._native.arena import Arena
from edgecache.purge.keeper import PurgeKeeper
from edgecache.purge.message import EdgeReceipt, PurgeKind, PurgeMessage, PurgeOrder, PurgeReceipt
from edgecache.purge.tags import order_tags

_KEPT = 1000


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
        keeper: PurgeKeeper | None = None,
    ) -> None:
        """`keeper`: where purges are to outlive a restart, since what they cover does."""
        self._arena = arena
        self._edge = edge
        self._sites = sites
        self._cache_keys = cache_keys
        self._clock = clock
        self.keeper = keeper
        self.recent: deque[PurgeMessage] = deque(maxlen=_KEPT)
        """The last ones of this process, oldest first."""

    def append(self, order: PurgeOrder) -> PurgeReceipt:
        """Number and apply one order, whole or not at all. Raises `PurgeError`."""
        begun = time.perf_counter()
        tags = order_tags(order, sites=self._sites(), cache_keys=self._cache_keys)
        floor = order.everything and order.site is None
        soft = order.kind is PurgeKind.SOFT
        sequence = self._arena.append_purge(tags, soft=soft, everything=floor)
        message = PurgeMessage(sequence, self._clock(), order.kind, tags, floor, order.source)
        self.recent.append(message)
        if self.keeper is not None:
            self.keeper.keep(message)
        return PurgeReceipt(sequence, (EdgeReceipt(self._edge, True, time.perf_counter() - begun),))
