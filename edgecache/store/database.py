"""The disk tier's rows: diskcache's cache, held to octets, with the few things it lacks.

diskcache gives the schema, the look-up and the store; ours are the connections (so that all can be closed), the
transactions over many stores, the journal of files without a record, and recency. What shapes it, measured: DESIGN §6.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import diskcache

from edgecache.store.diskfiles import DATABASE, Columns, Fetched, RecordDisk

SCHEMA = 1
"""In `PRAGMA user_version`: a directory of another layout is emptied."""
BUSY_S = 10.0
CHECKPOINT_BUSY_MS = 20
"""Readers are done within microseconds; one that is frozen shall not hold up the writers."""
_SETTINGS: dict[str, object] = {
    "eviction_policy": "none",  # ours: by bytes, and least recently used by our own times
    "cull_limit": 0,
    "size_limit": 2**62,
    "statistics": 0,
    "tag_index": 0,
    "sqlite_auto_vacuum": 2,  # incremental: free pages go back when files need the room
    "sqlite_cache_size": 512,  # pages, for each thread: the kernel has the rest
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 0,  # a mapped page that cannot be read kills the process; a read says so
    "sqlite_synchronous": 1,
    "sqlite_wal_autocheckpoint": 0,  # done apart, so that no writer waits for it with the lock held
}
_TABLES = (
    "CREATE TABLE IF NOT EXISTS Journal (name TEXT PRIMARY KEY, size INTEGER, owner INTEGER) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS Cache_recency ON Cache (access_time)",
)


class DatabaseLost(Exception):
    """The file this process has open is no longer the one in the directory, or is not a database of ours."""


class Database(diskcache.Cache):  # type: ignore[misc]  # diskcache has no types
    """Connections are per thread. Raises `sqlite3.Error`, `OSError`, `DiskFault` and `DatabaseLost`."""

    def __init__(self, path: Path) -> None:
        self._txn_id: int | None
        self._made: list[sqlite3.Connection] = []
        self._making = threading.Lock()
        self._file = path / DATABASE
        fresh = not self._file.exists()
        try:
            super().__init__(str(path), timeout=BUSY_S, disk=RecordDisk, **_SETTINGS)
            version = self._rows("PRAGMA user_version")[0][0]
            if not fresh and version != SCHEMA:
                raise DatabaseLost(f"its layout is version {version}, not {SCHEMA}")
            for statement in _TABLES:
                self._sql(statement)
            self._sql(f"PRAGMA user_version = {SCHEMA}")
            self.page_size = int(self._rows("PRAGMA page_size")[0][0])
            self._inode = self._file.stat().st_ino
        except BaseException:
            self.close_all()
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        """This thread's connection: as diskcache makes them, but known to `close_all`."""
        local, pid = self._local, os.getpid()
        con = getattr(local, "con", None)
        if con is None or getattr(local, "pid", None) != pid:
            con = sqlite3.connect(str(self._file), timeout=self._timeout, isolation_level=None, check_same_thread=False)
            local.con, local.pid = con, pid
            with self._making:
                self._made.append(con)
            con.execute("PRAGMA trusted_schema = OFF")
            for key, value in _SETTINGS.items():
                if key.startswith("sqlite_") and key not in {"sqlite_auto_vacuum", "sqlite_journal_mode"}:
                    con.execute(f"PRAGMA {key[7:]} = {value}").fetchall()
        return cast("sqlite3.Connection", con)

    def close(self) -> None:
        con = getattr(self._local, "con", None)
        if con is not None:
            del self._local.con
            with self._making:
                self._made.remove(con)
            con.close()

    def close_all(self) -> None:
        """Close every thread's connection. Nobody may be using one."""
        with self._making:
            made, self._made = self._made, []
        for con in made:
            con.close()
        self._local = threading.local()

    def check_in_place(self) -> None:
        """Raises `DatabaseLost` where somebody has removed or replaced the database."""
        try:
            inode = self._file.stat().st_ino
        except FileNotFoundError:
            inode = -1
        if inode != self._inode:
            raise DatabaseLost("somebody has removed it")

    def _rows(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return list(self._sql(statement, values).fetchall())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction over everything in it, diskcache's own stores included. The caller holds the write lock."""
        self.check_in_place()
        self._sql("BEGIN IMMEDIATE")
        self._txn_id = threading.get_ident()
        try:
            yield
        except BaseException:
            self._txn_id = None
            if self._con.in_transaction:
                self._sql("ROLLBACK")
            raise
        self._txn_id = None
        try:
            self._sql("COMMIT")
        except sqlite3.Error:
            if self._con.in_transaction:
                self._sql("ROLLBACK")
            raise

    # --- records ---

    def find(self, key: bytes) -> tuple[Fetched, object] | None:
        """(content, tag column). The caller closes the descriptor."""
        fetched, tag = self.get(key, read=True, tag=True)
        return None if fetched is None else (fetched, tag)

    def row(self, key: bytes) -> tuple[int, str | None, int, object, object] | None:
        """(rowid, filename, size, value, tag), without opening the file."""
        rows = self._rows("SELECT rowid, filename, size, value, tag FROM Cache WHERE key = ? AND raw = 1", (key,))
        return rows[0] if rows else None

    def store(self, key: bytes, columns: Columns, tag: bytes, keep_s: float | None) -> tuple[str, int] | None:
        """In a transaction. (name, counted size) of the file that the record had before, if any: the caller's now."""
        before = self._rows("SELECT filename, size FROM Cache WHERE key = ? AND raw = 1", (key,))
        self.set(key, columns, expire=keep_s, tag=tag)
        return (str(before[0][0]), int(before[0][1])) if before and before[0][0] is not None else None

    def update(self, rowid: int, value: bytes, tag: bytes, expire_time: float | None) -> None:
        self._sql(
            "UPDATE Cache SET value = ?, tag = ?, expire_time = ? WHERE rowid = ?", (value, tag, expire_time, rowid)
        )

    def drop(self, rowids: list[int]) -> None:
        self._con.executemany("DELETE FROM Cache WHERE rowid = ?", [(rowid,) for rowid in rowids])

    def touch_all(self, touched: list[tuple[float, bytes]]) -> None:
        """In a transaction: (time, key) of records used since they were last written back."""
        self._con.executemany(
            "UPDATE Cache SET access_time = ?1 WHERE key = ?2 AND raw = 1 AND access_time < ?1", touched
        )

    def tags(self, keys: Sequence[bytes]) -> list[tuple[object, object]]:
        """(key, tag column) of those of these keys that have a record."""
        marks = ",".join("?" * len(keys))
        rows = self._rows(f"SELECT key, tag FROM Cache WHERE raw = 1 AND key IN ({marks})", tuple(keys))  # noqa: S608 - marks
        return [(key, tag) for key, tag in rows]

    def oldest(self, limit: int) -> list[tuple[int, str | None, int, int]]:
        """(rowid, filename, file size, octets in the row), least recently used first."""
        return cast(
            "list[tuple[int, str | None, int, int]]",
            self._rows("SELECT rowid, filename, size, length(value) FROM Cache ORDER BY access_time LIMIT ?", (limit,)),
        )

    def expired(self, now: float, limit: int) -> list[tuple[int, str | None, int]]:
        return cast(
            "list[tuple[int, str | None, int]]",
            self._rows(
                "SELECT rowid, filename, size FROM Cache WHERE expire_time IS NOT NULL AND expire_time < ?"
                " ORDER BY expire_time LIMIT ?",
                (now, limit),
            ),
        )

    def after(self, rowid: int, limit: int) -> list[tuple[int, object, str | None, int]]:
        """(rowid, tag, filename, size) of the rows that follow, in the order they were made."""
        return cast(
            "list[tuple[int, object, str | None, int]]",
            self._rows(
                "SELECT rowid, tag, filename, size FROM Cache WHERE rowid > ? ORDER BY rowid LIMIT ?", (rowid, limit)
            ),
        )

    def value(self, rowid: int) -> object:
        """None where the row has gone."""
        rows = self._rows("SELECT value FROM Cache WHERE rowid = ?", (rowid,))
        return rows[0][0] if rows else None

    # --- the journal: files that may lie there without a record ---

    def journal(self, entries: list[tuple[str, int, int]]) -> None:
        """(name, counted size, owner), before the file is made, and in the transaction that drops its record."""
        self._con.executemany("INSERT OR REPLACE INTO Journal VALUES (?, ?, ?)", entries)

    def forget(self, names: list[str]) -> None:
        self._con.executemany("DELETE FROM Journal WHERE name = ?", [(name,) for name in names])

    def journalled(self, owner: int | None, limit: int) -> list[str]:
        if owner is None:
            rows = self._rows("SELECT name FROM Journal LIMIT ?", (limit,))
        else:
            rows = self._rows("SELECT name FROM Journal WHERE owner = ? LIMIT ?", (owner, limit))
        return [str(name) for (name,) in rows]

    def is_known(self, key: bytes, name: str) -> bool:
        """Does a record or the journal speak of this file? One snapshot for both."""
        return bool(
            self._rows(
                "SELECT 1 FROM Cache WHERE key = ?1 AND raw = 1 AND filename = ?2"
                " UNION ALL SELECT 1 FROM Journal WHERE name = ?2 LIMIT 1",
                (key, name),
            )
        )

    # --- figures ---

    def figures(self) -> tuple[int, int, int, int, int]:
        """(pages, free pages, octets of files, octets journalled, records)."""
        pages = int(self._rows("PRAGMA page_count")[0][0])
        free = int(self._rows("PRAGMA freelist_count")[0][0])
        settings = dict(self._rows("SELECT key, value FROM Settings WHERE key IN ('size', 'count')"))
        journalled = int(self._rows("SELECT total(size) FROM Journal")[0][0])
        return pages, free, int(settings["size"]), journalled, int(settings["count"])

    def wal_size(self) -> int:
        try:
            return os.stat(f"{self._file}-wal").st_size
        except FileNotFoundError:
            return 0

    def sync(self) -> bool:
        """Bring what has been committed, by whatever process, onto stable storage: commits alone do not wait for that,
        and a power cut may undo the last of them. Raises `OSError`."""
        with suppress(FileNotFoundError):  # then all of it is in the database
            fd = os.open(f"{self._file}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        return True

    def give_back(self, pages: int) -> None:
        """In a transaction: return so many free pages to the file system (at the next checkpoint)."""
        self._rows(f"PRAGMA incremental_vacuum({pages})")

    def checkpoint(self, mode: str) -> bool:
        """Copy the log into the database. True when nothing was left over."""
        self._rows(f"PRAGMA busy_timeout = {CHECKPOINT_BUSY_MS}")
        try:
            busy, log, copied = self._rows(f"PRAGMA wal_checkpoint({mode})")[0]
        finally:
            self._rows(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
        return not busy and log == copied

    def limit_wal(self, size: int) -> None:
        self._sql(f"PRAGMA journal_size_limit = {size}")
