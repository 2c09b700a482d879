"""An origin that does what a test tells it, octet by octet, and a few ways to ask it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from edgecache.http.headers import Headers
from edgecache.http.message import BodyStream, EmptyBody, Request
from edgecache.origin.api import OriginResponse, Timeouts
from edgecache.origin.client import HttpOrigin
from tests.wirekit import PATIENCE_S


class Side:
    """The origin's end of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        """Which connection this is, from 0."""
        self.reader = reader
        self.writer = writer
        self.ended = asyncio.Event()
        """The script for this connection is over: it ran out, or the client closed under it."""

    async def head(self) -> str:
        """The next request's head, as text."""
        async with asyncio.timeout(PATIENCE_S):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readexactly(size)

    async def until_end(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    def reset(self) -> None:
        from edgecache.http.wire import linger_none

        linger_none(self.writer.transport)
        self.writer.transport.abort()


Script = Callable[[Side], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(
    script: Script, *, timeouts: Timeouts | None = None, **options: object
) -> AsyncIterator[tuple[HttpOrigin, list[Side]]]:
    """An origin that runs `script` on each connection and closes it afterwards; a client for it."""
    sides: list[Side] = []
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        side = Side(len(sides), reader, writer)
        sides.append(side)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await script(side)
        finally:
            running.discard(task)
            side.ended.set()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpOrigin(f"http://127.0.0.1:{port}", timeouts=timeouts, **options)  # type: ignore[arg-type]
    try:
        yield client, sides
    finally:
        await client.close()
        server.close()
        for task in list(running):
            task.cancel()
        for side in sides:
            side.writer.transport.abort()
        await server.wait_closed()


def get(target: str = "/", method: str = "GET", *lines: tuple[str, str]) -> Request:
    return Request(method, "http", "h", target, Headers([("Host", "h"), *lines]))


async def read_all(response: OriginResponse) -> bytes:
    whole = b""
    while data := await response.body.read():
        whole += data
    assert await response.body.read() == b""
    return whole


async def fetch(
    client: HttpOrigin, request: Request | None = None, body: BodyStream | None = None
) -> tuple[int, bytes]:
    response = await client.send(request or get(), body or EmptyBody())
    return response.head.status, await read_all(response)


class Pieces:
    """A request body of unknown or known length, made of pieces a test may hold back or break."""

    def __init__(self, *pieces: bytes | Exception | asyncio.Event, length: int | None = None) -> None:
        self._pieces = list(pieces)
        self.length = length
        self.trailers: Headers | None = None
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        while self._pieces:
            match self._pieces.pop(0):
                case bytes() as data:
                    return data
                case Exception() as error:
                    raise error
                case event:
                    await event.wait()
        return b""

    def close(self) -> None:
        pass
