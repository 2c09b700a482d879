"""What the one who asked gets of an answer that is being stored, and answers of unsafe methods that are stored."""

import asyncio

from aiohttp import web

from tests.edge.world import world


async def test_fields_that_are_not_stored_reach_whoever_asked():
    async with world() as w:
        control = 'max-age=60, private="set-cookie", no-cache="x-once"'
        w.answers(b"hello", Cache_Control=control, Set_Cookie="a=b", X_Once="1", Age="5")
        first, second = await w.get("/a"), await w.get("/a")
        assert (first.headers.get("set-cookie"), first.headers.get("x-once"), first.headers["age"]) == ("a=b", "1", "5")
        assert (second.headers.get("set-cookie"), second.headers.get("x-once"), second.headers["age"]) == (
            None,
            None,
            "5",
        )
        assert len(w.asked) == 1


async def test_a_part_is_passed_on_as_it_came():
    async with world() as w:
        w.answers(b"01234", 206, Cache_Control="max-age=60", Content_Range="bytes 4-9/10")
        first, second = await w.get("/a", Range="bytes=-5"), await w.get("/a", Range="bytes=-5")
        for got in (first, second):
            assert (got.status, got.body, got.headers["content-range"]) == (206, b"01234", "bytes 4-9/10")
        assert len(w.asked) == 1


async def test_an_answer_to_post_is_stored_whatever_else_is_purged_meanwhile():
    async with world() as w:
        waiting, go_on = asyncio.Event(), asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.method == "POST" and request.path == "/a":
                waiting.set()
                await go_on.wait()
            return web.Response(
                text=request.method, headers={"Cache-Control": "max-age=60", "Content-Location": request.path}
            )

        w.answer = answer
        for purged, body in [("/other", b"POST"), ("/a", b"GET")]:
            waiting.clear()
            go_on.clear()
            post = asyncio.ensure_future(w.get("/a", "POST"))
            await waiting.wait()
            await w.get(purged, "DELETE")
            go_on.set()
            await post
            assert (await w.get("/a")).body == body
            await w.get("/a", "DELETE")
