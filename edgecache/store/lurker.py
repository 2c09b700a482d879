"""Ends the patterns in force: compares in the background what nobody has asked for, until nothing older is left.

Rounds go through the arena bucket by bucket, a bounded piece at a time with rests between, so that serving notices
nothing. The disk tier's own sweep does the same for what lies there. What was asked for before a pattern and is still
on its way when a round begins is not stored: a round begins only some time after the pattern.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from edgecache.purge.keeper import PurgeKeeper
from edgecache.purge.message import PurgeKind, PurgeMessage
from edgecache.store.memory import MemoryStore

_log = logging.getLogger("edgecache.store")

LOOK_S = 1.0
PATIENCE_S = 30.0
"""How old a pattern is at least: by then most of what was on its way has come."""
MOST_SEEN = 1000
BUCKETS = 64
PIECE_S = 0.002
"""How long is compared at a stretch."""
REST = 4
"""Times as long as that, it rests."""


class Lurker:
    """One a node. Belongs to one event loop."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        scanned: Callable[[], int] | None = None,
        synced: Callable[[], Awaitable[bool]] | None = None,
        keeper: PurgeKeeper | None = None,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Where there is a disk tier: `scanned` says up to which purge everything there has been compared, by `store`;
        `synced` has what went by that stay gone; `keeper` makes what was found outlive a restart."""
        self._store = store
        self._arena = store.arena
        self._scanned = scanned
        self._synced = synced
        self._keeper = keeper
        store.bans.keeps_softened = keeper is not None
        self._clock = clock
        self._patience_s = patience_s
        self._seen: dict[int, float] = {}
        """Newest patterns met, and when."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> bool:
        """Make a round where it is time for one. True where patterns have ended."""
        newest = self._arena.newest_pattern()
        now = self._clock()
        if newest:
            self._seen.setdefault(newest, now)
        # What lies on disk comes first: what it hands up from then on has been compared.
        most = newest if self._scanned is None else self._scanned()
        old = [number for number, since in self._seen.items() if now - since >= self._patience_s and number <= most]
        through = max(old, default=0)
        if len(self._seen) > MOST_SEEN:
            del self._seen[max(self._seen)]  # the next one to be met stands for it
        if not through:
            return False
        self._arena.retire_patterns(through, forgotten=False)
        await self.round()
        if self._keeper is not None and not await self._keep(self._keeper, through):
            return False
        self._arena.retire_patterns(through, forgotten=True)
        self._seen = {number: since for number, since in self._seen.items() if number > through}
        _log.debug("patterns up to purge %d have ended: nothing older is left that was not compared", through)
        return True

    async def _keep(self, keeper: PurgeKeeper, through: int) -> bool:
        """What patterns made stale on disk is to be known after a restart too, and what they removed is not to come
        back by a power cut. Is it so?"""
        if self._synced is not None and not await self._synced():
            return False
        softened = self._store.bans.take_softened()
        for number, tags in softened.items():
            keeper.keep(PurgeMessage(number, 0.0, PurgeKind.SOFT, tuple(tags), False, "patterns"))
        if not await keeper.kept():
            self._store.bans.give_back(softened)
            return False
        await keeper.retire_patterns(through)
        return True

    async def round(self) -> None:
        """Compare everything in memory that is older than the newest pattern."""
        for shard in range(self._arena.shards):
            bucket = 0
            while True:
                until = time.perf_counter() + PIECE_S
                keys, bucket = self._arena.unresolved_keys(shard, bucket, BUCKETS)
                for key in keys:
                    entry = self._store.peek(key)
                    if entry is not None:
                        entry.close()
                    if time.perf_counter() > until:
                        await asyncio.sleep(PIECE_S * REST)
                        until = time.perf_counter() + PIECE_S
                if not bucket:
                    break
                await asyncio.sleep(0 if not keys else PIECE_S * REST)
