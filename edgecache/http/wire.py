"""One connection's flow control, whoever speaks over it: the listener, the origin client and tunnels stand on this.

Knows asyncio's transports and nothing of HTTP. One coroutine at a time may wait for input, and one for output.
Reading pauses when the owner says so and starts again when somebody waits for more; `drain` returns when the
transport can take more. Nothing here keeps time.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

READ_AHEAD = 128 * 1024
"""Octets that may lie unread before reading pauses; one read of the transport may overshoot it."""


class Wire:
    """A transport's protocol: events in, `wait_for_data` and `drain` out.

    No subclass of asyncio's: a compiled class with fields cannot be one.
    """

    __slots__ = ("_drainer", "_reader", "eof", "error", "loop", "lost", "read_paused", "transport", "write_paused")

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.eof = False
        """The peer has finished sending."""
        self.lost = False
        """The connection is gone, both ways."""
        self.error: Exception | None = None
        """Why it was lost, where that was no clean close."""
        self.read_paused = False
        self.write_paused = False
        self._reader: asyncio.Future[None] | None = None
        self._drainer: asyncio.Future[None] | None = None

    # --- events of the transport ---
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def eof_received(self) -> bool:
        self.eof = True
        self.wake()
        # True keeps our sending half open; TLS has no halves, and its transport closes by itself.
        return self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.error = exc
        self.wake()
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)

    # --- for whoever owns the connection ---
    def wake(self) -> None:
        """Let the waiting reader look again."""
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def wait_for_data(self) -> None:
        """Return when something has changed: octets, EOF, loss or `wake`. Reading goes on meanwhile."""
        if self.read_paused:
            self.resume_reading()
        self._reader = waiter = self.loop.create_future()
        try:
            await waiter
        finally:
            if self._reader is waiter:  # a cancelled waiter may run after the next one has come
                self._reader = None

    async def drain(self) -> None:
        """Return when the transport can take more, or the connection is lost: look at `lost` afterwards."""
        while self.write_paused and not self.lost:
            self._drainer = waiter = self.loop.create_future()
            try:
                await waiter
            finally:
                if self._drainer is waiter:
                    self._drainer = None

    def pause_reading(self) -> None:
        if not (self.read_paused or self.lost or self.transport.is_closing()):
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            if not (self.lost or self.transport.is_closing()):
                self.transport.resume_reading()

    def reset(self) -> None:
        """Drop the connection with a reset, so that nothing sent before can look complete to the peer."""
        if not self.lost:
            linger_none(self.transport)
            self.transport.abort()


def linger_none(transport: asyncio.BaseTransport) -> None:
    """Make the close that follows a reset (RST) instead of an orderly end."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Round:
    """Sends in a row, when the loop comes round, what many connections have to send.

    By then the other connections' steps have run. The first to be sent wakes whoever reads at the other end, and the
    rest find them awake; a wake-up costs more than sending.
    """

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Callable[[], None]] = []

    def add(self, send: Callable[[], None]) -> None:
        if not self._waiting:
            self._loop.call_soon(self._go)
        self._waiting.append(send)

    def _go(self) -> None:
        waiting, self._waiting = self._waiting, []
        for send in waiting:
            try:
                send()
            except Exception as error:  # noqa: BLE001 - one connection's failure is not the next one's
                self._loop.call_exception_handler({"message": "a connection could not send", "exception": error})


class RawDuplex(Wire):
    """`http.message.Duplex` over a transport that an HTTP protocol gave up."""

    __slots__ = ("_chunks", "_flush", "_on_lost", "_size")

    FLUSH_S = 30.0
    """How long the peer may take to accept what is left over after `close`."""

    def __init__(self, wire: Wire, rest: bytes, on_lost: Callable[[Exception | None], None]) -> None:
        """Take the transport over from `wire`; `rest` is what was read already. `on_lost` hears of the end."""
        super().__init__(wire.loop)
        self.eof = wire.eof
        self.lost = wire.lost
        self.error = wire.error
        self.read_paused = wire.read_paused
        self.write_paused = wire.write_paused
        self._chunks: deque[bytes] = deque([rest] if rest else [])
        self._size = len(rest)
        self._on_lost = on_lost
        self._flush: asyncio.TimerHandle | None = None
        self.transport = wire.transport
        if not self.lost:
            self.transport.set_protocol(cast("asyncio.BaseProtocol", self))

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= READ_AHEAD:
            self.pause_reading()
        self.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._flush is not None:
            self._flush.cancel()
        self._on_lost(exc)

    async def read(self) -> bytes:
        while not self._chunks:
            if self.error is not None:
                raise ConnectionResetError("the peer reset the connection") from self.error
            if self.eof or self.lost:
                return b""
            await self.wait_for_data()
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        if self.lost or self.transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self.transport.write(data)
        if self.write_paused:
            await self.drain()
            if self.lost:
                raise ConnectionResetError("the connection was lost while sending")

    def write_eof(self) -> None:
        if self.lost or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:  # TLS cannot end one half: what is left to send goes out, then the whole connection ends
            self.close()

    def close(self) -> None:
        if self.lost or self._flush is not None:
            return
        self._flush = self.loop.call_later(self.FLUSH_S, self.transport.abort)
        self.transport.close()
