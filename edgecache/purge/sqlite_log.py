"""The built-in bus: a log in SQLite (WAL, full sync) for one coordinator (DESIGN §7).

An order is numbered and its number told only when it is on stable storage. Appends that arrive while others are being
written wait and are written together, in one transaction with one sync. Where writing fails, every order of that
transaction is refused and none is half there; the next one tries again. Where the file is found to be damaged, removed
or replaced, nothing is logged any more (`logfile`). One thread writes, another reads.

    State (name, value)                          version, log (its identity), floor, floor_time, tried
    Log, Used, Audit                             as in purge/ledger

The file is opened by one process only, which a lock on the side sees to.
"""

import asyncio
import contextlib
import dataclasses
import fcntl
import logging
import os
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from edgecache.http.tasks import spawn
from edgecache.purge import ledger
from edgecache.purge.bus import (
    Appended,
    AuditRecord,
    BusError,
    Caller,
    EdgeReport,
    KeyReused,
    LogPosition,
    LogState,
    Record,
    TooLarge,
    Truncated,
)
from edgecache.purge.frames import MAX_ORDER_BYTES, order_text
from edgecache.purge.ledger import FORGOTTEN_TOGETHER, KEEP, Entry, Retention
from edgecache.purge.logfile import VERSION, Damaged, WatchedFiles, compare, connect, examine, failure
from edgecache.purge.message import PurgeOrder

_log = logging.getLogger("edgecache.purge")
T = TypeVar("T")

FILE: Final = "purges.db"
MOST_TOGETHER: Final = 1000
"""Orders in one transaction."""
MOST_WAITING: Final = 20_000
"""Orders that wait to be written, before more are refused."""
COMPARED_AGAIN: Final = 20
"""Times as long as comparing the file with what has been confirmed took, it is not done again."""
IN_MEMORY: Final = 4096
IN_MEMORY_BYTES: Final = 16 << 20
"""The newest records, which most subscribers lack at any time, are kept in memory too."""

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS State (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    *ledger.SCHEMA,
)


@dataclass(slots=True)
class _Waiting:
    entry: Entry
    done: asyncio.Future[Appended]


class SqliteLog:
    """Belongs to one event loop."""

    shared = False

    def __init__(self, folder: Path, retention: Retention = KEEP) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._retention = retention
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="purge-log")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="purge-read")
        self._con: sqlite3.Connection | None = None
        self._read_con: sqlite3.Connection | None = None
        self._files = WatchedFiles(self._path)
        self._lock: int | None = None
        self._state = LogState("", 0, 0, 0.0)
        self._floor_time = 0.0
        self._recent: deque[Record] = deque()
        self._recent_bytes = 0
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._refused = ""
        """Why the last transaction was refused; "" where it was not."""
        self._damaged: Damaged | None = None
        self._confirmed = self._state
        """What is in the file. The writer's."""
        self._doubted = False
        """Somebody else has written to the file, and it has not been compared since. The writer's."""
        self._compare_after = 0.0

    @property
    def failing(self) -> str:
        return self._damaged.detail if self._damaged is not None else self._refused

    # --- life ---

    async def start(self) -> None:
        try:
            await self._in(self._writer, self._open)
        except BusError:
            await self.close()
            raise
        self._task = spawn(self._write_all(), "purge-log")

    async def close(self) -> None:
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await self._task
        for pool in (self._writer, self._reader):
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)
        for con in (self._con, self._read_con):
            if con is not None:
                con.close()
        self._con = self._read_con = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._grown.set()

    def _open(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder.chmod(0o700)
            self._lock = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BusError(
                f"{self._folder} cannot be used: {error.strerror}", remedy="choose another with coordinator.data"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusError(
                f"another coordinator uses {self._folder}", remedy="stop it, or choose another directory"
            ) from None
        try:
            self._con = connect(self._path)
            for statement in _SCHEMA:
                self._con.execute(statement)
            self._con.executemany(
                "INSERT OR IGNORE INTO State VALUES (?, ?)",
                [("version", VERSION), ("log", secrets.token_hex(16)), ("floor", 0), ("floor_time", 0.0)],
            )
            self._state, self._floor_time = examine(self._con, self._path)
            self._read_con = connect(self._path)
            self._files.leave()
        except (sqlite3.Error, OSError) as error:
            raise failure(self._path, error) from None
        self._confirmed = self._state

    # --- writing ---

    def state(self) -> LogState:
        return self._state

    async def append(self, order: PurgeOrder, *, now: float, caller: Caller, key: str | None = None) -> Appended:
        text = order_text(order)
        if len(text.encode()) > MAX_ORDER_BYTES:
            raise TooLarge(
                f"an order of more than {MAX_ORDER_BYTES} octets cannot be logged", remedy="purge in several calls"
            )
        if self._task is None or self._closed:
            raise BusError("the log is closed")
        if self._damaged is not None:
            raise BusError(self._damaged.detail, remedy=self._damaged.remedy)
        if len(self._waiting) >= MOST_WAITING:
            raise BusError("the log is slower than the purges that come in", remedy="purge at a lower rate")
        waiting = _Waiting(Entry(order, text, now, caller, key), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        return await waiting.done

    async def _write_all(self) -> None:
        while self._waiting or not self._closed:
            if not self._waiting:
                await self._wake.wait()
                self._wake.clear()
                continue
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
            try:
                results = await self._in(self._writer, lambda batch=batch: self._write(batch))  # type: ignore[misc]
            except BusError as error:
                self._refuse(batch, error)
                continue
            except Exception as error:  # noqa: BLE001 - nobody else would tell those who wait
                self._refuse(batch, BusError(f"{self._path}: {error!r}"))
                continue
            self._failed_no_more()
            fresh = [result.record for result in results if isinstance(result, Appended) and not result.again]
            if fresh:
                self._remember(fresh)
            for waiting, result in zip(batch, results, strict=True):
                if waiting.done.done():
                    continue  # the caller has gone
                if isinstance(result, Appended):
                    waiting.done.set_result(result)
                else:
                    waiting.done.set_exception(result)

    def _write(self, batch: list[_Waiting]) -> list[Appended | BusError]:
        """All or none."""
        con = self._con
        assert con is not None
        found: list[Appended | BusError] = []
        try:
            compared = self._see_to_files()
            con.execute("BEGIN IMMEDIATE")
            if self._refused or compared:
                self._drop_unconfirmed(con)
            sequence, newest = self._confirmed.head, self._confirmed.head_time
            for waiting in batch:
                entry = waiting.entry
                try:
                    known = ledger.known(con, entry, self._retention.keys_s) if entry.key is not None else None
                except KeyReused as error:
                    found.append(error)
                    continue
                if known is None:
                    sequence += 1
                    known = Appended(ledger.insert(con, sequence, entry), again=False)
                    newest = known.record.time
                found.append(known)
            con.execute("COMMIT")
            self._files.leave()
        except (sqlite3.Error, OSError, BusError) as error:
            self._roll_back(con)
            raise self._failed(error) from None
        self._confirmed = dataclasses.replace(self._confirmed, head=sequence, head_time=newest)
        return found

    def _see_to_files(self) -> bool:
        """Before each transaction. Were they compared with what has been confirmed? Raises `BusError`, OSError and
        `sqlite3.Error`."""
        if self._damaged is not None:
            raise self._damaged
        self._doubted = self._doubted or not self._files.untouched()
        if not self._doubted or time.monotonic() < self._compare_after:
            return False
        begun = time.monotonic()
        recent = [record for record in list(self._recent) if record.sequence > self._confirmed.floor]
        compare(self._path, self._confirmed, recent)
        self._files.leave()
        self._doubted = False
        took_s = time.monotonic() - begun
        self._compare_after = begun + COMPARED_AGAIN * took_s
        _log.warning(
            "%s was written to by somebody else; all that was confirmed is there (compared in %.3f s)",
            self._path,
            took_s,
            extra={"remedy": "let nobody but the coordinator write to it"},
        )
        return True

    def _drop_unconfirmed(self, con: sqlite3.Connection) -> None:
        """What a failed commit may have left was refused, and is not to come back."""
        for table in ("Log", "Used", "Audit"):
            con.execute(f"DELETE FROM {table} WHERE sequence > ?", (self._confirmed.head,))  # noqa: S608 - our own words

    def _roll_back(self, con: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            if con.in_transaction:
                con.execute("ROLLBACK")
        if not self._doubted:  # what was written before it failed was our own
            with contextlib.suppress(BusError, OSError):  # found again before the next
                self._files.leave()

    def _remember(self, records: list[Record]) -> None:
        last = records[-1]
        self._state = LogState(self._state.log, self._state.floor, last.sequence, last.time)
        self._recent.extend(records)
        self._recent_bytes += sum(len(record.text) for record in records)
        while len(self._recent) > IN_MEMORY or (self._recent_bytes > IN_MEMORY_BYTES and len(self._recent) > 1):
            self._recent_bytes -= len(self._recent.popleft().text)
        self._grown.set()
        self._grown = asyncio.Event()

    def _refuse(self, batch: list[_Waiting], error: BusError) -> None:
        if not self.failing:
            _log.error("purges are refused: %s", error, extra={"remedy": error.remedy})
        self._refused = error.detail
        for waiting in batch:
            if not waiting.done.done():
                waiting.done.set_exception(BusError(error.detail, remedy=error.remedy))

    def _failed_no_more(self) -> None:
        if self._refused and self._damaged is None:
            _log.info("purges can be logged again")
        self._refused = ""

    def _failed(self, error: Exception) -> BusError:
        """What to raise. A damaged file is never written to again, whoever has found it."""
        made = error if isinstance(error, BusError) else failure(self._path, error)
        if isinstance(made, Damaged) and self._damaged is None:
            if self._task is not None:
                _log.error("no purges are taken any more: %s", made, extra={"remedy": made.remedy})
            self._damaged = made
        return made

    # --- reading ---

    async def read(self, after: int, limit: int) -> Sequence[Record]:
        state = self._state
        if after < state.floor:
            raise Truncated(f"entries up to {state.floor} are no longer kept")
        if after >= state.head:
            return ()
        if self._recent and self._recent[0].sequence <= after + 1:
            first = after + 1 - self._recent[0].sequence
            return list(islice(self._recent, first, first + limit))
        rows = await self._select(
            "SELECT sequence, time, text FROM Log WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?",
            (after, state.head, limit),
        )
        if not rows or rows[0][0] != after + 1:
            raise Truncated(f"entry {after + 1} is no longer kept")
        return [Record(*row) for row in rows]

    async def covers(self, position: LogPosition) -> bool:
        state = self._state
        if position.log != state.log or not state.floor <= position.sequence <= state.head:
            return False
        if position.sequence == 0:
            return position.time == 0
        if position.sequence == state.floor:
            return position.time == self._floor_time
        rows = await self._select("SELECT time FROM Log WHERE sequence = ?", (position.sequence,))
        return bool(rows) and rows[0][0] == position.time

    async def follow(self, after: int) -> AsyncGenerator[Sequence[Record], None]:
        while not self._closed:
            grown = self._grown
            records = await self.read(after, MOST_TOGETHER)
            if not records:
                await grown.wait()
                continue
            after = records[-1].sequence
            yield records

    async def audit(self, *, before: int | None, limit: int) -> Sequence[AuditRecord]:
        upto = before if before is not None else self._state.head + 1
        return await self._look(lambda con: ledger.audit(con, upto, limit))

    # --- compaction ---

    async def compact(self, now: float) -> LogState:
        while True:
            floor, floor_time, more = await self._in(self._writer, lambda: self._compact(now))
            self._failed_no_more()
            self._floor_time = floor_time
            self._state = LogState(self._state.log, floor, self._state.head, self._state.head_time)
            while self._recent and self._recent[0].sequence <= floor:
                self._recent_bytes -= len(self._recent.popleft().text)
            if not more:
                return self._state

    def _compact(self, now: float) -> tuple[int, float, bool]:
        """A part of it: the new floor with its time, and whether there is more to do."""
        con, keep = self._con, self._retention
        assert con is not None
        try:
            compared = self._see_to_files()
            con.execute("BEGIN IMMEDIATE")
            if self._refused or compared:
                self._drop_unconfirmed(con)
                con.execute("INSERT OR REPLACE INTO State VALUES ('tried', ?)", (now,))  # can it be written again?
            known = dict(con.execute("SELECT name, value FROM State WHERE name IN ('floor', 'floor_time')").fetchall())
            floor, floor_time = known["floor"], known["floor_time"]
            head = con.execute("SELECT max(sequence) FROM Log").fetchone()[0] or floor
            through = max(ledger.aged(con, keep, now, head), head - keep.entries)
            upto = min(through, floor + FORGOTTEN_TOGETHER)
            if upto > floor:
                floor_time = con.execute("SELECT time FROM Log WHERE sequence = ?", (upto,)).fetchone()[0]
                con.execute("DELETE FROM Log WHERE sequence <= ?", (upto,))
                con.executemany(
                    "UPDATE State SET value = ? WHERE name = ?", [(upto, "floor"), (floor_time, "floor_time")]
                )
                floor = upto
            ledger.forget_beside(con, keep, now, head)
            con.execute("COMMIT")
            self._files.leave()
        except (sqlite3.Error, OSError, BusError) as error:
            self._roll_back(con)
            raise self._failed(error) from None
        self._confirmed = dataclasses.replace(self._confirmed, floor=floor)
        return floor, floor_time, upto < through

    # --- other coordinators: there are none ---

    async def report(self, report: EdgeReport) -> None:
        pass

    async def reports(self) -> AsyncGenerator[EdgeReport, None]:
        return
        yield  # an empty generator

    async def gone(self, report: EdgeReport, *, within_s: float) -> bool:
        del report, within_s  # none is direct
        return False

    # --- helpers ---

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    async def _select(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        return await self._look(lambda con: con.execute(statement, values).fetchall())

    async def _look(self, question: Callable[[sqlite3.Connection], T]) -> T:
        con = self._read_con
        if con is None or self._closed:
            raise BusError("the log is closed")
        try:
            return await self._in(self._reader, lambda: question(con))
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from None
