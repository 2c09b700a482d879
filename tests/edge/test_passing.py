"""Listener, forwarding, origin client and tunnel together, between real sockets."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from edgecache.edge.tunnel import tunnel
from edgecache.origin.client import HttpOrigin
from tests.edge.world import at_rest
from tests.origin.scripted import Script, Side, scripted
from tests.passing import passing
from tests.wirekit import RawClient, listening

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@contextlib.asynccontextmanager
async def through(script: Script) -> AsyncIterator[RawClient]:
    async with (
        scripted(script) as (origin, _),
        listening(passing(origin)) as listener,
        await RawClient.connect(listener.port) as client,
    ):
        yield client


async def test_interim_answers_and_trailers_pass_both_ways() -> None:
    async def script(side: Side) -> None:
        head = await side.head()
        assert "TE: trailers" in head
        assert "Connection: TE" in head
        wire = b"2\r\nup\r\n0\r\nX-Up: 1\r\n\r\n"
        assert await side.exactly(len(wire)) == wire
        await side.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: y\r\n\r\n")
        await side.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Down\r\n\r\n")
        await side.say(b"4\r\ndown\r\n0\r\nX-Down: 1\r\n\r\n")

    async with through(script) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n")
        await client.send(b"Transfer-Encoding: chunked\r\n\r\n2\r\nup\r\n0\r\nX-Up: 1\r\n\r\n")
        hints = await client.answer()
        assert (hints.status, hints.fields) == (103, [("Link", "</a>"), ("Via", "1.1 edgecache")])
        got = await client.answer()
        assert (got.status, got.body, got.trailers) == (200, b"down", [("X-Down", "1")])
        assert got.get("trailer") == "X-Down"


async def test_a_refused_expectation_reaches_the_client_and_no_body_is_asked_for() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")
        await side.until_end()

    async with through(script) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        got = await client.answer()
        assert (got.status, got.body, got.get("connection")) == (401, b"no", "close")


async def test_a_granted_expectation() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await side.exactly(4)
        await side.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with through(script) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert (await client.answer()).status == 100
        await client.send(b"body")
        assert (await client.answer()).body == b"ok"


async def test_an_early_answer_stops_an_upload() -> None:
    """The client keeps sending; the answer reaches it whole, and what it sends is never taken for a request."""

    async def script(side: Side) -> None:
        await side.head()
        await side.say(b"HTTP/1.1 413 Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
        side.writer.write_eof()
        await side.until_end()

    async with through(script) as client:
        client.writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n" + GET * 200_000)
        got = await client.answer()
        assert (got.status, got.body) == (413, b"big")


async def test_an_origin_that_breaks_off_breaks_off_here() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")

    async with through(script) as client:
        await client.send(GET)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.answer()


# --- tunnels ---
async def test_a_tunnel_passes_both_ways_and_each_half_ends_by_itself() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(SWITCHED + b"first")
        assert await side.until_end() == b"early late"
        await side.say(b" last")

    async with through(script) as client:
        await client.send(UPGRADE + b"early")
        got = await client.answer()
        assert (got.status, got.get("upgrade"), got.get("connection")) == (101, "websocket", "Upgrade")
        await client.send(b" late")
        client.eof()
        assert await client.rest() == b"first last"


async def test_a_tunnel_ends_when_the_origin_resets() -> None:
    async def script(side: Side) -> None:
        await side.head()
        await side.say(SWITCHED)
        await side.exactly(2)
        side.reset()

    async with through(script) as client:
        await client.send(UPGRADE)
        assert (await client.answer()).status == 101
        await client.send(b"go")
        assert await client.gone()


async def test_a_tunnel_ends_when_the_client_resets() -> None:
    ended = asyncio.Event()

    async def script(side: Side) -> None:
        await side.head()
        await side.say(SWITCHED)
        await side.until_end()
        ended.set()

    async with through(script) as client:
        await client.send(UPGRADE)
        await client.answer()
        client.writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 10)


async def test_a_tunnel_holds_back_the_faster_side() -> None:
    size = 40_000_000
    counted = 0

    async def script(side: Side) -> None:
        nonlocal counted
        await side.head()
        await side.say(SWITCHED)
        while counted < size:
            await side.say(b"x" * 100_000)
            counted += 100_000

    async with through(script) as client:
        await client.send(UPGRADE)
        await client.answer()
        client.writer.transport.pause_reading()
        await at_rest(lambda: counted)
        assert counted < size
        client.writer.transport.resume_reading()
        got = 0
        while data := await client.reader.read(1 << 20):
            got += len(data)
        assert got == size


class Still:
    """A `Duplex` on which nothing ever comes, until it is closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        await self.closed.wait()
        return b""

    async def write(self, data: bytes) -> None:
        raise AssertionError("nothing was to be written")

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.closed.set()


async def test_a_silent_tunnel_is_closed() -> None:
    assert await tunnel(Still(), Still(), idle_s=0.05) == (0, 0)


async def test_a_refused_upgrade_is_an_answer_like_any_other() -> None:
    async def script(side: Side) -> None:
        for _ in range(2):
            await side.head()
            await side.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")

    async with through(script) as client:
        for _ in range(2):
            await client.send(UPGRADE)
            assert (await client.answer()).body == b"no"


async def test_websocket_between_real_peers() -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data[::-1])
            else:
                await socket.send_str(message.data.upper())
        codes.put_nowait(socket.close_code)
        return socket

    app = web.Application()
    app.router.add_get("/ws", talk)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    origin = HttpOrigin(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with listening(passing(origin)) as listener, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{listener.port}/ws"
            async with session.ws_connect(url, protocols=("chat",), compress=15, max_msg_size=0) as socket:
                assert socket.protocol == "chat"
                await socket.send_str("hello")
                assert await socket.receive_str(timeout=10) == "HELLO"
                big = os.urandom(3_000_000)
                await socket.send_bytes(big)
                assert await socket.receive_bytes(timeout=10) == big[::-1]
                await socket.close(code=4000)
            assert await codes.get() == 4000
    finally:
        await origin.close()
        await runner.cleanup()


# --- memory ---
def _resident_kib(pid: int, what: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1])


@pytest.mark.e2e
async def test_256_mib_each_way_in_bounded_memory() -> None:
    """A slow reader and a slow origin: what waits, waits in the kernel, not here."""
    size, piece = 256 << 20, b"x" * (1 << 18)

    async def script(side: Side) -> None:
        head = await side.head()
        if head.startswith("GET"):
            await side.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // len(piece)):
                await side.say(piece)
            await side.head()
        await asyncio.sleep(0.3)  # let the upload pile up wherever it can
        got = 0
        while got < size:
            got += len(await side.reader.read(1 << 20))
        await side.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with scripted(script) as (origin, _):
        proxy = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.passing", origin.url, stdout=asyncio.subprocess.PIPE
        )
        assert proxy.stdout is not None
        try:
            port = int(await proxy.stdout.readline())
            before = _resident_kib(proxy.pid, "VmRSS")
            async with await RawClient.connect(port) as client:
                await client.send(GET)
                assert (await client.head()).get("content-length") == str(size)
                client.writer.transport.pause_reading()
                await asyncio.sleep(0.3)  # let the download pile up wherever it can
                client.writer.transport.resume_reading()
                got = 0
                while got < size:
                    got += len(await client.reader.read(1 << 20))
                await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
                for _ in range(size // len(piece)):
                    await client.send(piece)
                assert (await client.answer()).body == b"ok"
            grown = _resident_kib(proxy.pid, "VmHWM") - before
            assert grown < 32 * 1024, f"grew by {grown} KiB"
        finally:
            proxy.kill()
            await proxy.wait()
            proxy._transport.close()
