"""Large objects in slices, behind a real edge: what is fetched, what is sent, what never mixes."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgecache._native.inflight import Leases
from edgecache.edge.leases import FillLeases, make_bells, ring
from edgecache.http.clock import wall_clock
from edgecache.http.headers import Headers
from edgecache.http.tasks import spawn
from edgecache.policy.slices import slice_key
from edgecache.store.diskentry import DiskEntry
from edgecache.store.memory import Record
from tests.edge.slicekit import HOST, KIB, RANGES, SLICE, Place, expected, place
from tests.edge.world import at_rest, until

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


async def test_what_was_stored_while_it_was_looked_for_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(tmp_path) as p:
        await p.get("0-9")
        await p.settled()
        key = slice_key(await p.manifest(), 8)
        find, looked, stored = p.store.disk.get_fixed, asyncio.Event(), asyncio.Event()

        async def slowly(wanted: bytes) -> DiskEntry | None:
            found = await find(wanted)
            if wanted == key and not looked.is_set():
                looked.set()
                await stored.wait()
            return found

        monkeypatch.setattr(p.store.disk, "get_fixed", slowly)
        spec, wanted = f"{8 * SLICE}-{8 * SLICE + 9}", p.files.body[8 * SLICE : 8 * SLICE + 10]
        first = spawn(p.get(spec), "first")
        await looked.wait()
        assert (await p.get(spec)).body == wanted
        await p.settled()
        asked = len(p.files.asked)
        stored.set()
        assert (await first).body == wanted
        assert len(p.files.asked) == asked


async def store_slice(p: Place, index: int) -> None:
    """As another worker does."""
    spool = await p.store.disk.spool(slice_key(await p.manifest(), index), SLICE)
    assert spool is not None
    assert await spool.write(p.files.body[index * SLICE : (index + 1) * SLICE])
    now = wall_clock()
    assert await spool.commit(Record(b"", b"", now, now + 1000, 0.0, 0, 0, p.store.sequence(), ()), now)


BESIDE = {"the first octet": f"{8 * SLICE}-{8 * SLICE + 9}", "behind another": f"{8 * SLICE - 20}-{8 * SLICE + 9}"}


@pytest.mark.parametrize("spec", BESIDE.values(), ids=BESIDE.keys())
async def test_what_another_worker_stored_while_it_was_looked_for_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    """Nothing in this worker knows of it: only a look once the lease is ours finds it."""
    async with place(tmp_path) as p:
        p.slicer.leases = FillLeases(Leases(p.store.arena), make_bells(1), 0, wall_clock)
        await p.get(f"{7 * SLICE}-{7 * SLICE + 9}")
        await p.settled()
        key, disk = slice_key(await p.manifest(), 8), p.store.disk
        find, looked, stored = disk.get_fixed, asyncio.Event(), asyncio.Event()

        async def slowly(wanted: bytes) -> DiskEntry | None:
            found = await find(wanted)
            if wanted == key and not looked.is_set():
                looked.set()
                await stored.wait()
            return found

        monkeypatch.setattr(disk, "get_fixed", slowly)
        client = spawn(p.get(spec), "client")
        await looked.wait()
        await store_slice(p, 8)
        asked = len(p.files.asked)
        stored.set()
        got = await client
        assert (got.status, got.body) == (206, expected(spec, p.files.body))
        assert len(p.files.asked) == asked
        if spec == BESIDE["the first octet"]:
            assert "edgecache; hit" in got.cache_status
        await p.settled()
        assert len(Leases(p.store.arena)) == 0


async def test_what_is_said_to_be_stored_and_cannot_be_read_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is to fetch a slice finds it in the index, who is to read it finds nothing: that comes to an end."""
    async with place(tmp_path) as p:
        await p.get("0-9")
        await p.settled()

        async def everything(keys: Sequence[bytes]) -> set[bytes]:
            return set(keys)

        monkeypatch.setattr(p.store.disk, "present", everything)
        async with asyncio.timeout(10):
            assert (await p.get("70000-140000")).body == p.files.body[70_000:140_001]


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


@pytest.mark.parametrize("what", ["other", "this"])
async def test_a_purge_of_something_else_ends_no_wait_for_another_worker(tmp_path: Path, what: str) -> None:
    """It fetches a slice since before the purge: that is of use, unless the purge covers it."""
    async with place(tmp_path) as p:
        p.files.fields["Surrogate-Key"] = "this"
        bells, arena = make_bells(2), p.store.arena
        p.slicer.leases = mine = FillLeases(Leases(arena), bells, 0, wall_clock)
        mine.start()
        await p.get("0-9")
        await p.settled()
        key = slice_key(await p.manifest(), 8)
        arena.attach(1)
        other = Leases(arena)
        token = other.acquire(key, p.store.sequence(), 0, wall_clock(), 30.0)
        arena.attach(0)
        await p.purge(keys=(what,))
        asked = len(p.files.asked)
        client = spawn(p.get(f"{8 * SLICE}-{8 * SLICE + 9}"), "client")
        await until(lambda: len(p.files.asked) > asked or key in mine._waiting)
        assert (key in mine._waiting) is (what == "other")
        if what == "other":
            await store_slice(p, 8)
            arena.attach(1)
            waiters = other.release(key, token)
            arena.attach(0)
            ring(bells, waiters)
        got = await client
        assert got.body == p.files.body[8 * SLICE : 8 * SLICE + 10]
        assert len(p.files.asked) - asked == (what == "this")
        mine.stop()


async def test_who_passes_over_a_slice_leaves_its_lease_alone(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        table = Leases(p.store.arena)
        p.slicer.leases = leases = FillLeases(table, make_bells(1), 0, wall_clock)
        whole, single = asyncio.Event(), asyncio.Event()
        gates = {2 * SLICE: whole, 8 * SLICE + 16 * KIB: single}
        p.files.gate = lambda at: gates.pop(at).wait() if at in gates else None
        first = spawn(p.get(), "whole")
        await until(lambda: 2 * SLICE not in gates)
        second = spawn(p.get(f"{8 * SLICE}-{8 * SLICE + 9}"), "single")
        await until(lambda: not gates)
        [feeds] = p.slicer._feeds.values()
        feed, key = feeds[0], slice_key(feeds[0].sliced, 8)
        whole.set()
        await until(lambda: feed.index > 10)
        assert leases.held(key), "it is still being fetched"
        single.set()
        assert (await first).body == p.files.body
        assert (await second).body == expected(f"{8 * SLICE}-{8 * SLICE + 9}", p.files.body)
        await p.settled()
        assert len(table) == 0


# --- what the operator sees ---


async def test_it_is_explained_as_one_object(tmp_path: Path) -> None:
    async with place(tmp_path) as p:
        await p.get("0-99999")
        await p.settled()
        entry = (await p.w.edge.explain("GET", f"http://{HOST}/v", Headers([]))).stored[0]
        assert (entry.status, entry.body_bytes) == (200, len(p.files.body))
        assert entry.tier == "slices, 2 of 16 on disk"
        assert "sliced" in entry.flags
