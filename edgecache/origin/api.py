"""What an origin is to the rest of the house: a request goes in, a head and a body stream come out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgecache.http.message import BodyStream, Duplex, Request, Response


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits on an origin's patience with us and ours with it; seconds."""

    connect_s: float = 5.0
    first_byte_s: float = 60.0
    between_bytes_s: float = 30.0
    idle_s: float = 55.0
    """An idle kept-alive connection is closed after this."""


class OriginResponse(Protocol):
    """A response under way. Close it: `body.close()`, or read `body` to its end."""

    head: Response
    """As received, octet for octet; hop-by-hop fields included."""
    body: BodyStream
    upgraded: Duplex | None
    """After 101: the raw connection, with what was read already."""
    sent_at: float
    """When the request that it answers was sent, on a connection that was there: seconds since the Unix epoch."""


class Origin(Protocol):
    """An origin, or a pool of them."""

    async def send(
        self,
        request: Request,
        body: BodyStream,
        *,
        on_interim: Callable[[Response], None] | None = None,
    ) -> OriginResponse:
        """Send the head as given (hop-by-hop fields are already removed; framing is added) and the body, streamed.

        Returns when the final head has arrived, even if the body is still being sent. Interim heads (not 100) go to
        `on_interim`. A request that is idempotent and whose body is empty is retried once when a *kept-alive*
        connection turns out to be closed (RFC 9112 §9.3.1). `request.upgrade` fields pass when the request carries
        Connection: upgrade. Raises `OriginError`; the client's own faults while its body is read pass through.
        """
        ...

    async def close(self) -> None:
        """Close idle connections; those in use end with their exchange."""
        ...


def request_time(response: OriginResponse, begun: float, now: float) -> float:
    """When the request was made that this answers (RFC 9111 §4.2.3), for whoever began at `begun` and has it `now`.

    Waiting for a connection, or for the one that failed before, is no part of the response's delay: counted as age,
    it would take it off every response's freshness. Where the clock was set meanwhile: from the beginning.
    """
    return response.sent_at if begun <= response.sent_at <= now else begun
