"""The rules, each a few lines; how they are worked out stands in one module per section (DESIGN §4).

`on_request` decides what to do with a request, `on_response` what to do with the origin's answer, `on_failure` what
to do when there is none, `invalidated` what an answer makes invalid; `respond` and `relay` write the head that the
client gets. All pure: the time is an argument, the outcome a value, the work is the edge's.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.http.stored import StoredFlag, StoredResponse
from edgecache.policy import (
    conditional,
    freshness,
    invalidation,
    ranges,
    slices,
    stale,
    storing,
    validation,
)
from edgecache.policy import (
    respond as _respond,
)
from edgecache.policy.conditional import Outcome
from edgecache.policy.directives import Directives, parse_directives
from edgecache.policy.site import SitePolicy
from edgecache.policy.storing import Answer
from edgecache.policy.verdicts import (
    DoNotStore,
    Fetch,
    Form,
    Freshen,
    NotModified,
    Pass,
    PreconditionFailed,
    RangeNotSatisfiable,
    Ranges,
    Reason,
    Reject,
    RequestVerdict,
    ResponseVerdict,
    Retry,
    Revalidate,
    Serve,
    Store,
    UseStale,
    Whole,
)

relay = _respond.relay
respond = _respond.respond

_NO_DIRECTIVES = Directives()


# --- a request has come ---


def on_request(
    request: Request,
    candidates: Sequence[StoredResponse],
    now: float,
    site: SitePolicy,
    *,
    hit_for_pass: bool = False,
    vary_miss: bool = False,
    passing: bool = False,
) -> RequestVerdict:
    """What to do with a request. `candidates`: stored responses whose key and Vary match it, soft-purged ones too.

    `hit_for_pass`: responses of this key are known not to be stored. `vary_miss`: others are stored under the key.
    `passing`: nothing stored may be used, nor anything stored: which purges there were is not known.
    """
    asked = _request_directives(request, site)
    stored = newest(candidates)
    return (
        _last_hop(request)
        or _uncached_method(request, site)
        or _never_stored(request, asked, site)
        or _unheard(request, asked, site, passing=passing)
        or _for_the_origin(request, stored, asked, now, site)
        or _known_to_pass(request, stored, asked, site, hit_for_pass=hit_for_pass)
        or _missing(request, stored, asked, site, vary_miss=vary_miss)
        or _found(request, stored, asked, now, site)
    )


def newest(candidates: Sequence[StoredResponse]) -> StoredResponse | None:
    """Of several that match, the one with the latest Date (RFC 9111 §4)."""
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    return max(
        candidates,
        key=lambda each: (freshness.date_of(each.response.headers, each.response_time), each.response_time),
    )


def _last_hop(request: Request) -> RequestVerdict | None:
    """Max-Forwards 0: OPTIONS and TRACE end here (RFC 9110 §7.6.2)."""
    if request.method not in ("OPTIONS", "TRACE") or request.headers.get("max-forwards") != "0":
        return None
    if request.method == "OPTIONS":
        return Reject(200, Reason.MAX_FORWARDS, "")
    return Reject(405, Reason.MAX_FORWARDS, "TRACE is not answered here")


def _uncached_method(request: Request, site: SitePolicy) -> RequestVerdict | None:
    """Only GET and HEAD are answered from the cache (RFC 9111 §3, RFC 9110 §9.2.3)."""
    if request.method in ("GET", "HEAD"):
        return None
    return Pass(_forwarded(_one_hop_less(request), site), Reason.METHOD)


def _never_stored(request: Request, asked: Directives, site: SitePolicy) -> RequestVerdict | None:
    """no-store in the request: nothing of it or of its answer is kept (RFC 9111 §5.2.1.5), nor looked for."""
    if not asked.says("no-store") or asked.says("only-if-cached"):
        return None
    return Pass(_forwarded(request.headers, site), Reason.REQUEST_DIRECTIVE)


def _unheard(request: Request, asked: Directives, site: SitePolicy, *, passing: bool) -> RequestVerdict | None:
    """Purges may have come that are not known here, and the configuration is to pass everything through meanwhile."""
    if not passing:
        return None
    if asked.says("only-if-cached"):
        return _only_if_cached()
    return Pass(_forwarded(request.headers, site), Reason.SILENT)


def _for_the_origin(
    request: Request, stored: StoredResponse | None, asked: Directives, now: float, site: SitePolicy
) -> RequestVerdict | None:
    """If-Match and If-Unmodified-Since ask about the origin's state (RFC 9110 §13.1.1, §13.1.4): a fresh response may
    say that they hold, only the origin that they fail."""
    if "if-match" not in request.headers and "if-unmodified-since" not in request.headers:
        return None
    if asked.says("only-if-cached"):
        return None
    if stored is not None and stale.fresh(stored, now) and _outcome(stored, request) is not Outcome.FAILED:
        return None
    return Pass(_forwarded(request.headers, site), Reason.PRECONDITION_FAILED)


def _known_to_pass(
    request: Request, stored: StoredResponse | None, asked: Directives, site: SitePolicy, *, hit_for_pass: bool
) -> RequestVerdict | None:
    """What was not stored the last time is not waited for (DESIGN §8)."""
    if not hit_for_pass or stored is not None or asked.says("only-if-cached"):
        return None
    return Pass(_forwarded(request.headers, site), Reason.HIT_FOR_PASS)


def _missing(
    request: Request, stored: StoredResponse | None, asked: Directives, site: SitePolicy, *, vary_miss: bool
) -> RequestVerdict | None:
    """Nothing is stored, or nothing that a request with credentials may have (RFC 9111 §3.5)."""
    if stored is not None and not _withheld(request, stored):
        return None
    if asked.says("only-if-cached"):
        return _only_if_cached()
    if stored is not None:
        return _fetch(request, Reason.AUTHORIZATION, site)
    return _fetch(request, Reason.VARY_MISS if vary_miss else Reason.URI_MISS, site)


def _withheld(request: Request, stored: StoredResponse) -> bool:
    return "authorization" in request.headers and StoredFlag.SHARED_AUTH not in stored.flags


def _only_if_cached() -> Reject:
    """RFC 9111 §5.2.1.7."""
    return Reject(504, Reason.ONLY_IF_CACHED, "only-if-cached, and nothing stored may be used")


def _found(
    request: Request, stored: StoredResponse | None, asked: Directives, now: float, site: SitePolicy
) -> RequestVerdict:
    """Something is stored: use it, or ask the origin about it."""
    assert stored is not None  # else _missing has decided
    verdict = _usable(request, stored, asked, now, site)
    if isinstance(verdict, Reason):
        if asked.says("only-if-cached"):
            return _only_if_cached()
        return _ask(request, stored, verdict, site)
    return verdict


def _usable(
    request: Request, stored: StoredResponse, asked: Directives, now: float, site: SitePolicy
) -> Serve | Reason:
    """May it answer without asking (RFC 9111 §4)? Else why not."""
    if stored.unconfirmed:
        return Reason.SILENT
    if StoredFlag.NO_CACHE in stored.flags:
        return Reason.NO_CACHE
    fresh = stale.fresh(stored, now)
    if not _satisfies(stored, asked, now, fresh=fresh):
        return Reason.REQUEST_DIRECTIVE
    shape = form(stored, request, site)
    if fresh:
        return Reason.PARTIAL_MISS if shape is None else Serve(stored, shape, Reason.FRESH)
    if shape is not None and stale.within_max_stale(stored, now, asked):
        return Serve(stored, shape, Reason.STALE_ALLOWED)
    if shape is not None and stale.while_revalidating(stored, now):
        return Serve(stored, shape, Reason.STALE_WHILE_REVALIDATE, revalidate=True)
    return Reason.SOFT_PURGED if stored.soft_purged else Reason.STALE


def _satisfies(stored: StoredResponse, asked: Directives, now: float, *, fresh: bool) -> bool:
    """no-cache, max-age and min-fresh of the request (RFC 9111 §5.2.1); malformed ones are ignored.

    max-age also means that nothing stale is wanted, unless max-stale says so (§5.2.1.1); max-age=0 that validation
    is, but a fresh immutable response needs none because of a reload (RFC 8246 §2).
    """
    if asked.says("no-cache"):
        return False
    limit = asked.seconds("max-age", invalid=None)
    if limit is not None and not fresh and "max-stale" not in asked:
        return False
    if limit == 0 and not (fresh and StoredFlag.IMMUTABLE in stored.flags):
        return False
    if limit is not None and limit > 0 and now - stored.born_at > limit:
        return False
    least = asked.seconds("min-fresh", invalid=None)
    return least is None or stored.fresh_until - now >= least


def _ask(request: Request, stored: StoredResponse, reason: Reason, site: SitePolicy) -> RequestVerdict:
    """Validate what is whole (RFC 9111 §4.3.1); complete a part that is fresh (§3.3); else fetch anew."""
    if stored.held is not None:
        return _complete(request, stored, site) if reason is Reason.PARTIAL_MISS else _fetch(request, reason, site)
    return revalidation(request, stored, reason, site)


def revalidation(request: Request, stored: StoredResponse, reason: Reason, site: SitePolicy) -> Revalidate:
    """The conditional request that asks whether `stored` is still good (RFC 9111 §4.3.1)."""
    headers = _forwarded(validation.conditional(request.headers, stored), site)
    alone = request.method == "HEAD" or "authorization" in request.headers
    shared = reason not in (Reason.REQUEST_DIRECTIVE, Reason.NO_CACHE)
    return Revalidate(stored, headers, reason, collapse=shared and not alone)


def _fetch(request: Request, reason: Reason, site: SitePolicy) -> Fetch:
    """Ask for the whole, or for the range the client wants; its conditions are answered from what comes back."""
    whole = validation.unconditional(request.headers)
    if request.method != "GET" or not _wants_part(request, site):
        alone = request.method == "HEAD" or "authorization" in request.headers
        return Fetch(_forwarded(whole, site), reason, collapse=not alone)
    if (part := slices.first_asked(request, site)) is not None:
        headers = whole.plus((("Range", f"bytes={part}"),))
        return Fetch(_forwarded(headers, site), reason, slice=part)
    asked = [line for line in request.headers if line[0].lower() in ("range", "if-range")]
    return Fetch(_forwarded(whole.plus(asked), site), reason, collapse=False)


def _wants_part(request: Request, site: SitePolicy) -> bool:
    """Does Range ask for less than everything? What asks for "bytes=0-" may as well fill the cache."""
    spans = ranges.parse_range(request.headers, site.max_ranges)
    return bool(spans) and spans != (ranges.Span(0, None),)


def _complete(request: Request, stored: StoredResponse, site: SitePolicy) -> Fetch:
    """Ask only for what is missing beside a stored part (RFC 9111 §3.3)."""
    assert stored.held is not None
    spans = _spans(stored, request, site)
    missing = ranges.gap(spans, stored.held) if request.method == "GET" else None
    if missing is None or (stored.held.complete or 0) > site.max_object_bytes:
        return _fetch(request, Reason.PARTIAL_MISS, site)
    lines = [("Range", f"bytes={missing}")]
    if (tag := validation.strong_tag(stored.response.headers)) is not None:
        lines.append(("If-Range", str(tag)))
    headers = _forwarded(validation.unconditional(request.headers).plus(lines), site)
    return Fetch(headers, Reason.PARTIAL_MISS, collapse=False, completes=stored)


def _request_directives(request: Request, site: SitePolicy) -> Directives:
    """Cache-Control of the request; Pragma counts only where there is none (RFC 9111 §5.4)."""
    if not site.honour_request_directives:
        return _NO_DIRECTIVES
    lines = request.headers.get_all("cache-control")
    if not lines and "pragma" in request.headers and "no-cache" in parse_directives(request.headers.get_all("pragma")):
        return parse_directives(["no-cache"])
    return parse_directives(lines)


def _forwarded(headers: Headers, site: SitePolicy) -> Headers:
    """What goes to the origin also says that Surrogate-Control is understood here."""
    if not site.surrogate_capability:
        return headers
    return headers.plus(_capability(site.surrogate_name))


@lru_cache(maxsize=64)
def _capability(name: str) -> tuple[tuple[str, str]]:
    return (("Surrogate-Capability", f'{name}="Surrogate/1.0"'),)


def _one_hop_less(request: Request) -> Headers:
    """Max-Forwards counts down on OPTIONS and TRACE (RFC 9110 §7.6.2)."""
    count = request.headers.get("max-forwards") or ""
    if request.method not in ("OPTIONS", "TRACE") or not count.isascii() or not count.isdigit():
        return request.headers
    return request.headers.replaced("max-forwards", str(int(count[:9]) - 1))


# --- how a stored response answers ---


def form(stored: StoredResponse, request: Request, site: SitePolicy) -> Form | None:
    """Preconditions first, then Range (RFC 9110 §13.2.2). None: what is stored is a part that does not hold it."""
    outcome = _outcome(stored, request)
    if outcome is Outcome.FAILED:
        return PreconditionFailed()
    if outcome is Outcome.NOT_MODIFIED:
        return NotModified()
    spans = _spans(stored, request, site)
    if stored.held is not None:
        octets = ranges.select_held(spans, stored.held)
        return None if octets is None else Ranges((octets,), stored.held.complete)
    if not spans or stored.response.status != 200 or stored.body_size == 0:
        return Whole()
    parts = ranges.select(spans, stored.body_size)
    if isinstance(parts, ranges.Unsatisfiable):
        return RangeNotSatisfiable(stored.body_size)
    return Ranges(parts, stored.body_size)


def form_as_sent(stored: StoredResponse, request: Request, site: SitePolicy) -> Form:
    """How the response that fills the cache goes to the client that asked for it: as `form`, and a part as it came."""
    shape = form(stored, request, site)
    if shape is None and stored.held is not None:
        return Ranges(((stored.held.first, stored.held.last),), stored.held.complete)
    return Whole() if shape is None else shape


def as_it_came(stored: StoredResponse, form: Form) -> bool:
    """Is this form the origin's own answer, so that whoever asked for it may have it with all its fields?"""
    held = stored.held
    return form == (Whole() if held is None else Ranges(((held.first, held.last),), held.complete))


def _outcome(stored: StoredResponse, request: Request) -> Outcome:
    return conditional.evaluate(request, stored.response, stored.response_time)


def _spans(stored: StoredResponse, request: Request, site: SitePolicy) -> tuple[ranges.Span, ...]:
    """Range, which only GET has (RFC 9110 §14.2), where If-Range lets it count (§13.1.5)."""
    if request.method != "GET" or "range" not in request.headers:
        return ()
    if not conditional.if_range(request, stored.response, stored.response_time):
        return ()
    return ranges.parse_range(request.headers, site.max_ranges)


# --- the origin has answered ---


def on_response(
    request: Request,
    response: Response,
    *,
    stored: StoredResponse | None,
    request_time: float,
    now: float,
    site: SitePolicy,
    passed: bool = False,
) -> ResponseVerdict:
    """What to do with the origin's answer.

    `request`: as the client sent it. `stored`: the response that was revalidated or is to be completed. `passed`: the
    request went on with the client's own conditions, so that a 304 is the client's.
    """
    answer = Answer(request, response, request_time, now, site)
    if response.status == 304 and not passed:
        return _not_modified(stored, answer)
    if stored is not None and (verdict := _instead_of_error(stored, answer)) is not None:
        return verdict
    if stored is not None and stored.held is not None and response.status in (206, 416):
        return _joined(stored, answer)
    if stored is not None and request.method == "HEAD":
        return _head(stored, answer)
    return _stored(stored, answer)


def _not_modified(stored: StoredResponse | None, answer: Answer) -> ResponseVerdict:
    """RFC 9111 §4.3.3: what it confirms is freshened; one that speaks of something else is asked again, plainly."""
    if stored is None:
        return DoNotStore(Reason.MALFORMED)
    if stored.held is not None or not validation.confirms(stored, answer.response):
        return _retry(answer)
    fresh, keep = storing.freshened(stored, answer)
    return Freshen(fresh, keep=keep)


def _instead_of_error(stored: StoredResponse, answer: Answer) -> UseStale | None:
    """RFC 5861 §4: rather a stale response than the origin's error, where that is allowed."""
    if answer.response.status not in stale.FAILURES or not stale.on_error(stored, answer.now):
        return None
    return _use_stale(answer.request, stored, answer.site)


def _use_stale(request: Request, stored: StoredResponse, site: SitePolicy) -> UseStale | None:
    shape = form(stored, request, site)
    return None if shape is None or _withheld(request, stored) else UseStale(stored, shape, Reason.STALE_IF_ERROR)


def _joined(stored: StoredResponse, answer: Answer) -> ResponseVerdict:
    """RFC 9111 §3.4: parts are put together only where a strong validator says that they are of one representation."""
    joined = storing.combined(stored, answer)
    return _retry(answer) if joined is None else Store(joined, combine_with=stored)


def _retry(answer: Answer) -> Retry:
    return Retry(_fetch(answer.request, Reason.PARTIAL_MISS, answer.site).headers)


def _head(stored: StoredResponse, answer: Answer) -> ResponseVerdict:
    """RFC 9111 §4.3.5: the answer to HEAD freshens the stored response it describes, and outdates any other."""
    if answer.response.status in stale.FAILURES or StoredFlag.ENCODED in stored.flags:
        return DoNotStore(Reason.METHOD)  # nothing is learnt of what is stored
    if not validation.describes_same(stored, answer.response):
        return DoNotStore(Reason.METHOD, drop_stored=True)
    fresh, keep = storing.freshened(stored, answer)
    return Freshen(fresh, keep=keep)


_LASTING = frozenset(
    {
        *(Reason.NO_STORE, Reason.PRIVATE, Reason.NO_FRESHNESS, Reason.SET_COOKIE),
        *(Reason.VARY_STAR, Reason.VARY_TOO_MANY, Reason.TOO_MANY_TAGS, Reason.TOO_LARGE),
    }
)
"""Reasons that lie in the resource, not in this one request: worth remembering (DESIGN §8)."""


def _stored(stored: StoredResponse | None, answer: Answer) -> ResponseVerdict:
    """RFC 9111 §3. An answer that is no error takes the place of what was stored, even if it is not stored itself."""
    record, status = storing.record(answer), answer.response.status
    if isinstance(record, StoredResponse):
        return Store(record)
    lasting = record in _LASTING and answer.request.method == "GET" and status < 500
    outdated = stored is not None and status < 500
    return DoNotStore(record, hit_for_pass_s=answer.site.hit_for_pass_s if lasting else 0.0, drop_stored=outdated)


def completed(stored: StoredResponse, body_size: int) -> StoredResponse | None:
    """The record once the whole body is there; None where a part turned out to be of another length than it said."""
    if stored.held is not None and stored.body_size != body_size:
        return None
    head = stored.response
    if stored.held is not None or StoredFlag.HEAD_ONLY in stored.flags or head.status in _respond.NO_CONTENT:
        return replace(stored, body_size=body_size, flags=stored.flags | StoredFlag.UNSIZED)
    fields = head.headers
    if fields.get_all("content-length") != [str(body_size)]:
        fields = fields.without({"content-length"}).plus((("Content-Length", str(body_size)),))
    return replace(stored, response=head.with_headers(fields), body_size=body_size)


# --- the origin has not answered ---


def on_failure(request: Request, stored: StoredResponse | None, now: float, site: SitePolicy) -> UseStale | None:
    """No answer, or a broken one: a stale response, where nothing forbids it (RFC 9111 §4.2.4)."""
    if stored is None or not stale.when_unreachable(stored, now, site):
        return None
    return _use_stale(request, stored, site)


# --- what an answer makes invalid ---


def invalidated(request: Request, response: Response, site: SitePolicy) -> tuple[str, ...]:  # noqa: ARG001 - the shape
    """Absolute URIs whose stored responses an unsafe request has made invalid (RFC 9111 §4.4)."""
    uris = invalidation.invalidated_uris(request, response)
    return tuple(map(str, uris)) if uris else ()


def invalidated_groups(request: Request, response: Response) -> tuple[str, ...]:
    """Groups of this origin that an unsafe request has made invalid (RFC 9875 §3)."""
    return invalidation.invalidated_groups(request, response)
