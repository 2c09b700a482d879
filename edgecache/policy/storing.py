"""Whether a response may be stored, and the record of it (RFC 9111 §3)."""

from dataclasses import dataclass, replace

from edgecache.http.cachekey import parse_uri, resolve
from edgecache.http.dates import format_date
from edgecache.http.fields import parse_digits
from edgecache.http.message import Request, Response
from edgecache.http.stored import Held, StoredFlag, StoredResponse
from edgecache.policy import coding, freshness, ranges, stale, surrogate, validation, vary
from edgecache.policy.conditional import entity_tag
from edgecache.policy.directives import Directives, parse_directives
from edgecache.policy.freshness import Control, Lifetime
from edgecache.policy.site import SitePolicy
from edgecache.policy.validation import has_validator, storable_fields
from edgecache.policy.verdicts import Reason

HEURISTICALLY_CACHEABLE = frozenset(
    {
        200,  # RFC 9110 §15.3.1
        203,  # §15.3.4
        204,  # §15.3.5
        206,  # §15.3.7
        300,  # §15.4.1
        301,  # §15.4.2
        308,  # §15.4.9
        404,  # §15.5.5
        405,  # §15.5.6
        410,  # §15.5.11
        414,  # §15.5.15
        501,  # §15.6.2
    }
)
"""Statuses whose definition lets a cache guess how long they are fresh (RFC 9110 §15.1)."""

UNDERSTOOD = HEURISTICALLY_CACHEABLE | {
    # The other final statuses of RFC 9110 §15 whose caching requirements are those of any response:
    *(201, 202, 205, 302, 303, 307),
    *(400, 401, 402, 403, 406, 407, 408, 409, 411, 412, 413, 415, 416, 417, 421, 422, 426),
    *(500, 502, 503, 504, 505),
    # and those of other RFCs:
    *(425, 428, 429, 431, 451, 511),
}
"""Statuses whose caching behaviour this cache implements, which is what must-understand asks (RFC 9111 §5.2.2.3)."""

_NEVER = frozenset({304, 416})
"""304 updates what is stored and is nothing by itself (§4.3.3); 416 is about one request (RFC 9110 §15.5.17)."""


@dataclass(frozen=True)
class Answer:
    """An answer of the origin's: to what, when it was asked for, when it came, and whose rules hold."""

    request: Request
    """As the client sent it."""
    response: Response
    request_time: float
    now: float
    site: SitePolicy


def record(answer: Answer, *, part_wanted: bool = False) -> StoredResponse | Reason:
    """The record of a response that may be stored, else why not; in the order of RFC 9111 §3.

    `part_wanted`: we asked for a range, though the client did not.
    """
    request, response, site = answer.request, answer.response, answer.site
    control = freshness.control_of(response.headers, site)
    directives = control.directives
    refusal = (
        _method(request, response, control)
        or _status(response, directives)
        or _no_store(request, response, directives, site)
        or _private(directives)
        or _authorization(request, directives)
        or _set_cookie(response, control, site)
        or _size(request, response, site)
    )
    if refusal is not None:
        return refusal
    names = vary.vary_names(response.headers)
    if names is None:
        return Reason.VARY_STAR
    if len(names) > site.max_vary_fields:
        return Reason.VARY_TOO_MANY
    held = None
    if response.status == 206:
        held = _held(response) if part_wanted or "range" in request.headers else None
        if held is None:
            return Reason.PARTIAL
    life = lifetime(response, control, answer.now, site)
    if not _permitted(response, directives, life) or not _useful(response, life, control, site):
        return Reason.NO_FRESHNESS
    return coding.prepared(_build(answer, control, life, names, held), site)


def freshened(stored: StoredResponse, answer: Answer) -> tuple[StoredResponse, bool]:
    """The record after a 304, or an answer to HEAD, brought new fields (§4.3.4, §4.3.5); may it be kept?"""
    update, site, now = answer.response, answer.site, answer.now
    named = storable_fields(update.headers)
    merged = validation.freshened(stored.response.headers, named)
    if "date" not in named:
        merged = merged.replaced("date", format_date(now))
    made = vary.made_of(stored.selecting)
    if made is not None:
        merged = coding.with_vary(merged)
    response = stored.response.with_headers(merged.plus(("Age", age) for age in update.headers.get_all("age")))
    whole = replace(answer, request=answer.request.with_method("GET"), response=response)
    control = freshness.control_of(merged, site)
    life = lifetime(response, control, now, site)
    names = vary.vary_names(merged)
    keep = not isinstance(record(whole), Reason)
    built = _build(whole, control, life, names or (), None)
    lasting = stored.flags & (StoredFlag.ENCODED | StoredFlag.HEAD_ONLY | StoredFlag.SLICED)
    selected = built.selecting if made is None else vary.with_made(built.selecting, made)
    fresh = replace(
        built,
        selecting=selected,
        flags=built.flags | lasting,
        body_size=stored.body_size,
        sliced=stored.sliced,
    )
    return fresh, keep


def combined(stored: StoredResponse, answer: Answer) -> StoredResponse | None:
    """The record of a stored part and the arriving one together (§3.4); None where they may not be combined.

    The new fields replace the old ones of the same name; those that only the old part has stay.
    """
    arrived = record(answer, part_wanted=True)
    if isinstance(arrived, Reason) or arrived.held is None or stored.held is None:
        return None
    mine, theirs = validation.strong_tag(stored.response.headers), validation.strong_tag(arrived.response.headers)
    if mine is None or theirs is None or not mine.strongly_equals(theirs):
        return None
    joined = ranges.joined(stored.held, arrived.held)
    if joined is None:
        return None
    held = joined[0]
    fields = validation.freshened(stored.response.headers, arrived.response.headers).without({"content-range"})
    head, flags, part = arrived.response.with_headers(fields), arrived.flags, held
    if held.complete is not None and held.first == 0 and held.last == held.complete - 1:
        fields = fields.plus((("Content-Length", str(held.complete)),))
        head, flags = Response(200, "OK", fields), flags & ~StoredFlag.PARTIAL
        return replace(arrived, response=head, flags=flags, held=None, body_size=held.complete)
    return replace(arrived, response=head, flags=flags, held=part, body_size=held.last - held.first + 1)


def _method(request: Request, response: Response, control: Control) -> Reason | None:
    """A method we store: GET; POST with explicit freshness and its own Content-Location (RFC 9110 §9.3.3)."""
    if request.method == "GET":
        return None
    if request.method == "POST" and 200 <= response.status < 300 and response.status != 206:
        target = parse_uri(request.scheme, request.authority, request.target)
        locations = response.headers.get_all("content-location")
        explicit = any(name in control.directives for name in ("max-age", "s-maxage")) or "expires" in response.headers
        if explicit and len(locations) == 1 and resolve(target, locations[0]) == target:
            return None
    return Reason.METHOD


def _status(response: Response, directives: Directives) -> Reason | None:
    """The status is final; must-understand limits it to those whose rules are followed here (§5.2.2.3)."""
    if response.status < 200 or response.status in _NEVER:
        return Reason.STATUS
    if directives.says("must-understand") and response.status not in UNDERSTOOD:
        return Reason.STATUS
    return None


def _no_store(request: Request, response: Response, directives: Directives, site: SitePolicy) -> Reason | None:
    """no-store of the response (§5.2.2.5), which must-understand overrides where the status is understood (§5.2.2.3),
    and of the request (§5.2.1.5)."""
    if directives.says("no-store") and not (directives.says("must-understand") and response.status in UNDERSTOOD):
        return Reason.NO_STORE
    if site.honour_request_directives:
        asked = parse_directives(request.headers.get_all("cache-control"))
        if asked.says("no-store"):
            return Reason.REQUEST_DIRECTIVE
    return None


def _private(directives: Directives) -> Reason | None:
    """private without field names (§5.2.2.7); with them, only those fields are left out."""
    names = directives.fields("private")
    return Reason.PRIVATE if names is not None and not names else None


def _authorization(request: Request, directives: Directives) -> Reason | None:
    """§3.5: the answer to an authenticated request needs a directive that allows sharing it."""
    return Reason.AUTHORIZATION if "authorization" in request.headers and not shares_auth(directives) else None


def shares_auth(directives: Directives) -> bool:
    return any(directives.says(name) for name in ("public", "must-revalidate", "s-maxage"))


def _set_cookie(response: Response, control: Control, site: SitePolicy) -> Reason | None:
    """A cookie in a shared cache is another person's session, so it takes more than freshness: a word that is meant
    for shared caches. Field names in private or no-cache that cover Set-Cookie do as well, since it is then left out.
    """
    if "set-cookie" not in response.headers or site.store_set_cookie or control.replaces_expires:
        return None
    directives = control.directives
    if directives.says("public") or directives.says("s-maxage") or "set-cookie" in _left_out(directives):
        return None
    return Reason.SET_COOKIE


def _left_out(directives: Directives) -> frozenset[str]:
    """Fields that must not be reused without validation: the cache can as well not store them (§5.2.2.4, §5.2.2.7)."""
    return (directives.fields("private") or frozenset()) | (directives.fields("no-cache") or frozenset())


def _size(request: Request, response: Response, site: SitePolicy) -> Reason | None:
    """What is known beforehand to be too much; the store has the last word. A large 200 may lie in slices."""
    length = _content_length(response)
    sliceable = site.slice_bytes > 0 and response.status == 200 and request.method == "GET"
    if length is not None and length > site.max_object_bytes and not sliceable:
        return Reason.TOO_LARGE
    return Reason.TOO_MANY_TAGS if surrogate.keys(response.headers, site.max_tag_bytes) is None else None


def _content_length(response: Response) -> int | None:
    lengths = response.headers.get_all("content-length")
    return parse_digits(lengths[0]) if len(lengths) == 1 else None


def _held(response: Response) -> Held | None:
    """§3.3: one part in an answer to a range is stored; what came unasked or in several parts is not."""
    said = ranges.parse_content_range(response.headers)
    return None if said is None else ranges.believed(response.headers, said)


def lifetime(response: Response, control: Control, now: float, site: SitePolicy) -> Lifetime:
    """Explicit, or heuristic where the status or public allows it (§4.2.2)."""
    life = freshness.lifetime(response, control, now, site)
    if life.explicit or not _guess_allowed(response, control.directives):
        return life
    return Lifetime(freshness.heuristic_lifetime(response.headers, now, site), explicit=False)


def _guess_allowed(response: Response, directives: Directives) -> bool:
    return response.status in HEURISTICALLY_CACHEABLE or directives.says("public")


def _permitted(response: Response, directives: Directives, life: Lifetime) -> bool:
    """§3, the last condition: public, explicit freshness, or a status that is heuristically cacheable."""
    return life.explicit or _guess_allowed(response, directives)


def _useful(response: Response, life: Lifetime, control: Control, site: SitePolicy) -> bool:
    """Not of the RFC: what could never be used is not kept. Fresh for a while, or stale for a while, or validated."""
    return life.seconds > 0 or any(stale.windows(control, site)) or has_validator(response.headers)


def _build(
    answer: Answer, control: Control, life: Lifetime, names: tuple[str, ...], held: Held | None
) -> StoredResponse:
    request, response, site, now = answer.request, answer.response, answer.site, answer.now
    born_at = freshness.born_at(response.headers, answer.request_time, now)
    fresh_until = born_at + life.seconds
    while_revalidating, on_error = stale.windows(control, site)
    fields = storable_fields(response.headers).without(_left_out(control.directives) | {"trailer"})
    size = _content_length(response) or 0
    if held is not None:
        fields = fields.without({"content-length"})
        size = held.last - held.first + 1
    if "date" not in fields:
        fields = fields.plus((("Date", format_date(now)),))  # RFC 9110 §6.6.1
    return StoredResponse(
        response=response.with_headers(fields),
        selecting=vary.selecting(names, request.headers),
        request_time=answer.request_time,
        response_time=now,
        born_at=born_at,
        fresh_until=fresh_until,
        swr_until=fresh_until + while_revalidating,
        sie_until=fresh_until + on_error,
        flags=_flags(response, control.directives, life, site, has_vary=bool(names), partial=held is not None),
        body_size=size,
        held=held,
    )


def _flags(
    response: Response, directives: Directives, life: Lifetime, site: SitePolicy, *, has_vary: bool, partial: bool
) -> StoredFlag:
    limited = directives.fields("no-cache")
    facts = {
        StoredFlag.HAS_VARY: has_vary,
        StoredFlag.MUST_REVALIDATE: stale.must_revalidate(directives, site),
        StoredFlag.NO_CACHE: limited is not None and not limited,
        StoredFlag.PARTIAL: partial,
        StoredFlag.SHARED_AUTH: shares_auth(directives),
        StoredFlag.HEURISTIC: not life.explicit,
        StoredFlag.HAS_ETAG: entity_tag(response.headers) is not None,
        StoredFlag.HAS_LAST_MODIFIED: len(response.headers.get_all("last-modified")) == 1,
        StoredFlag.IMMUTABLE: directives.says("immutable"),
    }
    flags = StoredFlag(0)
    for flag, holds in facts.items():
        if holds:
            flags |= flag
    return flags
