"""One fetch among workers: two pipelines over one arena, each as a worker of its own would see it."""

import asyncio

import pytest
from aiohttp import web

from edgecache._native.arena import Arena
from edgecache._native.inflight import Leases
from edgecache.edge import leases as leases_module
from edgecache.edge.leases import WAIT, FillLeases, make_bells, ring
from edgecache.edge.lookup import Found
from edgecache.http.clock import wall_clock
from edgecache.http.headers import Headers
from edgecache.http.message import Request
from tests.edge.world import World, until, world

KEY = bytes(16)


def leased(w: World) -> tuple[Leases, FillLeases]:
    """The table of a node, and its one worker's part, which the edge uses from now on."""
    arena = w.edge.pipeline.shelf.store.arena
    arena.attach(0)
    table = Leases(arena)
    mine = FillLeases(table, make_bells(1), 0, wall_clock)
    w.edge.pipeline.collapse._leases = mine
    return table, mine


async def test_a_bell_wakes_whoever_waits_and_nobody_else():
    bells = make_bells(3)
    arena = Arena(16 << 20, max_object=64 << 10)
    workers = [FillLeases(Leases(arena), bells, slot, wall_clock) for slot in range(3)]
    for worker in workers:
        worker.start()
    waits = [asyncio.ensure_future(worker.wait(KEY)) for worker in workers]
    await asyncio.sleep(0)
    ring(bells, 0b110)
    await asyncio.wait_for(asyncio.gather(*waits[1:]), 5)
    assert not waits[0].done()
    ring(bells, 0b001)
    await asyncio.wait_for(waits[0], 5)
    for worker in workers:
        worker.stop()


async def test_only_those_wake_whose_lease_has_ended():
    bells = make_bells(2)
    arena = Arena(16 << 20, max_object=64 << 10)
    mine = FillLeases(Leases(arena), bells, 0, wall_clock)
    arena.attach(1)
    other = Leases(arena)
    keys = [bytes([i] * 16) for i in range(3)]
    tokens = [other.acquire(key, 0, 0, wall_clock(), 30.0) for key in keys]
    arena.attach(0)
    mine.start()
    assert [mine.acquire(key, fill_seq=0, sequence=0) for key in keys] == [0, 0, 0]
    waits = [asyncio.ensure_future(mine.wait(key)) for key in keys]
    await asyncio.sleep(0)
    for number in (1, 0, 2):
        arena.attach(1)
        waiters = other.release(keys[number], tokens[number])
        arena.attach(0)
        assert waiters == 0b1
        ring(bells, waiters)
        await asyncio.wait_for(waits[number], 5)
        assert [wait.done() for wait in waits].count(True) == (1, 0, 2).index(number) + 1
    assert len(other) == 0
    mine.stop()


async def test_the_bell_does_not_end_what_this_worker_has_begun_meanwhile():
    """Between the bell and its being heard, somebody else here has taken the lease that was waited for."""
    bells = make_bells(2)
    arena = Arena(16 << 20, max_object=64 << 10)
    mine = FillLeases(Leases(arena), bells, 0, wall_clock)
    arena.attach(1)
    other = Leases(arena)
    token = other.acquire(KEY, 0, 0, wall_clock(), 30.0)
    arena.attach(0)
    mine.start()
    assert mine.acquire(KEY, fill_seq=0, sequence=0) == WAIT
    waiting = asyncio.ensure_future(mine.wait(KEY))
    await asyncio.sleep(0)
    ring(bells, other.release(KEY, token))
    begun = mine.acquire(KEY, fill_seq=0, sequence=0)
    assert begun > 0
    await asyncio.wait_for(waiting, 5)
    arena.attach(1)
    assert other.acquire(KEY, 0, 0, wall_clock(), 30.0) == WAIT, "it is being fetched"
    arena.attach(0)
    mine.release(KEY, begun)
    assert len(other) == 0
    mine.stop()


async def test_another_workers_fetch_is_waited_for_and_found():
    """The other worker is played by its lease: it holds it, stores the object, and rings."""
    async with world() as w:
        arena = w.edge.pipeline.shelf.store.arena
        bells = make_bells(2)
        arena.attach(1)
        table = Leases(arena)
        mine = FillLeases(Leases(arena), bells, 0, wall_clock)
        mine.start()
        w.edge.pipeline.collapse._leases = mine
        w.answers(b"body", Cache_Control="max-age=60")
        primary = w.edge.pipeline.shelf.store.key(f"http://{w.authority}/a")
        token = table.acquire(primary, 0, 0, wall_clock(), 30.0)
        arena.attach(0)
        asking = [asyncio.ensure_future(w.get("/a")) for _ in range(5)]
        await until(lambda: sum(map(len, mine._waiting.values())) == 5)
        assert not w.asked
        # The holder ends without a result: one of ours leads, the others share its fetch.
        arena.attach(1)
        waiters = table.release(primary, token)
        arena.attach(0)
        ring(bells, waiters)
        got = await asyncio.gather(*asking)
        assert {answer.body for answer in got} == {b"body"}
        assert len(w.asked) == 1
        assert len(table) == 0
        mine.stop()


async def test_other_workers_wait_for_a_variant_too():
    """While a body that varies arrives, look-ups elsewhere are led to the variant: it is being fetched already."""
    async with world() as w:
        table, mine = leased(w)
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Cache-Control": "max-age=60", "Vary": "X-Kind"})
            await response.prepare(request)
            await gate.wait()
            return response

        w.answer = answer
        asking = asyncio.ensure_future(w.get("/a", X_Kind="1"))
        await until(lambda: len(table) == 2)
        url, shelf = f"http://{w.authority}/a", w.edge.pipeline.shelf
        site = w.edge.pipeline.sites.find(w.authority)
        assert site is not None
        asked = Request("GET", "http", w.authority, "/a", Headers([("X-Kind", "1")]))
        found = shelf.find(site, url, shelf.store.key(url), asked, wall_clock())
        assert found.fill_key != found.primary
        assert mine.held(found.fill_key)
        gate.set()
        assert (await asking).status == 200
        await until(lambda: not len(table))


async def test_an_uncacheable_answer_ends_the_lease_with_the_head():
    async with world() as w:
        table, _ = leased(w)
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Cache-Control": "no-store"})
            await response.prepare(request)
            await response.write(b"x")
            await gate.wait()
            return response

        w.answer = answer
        asking = asyncio.ensure_future(w.get("/a"))
        await until(lambda: len(w.asked) == 1 and len(table) == 0)
        gate.set()
        assert (await asking).body == b"x"


async def test_a_wait_ends_with_the_leases_time(monkeypatch):
    monkeypatch.setattr(leases_module, "LEASE_S", 0.01)
    arena = Arena(16 << 20, max_object=64 << 10)
    await asyncio.wait_for(FillLeases(Leases(arena), make_bells(1), 0, wall_clock).wait(KEY), 5)


async def test_what_another_worker_has_just_stored_is_not_fetched_again(monkeypatch):
    """It looked, then the other stored and ended its lease, then it took the lease itself."""
    async with world() as w:
        shelf = w.edge.pipeline.shelf
        w.edge.pipeline.collapse._leases = FillLeases(Leases(shelf.store.arena), make_bells(1), 0, wall_clock)
        w.answers(b"body", Cache_Control="max-age=60")
        # No fast lane: the request is one that takes judgement.
        await w.get("/a", Cache_Control="max-age=50")
        find, looks = shelf.find, []

        def late(site, cache_key, primary, *args, **more):
            looks.append(primary)
            return Found(primary, primary, [], []) if len(looks) == 1 else find(site, cache_key, primary, *args, **more)

        monkeypatch.setattr(shelf, "find", late)
        got = await w.get("/a", Cache_Control="max-age=50")
        assert got.body == b"body"
        assert "; hit" in got.cache_status
        assert len(looks) == 2
        assert len(w.asked) == 1
        assert len(Leases(shelf.store.arena)) == 0


FOUND_BEFORE = {"nothing": "/nothing", "a part that is stale": "/part", "what leads elsewhere": "/search?b=1&a=2"}


@pytest.mark.parametrize("path", FOUND_BEFORE.values(), ids=FOUND_BEFORE.keys())
async def test_what_was_stored_since_the_look_is_not_fetched_again(path: str, monkeypatch: pytest.MonkeyPatch):
    """Whatever the look had found, and wherever the other worker has put what it fetched."""
    async with world(cache={"no_vary_search": True}) as w:
        shelf = w.edge.pipeline.shelf
        w.edge.pipeline.collapse._leases = FillLeases(Leases(shelf.store.arena), make_bells(1), 0, wall_clock)
        body = bytes(range(100))

        async def answer(request: web.Request) -> web.StreamResponse:
            fields = {"ETag": '"1"', "Cache-Control": "max-age=60", "No-Vary-Search": "key-order"}
            if request.path != "/search":
                del fields["No-Vary-Search"]
            if "Range" in request.headers:
                fields |= {"Cache-Control": "max-age=0", "Content-Range": "bytes 0-9/100"}
                return web.Response(status=206, body=body[:10], headers=fields)
            return web.Response(body=body, headers=fields)

        w.answer = answer
        if path == "/part":
            assert (await w.get(path, Range="bytes=0-9")).status == 206
        find, before = shelf.find, []

        def late(*args, **more):
            """What this worker saw before the other's answer was stored."""
            if again and before:
                return before.pop(0)
            found = find(*args, **more)
            if not again:
                before.append(found)
            return found

        again = False
        monkeypatch.setattr(shelf, "find", late)
        await w.get(path, Cache_Control="no-transform")  # the other worker's fetch
        await until(lambda: not w.edge.pipeline.collapse.fills)
        asked = len(w.asked)
        del before[1:]
        assert bool(before[0].candidates) is (path == "/part")
        again = True
        got = await w.get(path, Cache_Control="no-transform")  # takes judgement: not for the fast lane
        assert (got.status, got.body) == (200, body)
        assert "; hit" in got.cache_status
        assert len(w.asked) == asked
        assert len(Leases(shelf.store.arena)) == 0
