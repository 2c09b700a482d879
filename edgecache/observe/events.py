"""What happened, each thing named once: logs, metrics and tracing all read these records and nothing else."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """How a request was answered. The order is part of the counters' layout: add at the end only."""

    HIT = "hit"
    """From the cache, fresh."""
    STALE = "stale"
    """From the cache, stale and allowed to be."""
    REVALIDATED = "revalidated"
    """From the cache, after the origin confirmed it."""
    COLLAPSED = "collapsed"
    """From another request's fetch, while it arrived."""
    MISS = "miss"
    """From the origin, by rights storable."""
    PASS = "pass"  # noqa: S105 - an outcome, not a password
    """From the origin, past the cache."""
    REJECTED = "rejected"
    """Answered here with an error that is the request's own."""
    ERROR = "error"
    """The origin, or the edge, failed."""

    __hash__ = object.__hash__  # Enum's own hashes the name, in Python


SERVED_FROM_CACHE = frozenset({Outcome.HIT, Outcome.STALE, Outcome.REVALIDATED, Outcome.COLLAPSED})
"""What counts as a hit in the hit ratio: the origin sent no body for it."""


@dataclass
class ExchangeFinished:
    """One request and what became of it, made when its last octet was handed to the socket or the client had gone.

    Nobody changes one. It is not frozen because one is made for each request, and freezing twenty fields takes 2 µs.
    """

    time: float
    """When the request's head was complete; seconds since the epoch."""
    site: str
    client_ip: str
    """The client, as the trusted proxies name it; else the peer."""
    method: str
    scheme: str
    host: str
    target: str
    """As sent. What may not be logged is taken out by the log."""
    protocol: str
    """"HTTP/1.1"."""
    status: int
    """0: the client was gone before an answer."""
    bytes_in: int
    """Octets of the request's body."""
    bytes_out: int
    """Octets of the response's body that were sent."""
    outcome: Outcome
    reason: str
    """The word of `policy.verdicts.Reason`, or the code of an error."""
    duration_s: float
    """From `time` to the end."""
    ttfb_s: float | None
    """From `time` to the response's first octet; None where none was sent."""
    origin_s: float | None
    """From sending the request to the origin to its response head; None where it was not asked."""
    cache_status: str
    """The field as sent."""
    user_agent: str = ""
    referer: str = ""
    request_id: str = ""
    aborted: bool = False
    """The response was cut off before its end, by either side."""
