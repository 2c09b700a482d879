"""The built-in feed: one WebSocket to a coordinator (RFC 6455), kept up with backoff and jitter.

It only carries: what is done with an event is the reader's affair. An event is read from the connection when it is
asked for, so an edge that is slow to apply purges slows the coordinator's sending to it and nothing else. Whatever
the coordinator sends that is not in the protocol ends the connection, with its reason told to both sides.
"""

import asyncio
import contextlib
import logging
import random
import secrets
import ssl
from collections.abc import AsyncGenerator, Callable
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from edgecache import __version__
from edgecache.http.tasks import spawn
from edgecache.purge import frames
from edgecache.purge.bus import FeedEvent, Heartbeat, LogPosition, Purges, Welcome
from edgecache.purge.frames import FrameError, Hello
from edgecache.purge.transport.pace import PACE, FeedError, Pace, reconnecting
from edgecache.purge.transport.trouble import trouble

_log = logging.getLogger("edgecache.purge")

PATH: Final = "/v1/subscribe"
SILENT_BEATS: Final = 3
"""Heartbeats that may be missed before a connection counts as lost."""
MAX_REASON_BYTES: Final = 123
"""Of a close frame's reason (RFC 6455 §5.5)."""


class WebSocketFeed:
    """Belongs to one event loop and one reader."""

    def __init__(
        self,
        url: str,
        *,
        edge: str,
        token: Callable[[], str | None],
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        pace: Pace = PACE,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`url`: of the coordinator, such as https://purge.internal:8090. `token` and `tls` are asked before each
        connection, so that new ones are taken up; what they raise as OSError or ValueError counts as no connection."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// URL")
        self._url = url.rstrip("/") + PATH
        self._edge = edge
        self._instance = secrets.token_hex(8)
        self._token = token
        self._tls = tls
        self._pace = pace
        self._chance = chance
        self._closing = asyncio.Event()
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._session: aiohttp.ClientSession | None = None
        self._acked = 0
        self._to_ack = asyncio.Event()

    def ack(self, sequence: int) -> None:
        self._acked = sequence
        self._to_ack.set()

    async def close(self) -> None:
        self._closing.set()
        if self._ws is not None:
            await self._ws.close(code=aiohttp.WSCloseCode.GOING_AWAY, message=b"the edge stops")
        if self._session is not None:
            await self._session.close()

    def events(self, position: Callable[[], LogPosition | None]) -> AsyncGenerator[FeedEvent, None]:
        return reconnecting(lambda: self._connection(position), self._closing, self._pace, self._chance)

    async def _connection(self, position: Callable[[], LogPosition | None]) -> AsyncGenerator[FeedEvent, None]:
        """One connection's events. Ends by `FeedError`, or without where the feed is closed."""
        headers = {}
        try:
            token, tls = self._token(), self._tls()
        except (OSError, ValueError) as error:
            raise FeedError(str(error)) from None
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with aiohttp.ClientSession(trust_env=False) as session:
            self._session = session
            self._to_ack.clear()
            self._acked = 0  # what was applied before is in the position
            try:
                ws = await self._open(session, headers, tls)
                try:
                    self._ws = ws
                    async for event in self._talk(ws, position):
                        yield event
                finally:
                    self._ws = None
                    with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):
                        await ws.close()
            except (aiohttp.ClientError, OSError, RuntimeError) as error:  # RuntimeError: closed meanwhile
                if not self._closing.is_set():
                    raise FeedError(self._why(error)) from None
            finally:
                self._session = None

    def _why(self, error: BaseException) -> str:
        return trouble(error, tls=self._url.startswith("https:"))

    async def _open(
        self, session: aiohttp.ClientSession, headers: dict[str, str], tls: ssl.SSLContext | None
    ) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(self._pace.connect_s):
                return await session.ws_connect(
                    self._url,
                    headers=headers,
                    ssl=tls if tls is not None else True,
                    max_msg_size=frames.MAX_DOWN_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                    autoping=True,
                )
        except aiohttp.WSServerHandshakeError as error:
            raise FeedError(_refused(error.status)) from None
        except TimeoutError:
            raise FeedError(f"no connection within {self._pace.connect_s:g} s") from None

    async def _talk(
        self, ws: aiohttp.ClientWebSocketResponse, position: Callable[[], LogPosition | None]
    ) -> AsyncGenerator[FeedEvent, None]:
        await ws.send_str(frames.hello_frame(Hello(self._edge, self._instance, __version__, position())))
        event = await self._receive(ws, self._pace.connect_s)
        if event is None:
            return
        if not isinstance(event, Welcome):
            raise await self._wrong(ws, "no welcome")
        acks = spawn(self._send_acks(ws), "purge-acks")
        expected = event.position.sequence + 1
        patience = event.heartbeat_s * SILENT_BEATS
        try:
            while True:
                match event:
                    case Purges():
                        if event.entries[0].sequence != expected:
                            raise await self._wrong(ws, f"entry {event.entries[0].sequence} instead of {expected}")
                        expected = event.entries[-1].sequence + 1
                    case Heartbeat():
                        if event.head != expected - 1:
                            raise await self._wrong(ws, f"a head of {event.head} instead of {expected - 1}")
                    case Welcome():
                        if event.position.sequence + 1 != expected:
                            raise await self._wrong(ws, "a second welcome")
                yield event
                if isinstance(event, Heartbeat):
                    self._to_ack.set()  # a sign of life
                event = await self._receive(ws, patience)
                if event is None:
                    return
                if isinstance(event, Welcome):
                    raise await self._wrong(ws, "a second welcome")
        finally:
            acks.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await acks

    async def _receive(
        self, ws: aiohttp.ClientWebSocketResponse, patience: float
    ) -> Welcome | Purges | Heartbeat | None:
        """None: this feed is being closed. Raises `FeedError`."""
        try:
            message = await ws.receive(timeout=patience)
        except TimeoutError:
            raise FeedError(f"nothing heard from the coordinator for {patience:g} s") from None
        match message.type:
            case aiohttp.WSMsgType.TEXT:
                try:
                    return frames.down(message.data)
                except FrameError as error:
                    raise await self._wrong(ws, str(error)) from None
            case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED:
                if self._closing.is_set():
                    return None
                said = f": {message.extra}" if isinstance(message.extra, str) and message.extra else ""
                raise FeedError(f"the coordinator closed the connection{said}")
            case aiohttp.WSMsgType.ERROR:
                raise FeedError(self._why(message.data))
            case _:
                raise await self._wrong(ws, "a message that is not text")

    async def _wrong(self, ws: aiohttp.ClientWebSocketResponse, what: str) -> FeedError:
        """Tell the coordinator too."""
        with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):
            await ws.close(code=aiohttp.WSCloseCode.PROTOCOL_ERROR, message=close_reason(what))
        return FeedError(f"the coordinator does not keep to the protocol: {what}")

    async def _send_acks(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """The newest only: it stands for those before it."""
        with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):  # the reader hears of it
            while True:
                await self._to_ack.wait()
                self._to_ack.clear()
                await ws.send_str(frames.ack_frame(self._acked))


def client_context(
    ca_file: str | None = None, cert: str | None = None, key: str | None = None, *, verify: bool = True
) -> ssl.SSLContext:
    """TLS towards a coordinator: whom to trust, and for mutual TLS what to show. Raises ValueError, which names the
    file."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # SSLError is one
        raise ValueError(f"tls.ca_file, {ca_file}, cannot be used: {_file_error(error)}") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        try:
            context.load_cert_chain(cert, key, password="")
        except OSError as error:
            files = cert if key is None else f"{cert} with tls.key, {key}"
            raise ValueError(f"tls.cert, {files}, cannot be used: {_file_error(error)}") from None
    return context


def _file_error(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM file").replace("_", " ").lower()
    return error.strerror or str(error)


def close_reason(text: str) -> bytes:
    """As a close frame can hold it."""
    return text.encode()[:MAX_REASON_BYTES].decode(errors="ignore").encode()


def _refused(status: int) -> str:
    if status == 401:
        return "the coordinator does not accept this edge's token (purge.token_file)"
    if status == 403:
        return (
            "the coordinator does not let this edge subscribe: its token (purge.token_file) is without the scope edge, "
            "or it shows no certificate (purge.tls.cert)"
        )
    return f"the coordinator answered with status {status} instead of a subscription"
