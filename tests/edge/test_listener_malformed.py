"""What malformed requests get: one answer with the status, a closed connection, and nothing after them is served.

Each row is sent with a whole second request behind it, at once and cut to single octets; the handler must see nothing
of either (or, where the head was good and the body is not, nothing of the second).
"""

import asyncio
import contextlib

import pytest

from edgecache.edge.connection import ClientLimits
from edgecache.edge.exchange import Exchange
from edgecache.http.errors import HttpError, RequestError
from tests.wirekit import RawClient, answer, listening, plain

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"

MALFORMED_HEADS = [
    pytest.param(POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="both lengths"),
    pytest.param(POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, id="both, other way"),
    pytest.param(POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, id="differing lengths"),
    pytest.param(POST + b"Content-Length: 5, 6\r\n\r\nhello", 400, id="differing lengths in a list"),
    pytest.param(POST + b"Content-Length: +5\r\n\r\nhello", 400, id="length with a sign"),
    pytest.param(POST + b"Content-Length: 0x5\r\n\r\nhello", 400, id="length in hex"),
    pytest.param(POST + b"Content-Length: 5 5\r\n\r\nhello", 400, id="length with a space"),
    pytest.param(POST + b"Content-Length: \r\n\r\nhello", 400, id="empty length"),
    pytest.param(POST + b"Content-Length: 99999999999999999999\r\n\r\n", {400, 413}, id="length beyond 64 bits"),
    pytest.param(POST + b"Transfer-Encoding: gzip\r\n\r\n", {400, 501}, id="not chunked at the end"),
    pytest.param(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, id="unknown coding"),
    pytest.param(POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", {400, 501}, id="chunked twice"),
    pytest.param(POST + b"Transfer-Encoding: xchunked\r\n\r\n", {400, 501}, id="nearly chunked"),
    pytest.param(POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", {400, 501}, id="chunked after a CTL"),
    pytest.param(
        b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400, 501}, id="chunked in 1.0"
    ),
    pytest.param(b"GET / HTTP/1.1\nHost: h\n\n", 400, id="bare LF"),
    pytest.param(GET + b"Host: h\nX: y\r\n\r\n", 400, id="bare LF after a field"),
    pytest.param(GET + b"Host: h\r\nX: a\rb\r\n\r\n", 400, id="bare CR"),
    pytest.param(GET + b"Host: h\r\nX: a\r\n folded\r\n\r\n", 400, id="folded line"),
    pytest.param(GET + b" Host: h\r\n\r\n", 400, id="space before the first field"),
    pytest.param(GET + b"Host : h\r\n\r\n", 400, id="space before the colon"),
    pytest.param(GET + b"Host: h\r\nno colon\r\n\r\n", 400, id="no colon"),
    pytest.param(GET + b"Host: h\r\n: empty\r\n\r\n", 400, id="empty name"),
    pytest.param(GET + b"Host: h\r\nX@: y\r\n\r\n", 400, id="name with a separator"),
    pytest.param(GET + b"Host: h\r\nX: a\0b\r\n\r\n", 400, id="NUL in a value"),
    pytest.param(GET + b"Host: h\r\nX: a\x01b\r\n\r\n", 400, id="CTL in a value"),
    pytest.param(GET + b"Host: h\r\nX: a\x7fb\r\n\r\n", 400, id="DEL in a value"),
    pytest.param(GET + b"\r\n", 400, id="no Host"),
    pytest.param(GET + b"Host: a\r\nHost: b\r\n\r\n", 400, id="two Hosts"),
    pytest.param(GET + b"Host: a\r\nHost: a\r\n\r\n", 400, id="the same Host twice"),
    pytest.param(GET + b"Host: a b\r\n\r\n", 400, id="Host with a space"),
    pytest.param(GET + b"Host: a/b\r\n\r\n", 400, id="Host with a path"),
    pytest.param(GET + b"Host: u@h\r\n\r\n", 400, id="Host with userinfo"),
    pytest.param(GET + b"Host: a,b\r\n\r\n", {400, 200}, id="Host with a comma"),
    pytest.param(GET + b"Host: h:8x\r\n\r\n", 400, id="Host with a bad port"),
    pytest.param(b"GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", 400, id="absolute form without a host"),
    pytest.param(b"GET http://u:p@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400, id="absolute form with userinfo"),
    pytest.param(b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", {400, 421}, id="absolute form, other scheme"),
    pytest.param(b"GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 421, id="https over plain"),
    pytest.param(b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400, id="target without a slash"),
    pytest.param(b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400, id="asterisk but not OPTIONS"),
    pytest.param(b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400, id="space in the target"),
    pytest.param(b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", 400, id="tab in the target"),
    pytest.param(b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400, id="two spaces"),
    pytest.param(b"GET /\r\nHost: h\r\n\r\n", {400, 505}, id="HTTP/0.9"),
    pytest.param(b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400, id="method with a separator"),
    pytest.param(b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", {505, 200}, id="1.2"),
    pytest.param(b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, id="2.0"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="HTTP/2 preface"),
    pytest.param(b"GET / http/1.1\r\nHost: h\r\n\r\n", {400, 505}, id="version in lower case"),
    pytest.param(b"GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400, id="version of two digits"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="TLS on a plain port"),
    pytest.param(b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 501, id="CONNECT"),
    pytest.param(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414, id="long target"),
    pytest.param(GET + b"Host: h\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431, id="long field"),
    pytest.param(GET + b"Host: h\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431, id="many fields"),
    pytest.param(GET + b"Host: h\r\n" + (b"X: " + b"a" * 9000 + b"\r\n") * 8 + b"\r\n", 431, id="large head"),
    pytest.param(POST + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\nok", 417, id="unknown expectation"),
]

MALFORMED_BODIES = [
    pytest.param(b"zz\r\n", id="chunk size of letters"),
    pytest.param(b"-1\r\n", id="negative chunk size"),
    pytest.param(b"0x2\r\nok\r\n0\r\n\r\n", id="chunk size with 0x"),
    pytest.param(b"2 \r\nok\r\n0\r\n\r\n", id="space after the chunk size"),
    pytest.param(b"\r\n2\r\nok\r\n0\r\n\r\n", id="empty line before the chunk size"),
    pytest.param(b"2\nok\n0\n\n", id="bare LF after the chunk size"),
    pytest.param(b"2\r\nokX\r\n0\r\n\r\n", id="chunk longer than its size"),
    pytest.param(b"3\r\nok\r\n0\r\n\r\n", id="chunk shorter than its size"),
    pytest.param(b"fffffffffffffffff\r\n", id="chunk size beyond 64 bits"),
    pytest.param(b"2;" + b"x" * 5000 + b"\r\nok\r\n0\r\n\r\n", id="long chunk extension"),
    pytest.param(b"2;a\nb\r\nok\r\n0\r\n\r\n", id="LF in a chunk extension"),
    pytest.param(b"2\r\nok\r\n0\r\nX : y\r\n\r\n", id="malformed trailer"),
    pytest.param(b"2\r\nok\r\n0\r\n" + b"X: y\r\n" * 200 + b"\r\n", id="many trailers"),
]


async def statuses(wire: bytes, handler, cut: bool) -> list[int]:
    """Send, read to the end; the statuses of all answers, all but the last known to be followed by nothing."""
    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        if cut:
            client.writer.transport.set_write_buffer_limits(0)
            for octet in wire[:300]:
                await client.send(bytes([octet]))
            await client.send(wire[300:])
        else:
            await client.send(wire)
        got = []
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                got.append(await client.answer())
        assert client.reader.at_eof()
        for answer_ in got:
            if answer_.status >= 400:
                assert answer_.get("connection") == "close"
                assert answer_.get("content-type").startswith("text/plain")
                assert answer_.get("cache-status").startswith("edgecache; detail=")
                assert answer_.body.count(b"\n") == 1
                assert answer_ is got[-1]
        return [answer_.status for answer_ in got]


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize(("wire", "status"), MALFORMED_HEADS)
async def test_malformed_heads(wire, status, cut) -> None:
    seen: list[str] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange.request.target)
        await answer(exchange)

    wanted = status if isinstance(status, set) else {status}
    if 200 in wanted:  # may be good; then what follows is a request like any other
        wire += b"BAD\r\n\r\n"
        first, *_ = await statuses(wire, handler, cut)
        assert first in wanted
        return
    assert [*map(wanted.__contains__, await statuses(wire + SMUGGLED, handler, cut))] == [True]
    assert seen == []


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("reads", [True, False], ids=["read", "not read"])
@pytest.mark.parametrize("body", MALFORMED_BODIES)
async def test_malformed_bodies(body, reads, cut) -> None:
    seen: list[str] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange.request.target)
        if reads:
            while await exchange.body.read():
                pass
        await answer(exchange)

    got = await statuses(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + SMUGGLED, handler, cut)
    assert len(got) == 1
    assert got[0] in ({400, 413, 431} if reads else {200})
    assert seen == ["/"]


async def test_a_body_that_breaks_within_the_answer_ends_the_connection() -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), None)
        await exchange.write(await exchange.body.read())
        for _ in range(2):
            with pytest.raises(RequestError) as caught:
                await exchange.body.read()
            assert caught.value.status == 400
        exchange.finish()

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n" + SMUGGLED)
        assert (await client.answer()).body == b"ok"
        assert await client.gone()
        assert listener.requests == 1


async def test_the_answer_survives_octets_still_on_their_way() -> None:
    """Closing on unread octets would reset the connection and take the answer with it (RFC 9112 §9.6)."""
    limits = ClientLimits(linger_s=0.3)
    async with listening(answer, limits=limits) as listener:
        for _ in range(20):
            async with await RawClient.connect(listener.port) as client:
                client.writer.write(b"bad\r\n\r\n" + b"x" * 5_000_000)
                assert (await client.answer()).status == 400
        assert listener.counters.malformed == 20


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HT", id="within the request line"),
        pytest.param(GET + b"Host: h\r\n", id="within the head"),
    ],
)
async def test_a_connection_that_ends_early_is_just_closed(wire) -> None:
    async with listening(answer) as listener, await RawClient.connect(listener.port) as client:
        await client.send(wire)
        client.eof()
        assert await client.rest() == b""
        assert listener.requests == 0


@pytest.mark.parametrize("body", [b"Content-Length: 5\r\n\r\nhe", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe"])
async def test_a_cut_off_body_is_the_clients_fault(body) -> None:
    fault: asyncio.Future[HttpError] = asyncio.get_running_loop().create_future()

    async def handler(exchange: Exchange) -> None:
        try:
            while await exchange.body.read():
                pass
        except HttpError as error:
            fault.set_result(error)
            raise

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(POST + body)
        client.eof()
        assert (await asyncio.wait_for(fault, 10)).status == 499
        assert await client.gone()
