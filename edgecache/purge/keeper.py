"""Writing purges down as they are applied, away from the event loop (DESIGN §7).

A purge is in force, for memory and disk alike, once the arena has it; it is *kept* once it is on stable storage, which
`kept` waits for. Many at once are written in one go. Where they cannot be written, what is on disk must not be used
after a restart: the disk tier's database is removed there and then, and the writing is tried again.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgecache._native.arena import Arena
from edgecache.http.tasks import spawn
from edgecache.purge.bus import LogPosition
from edgecache.purge.durable import DurablePurges, PurgesLost
from edgecache.purge.message import PurgeKind, PurgeMessage

_log = logging.getLogger("edgecache.purge")

RESTART_GAP = 10_000
"""Numbers left out at a restart: those allotted before a crash and not written down are never used for other purges."""
MOST_WAITING = 10_000
"""Purges that wait to be written, before they are made one of everything."""
RETRY_S = 2.0


def restore(path: Path, arena: Arena) -> bool:
    """Put what was purged before the restart into an empty arena. False where nothing is known of it, so that nothing
    stored may be used. Before any process is forked. Raises `sqlite3.Error` and `OSError`."""
    known = path.exists()
    try:
        durable = DurablePurges(path)
    except PurgesLost as error:
        _log.warning("%s: %s; the disk tier begins empty", path, error)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        known = False
        durable = DurablePurges(path)
    try:
        sequence = durable.restore(arena)
        if known:
            arena.apply_purge(sequence + RESTART_GAP, [], soft=False)
            durable.append([PurgeMessage(sequence + RESTART_GAP, 0.0, PurgeKind.HARD, (), False, "restart")])
    finally:
        durable.close()
    return known


class PurgeKeeper:
    """One process's writer. Belongs to one event loop."""

    def __init__(
        self, path: Path, distrust: Callable[[], None], *, sequence: Callable[[], int], retry_s: float = RETRY_S
    ) -> None:
        """`distrust`: makes sure that nothing on disk is used after a restart. May block; may raise `OSError`.
        `sequence`: the last purge applied on this node."""
        self._path = path
        self._distrust = distrust
        self._sequence = sequence
        self._retry_s = retry_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="purges")
        self._durable: DurablePurges | None = None
        self._waiting: list[PurgeMessage] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._position: LogPosition | None = None
        self._kept: asyncio.Future[bool] | None = None
        """Of what waits."""
        self._writing: asyncio.Future[bool] | None = None
        """Of what is being written now."""
        self._failing = False
        self._safe = True
        """What is not written down yet would not be needed after a restart."""

    def start(self) -> None:
        self._task = spawn(self._write_all(), "purge-keeper")

    def keep(self, *messages: PurgeMessage, position: LogPosition | None = None) -> None:
        """Write them down, soon and in one step; with them, what has been applied of the coordinator's log."""
        self._waiting += messages
        if position is not None:
            self._position = position
        if len(self._waiting) > MOST_WAITING:
            newest = max(each.sequence for each in self._waiting)
            self._waiting = [PurgeMessage(newest, 0.0, PurgeKind.HARD, (), True, "too many to keep")]
        if self._kept is None:
            self._kept = asyncio.get_running_loop().create_future()
        self._wake.set()

    async def kept(self) -> bool:
        """Until everything given so far is on stable storage, or cannot be brought there now. False where, because of
        that, a restart might use what was purged."""
        last = self._kept or self._writing
        return self._safe if last is None else await asyncio.shield(last)

    async def prune(self, through: int) -> None:
        """Forget hard purges up to this number: nothing is on disk any more that they cover."""
        with contextlib.suppress(sqlite3.Error, OSError, RuntimeError):  # again with the next one; or it is closed
            await asyncio.get_running_loop().run_in_executor(self._pool, self._prune, through)

    def _prune(self, through: int) -> None:
        if self._durable is not None and self._path.exists():
            self._durable.prune(through)

    async def position(self) -> LogPosition | None:
        """What was last written down of the coordinator's log; None where nothing can be known of it."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._read_position)
        except (sqlite3.Error, OSError, PurgesLost):
            return None

    def _read_position(self) -> LogPosition | None:
        if not self._path.exists():
            return None
        durable = DurablePurges(self._path)
        try:
            return durable.position
        finally:
            durable.close()

    async def close(self) -> None:
        """What is still waiting is written first."""
        await self.kept()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._pool.shutdown()
        if self._durable is not None:
            self._durable.close()

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                messages, self._waiting = self._waiting, []
                position, self._position = self._position, None
                told, self._kept = self._kept, None
                self._writing = told
                try:
                    await loop.run_in_executor(self._pool, self._write, messages, position)
                except (sqlite3.Error, OSError, PurgesLost) as error:
                    self._safe = await self._failed(error, messages)
                    self._position = self._position or position
                else:
                    self._failing, self._safe = False, True
                self._writing = None
                if told is not None and not told.done():
                    told.set_result(self._safe)
                if self._failing:
                    await asyncio.sleep(self._retry_s)

    def _write(self, messages: list[PurgeMessage], position: LogPosition | None) -> None:
        fresh = not self._path.exists()
        if self._durable is None or fresh:
            if self._durable is not None:
                self._durable.close()
                self._durable = None
            self._durable = DurablePurges(self._path)
        if fresh:
            # Somebody has removed it: what it said of what is on disk is not known any more.
            self._durable.append([PurgeMessage(self._sequence(), 0.0, PurgeKind.HARD, (), True, "begun anew")])
        self._durable.append(messages, position)

    async def _failed(self, error: Exception, messages: list[PurgeMessage]) -> bool:
        """Is what is on disk out of use at least?"""
        self._waiting[:0] = messages
        safe = True
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._distrust)
            remedy = "make the directory writable; until then nothing on disk is used"
        except OSError:
            remedy = "make the directory writable, or empty it before the next start"
            safe = False
        if not self._failing:
            _log.error("%s: purges cannot be written down: %s", self._path, error, extra={"remedy": remedy})
        self._failing = True
        return safe
