"""One process's hold on the disk tier's directory: every call blocks, none may be made on an event loop.

Ownership: all processes of a node open the same directory, each with an `owner` number of its own. A reader needs no
lock; an open descriptor keeps a body that is evicted under it. Writers take turns by a lock in the kernel, for one
short transaction at a time. Space is counted before it is written: a body's file is journalled with its size first, and
the journal counts until the file is gone or has a record. So what a killed process leaves is exactly what the journal
names, and `release` needs no search to remove it.
"""

import errno
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from edgecache.store import diskfiles
from edgecache.store.database import Database, DatabaseLost
from edgecache.store.diskentry import BodyCorrupt, DiskEntry, Known, Seen
from edgecache.store.diskfiles import Columns, Fetched, blocks
from edgecache.store.diskrecord import INLINE_MAX, Checksums, DiskRecordError, decode, decode_tag, encode
from edgecache.store.memory import Record

MIN_SIZE = 32 << 20
EVICT_STEP = 64
"""Records evicted in one transaction, at most: what bounds how long a writer holds the lock."""
SLACK = 256
"""This part of the size is freed beyond what is needed, so that not every store has to evict."""
VACUUM_STEP = 256
TOUCH_STEP = 256
ROW_OVERHEAD = 256
"""Octets a record costs in the database beyond its value (row, indexes, slack): 212 measured with 1,000,000."""
_FIXED_COST = 257 * diskfiles.BLOCK + (64 << 10)
"""The directories, and the database's shared index of its log."""

_PROBE = 64 << 10
_NOTHING = Record(b"", b"", 0.0, 0.0, 0.0, 0, 0, 0, ())

FAULTS = (OSError, sqlite3.Error, diskfiles.DiskFault, DatabaseLost)


class Purged(Protocol):
    """`Arena.purged`: 0 valid, 1 soft-purged, 2 hard-purged."""

    def __call__(self, fill_seq: int, tags: Sequence[int], proved: int = 0, /) -> int: ...


class Patterns(Protocol):
    """What the tier above knows of patterns in force: it can read what is stored. Called from several threads."""

    def newest_pattern(self) -> int: ...
    def late(self, fill_seq: int) -> bool: ...
    def settle(self, meta: bytes, tags: Sequence[int], fill_seq: int) -> None: ...


@dataclass(slots=True)
class DiskCounters:
    """Since this process opened the directory."""

    hits: int = 0
    """Look-ups that found a record."""
    sent: int = 0
    """Bodies sent from their files, by references in memory."""
    misses: int = 0
    stored: int = 0
    dropped: int = 0
    """Not stored: the queue was full, nothing more could be evicted, or the tier was off."""
    refused: int = 0
    """Not stored: purged meanwhile."""
    corrupt: int = 0
    evicted: int = 0
    expired: int = 0
    purged: int = 0
    orphans: int = 0
    failures: int = 0
    """Times the tier turned itself off."""


@dataclass(slots=True)
class Put:
    """A record to be stored, its body in hand or spooled."""

    key: bytes
    record: Record
    body: Sequence[bytes]
    size: int
    name: str | None = None
    """Of the body's file, once it has one."""
    checksums: tuple[int, ...] = ()
    outcome: bool = field(default=False)
    generation: int = 0
    """Of the record, once it was made."""
    stored: Callable[[int], None] | None = None
    """Told the record's generation once it lies there."""


class Volume:
    """Raises what `FAULTS` names where the disk fails: the caller turns the tier off."""

    def __init__(
        self,
        path: Path,
        size: int,
        *,
        owner: int,
        purged: Purged,
        proved: Callable[[], int] = lambda: 0,
        keep_s: float = 86_400.0,
        boot: str = "",
    ) -> None:
        """`proved`: the number up to which hard purges may have been forgotten, since the sweep has left nothing that
        they cover. It is asked for before what it is to say something of is read. `keep_s`: how long a record is kept
        beyond its last use as fresh or stale, for validation at the origin. `boot`: the mark without which the
        directory's content is not to be used, but emptied."""
        if size < MIN_SIZE:
            raise ValueError(f"a disk tier has at least {MIN_SIZE >> 20} MiB")
        self.path = path
        self.size = size
        self.owner = owner
        self.purged = purged
        self.proved = proved
        self.keep_s = keep_s
        self.boot = boot
        self.patterns: Patterns | None = None
        self.counters = DiskCounters()
        self.wal_limit = min(max(size // 64, 2 << 20), 8 << 20)
        self.spare = min(size // 50, 64 << 20)
        """Octets that must be free on the file system before the tier, once off, is used again."""
        self._seen = Seen()
        self._turn = threading.Lock()
        self._lock_fd = -1
        self._gone: list[str] = []
        """Files to unlink, after the transaction that journalled them."""
        self._unlinked: list[str] = []
        """Files unlinked, to be forgotten by the journal in the next transaction."""

    def heed(self, patterns: Patterns) -> None:
        """From now on compare records with these."""
        self.patterns = patterns

    # --- life ---

    def open(self) -> None:
        diskfiles.prepare(self.path)
        self._lock_fd = os.open(self.path / "lock.write", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with self._turn, diskfiles.locked(self._lock_fd):
                self.database = self._open_database()
            self.database.limit_wal(self.wal_limit)
            self.release(self.owner)
        except BaseException:
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise

    def _open_database(self) -> Database:
        mark = self.path / "boot"
        trusted = not self.boot or (mark.exists() and mark.read_text("ascii", "replace") == self.boot)
        if trusted and (self.path / diskfiles.DATABASE).exists():
            try:
                return Database(self.path)
            except (DatabaseLost, TypeError, ValueError, KeyError):
                pass
            except sqlite3.DatabaseError as error:
                if not damaged(error):
                    raise
        wipe(self.path)
        if self.boot:
            mark.write_text(self.boot, "ascii")
        return Database(self.path)

    def forget_all(self) -> None:
        """Make sure that nothing stored is ever found again, by whatever process. Raises `OSError`."""
        (self.path / diskfiles.DATABASE).unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Does the directory take what is written to it? Raises as everything here does."""
        free = os.statvfs(self.path)
        if free.f_bavail * free.f_frsize < self.spare:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        name = diskfiles.file_name(bytes(16))
        with self.writing():
            self.database.journal([(name, blocks(_PROBE), self.owner)])
        self._write_file(Put(bytes(16), _NOTHING, (bytes(_PROBE),), _PROBE), name)
        self._abandon([name])
        self.settle()

    def close(self) -> None:
        """Nobody may be inside a call."""
        if self._lock_fd >= 0:
            self.database.close_all()
            os.close(self._lock_fd)
            self._lock_fd = -1

    def release(self, owner: int | None) -> int:
        """Remove the files that a dead process (None: all of them) was writing or removing. How many there were."""
        count = 0
        while names := self.database.journalled(owner, EVICT_STEP):
            count += sum(diskfiles.unlink(self.path, name) for name in names)
            with self.writing():
                self.database.forget(names)
        return count

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One short transaction, in turn with all other writers; afterwards, the files it made superfluous go."""
        with self._turn:
            if self._lock_fd < 0:  # closed, since it failed: whoever still spools a body comes too late
                raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self.path))
            self._gone = []
            with diskfiles.locked(self._lock_fd), self.database.writing():
                self.database.forget(self._unlinked)
                yield
            self._unlinked = []
            gone = self._gone
        if gone:
            self._abandon(gone)

    def settle(self) -> None:
        """Let the journal forget what is unlinked, and the log go into the database where it has grown."""
        if self._unlinked:
            with self.writing():
                pass
        if self.database.wal_size() > self.wal_limit // 2:
            # The bulk of it, with its syncs, while others write; then the little that came meanwhile, in our turn, so
            # that the next writer begins the log anew. Where a reader is in the way the next call tries again.
            self.database.checkpoint("PASSIVE")
            with self._turn, diskfiles.locked(self._lock_fd):
                self.database.checkpoint("TRUNCATE")

    # --- reading ---

    def get(self, key: bytes) -> DiskEntry | None:
        """The whole, valid record. What is not whole is counted, removed, and a miss."""
        proved = self.proved()
        found = self.database.find(key)
        entry = None if found is None else self._entry(key, *found, proved)
        if entry is None:
            self.counters.misses += 1
        else:
            self.counters.hits += 1
        return entry

    def reopen(self, known: Known) -> DiskEntry | None:
        """A record found before, if its file is still there and no hard purge covers it. Blocks for an open only."""
        record = known.data.record
        # As proved when it was found: its row may be gone since, and its file not yet.
        state = self.purged(record.fill_seq, record.tags, known.proved)
        if state == 2:
            return None
        try:
            fd = os.open(f"{self.path}/{known.filename}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        entry = DiskEntry(known.key, known.data, fd, known.filename, self._seen, state == 1, known.proved)
        if os.fstat(fd).st_size != entry.body_size:
            entry.close()
            return None
        self.counters.hits += 1
        return entry

    def _entry(self, key: bytes, fetched: Fetched, tag: object, proved: int) -> DiskEntry | None:
        entry = None
        try:
            if fetched.error:
                raise DiskRecordError(fetched.error)
            name = fetched.filename if isinstance(fetched.filename, str) else None
            if name is not None and fetched.fd < 0:
                self._discard(key, name)
                return None
            data = decode(key, fetched.value, tag, in_file=name is not None)
            state = self.purged(data.record.fill_seq, data.record.tags, proved)
            entry = DiskEntry(key, data, fetched.fd, name, self._seen, state == 1, proved)
            fetched.fd = -1
            if state == 2:
                self.counters.purged += 1
                entry.close()
                return None
            if entry.in_file:
                if os.fstat(entry.fd).st_size != data.body_size:
                    raise DiskRecordError("the file has another size")
                entry.verify(0, 1)
        except (DiskRecordError, BodyCorrupt):
            if entry is not None:
                entry.close()
            self.counters.corrupt += 1
            self._discard(key, fetched.filename)
            return None
        except OSError as error:
            if entry is not None:
                entry.close()
            raise diskfiles.DiskFault(error) from error
        finally:
            if fetched.fd >= 0:
                os.close(fetched.fd)
        return entry

    def _discard(self, key: bytes, filename: object) -> None:
        """Remove the record, if it is still the one with that file."""
        with self.writing():
            row = self.database.row(key)
            if row is not None and row[1] == filename:
                self.drop([(row[0], row[1], row[2])])

    def remove(self, key: bytes, generation: int = 0) -> bool:
        """Remove the record (only that generation, where one is given). True if it was there."""
        if self.database.row(key) is None:
            return False
        with self.writing():
            row = self.database.row(key)
            if row is None:
                return False
            if generation:
                with suppress(DiskRecordError):
                    if decode(key, row[3], row[4], in_file=row[1] is not None).generation != generation:
                        return False
            self.drop([(row[0], row[1], row[2])])
            return True

    def drop(self, rows: Sequence[tuple[int, str | None, int]]) -> None:
        """In a transaction: remove records; their files go right after it."""
        self.database.drop([rowid for rowid, _, _ in rows])
        self._leave([(name, size) for _, name, size in rows if name is not None])

    def _leave(self, files: Sequence[tuple[str, int]]) -> None:
        """In a transaction: files that have lost their record. They count until they are gone."""
        ours = [(name, size, self.owner) for name, size in files if diskfiles.key_of(name)]
        self.database.journal(ours)
        self._gone.extend(name for name, _, _ in ours)

    # --- writing ---

    def put(self, puts: Sequence[Put], now: float, *, settle: bool = True) -> None:
        """Store a small batch. `outcome` of each says whether it was. Without `settle` the caller does that soon."""
        with_file = [put for put in puts if put.size > INLINE_MAX and put.name is None]
        names = [(diskfiles.file_name(put.key), blocks(put.size)) for put in with_file]
        if names and self._make_room(sum(size for _, size in names), 0, names):
            for put, (name, _) in zip(with_file, names, strict=True):
                self._write_file(put, name)
        else:
            self.counters.dropped += len(names)
        ready = [put for put in puts if put.size <= INLINE_MAX or put.name is not None]
        rows = [(put, *self._encoded(put)) for put in ready]
        need = sum(len(columns.value) + ROW_OVERHEAD for _, columns, _ in rows)
        if not self._make_room(0, need, []):
            self.counters.dropped += len(rows)
            self._abandon([put.name for put in ready if put.name is not None])
            return
        with self.writing():
            for put, columns, tag in rows:
                if self._overtaken(put.record):
                    self.counters.refused += 1
                    if put.name is not None:
                        self._gone.append(put.name)
                    self._drop_older(put)
                    continue
                until = max(put.record.fresh_until, put.record.stale_until)
                keep_s = None if until == float("inf") else max(until - now, 0.0) + self.keep_s
                before = self.database.store(put.key, columns, tag, keep_s)
                if put.name is not None:
                    self.database.forget([put.name])
                if before is not None:
                    self._leave([before])
                put.outcome = True
                self.counters.stored += 1
        if settle:
            self.settle()

    def _overtaken(self, record: Record) -> bool:
        """Has it been purged meanwhile? What is stored now is not compared with older patterns later."""
        if self.patterns is not None and record.tags:
            if self.patterns.late(record.fill_seq):
                return True
            if record.fill_seq < self.patterns.newest_pattern():
                self.patterns.settle(record.meta, record.tags, record.fill_seq)
        return bool(self.purged(record.fill_seq, record.tags))

    def _drop_older(self, put: Put) -> None:
        """In a transaction: what this was to take the place of is not to come back, only since this may not be used."""
        row = self.database.row(put.key)
        if row is not None:
            with suppress(DiskRecordError):
                if decode_tag(row[4])[0] > put.record.fill_seq:
                    return
            self.drop([(row[0], row[1], row[2])])

    def _encoded(self, put: Put) -> tuple[Columns, bytes]:
        body = b"".join(put.body) if put.name is None else None
        put.generation = secrets.randbits(63) | 1
        value, tag = encode(
            put.key,
            put.record,
            generation=put.generation,
            body_size=put.size,
            body=body,
            checksums=put.checksums,
        )
        return Columns(value, put.name, blocks(put.size) if put.name is not None else 0), tag

    def _write_file(self, put: Put, name: str) -> None:
        checksums = Checksums()
        spool = diskfiles.spool_path(self.path, name)
        try:
            fd = os.open(spool, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                for piece in put.body:
                    checksums.add(piece)
                    write_all(fd, piece)
            finally:
                os.close(fd)
            os.rename(spool, self.path / name)
        except OSError:
            with suppress(OSError, sqlite3.Error, DatabaseLost):
                self._abandon([name])
            raise
        put.name, put.checksums = name, checksums.all()

    def spool(self, key: bytes, size: int) -> tuple[str, int] | None:
        """Room for a body, and a file for it in the spool: (name, fd). None where there is no room."""
        name, counted = diskfiles.file_name(key), blocks(size)
        if not self._make_room(counted, 0, [(name, counted)]):
            self.counters.dropped += 1
            return None
        try:
            fd = os.open(
                diskfiles.spool_path(self.path, name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except OSError:
            with suppress(OSError, sqlite3.Error, DatabaseLost):
                self._abandon([name])
            raise
        return name, fd

    def adopt(self, put: Put, now: float) -> bool:
        """Store a body that has been spooled whole. False where it was not stored: then its file is gone."""
        assert put.name is not None
        try:
            os.rename(diskfiles.spool_path(self.path, put.name), self.path / put.name)
        except FileNotFoundError:
            return False  # the tier was off and on again meanwhile
        self.put([put], now)
        return put.outcome

    def abandon(self, name: str) -> None:
        """Give up a spooled body."""
        self._abandon([name])
        self.settle()

    def present(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these have a record that no hard purge covers; nothing is read but the index."""
        proved = self.proved()
        found = self.database.tags(keys)
        return {key for key, tag in found if isinstance(key, bytes) and not self.is_purged(tag, proved)}

    def is_purged(self, tag: object, proved: int) -> bool:
        """Hard, that is, or not to be read."""
        try:
            return self.purged(*decode_tag(tag), proved) == 2
        except DiskRecordError:
            return True

    def _abandon(self, names: list[str]) -> None:
        for name in names:
            diskfiles.unlink(self.path, name)
        with self._turn:
            self._unlinked.extend(names)

    def _make_room(self, file_need: int, row_need: int, names: Sequence[tuple[str, int]]) -> bool:
        """Evict, a step at a time, until so much fits; then journal the files (name, counted size) that will be
        written. False where nothing is left to evict."""
        while True:
            with self.writing():
                short = self._short(file_need, row_need)
                if short <= 0:
                    self.database.journal([(name, size, self.owner) for name, size in names])
                    return True
                moved = self._evict(short + self.size // SLACK, row_need)
            if self.database.wal_size() > self.wal_limit:  # up to there it is counted as if it were that large
                self.settle()
            if not moved:
                return False

    def _short(self, file_need: int, row_need: int) -> int:
        """In a transaction: how far beyond the limit we should be."""
        pages, free, files, journalled, _ = self.database.figures()
        page = self.database.page_size
        new_pages = max(0, -(-row_need // page) - free) * page
        wal = max(self.database.wal_size() + row_need, self.wal_limit)
        return pages * page + files + journalled + wal + _FIXED_COST + file_need + new_pages - self.size

    def _evict(self, short: int, row_need: int) -> bool:
        """In a transaction: one step towards `short` octets less. False where there is nothing left."""
        page = self.database.page_size
        _, free, _, _, _ = self.database.figures()
        spare = free - -(-row_need // page)
        freed = 0
        if spare > 0:
            pages = min(spare, VACUUM_STEP, -(-short // page))
            self.database.give_back(pages)
            freed = pages * page
        rows: list[tuple[int, str | None, int]] = []
        for rowid, name, size, in_row in self.database.oldest(EVICT_STEP):
            if freed >= short:
                break
            rows.append((rowid, name, size))
            freed += size + in_row
        self.drop(rows)
        self.counters.evicted += len(rows)
        return freed > 0

    def freshen(self, key: bytes, generation: int, record: Record) -> bool:
        """New head and numbers for the same body (RFC 9111 §4.3.4). False where the record has changed, gone, or a
        purge covers it."""
        with self.writing():
            row = self.database.row(key)
            if row is None or self.purged(record.fill_seq, record.tags):
                return False
            rowid, name, _, value, tag = row
            try:
                data = decode(key, value, tag, in_file=name is not None)
            except DiskRecordError:
                return False
            if data.generation != generation:
                return False
            new_value, new_tag = encode(
                key,
                record,
                generation=generation,
                body_size=data.body_size,
                body=data.body,
                checksums=data.checksums,
            )
            until = max(record.fresh_until, record.stale_until)
            self.database.update(rowid, new_value, new_tag, None if until == float("inf") else until + self.keep_s)
            return True

    def touch(self, touched: Sequence[tuple[float, bytes]]) -> None:
        """Write back when records were last used: (time, key)."""
        rest = iter(touched)
        while batch := list(islice(rest, TOUCH_STEP)):
            with self.writing():
                self.database.touch_all(batch)
            self.settle()

    # --- figures ---

    def usage(self) -> dict[str, int]:
        """records, bytes_used (what the directory takes, as counted), bytes_files, bytes_journalled, bytes_database,
        bytes_free (pages of the database without content), bytes_wal."""
        pages, free, files, journalled, records = self.database.figures()
        page, wal = self.database.page_size, self.database.wal_size()
        return {
            "records": records,
            "bytes_used": pages * page + files + journalled + wal + _FIXED_COST,
            "bytes_files": files,
            "bytes_journalled": journalled,
            "bytes_database": pages * page,
            "bytes_free": free * page,
            "bytes_wal": wal,
        }


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def damaged(error: sqlite3.Error) -> bool:
    """Is it the database's content that is wrong, not the disk below it?"""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ERROR} or (
        type(error) is sqlite3.DatabaseError
    )


def wipe(path: Path) -> None:
    """Empty the directory of everything that is ours. Nobody may be writing."""
    for suffix in ("", "-wal", "-shm"):
        (path / f"{diskfiles.DATABASE}{suffix}").unlink(missing_ok=True)
    for folder in (diskfiles.SPOOL, *(f"{i:02x}" for i in range(256))):
        with os.scandir(path / folder) as files:
            for file in files:
                if file.is_file(follow_symlinks=False) or file.is_symlink():
                    os.unlink(file.path)
