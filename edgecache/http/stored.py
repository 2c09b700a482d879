"""A stored response as the policy sees it: the head, and the numbers worked out once when it was stored.

Freshness is computed when a response arrives, not at each hit: what a request needs later are absolute times and a
few flags. The store keeps the same numbers beside an opaque record, so a fresh hit is decided without parsing.
"""

from dataclasses import dataclass
from enum import IntFlag

from edgecache.http.message import Response


class StoredFlag(IntFlag):
    """What the fast lane must know of an entry without parsing it. Values are part of the record format."""

    VARY_MARKER = 1
    """Not a response: the names of the fields that select a variant."""
    HIT_FOR_PASS = 2
    """Not a response: remembers that this key's responses are not stored, so that nobody queues for them."""
    HAS_VARY = 4
    MUST_REVALIDATE = 8
    """must-revalidate, proxy-revalidate or s-maxage: never used stale (RFC 9111 §5.2.2)."""
    NO_CACHE = 16
    """no-cache: validated at the origin on each use (RFC 9111 §5.2.2.4)."""
    PARTIAL = 32
    """The body is part of the whole (RFC 9111 §3.3)."""
    SHARED_AUTH = 64
    """May answer requests that carry Authorization (RFC 9111 §3.5)."""
    HEURISTIC = 128
    """The freshness lifetime is a guess (RFC 9111 §4.2.2)."""
    HAS_ETAG = 256
    HAS_LAST_MODIFIED = 512
    IMMUTABLE = 1024
    """RFC 8246."""
    ENCODED = 2048
    """The edge itself applied the content coding (a variant made at fill time)."""
    HEAD_ONLY = 4096
    """No body was received: a response to HEAD."""
    UNSIZED = 8192
    """The head has no Content-Length that fits the body: framing is worked out at each hit."""
    BODY_IN_FILE = 32768
    """Of an entry in memory, never of a response: in place of the body stands where it lies (`store/filebody.py`)."""
    SLICED = 16384
    """A manifest: the body lies on disk in slices, as far as it lies anywhere."""


@dataclass(frozen=True, slots=True)
class Held:
    """Which octets of the whole representation the stored body holds (RFC 9111 §3.3)."""

    first: int
    last: int
    """Inclusive, as in Content-Range."""
    complete: int | None
    """Length of the whole, where known."""


@dataclass(frozen=True, slots=True)
class Sliced:
    """Where the body of a large representation is found: cut into slices of one size, each stored under its own key."""

    key: bytes
    """16 octets that the slices' keys are made of. Of another version, of another length, or cut otherwise, it differs:
    so slices never mix."""
    size: int
    """Octets of each slice but the last."""
    validated: bool
    """`key` is made of a strong validator: a slice that is missing can be fetched by itself (RFC 9110 §15.3.7.3)."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One stored response, complete or partial. Times are seconds since the epoch."""

    response: Response
    """As received, less hop-by-hop fields and `Age`; fields meant only for us (Surrogate-Control) included."""
    selecting: tuple[tuple[str, str | None], ...]
    """(lower-case field name, normalised value in the original request or None) for each name in Vary."""
    request_time: float
    response_time: float
    born_at: float
    """response_time less corrected_initial_age (RFC 9111 §4.2.3): current age = now - born_at."""
    fresh_until: float
    """born_at plus the freshness lifetime (§4.2.1)."""
    swr_until: float
    """The last moment for use while revalidating (RFC 5861 §3); fresh_until where there is no such window."""
    sie_until: float
    """The last moment for use when the origin fails (RFC 5861 §4 or the site's own); fresh_until where not."""
    flags: StoredFlag
    body_size: int
    """Of the whole representation, where it is in slices."""
    held: Held | None = None
    """None: the whole body."""
    soft_purged: bool = False
    unconfirmed: bool = False
    """Purges may have come that this edge has not heard of: used only once the origin has confirmed it."""
    sliced: Sliced | None = None
    """None: the body is stored beside the head."""

    @property
    def stale_until(self) -> float:
        return max(self.swr_until, self.sie_until)

    def fresh_for(self, now: float) -> float:
        """Seconds of freshness left, negative once it is stale; none after a soft purge."""
        left = self.fresh_until - now
        return min(left, 0.0) if self.soft_purged else left
