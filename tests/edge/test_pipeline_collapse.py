"""Many requests for one thing: one fetch, shared while it arrives, and never past a purge (DESIGN §7, §8)."""

import asyncio

import pytest
from aiohttp import web

from edgecache.purge.message import PurgeKind, PurgeOrder
from tests.edge.world import World, at_rest, until, world


def gated(w: World, body: bytes = b"body", *, before_head: bool = True, **headers: str) -> asyncio.Event:
    """The origin waits for the returned event: before the head, or between head and body."""
    gate = asyncio.Event()
    fields = {"Cache-Control": "max-age=60"} | {k.replace("_", "-"): v for k, v in headers.items()}

    async def answer(request: web.Request) -> web.StreamResponse:
        if before_head:
            await gate.wait()
            return web.Response(body=body, headers=fields)
        response = web.StreamResponse(headers=fields)
        await response.prepare(request)
        await response.write(body[:1])
        await gate.wait()
        await response.write(body[1:])
        await response.write_eof()
        return response

    w.answer = answer
    return gate


def readers(w: World) -> int:
    """Requests that the edge has under way."""
    return sum(listener.connections for listener in w.edge.listeners)


@pytest.mark.parametrize("before_head", [True, False], ids=["waiting-for-the-head", "while-the-body-arrives"])
async def test_one_fetch_for_many(before_head):
    async with world() as w:
        gate = gated(w, b"x" * 10_000, before_head=before_head)
        asking = [asyncio.ensure_future(w.get("/a")) for _ in range(200)]
        await until(lambda: readers(w) == 200 and len(w.asked) >= 1)
        gate.set()
        got = await asyncio.gather(*asking)
        assert {answer.body for answer in got} == {b"x" * 10_000}
        assert len(w.asked) == 1
        assert sum("collapsed" in answer.cache_status for answer in got) >= 100


VARYING = {
    "vary": ({}, {"Vary": "Accept-Language"}),
    "compressed-here": ({"compress": {"codings": ["br"]}}, {"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("name", VARYING)
async def test_one_fetch_for_those_who_come_while_a_varying_body_arrives(name):
    """By then a marker leads to the variant: the fetch under way is found by both keys."""
    cache, headers = VARYING[name]
    async with world(cache=cache) as w:
        gate = gated(w, b"x" * 10_000, before_head=False, **headers)
        asking = [asyncio.ensure_future(w.get("/a", Accept_Language="de", Accept_Encoding="br"))]
        await until(lambda: any(fill.outcome.done() for fill in w.edge.pipeline.collapse.fills.values()))
        asking += [
            asyncio.ensure_future(w.get("/a", Accept_Language="de", Accept_Encoding="br, gzip;q=0")) for _ in range(20)
        ]
        await until(lambda: readers(w) == 21)
        await at_rest(lambda: len(w.asked))
        gate.set()
        got = await asyncio.gather(*asking)
        assert len(w.asked) == 1
        assert sum("collapsed" in answer.cache_status for answer in got) == 20
        assert {answer.body for answer in got} == {b"x" * 10_000}
        await until(lambda: not w.edge.pipeline.collapse.fills)


async def test_another_variant_is_fetched_while_one_arrives():
    async with world() as w:
        gate = gated(w, b"one", before_head=False, Vary="X-Kind")
        first = asyncio.ensure_future(w.get("/a", X_Kind="1"))
        await until(lambda: any(fill.outcome.done() for fill in w.edge.pipeline.collapse.fills.values()))
        w.answers(b"two", Cache_Control="max-age=60", Vary="X-Kind")
        assert (await w.get("/a", X_Kind="2")).body == b"two"
        gate.set()
        assert (await first).body == b"one"
        assert [(await w.get("/a", X_Kind=kind)).body for kind in "12"] == [b"one", b"two"]
        assert len(w.asked) == 2


async def test_an_uncacheable_answer_releases_everybody():
    async with world() as w:
        gate = gated(w, Cache_Control="no-store")
        asking = [asyncio.ensure_future(w.get("/a")) for _ in range(50)]
        await until(lambda: readers(w) == 50)
        gate.set()
        got = await asyncio.gather(*asking)
        assert {answer.body for answer in got} == {b"body"}
        assert len(w.asked) == 50


async def test_a_failing_fetch_is_not_repeated_by_those_who_waited():
    async with world() as w:
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            await gate.wait()
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        w.answer = answer
        asking = [asyncio.ensure_future(w.get("/a")) for _ in range(20)]
        await until(lambda: readers(w) == 20)
        gate.set()
        got = await asyncio.gather(*asking)
        assert {answer.status for answer in got} == {502}
        assert len(w.asked) <= 2  # one fetch, and its one retry on a connection that may have been stale


async def test_clients_that_select_another_variant_are_not_given_this_one():
    async with world() as w:
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            await gate.wait()
            language = request.headers["Accept-Language"]
            return web.Response(text=language, headers={"Cache-Control": "max-age=60", "Vary": "Accept-Language"})

        w.answer = answer
        asking = [asyncio.ensure_future(w.get("/a", Accept_Language=code)) for code in ("de", "fr") * 10]
        await until(lambda: readers(w) == 20)
        gate.set()
        got = await asyncio.gather(*asking)
        assert [answer.body for answer in got] == [b"de", b"fr"] * 10
        assert len(w.asked) <= 3


ORDERS = {
    "url": lambda w: PurgeOrder(urls=(f"http://{w.authority}/a/b",)),
    "key": lambda w: PurgeOrder(keys=("article-1",)),
    "host": lambda w: PurgeOrder(hosts=(w.authority.split(":")[0],)),
    "prefix": lambda w: PurgeOrder(prefixes=(f"{w.authority}/a",)),
    "all": lambda w: PurgeOrder(everything=True),
    "site": lambda w: PurgeOrder(everything=True, site="default"),
}


@pytest.mark.parametrize("kind", [PurgeKind.HARD, PurgeKind.SOFT], ids=str)
@pytest.mark.parametrize("name", ORDERS)
async def test_a_purge_takes_effect_at_once(name, kind):
    async with world() as w:
        w.answers(b"old", Cache_Control="max-age=60", Surrogate_Key="article-1 other")
        await w.get("/a/b")
        assert "; hit" in (await w.get("/a/b")).cache_status
        order = ORDERS[name](w)
        await w.edge.purge(PurgeOrder(**{**_fields(order), "kind": kind}), wait=True)
        w.answers(b"new", Cache_Control="max-age=60", Surrogate_Key="article-1 other")
        assert (await w.get("/a/b")).body == b"new"


@pytest.mark.parametrize("kind", [PurgeKind.HARD, PurgeKind.SOFT], ids=str)
@pytest.mark.parametrize("before_head", [True, False], ids=["before-the-head", "within-the-body"])
@pytest.mark.parametrize("name", ORDERS)
async def test_a_fetch_in_flight_when_the_purge_comes_is_never_served_afterwards(name, before_head, kind):
    """The race other caches lose: fetched before the purge, stored after it."""
    async with world() as w:
        gate = gated(w, b"old", before_head=before_head, Surrogate_Key="article-1")
        early = asyncio.ensure_future(w.get("/a/b"))
        await until(lambda: len(w.asked) == 1)
        if not before_head:
            await until(lambda: any(fill.outcome.done() for fill in w.edge.pipeline.collapse.fills.values()))
        await w.edge.purge(PurgeOrder(**{**_fields(ORDERS[name](w)), "kind": kind}), wait=True)
        w.answers(b"new", Cache_Control="max-age=60", Surrogate_Key="article-1")
        late = await asyncio.wait_for(w.get("/a/b"), 10)
        assert late.body == b"new"
        gate.set()
        assert (await early).body in {b"old", b"new"}
        for _ in range(3):
            assert (await w.get("/a/b")).body == b"new"


async def test_those_whose_fetch_a_purge_overtakes_share_the_next():
    async with world() as w:
        old = gated(w, b"old", Surrogate_Key="k")
        asking = [asyncio.ensure_future(w.get("/a")) for _ in range(20)]
        await until(lambda: [fill.waiting for fill in w.edge.pipeline.collapse.fills.values()] == [20])
        await w.edge.purge(PurgeOrder(keys=("k",)), wait=True)
        new = gated(w, b"new", Surrogate_Key="k")
        old.set()
        await until(lambda: len(w.asked) > 1)
        new.set()
        assert {got.body for got in await asyncio.gather(*asking)} == {b"new"}
        assert len(w.asked) == 2


async def test_a_purge_of_something_else_disturbs_nobody():
    async with world() as w:
        gate = gated(w, b"body", before_head=False, Surrogate_Key="article-1")
        early = asyncio.ensure_future(w.get("/a"))
        await until(lambda: any(fill.outcome.done() for fill in w.edge.pipeline.collapse.fills.values()))
        await w.edge.purge(PurgeOrder(keys=("article-2",)), wait=True)
        late = asyncio.ensure_future(w.get("/a"))
        await until(lambda: readers(w) == 2)
        gate.set()
        assert {(await early).body, (await late).body} == {b"body"}
        assert len(w.asked) == 1


@pytest.mark.parametrize("kind", [PurgeKind.HARD, PurgeKind.SOFT], ids=str)
async def test_purges_of_other_things_do_not_multiply_fetches(kind):
    """Before its head is here nobody knows what a response is tagged with: two fetches, not one for each purge."""
    async with world() as w:
        gate = gated(w, Surrogate_Key="article-1")
        asking = [asyncio.ensure_future(w.get("/a"))]
        for number in range(8):
            await until(lambda: readers(w) == len(asking))
            await at_rest(lambda: len(w.asked))
            await w.edge.purge(PurgeOrder(keys=(f"other-{number}",), kind=kind), wait=True)
            asking.append(asyncio.ensure_future(w.get("/a")))
        await until(lambda: readers(w) == len(asking))
        await at_rest(lambda: len(w.asked))
        gate.set()
        assert {answer.body for answer in await asyncio.gather(*asking)} == {b"body"}
        assert len(w.asked) == 2
        await until(lambda: not w.edge.pipeline.collapse.fills)


@pytest.mark.parametrize("stored", [False, True], ids=["nothing-stored", "something-stale-stored"])
@pytest.mark.parametrize("kind", [PurgeKind.HARD, PurgeKind.SOFT], ids=str)
async def test_who_waits_for_a_later_head_is_not_given_what_was_purged(kind, stored):
    """Each answer is of the moment when it was asked for; the third request waits for the second fetch's head."""
    async with world() as w:
        version = [0]
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            mine = version[0]
            if mine:
                await gate.wait()
            headers = {"Cache-Control": "max-age=60" if mine else "max-age=0", "Surrogate-Key": "k", "ETag": '"same"'}
            if request.headers.get("If-None-Match"):
                return web.Response(status=304, headers=headers)
            return web.Response(text=str(mine), headers=headers)

        w.answer = answer
        if stored:
            await w.get("/a")
        before = len(w.asked)
        asking = []
        for number in (1, 2, 3):
            version[0] = number
            if number > 1:
                await w.edge.purge(PurgeOrder(keys=("k",), kind=kind), wait=True)
            asking.append(asyncio.ensure_future(w.get("/a")))
            await until(lambda: readers(w) == len(asking))
            await at_rest(lambda: len(w.asked))
        assert len(w.asked) == before + 2
        gate.set()
        await asyncio.gather(*asking)
        assert len(w.asked) == before + 3
        if not stored or kind is PurgeKind.HARD:
            assert int(asking[2].result().body) >= 3


async def test_a_soft_purged_response_may_be_used_where_stale_ones_may():
    async with world() as w:
        w.answers(b"old", Cache_Control="max-age=60, stale-if-error=600", Surrogate_Key="k")
        await w.get("/a")
        await w.edge.purge(PurgeOrder(keys=("k",), kind=PurgeKind.SOFT), wait=True)
        w.answers(b"broken", status=503)
        assert (await w.get("/a")).body == b"old"
        await w.edge.purge(PurgeOrder(keys=("k",), kind=PurgeKind.HARD), wait=True)
        assert (await w.get("/a")).status == 503


async def test_a_hard_purge_while_the_origin_fails_takes_the_stale_answer_away():
    async with world() as w:
        w.answers(b"old", Cache_Control="max-age=0, stale-if-error=600", Surrogate_Key="k")
        await w.get("/a")
        gate = asyncio.Event()

        async def answer(_: web.Request) -> web.StreamResponse:
            await gate.wait()
            return web.Response(status=500, text="broken")

        w.answer = answer
        asking = asyncio.ensure_future(w.get("/a"))
        await until(lambda: len(w.asked) == 2)
        await w.edge.purge(PurgeOrder(keys=("k",)), wait=True)
        gate.set()
        got = await asking
        assert got.body != b"old"
        assert got.status >= 500


def _fields(order: PurgeOrder) -> dict[str, object]:
    return {name: getattr(order, name) for name in PurgeOrder.__slots__}


async def test_a_body_that_outgrows_the_cache_at_once_reaches_everybody_whole():
    """More than the largest object is there before anybody had a turn to read: nobody may miss its beginning."""
    async with world(memory={"size": "16MiB", "max_object": "4KiB"}) as w:
        gate = asyncio.Event()
        body = bytes(range(256)) * 400

        async def answer(request: web.Request) -> web.StreamResponse:
            await gate.wait()
            response = web.StreamResponse(headers={"Cache-Control": "max-age=60"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(body)
            return response

        w.answer = answer
        asking = [asyncio.ensure_future(w.get("/a")) for _ in range(20)]
        await until(lambda: readers(w) == 20 and len(w.asked) == 1)
        gate.set()
        for got in await asyncio.gather(*asking):
            assert got.body == body
        assert len(w.asked) == 1
