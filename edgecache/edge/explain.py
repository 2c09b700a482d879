"""What the edge would do with a request, and why: the same look-up and the same policy, with no side effect."""

from collections.abc import Callable
from typing import assert_never
from urllib.parse import urlsplit

from edgecache.admin.node import ExplainedEntry, Explanation
from edgecache.edge.lookup import Candidate, Shelf
from edgecache.edge.pipeline import MAX_BROUGHT, may_be_on_disk
from edgecache.edge.sites import Site, Sites
from edgecache.http.cachekey import cache_key
from edgecache.http.headers import Headers
from edgecache.http.message import Request
from edgecache.policy import cache_status, rules, slices, surrogate
from edgecache.policy.verdicts import (
    Fetch,
    Form,
    NotModified,
    Pass,
    PreconditionFailed,
    RangeNotSatisfiable,
    Ranges,
    Reason,
    Reject,
    RequestVerdict,
    Revalidate,
    Serve,
    Whole,
)
from edgecache.store.filebody import FileEntry
from edgecache.store.tiers import TieredStore


class Explainer:
    """Answers "what would you do with this?" on a running edge."""

    def __init__(
        self,
        sites: Sites,
        shelf: Shelf,
        in_flight: Callable[[bytes], bool],
        clock: Callable[[], float],
        *,
        pass_when_silent: bool = False,
    ) -> None:
        """`in_flight`: is a fill of this key under way?"""
        self._sites = sites
        self._shelf = shelf
        self._in_flight = in_flight
        self._clock = clock
        self._pass_when_silent = pass_when_silent

    async def explain(self, method: str, url: str, headers: Headers) -> Explanation:
        """What is only on disk is brought up, as a request would. Raises ValueError for a URL that is not absolute http
        or https."""
        parts = urlsplit(url)
        if parts.scheme.lower() not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise ValueError("an absolute http or https URL, such as http://127.0.0.1:8080/index.html")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = Request(method.upper(), parts.scheme.lower(), parts.netloc, target, headers)
        site = self._sites.find(request.authority)
        if site is None:
            return Explanation(
                url, "", "", "reject", "unknown-host", f"no site here serves {request.authority}: answered 421", "", ()
            )
        now = self._clock()
        key_text = cache_key(request.scheme, request.authority, target, site.policy.query)
        primary = self._shelf.store.key(key_text)
        found = self._shelf.find(site, key_text, primary, request, now, touch=False)
        for _ in range(MAX_BROUGHT):
            if not (may_be_on_disk(found, request) and await self._shelf.bring(found)):
                break
            found = self._shelf.find(site, key_text, primary, request, now, touch=False)
        silent = self._shelf.store.silent()
        verdict = rules.on_request(
            request,
            [candidate.stored for candidate in found.candidates],
            now,
            site.policy,
            hit_for_pass=found.hit_for_pass,
            vary_miss=found.vary_miss,
            passing=self._pass_when_silent and silent,
        )
        word, detail, status = _words(verdict, site, now, key_text)
        return Explanation(
            url=url,
            site=site.name,
            cache_key=key_text,
            verdict=word,
            reason=str(verdict.reason),
            detail=detail,
            cache_status=status,
            stored=tuple(
                [_entry(candidate, key_text, site, now, await self._tier(candidate)) for candidate in found.candidates]
            ),
            in_flight=self._in_flight(found.fill_key),
            notes=tuple(_notes(found.hit_for_pass, found.vary_miss, silent)),
        )

    async def _tier(self, candidate: Candidate) -> str:
        """Where the body lies."""
        sliced, store = candidate.stored.sliced, self._shelf.store
        if sliced is None:
            return "disk" if isinstance(candidate.entry, FileEntry) else "memory"
        number = slices.count(sliced, candidate.stored.body_size)
        if not isinstance(store, TieredStore):
            return f"{number} slices on disk"
        there = await store.disk.present([slices.slice_key(sliced, index) for index in range(number)])
        return f"slices, {len(there)} of {number} on disk"


_FORMS: dict[type[Form], str] = {
    Whole: "",
    NotModified: " with 304 Not Modified",
    PreconditionFailed: " with 412 Precondition Failed",
    Ranges: " with the ranges asked for",
    RangeNotSatisfiable: " with 416 Range Not Satisfiable",
}


def _words(verdict: RequestVerdict, site: Site, now: float, key: str) -> tuple[str, str, str]:
    policy = site.policy
    match verdict:
        case Serve(stored, form, reason, revalidate):
            left = stored.fresh_for(now)
            status = cache_status.member(policy, reason=reason, hit=True, ttl=left, key=key)
            state = f"fresh for another {int(left)} s" if left >= 0 else f"stale for {int(-left)} s"
            if stored.soft_purged:
                state = "made stale by a purge"
            also = "; one request revalidates it in the background" if revalidate else ""
            return "serve", f"answered from the cache{_FORMS[type(form)]}, {state}{also}", status
        case Revalidate(stored, _, reason):
            status = cache_status.member(policy, reason=reason, key=key)
            return "revalidate", "the origin is asked whether what is stored is still good", status
        case Fetch(_, reason, collapse):
            status = cache_status.member(policy, reason=reason, key=key)
            return "fetch", "fetched from the origin" + ("; others who ask meanwhile wait for it" * collapse), status
        case Pass(_, reason):
            fwd = "bypass" if reason is Reason.SILENT else None
            status = cache_status.member(policy, reason=reason, fwd=fwd, key=key)
            return "pass", "streamed through to the origin and not shared", status
        case Reject(status_code, reason, detail):
            return "reject", f"answered {status_code}: {detail}", cache_status.member(policy, detail=reason)
        case _:
            assert_never(verdict)


def _entry(candidate: Candidate, key_text: str, site: Site, now: float, tier: str) -> ExplainedEntry:
    stored = candidate.stored
    return ExplainedEntry(
        key=key_text,
        status=stored.response.status,
        age_s=max(0.0, now - stored.born_at),
        fresh_for_s=stored.fresh_for(now),
        stale_for_s=stored.stale_until - max(now, stored.fresh_until),
        body_bytes=stored.body_size,
        tier=tier,
        flags=tuple(flag.name.lower() for flag in stored.flags if flag.name) + ("soft_purged",) * stored.soft_purged,
        vary=stored.selecting,
        surrogate_keys=tuple(surrogate.keys(stored.response.headers, site.policy.max_tag_bytes) or ()),
        fields=stored.response.headers.lines,
    )


def _notes(hit_for_pass: bool, vary_miss: bool, silent: bool) -> list[str]:
    notes = []
    if silent:
        notes.append("nothing was heard of the purge coordinator for purge.max_silence: what is stored is not trusted")
    if hit_for_pass:
        notes.append("responses for this key were not cacheable a moment ago, so nobody waits for another's fetch")
    if vary_miss:
        notes.append("other variants of this URL are stored, none for these request fields (Vary)")
    return notes
