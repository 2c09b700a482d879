"""Large objects in slices, behind a real edge: what is fetched, what is sent, what never mixes."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from edgecache._native.inflight import Leases
from edgecache.edge import octets
from edgecache.edge.leases import FillLeases, make_bells
from edgecache.edge.lookup import stored_response
from edgecache.edge.slices import Slicer
from edgecache.http.clock import wall_clock
from edgecache.http.headers import Headers
from edgecache.http.stored import Sliced
from edgecache.policy import slices
from edgecache.policy.slices import slice_key
from edgecache.purge.message import PurgeKind, PurgeOrder
from edgecache.store.tiers import TieredStore
from tests.edge.world import Got, World, at_rest, until, world
from tests.store.kit import body_files

KIB = 1024
SLICE = 64 * KIB
HOST = "www.example.test"


def content(size: int, seed: str = "a") -> bytes:
    """Octets that tell where they are from."""
    block = b"".join(hashlib.sha256(f"{seed}{i}".encode()).digest() for i in range(64))
    return b"".join((block[i % 997 :] + block)[:2048] for i in range(size // 2048 + 1))[:size]


@dataclass
class Files:
    """An origin of one large file."""

    body: bytes
    fields: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"', "Cache-Control": "max-age=1000"})
    takes_ranges: bool = True
    chunked: bool = False
    asked: list[str | None] = field(default_factory=list)
    """The Range of each GET."""
    sent: int = 0
    cut_after: list[int] = field(default_factory=list)
    """After how many octets to cut the next answers, one each."""
    fail: list[int] = field(default_factory=list)
    """Statuses of the next answers."""
    gate: Callable[[int], object] = lambda _: None
    """Awaited, if it can be, before the octet at this offset."""

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            self.asked.append(request.headers.get("Range"))
        if self.fail:
            return web.Response(status=self.fail.pop(0))
        body, fields = self.body, dict(self.fields)
        etag = fields.get("ETag")
        if etag is not None and request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=fields)
        status, first, last = 200, 0, len(body) - 1
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        condition = request.headers.get("If-Range")
        same = condition is None or condition in {etag, fields.get("Last-Modified")}
        if wanted is not None and self.takes_ranges and same:
            first = int(wanted[1])
            last = min(int(wanted[2] or last), last)
            if first >= len(body):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
            status = 206
            fields["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        if not self.chunked:
            fields["Content-Length"] = str(last + 1 - first)
        response = web.StreamResponse(status=status, headers=fields)
        if self.chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        cut = self.cut_after.pop(0) if self.cut_after else None
        at = first
        while at <= last:
            waiting = self.gate(at)
            if waiting is not None:
                await waiting  # type: ignore[misc]
            end = min(at + 16 * KIB, last + 1, len(body) if cut is None else first + cut)
            await response.write(body[at:end])
            self.sent += end - at
            at = end
            if cut is not None and at - first >= cut:
                assert request.transport is not None
                await asyncio.sleep(0.05)
                request.transport.close()
                return response
        return response


@dataclass
class Place:
    """An edge with slices before such an origin."""

    w: World
    files: Files

    @property
    def slicer(self) -> Slicer:
        slicer = self.w.edge.pipeline.slicer
        assert slicer is not None
        return slicer

    @property
    def store(self) -> TieredStore:
        store = self.w.edge.pipeline.shelf.store
        assert isinstance(store, TieredStore)
        return store

    async def get(self, spec: str | None = None, path: str = "/v", method: str = "GET", **headers: str) -> Got:
        if spec is not None:
            headers["range"] = f"bytes={spec}"
        return await self.w.get(path, method, host=HOST, **headers)

    async def settled(self) -> None:
        """Everything under way has ended and is on disk."""
        await until(lambda: not self.slicer._tasks)
        await self.store.disk.flush()

    async def purge(self, *, kind: PurgeKind = PurgeKind.HARD, **order: object) -> None:
        await self.w.edge.purge(PurgeOrder(kind=kind, **order), wait=True)  # type: ignore[arg-type]

    async def manifest(self) -> Sliced:
        found = self.store.peek(self.store.key(f"http://{HOST}/v"))
        assert found is not None
        sliced = stored_response(found).sliced
        assert sliced is not None
        return sliced

    async def records(self) -> int:
        return (await self.store.disk.stats())["records"]


@asynccontextmanager
async def place(path: Path, size: int = 1024 * KIB, *, cut: str = "64KiB", **settings: object) -> AsyncIterator[Place]:
    files = Files(content(size))
    disk = {"path": str(path), "size": "64MiB"}
    async with world(disk=disk, cache={"slice": cut}, **settings) as w:
        w.answer = files
        yield Place(w, files)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(octets, "PAUSES_S", (0.0, 0.01, 0.02))


# --- the whole ---


async def test_a_large_object_is_stored_and_served_again(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        first = await p.get()
        await p.settled()
        assert await p.records() == 17, "16 slices and the manifest"
        second = await p.get()
        assert first.body == second.body == p.files.body
        assert first.status == second.status == 200
        assert first.cache_status == "edgecache; fwd=uri-miss; fwd-status=200; stored"
        assert "edgecache; hit" in second.cache_status
        assert second.headers["content-length"] == str(len(p.files.body))
        assert len(p.files.asked) == 1
    async with place(tmp_path) as p:
        third = await p.get()
        assert third.body == p.files.body
        assert "edgecache; hit" in third.cache_status, "and a restart is warm"
        assert not p.files.asked


RANGES = {
    "begin": "0-99",
    "one octet": "65536-65536",
    "across slices": "65000-140000",
    "to the end": "1000000-",
    "suffix": "-70000",
    "all": "0-",
    "beyond": "1048570-99999999",
}


def expected(spec: str, body: bytes) -> bytes:
    first, _, last = spec.partition("-")
    if not first:
        return body[-int(last) :]
    return body[int(first) : int(last) + 1 if last else None]


@pytest.mark.parametrize("spec", RANGES.values(), ids=RANGES.keys())
async def test_ranges_of_what_is_stored(tmp_path: Path, spec: str) -> None:
    async with place(tmp_path) as p:
        await p.get()
        await p.settled()
        got = await p.get(spec)
        assert (got.status, got.body) == (206, expected(spec, p.files.body))
        assert "edgecache; hit" in got.cache_status
        assert len(p.files.asked) == 1


# --- a range first ---


@pytest.mark.parametrize("spec", [spec for name, spec in RANGES.items() if name != "all"])
async def test_a_cold_range_takes_no_more_than_its_slices(tmp_path: Path, spec: str) -> None:
    async with place(tmp_path) as p:
        got = await p.get(spec)
        wanted = expected(spec, p.files.body)
        assert (got.status, got.body) == (206, wanted)
        assert got.headers["content-range"].endswith(f"/{len(p.files.body)}")
        await p.settled()
        # One more may have been asked for ahead, one more to learn where the end is.
        assert p.files.sent <= len(wanted) + 3 * SLICE
        again = await p.get(spec)
        assert again.body == wanted
        assert "edgecache; hit" in again.cache_status
        asked = len(p.files.asked)
        whole = await p.get()
        assert whole.body == p.files.body, "the rest is fetched beside what is there"
        assert "fwd=partial" in whole.cache_status or spec == "0-99"
        assert all(each is not None for each in p.files.asked[asked:])
        await p.settled()
        assert p.files.sent <= len(p.files.body)


async def test_a_small_object_asked_for_by_range_is_stored_whole(tmp_path: Path) -> None:
    async with place(tmp_path, 50_000) as p:
        got = await p.get("100-199")
        assert (got.status, got.body) == (206, p.files.body[100:200])
        whole = await p.get()
        assert (whole.status, whole.body) == (200, p.files.body)
        assert "content-range" not in whole.headers
        assert "hit" in whole.cache_status
        assert len(p.files.asked) == 1
        await p.settled()
        assert await p.records() == 0, "it is small: memory holds it"


@pytest.mark.parametrize("first", [True, False], ids=["cold", "stored"])
async def test_several_ranges(tmp_path: Path, first: bool) -> None:
    async with place(tmp_path) as p:
        if not first:
            await p.get()
            await p.settled()
        got = await p.get("10-19,200000-200009")
        assert got.status == 206, "cold: the origin of this test takes one range at a time, and answers with the whole"
        assert got.headers["content-type"].startswith("multipart/byteranges")
        assert p.files.body[10:20] in got.body
        assert p.files.body[200_000:200_010] in got.body


async def test_conditions_and_heads_need_no_slice(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get("0-9")
        await p.settled()
        asked = len(p.files.asked)
        head = await p.get(method="HEAD")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(len(p.files.body)), b"")
        assert (await p.get(if_none_match='"1"')).status == 304
        assert (await p.get("0-9", if_none_match='"1"')).status == 304
        beyond = await p.get("99999999-")
        assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(p.files.body)}")
        assert len(p.files.asked) == asked


async def test_if_range(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        cold = await p.get("5-9", if_range='"1"')
        assert (cold.status, cold.body) == (206, p.files.body[5:10])
        other = await p.get("5-9", if_range='"2"')
        assert (other.status, other.body) == (200, p.files.body)
    async with place(tmp_path / "b") as p:
        cold = await p.get("5-9", if_range='"2"')
        assert (cold.status, cold.body) == (200, p.files.body), "nothing stored, and another version is meant"


async def test_a_range_beyond_the_end_is_refused_by_the_origin(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        got = await p.get("99999999-")
        assert (got.status, got.headers["content-range"]) == (416, f"bytes */{len(p.files.body)}")


# --- one fetch for all ---


async def test_a_crowd_fetches_each_slice_once(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        offsets = [i * 40_000 for i in range(25)]
        ranges = [f"{at}-{at + 9999}" for at in offsets for _ in range(4)]
        found = await asyncio.gather(*(p.get(spec) for spec in ranges))
        assert all(got.body == expected(spec, p.files.body) for got, spec in zip(found, ranges, strict=True))
        await p.settled()
        assert p.files.sent <= len(p.files.body)
        assert len(set(p.files.asked)) == len(p.files.asked)


async def test_a_crowd_for_the_whole_is_one_fetch(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        found = await asyncio.gather(*(p.get() for _ in range(10)))
        assert all(got.body == p.files.body for got in found)
        assert p.files.asked == [None]


async def test_who_leaves_stops_the_fetch(tmp_path: Path) -> None:
    async with place(tmp_path, 8 << 20) as p:
        async with p.w.client.get(p.w.url + "/v", headers={"Host": HOST}) as response:
            await response.content.readexactly(100)
            response.close()
        await p.settled()
        assert p.files.sent < 8 << 20
        got = await p.get()
        assert got.body == p.files.body
        assert p.files.asked[1:], "what was missing"
        assert None not in p.files.asked[1:]


async def test_a_slow_client_does_not_make_the_fetch_run_away(tmp_path: Path) -> None:
    async with place(tmp_path, 24 << 20) as p:
        async with p.w.client.get(p.w.url + "/v", headers={"Host": HOST}) as response:
            await response.content.readexactly(100)
            await at_rest(lambda: p.files.sent)
            assert p.files.sent < 20 << 20, "what the sockets hold, and a few slices"
            rest = await response.read()
        assert rest == p.files.body[100:]


async def test_other_workers_wait_for_a_slice_that_comes_and_for_no_other(tmp_path: Path) -> None:
    async with place(tmp_path, 24 << 20) as p:
        table = Leases(p.store.arena)
        p.slicer.leases = leases = FillLeases(table, make_bells(1), 0, wall_clock)
        goes_on = asyncio.Event()
        p.files.gate = lambda at: goes_on.wait() if at == 16 * KIB else None
        async with p.w.client.get(p.w.url + "/v", headers={"Host": HOST}) as response:
            await response.content.readexactly(100)
            [[feed]] = p.slicer._feeds.values()
            assert leases.held(slice_key(feed.sliced, 0)), "with the first octet of it, too"
            goes_on.set()
            await until(lambda: feed._moved is not None and not feed._moved.done())
            assert not leases.held(slice_key(feed.sliced, feed.index)), "its client is slow"
            assert await response.read() == p.files.body[100:]
        await p.settled()
        assert len(table) == 0


# --- versions ---


async def test_versions_never_mix(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get("0-9")
        await p.settled()
        p.files.body = content(1024 * KIB, "b")
        p.files.fields["ETag"] = '"2"'
        got = await p.get("500000-500099")
        assert (got.status, got.body) == (206, p.files.body[500_000:500_100]), "asked for, found changed, asked anew"
        assert (await p.get("0-9")).body == p.files.body[:10]
        whole = await p.get()
        assert whole.body == p.files.body


async def test_a_change_in_the_middle_cuts_the_transfer(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get("0-9")
        await p.settled()
        old = p.files.body
        p.files.body = content(1024 * KIB, "b")
        p.files.fields["ETag"] = '"2"'
        with pytest.raises(aiohttp.ClientPayloadError):
            await p.get("0-999999")
        got = await p.get("0-999999")
        assert got.body == p.files.body[:1_000_000], "the old manifest is gone"
        assert old[:10] != got.body[:10]


async def test_a_version_without_its_length_is_another(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get("0-9")
        await p.settled()
        p.files.body = p.files.body[:900_000]
        got = await p.get("500000-500009")
        assert got.body == p.files.body[500_000:500_010]
        assert got.headers["content-range"].endswith("/900000")


async def test_a_date_is_a_validator_where_it_is_strong(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        date = "Wed, 01 Jan 2020 00:00:00 GMT"
        p.files.fields = {"Last-Modified": date, "Cache-Control": "max-age=1000"}
        await p.get("0-9")
        await p.settled()
        assert (await p.get("500000-500009")).body == p.files.body[500_000:500_010]
        assert p.files.asked[-1] is not None
        p.files.body = content(1024 * KIB, "b")
        p.files.fields["Last-Modified"] = "Thu, 02 Jan 2020 00:00:00 GMT"
        assert (await p.get("900000-900009")).body == p.files.body[900_000:900_010]


@pytest.mark.parametrize("etag", ['W/"1"', None], ids=["weak", "none"])
async def test_without_a_strong_validator_ranges_go_through(tmp_path: Path, etag: str | None) -> None:
    async with place(tmp_path) as p:
        p.files.fields = {"Cache-Control": "max-age=1000", **({"ETag": etag} if etag else {})}
        for spec in ("0-9", "500000-500009", "500000-500009"):
            assert (await p.get(spec)).body == expected(spec, p.files.body)
        assert p.files.asked.count("bytes=0-65535") <= 1, "it is remembered"


async def test_a_304_keeps_the_slices(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.files.fields["Cache-Control"] = "max-age=0, stale-while-revalidate=0"
        await p.get("0-99999")
        await p.settled()
        p.files.asked.clear()
        p.files.fields["Cache-Control"] = "max-age=1000"
        got = await p.get("0-99")
        assert (got.status, got.body) == (206, p.files.body[:100])
        assert "fwd-status=304" in got.cache_status
        assert p.files.asked == [None], "one conditional request"
        assert (await p.get("50-99")).body == p.files.body[50:100]
        assert p.files.asked == [None]


async def test_a_200_takes_their_place(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.files.fields["Cache-Control"] = "max-age=0"
        await p.get()
        await p.settled()
        p.files.body = content(700 * KIB, "b")
        p.files.fields = {"ETag": '"2"', "Cache-Control": "max-age=1000"}
        assert (await p.get("600000-600009")).body == p.files.body[600_000:600_010]
        assert (await p.get()).body == p.files.body


# --- purges ---

ORDERS = [
    {"urls": (f"http://{HOST}/v",)},
    {"keys": ("k1",)},
    {"hosts": (HOST,)},
    {"prefixes": (f"{HOST}/",)},
    {"everything": True},
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: next(iter(order)))
async def test_one_purge_covers_manifest_and_slices(tmp_path: Path, order: dict[str, object]) -> None:
    async with place(tmp_path) as p:
        p.files.fields["Surrogate-Key"] = "k1"
        await p.get()
        await p.settled()
        p.files.body = content(1024 * KIB, "b")  # under the same tag: only the purge can tell
        await p.purge(**order)
        p.files.asked.clear()
        got = await p.get("300000-300009")
        assert got.body == p.files.body[300_000:300_010]
        assert (await p.get()).body == p.files.body


async def test_a_soft_purge_asks_once_and_keeps_the_slices(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get()
        await p.settled()
        p.files.asked.clear()
        await p.purge(urls=(f"http://{HOST}/v",), kind=PurgeKind.SOFT)
        got = await p.get("300000-300009")
        assert got.body == p.files.body[300_000:300_010]
        assert p.files.asked == [None]
        assert p.files.sent == len(p.files.body), "a 304, and no slice"


async def test_a_purge_between_slices(tmp_path: Path) -> None:
    """Whoever began before it gets one version whole; whoever comes after it gets the new one."""
    async with place(tmp_path, 4 << 20) as p:
        await p.get("0-9")
        await p.settled()
        old, held, released = p.files.body, asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            held.set()
            await released.wait()

        p.files.gate = lambda at: wait() if at == 2 << 20 and not released.is_set() else None
        before = asyncio.ensure_future(p.get())
        await held.wait()
        await p.purge(urls=(f"http://{HOST}/v",))
        p.files.body = content(4 << 20, "b")
        p.files.fields["ETag"] = '"2"'
        after = await p.get("0-99999")
        assert after.body == p.files.body[:100_000]
        released.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await before
        assert (await p.get()).body == p.files.body
        assert old != p.files.body


# --- failures of the origin ---


async def test_a_transfer_cut_in_the_middle_goes_on(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.files.cut_after = [300_000, 100_000]
        got = await p.get()
        assert got.body == p.files.body
        assert p.files.asked[0] is None
        assert [str(each).partition("=")[0] for each in p.files.asked[1:]] == ["bytes", "bytes"]
        await p.settled()
        assert (await p.get()).body == p.files.body
        assert len(p.files.asked) == 3


async def test_a_slice_cut_in_the_middle_goes_on(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get("0-9")
        await p.settled()
        p.files.cut_after = [20_000]
        assert (await p.get("200000-260000")).body == p.files.body[200_000:260_001]


@pytest.mark.parametrize("ranges", [True, False], ids=["another version", "no ranges, another version"])
async def test_a_cut_transfer_is_never_continued_with_another_version(tmp_path: Path, ranges: bool) -> None:
    async with place(tmp_path) as p:
        files = p.files

        async def change() -> None:
            files.body = content(1024 * KIB, "b")
            files.fields["ETag"] = '"2"'
            files.gate = lambda _: None
            files.takes_ranges = ranges

        files.cut_after = [300_000]
        files.gate = lambda at: change() if at >= 294_912 else None
        with pytest.raises(aiohttp.ClientPayloadError):
            await p.get()
        files.gate = lambda _: None
        assert (await p.get()).body == files.body


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', None], ids=["strong", "weak", "none"])
async def test_what_no_validator_names_is_stored_whole(tmp_path: Path, etag: str | None, chunked: bool) -> None:
    async with place(tmp_path, 1_000_001) as p:
        p.files.fields = {"Cache-Control": "max-age=1000", **({"ETag": etag} if etag else {})}
        p.files.chunked = chunked
        assert (await p.get()).body == p.files.body
        await until(lambda: not p.w.edge.pipeline.collapse.fills)
        await p.settled()
        for _ in range(2):
            got = await p.get()
            assert got.body == p.files.body
            assert "edgecache; hit" in got.cache_status
            assert got.headers["content-length"] == "1000001"
        assert (await p.get("999990-")).body == p.files.body[999_990:]
        assert len(p.files.asked) == 1
        assert await p.records() == 17
    async with place(tmp_path) as p:
        assert len((await p.get("5-14")).body) == 10
        assert not p.files.asked, "and it outlives a restart"


async def test_a_crowd_for_what_no_validator_names_is_stored_once(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.files.fields = {"Cache-Control": "max-age=1000"}
        found = await asyncio.gather(*(p.get() for _ in range(5)))
        assert all(got.body == p.files.body for got in found)
        await until(lambda: not p.w.edge.pipeline.collapse.fills)
        await p.settled()
        assert await p.records() == 17
        assert not p.slicer.tees


async def test_a_slice_that_nothing_names_and_is_lost_loses_the_whole(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.files.fields = {"Cache-Control": "max-age=1000"}
        await p.get()
        await until(lambda: not p.w.edge.pipeline.collapse.fills)
        await p.settled()
        key = slices.slice_key((await p.manifest()), 9)
        p.store.disk.remove(key)
        await p.store.disk.flush()
        p.files.body = content(1024 * KIB, "b")
        assert (await p.get()).body == p.files.body, "never half of each"
        assert (await p.get("0-99")).body == p.files.body[:100]


async def test_without_a_validator_a_cut_is_a_cut(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.files.fields = {"Cache-Control": "max-age=1000"}
        p.files.cut_after = [300_000]
        with pytest.raises(aiohttp.ClientPayloadError):
            await p.get()
        await until(lambda: not p.w.edge.pipeline.collapse.fills)
        await p.settled()
        assert await p.records() == 0
        assert (await p.get()).body == p.files.body
        assert len(p.files.asked) == 2, "nothing partial was stored as whole"


async def test_an_origin_that_stays_away_cuts_the_transfer(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.files.cut_after = [300_000]
        p.files.gate = lambda at: p.files.fail.extend([503] * 9) if at >= 262_144 else None
        with pytest.raises(aiohttp.ClientPayloadError):
            await p.get()
        p.files.fail.clear()
        p.files.gate = lambda _: None
        await p.settled()
        sent = p.files.sent
        assert (await p.get()).body == p.files.body
        await p.settled()
        assert p.files.sent - sent <= len(p.files.body) - 4 * SLICE, "what was whole by then is of use"


async def test_an_origin_that_takes_no_ranges(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        p.files.takes_ranges = False
        assert (await p.get("500000-500009")).body == p.files.body[500_000:500_010]
        await p.settled()
        assert (await p.get("900000-900009")).body == p.files.body[900_000:900_010]
        assert (await p.get()).body == p.files.body
        p.files.cut_after = [100_000]
        await p.purge(everything=True)
        assert (await p.get()).body == p.files.body, "asked for the whole again, and what was sent is passed over"


@pytest.mark.parametrize("status", [404, 410, 416])
async def test_what_is_gone_is_asked_for_anew(tmp_path: Path, status: int) -> None:
    async with place(tmp_path) as p:
        await p.get("0-9")
        await p.settled()
        p.files.fail = [status, 404]
        assert (await p.get("500000-500009")).status == 404
        assert (await p.get("0-9")).status in {206, 404}


async def test_an_error_of_the_origin_says_nothing_of_what_is_stored(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get("0-9")
        await p.settled()
        p.files.fail = [503, 503, 503, 503]
        assert (await p.get("500000-500009")).status == 503
        assert (await p.get("500000-500009")).body == p.files.body[500_000:500_010]
        p.files.fail = [403]
        assert (await p.get("900000-900009")).status == 403
        assert "hit" in (await p.get("0-9")).cache_status


# --- what the operator sees ---


async def test_it_is_explained_as_one_object(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get("0-99999")
        await p.settled()
        entry = (await p.w.edge.explain("GET", f"http://{HOST}/v", Headers([]))).stored[0]
        assert (entry.status, entry.body_bytes) == (200, len(p.files.body))
        assert entry.tier == "slices, 2 of 16 on disk"
        assert "sliced" in entry.flags


# --- the disk ---


async def test_slices_that_are_lost_are_fetched_again(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get()
        await p.settled()
        for number, name in enumerate(body_files(tmp_path)):
            file = tmp_path / name
            if number % 3 == 0:
                file.unlink()
            elif number % 3 == 1:
                file.write_bytes(b"x" * file.stat().st_size)
        p.slicer.disk._volume._seen._marks.clear()
        assert (await p.get()).body == p.files.body
        await p.settled()
        assert (await p.get()).body == p.files.body


async def test_a_disk_that_fails_in_the_middle_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place(tmp_path) as p:

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        await p.get("0-9")
        await p.settled()
        with monkeypatch.context() as patch:
            patch.setattr("edgecache.store.spool.write_all", fail)
            assert (await p.get()).body == p.files.body
            assert not p.store.disk.on
            assert (await p.get("300000-300099")).body == p.files.body[300_000:300_100]


async def test_off_means_off(tmp_path: Path) -> None:
    async with place(tmp_path, cut="off") as p:
        assert (await p.get()).body == p.files.body
        assert (await p.get("0-9")).body == p.files.body[:10]
        await p.settled()
        assert await p.records() == 0
