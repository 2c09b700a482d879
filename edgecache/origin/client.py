"""An HTTP/1.1 client for one origin: a pool of kept-alive connections, newest used first.

Knows one URL, and neither caching nor other origins. Errors are `OriginError`s whose `code` tells them apart.
"""

import asyncio
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

from edgecache._native.http1 import Limits, encode_request_head
from edgecache.http.errors import OriginRefused, OriginReset, OriginTimeout, OriginUnavailable
from edgecache.http.message import BodyStream, Request, Response
from edgecache.http.sweep import Sweeper
from edgecache.http.wire import Round
from edgecache.origin.api import OriginResponse, Timeouts
from edgecache.origin.connection import ClientResponse, OriginConnection, unsent

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 §9.2.2
BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})
"""Methods that send Content-Length: 0 for an empty body (RFC 9110 §8.6)."""
RESPONSE_LIMITS = {"request_line": 16384, "field_line": 65536, "head": 262144, "fields": 256}
"""An origin is less of a stranger than a client: long cookies and policies pass."""
SHUTDOWN_S = 1.0
"""For the TLS good-bye of an idle connection."""

_FRAMING = frozenset({"content-length", "transfer-encoding"})


class HttpOrigin:
    """One origin (`Origin`). Belongs to the event loop it is first used on."""

    def __init__(
        self,
        url: str,
        *,
        timeouts: Timeouts | None = None,
        max_connections: int = 256,
        max_waiters: int = 1024,
        wait_s: float = 5.0,
        host: str | None = None,
        verify: bool = True,
        ca_file: str | None = None,
        server_name: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`url`: scheme://host[:port]. `host` replaces the request's own Host, where given; `server_name` is what
        SNI asks for and the certificate must name (default: the URL's host); `ca_file` replaces the system's CAs.
        `wait_s`: how long a request waits for one of `max_connections`. ValueError for a URL that is none."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
            raise ValueError(f"not an origin's URL: {url!r}")
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError(f"an origin's URL ends after the port: {url!r}")
        self.url = url
        self.timeouts = timeouts or Timeouts()
        self._address = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        self._max_connections = max_connections
        self._max_waiters = max_waiters
        self._wait_s = wait_s
        self._host = host
        self._limits = limits or Limits(**RESPONSE_LIMITS)
        self._tls: ssl.SSLContext | None = None
        self._server_name: str | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=ca_file)
            if not verify:
                self._tls.check_hostname = False
                self._tls.verify_mode = ssl.CERT_NONE
            self._server_name = server_name or parts.hostname
        self._idle: list[OriginConnection] = []
        self._waiters: deque[asyncio.Future[OriginConnection | None]] = deque()
        self._open = 0
        self._closed = False
        self._sweeper: Sweeper | None = None
        self._round: Round | None = None

    # --- figures ---
    @property
    def open_connections(self) -> int:
        return self._open

    @property
    def idle_connections(self) -> int:
        return len(self._idle)

    # --- Origin ---
    async def send(
        self,
        request: Request,
        body: BodyStream,
        *,
        on_interim: Callable[[Response], None] | None = None,
    ) -> OriginResponse:
        head = self._encode(request, body)
        may_retry = body.length == 0 and request.method in IDEMPOTENT
        connection = self._newest_idle(checked=not may_retry) or await self._place()
        try:
            return await connection.exchange(request, head, body, on_interim)
        except OriginReset:
            # RFC 9112 §9.3.1: closed while it was idle, and told only now.
            if not (may_retry and connection.reused and not connection.received):
                raise
        self._drop_newest_idle()
        self._open += 1
        connection = await self._connect()
        return await connection.exchange(request, head, body, on_interim)

    async def close(self) -> None:
        self._closed = True
        for connection in self._idle:
            connection.transport.close()
        self._idle.clear()

    def _encode(self, request: Request, body: BodyStream) -> bytes:
        """The head's octets; framing by the body (RFC 9112 §6.3), all else as given."""
        length = body.length
        lines: list[tuple[str, str]] = []
        told = False
        headers = request.headers
        if self._host is None and length == 0 and request.method not in BODY_EXPECTED and not headers.touch(_FRAMING):
            return encode_request_head(request.method, request.target, headers.lines)
        for name, line in zip(headers.names, headers.lines, strict=True):
            if name not in _FRAMING:
                if name == "host" and self._host is not None:
                    line = (line[0], self._host)  # noqa: PLW2901 - this line, with the override
                lines.append(line)
            elif name == "content-length" and not told and line[1] == str(length):
                lines.append(line)
                told = True
        if length is None:
            lines.append(("Transfer-Encoding", "chunked"))
        elif not told and (length or request.method in BODY_EXPECTED):
            lines.append(("Content-Length", str(length)))
        return encode_request_head(request.method, request.target, lines)

    # --- the pool ---
    @property
    def sweeper(self) -> Sweeper:
        if self._sweeper is None:
            t = self.timeouts
            period_s = Sweeper.period_for(t.first_byte_s, t.between_bytes_s, t.idle_s)
            self._sweeper = Sweeper(asyncio.get_running_loop(), period_s)
        return self._sweeper

    @property
    def round(self) -> Round:
        if self._round is None:
            self._round = Round(asyncio.get_running_loop())
        return self._round

    def _newest_idle(self, *, checked: bool) -> OriginConnection | None:
        """`checked`: the request cannot be sent twice, so look whether the origin has closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and not (checked and _has_news(connection)):
                return connection
            connection.drop()
        return None

    def _drop_newest_idle(self) -> None:
        """Its place is wanted for a fresh connection."""
        if self._idle:
            self._idle.pop().drop()

    async def _place(self) -> OriginConnection:
        """A new connection, or whichever is free first."""
        if self._open < self._max_connections:
            self._open += 1
            return await self._connect()
        if len(self._waiters) >= self._max_waiters:
            raise OriginUnavailable("too many requests wait for a connection to the origin", code="origin-queue-full")
        given = await self._wait_turn()
        if given is None:
            return await self._connect()
        if given.usable:
            return given
        self._open += 1
        return await self._connect()

    async def _wait_turn(self) -> OriginConnection | None:
        """A connection somebody gave back, or None with a place for a new one."""
        turn: asyncio.Future[OriginConnection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came at the same moment
                connection = turn.result()
                if connection is not None:
                    self.give_back(connection)
                else:
                    self._free_place()
            elif turn in self._waiters:
                self._waiters.remove(turn)
            if isinstance(error, TimeoutError):
                detail = f"no connection to the origin was free within {self._wait_s:g} s"
                raise OriginUnavailable(detail, code="origin-queue-timeout") from None
            raise

    async def _connect(self) -> OriginConnection:
        """A new connection in a place already counted."""
        loop = asyncio.get_running_loop()
        connection = OriginConnection(self, self._limits, loop)
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                await loop.create_connection(
                    lambda: cast("asyncio.BaseProtocol", connection),
                    *self._address,
                    ssl=self._tls,
                    server_hostname=self._server_name,
                    ssl_handshake_timeout=self.timeouts.connect_s if self._tls is not None else None,
                    ssl_shutdown_timeout=SHUTDOWN_S if self._tls is not None else None,
                )
        except BaseException as error:
            self._free_place()
            if isinstance(error, TimeoutError):
                late = OriginTimeout(
                    f"no connection to the origin within {self.timeouts.connect_s:g} s", code="origin-connect-timeout"
                )
                late.before_bytes = True
                raise late from error
            if isinstance(error, OSError | UnicodeError):
                raise _refusal(error) from error
            raise
        if connection.lost:
            self._free_place()
            raise unsent()
        connection.counted = True
        return connection

    def give_back(self, connection: OriginConnection) -> None:
        """A connection whose exchange is over, or that is found dead while idle."""
        if not connection.usable:
            if connection in self._idle:
                self._idle.remove(connection)
            return
        if self._closed:
            connection.transport.close()
            return
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        connection.rest(self.timeouts.idle_s)
        self._idle.append(connection)

    def lost(self, connection: OriginConnection) -> None:
        if not connection.busy and connection in self._idle:
            self._idle.remove(connection)
        if connection.counted:
            self._free_place()

    def _free_place(self) -> None:
        if self._open <= self._max_connections:
            while self._waiters:
                turn = self._waiters.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._open -= 1


def _has_news(connection: OriginConnection) -> bool:
    """Has an idle connection's socket something to read? It can only be the end, or an answer to nothing."""
    sock = connection.transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))


def _refusal(error: OSError | UnicodeError) -> OriginRefused:
    match error:
        case ssl.SSLError():
            reason = getattr(error, "verify_message", None) or error.reason or "handshake failed"
            return OriginRefused(f"TLS with the origin failed: {reason}", code="origin-tls")
        case socket.gaierror() | UnicodeError():
            return OriginRefused("the origin's name does not resolve", code="origin-dns")
        case ConnectionRefusedError():
            return OriginRefused("the origin refused the connection", code="origin-refused")
        case _:
            detail = error.strerror or "connection failed"
            return OriginRefused(f"the origin cannot be reached: {detail}", code="origin-unreachable")


__all__ = ["ClientResponse", "HttpOrigin"]
