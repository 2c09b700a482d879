"""Slow clients, full houses and shutdown: limits in time and number, and the way out."""

import asyncio
import socket
import ssl

import pytest

from edgecache.edge.connection import ClientLimits
from edgecache.edge.exchange import Exchange
from edgecache.http.errors import ClientGone, RequestError
from tests.edge.world import until
from tests.wirekit import RawClient, answer, echo, listening, plain

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


async def trickle(client: RawClient, data: bytes, every_s: float) -> None:
    for octet in data:
        await client.send(bytes([octet]))
        await asyncio.sleep(every_s)


async def test_a_head_has_a_limit_from_its_first_octet() -> None:
    limits = ClientLimits(head_s=0.2)
    async with listening(answer, limits=limits) as listener, await RawClient.connect(listener.port) as client:
        await asyncio.sleep(0.3)  # before the first octet only the idle limit runs
        dripping = asyncio.ensure_future(trickle(client, GET[:-1] * 10, 0.02))
        got = await client.answer()
        assert (got.status, got.get("connection")) == (408, "close")
        assert got.get("cache-status") == "edgecache; detail=client-timeout"
        assert listener.counters.timed_out == 1
        assert listener.requests == 0
        dripping.cancel()


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    limits = ClientLimits(idle_s=0.1)
    async with listening(answer, limits=limits) as listener, await RawClient.connect(listener.port) as client:
        await client.send(GET)
        assert (await client.answer()).status == 200
        assert await client.rest() == b""
    async with listening(answer, limits=limits) as listener, await RawClient.connect(listener.port) as client:
        assert await client.rest() == b""


async def test_a_body_has_a_limit_between_octets() -> None:
    async def handler(exchange: Exchange) -> None:
        while await exchange.body.read():
            pass
        await answer(exchange, b"whole")

    limits = ClientLimits(body_s=0.5)
    async with listening(handler, limits=limits) as listener, await RawClient.connect(listener.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n")
        await trickle(client, b"12345678", 0.1)  # longer than the limit in all
        assert (await client.answer()).body == b"whole"
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n1234")
        got = await client.answer()
        assert (got.status, got.get("connection")) == (408, "close")
        assert await client.gone()


async def test_no_limit_runs_while_the_handler_works() -> None:
    async def handler(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        await answer(exchange, await exchange.body.read())

    limits = ClientLimits(head_s=0.05, idle_s=0.05, body_s=0.05, stall_s=0.05)
    async with listening(handler, limits=limits) as listener, await RawClient.connect(listener.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok")
        assert (await client.answer()).body == b"ok"


async def flood(exchange: Exchange) -> None:
    exchange.start(plain(), None)
    while True:
        await exchange.write(b"x" * 65536)


async def test_a_client_that_takes_nothing_is_cut() -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handler(exchange: Exchange) -> None:
        try:
            await flood(exchange)
        except ClientGone as error:
            ended.set_result(error.detail)

    limits = ClientLimits(stall_s=0.3)
    async with (
        listening(handler, limits=limits) as listener,
        await RawClient.connect(listener.port, receive_buffer=4096) as client,
    ):
        client.writer.transport.pause_reading()
        await client.send(GET)
        assert "stalled" in await asyncio.wait_for(ended, 10)
        assert listener.counters.stalled == 1
        assert listener.connections == 0


async def test_a_trickle_reader_that_makes_progress_lives() -> None:
    """Progress within the kernel's buffers counts: the transport alone would see none for many limits' length."""

    async def handler(exchange: Exchange) -> None:
        sock = exchange._connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        await flood(exchange)

    loop = asyncio.get_running_loop()
    limits = ClientLimits(stall_s=0.4)
    async with listening(handler, limits=limits) as listener:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", listener.port))
            await loop.sock_sendall(sock, GET)
            until = loop.time() + 1.6
            while loop.time() < until:
                await loop.sock_recv(sock, 4096)
                await asyncio.sleep(0.05)
            assert listener.counters.stalled == 0
            assert listener.connections == 1


async def test_what_is_left_over_at_the_end_has_the_limit_too() -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), 10_000_000)
        for _ in range(10):
            exchange._connection.send(b"x" * 1_000_000)
        exchange._left = 0
        exchange.finish()

    limits = ClientLimits(stall_s=0.2)
    async with (
        listening(handler, limits=limits) as listener,
        await RawClient.connect(listener.port, receive_buffer=4096) as client,
    ):
        client.writer.transport.pause_reading()
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        await until(lambda: listener.counters.stalled == 1)
        await until(lambda: not listener.connections)  # the loop tells of the reset in a step of its own


# --- number ---
async def test_connections_beyond_the_limit_get_a_503() -> None:
    async with listening(answer, max_connections=2) as listener:
        async with await RawClient.connect(listener.port) as one, await RawClient.connect(listener.port) as two:
            for client in (one, two):
                await client.send(GET)
                assert (await client.answer()).status == 200
            async with await RawClient.connect(listener.port) as three:
                await three.send(GET)
                got = await three.answer()
                assert (got.status, got.get("connection")) == (503, "close")
                assert got.get("cache-status") == "edgecache; detail=overloaded"
                assert await three.rest() == b""
            assert (listener.counters.over_limit, listener.requests) == (1, 2)
        await until(lambda: not listener.connections)
        async with await RawClient.connect(listener.port) as four:
            await four.send(GET)
            assert (await four.answer()).status == 200


# --- drain ---
async def test_drain_lets_requests_in_flight_finish_and_closes_idle_ones() -> None:
    working, release = asyncio.Event(), asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.request.target == "/slow":
            working.set()
            await release.wait()
        await answer(exchange, b"whole")

    async with (
        listening(handler) as listener,
        await RawClient.connect(listener.port) as idle,
        await RawClient.connect(listener.port) as busy,
    ):
        await idle.send(GET)
        assert (await idle.answer()).get("connection") is None
        await busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
        await working.wait()
        draining = asyncio.ensure_future(listener.drain(10))
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await RawClient.connect(listener.port)
        assert not draining.done()
        release.set()
        got = await busy.answer()
        assert (got.body, got.get("connection")) == (b"whole", "close")
        assert await busy.rest() == b""
        await idle.close()
        await busy.close()
        assert await draining is True


async def test_drain_serves_what_has_arrived_on_an_idle_connection() -> None:
    async with listening(answer) as listener, await RawClient.connect(listener.port) as client:
        await client.send(GET)
        await client.answer()
        client.writer.write(GET)  # in the kernel before the drain begins, not read yet
        draining = asyncio.ensure_future(listener.drain(10))
        assert (await client.answer()).status == 200
        assert await client.rest() == b""
        assert await draining is True


async def test_drain_has_a_hard_limit() -> None:
    cancelled = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(GET)
        await until(lambda: listener.requests == 1)
        assert await listener.drain(0.05) is False
        assert cancelled.is_set()
        assert await client.gone()


async def test_drain_waits_no_longer_than_told_for_a_handler_whose_client_has_gone() -> None:
    async def handler(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async with listening(handler) as listener:
        async with await RawClient.connect(listener.port) as client:
            await client.send(GET)
            await until(lambda: listener.requests == 1)
            client.writer.transport.abort()
        for connection in listener._shared.connections:
            connection.transport.abort()
        assert await listener.drain(0.1) is False


async def test_drain_of_nothing() -> None:
    async with listening(answer) as listener:
        assert await listener.drain(1) is True
        assert await listener.drain(1) is True


# --- TLS ---
async def test_over_tls(certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trust = ssl.create_default_context(cafile=certificate[0])

    async def handler(exchange: Exchange) -> None:
        if exchange.request.method == "POST":
            await echo(exchange)
        else:
            await answer(exchange, f"{exchange.request.scheme} {exchange.request.peer.tls}".encode())

    async with listening(handler, tls=context) as listener:
        async with await RawClient.connect(listener.port, tls=trust) as client:
            for _ in range(2):
                await client.send(GET)
                assert (await client.answer()).body == b"https True"
            body = bytes(range(256)) * 4000
            await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert (await client.answer()).body == body
            await client.send(b"bad\r\n\r\n" + b"x" * 1000)
            assert (await client.answer()).status == 400
        async with await RawClient.connect(listener.port, tls=trust) as client:
            await client.send(b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).status == 421


async def test_an_upload_nobody_finishes_reading_times_out_though_it_was_given_up() -> None:
    """A reader that was cancelled leaves no limit running behind it."""

    async def handler(exchange: Exchange) -> None:
        reading = asyncio.ensure_future(exchange.body.read())
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await asyncio.sleep(0.3)
        with pytest.raises(RequestError):
            await exchange.body.read()
        await answer(exchange, b"late")

    limits = ClientLimits(body_s=0.1)
    async with listening(handler, limits=limits) as listener, await RawClient.connect(listener.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n")
        assert (await client.answer()).body == b"late"
