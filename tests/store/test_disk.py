"""The disk tier as the event loop sees it: queued stores, look-ups in threads, off and on again."""

import asyncio
import errno
import logging
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from edgecache.store import database, diskentry, volume
from edgecache.store.database import DatabaseLost
from edgecache.store.disk import DiskStore, disk_key, disk_variant_key, explain
from edgecache.store.diskfiles import DiskFault
from edgecache.store.diskrecord import CHUNK
from edgecache.store.volume import MIN_SIZE
from tests.store.kit import NOW, Purges, body, body_files, key, record

SIZE = MIN_SIZE


@asynccontextmanager
async def running(path: Path, **options: object) -> AsyncIterator[DiskStore]:
    settings: dict[str, object] = {"owner": 1, "purged": Purges(), "clock": lambda: NOW, "retry_s": 0.02, **options}
    store = DiskStore(path, SIZE, **settings)  # type: ignore[arg-type]
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def until(condition: Callable[[], bool]) -> None:
    """What the tier does by itself, within a bounded time."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has not come")


async def fetch(store: DiskStore, name: object) -> bytes | None:
    entry = await store.get(key(name))
    if entry is None:
        return None
    data = b""
    while piece := await store.read(entry, len(data), 65536):
        data += piece
    entry.close()
    return data


@pytest.mark.parametrize("size", [0, 100, 100_000, CHUNK + 7])
async def test_what_is_put_is_found_after_the_write(tmp_path: Path, size: int) -> None:
    async with running(tmp_path / "cache") as store:
        assert await store.get(key("a")) is None
        assert store.put(key("a"), record("a"), [body("a", size)])
        await store.flush()
        assert await fetch(store, "a") == body("a", size)


async def test_closing_writes_what_is_queued(tmp_path: Path) -> None:
    async with running(tmp_path / "cache") as store:
        for i in range(100):
            store.put(key(i), record(i), [body(i, 40_000 if i % 10 == 0 else 50)])
    async with running(tmp_path / "cache") as store:
        for i in range(100):
            assert await fetch(store, i) == body(i, 40_000 if i % 10 == 0 else 50)


async def test_changes_of_one_key_happen_in_order(tmp_path: Path) -> None:
    async with running(tmp_path / "cache") as store:
        for i in range(20):
            store.put(key("a"), record(i), [body(i, 20)])
        store.put(key("b"), record(), [b"b"])
        store.remove(key("b"))
        store.remove(key("c"))
        store.put(key("c"), record(), [b"c"])
        await store.flush()
        assert await fetch(store, "a") == body(19, 20)
        assert await fetch(store, "b") is None
        assert await fetch(store, "c") == b"c"
        entry = await store.get(key("a"))
        assert entry is not None
        store.freshen(key("a"), entry.generation, record("newer"))
        await store.flush()
        again = await store.get(key("a"))
        assert again is not None
        assert again.record == record("newer")


async def test_what_the_queue_cannot_take_is_dropped_and_counted(tmp_path: Path) -> None:
    async with running(tmp_path / "cache", queue_bytes=100_000) as store:
        taken = [store.put(key(i), record(i), [body(i, 30_000)]) for i in range(5)]
        assert taken == [True, True, True, False, False]
        assert store.counters.dropped == 2
        await store.flush()
        assert store.put(key(9), record(9), [body(9, 30_000)]), "there is room again once it is written"
        await store.flush()
        assert [await fetch(store, i) is not None for i in (0, 1, 2, 3, 4, 9)] == [True, True, True, False, False, True]


async def test_the_loop_runs_on_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = threading.Event()
    write = volume.write_all

    def waiting(fd: int, data: bytes) -> None:
        assert slow.wait(20)
        write(fd, data)

    async with running(tmp_path / "cache") as store:
        store.put(key("small"), record(), [b"small"])
        await store.flush()
        monkeypatch.setattr(volume, "write_all", waiting)
        assert store.put(key("a"), record(), [body("a", 100_000)])
        await asyncio.sleep(0)
        assert await fetch(store, "small") == b"small"
        slow.set()
        await store.flush()
        assert await fetch(store, "a") == body("a", 100_000)


async def test_recency_is_written_back(tmp_path: Path) -> None:
    clock = [NOW]
    async with running(tmp_path / "cache", clock=lambda: clock[0]) as store:
        for name in ("a", "b"):
            store.put(key(name), record(name), [b"x"])
        await store.flush()
        clock[0] = 4_000_000_000.5
        assert await fetch(store, "a") == b"x"
        assert (await store.stats())["touched"] == 1
    with sqlite3.connect(tmp_path / "cache" / "cache.db") as con:
        (newest,) = con.execute("SELECT key FROM Cache ORDER BY access_time DESC LIMIT 1").fetchone()
    con.close()
    assert newest == key("a")


async def test_a_sweeping_process_removes_what_is_purged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecache.store.disk.SWEEP_INTERVAL_S", 0.001)
    purges = Purges()
    async with running(tmp_path / "cache", purged=purges, sequence=lambda: purges.sequence) as store:
        for i in range(100):
            store.put(key(i), record(i, tags=(i % 2 + 1,)), [body(i, 33_000 if i < 10 else 10)])
        await store.flush()
        purges.purge(1)
        await until(lambda: store.clean_through == 1)
        assert (await store.stats())["records"] == 50
        assert len(body_files(tmp_path / "cache")) == 5


async def test_what_was_removed_is_removed_for_good_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits alone wait for no sync: whoever forgets why something was removed asks for one first."""
    synced: list[str] = []
    monkeypatch.setattr(database.os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    async with running(tmp_path / "cache") as store:
        store.put(key("a"), record(), [b"small"])
        store.remove(key("a"))
        await store.flush()
        assert synced == []
        assert await store.synced()
        assert synced == [f"{tmp_path}/cache/cache.db-wal"]

        def fails(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(database.os, "fsync", fails)
        assert not await store.synced()
        assert not store.on


async def test_a_cancelled_look_up_leaks_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "cache") as store:
        store.put(key("a"), record(), [body("a", 100_000)])
        await store.flush()
        for _ in range(20):
            task = asyncio.ensure_future(store.get(key("a")))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: not open_bodies(tmp_path / "cache"))


def open_bodies(path: Path) -> list[str]:
    """The body files that this process holds open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in found if name.startswith(f"{path}/") and Path(name).parent != path]


def test_keys_are_the_same_after_every_boot() -> None:
    assert disk_key("http://a/").hex() == "2827cfb5347686c0165f96b518cc6ede"
    assert disk_variant_key(disk_key("http://a/"), b"gzip").hex() == "f4f352e53abe5c2055cf7ed9b58dfdf0"


# --- failures ---


class Fault:
    """A disk that fails as told."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.failing = False
        self.failed = 0

    def over(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            if self.failing:
                self.failed += 1
                raise OSError(self.number, os.strerror(self.number))
            return real(*args, **options)

        return call


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EIO, "check the device"),
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "read-write"),
        (errno.EMFILE, "ulimit"),
    ],
    ids=["i/o error", "full", "read-only", "descriptors"],
)
@pytest.mark.parametrize("call", ["write", "read"])
async def test_a_failing_disk_turns_the_tier_off_once_and_on_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    remedy: str,
    call: str,
) -> None:
    fault = Fault(number)
    async with running(tmp_path / "cache") as store:
        store.put(key("kept"), record(), [body("kept", 100_000)])
        await store.flush()
        monkeypatch.setattr(volume, "write_all", fault.over(volume.write_all))
        monkeypatch.setattr(diskentry.os, "pread", fault.over(os.pread))
        monkeypatch.setattr(volume.os, "fstat", fault.over(os.fstat))
        fault.failing = True
        with caplog.at_level(logging.INFO, "edgecache.store"):
            if call == "write":
                assert store.put(key("a"), record(), [body("a", 100_000)])
                await store.flush()
            else:
                assert await store.get(key("kept")) is None
            assert not store.on
            assert store.why_off == os.strerror(number)
            assert await store.get(key("kept")) is None
            assert not store.put(key("b"), record(), [b"b"])
            before = fault.failed
            await until(lambda: fault.failed > before)  # it looks whether all is well again
            assert not store.on
            fault.failing = False
            await until(lambda: store.on)
        assert await fetch(store, "kept") == body("kept", 100_000)
        assert store.put(key("b"), record(), [b"b"])
        said = [line for line in caplog.records if line.levelno >= logging.WARNING]
        assert len(said) == 1
        assert remedy in getattr(said[0], "remedy", "")
        assert store.counters.failures == 1
        assert "on again" in caplog.messages[-1]
    assert len(body_files(tmp_path / "cache")) == 1


async def test_a_disk_that_fails_while_the_tier_closes_is_not_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with running(tmp_path) as store:
        store.put(key("a"), record(), [b"a"])
        await store.flush()
        monkeypatch.setattr(store, "_write_back", fail)
    assert store.counters.failures == 1
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "disk-mend"]


async def test_a_read_that_fails_in_the_middle_of_a_body_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(errno.EIO)
    async with running(tmp_path / "cache") as store:
        store.put(key("a"), record(), [body("a", 100_000)])
        await store.flush()
        entry = await store.get(key("a"))
        assert entry is not None
        monkeypatch.setattr(diskentry.os, "pread", fault.over(os.pread))
        fault.failing = True
        with pytest.raises(DiskFault):
            await store.read(entry, 0, 100)
        assert not store.on
        fault.failing = False
        entry.close()
        await until(lambda: store.on)


async def test_what_a_failed_batch_was_to_replace_or_remove_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path / "cache") as store:
        for name in ("replaced", "removed", "kept"):
            store.put(key(name), record(), [body("old", 100)])
        await store.flush()
        fault = Fault(errno.ENOSPC)
        monkeypatch.setattr(volume.Volume, "put", fault.over(volume.Volume.put))
        fault.failing = True
        store.put(key("replaced"), record(), [body("new", 100)])
        store.remove(key("removed"))
        await store.flush()
        assert not store.on
        fault.failing = False
        await until(lambda: store.on)
        assert await fetch(store, "replaced") is None, "at once, not when the writer has come to it"
        assert await fetch(store, "removed") is None
        await store.flush()
        assert await fetch(store, "replaced") is None
        assert await fetch(store, "kept") == body("old", 100)


@pytest.mark.parametrize("call", ["put", "remove", "settle", "get", "present", "usage", "touch", "spool", "pread"])
async def test_a_defect_in_a_thread_turns_the_tier_off_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    """Not an error of the disk, but one nobody has thought of: the same for who uses the tier, and logged whole."""
    broken = True

    def breaking(real: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **options: object) -> object:
            if broken:
                raise ZeroDivisionError("nobody thought of it")
            return real(*args, **options)

        return run

    async with asyncio.timeout(20), running(tmp_path / "cache", report=lambda *_: None, sequence=lambda: 0) as store:
        store.put(key("old"), record(), [body("old", 100_000)])
        await store.flush()
        entry = await store.get(key("old"))
        assert entry is not None
        place = (diskentry.os, "pread") if call == "pread" else (volume.Volume, call)
        monkeypatch.setattr(*place, breaking(getattr(*place)))
        store.put(key("new"), record(), [b"new"])
        store.remove(key("gone"))
        await store.flush()
        await store.get(key("old"))
        await store.present([key("old")])
        await store.tell()
        await store.spool(key("large"), 100_000)
        with suppress(DiskFault):
            await store.read(entry, 0, 100)
        if call == "touch":
            await store._guarded(store._writer, lambda: store._write_back(store._take_touched()))
        assert not store.on
        assert store.counters.failures == 1
        assert "ZeroDivisionError" in store.why_off
        said = [line for line in caplog.records if line.levelno >= logging.WARNING]
        assert len(said) == 1
        assert said[0].exc_info
        broken = False
        entry.close()
        await until(lambda: store.on)
        assert store.put(key("after"), record(), [b"after"])
        await store.flush()
        assert await fetch(store, "after") == b"after"


async def test_a_thread_that_cannot_be_had_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asyncio.timeout(20), running(tmp_path / "cache") as store:

        def no_thread(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(store._readers, "submit", no_thread)
            assert await store.get(key("a")) is None
        assert not store.on
        await until(lambda: store.on)


async def test_a_defect_while_it_begins_or_begins_again_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise ZeroDivisionError("nobody thought of it")

        patch.setattr(volume.Volume, "open", fail)
        async with asyncio.timeout(20), running(tmp_path / "cache") as store:
            assert not store.on
            await until(lambda: any("stays off" in text for text in caplog.messages))
            patch.undo()
            await until(lambda: store.on)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_body_that_is_being_spooled_while_the_tier_is_off_is_not_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: bool
) -> None:
    async with running(tmp_path / "cache", retry_s=0.2) as store:
        spool = await store.spool(key("a"), 100_000)
        assert spool is not None
        await spool.write(body("a", 100_000))
        store._turn_off(OSError(errno.EIO, os.strerror(errno.EIO)))
        await until(lambda: store._volume._lock_fd < 0)
        if whole:
            assert not await spool.commit(record(), NOW)
        else:
            await spool.drop()
        await until(lambda: store.on)
        assert await store.get(key("a")) is None
        assert (await store.stats())["bytes_journalled"] == 0
    assert not body_files(tmp_path / "cache")
    assert len([line for line in caplog.records if line.levelno >= logging.WARNING]) == 1


async def test_a_directory_removed_under_it_is_made_again(tmp_path: Path) -> None:
    async with running(tmp_path / "cache") as store:
        store.put(key("a"), record(), [b"a"])
        await store.flush()
        shutil.rmtree(tmp_path / "cache")
        store.put(key("b"), record(), [b"b"])
        await store.flush()
        await until(lambda: store.on)
        assert await store.get(key("a")) is None
        store.put(key("c"), record(), [b"c"])
        await store.flush()
        assert await fetch(store, "c") == b"c"


async def test_a_directory_that_cannot_be_made_yet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "place").write_bytes(b"a file where the directory should be")
    async with running(tmp_path / "place" / "cache") as store:
        assert not store.on
        assert await store.get(key("a")) is None
        assert not store.put(key("a"), record(), [b"a"])
        (tmp_path / "place").unlink()
        await until(lambda: store.on)
        assert store.put(key("a"), record(), [b"a"])
    assert sum(line.levelno >= logging.WARNING for line in caplog.records) == 1


async def test_a_database_that_rots_while_it_is_open_is_begun_anew(tmp_path: Path) -> None:
    async with running(tmp_path / "cache") as store:
        for i in range(300):
            store.put(key(i), record(i), [body(i, 33_000 if i < 3 else 2000)])
        await store.flush()
    database = tmp_path / "cache" / "cache.db"
    with database.open("r+b") as out:
        out.seek(4096)
        out.write(os.urandom(database.stat().st_size - 4096))
    async with running(tmp_path / "cache") as store:
        for i in range(300):
            found = await fetch(store, i)
            assert found is None or found == body(i, 33_000 if i < 3 else 2000)
        await until(lambda: store.on)
        store.put(key("new"), record(), [b"new"])
        await store.flush()
        await until(lambda: store.on)
        store.put(key("new"), record(), [b"new"])
        await store.flush()
        assert await fetch(store, "new") == b"new"


@pytest.mark.parametrize(
    ("error", "what", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device", "make room"),
        (DiskFault(OSError(errno.EIO, "Input/output error")), "Input/output error", "device"),
        (DatabaseLost("somebody has removed it"), "its database: somebody has removed it", "leave the directory"),
        (OSError("odd"), "odd", "look at"),
        (sqlite3.OperationalError("who knows"), "who knows", "device"),
        (sqlite3.DatabaseError("malformed"), "is damaged (malformed)", "begun anew"),
        (ValueError("odd"), "a defect: ValueError: odd", "report it"),
        (AssertionError(), "a defect: AssertionError", "report it"),
    ],
    ids=["full", "i/o", "removed", "unknown", "no code", "damaged", "defect", "defect without a word"],
)
def test_every_failure_has_a_remedy(error: Exception, what: str, remedy: str) -> None:
    said, to_do = explain(error)
    assert what in said
    assert remedy in to_do


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB of its own."""
    place = tmp_path / "mount"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(file: Path) -> None:
    """Take all the room there is."""
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while out.write(bytes(1 << 12)):
            pass


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


@pytest.mark.fault
async def test_a_full_file_system(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody else fills it: off, one line, and on again when there is room."""
    async with running(small_disk / "cache") as store:
        store.put(key("kept"), record(), [body("kept", 100_000)])
        await store.flush()
        filler = small_disk / "filler"
        fill(filler)
        for i in range(40):
            store.put(key(i), record(i), [body(i, 100_000 if i % 2 else 30_000)])
        await store.flush()
        assert not store.on
        assert store.why_off in {"No space left on device", "database or disk is full"}
        filler.unlink()
        await until(lambda: store.on)
        assert await fetch(store, "kept") == body("kept", 100_000)
        store.put(key("new"), record(), [body("new", 100_000)])
        await store.flush()
        assert await fetch(store, "new") == body("new", 100_000)
    said = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "make room" in getattr(said[0], "remedy", "")
    assert len(body_files(small_disk / "cache")) == 2


@pytest.mark.fault
async def test_a_file_system_that_turns_read_only(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = small_disk / "cache"
    async with running(path) as store:
        store.put(key("kept"), record(), [body("kept", 100_000)])
    remount(small_disk, "ro")
    async with running(path) as store:
        assert not store.on
        remount(small_disk, "rw")
        await until(lambda: store.on)
        assert await fetch(store, "kept") == body("kept", 100_000)
    said = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "read-write" in getattr(said[0], "remedy", "")
