"""Writing purges down as they are applied, away from the event loop (DESIGN §7).

A purge is in force, for memory and disk alike, once the arena has it; it is *kept* once it is on stable storage, which
`kept` waits for. Many at once are written in one go. Where they cannot be written, what is on disk must not be used
after a restart: the disk tier's database is removed there and then, and the writing is tried again.

What somebody has ordered goes into the log in the same transaction. An order with an idempotency key is looked up there
first, and applied within the transaction: so it is applied once, in whatever process of the node it is repeated.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from edgecache._native.arena import Arena
from edgecache.http.tasks import spawn
from edgecache.purge import ledger
from edgecache.purge.bus import Appended, BusError, KeyReused, LogPosition, Record
from edgecache.purge.durable import DurablePurges, PurgesLost
from edgecache.purge.ledger import KEEP, Entry, Retention
from edgecache.purge.message import PurgeKind, PurgeMessage

_log = logging.getLogger("edgecache.purge")

RESTART_GAP = 10_000
"""Numbers left out at a restart: those allotted before a crash and not written down are never used for other purges."""
MOST_WAITING = 10_000
"""Purges that wait to be written, before they are made one of everything."""
RETRY_S = 2.0
DAMAGED: Final = ".damaged"
"""What a file that cannot be read is called from then on."""
_FAULTS: Final = (sqlite3.Error, OSError, PurgesLost)
T = TypeVar("T")


@dataclass(slots=True)
class _Keyed:
    """An order with an idempotency key, which stands for an earlier one or is applied."""

    entry: Entry
    apply: Callable[[], PurgeMessage]
    done: asyncio.Future[Appended]
    message: PurgeMessage | None = None
    """What it has become."""
    outcome: Appended | KeyReused | None = None


@dataclass(slots=True)
class _Batch:
    """What is written in one go."""

    messages: list[PurgeMessage]
    position: LogPosition | None
    entries: list[tuple[int, Entry]]
    """Orders by their numbers."""
    keyed: list[_Keyed]


def restore(path: Path, arena: Arena) -> bool:
    """Put what was purged before the restart into an empty arena. False where nothing is known of it, so that nothing
    stored may be used. Before any process is forked. Raises `sqlite3.Error` and `OSError`."""
    known = path.exists()
    try:
        durable = DurablePurges(path)
    except PurgesLost as error:
        _log.warning("%s: %s; it is put aside, and nothing that was stored before is used", path, error)
        put_aside(path)
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


def put_aside(path: Path) -> None:
    """So that another can be begun. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        path.replace(path.with_name(path.name + DAMAGED))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _file(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class PurgeKeeper:
    """One process's writer. Belongs to one event loop."""

    def __init__(
        self,
        path: Path,
        distrust: Callable[[], None],
        *,
        sequence: Callable[[], int],
        retry_s: float = RETRY_S,
        retention: Retention = KEEP,
    ) -> None:
        """`distrust`: makes sure that nothing on disk is used after a restart. May block; may raise `OSError`.
        `sequence`: the last purge applied on this node. `retention`: of orders."""
        self._path = path
        self._distrust = distrust
        self._sequence = sequence
        self._retry_s = retry_s
        self._retention = retention
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="purges")
        self._durable: DurablePurges | None = None
        self._of: tuple[int, int] | None = None
        """The file it was opened on, which somebody may have put aside since."""
        self._waiting: list[PurgeMessage] = []
        self._entries: list[tuple[int, Entry]] = []
        self._keyed: list[_Keyed] = []
        self._closing = False
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

    @property
    def failing(self) -> bool:
        """Is something waiting that could not be written?"""
        return self._failing

    @property
    def safe(self) -> bool:
        """Would a restart use nothing that was purged, as far as it was to be written by now?"""
        return self._safe

    def keep(self, *messages: PurgeMessage, position: LogPosition | None = None, entry: Entry | None = None) -> None:
        """Write them down, soon and in one step; with them, what has been applied of the coordinator's log, and the
        order that the last of them was."""
        self._waiting += messages
        if position is not None:
            self._position = position
        if entry is not None:
            self._entries.append((messages[-1].sequence, entry))
            if len(self._entries) > MOST_WAITING:
                self._entries.pop(0)
        if len(self._waiting) > MOST_WAITING:
            newest = max(each.sequence for each in self._waiting)
            self._waiting = [PurgeMessage(newest, 0.0, PurgeKind.HARD, (), True, "too many to keep")]
        self._due()

    async def keep_once(self, entry: Entry, apply: Callable[[], PurgeMessage]) -> Appended:
        """An order with an idempotency key: what the key stands for already, or applied, kept and logged. Raises
        `KeyReused`, and `BusError` where it cannot be looked up; nothing has been applied then."""
        if self._task is None or self._closing:
            raise BusError("the log is closed")
        keyed = _Keyed(entry, apply, asyncio.get_running_loop().create_future())
        self._keyed.append(keyed)
        self._due()
        return await keyed.done

    def _due(self) -> None:
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

    async def retire_patterns(self, through: int) -> None:
        """Forget patterns up to this number: everything on disk that is older has been compared with them."""
        with contextlib.suppress(sqlite3.Error, OSError, RuntimeError):  # at worst they are compared again
            await asyncio.get_running_loop().run_in_executor(self._pool, self._retire_patterns, through)

    def _retire_patterns(self, through: int) -> None:
        if self._durable is not None and self._path.exists():
            self._durable.retire_patterns(through)

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Of the log. Raises `BusError`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self._opened().ask(question))
        except (*_FAULTS, RuntimeError) as error:  # RuntimeError: closed
            raise BusError(f"{self._path}: {error}") from None

    async def compact(self, now: float) -> None:
        """Forget orders that need not be kept any longer. Raises `BusError`."""
        while await self.ask(lambda con: ledger.compact(con, self._retention, now)):
            pass

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
        self._closing = True
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
            while self._waiting or self._entries or self._keyed:
                batch = _Batch(self._waiting, self._position, self._entries, self._keyed)
                self._waiting, self._position, self._entries, self._keyed = [], None, [], []
                told, self._kept = self._kept, None
                self._writing = told
                try:
                    await loop.run_in_executor(self._pool, self._write, batch)
                except _FAULTS as error:
                    self._safe = await self._failed(error, batch)
                else:
                    self._failing, self._safe = False, True
                self._writing = None
                for keyed in batch.keyed:
                    _tell(keyed)
                if told is not None and not told.done():
                    told.set_result(self._safe)
                if self._failing:
                    await asyncio.sleep(self._retry_s)

    def _write(self, batch: _Batch) -> None:
        orders = batch.entries or batch.keyed
        self._opened().append(batch.messages, batch.position, *((lambda con: self._log(con, batch),) if orders else ()))

    def _log(self, con: sqlite3.Connection, batch: _Batch) -> Iterator[PurgeMessage]:
        """Write down orders, and decide what those with a key are."""
        for sequence, entry in batch.entries:
            ledger.insert(con, sequence, entry)
        for keyed in batch.keyed:
            try:
                keyed.outcome = ledger.known(con, keyed.entry, self._retention.keys_s)
            except KeyReused as error:
                keyed.outcome = error
            if keyed.outcome is None:
                keyed.message = keyed.apply()
                record = ledger.insert(con, keyed.message.sequence, keyed.entry)
                keyed.outcome = Appended(record, again=False)
                yield keyed.message

    def _opened(self) -> DurablePurges:
        file = _file(self._path)
        if self._durable is not None and self._of != file:
            self._durable.close()
            self._durable = None
        if self._durable is None:
            self._durable = DurablePurges(self._path)
            self._of = _file(self._path)
        if file is None:
            # Somebody has removed it: what it said of what is on disk is not known any more.
            self._durable.append([PurgeMessage(self._sequence(), 0.0, PurgeKind.HARD, (), True, "begun anew")])
        return self._durable

    async def _failed(self, error: Exception, batch: _Batch) -> bool:
        """Is what is on disk out of use at least, where it has to be? What has been applied is to be written yet."""
        for keyed in batch.keyed:
            keyed.outcome = None
            if keyed.message is not None:
                number = keyed.message.sequence
                batch.messages.append(keyed.message)
                batch.entries.append((number, keyed.entry))
                keyed.outcome = Appended(Record(number, keyed.entry.now, keyed.entry.text), again=False)
        needed = bool(batch.messages)
        self._waiting[:0] = batch.messages
        self._entries[:0] = batch.entries
        self._position = self._position or batch.position
        safe = self._safe
        remedy = "make the directory writable; until then nothing on disk is used"
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._give_up, error, needed)
            safe = safe or needed
        except OSError:
            remedy = "make the directory writable, or empty it before the next start"
            safe = safe and not needed
        if not self._failing:
            _log.error("%s: purges cannot be written down: %s", self._path, error, extra={"remedy": remedy})
        self._failing = True
        return safe

    def _give_up(self, error: Exception, needed: bool) -> None:
        """Nothing on disk is used from now on, where a purge is missing; a damaged file is put aside for another."""
        if needed:
            self._distrust()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if isinstance(error, PurgesLost) or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            if self._durable is not None:
                self._durable.close()
                self._durable = None
            put_aside(self._path)


def _tell(keyed: _Keyed) -> None:
    if keyed.done.done():
        return  # the caller has gone
    match keyed.outcome:
        case Appended():
            keyed.done.set_result(keyed.outcome)
        case KeyReused():
            keyed.done.set_exception(keyed.outcome)
        case None:
            keyed.done.set_exception(BusError("whether this idempotency key was used cannot be looked up"))
