"""Large objects in slices where origins break off, change, or have no ranges, and where the disk fails."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from edgecache.policy import slices
from tests.edge.slicekit import KIB, SLICE, content, place
from tests.edge.world import until
from tests.store.kit import body_files

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
            await until(lambda: not p.store.disk.on)
            assert (await p.get("300000-300099")).body == p.files.body[300_000:300_100]


async def test_off_means_off(tmp_path: Path) -> None:
    async with place(tmp_path, cut="off") as p:
        assert (await p.get()).body == p.files.body
        assert (await p.get("0-9")).body == p.files.body[:10]
        await p.settled()
        assert await p.records() == 0
