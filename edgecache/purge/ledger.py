"""The tables in which orders are written down: a coordinator's (`sqlite_log`) and those of an edge on its own
(`orderbook`). Who uses them opens the database and begins and ends the transactions.

    Log (sequence, time, text)                   text: the order, as in purge/frames
    Used (key, sequence, time)                   idempotency keys
    Audit (sequence, time, token, address, kind, targets, summary)      kept longer than the log
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgecache.purge.audit import summary
from edgecache.purge.bus import Appended, AuditRecord, Caller, KeyReused, Record
from edgecache.purge.message import PurgeOrder

CACHED: Final = "PRAGMA cache_size = -512"
"""Kibioctets of a database that its process keeps. Orders are mostly written, and the kernel has what is read again;
SQLite's own 2 MiB would fill for the first 20,000 orders and seem to be a leak."""
FORGOTTEN_TOGETHER: Final = 5000
"""Entries compacted in one transaction, so that appends do not wait long for it."""

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS Log (sequence INTEGER PRIMARY KEY, time REAL NOT NULL, text TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS Used (key TEXT PRIMARY KEY, sequence INTEGER NOT NULL, time REAL NOT NULL)
       WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS UsedTime ON Used (time)",
    """CREATE TABLE IF NOT EXISTS Audit (sequence INTEGER PRIMARY KEY, time REAL NOT NULL, token TEXT NOT NULL,
       address TEXT NOT NULL, kind TEXT NOT NULL, targets INTEGER NOT NULL, summary TEXT NOT NULL)""",
)


@dataclass(frozen=True, slots=True)
class Retention:
    """What compaction leaves. An entry goes when it is older than `age_s` or more than `entries` are newer."""

    age_s: float = 7 * 86_400.0
    entries: int = 1_000_000
    keys_s: float = 86_400.0
    audit_s: float = 90 * 86_400.0
    audit_entries: int = 10_000_000


KEEP: Final = Retention()


@dataclass(frozen=True, slots=True)
class Entry:
    """An order to be written down, and who gave it."""

    order: PurgeOrder
    text: str
    """The order's canonical text: `frames.order_text`."""
    now: float
    caller: Caller
    key: str | None = None
    """An idempotency key, the caller's own."""


def insert(con: sqlite3.Connection, sequence: int, entry: Entry) -> Record:
    con.execute("INSERT INTO Log VALUES (?, ?, ?)", (sequence, entry.now, entry.text))
    who = (entry.caller.token, entry.caller.address)
    con.execute("INSERT INTO Audit VALUES (?, ?, ?, ?, ?, ?, ?)", (sequence, entry.now, *who, *summary(entry.order)))
    if entry.key is not None:
        con.execute("INSERT OR REPLACE INTO Used VALUES (?, ?, ?)", (entry.key, sequence, entry.now))
    return Record(sequence, entry.now, entry.text)


def known(con: sqlite3.Connection, entry: Entry, keys_s: float) -> Appended | None:
    """What its key stands for already. Raises `KeyReused`."""
    row = con.execute(
        "SELECT Used.sequence, Used.time, Log.text FROM Used LEFT JOIN Log USING (sequence) WHERE key = ?",
        (entry.key,),
    ).fetchone()
    if row is None or row[1] < entry.now - keys_s:
        return None
    if row[2] is not None and row[2] != entry.text:
        raise KeyReused("this idempotency key was used for another purge")
    return Appended(Record(row[0], row[1], entry.text), again=True)


def find(con: sqlite3.Connection, sequence: int) -> Record | None:
    row = con.execute("SELECT sequence, time, text FROM Log WHERE sequence = ?", (sequence,)).fetchone()
    return None if row is None else Record(*row)


def audit(con: sqlite3.Connection, before: int, limit: int) -> Sequence[AuditRecord]:
    """Newest first, of those numbered less than `before`."""
    rows = con.execute("SELECT * FROM Audit WHERE sequence < ? ORDER BY sequence DESC LIMIT ?", (before, limit))
    return [AuditRecord(*row) for row in rows]


def aged(con: sqlite3.Connection, keep: Retention, now: float, head: int) -> int:
    """The newest of the entries at the beginning of the log that are all too old; `head` where all are."""
    row = con.execute(
        "SELECT sequence FROM Log WHERE time >= ? ORDER BY sequence LIMIT 1", (now - keep.age_s,)
    ).fetchone()
    return head if row is None else int(row[0]) - 1


def forget_beside(con: sqlite3.Connection, keep: Retention, now: float, head: int) -> None:
    """Keys, and a part of the audit record, that need not be kept any longer."""
    con.execute("DELETE FROM Used WHERE time < ?", (now - keep.keys_s,))
    con.execute(
        "DELETE FROM Audit WHERE sequence IN (SELECT sequence FROM Audit WHERE time < ? OR sequence <= ?"
        " ORDER BY sequence LIMIT ?)",
        (now - keep.audit_s, head - keep.audit_entries, FORGOTTEN_TOGETHER),
    )


def compact(con: sqlite3.Connection, keep: Retention, now: float) -> bool:
    """Forget a part of what need not be kept, where numbers may have gaps. Is there more to do?"""
    head = con.execute("SELECT max(sequence) FROM Log").fetchone()[0] or 0
    surplus = con.execute(
        "SELECT sequence FROM Log ORDER BY sequence DESC LIMIT 1 OFFSET ?", (keep.entries,)
    ).fetchone()
    through = max(aged(con, keep, now, head), surplus[0] if surplus is not None else 0)
    gone = con.execute(
        "DELETE FROM Log WHERE sequence IN (SELECT sequence FROM Log WHERE sequence <= ? ORDER BY sequence LIMIT ?)",
        (through, FORGOTTEN_TOGETHER),
    )
    forget_beside(con, keep, now, head)
    return gone.rowcount >= FORGOTTEN_TOGETHER
