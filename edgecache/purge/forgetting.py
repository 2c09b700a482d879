"""Forgetting the purges that nothing stored needs any more, before the arena's purge table is full.

A purge is needed by what was filled before it and carries its tag. So once in a while everything stored is compared
with all purges up to some number: what they cover goes, the rest counts as filled at that number from then on, and
their slots are dropped. In memory this is done here, some buckets at a time; the disk tier's own sweep is waited for.
What was under way meanwhile, since before that number, is not stored: so the number is one of a while ago, unless too
little would be forgotten.

Where purges come faster than all this, the table folds its older half into one purge of everything before. That loses
what was stored, and serves nothing that was purged; it is logged and counted (`memory_folds`).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from edgecache._native.arena import Arena

_log = logging.getLogger("edgecache.purge")

LOOK_S: Final = 0.25
SAMPLE_S: Final = 1.0
LATE_S: Final = 60.0
"""How long something may be under way and still be stored, where the table has room for the purges of that time."""
PART: Final = 4
"""Of the table: so much of it is filled anew before the next time."""
BUCKETS: Final = 32
"""Compared while a shard is locked: some 160 objects."""
STEPS: Final = 8
"""Such pieces in a row, before others have their turn."""
QUIET_S: Final = 60.0
"""Between two lines in the log."""


class Forgetting:
    """One a node. Belongs to one event loop."""

    def __init__(
        self,
        arena: Arena,
        *,
        clock: Callable[[], float],
        disk_clean: Callable[[], int] | None = None,
        sweep_soon: Callable[[int], None] = lambda _: None,
        compare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`disk_clean`: the number up to which no hard purge covers anything on disk (-1: not known); None where there
        is no disk tier. `sweep_soon`: somebody waits for that to get there.
        `compare`: has everything in memory compared with the patterns in force. What has not been goes."""
        self._arena = arena
        self._clock = clock
        self._disk_clean = disk_clean
        self._sweep_soon = sweep_soon
        self._compare = compare
        self._samples: deque[tuple[float, int]] = deque()
        """When each number was the newest, for the last `LATE_S`; the first is older."""
        self._left = 0
        """Slots used after the last time."""
        self._folds = arena.stats()["folds"]
        self._told = -QUIET_S

    async def run(self) -> None:
        """Without end."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> int:
        """Forget what may be forgotten, if it is time to. How many slots went."""
        arena, now = self._arena, self._clock()
        self._sample(now)
        used, capacity = arena.purge_slots()
        self._notice(now)
        if used < self._left + capacity // PART:
            self._left = min(self._left, used)
            return 0
        through = self._line(capacity)
        if through <= arena.proved():
            return 0
        if self._compare is not None and arena.newest_pattern():
            await self._compare()
        await self._prove(through)
        gone = arena.forget_purges(through, soft=self._disk_clean is None)
        self._left = arena.purge_slots()[0]
        _log.debug("%d tags of purges up to %d are forgotten", gone, through)
        return gone

    def _sample(self, now: float) -> None:
        samples = self._samples
        if not samples or now - samples[-1][0] >= SAMPLE_S:
            samples.append((now, self._arena.sequence()))
        while len(samples) > 1 and samples[1][0] <= now - LATE_S:
            samples.popleft()

    def _line(self, capacity: int) -> int:
        """The number to forget up to."""
        at, late = self._samples[0]
        newest = self._arena.sequence()
        through = late if at <= self._clock() - LATE_S else 0
        clean = newest if self._disk_clean is None else self._disk_clean()
        if clean < newest:
            self._sweep_soon(newest)
        if self._arena.purges_newer(through) > capacity // PART:
            through = newest
        return min(through, clean)

    async def _prove(self, through: int) -> None:
        steps = 0
        for shard in range(self._arena.shards):
            bucket = self._arena.prove(shard, 0, BUCKETS, through)
            while bucket:
                steps += 1
                if steps % STEPS == 0:
                    await asyncio.sleep(0)
                bucket = self._arena.prove(shard, bucket, BUCKETS, through)

    def _notice(self, now: float) -> None:
        """That the table was folded, though what was in it may have been needed."""
        folds = self._arena.stats()["folds"]
        if folds > self._folds and now - self._told >= QUIET_S:
            self._told, self._folds = now, folds
            _log.warning(
                "the purge table was full %s: what was stored before counts as purged",
                "once" if folds == 1 else f"{folds} times since the start",
                extra={"remedy": "give it more slots: purge.table_slots"},
            )
