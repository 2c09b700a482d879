"""The node's subscription to the coordinator: reads the feed, keeps what was applied, acknowledges it (DESIGN §7).

Entries are applied as they come. They are kept, and then acknowledged, many at once: whatever has come while the last
ones were written goes in one write.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from contextlib import aclosing

from edgecache.http.tasks import spawn
from edgecache.purge.applier import Applier, Work
from edgecache.purge.bus import Feed, FeedEvent, LogPosition, Lost, Welcome
from edgecache.purge.keeper import PurgeKeeper

_log = logging.getLogger("edgecache.purge")

RETRY_S = 1.0
_REMEDY = {"remedy": "let purge.max_silence be several times the coordinator's heartbeat"}


class Subscriber:
    """Belongs to one event loop. One at a time on a node."""

    def __init__(
        self,
        feed: Feed,
        applier: Applier,
        *,
        keeper: PurgeKeeper | None,
        note: Callable[[LogPosition], None],
        max_silence_s: float = math.inf,
        retry_s: float = RETRY_S,
    ) -> None:
        """`keeper`: where there is a disk tier. `note`: remembers the position for as long as the arena lives."""
        self._feed = feed
        self.applier = applier
        self._keeper = keeper
        self._note = note
        self._max_silence_s = max_silence_s
        self._retry_s = retry_s
        self._waiting: Work | None = None
        """The last one: it stands for those before it."""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._lost = ""

    def start(self) -> None:
        self._tasks = [spawn(self._read(), "purge-feed"), spawn(self._keep(), "purge-acks")]

    async def close(self) -> None:
        await self._feed.close()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _read(self) -> None:
        while True:
            async with aclosing(self._feed.events(self.applier.position)) as events:
                try:
                    async for event in events:
                        self._tell(event)
                        self._heed(event)
                    return
                except Exception:  # noqa: BLE001 - the boundary: the edge falls silent, and the feed begins anew
                    _log.exception("the purge feed failed")
            self.applier.handle(Lost("failed", self._retry_s))
            await asyncio.sleep(self._retry_s)

    def _heed(self, event: FeedEvent) -> None:
        work = self.applier.handle(event)
        if work is None:
            return
        if self._keeper is None:
            self._settle(work)
            return
        self._keeper.keep(*work.messages, position=work.position)
        self._waiting = work
        self._wake.set()

    async def _keep(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            work = self._waiting
            assert work is not None
            assert self._keeper is not None
            while not await self._keeper.kept():  # noqa: ASYNC110 - the writer tries again by itself
                await asyncio.sleep(self._retry_s)
            self._settle(work)

    def _settle(self, work: Work) -> None:
        number = self.applier.kept(work)
        if number is not None:
            self._note(work.position)
            self._feed.ack(number)

    def _tell(self, event: FeedEvent) -> None:
        match event:
            case Welcome(position=position, heartbeat_s=heartbeat_s):
                if heartbeat_s * 2 > self._max_silence_s:
                    _log.warning(
                        "the coordinator speaks every %g s: too rarely for purge.max_silence",
                        heartbeat_s,
                        extra=_REMEDY,
                    )
                _log.info("connected to the purge coordinator; its log %s, from %d on", position.log, position.sequence)
                self._lost = ""
            case Lost(reason=reason) if reason != self._lost:
                _log.warning("no connection to the purge coordinator: %s", reason)
                self._lost = reason
            case _:
                pass
