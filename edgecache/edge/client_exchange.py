"""One exchange on an HTTP/1 connection: `Exchange` over a `ClientConnection`.

Lives from the end of a request's head to the end of its answer, and is dead afterwards: a handler that kept it can
send nothing into the next answer.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from edgecache._native.http1 import (
    End,
    FramingError,
    RequestHead,
    encode_chunk,
    encode_last_chunk,
    encode_response_head,
)
from edgecache.edge.framing import Framing, date_line, error_answer, frame, switching_lines
from edgecache.edge.secure import HSTS
from edgecache.edge.sendfile import read_file, send_file
from edgecache.http.clock import wall_clock
from edgecache.http.errors import ClientGone, HttpError, RequestError
from edgecache.http.headers import Headers
from edgecache.http.message import BodyStream, Duplex, EmptyBody, Request, Response

if TYPE_CHECKING:
    from edgecache.edge.connection import ClientConnection

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JOIN_BYTES = 16 * 1024
"""Up to here a chunk is copied between its framing; above it three pieces are cheaper than a copy."""

_EMPTY = EmptyBody()


def _nobody(_: int) -> None:
    pass


class _State(IntEnum):
    NEW = 0
    STARTED = 1
    FINISHED = 2
    CUT = 3
    """The connection was cut, or given up with the answer incomplete."""
    SWITCHED = 4


# Found once: an enum's member takes four times as long to find as a global, and each request looks twenty times.
_NEW, _STARTED, _FINISHED, _CUT, _SWITCHED = _State
_NONE, _LENGTH, _CHUNKED, _UNTIL_CLOSE = Framing


class RequestBody:
    """The body of a request, read from the connection as it is asked for (`BodyStream`)."""

    __slots__ = ("_closed", "_connection", "_expect", "broken", "done", "length", "received", "trailers")

    def __init__(self, connection: "ClientConnection", length: int | None, expect: bool) -> None:
        self._connection = connection
        self.length = length
        self.trailers: Headers | None = None
        self.done = False
        """Read to its end: the next request may follow."""
        self.broken = False
        """Cut off, malformed or too slow: nothing on this connection can be trusted any more."""
        self.received = 0
        self._expect = expect
        self._closed = False

    @property
    def unasked(self) -> bool:
        """The client waits for a 100 that was never sent: nobody can say whether a body or a request comes next."""
        return self._expect and not self._connection.decoder.buffered

    async def read(self) -> bytes:
        if self.done:
            return b""
        if self._closed:
            raise ClientGone("the body was given up")
        connection = self._connection
        decoder = connection.decoder
        if self._expect:
            self._expect = False
            # RFC 9110 §10.1.1: not needed where the body is on its way already.
            if not decoder.buffered and not connection.lost:
                connection.send(CONTINUE)
        try:
            while (event := decoder.next()) is None:
                if connection.lost or connection.eof:
                    raise ClientGone("the client closed within its request's body")
                if connection.timed_out:
                    raise RequestError("the request's body took too long", status=408, code="client-timeout")
                await connection.wait_for_body()
        except FramingError as error:
            self.broken = True
            connection.shared.counters.malformed += 1
            raise RequestError(error.detail, status=error.status, code="malformed-request") from error
        except HttpError:
            self.broken = True
            raise
        if isinstance(event, bytes):
            self.received += len(event)
            return event
        assert isinstance(event, End)
        self.done = True
        if event.trailers:
            self.trailers = Headers(event.trailers)
        return b""

    def close(self) -> None:
        self._closed = True

    async def discard(self, at_most: int) -> bool:
        """Read what is left and drop it; False where that is more than `at_most` octets or does not come."""
        self._closed = False
        try:
            while data := await self.read():
                at_most -= len(data)
                if at_most < 0:
                    return False
        except HttpError:
            return False
        return True


class ClientExchange:
    """One request and its answer (`Exchange`)."""

    __slots__ = (
        "_body",
        "_connection",
        "_framing",
        "_keep_alive",
        "_left",
        "_state",
        "body",
        "hsts",
        "received_at",
        "request",
        "started_at",
        "upgrade",
    )

    def __init__(self, connection: "ClientConnection", head: RequestHead) -> None:
        self._connection = connection
        self._state = _NEW
        self._framing = _NONE
        self._left = 0
        self._keep_alive = head.keep_alive
        self.upgrade = head.upgrade
        self.received_at = wall_clock()
        self.started_at = 0.0
        self.hsts: str | None = None
        self.request = Request(
            head.method,
            connection.scheme,
            head.host or connection.local_authority(),
            head.path,
            Headers(head.lines),
            head.version,
            connection.peer,
        )
        self._body: RequestBody | None
        self.body: BodyStream
        if head.content_length == 0:
            end = connection.decoder.next()
            assert isinstance(end, End)
            self._body = None
            self.body = _EMPTY
        else:
            self.body = self._body = RequestBody(connection, head.content_length, head.expect_continue)

    @property
    def started(self) -> bool:
        return self._state is not _NEW

    @property
    def bytes_in(self) -> int:
        return self._body.received if self._body is not None else 0

    def interim(self, response: Response) -> None:
        if self._state is not _NEW or self.request.version < (1, 1) or self._connection.lost:
            return
        # 100 answers the expectation, which is this side's affair; 101 is `switch`.
        if 101 < response.status < 200:
            head = encode_response_head(response.status, response.reason, response.headers.lines)
            self._connection.send(head)

    def start(self, response: Response, length: int | None) -> None:
        if self._state is not _NEW:
            raise RuntimeError("the answer has been started already")
        if not 200 <= response.status <= 999:
            raise ValueError("a final status is 200 to 999")
        connection = self._connection
        if connection.lost:
            raise ClientGone("the client closed before the answer")
        if self.hsts is not None:
            headers = response.headers.without({HSTS}).plus([("Strict-Transport-Security", self.hsts)])
            response = response.with_headers(headers)
        body = self._body
        keep_alive = self._keep_alive and not connection.shared.draining
        if body is not None and (body.broken or body.unasked):
            keep_alive = False
        request = self.request
        now = wall_clock()
        lines, self._framing, self._keep_alive = frame(
            response,
            length,
            method=request.method,
            version=request.version,
            keep_alive=keep_alive,
            date=date_line.at(now),
        )
        head = encode_response_head(response.status, response.reason, lines)  # ValueError: nothing was sent
        self._left = length or 0
        self._state = _STARTED
        self.started_at = now
        connection.send(head)
        if body is not None and body.unasked:
            body.close()  # RFC 9110 §10.1.1: no 100 after a final answer

    async def write(self, data: bytes) -> None:
        connection = self._connection
        if self._state is not _STARTED:
            raise self._not_open()
        if connection.lost:
            raise ClientGone("the client closed within the answer")
        framing = self._framing
        if framing is _NONE or not data:
            return
        if framing is _CHUNKED:
            if len(data) <= JOIN_BYTES:
                connection.send(encode_chunk(data))
            else:
                connection.send(b"%x\r\n" % len(data))
                connection.send(data)
                connection.send(b"\r\n")
        else:
            if framing is _LENGTH:
                self._left -= len(data)
                if self._left < 0:
                    self.abort()
                    raise ValueError("more octets than announced")
            connection.send(data)
        if connection.write_paused:
            await connection.drain()
            if connection.lost:
                raise ClientGone("the client closed or stalled within the answer")

    async def write_file(self, fd: int, offset: int, size: int, sent: Callable[[int], None] = _nobody) -> int:
        connection = self._connection
        if self._state is not _STARTED:
            raise self._not_open()
        if connection.lost:
            raise ClientGone("the client closed within the answer")
        framing = self._framing
        if framing is _NONE or size <= 0:
            return size
        if framing is _LENGTH and size > self._left:
            self.abort()
            raise ValueError("more octets than announced")
        if framing is not _CHUNKED and not connection.peer.tls:
            went = await send_file(connection, fd, offset, size, sent)
            self._left -= went
            return went
        went = 0
        while went < size and (data := await read_file(fd, offset + went, size - went)):
            await self.write(data)
            went += len(data)
            sent(len(data))
        return went

    def finish(self, trailers: Headers | None = None) -> None:
        if self._state is not _STARTED:
            raise self._not_open()
        if self._framing is _LENGTH and self._left:
            self.abort()
            return
        if self._framing is _CHUNKED:
            tail = encode_last_chunk(trailers.lines if trailers is not None else ())
            self._connection.send(tail)
        self._state = _FINISHED

    def abort(self) -> None:
        if self._state in {_FINISHED, _CUT}:
            return
        self._state = _CUT
        connection = self._connection
        if connection.lost:
            return
        if self._framing is _UNTIL_CLOSE:
            connection.reset()  # an orderly end would look like the body's end
        else:
            connection.transport.abort()

    def switch(self, response: Response) -> Duplex:
        if self._state is not _NEW:
            raise RuntimeError("the answer has been started already")
        if response.status != 101 or self.upgrade is None or (self._body is not None and not self._body.done):
            raise ValueError("a switch is a 101 to an offered Upgrade, after the request's body")
        connection = self._connection
        if connection.lost:
            raise ClientGone("the client closed before the switch")
        connection.send(encode_response_head(101, response.reason, switching_lines(response)))
        self._state = _SWITCHED
        return connection.give_up_http()

    def _not_open(self) -> Exception:
        if self._state is _CUT:
            return ClientGone("the answer was cut")
        return RuntimeError("no answer is open")

    # --- for the connection ---
    def fail(self, status: int, detail: str) -> None:
        """The handler gave up: answer for it where nothing was sent, else cut."""
        if self._state is not _NEW:
            self.abort()
            return
        response, body = error_answer(status, detail)
        try:
            self.start(response, len(body))
        except ClientGone:
            return
        if self._framing is _LENGTH:
            self._connection.send(body)
        self._connection.flush()
        self._state = _FINISHED

    async def settle(self) -> bool:
        """Bring the exchange to its end, whatever the handler left; True where another request may follow."""
        connection, body = self._connection, self._body
        if self._state is _NEW:
            self.fail(500, "no answer was made")
        elif self._state is _STARTED:
            self.abort()
        elif self._state is _SWITCHED:
            connection.watch_the_rest()
            return False
        if connection.lost or self._state is not _FINISHED:
            return False
        if body is not None and not body.done:
            wanted = self._keep_alive and not body.broken and not body.unasked
            if not wanted or not await body.discard(connection.shared.limits.discard_bytes):
                connection.end(linger=True)
                return False
        if not self._keep_alive:
            # A client that has said it closes sends nothing more; one that was told to close may be.
            told = connection.shared.draining or self._framing is _UNTIL_CLOSE or connection.decoder.buffered
            connection.end(linger=bool(told))
            return False
        if connection.write_paused:
            await connection.drain()
        return not connection.lost
