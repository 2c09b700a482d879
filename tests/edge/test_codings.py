"""Content codings made at fill time, through a real edge: who gets which form, and that all forms are one response."""

import asyncio
import gzip
import random

import brotli
import pytest
import zstandard
from aiohttp import web

from edgecache.http.headers import Headers
from edgecache.http.message import Request
from edgecache.http.tasks import spawn
from tests.edge.world import Got, World, until, world

PAGE = b"<p>Some text that says the same again and again.</p>\n" * 100
ON = {"compress": {"codings": ["br", "zstd", "gzip"]}}
DECODE = {
    "br": brotli.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompress(body),
    "gzip": gzip.decompress,
    "": bytes,
}
ALL = "gzip, deflate, br, zstd"


def page(w: World, body: bytes = PAGE, **headers: str) -> None:
    w.answers(body, **{"Cache_Control": "max-age=60", "Content_Type": "text/html", "ETag": '"v1"', **headers})


async def filled(w: World, path: str = "/a", made: int = 3, **headers: str) -> Got:
    """Ask for the first time, and wait for the forms."""
    codings = w.edge.pipeline.codings
    before = codings.made
    got = await w.get(path, **headers)
    await until(lambda: codings.made == before + made)
    return got


def shows(got: Got, body: bytes = PAGE) -> str:
    """The coding, once what was sent is right by itself."""
    name = got.headers.get("content-encoding", "")
    assert DECODE[name](got.body) == body
    assert got.headers["content-length"] == str(len(got.body))
    assert got.headers["vary"].lower() == "accept-encoding"
    assert got.headers["etag"] == ('W/"v1"' if name else '"v1"')
    return name


async def test_the_first_gets_identity_and_the_next_what_they_prefer():
    async with world(cache=ON) as w:
        page(w)
        first = await filled(w, Accept_Encoding=ALL)
        assert shows(first) == ""
        for accepted, coding in (
            (ALL, "br"),
            ("gzip", "gzip"),
            ("x-gzip", "gzip"),
            ("br;q=0.5, zstd", "zstd"),
            ("identity", ""),
            ("br;q=0", ""),
            ("deflate", ""),
            ("*", "br"),
        ):
            got = await w.get("/a", Accept_Encoding=accepted)
            assert shows(got) == coding, accepted
            assert "; hit" in got.cache_status
        head = await w.get("/a", "HEAD", Accept_Encoding="br")
        assert (head.headers["content-encoding"], head.body) == ("br", b"")
        assert head.headers["content-length"] == str(len((await w.get("/a", Accept_Encoding="br")).body))
        assert len(w.asked) == 1


async def test_the_fast_lane_serves_the_forms():
    async with world(cache=ON) as w:
        page(w)
        await filled(w, Accept_Encoding=ALL)
        lane = w.edge.listeners[0].lane
        assert lane is not None
        for accepted, coding in ((ALL, "br"), ("zstd", "zstd"), ("gzip", "gzip"), ("identity", "")):
            before = lane.served
            assert shows(await w.get("/a", Accept_Encoding=accepted)) == coding
            assert lane.served == before + 1, accepted
        before = lane.served
        same = await w.get("/a", Accept_Encoding="br", If_None_Match='W/"v1"')
        assert (same.status, same.headers["etag"], lane.served) == (304, 'W/"v1"', before + 1)


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        pytest.param({"Content_Type": "image/png"}, PAGE, id="type"),
        pytest.param({}, PAGE[:1000], id="small"),
        pytest.param({"Cache_Control": "max-age=60, no-transform"}, PAGE, id="no-transform"),
        pytest.param({"Content_Encoding": "gzip"}, gzip.compress(PAGE), id="encoded"),
        pytest.param({"Vary": "Accept-Encoding"}, PAGE, id="negotiated-by-the-origin"),
    ],
)
async def test_left_alone(fields, body):
    async with world(cache=ON) as w:
        page(w, body, **fields)
        first, second = await w.get("/a", Accept_Encoding=ALL), await w.get("/a", Accept_Encoding=ALL)
        assert "; hit" in second.cache_status
        for got in (first, second):
            assert got.body == body
            assert got.headers["etag"] == '"v1"'
            assert got.headers.get("vary") == fields.get("Vary")
            assert got.headers.get("content-encoding") == fields.get("Content_Encoding")
        assert not w.edge.pipeline.codings.made


async def test_off_unless_asked_for():
    async with world() as w:
        page(w)
        for _ in range(2):
            got = await w.get("/a", Accept_Encoding=ALL)
            assert (got.body, got.headers.get("vary")) == (PAGE, None)


async def test_a_form_that_saves_nothing_is_not_kept():
    """Text that is noise: identity stays, and the lane serves it to everybody."""
    noise = random.Random(4).randbytes(3000)
    async with world(cache=ON) as w:
        page(w, noise)
        await w.get("/a")
        await until(lambda: not w.edge.pipeline.codings.busy)
        lane = w.edge.listeners[0].lane
        before = lane.served
        assert shows(await w.get("/a", Accept_Encoding=ALL), noise) == ""
        assert lane.served == before + 1
        assert w.edge.pipeline.codings.made == 0


async def test_too_much_waiting_leaves_a_response_as_it_is():
    async with world(cache=ON) as w:
        w.edge.pipeline.codings.limit = len(PAGE) - 1
        page(w)
        await w.get("/a")
        assert w.edge.pipeline.codings.skipped == 1
        assert shows(await w.get("/a", Accept_Encoding=ALL)) == ""


async def test_ranges_of_a_form():
    """A range is of the form that is selected; a weak tag never makes If-Range hold."""
    async with world(cache=ON) as w:
        page(w)
        await filled(w)
        whole = (await w.get("/a", Accept_Encoding="br")).body
        part = await w.get("/a", Accept_Encoding="br", Range="bytes=2-9")
        assert (part.status, part.body) == (206, whole[2:10])
        assert part.headers["content-range"] == f"bytes 2-9/{len(whole)}"
        assert part.headers["content-encoding"] == "br"
        again = await w.get("/a", Accept_Encoding="br", Range="bytes=2-9", If_Range='W/"v1"')
        assert (again.status, again.body) == (200, whole)
        plain = await w.get("/a", Accept_Encoding="identity", Range="bytes=2-9", If_Range='"v1"')
        assert (plain.status, plain.body) == (206, PAGE[2:10])
        assert len(w.asked) == 1


async def test_conditions_hold_for_every_form():
    async with world(cache=ON) as w:
        page(w)
        await filled(w)
        for accepted in ("br", "gzip", "identity"):
            for tag in ('"v1"', 'W/"v1"'):
                got = await w.get("/a", Accept_Encoding=accepted, If_None_Match=tag)
                assert (got.status, got.headers["vary"]) == (304, "Accept-Encoding")
                assert got.headers["etag"] == ('"v1"' if accepted == "identity" else 'W/"v1"')
        assert len(w.asked) == 1


@pytest.mark.parametrize("purge", ["url", "key"])
async def test_a_purge_takes_every_form(purge):
    async with world(cache=ON) as w:
        page(w, Surrogate_Key="pages")
        await filled(w)
        what = {"urls": [f"{w.url}/a"]} if purge == "url" else {"keys": ["pages"]}
        async with w.client.post(
            f"http://{w.edge.admin.address}/v1/purge",
            json=what,
            headers={"Authorization": "Bearer test-token-of-some-length"},
        ) as answer:
            assert answer.status == 200
        page(w, PAGE + b"new", ETag='"v1"')
        assert shows(await w.get("/a", Accept_Encoding="br"), PAGE + b"new") == ""
        assert len(w.asked) == 2


def revalidating(w: World, body: bytes = PAGE) -> None:
    """Stale at once; 304 for what the origin itself gave out."""

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {
            "Cache-Control": w.control,
            "ETag": '"v1"',
            "Content-Type": "text/html",
            "X-Count": str(len(w.asked)),
        }
        if request.headers.get("If-None-Match") == '"v1"':
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)

    w.control = "max-age=0"
    w.answer = answer


async def test_a_304_freshens_every_form():
    async with world(cache=ON) as w:
        revalidating(w)
        await filled(w)
        w.control = "max-age=60"
        confirmed = await w.get("/a", Accept_Encoding="br")
        assert shows(confirmed) == "br"
        assert "fwd-status=304" in confirmed.cache_status
        for accepted, coding in (("br", "br"), ("zstd", "zstd"), ("gzip", "gzip"), ("identity", "")):
            got = await w.get("/a", Accept_Encoding=accepted)
            assert shows(got) == coding
            assert "; hit" in got.cache_status
            assert got.headers["x-count"] == "2"
        assert len(w.asked) == 2
        assert w.asked[1][2]["if-none-match"] == '"v1"'


async def test_a_304_that_forbids_transforming_ends_the_forms():
    async with world(cache=ON) as w:
        revalidating(w)
        await filled(w)
        w.control = "max-age=60, no-transform"
        assert shows(await w.get("/a", Accept_Encoding="br")) == ""
        assert shows(await w.get("/a", Accept_Encoding="gzip")) == ""
        assert len(w.asked) == 2


async def test_a_form_without_its_identity_is_asked_about_itself():
    """Evicted by itself, as any entry may be: the form goes on by its own weak tag."""
    async with world(cache=ON) as w:
        page(w, Cache_Control="max-age=0, stale-while-revalidate=0")
        await filled(w)
        forget_identity(w, "/a")

        async def answer(request: web.Request) -> web.StreamResponse:
            assert request.headers["If-None-Match"] == 'W/"v1"'
            return web.Response(status=304, headers={"Cache-Control": "max-age=60", "ETag": '"v1"'})

        w.answer = answer
        assert shows(await w.get("/a", Accept_Encoding="br")) == "br"
        hit = await w.get("/a", Accept_Encoding="gzip")
        assert shows(hit) == "gzip"
        assert "; hit" in hit.cache_status
        assert len(w.asked) == 2


def forget_identity(w: World, path: str) -> None:
    shelf, site = w.edge.pipeline.shelf, w.edge.pipeline.sites.all[0]
    key = f"{w.url}{path}"
    request = Request("GET", "http", w.authority, path, Headers())
    found = shelf.find(site, key, shelf.store.key(key), request, 0.0)
    assert shelf.store.remove(found.candidates[0].key)


async def test_a_new_response_takes_the_place_of_every_form():
    async with world(cache=ON) as w:
        revalidating(w)
        await filled(w)
        new = PAGE + b"new"

        async def answer(_: web.Request) -> web.StreamResponse:
            headers = {"Cache-Control": "max-age=60", "ETag": '"v1"', "Content-Type": "text/html"}
            return web.Response(body=new, headers=headers)

        w.answer = answer
        assert shows(await filled(w, Accept_Encoding="br"), new) == ""
        for accepted, coding in (("br", "br"), ("gzip", "gzip"), ("identity", "")):
            assert shows(await w.get("/a", Accept_Encoding=accepted), new) == coding
        assert len(w.asked) == 2


async def test_what_is_no_longer_stored_is_gone_in_every_form():
    async with world(cache=ON) as w:
        page(w, Cache_Control="max-age=0")
        await filled(w)
        w.answers(b"private now", Cache_Control="no-store")
        for _ in range(2):
            assert (await w.get("/a", Accept_Encoding="br")).body == b"private now"


async def test_stale_forms_stand_in_for_a_dead_origin():
    async with world(cache={**ON, "stale_if_error": "1h"}) as w:
        page(w, Cache_Control="max-age=0")
        await filled(w)
        w.answers(b"broken", status=503)
        got = await w.get("/a", Accept_Encoding="br")
        assert shows(got) == "br"
        assert "stale-if-error" in got.cache_status


async def test_stale_forms_are_revalidated_in_the_background():
    async with world(cache=ON) as w:
        revalidating(w)
        w.control = "max-age=0, stale-while-revalidate=60"
        await filled(w)
        w.control = "max-age=60"
        stale = await w.get("/a", Accept_Encoding="br")
        assert shows(stale) == "br"
        await until(lambda: len(w.asked) == 2 and not w.edge.pipeline.collapse.fills)
        assert w.asked[1][2]["if-none-match"] == '"v1"'
        assert "detail" not in (await w.get("/a", Accept_Encoding="gzip")).cache_status
        assert len(w.asked) == 2


async def test_other_fields_in_vary_go_on_selecting():
    async with world(cache=ON) as w:

        async def answer(request: web.Request) -> web.StreamResponse:
            headers = {"Cache-Control": "max-age=60", "Vary": "X-Who, Accept-Language", "Content-Type": "text/html"}
            if language := request.headers.get("Accept-Language"):
                headers["Content-Language"] = language[:2]
            return web.Response(body=PAGE + request.headers["X-Who"].encode(), headers=headers)

        w.answer = answer
        for who in ("ann", "bob"):
            await filled(w, X_Who=who, Accept_Language="de")
        lane = w.edge.listeners[0].lane
        for who in ("ann", "bob"):
            for language in ("de", "de, en;q=0.5"):
                for name in ("br", "gzip", ""):
                    got = await w.get("/a", X_Who=who, Accept_Language=language, Accept_Encoding=name or "identity")
                    assert got.headers.get("content-encoding", "") == name
                    assert DECODE[name](got.body) == PAGE + who.encode()
                    assert got.headers["vary"] == "X-Who, Accept-Language, Accept-Encoding"
        assert lane is not None
        assert len(w.asked) == 2


async def test_everybody_who_waits_gets_identity_from_one_fetch():
    async with world(cache=ON) as w:
        gate = asyncio.Event()

        async def answer(_: web.Request) -> web.StreamResponse:
            await gate.wait()
            return web.Response(body=PAGE, headers={"Cache-Control": "max-age=60", "Content-Type": "text/html"})

        w.answer = answer
        asks = [spawn(w.get("/a", Accept_Encoding=each), each) for each in ("br", "gzip", "identity", ALL)]
        await until(lambda: [fill.waiting for fill in w.edge.pipeline.collapse.fills.values()] == [len(asks)])
        gate.set()
        for got in await asyncio.gather(*asks):
            assert (got.body, got.headers["vary"]) == (PAGE, "Accept-Encoding")
        assert len(w.asked) == 1


async def test_a_body_of_unknown_length():
    async with world(cache=ON) as w:

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Cache-Control": "max-age=60", "Content-Type": "text/html"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            for at in range(0, len(PAGE), 1000):
                await response.write(PAGE[at : at + 1000])
            return response

        w.answer = answer
        assert (await filled(w)).body == PAGE
        got = await w.get("/a", Accept_Encoding="zstd")
        assert (got.headers["content-encoding"], DECODE["zstd"](got.body)) == ("zstd", PAGE)


async def test_replaced_while_it_is_compressed():
    """A purge and a new response come between: the forms of the old one are not kept."""
    async with world(cache=ON) as w:
        codings = w.edge.pipeline.codings
        await codings.turn.acquire()
        page(w)
        await w.get("/a")
        new = PAGE + b"new"
        w.edge.pipeline.shelf.store.arena.raise_floor(w.edge.pipeline.shelf.store.sequence() + 1, soft=False)
        page(w, new)
        await w.get("/a")
        codings.turn.release()
        await until(lambda: not codings.busy)
        assert codings.made == 3
        for accepted in ("br", "zstd", "gzip", "identity"):
            shows(await w.get("/a", Accept_Encoding=accepted), new)
        assert len(w.asked) == 2


async def test_explain_shows_the_form():
    async with world(cache=ON) as w:
        page(w)
        await filled(w)
        told = await w.edge.explain("GET", f"{w.url}/a", Headers([("Accept-Encoding", "br")]))
        assert Headers(told.stored[0].fields).get("content-encoding") == "br"
