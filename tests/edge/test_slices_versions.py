"""Versions and purges of large objects in slices: what is sent is of one version, and of none that was purged."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from edgecache.purge.message import PurgeKind
from tests.edge.slicekit import HOST, KIB, content, expected, place

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
