"""What the client makes of origins that refuse, reset, stall, talk nonsense, or close at the wrong moment."""

import asyncio
import ssl
from pathlib import Path

import pytest

from edgecache.http.errors import (
    OriginError,
    OriginMalformed,
    OriginRefused,
    OriginReset,
    OriginTimeout,
    OriginUnavailable,
)
from edgecache.http.message import BytesBody, EmptyBody
from edgecache.origin.api import Timeouts
from edgecache.origin.client import HttpOrigin
from tests.edge.world import until
from tests.origin.scripted import Pieces, Side, fetch, get, read_all, scripted

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"garbage\r\n\r\n", id="garbage"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", id="status of two digits"),
        pytest.param(b"HTTP/1.1 abc OK\r\n\r\n", id="status of letters"),
        pytest.param(b"HTTP/2.0 200 OK\r\n\r\n", id="version"),
        pytest.param(b"ICY 200 OK\r\n\r\n", id="protocol"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
        pytest.param(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", id="both lengths"),
        pytest.param(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", id="differing lengths"),
        pytest.param(HEAD + b"Content-Length: -2\r\n\r\nok", id="negative length"),
        pytest.param(HEAD + b"Content-Length: 2x\r\n\r\nok", id="length with letters"),
        pytest.param(HEAD + b"Transfer-Encoding: snappy\r\n\r\nok", id="unknown coding"),
        pytest.param(HEAD + b"X : y\r\n\r\n", id="space before the colon"),
        pytest.param(HEAD + b"X: a\r\n b\r\n\r\n", id="folded line"),
        pytest.param(HEAD + b"X: a\0b\r\n\r\n", id="NUL"),
        pytest.param(HEAD + b"no colon\r\n\r\n", id="no colon"),
        pytest.param(HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n", id="long line"),
        pytest.param(HEAD + b"X: y\r\n" * 300 + b"\r\n", id="many fields"),
        pytest.param(b"HTTP/1.1 103 E\r\n\r\n" * 100, id="interim answers without end"),
        pytest.param(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", id="101 unasked"),
    ],
)
async def test_a_malformed_head_is_told_so(wire) -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(wire)
        await side.until_end()

    async with scripted(script) as (client, _):
        with pytest.raises(OriginMalformed) as caught:
            await client.send(get(), EmptyBody())
        assert (caught.value.status, caught.value.code) == (502, "origin-malformed")
        assert client.idle_connections == 0


@pytest.mark.parametrize(
    ("wire", "end", "error", "code"),
    [
        pytest.param(
            CHUNKED + b"2\r\nokX\r\n0\r\n\r\n", "stay", OriginMalformed, "origin-malformed", id="chunk too long"
        ),
        pytest.param(CHUNKED + b"2\r\nok\r\nzz\r\n", "stay", OriginMalformed, "origin-malformed", id="chunk size"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0x1\r\na\r\n", "stay", OriginMalformed, "origin-malformed", id="0x size"),
        pytest.param(CHUNKED + b"2\r\nok\r\n", "close", OriginReset, "origin-early-eof", id="no last chunk"),
        pytest.param(CHUNKED + b"9\r\nok", "close", OriginReset, "origin-early-eof", id="within a chunk"),
        pytest.param(
            HEAD + b"Content-Length: 9\r\n\r\nok", "close", OriginReset, "origin-early-eof", id="within a length"
        ),
        pytest.param(HEAD + b"Content-Length: 9\r\n\r\nok", "reset", OriginReset, "origin-reset", id="reset"),
        pytest.param(HEAD + b"\r\nok", "reset", OriginReset, "origin-reset", id="reset of an until-close body"),
        pytest.param(CHUNKED + b"2\r\nok\r\n", "stay", OriginTimeout, "origin-between-bytes-timeout", id="stall"),
        pytest.param(HEAD + b"\r\nok", "stay", OriginTimeout, "origin-between-bytes-timeout", id="stall until close"),
    ],
)
async def test_a_body_that_breaks_off_raises_after_what_came(wire, end, error, code) -> None:
    taken = asyncio.Event()

    async def script(side: Side) -> None:
        await side.head()
        await side.say(wire)
        if end == "reset":
            await taken.wait()
            side.reset()
        elif end == "stay":
            await side.until_end()

    async with scripted(script, timeouts=Timeouts(between_bytes_s=0.1)) as (client, _):
        response = await client.send(get(), EmptyBody())
        got = await response.body.read()
        taken.set()
        for _ in range(2):  # and it stays broken
            with pytest.raises(OriginError) as caught:
                await read_all(response)
            assert (type(caught.value), caught.value.code) == (error, code)
        assert got.startswith(b"ok")
        assert client.idle_connections == 0


@pytest.mark.parametrize(
    ("wire", "end", "error", "code", "status"),
    [
        pytest.param(b"", "close", OriginReset, "origin-early-eof", 502, id="closed without a word"),
        pytest.param(b"HTTP/1.1 200", "close", OriginReset, "origin-early-eof", 502, id="closed within the head"),
        pytest.param(b"", "reset", OriginReset, "origin-reset", 502, id="reset"),
        pytest.param(b"", "stay", OriginTimeout, "origin-first-byte-timeout", 504, id="silent"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX:", "stay", OriginTimeout, "origin-first-byte-timeout", 504, id="slow head"),
    ],
)
async def test_no_head_at_all(wire, end, error, code, status) -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(wire)
        if end == "reset":
            side.reset()
        elif end == "stay":
            await side.until_end()

    async with scripted(script, timeouts=Timeouts(first_byte_s=0.1)) as (client, sides):
        with pytest.raises(OriginError) as caught:
            await client.send(get(), EmptyBody())
        assert (type(caught.value), caught.value.code, caught.value.status) == (error, code, status)
        assert not caught.value.before_bytes
        assert len(sides) == 1, "a first connection that breaks is no stale one: no retry"


async def test_bytes_that_trickle_within_the_limit_are_no_stall() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(HEAD + b"Content-Length: 12\r\n\r\n")
        for _ in range(12):
            await side.say(b"x")
            await asyncio.sleep(0.1)

    async with scripted(script, timeouts=Timeouts(between_bytes_s=1.0)) as (client, _):
        assert await fetch(client) == (200, b"x" * 12)


async def test_the_origins_turn_begins_when_the_body_is_sent() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.exactly(6)
        await side.say(OK)

    class Slow(Pieces):
        async def read(self) -> bytes:
            await asyncio.sleep(0.15)
            return await super().read()

    async with scripted(script, timeouts=Timeouts(first_byte_s=0.1)) as (client, _):
        assert await fetch(client, get("/", "POST"), Slow(b"abc", b"def", length=6)) == (200, b"ok")


async def test_an_origin_that_takes_no_body() -> None:
    async def script(side: Side) -> None:
        await asyncio.Event().wait()

    async with scripted(script, timeouts=Timeouts(between_bytes_s=0.1)) as (client, _):
        with pytest.raises(OriginTimeout) as caught:
            await client.send(get("/", "POST"), Pieces(*[b"x" * 200_000] * 200))
        assert caught.value.code == "origin-send-timeout"


# --- no connection ---
async def test_refused() -> None:
    client = HttpOrigin("http://127.0.0.1:1")
    with pytest.raises(OriginRefused) as caught:
        await client.send(get(), EmptyBody())
    assert (caught.value.status, caught.value.code, caught.value.before_bytes) == (502, "origin-refused", True)
    assert client.open_connections == 0


async def test_unresolvable(monkeypatch) -> None:
    client = HttpOrigin("http://no-such-host.invalid")
    with pytest.raises(OriginRefused) as caught:
        await client.send(get(), EmptyBody())
    assert caught.value.code == "origin-dns"


async def test_connecting_has_a_limit() -> None:
    # A listening socket whose queue is full takes no more connections.
    import socket

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        stuffing = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
            stuffing.append(sock)
        client = HttpOrigin(f"http://127.0.0.1:{full.getsockname()[1]}", timeouts=Timeouts(connect_s=0.1))
        with pytest.raises(OriginTimeout) as caught:
            await client.send(get(), EmptyBody())
        assert (caught.value.status, caught.value.code, caught.value.before_bytes) == (
            504,
            "origin-connect-timeout",
            True,
        )
        assert client.open_connections == 0
        for sock in stuffing:
            sock.close()


@pytest.mark.parametrize(
    "url",
    ["", "ftp://h", "h:80", "http://", "http://h/path", "http://h?q", "http://u:p@h", "http://h:99999", "http://h#f"],
)
def test_what_is_no_origins_url(url) -> None:
    with pytest.raises(ValueError, match=r"origin's URL|Port"):
        HttpOrigin(url)


# --- kept-alive connections ---
@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_stale_connection_is_replaced_once(way) -> None:
    """The race of RFC 9112 §9.3.1: the origin closes while our next request is on its way."""

    async def script(side: Side) -> None:
        await side.head()
        await side.say(OK)
        if side.number == 0:
            await side.head()  # the next request has arrived, and is not answered
            if way == "reset":
                side.reset()
            return
        await side.until_end()

    async with scripted(script) as (client, sides):
        assert await fetch(client) == (200, b"ok")
        assert await fetch(client) == (200, b"ok")
        assert len(sides) == 2


@pytest.mark.parametrize(
    ("method", "body"),
    [("POST", b""), ("PATCH", b""), ("PUT", b"data"), ("BREW", b"")],
    ids=["POST", "PATCH", "PUT with a body", "unknown method"],
)
async def test_what_may_have_been_done_is_not_sent_twice(method, body) -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(OK)
        await side.head()

    async with scripted(script) as (client, sides):
        assert await fetch(client) == (200, b"ok")
        with pytest.raises(OriginReset):
            await fetch(client, get("/", method), BytesBody(body))
        assert len(sides) == 1


async def test_no_retry_once_an_octet_of_the_answer_has_come() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(OK)
        await side.head()
        await side.say(b"H")

    async with scripted(script) as (client, sides):
        assert await fetch(client) == (200, b"ok")
        with pytest.raises(OriginReset):
            await fetch(client)
        assert len(sides) == 1


async def test_the_retry_is_the_last() -> None:
    async def script(side: Side) -> None:
        await side.head()
        if side.number < 2:
            await side.say(OK)
            await side.head()

    async with scripted(script) as (client, sides):
        one, two = await client.send(get(), EmptyBody()), await client.send(get(), EmptyBody())
        await read_all(one)
        await read_all(two)
        assert client.idle_connections == 2
        with pytest.raises(OriginReset):
            await fetch(client)
        assert len(sides) == 3


@pytest.mark.parametrize("news", [b"", b"HTTP/1.1 408 Too late\r\nContent-Length: 0\r\n\r\n"], ids=["EOF", "octets"])
async def test_an_idle_connection_with_news_leaves_the_pool_at_once(news) -> None:
    done = asyncio.Event()

    async def script(side: Side) -> None:
        await side.head()
        await side.say(OK)
        if side.number == 0:
            await done.wait()
            await side.say(news)
        else:
            await side.until_end()

    async with scripted(script) as (client, sides):
        assert await fetch(client) == (200, b"ok")
        assert client.idle_connections == 1
        done.set()
        while client.idle_connections:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0.001)
        assert await fetch(client, get("/", "POST")) == (200, b"ok")
        assert len(sides) == 2


async def test_octets_after_the_answer_are_never_an_answer() -> None:
    async def script(side: Side) -> None:
        while True:
            await side.head()
            await side.say(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    async with scripted(script) as (client, sides):
        for _ in range(3):
            assert await fetch(client) == (200, b"ok")
        assert len(sides) == 3


async def test_the_pool_is_lifo_and_idle_connections_are_let_go() -> None:
    async def script(side: Side) -> None:
        while True:
            await side.head()
            await side.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % side.number)

    async with scripted(script, timeouts=Timeouts(idle_s=0.2)) as (client, sides):
        responses = [await client.send(get(), EmptyBody()) for _ in range(3)]
        for response in responses:
            await read_all(response)
        assert [await fetch(client) for _ in range(3)] == [(200, b"2")] * 3
        assert client.idle_connections == 3
        while client.idle_connections:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0.01)
        await sides[0].ended.wait()
        assert await fetch(client) == (200, b"3")


async def test_connections_are_bounded_and_waiters_served_in_order() -> None:
    busy = peak = 0

    async def script(side: Side) -> None:
        nonlocal busy, peak
        while True:
            target = (await side.head()).split()[1]
            busy += 1
            peak = max(peak, busy)
            await asyncio.sleep(0.001)
            busy -= 1
            close = b"Connection: close\r\n" if target.endswith("5") else b""
            await side.say(b"HTTP/1.1 200 OK\r\n" + close + b"Content-Length: 2\r\n\r\nok")
            if close:
                return

    async with scripted(script, max_connections=3) as (client, _):
        order: list[int] = []

        async def one(number: int) -> None:
            assert await fetch(client, get(f"/{number}")) == (200, b"ok")
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(40)))
        assert peak == 3
        assert client.open_connections <= 3
        assert all(abs(number - place) <= 3 for place, number in enumerate(order))


async def test_too_many_waiters_and_too_long_a_wait() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.until_end()

    async with scripted(script, max_connections=1, max_waiters=1, wait_s=0.1) as (client, _):
        first = asyncio.ensure_future(client.send(get(), EmptyBody()))
        await until(lambda: client.open_connections == 1)
        second = asyncio.ensure_future(client.send(get(), EmptyBody()))
        await asyncio.sleep(0)
        with pytest.raises(OriginUnavailable) as caught:
            await client.send(get(), EmptyBody())
        assert (caught.value.status, caught.value.code) == (503, "origin-queue-full")
        with pytest.raises(OriginUnavailable) as caught:
            await second
        assert (caught.value.status, caught.value.code) == (503, "origin-queue-timeout")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_response_given_up_costs_its_connection_only() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(HEAD + b"Content-Length: 99\r\n\r\nok" if side.number == 0 else OK)
        await side.until_end()

    async with scripted(script, max_connections=1) as (client, sides):
        response = await client.send(get(), EmptyBody())
        response.body.close()
        assert await response.body.read() == b""
        await sides[0].ended.wait()
        assert await fetch(client) == (200, b"ok")


async def test_a_cancelled_request_frees_its_place() -> None:
    async def script(side: Side) -> None:
        await side.head()
        if side.number == 0:
            await side.until_end()
        await side.say(OK)

    async with scripted(script, max_connections=1) as (client, _):
        task = asyncio.ensure_future(client.send(get(), EmptyBody()))
        await until(lambda: client.open_connections == 1)
        waiting = asyncio.ensure_future(fetch(client))
        await asyncio.sleep(0)
        task.cancel()
        assert await waiting == (200, b"ok")
        await asyncio.gather(task, return_exceptions=True)


# --- TLS ---
@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({}, "self-signed|self signed", id="unknown CA"),
        pytest.param({"ca_file": "cert"}, None, id="CA file"),
        pytest.param({"ca_file": "cert", "server_name": "other.test"}, "[Hh]ostname", id="another name"),
        pytest.param({"verify": False}, None, id="not verified"),
    ],
)
async def test_tls(options, error, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    names: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: names.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    if "ca_file" in options:
        options = {**options, "ca_file": str(cert)}
    port = server.sockets[0].getsockname()[1]
    client = HttpOrigin(f"https://localhost:{port}", timeouts=Timeouts(connect_s=5), **options)
    client._address = ("127.0.0.1", port)
    try:
        if error is None:
            assert await fetch(client) == (200, b"ok")
        else:
            with pytest.raises(OriginRefused, match=error) as caught:
                await fetch(client)
            assert caught.value.code == "origin-tls"
            assert client.open_connections == 0
        assert names == [options.get("server_name", "localhost")]
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


async def test_a_plain_origin_asked_for_tls() -> None:
    async def script(side: Side) -> None:
        await side.reader.read(100)
        await side.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with scripted(script) as (plain, _):
        client = HttpOrigin(plain.url.replace("http:", "https:"))
        with pytest.raises(OriginRefused) as caught:
            await fetch(client)
        assert caught.value.code == "origin-tls"
