"""Edges that apply nothing: they subscribe, follow and acknowledge with as little work as can be, thousands at once.

And callers that purge over kept-alive connections. Both are protocols straight on the event loop: what is measured is
the coordinator, not its clients. Frames are read as they come, whole or in parts; nothing is verified beyond that
numbers follow each other, since a gap would make the figures worthless.
"""

import asyncio
import json
import struct
import time
from collections.abc import Callable
from typing import cast

PURGES = b'{"type":"purges"'
_SEQUENCE = b'"seq":'


class Gap(AssertionError):
    """Entries came that do not follow those before."""


def masked(text: bytes) -> bytes:
    """A client's text frame, masked with zeros (RFC 6455 §5.3)."""
    size = len(text)
    head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0x80 | 126, size)
    return head + b"\0\0\0\0" + text


def frames(buffer: bytearray) -> list[bytes]:
    """The whole frames at the start of the buffer, which are taken from it."""
    found = []
    at = 0
    while len(buffer) - at >= 2:
        size, head = buffer[at + 1] & 0x7F, 2
        if size == 126:
            head = 4
            if len(buffer) - at < head:
                break
            size = int.from_bytes(buffer[at + 2 : at + 4], "big")
        elif size == 127:
            head = 10
            if len(buffer) - at < head:
                break
            size = int.from_bytes(buffer[at + 2 : at + 10], "big")
        if len(buffer) - at < head + size:
            break
        found.append(bytes(buffer[at + head : at + head + size]))
        at += head + size
    del buffer[:at]
    return found


class LightEdge(asyncio.Protocol):
    """One subscription."""

    def __init__(self, name: str, token: str, *, reached: Callable[[int], None] = lambda _: None) -> None:
        self.name = name
        self._token = token
        self._reached = reached
        self._buffer = bytearray()
        self._upgraded = False
        self.log: str | None = None
        self.position = 0
        self.time = 0.0
        self.heard = 0
        """Entries."""
        self.transport: asyncio.Transport | None = None
        self.welcome: asyncio.Future[None] | None = None
        self.lost = False

    async def connect(self, port: int) -> None:
        """Until the welcome is here."""
        loop = asyncio.get_running_loop()
        self.welcome = loop.create_future()
        self._buffer.clear()
        self._upgraded = self.lost = False
        await loop.create_connection(lambda: self, "127.0.0.1", port)
        await self.welcome

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        hello = {"type": "hello", "format": 1, "edge": self.name, "instance": self.name, "version": "bench"}
        hello |= {"log": self.log, "position": self.position, "time": self.time}
        self.transport.write(
            f"GET /v1/subscribe HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        self._hello = masked(json.dumps(hello).encode())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._buffer.startswith(b"HTTP/1.1 101"):
                self._fail(bytes(self._buffer[:end]).decode())
                return
            del self._buffer[: end + 4]
            self._upgraded = True
            assert self.transport is not None
            self.transport.write(self._hello)
        for text in frames(self._buffer):
            self._take(text)

    def _take(self, text: bytes) -> None:
        assert self.transport is not None
        if text.startswith(PURGES):
            first = text.index(_SEQUENCE) + len(_SEQUENCE)
            last = text.rindex(_SEQUENCE) + len(_SEQUENCE)
            begin = int(text[first : text.index(b",", first)])
            end = int(text[last : text.index(b",", last)])
            if begin != self.position + 1:
                raise Gap(f"{self.name}: entry {begin} after {self.position}")
            self.heard += end - self.position
            self.position = end
            at = text.rindex(b'"time":') + 7
            self.time = float(text[at : text.index(b",", at)])
        elif text.startswith(b'{"type":"welcome"'):
            body = json.loads(text)
            self.log, self.position, self.time = body["log"], body["from"], body["from_time"]
            if self.welcome is not None and not self.welcome.done():
                self.welcome.set_result(None)
        elif not text.startswith(b'{"type":"heartbeat"'):
            self._fail(text.decode(errors="replace"))
            return
        self.transport.write(masked(b'{"type":"ack","position":%d}' % self.position))
        self._reached(self.position)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(str(error))

    def _fail(self, why: str) -> None:
        self.lost = True
        if self.welcome is not None and not self.welcome.done():
            self.welcome.set_exception(ConnectionError(f"{self.name}: {why}"))


class Caller(asyncio.Protocol):
    """One kept-alive connection that purges, one call at a time."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._buffer = bytearray()
        self._answer: asyncio.Future[bytes] | None = None
        self.transport: asyncio.Transport | None = None

    async def connect(self, port: int) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    async def purge(self, body: bytes) -> tuple[float, bytes]:
        """The seconds it took, and the answer's body. Raises ConnectionError."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        begun = time.perf_counter()
        self.transport.write(
            b"POST /v1/purge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAuthorization: Bearer "
            + self._token.encode()
            + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        answer = await self._answer
        return time.perf_counter() - begun, answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        at = head.index(b"content-length:") + 15
        size = int(head[at : head.find(b"\r\n", at) if head.find(b"\r\n", at) >= 0 else None])
        if len(self._buffer) < end + 4 + size:
            return
        answer = bytes(self._buffer[end + 4 : end + 4 + size])
        self._buffer.clear()
        if self._answer is not None and not self._answer.done():
            if head.startswith(b"http/1.1 200"):
                self._answer.set_result(answer)
            else:
                self._answer.set_exception(ConnectionError(answer.decode(errors="replace")))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(str(error)))
