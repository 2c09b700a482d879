"""Bodies that stay in their files: found by a reference in memory, sent from the disk, gone when their file is."""

import asyncio
import os
from pathlib import Path

import pytest

from edgecache._native.arena import FLAG_BODY_IN_FILE
from edgecache.http.headers import Headers
from edgecache.store import tiers
from edgecache.store.filebody import FileBody, FileEntry
from tests.edge.test_disk_tier import FRESH, HOST, disk_of, get, node, purge
from tests.edge.world import World, until
from tests.store.kit import body_files

BODY = os.urandom(100_000)


def tiered(w: World) -> tiers.TieredStore:
    store = w.edge.pipeline.shelf.store
    assert isinstance(store, tiers.TieredStore)
    return store


def entry_of(w: World, path: str = "/a") -> FileEntry | None:
    """What memory has of it, if that is a reference."""
    store = tiered(w)
    entry = store.peek(store.key(f"http://{HOST}{path}"))
    return entry if isinstance(entry, FileEntry) else None


async def stored(path: Path, *names: str, body: bytes = BODY, **headers: str) -> None:
    async with node(path) as w:
        w.answers(body, **{"ETag": '"1"', **FRESH, **headers})
        for name in names or ("/a",):
            await get(w, name)


def files(path: Path) -> list[Path]:
    return [path / name for name in body_files(path)]


def served(w: World) -> int:
    lane = w.edge.listeners[0].lane
    assert lane is not None
    return lane.served


async def test_the_body_is_not_copied_into_memory(tmp_path: Path) -> None:
    await stored(tmp_path)
    async with node(tmp_path) as w:
        assert (await get(w)).status == 404
        before = w.edge._shared.arena.stats()["bytes_used"]
        for _ in range(3):
            assert (await get(w, "/a")).body == BODY
        assert w.edge._shared.arena.stats()["bytes_used"] - before < 2000
        entry = entry_of(w)
        assert entry is not None
        assert (entry.body_size, entry.flags & FLAG_BODY_IN_FILE) == (len(BODY), 0)
        assert served(w) == 2, "once it is known, the fast lane sends it"
        await until(lambda: disk_of(w).counters.sent == 3)
        assert disk_of(w).counters.hits == 1


@pytest.mark.parametrize(
    ("given", "status", "first", "last"),
    [
        ({}, 200, 0, 99_999),
        ({"range": "bytes=70000-70009"}, 206, 70_000, 70_009),
        ({"range": "bytes=-1"}, 206, 99_999, 99_999),
        ({"cache_control": "max-age=500"}, 200, 0, 99_999),
        ({"if_none_match": '"1"'}, 304, 0, -1),
        ({"if_none_match": '"2"'}, 200, 0, 99_999),
    ],
)
async def test_both_ways_answer_from_the_file(
    tmp_path: Path, given: dict[str, str], status: int, first: int, last: int
) -> None:
    await stored(tmp_path)
    async with node(tmp_path) as w:
        for _ in range(2):
            got = await get(w, "/a", **given)
            assert (got.status, got.body) == (status, BODY[first : last + 1])
            assert "hit" in got.cache_status
        head = await get(w, "/a", "HEAD")
        assert (head.status, head.headers["content-length"]) == (200, "100000")
        several = await get(w, "/a", range="bytes=0-9,99990-99999")
        assert BODY[:10] in several.body
        assert BODY[-10:] in several.body
        assert not w.asked


@pytest.mark.parametrize("lane", [True, False], ids=["fast lane", "ordinary path"])
@pytest.mark.parametrize("harm", ["gone", "short", "a link"])
async def test_a_file_that_is_not_what_it_was(tmp_path: Path, harm: str, *, lane: bool) -> None:
    await stored(tmp_path)
    async with node(tmp_path) as w:
        assert (await get(w, "/a")).body == BODY
        w.edge.listeners[0].lane.open = lane  # type: ignore[union-attr]
        (file,) = files(tmp_path)
        if harm == "short":
            os.truncate(file, 50_000)
        else:
            file.unlink()
        if harm == "a link":
            (tmp_path / "elsewhere").write_bytes(b"x" * 100_000)
            file.symlink_to(tmp_path / "elsewhere")
        w.answers(b"new" * 20_000, **FRESH)
        assert (await get(w, "/a")).body == b"new" * 20_000
        assert len(w.asked) == 1


async def test_what_the_disk_evicts_is_fetched_anew(tmp_path: Path) -> None:
    names = [f"/{i}" for i in range(5)]
    await stored(tmp_path, *names)
    async with node(tmp_path) as w:
        for name in names:
            await get(w, name)
        for file in files(tmp_path):
            file.unlink()
        w.answers(BODY, **FRESH)
        for name in names:
            assert (await get(w, name)).body == BODY
        assert len(w.asked) == 5


@pytest.mark.parametrize("order", [{"urls": (f"http://{HOST}/a",)}, {"keys": ("k",)}, {"everything": True}], ids=str)
async def test_a_purge_covers_it(tmp_path: Path, order: dict[str, tuple[str, ...] | bool]) -> None:
    await stored(tmp_path, Surrogate_Key="k")
    async with node(tmp_path) as w:
        for _ in range(2):
            assert (await get(w, "/a")).body == BODY
        await purge(w, **order)
        w.answers(b"new", **FRESH)
        assert (await get(w, "/a")).body == b"new"


async def test_what_the_origin_confirms_stays_where_it_is(tmp_path: Path) -> None:
    await stored(tmp_path, Cache_Control="max-age=1000", Age="1000")
    async with node(tmp_path) as w:
        w.answers(b"", 304, ETag='"1"', Cache_Control="max-age=1000", X_New="yes")
        got = await get(w, "/a")
        assert (got.body, got.headers["x-new"]) == (BODY, "yes")
        assert entry_of(w) is not None
        assert (await get(w, "/a")).body == BODY
        assert served(w) == 1
        assert len(w.asked) == 1
        await disk_of(w).flush()
        assert disk_of(w).counters.stored == 0, "the body has not been written again"
    async with node(tmp_path) as w:
        assert (await get(w, "/a")).headers["x-new"] == "yes"
        assert not w.asked


async def test_a_newer_response_takes_its_place(tmp_path: Path) -> None:
    await stored(tmp_path)
    async with node(tmp_path) as w:
        await get(w, "/a")
        w.answers(b"new" * 50_000, **FRESH)
        assert (await get(w, "/a", cache_control="no-cache")).body == b"new" * 50_000
        for _ in range(2):
            assert (await get(w, "/a")).body == b"new" * 50_000
        assert entry_of(w) is None


async def test_the_disk_learns_of_uses(tmp_path: Path) -> None:
    await stored(tmp_path, "/a", "/b")
    async with node(tmp_path) as w:
        for _ in range(3):
            await get(w, "/b")
            await get(w, "/a")
        disk = disk_of(w)
        await until(lambda: disk.counters.sent == 6)
        oldest = [row[1] for row in disk._volume.database.oldest(2)]
        await asyncio.to_thread(disk._write_back, disk._take_touched())
        entry = entry_of(w, "/a")
        assert entry is not None
        assert [row[1] for row in disk._volume.database.oldest(2)][-1] == entry.body.name
        assert len(oldest) == 2


async def test_a_damaged_file_never_gets_a_reference(tmp_path: Path) -> None:
    await stored(tmp_path, body=os.urandom(250_000))
    (file,) = files(tmp_path)
    with file.open("r+b") as stream:
        stream.seek(200_000)
        stream.write(b"rotten")
    async with node(tmp_path) as w:
        w.answers(b"new", **FRESH)
        assert (await get(w, "/a")).body == b"new"
        assert disk_of(w).counters.corrupt == 1


async def test_explain_says_where_the_body_is(tmp_path: Path) -> None:
    await stored(tmp_path, "/a", "/b")
    async with node(tmp_path) as w:
        await get(w, "/a")
        w.answers(b"x", **FRESH)
        await get(w, "/c")
        tier = {}
        for path in ("/a", "/b", "/c", "/d"):  # nobody has asked for /b since the restart
            found = await w.edge.explain("GET", f"http://{HOST}{path}", Headers([]))
            tier[path] = (found.verdict, [entry.tier for entry in found.stored])
        served_from_disk = ("serve", ["disk"])
        assert tier == {
            "/a": served_from_disk,
            "/b": served_from_disk,
            "/c": ("serve", ["memory"]),
            "/d": ("fetch", []),
        }


def test_a_reference_is_read_as_it_was_written() -> None:
    body = FileBody(1 << 33, 4096, (1 << 64) - 1, "00/" + "1" * 30 + "-00000000")
    assert FileBody.unpack(body.pack()) == body
    with pytest.raises(ValueError, match="no name"):
        FileBody(1, 0, 1, "elsewhere").pack()
