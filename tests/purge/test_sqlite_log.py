"""The built-in bus: the contract, and what a database adds to it."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgecache.purge import audit, sqlite_log
from edgecache.purge.bus import BusError, Caller, LogPosition
from edgecache.purge.ledger import Retention
from edgecache.purge.sqlite_log import FILE, SqliteLog
from tests.purge.bus_contract import CALLER, NOW, BusContract, append, everything, keys, order


class SqliteStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @asynccontextmanager
    async def open(self, *, entries: int = 1_000_000) -> AsyncIterator[SqliteLog]:
        log = SqliteLog(self.folder, Retention(entries=entries))
        await log.start()
        try:
            yield log
        finally:
            await log.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a thing: what is tested here is the order of things, not the disk."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path / "data"
        return
    with tempfile.TemporaryDirectory(dir=shared) as name:
        yield Path(name, "data")


@pytest.fixture
def store(folder: Path) -> SqliteStore:
    return SqliteStore(folder)


class TestContract(BusContract):
    pass


async def test_only_its_owner_may_look(store: SqliteStore) -> None:
    async with store.open():
        assert store.folder.stat().st_mode & 0o777 == 0o700
        assert (store.folder / FILE).stat().st_mode & 0o777 == 0o600


async def test_one_coordinator_at_a_time(store: SqliteStore) -> None:
    async with store.open():
        with pytest.raises(BusError, match="another coordinator"):
            await SqliteLog(store.folder).start()
    async with store.open():
        pass


async def test_a_database_restored_from_a_backup_covers_only_what_it_has(store: SqliteStore) -> None:
    async with store.open() as log:
        for i in range(5):
            await append(log, f"k{i}", now=NOW + i)
    backup = (store.folder / FILE).read_bytes()
    async with store.open() as log:
        await append(log, "lost", now=NOW + 10)
        seen = log.state().position
    for path in store.folder.glob(FILE + "*"):
        path.unlink()
    (store.folder / FILE).write_bytes(backup)
    async with store.open() as log:
        assert not await log.covers(seen)
        await append(log, "other", now=NOW + 20)
        await append(log, "more", now=NOW + 21)
        assert log.state().log == seen.log
        assert not await log.covers(seen)
        assert await log.covers(LogPosition(seen.log, 5, NOW + 4))


async def test_a_new_database_is_another_log(store: SqliteStore) -> None:
    async with store.open() as log:
        await append(log, "a")
        seen = log.state().position
    for path in store.folder.glob(FILE + "*"):
        path.unlink()
    async with store.open() as log:
        await append(log, "a")
        assert not await log.covers(seen)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"not a database, whatever its name says " * 200, id="something-else"),
        pytest.param(lambda data: data[:4096] + b"\0" * (len(data) - 4096), id="blanked"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
    ],
)
async def test_a_damaged_database_is_refused_with_a_remedy(store: SqliteStore, damage: object) -> None:
    async with store.open() as log:
        await asyncio.gather(*(append(log, f"k{i}" * 50) for i in range(200)))
    path = store.folder / FILE
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    log = SqliteLog(store.folder)
    with pytest.raises(BusError, match=r"damaged|gaps") as caught:
        await log.start()
    assert "backup" in caught.value.remedy


async def test_a_full_file_system_refuses_and_loses_nothing(store: SqliteStore) -> None:
    async with store.open() as log:
        before = [await append(log, f"k{i}") for i in range(3)]
        con = log._con
        assert con is not None
        [(pages,)] = con.execute("PRAGMA page_count").fetchall()
        con.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(BusError, match="no room") as caught:  # noqa: PT012 - whichever of them is the first
            for i in range(200):
                before += [await append(log, f"more{i}" * 40)]
        assert "free space" in caught.value.remedy
        assert log.failing
        assert await everything(log) == before
        con.execute("PRAGMA max_page_count = 1000000")
        await log.compact(NOW)
        assert not log.failing  # it has tried
        record = await append(log, "after")
        assert record.sequence == before[-1].sequence + 1
        assert not log.failing
    async with store.open() as log:
        assert await everything(log) == [*before, record]


async def test_what_a_failed_commit_left_does_not_come_back(store: SqliteStore) -> None:
    async with store.open() as log:
        kept = await append(log, "kept")
        con = log._con
        assert con is not None
        con.execute("INSERT INTO Log VALUES (2, 0, '{}')")
        log._files.leave()  # as if the log itself had left it
        with pytest.raises(BusError):
            await append(log, "refused")
        record = await append(log, "after")
        assert await everything(log) == [kept, record]


async def test_keys_are_forgotten_in_time(store: SqliteStore) -> None:
    async with store.open() as log:
        await append(log, "a", key="k")
        assert (await append(log, "a", key="k", now=NOW + 86_000)).sequence == 1
        assert (await append(log, "a", key="k", now=NOW + 87_000)).sequence == 2
        assert (await append(log, "a", key="k", now=NOW + 87_001)).sequence == 2


async def test_age_compacts_too_in_several_steps(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_log, "FORGOTTEN_TOGETHER", 4)
    async with store.open() as log:
        for i in range(20):
            await append(log, f"k{i}", now=NOW + i, key=str(i))
        state = await log.compact(NOW + 7 * 86_400 + 10)
        assert state.floor == 10
        assert keys(await everything(log, 10)) == [f"k{i}" for i in range(10, 20)]
        state = await log.compact(NOW + 8 * 86_400)
        assert (state.floor, state.head) == (20, 20)
        assert not await everything(log, 20)
        assert len(await log.audit(before=None, limit=100)) == 20
    async with store.open() as log:
        assert log.state() == state
        assert (await append(log, "next")).sequence == 21


async def test_what_memory_does_not_hold_is_read_from_the_file(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "IN_MEMORY", 5)
    async with store.open() as log:
        for i in range(30):
            await append(log, f"k{i}")
        assert keys(await everything(log)) == [f"k{i}" for i in range(30)]


async def test_many_keys_are_told_shortly(store: SqliteStore) -> None:
    async with store.open() as log:
        await log.append(order(*("k" * 8000 for _ in range(20))), now=NOW, caller=CALLER)
        [record] = await log.audit(before=None, limit=1)
        assert len(record.summary) <= audit.SUMMARY_LENGTH


WRITER = """
import asyncio, sys
from pathlib import Path
from edgecache.purge.bus import Caller
from edgecache.purge.message import PurgeOrder
from edgecache.purge.sqlite_log import SqliteLog

async def one(log, i):
    name = f"{sys.argv[2]}-{i}"
    done = await log.append(PurgeOrder(keys=(name,)), now=1.0, caller=Caller("t", "a"))
    sys.stdout.write(f"{done.record.sequence} {name}\\n")
    sys.stdout.flush()

async def main():
    log = SqliteLog(Path(sys.argv[1]))
    await log.start()
    i = 0
    while True:
        await asyncio.gather(*(one(log, i + j) for j in range(8)))
        i += 8

asyncio.run(main())
"""


@pytest.mark.fault
def test_what_was_accepted_survives_kill_9(folder: Path) -> None:
    """A writer is killed in the middle of its work, again and again; whatever it was told is logged is there."""
    accepted: dict[int, str] = {}
    for run in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(run)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20 + 37 * run)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        for line in lines:
            number, _, name = line.rstrip("\n").partition(" ")
            if line.endswith("\n"):
                assert int(number) not in accepted
                accepted[int(number)] = name
    assert len(accepted) > 600

    async def read() -> dict[int, str]:
        log = SqliteLog(folder)
        await log.start()
        records = await everything(log)
        await log.close()
        assert [record.sequence for record in records] == list(range(1, len(records) + 1))
        return dict(zip((record.sequence for record in records), keys(records), strict=True))

    assert accepted.items() <= asyncio.run(read()).items()


async def test_an_unknown_version_is_left_alone(store: SqliteStore) -> None:
    async with store.open() as log:
        await append(log, "a")
    con = sqlite3.connect(store.folder / FILE)
    con.execute("UPDATE State SET value = 99 WHERE name = 'version'")
    con.commit()
    con.close()
    with pytest.raises(BusError, match="99"):
        await SqliteLog(store.folder).start()


async def test_a_caller_that_leaves_disturbs_nobody(store: SqliteStore) -> None:
    async with store.open() as log:
        calls = [asyncio.ensure_future(append(log, f"k{i}")) for i in range(10)]
        await asyncio.sleep(0)
        calls[3].cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(done[3], asyncio.CancelledError)
        assert log.state().head >= 9
        assert (await log.append(order("z"), now=NOW, caller=Caller("x", "y"))).record.sequence == log.state().head
