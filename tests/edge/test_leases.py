"""One fetch among workers: two pipelines over one arena, each as a worker of its own would see it."""

import asyncio

from aiohttp import web

from edgecache._native.arena import Arena
from edgecache._native.inflight import Leases
from edgecache.edge import leases as leases_module
from edgecache.edge.leases import FillLeases, make_bells, ring
from edgecache.edge.lookup import Found
from edgecache.http.clock import wall_clock
from tests.edge.world import until, world

KEY = bytes(16)


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


async def test_an_uncacheable_answer_ends_the_lease_with_the_head():
    async with world() as w:
        arena = w.edge.pipeline.shelf.store.arena
        arena.attach(0)
        table = Leases(arena)
        mine = FillLeases(table, make_bells(1), 0, wall_clock)
        w.edge.pipeline.collapse._leases = mine
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
            return Found(primary, primary, []) if len(looks) == 1 else find(site, cache_key, primary, *args, **more)

        monkeypatch.setattr(shelf, "find", late)
        got = await w.get("/a", Cache_Control="max-age=50")
        assert got.body == b"body"
        assert "; hit" in got.cache_status
        assert len(looks) == 2
        assert len(w.asked) == 1
        assert len(Leases(shelf.store.arena)) == 0
