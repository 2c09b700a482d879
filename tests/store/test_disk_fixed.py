"""What never changes under its key is found again without a look-up, and only while it is whole, valid and there."""

import os
from pathlib import Path

import pytest

from edgecache.store import disk as disk_module
from edgecache.store.disk import DiskStore
from tests.store.kit import Purges, body, body_files, key, record
from tests.store.test_disk import running

SIZE = 100_000


async def fixed(store: DiskStore, name: object = "a") -> bytes | None:
    entry = await store.get_fixed(key(name))
    if entry is None:
        return None
    data = await store.read(entry, 0, SIZE)
    entry.close()
    return data


async def stored(store: DiskStore, *names: object, size: int = SIZE) -> None:
    for name in names or ("a",):
        store.put(key(name), record(name, tags=(7,)), [body(name, size)])
    await store.flush()


async def test_it_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as store:
        await stored(store)
        assert await fixed(store) == body("a", SIZE)
        monkeypatch.setattr(store._volume.database, "find", None)
        for _ in range(3):
            assert await fixed(store) == body("a", SIZE)
        assert store.counters.hits == 4


async def test_a_small_one_in_its_row_is_looked_up_each_time(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await stored(store, size=100)
        for _ in range(2):
            assert await fixed(store) == body("a", 100)
        assert not store._fixed


@pytest.mark.parametrize("how", ["gone", "short", "a link", "purged", "removed", "removal queued"])
async def test_what_is_no_longer_good_is_not_found(tmp_path: Path, how: str) -> None:
    purges = Purges()
    async with running(tmp_path, purged=purges) as store:
        await stored(store)
        assert await fixed(store) is not None
        (name,) = body_files(tmp_path)
        file = tmp_path / name
        match how:
            case "gone":
                file.unlink()
            case "short":
                os.truncate(file, SIZE - 1)
            case "a link":
                file.rename(tmp_path / "elsewhere")
                file.symlink_to(tmp_path / "elsewhere")
            case "purged":
                purges.purge(7)
            case "removed":
                store.remove(key("a"))
                await store.flush()
            case "removal queued":
                store.remove(key("a"))
        assert await fixed(store) is None
        assert not store._fixed


async def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "FIXED_MAX", 8)
    async with running(tmp_path) as store:
        await stored(store, *range(20))
        for name in range(20):
            assert await fixed(store, name) == body(name, SIZE)
        assert len(store._fixed) <= 8
