"""Bodies that are stored as they come: counted before they are written, readable at once, whole or gone."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgecache.store.disk import DiskStore
from edgecache.store.disksweep import sweep_before_start
from tests.store.kit import FAR, NOW, Purges, body, body_files, key, record

MIB = 1 << 20


@asynccontextmanager
async def opened(path: Path, purges: Purges | None = None, size: int = 64 * MIB) -> AsyncIterator[DiskStore]:
    store = DiskStore(path, size, owner=1, purged=purges or Purges())
    await store.start()
    yield store
    await store.close()


@pytest.mark.parametrize("size", [1, 32 * 1024, MIB, 2 * MIB + 17], ids=["tiny", "inline elsewhere", "chunk", "chunks"])
async def test_it_is_read_while_it_comes_and_found_when_it_is_whole(tmp_path: Path, size: int) -> None:
    async with opened(tmp_path) as store:
        data = body("a", size)
        spool = await store.spool(key("a"), size)
        assert spool is not None
        at = 0
        while at < size:
            assert await spool.write(data[at : at + 300_000])
            at = min(at + 300_000, size)
            assert os.pread(spool.fd, size, 0) == data[:at]
        assert await store.get(key("a")) is None
        assert await spool.commit(record("a"), NOW)
        entry = await store.get(key("a"))
        assert entry is not None
        assert entry.body_size == size
        assert await store.read(entry, 0, size) == data
        entry.close()
        assert os.pread(spool.fd, size, 0) == data, "also by who held it before"


async def test_its_space_is_counted_before_it_is_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        before = (await store.stats())["bytes_used"]
        spool = await store.spool(key("a"), 8 * MIB)
        assert spool is not None
        assert (await store.stats())["bytes_used"] >= before + 8 * MIB
        await spool.drop()
        await spool.drop()
        assert (await store.stats())["bytes_journalled"] == 0
        assert not body_files(tmp_path)


async def test_what_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await store.spool(key("a"), 100 * MIB) is None
        assert store.on
        assert not body_files(tmp_path)


async def test_a_purge_on_the_way_refuses_it(tmp_path: Path) -> None:
    purges = Purges()
    async with opened(tmp_path, purges) as store:
        spool = await store.spool(key("a"), 100_000)
        assert spool is not None
        await spool.write(body("a", 100_000))
        purges.purge(7)
        assert not await spool.commit(record("a", tags=(7,)), NOW)
        assert await store.get(key("a")) is None
        assert os.pread(spool.fd, 10, 0) == body("a", 10)
        await store.flush()
        assert not body_files(tmp_path)


async def test_a_tier_that_was_off_meanwhile_has_forgotten_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        spool = await store.spool(key("a"), 100_000)
        assert spool is not None
        await spool.write(body("a", 100_000))
        await asyncio.to_thread(store._volume.release, 1)
        assert not await spool.commit(record("a"), NOW)
        assert store.on


async def test_what_a_killed_process_was_spooling_goes(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        spool = await store.spool(key("a"), 100_000)
        assert spool is not None
        await spool.write(body("a", 50_000))
        assert body_files(tmp_path)
    assert sweep_before_start(tmp_path, 64 * MIB, purged=Purges()) == 1
    assert not body_files(tmp_path)


async def test_which_are_there(tmp_path: Path) -> None:
    purges = Purges()
    async with opened(tmp_path, purges) as store:
        for i in range(700):
            store.put(key(i), record(i, tags=(i % 7 + 1,), until=FAR), [b"x"])
        await store.flush()
        purges.purge(1)
        purges.purge(2, soft=True)
        there = await store.present([key(i) for i in range(1000)])
        assert there == {key(i) for i in range(700) if i % 7 != 0}
        assert await store.present([]) == set()


async def test_a_removal_that_is_queued_is_as_good_as_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        store.put(key("a"), record("a"), [b"x"])
        await store.flush()
        goes_on = threading.Event()
        store._writer.submit(goes_on.wait)
        store.remove(key("a"))
        assert await store.get(key("a")) is None
        assert await store.present([key("a")]) == set()
        goes_on.set()
        store.put(key("a"), record("a"), [b"y"])
        await store.flush()
        entry = await store.get(key("a"))
        assert entry is not None
        entry.close()
