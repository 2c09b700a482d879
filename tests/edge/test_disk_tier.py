"""Memory and disk together, behind a real edge: what a restart keeps, what it must not bring back, what is written."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from edgecache.app import Shared, StartError
from edgecache.config.model import Config
from edgecache.edge.lookup import Found
from edgecache.purge.message import PurgeKind, PurgeOrder
from edgecache.store import tiers
from edgecache.store.disk import DiskStore
from tests.edge.world import Got, World, until, world
from tests.store.kit import body_files

FRESH = {"Cache-Control": "max-age=1000"}
HOST = "www.example.test"


@asynccontextmanager
async def starting(path: Path, **disk: object) -> AsyncIterator[World]:
    """An edge with a disk tier that may not be able to serve; a second one on the same directory is a restart."""
    async with world(disk={"path": str(path), "size": "64MiB", "admit": "always", **disk}) as w:
        yield w


@asynccontextmanager
async def node(path: Path, **disk: object) -> AsyncIterator[World]:
    """`starting`, with the tier serving: where the disk has much to do, that is later than a start waits for."""
    async with starting(path, **disk) as w:
        await until(lambda: disk_of(w).on, 60)
        yield w


async def get(w: World, path: str = "/", method: str = "GET", **headers: str) -> Got:
    return await w.get(path, method, host=HOST, **headers)


def disk_of(w: World) -> DiskStore:
    store = w.edge.pipeline.shelf.store
    assert isinstance(store, tiers.TieredStore)
    return store.disk


async def purge(w: World, *, kind: PurgeKind = PurgeKind.HARD, **order: tuple[str, ...] | bool) -> None:
    await w.edge.purge(PurgeOrder(kind=kind, **order), wait=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 10, 100_000], ids=["empty", "in a row", "in a file"])
async def test_a_restart_is_warm(tmp_path: Path, size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    async with node(tmp_path) as w:
        w.answers(body, ETag='"1"', **FRESH)
        before = await get(w, "/a?b=1")
    async with node(tmp_path) as w:
        after = await get(w, "/a?b=1")
        again = await get(w, "/a?b=1")
        assert not w.asked
    assert before.body == after.body == again.body == body
    assert "fwd=" in before.cache_status
    assert "hit" in after.cache_status
    assert "hit" in again.cache_status
    assert after.headers["etag"] == '"1"'
    assert int(after.headers["age"]) < 5


async def test_ten_thousand_objects_survive(tmp_path: Path) -> None:
    """The issue's own measure, at a tenth of its size in this suite."""
    count = 1000

    async def all_of(w: World) -> list[Got]:
        found = []
        for start in range(0, count, 50):
            found += await asyncio.gather(*(get(w, f"/{i}") for i in range(start, start + 50)))
        return found

    async with node(tmp_path) as w:
        w.answers(b"x" * 500, **FRESH)
        await all_of(w)
        assert len(w.asked) == count
    async with node(tmp_path) as w:
        assert all("hit" in got.cache_status for got in await all_of(w))
        assert not w.asked


async def test_what_was_stored_while_the_disk_was_looked_at_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(tmp_path) as w:
        shelf, fetched, looking, stored = w.edge.pipeline.shelf, asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def answer(_: web.Request) -> web.StreamResponse:
            await fetched.wait()
            return web.Response(body=b"body", headers=FRESH)

        w.answer = answer
        first = asyncio.ensure_future(get(w, "/a"))
        await until(lambda: len(w.asked) == 1)
        bring = shelf.bring

        async def slowly(found: Found) -> bool:
            came = await bring(found)
            looking.set()
            await stored.wait()
            return came

        monkeypatch.setattr(shelf, "bring", slowly)
        second = asyncio.ensure_future(get(w, "/a"))
        await looking.wait()
        fetched.set()
        assert (await first).body == b"body"
        await until(lambda: not w.edge.pipeline.collapse.fills)
        stored.set()
        got = await second
        assert got.body == b"body"
        assert "hit" in got.cache_status
        assert len(w.asked) == 1


async def test_variants_survive(tmp_path: Path) -> None:
    async with node(tmp_path) as w:
        for language in ("de", "fr"):
            w.answers(language, Vary="Accept-Language", **FRESH)
            await get(w, accept_language=language)
    async with node(tmp_path) as w:
        for language in ("fr", "de"):
            assert (await get(w, accept_language=language)).body == language.encode()
        assert not w.asked
        w.answers("it", Vary="Accept-Language", **FRESH)
        assert (await get(w, accept_language="it")).body == b"it"
        assert len(w.asked) == 1


async def test_ranges_and_conditions_are_answered_from_disk(tmp_path: Path) -> None:
    body = bytes(i % 251 for i in range(100_000))
    async with node(tmp_path) as w:
        w.answers(body, ETag='"1"', **FRESH)
        await get(w, "/a")
        await get(w, "/b")
    async with node(tmp_path) as w:
        part = await get(w, "/a", range="bytes=70000-70009")
        assert (part.status, part.body) == (206, body[70_000:70_010])
        assert (await get(w, "/b", if_none_match='"1"')).status == 304
        assert not w.asked


async def test_head_is_answered_from_disk(tmp_path: Path) -> None:
    async with node(tmp_path) as w:
        w.answers(b"hello", **FRESH)
        await get(w)
    async with node(tmp_path) as w:
        got = await get(w, method="HEAD")
        assert (got.status, got.headers["content-length"]) == (200, "5")
        assert not w.asked


async def test_a_stale_one_is_revalidated_not_fetched(tmp_path: Path) -> None:
    async with node(tmp_path) as w:
        w.answers(b"hello", ETag='"1"', Cache_Control="max-age=1000", Age="1000")
        await get(w)
    async with node(tmp_path) as w:
        w.answers(b"", 304, ETag='"1"', Cache_Control="max-age=1000")
        got = await get(w)
        assert got.body == b"hello"
        assert w.asked[0][2]["if-none-match"] == '"1"'
    async with node(tmp_path) as w:
        assert (await get(w)).body == b"hello", "and what the origin said is kept"
        assert not w.asked


# --- purges ---

ORDERS = [
    {"urls": (f"http://{HOST}/a",)},
    {"keys": ("k1",)},
    {"hosts": (HOST,)},
    {"prefixes": (f"{HOST}/",)},
    {"everything": True},
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: next(iter(order)))
async def test_what_was_purged_stays_purged(tmp_path: Path, order: dict[str, tuple[str, ...] | bool]) -> None:
    async with node(tmp_path) as w:
        w.answers(b"old", Surrogate_Key="k1 k2", **FRESH)
        await get(w, "/a")
        await disk_of(w).flush()
        await purge(w, **order)
    async with node(tmp_path) as w:
        w.answers(b"new", Surrogate_Key="k1 k2", **FRESH)
        assert (await get(w, "/a")).body == b"new"
    async with node(tmp_path) as w:
        assert (await get(w, "/a")).body == b"new", "stored after the purge: it is valid"
        assert not w.asked
        await purge(w, **order)
        w.answers(b"newest", **FRESH)
        assert (await get(w, "/a")).body == b"newest", "numbers go on after a restart"


async def test_an_unsafe_request_is_remembered(tmp_path: Path) -> None:
    async with node(tmp_path) as w:
        w.answers(b"old", **FRESH)
        await get(w, "/a")
        w.answers(b"done")
        assert (await get(w, "/a", "POST")).status == 200
        con = sqlite3.connect(tmp_path / "purges.db")
        assert con.execute("SELECT value FROM State WHERE name = 'sequence'").fetchone() == (1,), "before the answer"
        con.close()
    async with node(tmp_path) as w:
        w.answers(b"new", **FRESH)
        assert (await get(w, "/a")).body == b"new"


async def test_after_a_kill_numbers_are_not_used_twice(tmp_path: Path) -> None:
    """A purge that was applied and not written down must leave nothing that a later purge of its number misses."""
    async with node(tmp_path) as w:
        await purge(w, keys=("k",))
        w.edge.worker.purge_log._arena.append_purge([1], soft=False)  # applied; killed before it was written
        w.answers(b"filled after it", Surrogate_Key="k", **FRESH)
        await get(w, "/a")
    async with node(tmp_path) as w:
        assert (await get(w, "/a")).body == b"filled after it"
        assert not w.asked
        await purge(w, keys=("k",))
        w.answers(b"new", **FRESH)
        assert (await get(w, "/a")).body == b"new"
    async with node(tmp_path) as w:
        assert (await get(w, "/a")).body == b"new"


def harm_all(path: Path, harm: str) -> None:
    for file in path.glob("purges.db*"):
        if harm == "removed":
            file.unlink()
        else:
            file.write_bytes(b"no database")


@pytest.mark.parametrize("harm", ["removed", "damaged"])
async def test_without_the_purges_nothing_stored_is_used(tmp_path: Path, harm: str) -> None:
    async with node(tmp_path) as w:
        w.answers(b"old", **FRESH)
        await get(w, "/a")
    harm_all(tmp_path, harm)
    async with node(tmp_path) as w:
        w.answers(b"new", **FRESH)
        assert (await get(w, "/a")).body == b"new"


async def test_purges_that_cannot_be_written_forbid_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with node(tmp_path) as w:
        w.answers(b"old", **FRESH)
        await get(w, "/a")
        await disk_of(w).flush()
        with monkeypatch.context() as patch:
            patch.setattr("edgecache.purge.durable.DurablePurges.append", fail)
            patch.setattr(w.edge.worker.purge_log.keeper, "_retry_s", 60)
            await purge(w, keys=("k",))
            assert not (tmp_path / "cache.db").exists()
            assert any("purges cannot be written" in line for line in caplog.messages)


# --- what is written ---


async def test_by_default_it_takes_a_second_request_or_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "LOOK_AFTER_S", (0.05, 0.1, 0.2))
    async with node(tmp_path, admit="second-request", large="100KiB") as w:
        w.answers(b"x" * 1000, **FRESH)
        for path in ("/once", "/twice", "/twice"):
            await get(w, path)
        w.answers(b"x" * 200_000, **FRESH)
        await get(w, "/large")
        store = w.edge.pipeline.shelf.store
        assert isinstance(store, tiers.TieredStore)
        await until(lambda: not any(store._pending[:-1]))  # each has been looked at, and is from now and then
        await store.disk.flush()
        assert disk_of(w).counters.stored == 2
    async with node(tmp_path) as w:
        w.answers(b"anew", **FRESH)
        found = {path: (await get(w, path)).body for path in ("/once", "/twice", "/large", "/never")}
        sizes = {"/once": 1000, "/twice": 1000, "/large": 200_000, "/never": 4}
        assert {path: len(body) for path, body in found.items()} == sizes


async def test_a_newer_response_never_leaves_the_older_on_disk(tmp_path: Path) -> None:
    async with node(tmp_path) as w:
        w.answers(b"old", **FRESH)
        await get(w, "/a")
    async with node(tmp_path, admit="second-request") as w:
        w.answers(b"new", **FRESH)
        assert (await get(w, "/a", cache_control="no-cache")).body == b"new"
    async with node(tmp_path) as w:
        w.answers(b"newest", **FRESH)
        assert (await get(w, "/a")).body in {b"new", b"newest"}


async def test_what_memory_cannot_hold_comes_from_disk(tmp_path: Path) -> None:
    async with node(tmp_path) as w:
        w.answers(b"x" * 200_000, **FRESH)
        for i in range(150):
            await get(w, f"/{i}")
        await disk_of(w).flush()
        del w.asked[:]
        for i in range(150):
            assert len((await get(w, f"/{i}")).body) == 200_000
        assert not w.asked
        await disk_of(w).tell()
        figures = w.edge.stats()["disk"]
        assert isinstance(figures, dict)
        assert figures["hits"] == disk_of(w).counters.hits > 20
        assert figures["records"] == 150
        assert figures["on"] == 1
        assert b"edgecache_disk_hits_total" in w.edge.metrics()


async def test_a_crowd_reads_the_disk_once(tmp_path: Path) -> None:
    async with node(tmp_path) as w:
        w.answers(b"x" * 100_000, **FRESH)
        await get(w, "/a")
    async with node(tmp_path) as w:
        assert all(len(got.body) == 100_000 for got in await asyncio.gather(*(get(w, "/a") for _ in range(50))))
        assert not w.asked
        assert disk_of(w).counters.hits == 1


async def test_uncacheable_answers_leave_no_trace(tmp_path: Path) -> None:
    async with node(tmp_path) as w:
        w.answers(b"private", Cache_Control="no-store")
        for _ in range(3):
            await get(w, "/a")
        await disk_of(w).flush()
        assert (await disk_of(w).stats())["records"] == 0
        assert not body_files(tmp_path)


def test_a_directory_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecache.store.node.LOCK_PATIENCE_S", 0.1)
    config = Config.model_validate({"origin": "http://127.0.0.1:1", "disk": {"path": str(tmp_path)}})
    first = Shared(config)
    with pytest.raises(StartError, match="another edge uses"):
        Shared(config)
    assert first.disk is not None
    first.disk.close()
    again = Shared(config)
    assert again.disk is not None
    again.disk.close()


async def test_an_unusable_directory_does_not_keep_it_from_serving(tmp_path: Path) -> None:
    (tmp_path / "place").write_bytes(b"a file")
    async with starting(tmp_path / "place" / "cache") as w:
        w.answers(b"hello", **FRESH)
        assert (await get(w, "/a")).body == b"hello"
        assert "hit" in (await get(w, "/a")).cache_status
        assert not disk_of(w).on


async def test_what_a_lost_start_could_not_judge_is_emptied(tmp_path: Path) -> None:
    """The directory comes back after the start, with what an earlier node had stored there."""
    path = tmp_path / "cache"
    async with node(path) as w:
        w.answers(b"old", **FRESH)
        await get(w, "/a")
        await disk_of(w).flush()
    path.rename(tmp_path / "aside")
    path.write_bytes(b"in the way")
    async with starting(path) as w:
        path.unlink()
        (tmp_path / "aside").rename(path)
        await until(lambda: disk_of(w).on)
        w.answers(b"new", **FRESH)
        assert (await get(w, "/a")).body == b"new"
