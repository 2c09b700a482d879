"""Requests on the public listener that are not for a site: the operator's, from addresses that may send them.

The pipeline asks before it looks for a site. Who takes a request, and what becomes of it, is decided elsewhere; here
its body is gathered within a bound, and the answer sent.
"""

from typing import Protocol

from edgecache.edge.bounded import bound_body
from edgecache.edge.exchange import Exchange
from edgecache.edge.visit import Story
from edgecache.http.errors import RequestError
from edgecache.http.message import Request, Response
from edgecache.observe.events import Outcome

REASON = "purge"
"""What logs and metrics say of such a request."""


class SideDoor(Protocol):
    """Whoever answers them."""

    max_body_bytes: int

    def takes(self, request: Request) -> bool:
        """By its head and where it comes from. Asked for unsafe methods only."""
        ...

    async def answer(self, request: Request, body: bytes) -> tuple[Response, bytes]: ...

    def too_large(self, request: Request) -> tuple[Response, bytes]: ...


async def answer_aside(door: SideDoor, exchange: Exchange, story: Story) -> None:
    """Answer what `door` takes. Raises `ClientGone`, and `RequestError` for a body that does not come whole."""
    story.outcome, story.reason = Outcome.REJECTED, REASON
    request = exchange.request
    try:
        bound_body(exchange, door.max_body_bytes)
        pieces = []
        while data := await exchange.body.read():
            pieces.append(data)
    except RequestError as error:
        if error.status != 413:
            raise
        response, body = door.too_large(request)
    else:
        response, body = await door.answer(request, b"".join(pieces))
    story.status = response.status
    exchange.start(response, len(body))
    await exchange.write(body)
    story.body_bytes += len(body)
    exchange.finish()
