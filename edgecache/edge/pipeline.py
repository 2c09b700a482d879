"""One request through the edge: look up, let the policy decide, do what it says (DESIGN §3).

One driver loop, one handler per verdict, no handler calls back up: a handler that cannot finish, because what it waited
for turned out not to be for it, returns `Then.AGAIN`, and the loop looks anew. Wall-clock time is read once per event.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import assert_never

from edgecache.edge import forwarding, respond
from edgecache.edge.bounded import bound_body
from edgecache.edge.buffer import Budget
from edgecache.edge.codings import Codings, Job
from edgecache.edge.collapse import Collapse, Then
from edgecache.edge.exchange import Exchange
from edgecache.edge.leases import FillLeases
from edgecache.edge.lookup import Found, Shelf
from edgecache.edge.secure import over_tls, redirect
from edgecache.edge.sidedoor import SideDoor, answer_aside
from edgecache.edge.sites import Site, Sites, unsliced
from edgecache.edge.slices import Slicer
from edgecache.edge.tunnel import tunnel
from edgecache.edge.visit import Story, Visit
from edgecache.http.cachekey import cache_key
from edgecache.http.errors import ClientGone, HttpError
from edgecache.http.message import Request, Response
from edgecache.observe.events import Outcome
from edgecache.origin.api import OriginResponse, request_time
from edgecache.policy import cache_status, coding, hints, rules
from edgecache.policy.site import SitePolicy
from edgecache.policy.verdicts import (
    DoNotStore,
    Fetch,
    Pass,
    Reason,
    Reject,
    ResponseVerdict,
    Revalidate,
    Serve,
    Store,
)
from edgecache.purge.message import PurgeOrder, PurgeReceipt
from edgecache.store.tiers import TieredStore

_log = logging.getLogger("edgecache.edge")

MAX_ROUNDS = 4
"""Times a request may begin again (overtaken by purges, released by others) before it fetches for itself."""


MAX_BROUGHT = 3
"""Times something may come up from disk for one request: a marker, what it leads to, and once more where purges or
evictions come between."""
_FROM_DISK = frozenset({"GET", "HEAD"})


class Pipeline:
    """Answers exchanges. One per worker; what it shares with other workers lies in the store."""

    def __init__(
        self,
        *,
        sites: Sites,
        shelf: Shelf,
        clock: Callable[[], float],
        hop: forwarding.Hop,
        purge: Callable[[PurgeOrder], PurgeReceipt],
        kept: Callable[[], Awaitable[object]] | None = None,
        told: Callable[[Exchange, Story], None],
        cache_name: str = "edgecache",
        leases: FillLeases | None = None,
        budget: Budget | None = None,
        max_request_body: int | None = None,
        pass_when_silent: bool = False,
        fills_under_way: Callable[[int], None] = lambda _: None,
        side_door: SideDoor | None = None,
    ) -> None:
        """`side_door`: who answers unsafe requests that are the operator's; None: they are all a site's."""
        self.sites = sites
        self.shelf = shelf
        self.codings = Codings(shelf, clock)
        self.slicer: Slicer | None = None
        if isinstance(shelf.store, TieredStore):
            self.slicer = Slicer(shelf, shelf.store.disk, clock, self._to_origin, leases)
        self.collapse = Collapse(
            shelf,
            clock,
            self._to_origin,
            self._from_origin,
            self.send_passed,
            self.codings,
            fills_under_way,
            leases,
            budget,
            self.slicer,
        )
        self._clock = clock
        self._hop = hop
        self._purge = purge
        self._kept = kept
        self._told = told
        self._max_request_body = max_request_body
        self._pass_when_silent = pass_when_silent
        self._side_door = side_door
        self._nobody = SitePolicy(cache_status_name=cache_name)

    async def handle(self, exchange: Exchange) -> None:
        """Answer one exchange, whatever happens; the `Handler` of every listener."""
        story = Story()
        try:
            await self._drive(exchange, story)
        except ClientGone:
            story.error, story.aborted = story.error or "client-gone", True
            exchange.abort()
        except HttpError as error:
            await self._fail(exchange, story, error)
        except Exception:  # noqa: BLE001 - the last line of defence: a bug answers 500 and is logged whole
            _log.exception("bug while answering %s %s", exchange.request.method, exchange.request.target)
            await self._fail(exchange, story, HttpError("internal error", code="internal"))
        finally:
            self._told(exchange, story)

    async def _fail(self, exchange: Exchange, story: Story, error: HttpError) -> None:
        story.outcome = Outcome.REJECTED if error.status < 500 else Outcome.ERROR
        story.error = error.code
        story.aborted = exchange.started
        story.status = story.status if exchange.started else error.status
        story.cache_status = cache_status.member(self._nobody, detail=error.code)
        try:
            await respond.send_error(exchange, story, error.status, error.detail, story.cache_status)
        except ClientGone:
            exchange.abort()

    # --- the driver ---

    async def _drive(self, exchange: Exchange, story: Story) -> None:
        request = exchange.request
        if self._side_door is not None and request.method not in _FROM_DISK and self._side_door.takes(request):
            await answer_aside(self._side_door, exchange, story)
            return
        site = self.sites.find(request.authority)
        if site is None:
            raise HttpError(f"no site here serves {request.authority!r}", status=421, code=Reason.UNKNOWN_HOST)
        story.site = site.name
        if request.scheme == "https":
            exchange.hsts = site.hsts
        elif site.https_port is not None and not over_tls(request, believed=self._hop.trusts(request.peer.ip)):
            self._redirect(exchange, story, site, site.https_port)
            return
        bound_body(exchange, self._max_request_body)
        key_text = cache_key(request.scheme, request.authority, request.target, site.policy.query)
        store = self.shelf.store
        visit = Visit(exchange, site, key_text, store.key(key_text), store.sequence(), story)
        match forwarding.stop_here(request, self._hop):
            case Reject() as rejected:
                await self._reject(visit, rejected)
                return
            case forwarding.FinalRecipient(response, body):
                await self._answer_as_origin(visit, response, body)
                return
        if exchange.upgrade is not None and forwarding.tunnel_offered(request, self._hop) is not None:
            # Nothing stored can answer an offer to switch protocols, and nobody can share the connection it becomes.
            await self._pass(visit, Found(visit.primary, visit.primary, [], []), Pass(request.headers, Reason.BYPASS))
            return
        if exchange.body.length != 0 and request.method in {"GET", "HEAD"}:
            # Content in a GET has no defined meaning (RFC 9110 §9.3.1): it is no part of the key, so nothing stored
            # answers it, its answer is not stored, and the origin gets to see it.
            nothing = Found(visit.primary, visit.primary, [], [])
            await self._pass(visit, nothing, Pass(request.headers, Reason.BYPASS), storable=False)
            return
        now = exchange.received_at
        hinted = False
        for _ in range(MAX_ROUNDS):
            found = self.shelf.find(site, key_text, visit.primary, request, now)
            site = self._slicing(visit)
            passing = self._pass_when_silent and store.silent()
            if not passing and self.shelf.tiered and may_be_on_disk(found, request):
                found = await self._bring(visit, found, now)
            verdict = rules.on_request(
                request,
                [candidate.stored for candidate in found.candidates],
                now,
                site.policy,
                hit_for_pass=found.hit_for_pass,
                vary_miss=found.vary_miss,
                passing=passing,
            )
            match verdict:
                case Serve():
                    if await self._serve(visit, found, verdict, now) is Then.DONE:
                        return
                    now = self._clock()
                    continue
                case Reject():
                    await self._reject(visit, verdict)
                    return
                case Pass():
                    await self._pass(visit, found, verdict, storable=verdict.reason is not Reason.SILENT)
                    return
                case Revalidate() | Fetch():
                    if not hinted and isinstance(verdict, Revalidate):
                        hinted = self._hint(visit, verdict)
                    then = await self.collapse.fetch(visit, found, verdict, self._interim_to(exchange))
                case _:
                    assert_never(verdict)
            if then is Then.DONE:
                return
            now = self._clock()
        await self._pass(visit, Found(visit.primary, visit.primary, [], []), Pass(request.headers, Reason.BYPASS))

    async def _bring(self, visit: Visit, found: Found, now: float) -> Found:
        """What is stored on disk, brought into memory."""
        request = visit.exchange.request
        for _ in range(MAX_BROUGHT):
            if not (may_be_on_disk(found, request) and await self.shelf.bring(found)):
                break
            found = self.shelf.find(visit.site, visit.key_text, visit.primary, request, now)
        return found

    # --- a handler per verdict (Revalidate and Fetch: collapse.py) ---

    async def _reject(self, visit: Visit, verdict: Reject) -> None:
        story = visit.story
        story.outcome, story.reason, story.status = Outcome.REJECTED, verdict.reason, verdict.status
        story.cache_status = cache_status.member(visit.site.policy, detail=verdict.reason)
        await respond.send_error(visit.exchange, story, verdict.status, verdict.detail, story.cache_status)

    def _redirect(self, exchange: Exchange, story: Story, site: Site, port: int) -> None:
        """This site is for TLS."""
        story.outcome, story.reason = Outcome.REJECTED, Reason.HTTPS_REQUIRED
        story.cache_status = cache_status.member(site.policy, detail=story.reason)
        response = redirect(exchange.request, port, story.cache_status)
        story.status = response.status
        exchange.start(response, 0)
        exchange.finish()

    async def _answer_as_origin(self, visit: Visit, response: Response, body: bytes) -> None:
        """Max-Forwards ended here (RFC 9110 §7.6.2)."""
        story = visit.story
        story.outcome, story.reason, story.status = Outcome.REJECTED, Reason.MAX_FORWARDS, response.status
        visit.exchange.start(response, len(body))
        await visit.exchange.write(body)
        visit.exchange.finish()

    def _slicing(self, visit: Visit) -> Site:
        """The site as it is to be seen now: without slices where they are of no use."""
        site, slicer = visit.site, self.slicer
        if not site.policy.slice_bytes:
            return site
        ranged = "range" in visit.request.headers
        if slicer is None or not slicer.on or (ranged and slicer.avoids(visit.primary)):
            site = visit.site = unsliced(site)
        return site

    async def _serve(self, visit: Visit, found: Found, verdict: Serve, now: float) -> Then:
        candidate = found.of(verdict.stored)
        reader = None
        if self.slicer is not None and verdict.stored.sliced is not None:
            reader = self.slicer.reader(visit, verdict.stored, candidate.key, candidate.entry.fill_seq)
            if not await reader.prime(verdict.form):
                return Then.AGAIN
        if verdict.revalidate:
            self.collapse.revalidate_in_background(visit, found, candidate)
        story = visit.story
        story.outcome = Outcome.HIT if verdict.reason is Reason.FRESH else Outcome.STALE
        story.reason = verdict.reason
        story.cache_status = cache_status.member(
            visit.site.policy,
            reason=verdict.reason,
            hit=True,
            ttl=verdict.stored.fresh_for(now),
            key=visit.key_text,
        )
        if reader is None or self.slicer is None:
            await respond.send_candidate(visit, candidate, verdict.form, now)
            return Then.DONE
        policy = visit.site.policy
        if reader.fetched:
            story.outcome = Outcome.MISS
            story.cache_status = cache_status.member(
                policy, reason=Reason.PARTIAL_MISS, fwd_status=206, stored=True, key=visit.key_text
            )
        out = rules.respond(verdict.stored, verdict.form, visit.request, now, policy, story.cache_status)
        await self.slicer.send(visit, out, verdict.form, verdict.stored, reader)
        return Then.DONE

    async def _pass(self, visit: Visit, found: Found, verdict: Pass, *, storable: bool = True) -> None:
        """Straight through, streamed both ways. What comes back may still be stored, or invalidate (§4.4)."""
        exchange, site, story, request = visit.exchange, visit.site, visit.story, visit.request
        story.outcome, story.reason = Outcome.PASS, verdict.reason
        fill_seq = self.shelf.store.sequence()
        begun = self._clock()
        origin = await site.origin.send(
            self._to_origin(request.with_headers(verdict.headers)),
            exchange.body,
            on_interim=self._interim_to(exchange),
        )
        now = self._clock()
        story.origin_s = now - begun
        if origin.upgraded is not None:
            story.status = origin.head.status
            await tunnel(exchange.switch(origin.head), origin.upgraded)
            return
        response = self._from_origin(origin.head)
        judged = rules.on_response(
            request,
            response,
            stored=None,
            request_time=request_time(origin, begun, now),
            now=now,
            site=site.policy,
            passed=True,
        )
        fill_seq = self._invalidate(visit, response, judged, fill_seq)
        if self._kept is not None and request.method not in _FROM_DISK:
            await self._kept()  # nobody hears of the change before it would outlive a crash
        match judged:
            case Store() if storable:
                await self._send_and_store(visit, found, origin, response, judged, fill_seq)
            case DoNotStore():
                await self.send_passed(visit, found, origin, response, judged, fill_seq)
            case _:
                # Nothing that is stored could be used instead, and this may not be stored.
                await self.send_passed(
                    visit, found, origin, response, DoNotStore(Reason.BYPASS if storable else verdict.reason), fill_seq
                )

    def _invalidate(self, visit: Visit, response: Response, judged: ResponseVerdict, fill_seq: int) -> int:
        """Purge what an unsafe method made stale (RFC 9111 §4.4).

        The response itself is newer than the purges it causes. Returns the `fill_seq` it may be stored with: raised
        past them only where no other purge has covered it since the request was sent.
        """
        urls = rules.invalidated(visit.request, response, visit.site.policy)
        if not urls:
            return fill_seq
        groups = rules.invalidated_groups(visit.request, response)
        store = self.shelf.store
        before = store.sequence()
        covered = True
        if isinstance(judged, Store):
            tags = self.shelf.tags(judged.stored, site=visit.site, cache_key=visit.key_text)
            url = self.shelf.url(judged.stored, site=visit.site, cache_key=visit.key_text)
            covered = store.purged(fill_seq, tags, url)
        source = f"{visit.request.method} request"
        order = PurgeOrder(urls=urls, groups=groups, site=visit.site.name, source=source)
        sequence = self._purge(order).sequence
        # Numbers are allotted one by one to all processes: the next after `before` means that nobody's came between.
        return sequence if not covered and sequence == before + 1 else fill_seq

    def send_passed(
        self,
        visit: Visit,
        found: Found,
        origin: OriginResponse,
        response: Response,
        judged: DoNotStore,
        fill_seq: int,
    ) -> Awaitable[bool]:
        """Stream an origin's answer that is not stored."""
        self.shelf.remember_pass(
            found.fill_key,
            now=self._clock(),
            seconds=judged.hit_for_pass_s,
            fill_seq=fill_seq,
            known_until=found.pass_until,
        )
        return self._stream(visit, origin, response, judged.reason, keep=None)

    async def _send_and_store(
        self,
        visit: Visit,
        found: Found,
        origin: OriginResponse,
        response: Response,
        judged: Store,
        fill_seq: int,
    ) -> None:
        """Stream it, keep a copy on the way, and store that: a passed answer that may be stored after all."""
        policy = visit.site.policy
        record = self.shelf.record(judged.stored, site=visit.site, cache_key=visit.key_text, fill_seq=fill_seq)
        room = policy.max_object_bytes - len(record.head) - len(record.meta) - 8 * len(record.tags)
        if origin.body.length is not None and origin.body.length > room:
            large = DoNotStore(Reason.TOO_LARGE, hit_for_pass_s=policy.hit_for_pass_s)
            await self.send_passed(visit, found, origin, response, large, fill_seq)
            return
        kept = _Kept(room)
        response = coding.shown(response, judged.stored)
        if not await self._stream(visit, origin, response, None, keep=kept.add) or kept.chunks is None:
            return
        stored = rules.completed(judged.stored, kept.size)
        if stored is None:
            return
        record = self.shelf.record(stored, site=visit.site, cache_key=visit.key_text, fill_seq=fill_seq)
        self.shelf.forget_pass(found.primary)
        place = self.shelf.place(
            visit.site, visit.key_text, found.primary, stored, visit.request, self._clock(), fill_seq
        )
        if self.shelf.put(place, record, kept.chunks):
            self.codings.make(Job(visit.site, place, stored, visit.key_text, fill_seq, kept.chunks))

    def _stream(
        self,
        visit: Visit,
        origin: OriginResponse,
        response: Response,
        why_not_stored: Reason | None,
        *,
        keep: Callable[[bytes], None] | None,
    ) -> Awaitable[bool]:
        story, site = visit.story, visit.site
        story.status = response.status
        story.cache_status = cache_status.member(
            site.policy,
            reason=story.reason if isinstance(story.reason, Reason) else None,
            fwd="bypass" if story.reason is Reason.SILENT and story.outcome is Outcome.PASS else None,
            fwd_status=response.status,
            stored=keep is not None,
            detail=why_not_stored,
            key=visit.key_text,
        )
        out = rules.relay(response, visit.request, site.policy, story.cache_status)
        return respond.send_stream(visit.exchange, story, out.response, origin.body, keep=keep)

    def _hint(self, visit: Visit, verdict: Revalidate) -> bool:
        """Let a client that has to wait for the origin begin with the links of what is stored. True: once is enough."""
        response = hints.while_waiting(visit.request, verdict.stored, visit.site.policy)
        if response is not None:
            with contextlib.suppress(ClientGone):  # the final answer finds out
                visit.exchange.interim(response)
        return True

    # --- the next hop ---

    def _to_origin(self, request: Request) -> Request:
        return forwarding.request_to_origin(request, self._hop)

    def _from_origin(self, response: Response) -> Response:
        return forwarding.response_to_client(response, self._hop)

    def _interim_to(self, exchange: Exchange) -> Callable[[Response], None]:
        def tell(response: Response) -> None:
            with contextlib.suppress(ClientGone):  # the final answer finds out
                exchange.interim(self._from_origin(response))

        return tell


def may_be_on_disk(found: Found, request: Request) -> bool:
    """Is it worth looking there: nothing that memory has answers the request?"""
    return not found.candidates and not found.hit_for_pass and request.method in _FROM_DISK


class _Kept:
    """Gathers a passing body for the store, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.chunks: list[bytes] | None = []
        self.size = 0
        self._limit = limit

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.chunks is not None:
            if self.size > self._limit:
                self.chunks = None
            else:
                self.chunks.append(data)
