"""What a client sees of the cache, through a real edge in front of a real origin."""

import asyncio

import pytest
from aiohttp import web

from tests.edge.world import until, world


async def test_miss_then_hit():
    async with world() as w:
        w.answers(b"hello", Cache_Control="max-age=60")
        first, second = await w.get("/a"), await w.get("/a")
        assert (first.status, first.body) == (200, b"hello")
        assert "fwd=uri-miss" in first.cache_status
        assert "stored" in first.cache_status
        assert (second.status, second.body) == (200, b"hello")
        assert "; hit" in second.cache_status
        assert second.headers["age"] == "0"
        assert len(w.asked) == 1


async def test_query_and_path_make_different_keys():
    async with world() as w:
        w.answers(b"x", Cache_Control="max-age=60")
        for path in ("/a", "/a?x=1", "/a?x=2", "/b", "/A"):
            await w.get(path)
            await w.get(path)
        assert [path for _, path, _ in w.asked] == ["/a", "/a?x=1", "/a?x=2", "/b", "/A"]


async def test_head_is_answered_from_a_stored_get():
    async with world() as w:
        w.answers(b"hello", Cache_Control="max-age=60")
        await w.get("/a")
        head = await w.get("/a", "HEAD")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "5")
        assert len(w.asked) == 1


async def test_conditional_request_answered_from_the_cache():
    async with world() as w:
        w.answers(b"hello", Cache_Control="max-age=60", ETag='"v1"')
        await w.get("/a")
        got = await w.get("/a", If_None_Match='"v1"')
        assert (got.status, got.body) == (304, b"")
        assert got.headers["etag"] == '"v1"'
        assert len(w.asked) == 1


async def test_variants_by_vary():
    async with world() as w:

        async def answer(request: web.Request) -> web.StreamResponse:
            language = request.headers.get("Accept-Language", "none")
            headers = {"Cache-Control": "max-age=60", "Vary": "Accept-Language"}
            return web.Response(text=language, headers=headers)

        w.answer = answer
        for _ in range(2):
            for language in ("de", "fr"):
                assert (await w.get("/a", Accept_Language=language)).body == language.encode()
        assert len(w.asked) == 2


async def test_revalidation_304_freshens_and_200_replaces():
    async with world() as w:

        async def answer(request: web.Request) -> web.StreamResponse:
            headers = {"Cache-Control": "max-age=0", "ETag": f'"{w.version}"'}  # type: ignore[attr-defined]
            if request.headers.get("If-None-Match") == headers["ETag"]:
                return web.Response(status=304, headers=headers)
            return web.Response(text=f"version {w.version}", headers=headers)  # type: ignore[attr-defined]

        w.version = 1  # type: ignore[attr-defined]
        w.answer = answer
        assert (await w.get("/a")).body == b"version 1"
        again = await w.get("/a")
        assert (again.status, again.body) == (200, b"version 1")
        assert "fwd=stale" in again.cache_status
        assert "fwd-status=304" in again.cache_status
        w.version = 2  # type: ignore[attr-defined]
        assert (await w.get("/a")).body == b"version 2"
        assert [headers.get("if-none-match") for _, _, headers in w.asked] == [None, '"1"', '"1"']


async def test_stale_while_revalidate_serves_at_once_and_asks_once():
    async with world() as w:
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            if len(w.asked) > 1:
                await gate.wait()
            return web.Response(
                text=f"body {len(w.asked)}", headers={"Cache-Control": "max-age=0, stale-while-revalidate=60"}
            )

        w.answer = answer
        assert (await w.get("/a")).body == b"body 1"
        stale = await asyncio.gather(*(w.get("/a") for _ in range(10)))
        assert {got.body for got in stale} == {b"body 1"}
        await until(lambda: len(w.asked) == 2)
        gate.set()
        await until(lambda: not w.edge.pipeline.collapse.fills)
        assert (await w.get("/a")).body == b"body 2"


@pytest.mark.parametrize("failure", ["refused", "500"])
async def test_stale_if_error(failure):
    async with world() as w:
        w.answers(b"old", Cache_Control="max-age=0, stale-if-error=60")
        await w.get("/a")
        if failure == "500":
            w.answers(b"broken", status=500)
        else:

            async def answer(request: web.Request) -> web.StreamResponse:
                assert request.transport is not None
                request.transport.close()
                return web.Response()

            w.answer = answer
        got = await w.get("/a")
        assert (got.status, got.body) == (200, b"old")


async def test_unsafe_methods_invalidate():
    async with world() as w:
        w.answers(b"one", Cache_Control="max-age=60")
        await w.get("/a")
        w.answers(b"done", Location="/b")
        await w.get("/b")
        await w.get("/a", "POST")
        w.answers(b"two", Cache_Control="max-age=60")
        assert (await w.get("/a")).body == b"two"


async def test_uncacheable_is_remembered_and_forgotten():
    async with world() as w:
        w.answers(b"1", Cache_Control="no-store")
        await w.get("/a")
        again = await w.get("/a")
        assert again.body == b"1"
        w.answers(b"2", Cache_Control="max-age=60")
        assert (await w.get("/a")).body == b"2"
        hit = await w.get("/a")
        assert "; hit" in hit.cache_status


async def test_unknown_host_is_misdirected():
    async with world(origin=None, sites=[{"hosts": ["www.example.com"], "origin": "http://127.0.0.1:9"}]) as w:
        got = await w.get("/a")
        assert got.status == 421
        assert "unknown-host" in got.cache_status


@pytest.mark.parametrize(
    ("settings", "status"),
    [({"origin": "http://127.0.0.1:9"}, 502)],
    ids=["refused"],
)
async def test_origin_failures(settings, status):
    async with world(**settings) as w:
        got = await w.get("/a")
        assert got.status == status
        assert "detail=" in got.cache_status


async def test_a_cut_fill_is_cut_for_the_client_and_not_stored():
    async with world() as w:

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Cache-Control": "max-age=60", "Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"x" * 50)
            assert request.transport is not None
            request.transport.abort()
            return response

        w.answer = answer
        with pytest.raises(Exception, match=r"payload|disconnected|reset|closed"):
            await w.get("/a")
        w.answers(b"whole", Cache_Control="max-age=60")
        assert (await w.get("/a")).body == b"whole"


async def test_interim_responses_pass():
    async with world() as w:
        w.answers(b"ok", Cache_Control="max-age=60")
        reader, writer = await asyncio.open_connection("127.0.0.1", w.edge.listeners[0].port)
        writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()


async def test_content_in_a_get_reaches_the_origin_and_is_never_shared():
    async with world() as w:

        async def answer(request: web.Request) -> web.StreamResponse:
            body = await request.text()
            return web.Response(text=f"you said {body}", headers={"Cache-Control": "max-age=60"})

        w.answer = answer
        for said in ("one", "two"):
            async with w.client.get(w.url + "/a", data=said) as response:
                assert await response.text() == f"you said {said}"
        assert (await w.get("/a")).body == b"you said "
