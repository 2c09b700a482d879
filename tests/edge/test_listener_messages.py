"""What a well-behaved client gets from the listener: framing both ways, keep-alive, pipelining, 100-continue."""

import asyncio
import email.utils

import pytest

from edgecache.edge.connection import ClientLimits
from edgecache.edge.exchange import Exchange
from edgecache.http.clock import wall_clock
from edgecache.http.errors import ClientGone, OriginTimeout, RequestError
from edgecache.http.headers import Headers
from edgecache.http.message import Response
from tests.edge.world import until
from tests.wirekit import Answer, RawClient, answer, echo, listening, plain


async def ask(handler, request: bytes, *, method: str = "GET") -> Answer:
    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(request)
        return await client.answer(method)


async def show(exchange: Exchange) -> None:
    """Says what it was given."""
    r = exchange.request
    told = f"{r.method} {r.scheme} {r.authority} {r.target} {r.version[0]}.{r.version[1]} {list(r.headers)}"
    await answer(exchange, told.encode("latin-1"))


@pytest.mark.parametrize(
    ("request_head", "seen"),
    [
        pytest.param(b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", b"GET http h /a?b 1.1 [('Host', 'h')]", id="origin form"),
        pytest.param(
            b"GET http://other:81/x HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET http other:81 /x 1.1 [('Host', 'h')]",
            id="absolute form wins over Host",
        ),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", b"OPTIONS http h * 1.1 [('Host', 'h')]", id="asterisk"),
        pytest.param(
            b"BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n", b"BREW http h /pot 1.1 [('Host', 'h')]", id="unknown method"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nhOsT: h\r\nX-A: 1\r\nx-b:\xe9\r\nX-A:  2 \r\n\r\n",
            b"GET http h / 1.1 [('hOsT', 'h'), ('X-A', '1'), ('x-b', '\xe9'), ('X-A', '2')]",
            id="case, order, repetition, octets",
        ),
    ],
)
async def test_request_reaches_the_handler_as_sent(request_head, seen) -> None:
    assert (await ask(show, request_head)).body == seen


async def test_a_request_without_host_gets_the_local_address_as_authority() -> None:
    async with listening(show) as listener, await RawClient.connect(listener.port) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer()).body == f"GET http 127.0.0.1:{listener.port} / 1.0 []".encode()
        assert await client.rest() == b""


@pytest.mark.parametrize(
    ("body_wire", "body", "trailers"),
    [
        pytest.param(b"Content-Length: 5\r\n\r\nhello", b"hello", [], id="length"),
        pytest.param(b"Content-Length: 0\r\n\r\n", b"", [], id="empty"),
        pytest.param(b"\r\n", b"", [], id="none"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello", [], id="chunked"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n",
            b"hello",
            [("X-Sum", "1"), ("x-sum", "2")],
            id="trailers",
        ),
    ],
)
async def test_bodies_come_back_whole(body_wire, body, trailers) -> None:
    got = await ask(echo, b"POST /e HTTP/1.1\r\nHost: h\r\n" + body_wire)
    assert (got.status, got.body, got.trailers) == (200, body, trailers)


async def test_body_byte_by_byte() -> None:
    async with listening(echo) as listener, await RawClient.connect(listener.port) as client:
        for octet in b"POST /e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
            await client.send(bytes([octet]))
            await asyncio.sleep(0)
        assert (await client.answer()).body == b"abc"


async def test_keep_alive_and_pipelining_keep_order() -> None:
    running = 0

    async def slow_first(exchange: Exchange) -> None:
        nonlocal running
        running += 1
        assert running == 1, "the next request was served before the answer to the one before was complete"
        for _ in range(20 if exchange.request.target == "/0" else 0):
            await asyncio.sleep(0)
        await answer(exchange, exchange.request.target.encode())
        await asyncio.sleep(0)
        running -= 1

    async with listening(slow_first) as listener, await RawClient.connect(listener.port) as client:
        await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(50)))
        assert [(await client.answer()).body for _ in range(50)] == [b"/%d" % n for n in range(50)]
        await client.send(b"GET /again HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer()).body == b"/again"
        assert listener.requests == 51
        assert listener.counters.accepted == 1


async def test_pipelined_requests_with_bodies() -> None:
    async with listening(echo) as listener, await RawClient.connect(listener.port) as client:
        one = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\none"
        two = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
        await client.send(one + two + one)
        assert [(await client.answer()).body for _ in range(3)] == [b"one", b"two", b"one"]


async def test_input_that_nobody_reads_is_bounded() -> None:
    release = asyncio.Event()

    async def hold(exchange: Exchange) -> None:
        await release.wait()
        await answer(exchange)

    async with listening(hold) as listener, await RawClient.connect(listener.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n")
        await until(lambda: listener.requests == 1)  # the kernel connects before the listener hears of it
        (connection,) = listener._shared.connections
        client.writer.write(b"x" * 50_000_000)
        await until(lambda: connection.read_paused)
        assert connection.decoder.buffered <= 2 * 256 * 1024
        client.writer.transport.abort()
        release.set()


# --- answers ---
@pytest.mark.parametrize(
    ("request_line", "status", "given", "length", "framing", "body"),
    [
        pytest.param("GET / HTTP/1.1", 200, [], 2, {"content-length": "2"}, b"ok", id="length"),
        pytest.param("GET / HTTP/1.1", 200, [], None, {"transfer-encoding": "chunked"}, b"ok", id="chunked"),
        pytest.param(
            "GET / HTTP/1.1", 200, [("Content-Length", "9")], 2, {"content-length": "2"}, b"ok", id="wrong CL"
        ),
        pytest.param(
            "GET / HTTP/1.1",
            200,
            [("Transfer-Encoding", "gzip, chunked"), ("Connection", "x"), ("Keep-Alive", "timeout=9")],
            2,
            {"content-length": "2"},
            b"ok",
            id="framing of another hop",
        ),
        pytest.param("HEAD / HTTP/1.1", 200, [("Content-Length", "9")], 2, {"content-length": "9"}, b"", id="HEAD"),
        pytest.param("HEAD / HTTP/1.1", 200, [], None, {}, b"", id="HEAD of unknown length"),
        pytest.param("GET / HTTP/1.1", 304, [("Content-Length", "9")], 0, {"content-length": "9"}, b"", id="304"),
        pytest.param("GET / HTTP/1.1", 204, [("Content-Length", "9")], 0, {}, b"", id="204"),
        pytest.param("GET / HTTP/1.1", 200, [], 0, {"content-length": "0"}, b"", id="empty"),
        pytest.param("GET / HTTP/1.0", 200, [], 2, {"content-length": "2", "connection": "close"}, b"ok", id="1.0"),
        pytest.param(
            "GET / HTTP/1.0\r\nConnection: keep-alive",
            200,
            [],
            2,
            {"content-length": "2", "connection": "keep-alive"},
            b"ok",
            id="1.0 kept alive",
        ),
        pytest.param(
            "GET / HTTP/1.0\r\nConnection: keep-alive",
            200,
            [],
            None,
            {"connection": "close"},
            b"ok",
            id="1.0 until close",
        ),
        pytest.param(
            "GET / HTTP/1.1\r\nConnection: close",
            200,
            [],
            2,
            {"content-length": "2", "connection": "close"},
            b"ok",
            id="close",
        ),
        pytest.param(
            "GET / HTTP/1.1",
            426,
            [("Upgrade", "HTTP/3"), ("Connection", "upgrade")],
            0,
            {"content-length": "0", "upgrade": "HTTP/3", "connection": "Upgrade"},
            b"",
            id="426",
        ),
    ],
)
async def test_framing_of_answers(request_line, status, given, length, framing, body) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(Response(status, "Some", Headers(given)), length)
        await exchange.write(b"" if length == 0 else b"ok")
        exchange.finish()

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(f"{request_line}\r\nHost: h\r\n\r\n".encode())
        got = await client.answer(request_line.split()[0])
        names = {"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade"}
        assert {name.lower(): value for name, value in got.fields if name.lower() in names} == framing
        assert (got.status, got.reason, got.body) == (status, "Some", body)
        if "close" in framing.get("connection", ""):
            assert await client.rest() == b""
        else:
            await client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert (await client.answer()).status == status


async def test_date_is_supplied_only_where_missing() -> None:
    got = await ask(lambda e: answer(e), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert abs(email.utils.parsedate_to_datetime(got.get("date")).timestamp() - wall_clock()) < 3
    got = await ask(lambda e: answer(e, Date="x"), b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert got.get("date") == "x"


async def test_trailers_after_a_chunked_answer_only() -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), None if exchange.request.target == "/chunked" else 0)
        exchange.finish(Headers([("X-T", "1")]))

    assert (await ask(handler, b"GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n")).trailers == [("X-T", "1")]
    assert (await ask(handler, b"GET /length HTTP/1.1\r\nHost: h\r\n\r\n")).trailers == []


async def test_large_answers_in_all_framings() -> None:
    piece = bytes(range(256)) * 512

    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), len(piece) * 40 if exchange.request.target == "/length" else None)
        for _ in range(40):
            await exchange.write(piece)
        exchange.finish()

    for line in (b"GET /length HTTP/1.1", b"GET /chunked HTTP/1.1", b"GET / HTTP/1.0"):
        got = await ask(handler, line + b"\r\nHost: h\r\n\r\n")
        assert got.body == piece * 40


# --- interim answers and 100-continue ---
async def test_interim_answers_pass_but_not_to_http_1_0() -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.interim(Response(103, "Early Hints", Headers([("Link", "</a>; rel=preload")])))
        exchange.interim(Response(100, "Continue", Headers()))
        await answer(exchange)
        exchange.interim(Response(103, "Too late", Headers()))

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        hints = await client.answer()
        assert (hints.status, hints.fields) == (103, [("Link", "</a>; rel=preload")])
        assert (await client.answer()).status == 200
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 200


EXPECT = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"


async def test_continue_is_sent_when_the_body_is_first_read() -> None:
    reading = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.interim(Response(103, "First", Headers()))
        await reading.wait()
        got = await exchange.body.read()
        await answer(exchange, got)

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(EXPECT)
        assert (await client.answer()).status == 103
        reading.set()
        assert (await client.answer()).status == 100
        await client.send(b"body")
        got = await client.answer()
        assert (got.status, got.body, got.get("connection")) == (200, b"body", None)
        await client.send(EXPECT)
        assert (await client.answer()).status == 103
        assert (await client.answer()).status == 100


async def test_no_continue_when_the_body_came_without_waiting() -> None:
    async with listening(echo) as listener, await RawClient.connect(listener.port) as client:
        await client.send(EXPECT + b"body")
        got = await client.answer()
        assert (got.status, got.body, got.get("connection")) == (200, b"body", None)


async def test_a_final_answer_first_means_no_continue_and_the_end() -> None:
    async def handler(exchange: Exchange) -> None:
        await answer(exchange, b"no", 403)
        with pytest.raises(ClientGone):
            await exchange.body.read()

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(EXPECT)
        got = await client.answer()
        assert (got.status, got.get("connection")) == (403, "close")
        await client.send(b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
        assert await client.gone()
        assert listener.requests == 1


# --- bodies nobody reads ---
async def test_a_small_unread_body_is_dropped_and_the_connection_goes_on() -> None:
    async with listening(answer) as listener, await RawClient.connect(listener.port) as client:
        for _ in range(3):
            await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
            assert (await client.answer()).status == 200


async def test_a_large_unread_body_ends_the_connection_and_the_answer_arrives() -> None:
    limits = ClientLimits(linger_s=0.2)
    async with listening(answer, limits=limits) as listener, await RawClient.connect(listener.port) as client:
        client.writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        assert (await client.answer()).status == 200
        await client.gone()
        assert listener.requests == 1


# --- handlers that fail ---
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        pytest.param(RuntimeError("bug"), 500, "internal-error", id="bug"),
        pytest.param(RequestError("bad", status=413), 413, "content-too-large", id="client's fault"),
        pytest.param(OriginTimeout("slow"), 504, "origin-timeout", id="origin's fault"),
    ],
)
async def test_an_error_before_the_answer_becomes_one(error, status, code, caplog) -> None:
    async def handler(exchange: Exchange) -> None:
        raise error

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        for _ in range(2):  # the connection is still good
            await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            got = await client.answer()
            assert (got.status, got.get("cache-status")) == (status, f"edgecache; detail={code}")
        await client.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer("HEAD")).status == status


async def test_no_answer_at_all_is_a_500() -> None:
    async def handler(exchange: Exchange) -> None:
        pass

    assert (await ask(handler, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")).status == 500


@pytest.mark.parametrize("length", [10, None])
@pytest.mark.parametrize("way", ["return", "raise", "abort", "finish"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_incomplete_answer_never_looks_complete(length, way, version, caplog) -> None:
    if way == "finish" and length is None:
        pytest.skip("without a length, finishing is finishing")

    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), length)
        await exchange.write(b"half")
        await asyncio.sleep(0.01)  # let it reach the client
        if way == "raise":
            raise RuntimeError("bug")
        if way == "abort":
            exchange.abort()
            with pytest.raises(ClientGone):
                await exchange.write(b"more")
        if way == "finish":
            exchange.finish()

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(f"GET / HTTP/{version}\r\nHost: h\r\n\r\n".encode())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()


async def test_more_octets_than_announced_do_not_leave(caplog) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), 3)
        await exchange.write(b"abc")
        await asyncio.sleep(0.01)  # let it reach the client
        await exchange.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer()).body == b"abc"
        assert await client.gone()


async def test_a_finished_exchange_is_dead(caplog) -> None:
    kept: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        await answer(exchange, b"mine")
        kept.append(exchange)
        first = kept[0]
        with pytest.raises(RuntimeError):
            await first.write(b"late")
        with pytest.raises(RuntimeError):
            first.finish()
        with pytest.raises(RuntimeError):
            first.start(plain(), 0)
        first.abort()

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        for _ in range(2):
            await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).body == b"mine"


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(Response(200, "OK", Headers([("X", "a\r\nSet-Cookie: b")])), id="value with CRLF"),
        pytest.param(Response(200, "OK", Headers([("X", "a\nb")])), id="value with LF"),
        pytest.param(Response(200, "OK", Headers([("X", "a\0b")])), id="value with NUL"),
        pytest.param(Response(200, "OK", Headers([("X: y\r\nZ", "a")])), id="name"),
        pytest.param(Response(200, "OK\r\nX: y", Headers()), id="reason"),
    ],
)
async def test_a_response_cannot_be_split(response, caplog) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(response, 0)
        exchange.finish()

    got = await ask(handler, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert got.status == 500
    assert not {"set-cookie", "z", "x"} & set(got.names())


async def test_a_client_that_leaves_is_known_to_the_handler() -> None:
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), None)
        try:
            while True:
                await exchange.write(b"x" * 100_000)
        except ClientGone as error:
            outcome.set_result(error.detail)
            raise

    async with listening(handler) as listener:
        client = await RawClient.connect(listener.port)
        await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.line()
        client.writer.transport.abort()
        assert "client" in await asyncio.wait_for(outcome, 10)


async def test_a_half_closed_client_still_gets_its_answers() -> None:
    async with listening(echo) as listener, await RawClient.connect(listener.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na" * 2)
        client.eof()
        assert (await client.answer()).body == b"a"
        assert (await client.answer()).body == b"a"
        assert await client.rest() == b""
