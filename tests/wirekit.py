"""Raw ends of connections for tests: a client that sends octets as told, and what it reads back, parsed by hand."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

from edgecache.edge.connection import ClientLimits
from edgecache.edge.descriptors import Descriptors
from edgecache.edge.exchange import Exchange, Handler
from edgecache.edge.listener import Listener
from edgecache.http.headers import Headers
from edgecache.http.message import Response

PATIENCE_S = 20.0
"""How long a test waits for octets before it fails; nothing takes that long."""


@dataclass
class Answer:
    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    def names(self) -> list[str]:
        return [key.lower() for key, _ in self.fields]


class RawClient:
    """A client's socket. `answer` reads one response; `rest` everything up to the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int = 0, tls: ssl.SSLContext | None = None) -> "RawClient":
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        name = "localhost" if tls is not None else None
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name, limit=1 << 16)
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.writer.transport.abort()  # what the peer does not take any more holds up no test that has failed
        await self.close()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def line(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(b"\r\n")

    async def head(self) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            block = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        version, status, reason = first.split(" ", 2)
        assert version == "HTTP/1.1"
        fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Answer(int(status), reason, fields)

    async def answer(self, method: str = "GET") -> Answer:
        """One response, final or interim, with its body."""
        answer = await self.head()
        if method == "HEAD" or answer.status < 200 or answer.status in {204, 304}:
            return answer
        async with asyncio.timeout(PATIENCE_S):
            if answer.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    answer.body += await self.reader.readexactly(size)
                    assert await self.reader.readexactly(2) == b"\r\n"
                while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                    name, _, value = line.decode("latin-1").strip().partition(":")
                    answer.trailers.append((name, value.strip()))
            elif (length := answer.get("content-length")) is not None:
                answer.body = await self.reader.readexactly(int(length))
            else:
                answer.body = await self.reader.read()
        return answer

    async def rest(self) -> bytes:
        """Everything until the peer closes; a reset fails the test."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def gone(self) -> bool:
        """True when the peer ends the connection, by whatever way, with nothing more said."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True

    def eof(self) -> None:
        self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(PATIENCE_S):
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    await self.writer.wait_closed()
        finally:
            self.writer.transport.abort()


@contextlib.asynccontextmanager
async def listening(
    handler: Handler,
    *,
    limits: ClientLimits | None = None,
    max_connections: int = 1000,
    tls: ssl.SSLContext | None = None,
    descriptors: Descriptors | None = None,
) -> AsyncIterator[Listener]:
    """A listener on a free port of loopback, drained at the end."""
    listener = Listener(handler, limits=limits, max_connections=max_connections, descriptors=descriptors)
    await listener.start(("127.0.0.1", 0), tls)
    try:
        yield listener
    finally:
        await listener.drain(2.0)


def plain(status: int = 200, **fields: str) -> Response:
    lines = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return Response(status, "OK", Headers(lines))


async def answer(exchange: Exchange, body: bytes = b"", status: int = 200, **fields: str) -> None:
    """The simplest of handlers."""
    exchange.start(plain(status, **fields), len(body))
    await exchange.write(body)
    exchange.finish()


async def echo(exchange: Exchange) -> None:
    """Sends the body back as it comes, chunked, with its trailers."""
    exchange.start(plain(X_Method=exchange.request.method, X_Target=exchange.request.target), None)
    while data := await exchange.body.read():
        await exchange.write(data)
    exchange.finish(exchange.body.trailers)
