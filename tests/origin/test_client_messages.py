"""What the client sends to a well-behaved origin, and what it makes of its answers."""

import asyncio

import pytest

from edgecache.http.clock import wall_clock
from edgecache.http.errors import ClientGone
from edgecache.http.headers import Headers
from edgecache.http.message import BytesBody, EmptyBody, Request, Response
from edgecache.origin.api import request_time
from edgecache.origin.client import ClientResponse
from tests.origin.scripted import Pieces, Side, fetch, get, read_all, scripted

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("request_", "body", "wire"),
    [
        pytest.param(get("/a?b=%20"), b"", "GET /a?b=%20 HTTP/1.1\r\nHost: h\r\n\r\n", id="plain"),
        pytest.param(get("*", "OPTIONS"), b"", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", id="asterisk"),
        pytest.param(
            get("/", "BREW", ("x-A", "1"), ("X-a", "2"), ("x", "\xe9")),
            b"",
            "BREW / HTTP/1.1\r\nHost: h\r\nx-A: 1\r\nX-a: 2\r\nx: \xe9\r\n\r\n",
            id="octet for octet",
        ),
        pytest.param(get("/", "POST"), b"", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", id="empty POST"),
        pytest.param(
            get("/", "GET", ("content-length", "0")),
            b"",
            "GET / HTTP/1.1\r\nHost: h\r\ncontent-length: 0\r\n\r\n",
            id="kept",
        ),
        pytest.param(
            get("/", "PUT", ("content-length", "2"), ("X", "y")),
            b"ab",
            "PUT / HTTP/1.1\r\nHost: h\r\ncontent-length: 2\r\nX: y\r\n\r\n",
            id="a true length stays in its place",
        ),
        pytest.param(
            get("/", "PUT", ("Content-Length", "7"), ("Transfer-Encoding", "gzip")),
            b"ab",
            "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n",
            id="a false one does not",
        ),
    ],
)
async def test_request_heads(request_: Request, body: bytes, wire: str) -> None:
    seen: list[str] = []

    async def script(side: Side) -> None:
        seen.append(await side.head())
        assert await side.exactly(len(body)) == body
        await side.say(OK)

    async with scripted(script) as (client, _):
        assert await fetch(client, request_, BytesBody(body)) == (200, b"ok")
    assert seen == [wire]


async def test_host_override() -> None:
    seen: list[str] = []

    async def script(side: Side) -> None:
        seen.append(await side.head())
        await side.say(OK)

    async with scripted(script, host="inner:81") as (client, _):
        await fetch(client)
    assert seen == ["GET / HTTP/1.1\r\nHost: inner:81\r\n\r\n"]


@pytest.mark.parametrize(
    ("method", "wire", "status", "body", "length", "reused"),
    [
        pytest.param("GET", OK, 200, b"ok", 2, True, id="length"),
        pytest.param("GET", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200, b"", 0, True, id="empty, no reason"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", 0, True, id="204"),
        pytest.param("GET", b"HTTP/1.1 304 NM\r\nContent-Length: 9\r\n\r\n", 304, b"", 0, True, id="304"),
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 200, b"", 0, True, id="HEAD"),
        pytest.param(
            "HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, b"", 0, True, id="HEAD chunked"
        ),
        pytest.param(
            "GET",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
            200,
            b"ok",
            None,
            True,
            id="chunked",
        ),
        pytest.param("GET", b"HTTP/1.1 200 OK\r\n\r\nok", 200, b"ok", None, False, id="until close"),
        pytest.param("GET", b"HTTP/1.0 200 OK\r\n\r\nok", 200, b"ok", None, False, id="1.0 until close"),
        pytest.param("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", 2, False, id="1.0"),
        pytest.param(
            "GET",
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            200,
            b"ok",
            2,
            True,
            id="1.0 kept",
        ),
        pytest.param(
            "GET",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            200,
            b"ok",
            2,
            False,
            id="close",
        ),
    ],
)
@pytest.mark.parametrize("cut", ["whole", "byte by byte"])
async def test_answers(method, wire, status, body, length, reused, cut) -> None:
    async def script(side: Side) -> None:
        for _ in range(2):
            await side.head()
            for piece in [wire] if cut == "whole" else [bytes([octet]) for octet in wire]:
                await side.say(piece)
                await asyncio.sleep(0)
            if not reused:
                return

    async with scripted(script) as (client, sides):
        for _ in range(2):
            response = await client.send(get("/", method), EmptyBody())
            assert response.body.length == length
            assert (response.head.status, await read_all(response)) == (status, body)
            assert response.upgraded is None
        assert len(sides) == (1 if reused else 2)


async def test_a_request_counts_as_sent_when_it_is_and_not_while_it_waits_for_a_connection() -> None:
    asked, let_go = asyncio.Event(), asyncio.Event()

    async def script(side: Side) -> None:
        for _ in range(2):
            await side.head()
            asked.set()
            await let_go.wait()
            await side.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script, max_connections=1) as (client, _):
        begun = wall_clock()
        first = asyncio.ensure_future(client.send(get("/1"), EmptyBody()))
        await asked.wait()
        second = asyncio.ensure_future(client.send(get("/2"), EmptyBody()))
        await asyncio.sleep(0)
        released = wall_clock()
        let_go.set()
        one, two = await first, await second
        assert begun <= one.sent_at <= released <= two.sent_at <= wall_clock()


@pytest.mark.parametrize(
    ("sent_at", "time"),
    [
        pytest.param(10.0, 10.0, id="at once"),
        pytest.param(10.7, 10.7, id="after waiting for a connection"),
        pytest.param(9.5, 10.0, id="the clock was set forward meanwhile"),
        pytest.param(11.5, 10.0, id="the clock was set back meanwhile"),
    ],
)
def test_the_time_of_the_request(sent_at: float, time: float) -> None:
    """What a response's delay begins with (RFC 9111 §4.2.3)."""
    response = ClientResponse(Response(200, "OK", Headers([])), EmptyBody(), None, sent_at)
    assert request_time(response, 10.0, 11.0) == time


async def test_the_head_is_as_received() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(
            b"HTTP/1.1 299 Odd one\r\nx-A: 1\r\nX-a:2\r\nKeep-Alive: x\r\nContent-Length: 0\r\nS: \xe9\r\n\r\n"
        )

    async with scripted(script) as (client, _):
        head = (await client.send(get(), EmptyBody())).head
        lines = [("x-A", "1"), ("X-a", "2"), ("Keep-Alive", "x"), ("Content-Length", "0"), ("S", "\xe9")]
        assert head == Response(299, "Odd one", Headers(lines), (1, 1))


async def test_trailers() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\nx-t: 2\r\n\r\n")

    async with scripted(script) as (client, _):
        response = await client.send(get(), EmptyBody())
        assert await read_all(response) == b"ok"
        assert response.body.trailers == Headers([("X-T", "1"), ("x-t", "2")])


async def test_interim_answers_are_told_but_not_100() -> None:
    told: list[tuple[int, tuple[tuple[str, str], ...]]] = []

    async def script(side: Side) -> None:
        await side.head()
        await side.say(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + OK
        )

    async with scripted(script) as (client, _):
        response = await client.send(
            get(), EmptyBody(), on_interim=lambda interim: told.append((interim.status, interim.headers.lines))
        )
        assert await read_all(response) == b"ok"
    assert told == [(103, (("Link", "</a>"),)), (102, ())]


# --- request bodies ---
async def test_a_body_of_unknown_length_is_chunked_with_its_trailers() -> None:
    async def script(side: Side) -> None:
        assert (await side.head()).endswith("Transfer-Encoding: chunked\r\n\r\n")
        wire = b"3\r\nabc\r\n5000\r\n" + b"x" * 0x5000 + b"\r\n0\r\nX-T: 1\r\n\r\n"
        assert await side.exactly(len(wire)) == wire
        await side.say(OK)

    async with scripted(script) as (client, _):
        for _ in range(2):
            body = Pieces(b"abc", b"x" * 0x5000)
            body.trailers = Headers([("X-T", "1")])
            assert await fetch(client, get("/", "POST"), body) == (200, b"ok")


async def test_an_answer_may_begin_before_the_request_has_ended() -> None:
    more = asyncio.Event()

    async def script(side: Side) -> None:
        await side.head()
        await side.exactly(3)
        await side.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfir")
        assert await side.exactly(3) == b"two"
        await side.say(b"st!")
        await side.head()
        await side.say(OK)

    async with scripted(script) as (client, sides):
        response = await client.send(get("/", "POST"), Pieces(b"one", more, b"two", length=6))
        assert await response.body.read() == b"fir"
        more.set()
        assert await read_all(response) == b"st!"
        assert await fetch(client) == (200, b"ok")
        assert len(sides) == 1


async def test_an_answer_that_ends_before_the_request_stops_it_and_the_connection() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(OK)
        await side.until_end()

    async with scripted(script) as (client, sides):
        body = Pieces(b"one", asyncio.Event(), b"never")
        assert await fetch(client, get("/", "POST"), body) == (200, b"ok")
        assert client.idle_connections == 0
        assert await fetch(client) == (200, b"ok")
        assert len(sides) == 2
        assert body.reads == 2


async def test_an_early_refusal_arrives_though_the_body_cannot_be_sent() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
        side.writer.write_eof()
        await side.until_end()

    async with scripted(script) as (client, _):
        pieces = [b"x" * 100_000] * 50
        assert await fetch(client, get("/", "POST"), Pieces(*pieces, length=5_000_000)) == (413, b"big")


async def test_expect_waits_for_the_origin() -> None:
    async def script(side: Side) -> None:
        assert "Expect: 100-continue" in await side.head()
        assert body.reads == 0
        await side.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await side.exactly(4)
        await side.say(OK)
        assert "Expect: 100-continue" in await side.head()
        await side.say(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await side.until_end()

    async with scripted(script) as (client, _):
        request = get("/", "POST", ("Expect", "100-continue"))
        body = Pieces(b"body", length=4)
        assert await fetch(client, request, body) == (200, b"ok")
        body = Pieces(b"body", length=4)
        assert await fetch(client, request, body) == (403, b"no")
        assert body.reads == 0
        assert client.idle_connections == 0


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(Pieces(b"ab", ClientGone("left"), length=9), id="client gone"),
        pytest.param(Pieces(b"ab", ClientGone("left")), id="client gone in a chunked body"),
    ],
)
async def test_a_client_that_breaks_off_is_passed_through_and_the_origin_sees_no_end(body) -> None:
    rest: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(side: Side) -> None:
        await side.head()
        rest.set_result(await side.until_end())

    async with scripted(script) as (client, _):
        with pytest.raises(ClientGone, match="left"):
            await client.send(get("/", "POST"), body)
        assert not (await rest).endswith(b"0\r\n\r\n")
        assert client.idle_connections == 0


@pytest.mark.parametrize("data", [b"abc", b"a"], ids=["longer", "shorter"])
async def test_a_body_that_is_not_as_long_as_announced_is_not_completed(data) -> None:
    async def script(side: Side) -> None:
        await side.head()
        assert len(await side.until_end()) < 3

    async with scripted(script) as (client, _):
        with pytest.raises(Exception, match="than announced"):
            await client.send(get("/", "POST"), Pieces(data, length=2))


# --- upgrade ---
async def test_switching_protocols_gives_the_raw_connection_and_what_was_read() -> None:
    async def script(side: Side) -> None:
        assert "Upgrade: websocket\r\nConnection: Upgrade" in await side.head()
        await side.say(b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst")
        assert await side.exactly(4) == b"ping"
        await side.say(b"pong")
        assert await side.until_end() == b""
        await side.say(b"bye")

    async with scripted(script) as (client, _):
        response = await client.send(get("/", "GET", ("Upgrade", "websocket"), ("Connection", "Upgrade")), EmptyBody())
        raw = response.upgraded
        assert raw is not None
        assert (response.head.status, response.head.headers.get("upgrade")) == (101, "websocket")
        assert await raw.read() == b"first"
        await raw.write(b"ping")
        assert await raw.read() == b"pong"
        raw.write_eof()
        assert await raw.read() == b"bye"
        assert await raw.read() == b""
        raw.close()


# --- back-pressure ---
async def test_what_nobody_reads_stays_with_the_origin() -> None:
    size = 30_000_000

    async def script(side: Side) -> None:
        await side.head()
        await side.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        await side.say(b"x" * size)

    async with scripted(script) as (client, _):
        response = await client.send(get(), EmptyBody())
        connection = response.body._connection
        while not connection.read_paused:  # noqa: ASYNC110 - the transport tells nobody
            await asyncio.sleep(0.001)
        assert connection._decoder.buffered <= 2 * 256 * 1024
        got = 0
        while data := await response.body.read():
            assert len(data) <= 256 * 1024
            got += len(data)
        assert got == size
