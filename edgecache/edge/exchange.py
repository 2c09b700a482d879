"""One request and the means to answer it: what a listener gives the pipeline, whatever the protocol version.

The listener owns framing, connection fields (Connection, Keep-Alive, Transfer-Encoding), `Date` where missing, the
time limits of the client's side and the connection's end. The pipeline owns everything else. A listener for another
protocol version implements the same Protocol.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from edgecache.http.headers import Headers
from edgecache.http.message import BodyStream, Duplex, Request, Response


class Exchange(Protocol):
    """One request being answered. Methods raise `ClientGone` once the client has closed or timed out."""

    request: Request
    body: BodyStream
    """The request's body. Reading it sends "100 Continue" first where the client expects it (RFC 9110 §10.1.1)."""
    received_at: float
    """Wall clock when the head was complete; read once."""
    started_at: float
    """Wall clock when the final head was sent; 0 before."""
    hsts: str | None
    """The value of Strict-Transport-Security that the final head is to carry, instead of any other."""

    @property
    def started(self) -> bool:
        """Has a final response head been sent? Then an error can only cut the transfer."""
        ...

    @property
    def bytes_in(self) -> int:
        """Octets of the request's body read so far."""
        ...

    @property
    def upgrade(self) -> str | None:
        """The protocol the client offers to switch to (RFC 9110 §7.8)."""
        ...

    def interim(self, response: Response) -> None:
        """Send a 1xx head. Dropped for HTTP/1.0 clients (RFC 9110 §15.2)."""
        ...

    def start(self, response: Response, length: int | None) -> None:
        """Send the final head. `length` None: not known beforehand (chunked, or until-close for HTTP/1.0).

        The response's own Content-Length and Transfer-Encoding lines are replaced by framing that fits `length`
        (except for HEAD, 304 and the like, where Content-Length is kept as metadata).
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send body octets; returns when the transport can take more. Ignored where the response has no body."""
        ...

    async def write_file(self, fd: int, offset: int, size: int, sent: Callable[[int], None] = ...) -> int:
        """Send `size` octets of an open file from `offset`, where possible without a copy; waits for no disk.

        The caller keeps `fd` open until this returns, and has verified what is in it. Returns how many octets went:
        fewer only where the file ends early or cannot be read, and then `finish` cuts the connection. `sent` hears of
        octets as they leave, also where `ClientGone` follows. What is written next comes behind them.
        """
        ...

    def finish(self, trailers: Headers | None = None) -> None:
        """End the response. Fewer octets than announced cut the connection instead."""
        ...

    def abort(self) -> None:
        """Cut the connection so that what was sent cannot look complete."""
        ...

    def switch(self, response: Response) -> Duplex:
        """Send a 101 (or the 2xx of CONNECT) and give up HTTP: the raw connection, with what was read already."""
        ...


Handler = Callable[[Exchange], Awaitable[None]]
"""Answers one exchange: returns after `finish`, `abort`, or the end of a tunnel. Never raises but for bugs."""
