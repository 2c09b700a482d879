"""While an origin failed, each request for something stale asked it again: hundreds of attempts a second."""

import asyncio

import pytest

from tests.edge.world import World, until, world

STALE = {"Cache_Control": "max-age=0, stale-if-error=60"}


async def outage(w: World, requests: int = 20) -> list[str]:
    """Something stale, then an origin that fails, and what the clients got."""
    w.answers(b"kept", **STALE)
    await w.get("/a")
    w.answers(b"out of order", 503)
    w.asked.clear()
    got = [await w.get("/a") for _ in range(requests)]
    assert {(answer.status, answer.body) for answer in got} == {(200, b"kept")}
    return [answer.cache_status for answer in got]


async def test_one_attempt_in_the_time():
    async with world(cache={"retry_after_failure": "1h"}) as w:
        said = await outage(w)
        assert len(w.asked) == 1
        assert "fwd=stale; fwd-status=503" in said[0]
        assert all("; hit; ttl=-" in text and text.endswith("detail=stale-if-error") for text in said[1:])


async def test_another_attempt_after_it():
    async with world(cache={"retry_after_failure": "50ms"}) as w:
        await outage(w, 3)
        w.answers(b"new", **STALE)
        await asyncio.sleep(0.06)
        assert (await w.get("/a")).body == b"new"


async def test_zero_asks_each_time():
    async with world(cache={"retry_after_failure": "0s"}) as w:
        await outage(w, 5)
        assert len(w.asked) == 5


@pytest.mark.parametrize("field", ["no-cache", "max-age=0"])
async def test_a_client_that_wants_the_origin_asked_is_obeyed(field: str):
    async with world(cache={"retry_after_failure": "1h"}) as w:
        await outage(w, 2)
        w.answers(b"new", **STALE)
        assert (await w.get("/a", Cache_Control=field)).body == b"new"


async def test_renewing_behind_a_clients_back_waits_too():
    async with world(cache={"retry_after_failure": "1h"}) as w:
        w.answers(b"kept", Cache_Control="max-age=0, stale-while-revalidate=60, stale-if-error=60")
        await w.get("/a")
        w.answers(b"out of order", 503)
        w.asked.clear()
        assert (await w.get("/a")).body == b"kept"
        await until(lambda: len(w.asked) == 1 and not w.edge.pipeline.collapse.fills)
        for _ in range(5):
            assert (await w.get("/a")).body == b"kept"
            assert not w.edge.pipeline.collapse.fills
        assert len(w.asked) == 1


async def test_what_is_not_stored_is_asked_for_each_time():
    async with world(cache={"retry_after_failure": "1h"}) as w:
        w.answers(b"out of order", 503)
        assert [(await w.get("/a")).status for _ in range(3)] == [503, 503, 503]
        assert len(w.asked) == 3
