"""An edge's subscription over a WebSocket (RFC 6455), as the hub's `Connection`."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp import web

from edgecache.http.tasks import spawn
from edgecache.purge import frames
from edgecache.purge.bus import BusError
from edgecache.purge.coordinator.attached import Subscriber
from edgecache.purge.coordinator.hub import Hub, HubFull, Strange
from edgecache.purge.frames import Ack, FrameError, Hello
from edgecache.purge.transport.websocket import close_reason

_log = logging.getLogger("edgecache.purge")

HELLO_S: Final = 10.0
"""Within which an edge says who it is."""
CLOSE_S: Final = 2.0
TRY_LATER: Final = 1013
"""Close code: the server cannot now (IANA's WebSocket registry)."""


class EdgeConnection:
    """Owns the WebSocket's writing side."""

    def __init__(self, ws: web.WebSocketResponse, transport: asyncio.Transport, address: str) -> None:
        self._ws = ws
        self._transport = transport
        self.address = address
        self.reason = ""
        """Why it was cut."""

    def write(self, frame: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame)

    def backlog(self) -> int:
        return self._transport.get_write_buffer_size()

    async def send(self, text: str) -> None:
        try:
            await self._ws.send_str(text)
        except (aiohttp.ClientError, RuntimeError) as error:
            raise ConnectionResetError(str(error)) from None

    def cut(self, reason: str) -> None:
        if not self.reason:
            self.reason = reason
            spawn(self._end(aiohttp.WSCloseCode.GOING_AWAY, reason), "purge-cut")

    async def refuse(self, code: int, reason: str) -> None:
        self.reason = reason
        await self._end(code, reason)

    async def _end(self, code: int, reason: str) -> None:
        with contextlib.suppress(TimeoutError, OSError, RuntimeError, aiohttp.ClientError):
            async with asyncio.timeout(CLOSE_S):
                await self._ws.close(code=code, message=close_reason(reason))
        self._transport.abort()


async def serve(
    request: web.Request, hub: Hub, address: str, allowed: Callable[[], bool] = lambda: True
) -> web.StreamResponse:
    """One subscription, from its upgrade to its end. `allowed`: whether it still is."""
    ws = web.WebSocketResponse(
        timeout=CLOSE_S, max_msg_size=frames.MAX_UP_BYTES, compress=False, autoping=True, autoclose=True
    )
    try:
        await ws.prepare(request)
    except (OSError, aiohttp.ClientError):  # it has gone already
        return ws
    transport = request.transport
    if transport is None:
        return ws
    connection = EdgeConnection(ws, transport, address)
    subscriber: Subscriber | None = None
    try:
        hello = await _hello(ws)
        if hello is None:
            return ws
        subscriber = await hub.join(hello, connection, allowed)
        _log.info("edge %s has connected from %s", hello.edge, address)
        await _listen(ws, hub, subscriber)
    except (FrameError, Strange) as error:
        await connection.refuse(aiohttp.WSCloseCode.PROTOCOL_ERROR, str(error))
    except (HubFull, BusError) as error:
        await connection.refuse(TRY_LATER, str(error))
    except TimeoutError:
        await connection.refuse(aiohttp.WSCloseCode.PROTOCOL_ERROR, "no hello")
    except OSError as error:
        connection.reason = str(error)
    finally:
        if subscriber is not None:
            hub.leave(subscriber)
            why = f": {connection.reason}" if connection.reason else ""
            _log.info("edge %s at %s is no longer connected%s", subscriber.edge, address, why)
    return ws


async def _hello(ws: web.WebSocketResponse) -> Hello | None:
    """None: it has gone. Raises `FrameError` and TimeoutError."""
    message = await ws.receive(timeout=HELLO_S)
    if message.type is not aiohttp.WSMsgType.TEXT:
        if message.type is aiohttp.WSMsgType.BINARY:
            raise FrameError("a message that is not text")
        return None
    hello = frames.up(message.data)
    if not isinstance(hello, Hello):
        raise FrameError("no hello")
    return hello


async def _listen(ws: web.WebSocketResponse, hub: Hub, subscriber: Subscriber) -> None:
    """Until it goes. Raises `FrameError` and `Strange`."""
    while True:
        message = await ws.receive()
        match message.type:
            case aiohttp.WSMsgType.TEXT:
                frame = frames.up(message.data)
                if not isinstance(frame, Ack):
                    raise FrameError("a second hello")
                hub.ack(subscriber, frame.position)
            case aiohttp.WSMsgType.BINARY:
                raise FrameError("a message that is not text")
            case _:
                return
