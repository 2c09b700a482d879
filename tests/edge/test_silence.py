"""An edge that has not heard of its coordinator for too long: nothing stored is used as if no purge could have come."""

import asyncio
import time

import pytest

from edgecache.http.headers import Headers
from edgecache.purge.message import PurgeOrder
from tests.edge.world import World, until, world

FRESH = {"Cache-Control": "max-age=60, stale-if-error=60, stale-while-revalidate=60", "ETag": '"1"'}


def fall_silent(w: World) -> None:
    w.edge._shared.arena.trust(0.0)


def hear(w: World) -> None:
    w.edge._shared.arena.trust(time.monotonic() + 60)


async def test_what_is_stored_is_confirmed_before_each_use() -> None:
    async with world() as w:
        w.answers("one", **FRESH)
        await w.get()
        assert "hit" in (await w.get()).cache_status
        fall_silent(w)
        w.answers("", status=304, **FRESH)
        for asked in (2, 3):
            got = await w.get()
            assert (got.body, len(w.asked)) == (b"one", asked)
            assert "fwd=stale; fwd-status=304" in got.cache_status
            assert "detail=coordinator-silent" in got.cache_status
        w.answers("two", **FRESH)
        assert (await w.get()).body == b"two"
        hear(w)
        before = len(w.asked)
        got = await w.get()
        assert (got.body, len(w.asked)) == (b"two", before)
        assert "hit" in got.cache_status


async def test_a_silent_edge_uses_nothing_stale_when_the_origin_fails() -> None:
    async with world() as w:
        w.answers("one", **FRESH)
        await w.get()
        fall_silent(w)
        w.answers("broken", status=503)
        assert (await w.get()).status == 503
        assert (await w.get(Cache_Control="only-if-cached")).status == 504
        assert (await w.get(Cache_Control="max-stale")).status == 503


async def test_silence_that_begins_while_the_origin_is_asked() -> None:
    """What might have been used stale when the request went out may not be when the origin's error comes back."""
    async with world(cache={"retry_after_failure": 0}) as w:
        w.answers("one", **{**FRESH, "Cache-Control": "max-age=0, stale-if-error=60"})
        await w.get()
        w.answers("broken", status=503)
        assert (await w.get()).body == b"one"
        answer = w.answer

        async def late(request):
            fall_silent(w)
            return await answer(request)

        w.answer = late
        assert (await w.get()).status in (502, 503)


@pytest.mark.parametrize("hot", [False, True], ids=["ordinary path", "fast lane"])
async def test_the_deadline_passes_by_itself(hot: bool) -> None:
    async with world() as w:
        w.answers("one", **FRESH)
        await w.get()
        fields = {} if hot else {"Range": "bytes=0-0"}
        w.edge._shared.arena.trust(time.monotonic() + 0.2)
        assert "hit" in (await w.get(**fields)).cache_status
        assert len(w.asked) == 1
        await until(w.edge._shared.arena.silent)
        await w.get(**fields)
        assert len(w.asked) == 2


async def test_many_who_ask_at_once_share_one_confirmation() -> None:
    async with world() as w:
        w.answers("one", **FRESH)
        await w.get()
        fall_silent(w)
        go_on = asyncio.Event()
        w.answers("", status=304, **FRESH)
        answer = w.answer

        async def later(request):
            await go_on.wait()
            return await answer(request)

        w.answer = later
        asking = [asyncio.ensure_future(w.get()) for _ in range(5)]
        await until(lambda: len(w.asked) == 2)
        go_on.set()
        assert {got.body for got in await asyncio.gather(*asking)} == {b"one"}
        assert len(w.asked) < 6


async def test_serve_goes_on() -> None:
    async with world(purge={"coordinator": "http://127.0.0.1:9", "when_silent": "serve"}) as w:
        w.answers("one", **FRESH)
        await w.get()
        assert "hit" in (await w.get()).cache_status


async def test_pass_stores_nothing_and_uses_nothing() -> None:
    async with world(purge={"when_silent": "pass"}) as w:
        w.answers("one", **FRESH)
        await w.get("/old")
        fall_silent(w)
        for _ in range(2):
            for path in ("/old", "/new"):
                got = await w.get(path)
                assert got.body == b"one"
                assert got.cache_status == "edgecache; fwd=bypass; fwd-status=200; detail=coordinator-silent"
        assert len(w.asked) == 5
        assert (await w.get("/old", Cache_Control="only-if-cached")).status == 504
        hear(w)
        assert "hit" in (await w.get("/old")).cache_status
        assert "hit" not in (await w.get("/new")).cache_status


@pytest.mark.parametrize(
    ("policy", "verdict", "fwd"), [("revalidate", "revalidate", "stale"), ("pass", "pass", "bypass")]
)
async def test_explain_says_so(policy: str, verdict: str, fwd: str) -> None:
    async with world(purge={"when_silent": policy}) as w:
        w.answers("one", **FRESH)
        await w.get()
        fall_silent(w)
        found = await w.edge.explain("GET", w.url + "/", Headers())
        assert (found.verdict, found.reason) == (verdict, "coordinator-silent")
        assert f"fwd={fwd}; detail=coordinator-silent" in found.cache_status
        assert any("coordinator" in note for note in found.notes)


async def test_what_a_purge_covers_that_came_meanwhile_is_gone() -> None:
    async with world() as w:
        w.answers("one", **FRESH, Surrogate_Key="a")
        await w.get()
        fall_silent(w)
        await w.edge.purge(PurgeOrder(keys=("a",)), wait=True)
        hear(w)
        w.answers("two", **FRESH, Surrogate_Key="a")
        assert (await w.get()).body == b"two"
