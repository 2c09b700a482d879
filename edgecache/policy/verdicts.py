"""What the policy can decide: one frozen type per outcome, each with the reason that everything else reports.

The same `Reason` goes into Cache-Status (RFC 9211), the access log, the metrics and `edgecache explain`.
"""

from dataclasses import dataclass
from enum import StrEnum

from edgecache.http.headers import Headers
from edgecache.http.message import Response
from edgecache.http.stored import StoredResponse
from edgecache.policy.ranges import Span


class Reason(StrEnum):
    """Why. The value is the word of it in logs and in `Cache-Status; detail=`."""

    # served from the cache
    FRESH = "fresh"
    STALE_WHILE_REVALIDATE = "stale-while-revalidate"
    STALE_IF_ERROR = "stale-if-error"
    STALE_ALLOWED = "max-stale"
    # went forward
    URI_MISS = "uri-miss"
    VARY_MISS = "vary-miss"
    STALE = "stale"
    PARTIAL_MISS = "partial-miss"
    METHOD = "method"
    REQUEST_DIRECTIVE = "request"
    NO_CACHE = "no-cache"
    SOFT_PURGED = "soft-purged"
    SILENT = "coordinator-silent"
    AUTHORIZATION = "authorization"
    HIT_FOR_PASS = "hit-for-pass"  # noqa: S105 - a reason, not a password
    BYPASS = "bypass"
    # not stored
    STORED = "stored"
    FRESHENED = "freshened"
    NO_STORE = "no-store"
    PRIVATE = "private"
    NO_FRESHNESS = "no-freshness"
    STATUS = "status"
    VARY_STAR = "vary-star"
    VARY_TOO_MANY = "vary-too-many"
    SET_COOKIE = "set-cookie"
    TOO_LARGE = "too-large"
    TOO_MANY_TAGS = "too-many-tags"
    PARTIAL = "partial"
    PURGED_DURING_FILL = "purged-during-fill"
    MALFORMED = "malformed"
    # answered here
    ONLY_IF_CACHED = "only-if-cached"
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable"
    PRECONDITION_FAILED = "precondition-failed"
    LOOP = "loop"
    MAX_FORWARDS = "max-forwards"
    UNKNOWN_HOST = "unknown-host"
    HTTPS_REQUIRED = "https-required"


@dataclass(frozen=True, slots=True)
class Whole:
    """200 (or the stored status) with the whole stored body."""


@dataclass(frozen=True, slots=True)
class NotModified:
    """304 (RFC 9110 §15.4.5)."""


@dataclass(frozen=True, slots=True)
class PreconditionFailed:
    """412 (RFC 9110 §15.5.13)."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """206 with these parts of the representation; one part, or several as multipart/byteranges (RFC 9110 §14)."""

    parts: tuple[tuple[int, int], ...]
    """(first, last) inclusive, satisfiable, in the order to send."""
    complete: int | None
    """Length of the whole; None where only parts are stored and the origin did not say."""


@dataclass(frozen=True, slots=True)
class RangeNotSatisfiable:
    """416 (RFC 9110 §15.5.17)."""

    complete: int


Form = Whole | NotModified | PreconditionFailed | Ranges | RangeNotSatisfiable
"""How a stored response answers this request: conditional requests and ranges decided."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer from the cache."""

    stored: StoredResponse
    form: Form
    reason: Reason
    revalidate: bool = False
    """Also send one conditional request in the background (stale-while-revalidate)."""


@dataclass(frozen=True, slots=True)
class Revalidate:
    """Ask the origin whether the stored response is still good, with these conditions instead of the client's."""

    stored: StoredResponse
    headers: Headers
    """The fields to send: the client's less its own conditions and Range, plus our validators (RFC 9111 §4.3.1).

    No conditions where what is stored has no validator: it is still what stands in if the origin fails."""
    reason: Reason
    collapse: bool = True
    """May other requests share this answer while it arrives?"""


@dataclass(frozen=True, slots=True)
class Fetch:
    """A miss whose answer may be stored: others that ask for the same wait for it (DESIGN §8)."""

    headers: Headers
    """The fields to send."""
    reason: Reason
    collapse: bool = True
    """May other requests share this answer while it arrives?"""
    completes: StoredResponse | None = None
    """The partial response whose rest is asked for (RFC 9111 §3.3): to be handed to `on_response` as `stored`."""
    slice: Span | None = None
    """The slice asked for in place of what the client wants: a 206 to it is for `slices.arrived`."""


@dataclass(frozen=True)
class Pass:
    """Stream through and do not store: nothing the cache does applies (unsafe method, hit-for-pass, …)."""

    headers: Headers
    reason: Reason


@dataclass(frozen=True, slots=True)
class Reject:
    """Answered here with an error."""

    status: int
    reason: Reason
    detail: str


RequestVerdict = Serve | Revalidate | Fetch | Pass | Reject


@dataclass(frozen=True, slots=True)
class Store:
    """Keep it: `stored` is the record (`body_size` still 0 where the length is not known yet)."""

    stored: StoredResponse
    reason: Reason = Reason.STORED
    combine_with: StoredResponse | None = None
    """The stored part that the arriving one continues (RFC 9111 §3.4): `stored` describes both together, and
    `ranges.joined` says which octets come from which."""


@dataclass(frozen=True, slots=True)
class Freshen:
    """A 304 confirmed what is stored: this replaces its head and numbers, the body stays (RFC 9111 §4.3.4)."""

    stored: StoredResponse
    reason: Reason = Reason.FRESHENED
    keep: bool = True
    """False: answer with it, then remove it: the 304 forbids storing."""


@dataclass(frozen=True)
class DoNotStore:
    """Pass it on. What was stored under the key is not touched unless `drop_stored`."""

    reason: Reason
    hit_for_pass_s: float = 0.0
    """Remember for so long that this key is not stored; 0: do not."""
    drop_stored: bool = False


@dataclass(frozen=True, slots=True)
class UseStale:
    """The origin failed and a stored response may be used instead (RFC 5861 §4, RFC 9111 §4.2.4)."""

    stored: StoredResponse
    form: Form
    reason: Reason


@dataclass(frozen=True, slots=True)
class Retry:
    """A 304 that matches nothing stored: ask again without conditions (RFC 9111 §4.3.3)."""

    headers: Headers


ResponseVerdict = Store | Freshen | DoNotStore | UseStale | Retry


@dataclass(frozen=True)
class Outgoing:
    """A head as it goes to the client, less what depends on the connection."""

    response: Response
    body: bool
    """Is there a body to send?"""
