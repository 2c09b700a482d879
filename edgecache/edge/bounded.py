"""A bound on what a request may carry (RFC 9110 §15.5.14), whatever its framing says beforehand."""

from edgecache.edge.exchange import Exchange
from edgecache.http.errors import RequestError
from edgecache.http.headers import Headers
from edgecache.http.message import BodyStream


def bound_body(exchange: Exchange, most: int | None) -> None:
    """Refuse a body announced to be larger than `most`, and cut off one that turns out to be. Raises `RequestError`."""
    if most is None or exchange.body.length == 0:
        return
    if exchange.body.length is None:
        exchange.body = _BoundedBody(exchange.body, most)
    elif exchange.body.length > most:
        raise _too_large(most)


def _too_large(most: int) -> RequestError:
    return RequestError(f"the request's body is larger than {most} octets", status=413, code="content-too-large")


class _BoundedBody:
    """A body whose length nobody knows yet."""

    length: int | None = None

    def __init__(self, body: BodyStream, most: int) -> None:
        self._body = body
        self._most = most
        self._left = most

    @property
    def trailers(self) -> Headers | None:
        return self._body.trailers

    @trailers.setter
    def trailers(self, value: Headers | None) -> None:
        self._body.trailers = value

    async def read(self) -> bytes:
        data = await self._body.read()
        self._left -= len(data)
        if self._left < 0:
            raise _too_large(self._most)
        return data

    def close(self) -> None:
        self._body.close()
