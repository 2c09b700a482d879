"""The messages every room of the house speaks of: heads as values, bodies as streams.

A head is complete and valid by the time it is built: the listener and the origin client reject what RFC 9112
forbids before anything here sees it. Nothing here does I/O. Heads are compiled: `_native/message.pyi`.
"""

from typing import Protocol

from edgecache._native.message import Headers, Peer, Request, Response

__all__ = ["BodyStream", "BytesBody", "Duplex", "EmptyBody", "Peer", "Request", "Response"]


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
