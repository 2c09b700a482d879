"""The file of the coordinator's log: opened, examined, and watched while it is used.

SQLite keeps what it has read in memory, and writes on over a file that has been removed, replaced or overwritten under
it: what it then calls committed is gone with the next start. The log's one writer can tell. Nobody else writes, so the
files must be as it left them: the same files, of the same size and time. Where somebody has written, all is read
again by a connection that remembers nothing, and compared with what has been confirmed.

Nothing here opens the file but SQLite: closing it would drop SQLite's locks on it (POSIX locks are the process's).
"""

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from edgecache.purge.bus import BusError, LogState, Record
from edgecache.purge.ledger import CACHED

VERSION: Final = 1
START_ANEW: Final = (
    "stop the coordinator; then restore the file from a backup, or leave none, nor its -wal and -shm: a new log "
    "begins, and every edge takes what it has stored as purged"
)


class Damaged(BusError):
    """The file does not hold what it must. It will not by itself: nothing is logged any more."""


def failure(path: Path, error: Exception) -> BusError:
    """What SQLite or the system says, and what to do about it."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or extended == sqlite3.SQLITE_IOERR_SHORT_READ:
        return Damaged(f"{path} is damaged: {error}", remedy=START_ANEW)
    if code == sqlite3.SQLITE_FULL:
        return BusError(f"no room for {path}: {error}", remedy="free space on its file system")
    return BusError(f"{path}: {error}", remedy="see to the file system it lies on")


def connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    con = sqlite3.connect(str(path), timeout=10.0, isolation_level=None, check_same_thread=False)
    try:
        for statement in (
            "PRAGMA trusted_schema = OFF",
            "PRAGMA mmap_size = 0",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA journal_size_limit = 16777216",
            CACHED,
        ):
            con.execute(statement).fetchall()
    except BaseException:
        con.close()
        raise
    return con


def examine(con: sqlite3.Connection, path: Path) -> tuple[LogState, float]:
    """What the file holds, all of it read; and the floor's time. Raises `BusError`, `sqlite3.Error`."""
    known = dict(con.execute("SELECT name, value FROM State").fetchall())
    if known["version"] != VERSION:
        raise BusError(f"{path} is of version {known['version']}, which this program does not know")
    found = con.execute("PRAGMA quick_check(1)").fetchall()
    if found != [("ok",)]:
        raise Damaged(f"{path} is damaged: {found[0][0]}", remedy=START_ANEW)
    head = con.execute("SELECT sequence, time FROM Log ORDER BY sequence DESC LIMIT 1").fetchone()
    count = con.execute("SELECT count(*) FROM Log").fetchone()[0]
    number, time = head or (known["floor"], known["floor_time"])
    if number - known["floor"] != count:
        raise Damaged(f"{path} has gaps", remedy=START_ANEW)
    return LogState(known["log"], known["floor"], number, time), known["floor_time"]


def compare(path: Path, confirmed: LogState, records: Sequence[Record]) -> None:
    """Does the file still hold what has been confirmed, `records` (the newest, without gap) among it? It may hold more
    entries. Where it does, it is one sound file again. Raises `BusError` and `sqlite3.Error`."""
    con = connect(path)
    try:
        found, _ = _examine_strange(con, path)
        first = records[0].sequence if records else confirmed.head
        rows = con.execute(
            "SELECT sequence, time, text FROM Log WHERE sequence >= ? AND sequence <= ? ORDER BY sequence",
            (first, confirmed.head),
        ).fetchall()
        held = [Record(*row) for row in rows]
        newest = (held[-1].sequence, held[-1].time) if held else (found.floor, confirmed.head_time)
        if (
            (found.log, found.floor) != (confirmed.log, confirmed.floor)
            or newest != (confirmed.head, confirmed.head_time)
            or held[: len(records)] != list(records)
        ):
            raise Damaged(f"{path} has been overwritten: purges that were confirmed are not there", remedy=START_ANEW)
        # Frames of the WAL that are not used any more were not read, and a recovery would end at a damaged one.
        if con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise BusError(f"{path} is used by somebody else", remedy="end what has it open")
    finally:
        con.close()


def _examine_strange(con: sqlite3.Connection, path: Path) -> tuple[LogState, float]:
    try:
        return examine(con, path)
    except KeyError:
        pass
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
    raise Damaged(f"{path} has been overwritten with another database", remedy=START_ANEW)


@dataclass(frozen=True, slots=True)
class _File:
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class WatchedFiles:
    """Belongs to the thread that writes."""

    def __init__(self, path: Path) -> None:
        self._paths = tuple(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm"))
        self._left: tuple[_File, ...] = ()

    def leave(self) -> None:
        """As they are now is how they were left. Raises `Damaged` where they are not the same files, and OSError."""
        self._left = self._look()

    def untouched(self) -> bool:
        """False: somebody else has written to them since. Raises the same, also where the file is shorter than it
        was."""
        found = self._look()
        if found[0].size_bytes < self._left[0].size_bytes:
            raise Damaged(f"{self._paths[0]} has been cut short", remedy=START_ANEW)
        # Readers write to the last one, the WAL's index, through a mapping.
        return found[:2] == self._left[:2]

    def _look(self) -> tuple[_File, ...]:
        try:
            found = tuple(_File.of(path.stat()) for path in self._paths)
        except FileNotFoundError as error:
            raise Damaged(f"{error.filename} has been removed", remedy=START_ANEW) from None
        for path, now, left in zip(self._paths, found, self._left, strict=False):
            if (now.device, now.inode) != (left.device, left.inode):
                raise Damaged(f"{path} has been replaced", remedy=START_ANEW)
        return found
