"""A log whose file is damaged under it: nothing is confirmed that the file does not hold, and what is sound goes on."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecache.purge import sqlite_log
from edgecache.purge.bus import BusError
from edgecache.purge.ledger import Retention
from edgecache.purge.sqlite_log import FILE, SqliteLog
from tests.purge.bus_contract import NOW, append, everything, keys
from tests.purge.test_sqlite_log import SqliteStore, folder, store

__all__ = ["folder", "store"]

Damage = Callable[[Path], None]


def removed(*suffixes: str) -> Damage:
    def damage(path: Path) -> None:
        for suffix in suffixes:
            path.with_name(path.name + suffix).unlink()

    return damage


def replaced(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.rename(path)


def cut(suffix: str) -> Damage:
    return lambda path: os.truncate(path.with_name(path.name + suffix), 512)


def junk(suffix: str) -> Damage:
    def damage(path: Path) -> None:
        at = path.with_name(path.name + suffix)
        size = at.stat().st_size
        with at.open("r+b") as file:
            file.write(os.urandom(size))

    return damage


def sql(*statements: str) -> Damage:
    def damage(path: Path) -> None:
        con = sqlite3.connect(path)
        with con:
            for statement in statements:
                con.execute(statement)
        con.close()

    return damage


def moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def checkpoint(log: SqliteLog) -> None:
    """Everything into the file; the WAL is empty."""
    assert log._con is not None
    assert log._con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    log._files.leave()


@pytest.mark.parametrize("in_wal", [True, False], ids=["in-the-wal", "in-the-file"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(removed(""), "has been removed", id="removed"),
        pytest.param(removed("-wal"), "has been removed", id="wal-removed"),
        pytest.param(removed("", "-wal", "-shm"), "has been removed", id="all-removed"),
        pytest.param(moved, "has been removed", id="directory-moved"),
        pytest.param(replaced, "has been replaced", id="replaced"),
        pytest.param(cut(""), "has been cut short", id="cut"),
        pytest.param(sql("DELETE FROM Log WHERE sequence > 30"), "has been overwritten", id="entries-gone"),
        pytest.param(sql("DELETE FROM Log WHERE sequence = 7"), "has gaps", id="an-entry-gone"),
        pytest.param(sql("UPDATE Log SET text = '{}' WHERE sequence = 39"), "has been overwritten", id="altered"),
        pytest.param(sql("UPDATE State SET value = 'x' WHERE name = 'log'"), "has been overwritten", id="another-log"),
        pytest.param(sql("DROP TABLE State"), "another database", id="another-database"),
        pytest.param(sql("DELETE FROM State"), "another database", id="an-empty-database"),
    ],
)
async def test_nothing_is_taken_once_the_file_is_not_what_it_was(
    store: SqliteStore, damage: Damage, said: str, *, in_wal: bool
) -> None:
    path = store.folder / FILE
    async with store.open() as log:
        before = [await append(log, f"k{i}" * 50, now=NOW + i) for i in range(40)]
        if not in_wal:
            checkpoint(log)
        damage(path)
        for _ in range(2):
            with pytest.raises(BusError, match=said) as caught:
                await append(log, "after")
            assert "backup" in caught.value.remedy
        assert said in log.failing
        with pytest.raises(BusError, match=said):
            await log.compact(NOW)
        assert log.state().head == 40
        assert await everything(log) == before  # edges are sent what they lack, as far as memory has it


@pytest.mark.parametrize(
    ("suffix", "in_wal"),
    [pytest.param("-wal", True, id="wal"), pytest.param("", False, id="file")],
)
async def test_overwritten_pages_are_found_before_the_next_purge(
    store: SqliteStore, suffix: str, *, in_wal: bool
) -> None:
    async with store.open() as log:
        await asyncio.gather(*(append(log, f"k{i}" * 50) for i in range(200)))
        if not in_wal:
            checkpoint(log)
        junk(suffix)(store.folder / FILE)
        with pytest.raises(BusError, match="damaged"):
            await append(log, "after")
        assert "damaged" in log.failing
    with pytest.raises(BusError, match="damaged"):
        await SqliteLog(store.folder).start()


async def test_what_a_reader_finds_damaged_is_not_written_to(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store.open() as log:
        await asyncio.gather(*(append(log, f"k{i}" * 50) for i in range(200)))
        checkpoint(log)
        junk("")(store.folder / FILE)
        log._files.leave()  # nobody has seen it happen, as with a disk that gives back what was never written
        assert log._read_con is not None
        log._read_con.execute("PRAGMA shrink_memory").fetchall()
        with pytest.raises(BusError, match="damaged"):
            await log.audit(before=None, limit=1)
        with pytest.raises(BusError, match="damaged"):
            await append(log, "after")


@pytest.mark.parametrize(
    "harmless",
    [
        pytest.param(sql("DELETE FROM Audit WHERE sequence < 3"), id="audit-shortened"),
        pytest.param(sql("INSERT INTO Log VALUES (5, 0, '{}')"), id="an-entry-nobody-confirmed"),
        pytest.param(sql("PRAGMA wal_checkpoint(TRUNCATE)"), id="checkpoint"),
        pytest.param(lambda path: os.utime(path), id="touched"),
        pytest.param(junk("-shm"), id="index-of-the-wal"),
    ],
)
async def test_what_is_sound_goes_on(store: SqliteStore, harmless: Damage) -> None:
    async with store.open() as log:
        before = [await append(log, f"k{i}", key=f"key{i}") for i in range(4)]
        harmless(store.folder / FILE)
        after = [await append(log, "a"), await append(log, "b")]
        assert not log.failing
    async with store.open() as log:
        assert await everything(log) == [*before, *after]
        assert [record.sequence for record in after] == [5, 6]


async def test_looking_disturbs_nothing(store: SqliteStore, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """As `sqlite3 purges.db ".backup copy.db"` does."""
    async with store.open() as log:
        await append(log, "a")
        con, copy = sqlite3.connect(store.folder / FILE), sqlite3.connect(tmp_path / "copy.db")
        con.backup(copy)
        con.close()
        copy.close()
        await append(log, "b")
        assert not caplog.records


async def test_all_that_memory_does_not_hold_is_compared_too(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "IN_MEMORY", 3)
    async with store.open() as log:
        for i in range(10):
            await append(log, f"k{i}", now=NOW + i)
        await log.compact(NOW + 7 * 86_400 + 4)
        os.utime(store.folder / FILE)
        await append(log, "after", now=NOW + 10)
        assert keys(await everything(log, log.state().floor))[-1] == "after"
        assert not log.failing


async def test_an_empty_log_is_compared_too(store: SqliteStore) -> None:
    log = SqliteLog(store.folder, Retention(age_s=1))
    await log.start()
    await append(log, "a", now=NOW)
    await log.compact(NOW + 10)
    os.utime(store.folder / FILE)
    assert (await append(log, "b", now=NOW + 10)).sequence == 2
    await log.close()


async def test_comparing_takes_a_part_of_the_time_only(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each write seems to be somebody else's, as on a file system with times of its own."""
    compared = []
    compare = sqlite_log.compare
    monkeypatch.setattr(sqlite_log, "compare", lambda *all_: (compared.append(all_), compare(*all_)))
    monkeypatch.setattr(sqlite_log, "COMPARED_AGAIN", 1e9)
    async with store.open() as log:
        for i in range(5):
            await append(log, f"k{i}")
            os.utime(store.folder / FILE, ns=(i, i))
        assert len(compared) == 1
        log._compare_after = 0.0
        await append(log, "later")
        assert len(compared) == 2  # what was put off is not forgotten
