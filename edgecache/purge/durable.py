"""The purges a node has applied, kept where a restart finds them (DESIGN §7).

A record on disk carries the `fill_seq` of its fill, so it can be judged after a restart only beside the purges that
came since. The database keeps what the arena's purge table keeps, the newest number per tag and kind and the floors,
each append on stable storage before it returns. Beyond `MAX_TAGS` the oldest half becomes a floor: more is purged than
was asked for, never less. Every call blocks.

    State (name, value)       version, sequence, hard, soft: the last number applied, and the two floors
    Tag (tag, hard, soft)     tag as a signed 64-bit number; 0: never
    Followed (log, sequence, time)
                              the position in the coordinator's log up to which all of it is in here; one row or none
    Pattern (sequence, place, tag, soft, text)
                              those in force, as the arena keeps them (`bans`); place: of several in one purge
    Site (name, seen)         sites there have been: a purge of a key names them all; when they were last configured
    Log, Used, Audit          as in purge/ledger: the orders that an edge on its own was given, their idempotency keys,
                              and who gave them; damage there is found when they are read
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from edgecache.purge import ledger
from edgecache.purge.bans import pack
from edgecache.purge.bus import LogPosition
from edgecache.purge.message import PurgeKind, PurgeMessage
from edgecache.purge.patterns import MAX_PATTERNS

VERSION = 1
MAX_TAGS = 1_000_000
_OWN_TABLES = ("State", "Tag", "Site", "Pattern", "Followed")
"""What is looked through whenever the file is opened: the log beside them may be long."""
_PATTERNS = (
    "CREATE TABLE IF NOT EXISTS Pattern (sequence INTEGER, place INTEGER, tag INTEGER, soft INTEGER, text BLOB,"
    " PRIMARY KEY (sequence, place)) WITHOUT ROWID"
)
_SIGN = 1 << 63
_WRAP = 1 << 64
T = TypeVar("T")


class PurgeTable(Protocol):
    """What of the arena is needed here."""

    def apply_purge(
        self, sequence: int, tags: Sequence[int], *, soft: bool, patterns: Iterable[tuple[int, bytes]] = ()
    ) -> None: ...
    def raise_floor(self, sequence: int, *, soft: bool) -> None: ...


class PurgesLost(Exception):
    """The file is not one of ours, or damaged: nothing that was stored under it can be judged."""


class DurablePurges:
    """Raises `sqlite3.Error` and `OSError` where the disk fails. One process appends at a time."""

    def __init__(self, path: Path, *, max_tags: int = MAX_TAGS) -> None:
        """Open or make it. Raises `PurgesLost` too."""
        self._max_tags = max_tags
        fresh = not path.exists()
        if fresh:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._con = sqlite3.connect(str(path), timeout=10.0, isolation_level=None, check_same_thread=False)
        try:
            for statement in (
                "PRAGMA trusted_schema = OFF",
                "PRAGMA mmap_size = 0",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA journal_size_limit = 1048576",
                ledger.CACHED,
                "CREATE TABLE IF NOT EXISTS State (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
                "CREATE TABLE IF NOT EXISTS Tag (tag INTEGER PRIMARY KEY, hard INTEGER, soft INTEGER)",
                _PATTERNS,
                "CREATE TABLE IF NOT EXISTS Site (name TEXT PRIMARY KEY, seen REAL) WITHOUT ROWID",
                "CREATE TABLE IF NOT EXISTS Followed (id INTEGER PRIMARY KEY, log TEXT, sequence INTEGER, time REAL)",
                *ledger.SCHEMA,
            ):
                self._con.execute(statement).fetchall()
            self._con.executemany(
                "INSERT OR IGNORE INTO State VALUES (?, ?)",
                [("version", VERSION), ("sequence", 0), ("hard", 0), ("soft", 0)],
            )
            if self._state("version") != VERSION:
                raise PurgesLost(f"version {self._state('version')} is not known")
            for table in _OWN_TABLES:
                if self._con.execute(f"PRAGMA quick_check({table})").fetchall() != [("ok",)]:
                    raise PurgesLost("damaged")
        except BaseException as error:
            self._con.close()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                raise PurgesLost(str(error)) from error
            raise

    def close(self) -> None:
        self._con.close()

    @property
    def sequence(self) -> int:
        return self._state("sequence")

    def __len__(self) -> int:
        return int(self._con.execute("SELECT count(*) FROM Tag").fetchone()[0])

    @property
    def position(self) -> LogPosition | None:
        """In the coordinator's log; None where none was followed."""
        row = self._con.execute("SELECT log, sequence, time FROM Followed").fetchone()
        return LogPosition(*row) if row is not None else None

    def note_sites(self, names: Iterable[str], now: float) -> dict[str, float]:
        """Note that they are configured. Returns these and those noted before, and when each was last."""
        with self._transaction():
            if "seen" not in (column[1] for column in self._con.execute("PRAGMA table_info(Site)")):
                self._con.execute("ALTER TABLE Site ADD COLUMN seen REAL")
            self._con.executemany("INSERT OR REPLACE INTO Site VALUES (?, ?)", [(name, now) for name in names])
            self._con.execute("UPDATE Site SET seen = ? WHERE seen IS NULL OR seen > ?", (now, now))
            return dict(self._con.execute("SELECT name, seen FROM Site").fetchall())

    def forget_sites(self, names: Iterable[str]) -> None:
        with self._transaction():
            self._con.executemany("DELETE FROM Site WHERE name = ?", [(name,) for name in names])

    def append(
        self,
        messages: Iterable[PurgeMessage],
        position: LogPosition | None = None,
        also: Callable[[sqlite3.Connection], Iterable[PurgeMessage]] | None = None,
    ) -> None:
        """All or none; on stable storage when it returns. Again changes nothing.

        `position`: what has been applied of the coordinator's log, with these. `also`: what else to do in the same
        transaction, and the messages that come of it.
        """
        with self._transaction():
            more = tuple(also(self._con)) if also is not None else ()
            for message in (*messages, *more):
                soft = message.kind is PurgeKind.SOFT
                if message.everything:
                    self._raise("soft" if soft else "hard", message.sequence)
                    if not soft:
                        self._con.execute("DELETE FROM Tag WHERE hard <= ?1 AND soft <= ?1", (message.sequence,))
                else:
                    self._note(map(_signed, message.tags), message.sequence, soft=soft)
                    self._con.executemany(
                        "INSERT OR IGNORE INTO Pattern VALUES (?, ?, ?, ?, ?)",
                        [
                            (message.sequence, place, _signed(tag), soft, text)
                            for place, (tag, text) in enumerate(map(pack, message.patterns))
                        ],
                    )
                self._raise("sequence", message.sequence)
            if position is not None:
                self._con.execute(
                    "INSERT OR REPLACE INTO Followed VALUES (0, ?, ?, ?)",
                    (position.log, position.sequence, position.time),
                )
            self._fold()

    def restore(self, table: PurgeTable) -> int:
        """Put everything into an empty purge table. Returns the last number applied."""
        for kind in ("hard", "soft"):
            floor = self._state(kind)
            if floor:
                table.raise_floor(floor, soft=kind == "soft")
            newer = f"SELECT {kind}, tag FROM Tag WHERE {kind} > ? ORDER BY {kind}"  # noqa: S608 - our own words
            for number, tag in self._con.execute(newer, (floor,)):
                table.apply_purge(number, [tag % _WRAP], soft=kind == "soft")
        listed = "SELECT sequence, tag, soft, text FROM Pattern ORDER BY sequence, place"
        for number, tag, soft, text in self._con.execute(listed):
            table.apply_purge(number, [], soft=bool(soft), patterns=[(tag % _WRAP, text)])
        sequence = self.sequence
        if sequence:
            table.apply_purge(sequence, [], soft=False)
        return sequence

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Of the tables of orders, in a transaction of its own."""
        with self._transaction():
            return question(self._con)

    def prune(self, through: int) -> None:
        """Forget hard purges up to this number: nothing is stored any more that they cover."""
        with self._transaction():
            self._con.execute("UPDATE Tag SET hard = 0 WHERE hard <= ? AND hard > 0", (through,))
            self._con.execute("DELETE FROM Tag WHERE hard = 0 AND soft = 0")

    def retire_patterns(self, through: int) -> None:
        """Forget patterns up to this number: everything stored that is older has been compared with them."""
        with self._transaction():
            self._con.execute("DELETE FROM Pattern WHERE sequence <= ?", (through,))

    def _fold(self) -> None:
        self._fold_patterns()
        if len(self) <= self._max_tags:
            return
        for kind in ("hard", "soft"):
            row = self._con.execute(
                f"SELECT {kind} FROM Tag WHERE {kind} > 0 ORDER BY {kind} LIMIT 1 OFFSET ?",  # noqa: S608 - our own words
                (self._max_tags // 2,),
            ).fetchone()
            if row is None:
                continue
            self._raise(kind, row[0])
            self._con.execute(f"UPDATE Tag SET {kind} = 0 WHERE {kind} <= ?", row)  # noqa: S608
        self._con.execute("DELETE FROM Tag WHERE hard = 0 AND soft = 0")

    def _fold_patterns(self) -> None:
        """Beyond `MAX_PATTERNS` the oldest become what surely covers them."""
        (count,) = self._con.execute("SELECT count(*) FROM Pattern").fetchone()
        if count <= MAX_PATTERNS:
            return
        oldest = "SELECT sequence, place, tag, soft FROM Pattern ORDER BY sequence, place LIMIT ?"
        for number, place, tag, soft in self._con.execute(oldest, (count - MAX_PATTERNS,)).fetchall():
            if tag:
                self._note((tag,), number, soft=bool(soft))
            else:
                self._raise("soft" if soft else "hard", number)
            self._con.execute("DELETE FROM Pattern WHERE sequence = ? AND place = ?", (number, place))

    def _note(self, signed: Iterable[int], number: int, *, soft: bool) -> None:
        self._con.executemany(
            "INSERT INTO Tag VALUES (?1, ?2, ?3) ON CONFLICT (tag) DO UPDATE"
            " SET hard = max(hard, ?2), soft = max(soft, ?3)",
            [(tag, 0 if soft else number, number if soft else 0) for tag in signed],
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._con.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._con.execute("COMMIT")
        except BaseException:
            if self._con.in_transaction:
                self._con.execute("ROLLBACK")
            raise

    def _state(self, name: str) -> int:
        row = self._con.execute("SELECT value FROM State WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row is not None else 0

    def _raise(self, name: str, value: int) -> None:
        self._con.execute("UPDATE State SET value = max(value, ?) WHERE name = ?", (value, name))


def _signed(tag: int) -> int:
    return tag - _WRAP if tag >= _SIGN else tag
