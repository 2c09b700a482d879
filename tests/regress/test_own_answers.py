"""Answers the edge makes itself: readable in the charset they name, alike whoever makes them, and 502 for nonsense."""

import pytest
from aiohttp import web

from tests.edge.world import world
from tests.wirekit import RawClient

MADE_HERE = {
    "by-the-listener": (b"GET / HTTP/1.1\r\n\r\n", 400, "400 Bad Request: no Host in HTTP/1.1 (RFC 9112 §3.2)\n"),
    "by-the-pipeline": (
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
        "400 Bad Request: malformed chunk size or extension (RFC 9112 §7.1)\n",
    ),
    "by-the-pipeline-too-large": (
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n",
        413,
        "413 Content Too Large: ",
    ),
}


async def reads_all(request: web.Request) -> web.Response:
    await request.read()
    return web.Response()


@pytest.mark.parametrize(("wire", "status", "text"), MADE_HERE.values(), ids=MADE_HERE)
async def test_the_text_is_one_line_of_utf_8(wire, status, text):
    async with (
        world(limits={"request_body": "10"}) as w,
        await RawClient.connect(w.edge.listeners[0].port) as client,
    ):
        w.answer = reads_all
        await client.send(wire)
        got = await client.answer()
    assert (got.status, got.get("content-type")) == (status, "text/plain; charset=utf-8")
    assert got.body.decode().startswith(text)
    assert got.body.count(b"\n") == 1


async def test_a_304_that_nobody_asked_for_is_the_origins_mistake():
    """It used to be passed on to a client that has nothing stored it could stand for."""
    async with world() as w:
        w.answers(b"", status=304, Cache_Control="max-age=60")
        got = await w.get("/a")
        assert got.status == 502
        assert "detail=bad-304" in got.cache_status
