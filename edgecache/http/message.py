"""The messages every room of the house speaks of: heads as values, bodies as streams.

A head is complete and valid by the time it is built: the listener and the origin client reject what RFC 9112
forbids before anything here sees it. Nothing here does I/O.
"""

from dataclasses import dataclass, field
from typing import Protocol

from edgecache.http.headers import Headers


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sent a request: the address the connection came from, not what a header claims."""

    ip: str
    port: int
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request head (RFC 9110 §6, RFC 9112 §3)."""

    method: str
    scheme: str
    """"http" or "https": how the client reached us."""
    authority: str
    """Host and optional port, as the client sent them; valid by RFC 3986 §3.2 and not empty."""
    target: str
    """Origin form ("/path?query") or "*", octet for octet as sent; absolute form is already resolved."""
    headers: Headers
    version: tuple[int, int] = (1, 1)
    peer: Peer = field(default=Peer("127.0.0.1", 0))

    def with_headers(self, headers: Headers) -> "Request":
        return Request(self.method, self.scheme, self.authority, self.target, headers, self.version, self.peer)


@dataclass(frozen=True, slots=True)
class Response:
    """A response head (RFC 9110 §15)."""

    status: int
    reason: str
    headers: Headers
    version: tuple[int, int] = (1, 1)

    def with_headers(self, headers: Headers) -> "Response":
        return Response(self.status, self.reason, headers, self.version)


class BodyStream(Protocol):
    """A message body on its way. One reader; back-pressure by not reading."""

    length: int | None
    """Octets in all, where the framing says so beforehand; None for chunked or until-close."""
    trailers: Headers | None
    """Trailer fields (RFC 9110 §6.5), known once `read` has returned b""."""

    async def read(self) -> bytes:
        """The next octets, at most 256 KiB; b"" at the end, and from then on.

        Raises `HttpError` (a subclass that says whose fault it was) when the body ends before its end.
        """
        ...

    def close(self) -> None:
        """Read no more. Where octets are left over, the connection under it is not used again."""
        ...


class EmptyBody:
    """The body of a message that has none."""

    length: int | None = 0
    trailers: Headers | None = None

    async def read(self) -> bytes:
        return b""

    def close(self) -> None:
        pass


class BytesBody:
    """A body held in memory."""

    trailers: Headers | None = None

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length: int | None = len(data)

    async def read(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def close(self) -> None:
        self._data = b""


class Duplex(Protocol):
    """Two byte streams after an Upgrade (RFC 9110 §7.8) or the like: no HTTP any more."""

    async def read(self) -> bytes:
        """The next octets; b"" when the other side has finished sending. Raises `ConnectionError` on a reset."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; returns when the transport can take more."""
        ...

    def write_eof(self) -> None:
        """Finish sending (half-close where the transport can)."""
        ...

    def close(self) -> None:
        """Drop the connection."""
        ...
