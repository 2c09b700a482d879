"""An edge on paper: the rules of `edgecache.policy` driven with a dictionary for a store, a clock that is set by hand
and an origin that is a function. It does what the verdicts say and nothing else, so that a table can say in which
order what comes, and what each client must get.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from edgecache.http.cachekey import cache_key
from edgecache.http.dates import format_date
from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.http.stored import StoredResponse
from edgecache.policy import cache_status, ranges, rules, vary
from edgecache.policy.site import SitePolicy
from edgecache.policy.verdicts import (
    DoNotStore,
    Fetch,
    Form,
    Freshen,
    Pass,
    Ranges,
    Reason,
    Reject,
    Retry,
    Revalidate,
    Serve,
    Store,
    UseStale,
)

EPOCH = 1_800_000_000.0
"""When every test begins: Friday, 15 January 2027, 08:00:00 GMT."""


class Unreachable(Exception):
    """The origin gives no answer."""


Lines = Sequence[tuple[str, str]] | dict[str, str]
Origin = Callable[[Request], tuple[Response, bytes]]


def headers(lines: Lines) -> Headers:
    return Headers(lines.items() if isinstance(lines, dict) else lines)


def date(seconds: float) -> str:
    """The HTTP-date so many seconds after the beginning."""
    return format_date(EPOCH + seconds)


def answer(lines: Lines = (), *, status: int = 200, body: bytes = b"body", dated: bool = True) -> Origin:
    """An origin that always says this, with a Date that is the time of the request unless there is one."""

    def origin(request: Request) -> tuple[Response, bytes]:
        head = headers(lines)
        if dated and "date" not in head:
            head = head.plus([("Date", request.headers.get("x-now") or "")])
        return Response(status, "Said", head), b"" if status in (204, 304) else body

    return origin


def unreachable(request: Request) -> tuple[Response, bytes]:
    raise Unreachable


def untouched(request: Request) -> tuple[Response, bytes]:
    raise AssertionError(f"the origin was asked: {request}")


@dataclass
class Result:
    """What a client got, and what it cost."""

    status: int
    headers: Headers
    body: bytes
    reason: Reason
    asked: list[Request] = field(default_factory=list)
    """Requests that the origin saw, those in the background included."""

    @property
    def cached(self) -> bool:
        return not self.asked


class Model:
    """One edge with one site and an empty store."""

    def __init__(self, site: SitePolicy | None = None) -> None:
        self.site = site or SitePolicy(surrogate_capability=False)
        self.now = EPOCH
        self.markers: dict[str, tuple[str, ...]] = {}
        self.entries: dict[tuple[str, bytes], tuple[StoredResponse, bytes]] = {}
        self.passes: dict[str, float] = {}
        self._asked: list[Request] = []
        self._origin: Origin = untouched

    def at(self, seconds: float) -> "Model":
        self.now = EPOCH + seconds
        return self

    def ask(
        self,
        origin: Origin = untouched,
        lines: Lines = (),
        *,
        method: str = "GET",
        target: str = "/",
        authority: str = "example.com",
    ) -> Result:
        """One request, answered."""
        request = Request(method, "http", authority, target, headers(lines))
        self._asked, self._origin = [], origin
        result = self._answer(request)
        result.asked = self._asked
        return result

    def soft_purge(self) -> None:
        self.entries = {key: (replace(each, soft_purged=True), body) for key, (each, body) in self.entries.items()}

    # --- the edge ---

    def _answer(self, request: Request) -> Result:
        key = self._key(request)
        candidates = self._candidates(key, request)
        verdict = rules.on_request(
            request,
            [stored for stored, _ in candidates],
            self.now,
            self.site,
            hit_for_pass=self.passes.get(key, 0.0) > self.now,
            vary_miss=key in self.markers,
        )
        match verdict:
            case Serve(stored, form, reason, revalidate):
                result = self._respond(request, stored, self._body(stored), form, reason)
                if revalidate:
                    again = rules.validation.conditional(request.headers, stored)
                    self._fetch(request, again, stored, reason, passed=False)
                return result
            case Reject(status, reason, detail):
                return Result(status, Headers(), detail.encode(), reason)
            case Revalidate(stored, fields, reason):
                return self._fetch(request, fields, stored, reason, passed=False)
            case Fetch(fields, reason, completes=completes):
                return self._fetch(request, fields, completes, reason, passed=False)
            case Pass(fields, reason):
                return self._fetch(request, fields, None, reason, passed=True)

    def _fetch(
        self, request: Request, fields: Headers, stored: StoredResponse | None, reason: Reason, *, passed: bool
    ) -> Result:
        sent = request.with_headers(fields)
        self._asked.append(sent)
        try:
            response, body = self._origin(sent.with_headers(fields.plus([("X-Now", format_date(self.now))])))
        except Unreachable:
            stale = rules.on_failure(request, stored, self.now, self.site)
            if stale is None:
                return Result(502, Headers(), b"", reason)
            return self._respond(request, stale.stored, self._body(stale.stored), stale.form, stale.reason)
        for uri in rules.invalidated(request, response, self.site):
            self._forget(uri)
        verdict = rules.on_response(
            request,
            response,
            stored=stored,
            request_time=self.now,
            now=self.now,
            site=self.site,
            passed=passed,
        )
        match verdict:
            case Retry(again):
                return self._fetch(request, again, None, reason, passed=passed)
            case UseStale(used, form, why):
                return self._respond(request, used, self._body(used), form, why)
            case Freshen(fresh, _, keep):
                old = self._body(stored)
                self._drop(stored)
                if keep:
                    self._keep(request, fresh, old)
                form = rules.form(fresh, request, self.site)
                assert form is not None
                return self._respond(request, fresh, old, form, reason)
            case Store(record, _, combine_with):
                whole = body if combine_with is None else self._join(combine_with, response, body)
                done = rules.completed(record, len(whole))
                if done is not None:
                    self._keep(request, done, whole)
                    form = rules.form_as_sent(done, request, self.site)
                    if combine_with is not None or not rules.as_it_came(done, form):
                        return self._respond(request, done, whole, form, reason)
            case DoNotStore(_, pass_s, drop):
                if drop:
                    self._drop(stored)
                if pass_s:
                    self.passes[self._key(request)] = self.now + pass_s
        out = rules.relay(response, request, self.site, cache_status.member(self.site, reason=reason))
        return Result(out.response.status, out.response.headers, body if out.body else b"", reason)

    def _respond(self, request: Request, stored: StoredResponse, body: bytes, form: Form, reason: Reason) -> Result:
        status = cache_status.member(self.site, reason=reason, hit=True, ttl=stored.fresh_until - self.now)
        out = rules.respond(stored, form, request, self.now, self.site, status)
        if not out.body:
            body = b""
        elif isinstance(form, Ranges):
            start = 0 if stored.held is None else stored.held.first
            body = b"|".join(body[first - start : last + 1 - start] for first, last in form.parts)
        return Result(out.response.status, out.response.headers, body, reason)

    def _join(self, before: StoredResponse, response: Response, body: bytes) -> bytes:
        arrived = ranges.parse_content_range(response.headers)
        assert before.held is not None
        assert arrived is not None
        joined = ranges.joined(before.held, arrived)
        assert joined is not None
        old = self._body(before)
        return b"".join(
            (body if piece.arrived else old)[piece.offset : piece.offset + piece.size] for piece in joined[1]
        )

    # --- the store ---

    def _key(self, request: Request) -> str:
        return cache_key(request.scheme, request.authority, request.target, self.site.query)

    def _candidates(self, key: str, request: Request) -> list[tuple[StoredResponse, bytes]]:
        places = [(key, vary.secondary_key(each)) for each in vary.lookup(self.markers.get(key, ()), request.headers)]
        return [self.entries[place] for place in places if place in self.entries]

    def _keep(self, request: Request, stored: StoredResponse, body: bytes) -> None:
        key = self._key(request)
        names = [name for name, _ in stored.selecting]
        self.markers[key] = tuple(names)
        self.passes.pop(key, None)
        for selecting in vary.storage(names, request.headers, stored.response.headers):
            self.entries[key, vary.secondary_key(selecting)] = stored, body

    def _body(self, stored: StoredResponse | None) -> bytes:
        return next(body for each, body in self.entries.values() if each is stored)

    def _drop(self, stored: StoredResponse | None) -> None:
        self.entries = {key: value for key, value in self.entries.items() if value[0] is not stored}

    def _forget(self, key: str) -> None:
        self.entries = {place: value for place, value in self.entries.items() if place[0] != key}
        self.markers.pop(key, None)
