"""One connection to an origin: a request goes out, its response comes in, one after the other, nothing pipelined.

The request's body is sent by a task of its own, so that the response may begin, and end, before the body does. What
breaks is told once, as an `OriginError` that says how; a connection on which anything broke is never used again.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from edgecache._native.http1 import (
    MAX_EVENT,
    End,
    FramingError,
    Limits,
    ResponseDecoder,
    ResponseHead,
    encode_chunk,
    encode_last_chunk,
)
from edgecache.http.clock import wall_clock
from edgecache.http.errors import HttpError, OriginError, OriginMalformed, OriginReset, OriginTimeout, RequestError
from edgecache.http.headers import Headers
from edgecache.http.message import BodyStream, Duplex, EmptyBody, Request, Response
from edgecache.http.sweep import NEVER, Sweeper
from edgecache.http.tasks import spawn
from edgecache.http.wire import READ_AHEAD, RawDuplex, Round, Wire
from edgecache.origin.api import Timeouts

CONTINUE_WAIT_S = 1.0
"""For a 100 from an origin before the body is sent anyway (RFC 9110 §10.1.1: not indefinitely)."""
MOST_INTERIM = 32
"""Interim responses to one request; no honest origin sends more."""
JOIN_BYTES = 16 * 1024
"""Up to here a chunk is copied between its framing; above it three buffers are cheaper than a copy."""

EMPTY = EmptyBody()


def unsent() -> OriginReset:
    """The connection was gone before anything was sent on it."""
    error = OriginReset("the origin closed the connection before the request", code="origin-reset")
    error.before_bytes = True
    return error


class Keeper(Protocol):
    """Who owns connections between exchanges: the pool."""

    @property
    def sweeper(self) -> Sweeper: ...
    @property
    def round(self) -> Round: ...
    @property
    def timeouts(self) -> Timeouts: ...

    def give_back(self, connection: "OriginConnection") -> None:
        """The exchange is over and the connection may be used again."""
        ...

    def lost(self, connection: "OriginConnection") -> None:
        """The connection is gone. Called once for each."""
        ...


class OriginConnection(Wire):
    """The protocol of one connection. `busy` from `exchange` to the end of its response."""

    __slots__ = (
        "_decoder",
        "_eof_told",
        "_fault",
        "_go_ahead",
        "_head",
        "_keep_alive",
        "_keeper",
        "_read_limit",
        "_reading_head",
        "_sender",
        "_sent",
        "_sweeper",
        "_timeouts",
        "_write_limit",
        "busy",
        "counted",
        "deadline",
        "received",
        "reused",
        "sent_at",
    )

    def __init__(self, keeper: Keeper, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._keeper = keeper
        self._sweeper = keeper.sweeper
        self._timeouts = keeper.timeouts
        self._decoder = ResponseDecoder(limits)
        self.deadline = NEVER
        self._read_limit = NEVER
        self._write_limit = NEVER
        self.busy = False
        self.counted = False
        """The pool's: it holds a place there."""
        self.reused = False
        """Has it served an exchange before? Then the origin may have closed it meanwhile."""
        self.received = False
        """Has an octet of this exchange's response arrived?"""
        self.sent_at = 0.0
        """When this exchange's request was sent; wall clock."""
        self._head = b""
        self._reading_head = False
        self._keep_alive = False
        self._sent = True
        self._eof_told = False
        self._fault: HttpError | None = None
        self._sender: asyncio.Task[None] | None = None
        self._go_ahead: asyncio.Future[None] | None = None

    # --- events ---
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._sweeper.add(self)

    def data_received(self, data: bytes) -> None:
        if not self.busy:  # an answer to nothing: whatever it is, the next request must not get it
            self._forget()
            return
        self.received = True
        self._decoder.feed(data)
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)
        elif self._decoder.buffered > READ_AHEAD:
            # Also where somebody has been told: the loop may read many times before that one has its turn.
            self.pause_reading()

    def eof_received(self) -> bool:
        half_open = super().eof_received()
        if not self.busy:
            self._forget()
            return False
        return half_open

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._sweeper.discard(self)
        self._keeper.lost(self)

    def _forget(self) -> None:
        """Out of the pool at once, not only when the loop comes to tell of the loss."""
        self._keep_alive = False
        self._keeper.give_back(self)
        self.transport.abort()

    @property
    def usable(self) -> bool:
        """May another request be sent on it?"""
        return self._keep_alive and not (self.lost or self.eof or self.transport.is_closing())

    # --- time limits ---
    def expire(self) -> None:
        timeouts, now = self._timeouts, self._sweeper.tick
        if self._write_limit <= now:
            self._fail_with(
                OriginTimeout(f"the origin took nothing for {timeouts.between_bytes_s:g} s", code="origin-send-timeout")
            )
        elif not self.busy:
            self._forget()
        elif self._reading_head:
            self._fail_with(
                OriginTimeout(f"no answer within {timeouts.first_byte_s:g} s", code="origin-first-byte-timeout")
            )
        else:
            self._fail_with(
                OriginTimeout(f"nothing came for {timeouts.between_bytes_s:g} s", code="origin-between-bytes-timeout")
            )
        self.deadline = NEVER

    def _limit_reading(self, limit_s: float) -> None:
        self._read_limit = deadline = self._sweeper.base + limit_s
        self.deadline = min(deadline, self._write_limit)

    def rest(self, idle_s: float) -> None:
        """Idle in the pool, for so long."""
        self._limit_reading(idle_s)

    def _fail_with(self, fault: HttpError) -> None:
        """What the reader is told once it has read what had arrived before."""
        if self._fault is None:
            self._fault = fault
        if not self.lost:
            self.transport.abort()
        self.wake()

    # --- one exchange ---
    async def exchange(
        self,
        request: Request,
        head: bytes,
        body: BodyStream,
        on_interim: Callable[[Response], None] | None,
    ) -> "ClientResponse":
        """Send, and return when the final head has arrived. On any error the connection is dropped."""
        try:
            self._begin(request, head, body)
            for _ in range(MOST_INTERIM + 1):
                answer = await self._event(None)
                assert isinstance(answer, ResponseHead)
                response = Response(answer.status, answer.reason, Headers(answer.lines), answer.version)
                if answer.status >= 200:
                    return self._final(answer, response)
                if answer.status == 101:
                    return self._switched(request, response)
                if answer.status == 100:
                    if self._go_ahead is not None and not self._go_ahead.done():
                        self._go_ahead.set_result(None)
                elif on_interim is not None:
                    on_interim(response)
            raise OriginMalformed("too many interim responses", code="origin-malformed")
        except BaseException:
            self.drop()
            raise

    def _begin(self, request: Request, head: bytes, body: BodyStream) -> None:
        self.busy = True
        self.received = False
        self._keep_alive = False
        self._sent = body.length == 0
        self._decoder.begin(request.method)
        if self.lost or self.transport.is_closing():
            raise unsent()
        self._reading_head = True
        if self._sent:
            self._head = head
            self._keeper.round.add(self._write_head)
            self._limit_reading(self._timeouts.first_byte_s)
        else:
            self.sent_at = wall_clock()
            self.transport.write(head)
            self._read_limit = self.deadline = NEVER
            expects = (request.headers.get("expect") or "").lower() == "100-continue"
            self._go_ahead = self.loop.create_future() if expects else None
            self._sender = spawn(self._send(body, self._go_ahead), "origin-request-body")

    def _write_head(self) -> None:
        if not (self.lost or self.transport.is_closing()):
            self.sent_at = wall_clock()
            self.transport.write(self._head)

    def _final(self, head: ResponseHead, response: Response) -> "ClientResponse":
        self._reading_head = False
        self._read_limit = NEVER
        self.deadline = self._write_limit
        self._keep_alive = head.keep_alive
        if not self._sent:
            unwanted = not head.keep_alive and head.status >= 400  # RFC 9112 §9.5
            unasked = self._go_ahead is not None and not self._go_ahead.done()  # RFC 9110 §10.1.1
            if unwanted or unasked:
                self._stop_sending()
        if head.content_length == 0:
            self._event_now()
            self.complete()
            return ClientResponse(response, EMPTY, None, self.sent_at)
        return ClientResponse(response, OriginBody(self, head.content_length), None, self.sent_at)

    def _switched(self, request: Request, response: Response) -> "ClientResponse":
        if "upgrade" not in request.headers or not self._sent:
            raise OriginMalformed("101 to a request that offered no Upgrade", code="origin-malformed")
        self.deadline = self._read_limit = NEVER
        duplex = RawDuplex(self, self._decoder.take_rest(), self.connection_lost)
        return ClientResponse(response, EMPTY, duplex, self.sent_at)

    async def _event(self, limit_each_s: float | None) -> ResponseHead | bytes | End:
        """The next event. `limit_each_s`: for each wait, where the request is sent and the origin's turn is on."""
        while (event := self._event_now()) is None:
            if self._fault is not None:
                raise self._fault
            if self.error is not None:
                raise OriginReset("the origin reset the connection", code="origin-reset") from self.error
            if self.eof or self.lost:
                if self._eof_told:
                    raise OriginReset("the origin closed within its answer", code="origin-early-eof")
                self._eof_told = True
                self._decoder.feed_eof()
                continue
            if limit_each_s is not None and self._sent:
                self._limit_reading(limit_each_s)
            await self.wait_for_data()
        return event

    def _event_now(self) -> ResponseHead | bytes | End | None:
        try:
            return self._decoder.next()
        except FramingError as error:
            if self._fault is not None:
                raise self._fault from error
            if self._eof_told:
                what = "the origin closed within its answer" if self.received else "the origin closed without an answer"
                raise OriginReset(what, code="origin-early-eof") from error
            raise OriginMalformed(
                f"the origin's answer is malformed: {error.detail}", code="origin-malformed"
            ) from error

    # --- the request's body ---
    async def _send(self, body: BodyStream, go_ahead: asyncio.Future[None] | None) -> None:
        length, moved = body.length, 0
        try:
            if go_ahead is not None:
                await asyncio.wait([go_ahead], timeout=CONTINUE_WAIT_S)
            while data := await body.read():
                if self.lost:
                    return
                moved += len(data)
                if length is None:
                    self._send_chunk(data)
                elif moved > length:
                    raise RequestError("the request's body is longer than announced")
                else:
                    self.transport.write(data)
                if self.write_paused:
                    await self._drain_in_time()
            if self.lost:
                return
            if length is None:
                self.transport.write(encode_last_chunk(body.trailers.lines if body.trailers is not None else ()))
            elif moved != length:
                raise RequestError("the request's body is shorter than announced")
            self._sent = True
            if self._reading_head:
                self._limit_reading(self._timeouts.first_byte_s)
            elif self._reader is not None:
                self._limit_reading(self._timeouts.between_bytes_s)
        except HttpError as error:  # the client's side: whoever waits for the answer is told that
            self._fail_with(error)
        except Exception as error:
            self._fail_with(OriginError(f"the request's body failed: {type(error).__name__}", status=500))
            raise

    def _send_chunk(self, data: bytes) -> None:
        if len(data) <= JOIN_BYTES:
            self.transport.write(encode_chunk(data))
        else:
            self.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    async def _drain_in_time(self) -> None:
        self._write_limit = self._sweeper.after(self._timeouts.between_bytes_s)
        self.deadline = min(self._read_limit, self._write_limit)
        await self.drain()
        self._write_limit = NEVER
        self.deadline = self._read_limit

    def _stop_sending(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None

    # --- the end of an exchange ---
    async def body_event(self) -> bytes | End:
        """The next event; waits for it between octets' limit at most."""
        event = await self._event(self._timeouts.between_bytes_s)
        assert not isinstance(event, ResponseHead)
        return event

    def body_event_now(self) -> bytes | End | None:
        """What has arrived already; an error is left for the next `body_event`."""
        try:
            event = self._decoder.next()
        except FramingError:
            return None
        assert not isinstance(event, ResponseHead)
        return event

    def complete(self) -> None:
        """The response has been read to its end."""
        if not self._sent:
            self._keep_alive = False  # a response before the request was over: nobody knows what comes next
        self._stop_sending()
        self._read_limit = self._write_limit = NEVER
        self.deadline = NEVER
        if self.usable and self._decoder.idle:
            self.busy = False
            self.reused = True
            if self.read_paused:
                self.resume_reading()
            self._keeper.give_back(self)
        else:
            self.drop()

    def drop(self) -> None:
        """Never use it again."""
        self._stop_sending()
        self._keep_alive = False
        if not self.lost:
            self.transport.abort()


class OriginBody:
    """A response body on its way (`BodyStream`)."""

    __slots__ = ("_connection", "_error", "_held", "length", "trailers")

    def __init__(self, connection: OriginConnection, length: int | None) -> None:
        self._connection: OriginConnection | None = connection
        self._held = b""
        self._error: HttpError | None = None
        self.length = length
        self.trailers: Headers | None = None

    async def read(self) -> bytes:
        connection = self._connection
        if self._held:
            first: bytes | End = self._held
            self._held = b""
        elif connection is None:
            if self._error is not None:
                raise self._error
            return b""
        elif (ready := connection.body_event_now()) is not None:
            first = ready
        else:
            try:
                first = await connection.body_event()
            except HttpError as error:
                self._error = error
                self._connection = None
                connection.drop()
                raise
        if isinstance(first, End):
            self._finish(first)
            return b""
        return self._more(first)

    def _more(self, first: bytes) -> bytes:
        """`first` and what else has arrived: the end too, so that the connection is free before the last read."""
        connection = self._connection
        if connection is None:
            return first
        parts, size = [first], len(first)
        while (event := connection.body_event_now()) is not None:
            if isinstance(event, End):
                self._finish(event)
                break
            if size + len(event) > MAX_EVENT:
                self._held = event
                break
            parts.append(event)
            size += len(event)
        if connection.read_paused:
            connection.resume_reading()
        return first if len(parts) == 1 else b"".join(parts)

    def _finish(self, end: End) -> None:
        connection, self._connection = self._connection, None
        if end.trailers:
            self.trailers = Headers(end.trailers)
        if connection is not None:
            connection.complete()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._held = b""
        if connection is not None:
            connection.drop()


class ClientResponse:
    """A response under way (`OriginResponse`)."""

    __slots__ = ("body", "head", "sent_at", "upgraded")

    def __init__(self, head: Response, body: BodyStream, upgraded: Duplex | None, sent_at: float) -> None:
        self.head = head
        self.body = body
        self.upgraded = upgraded
        self.sent_at = sent_at
