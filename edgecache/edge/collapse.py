"""Who fetches and who waits: many requests for one thing make one fill, and share its outcome (DESIGN §8).

A request joins a fill only if it could have led it: it arrived before any purge that covers the response, its Vary
values select the same variant, and the body can still be read from its beginning. Otherwise it looks again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum
from typing import assert_never

from edgecache.edge import respond
from edgecache.edge.buffer import Budget
from edgecache.edge.codings import Codings
from edgecache.edge.fill import (
    Arriving,
    Confirmed,
    Failed,
    Fill,
    FillOutcome,
    InSlices,
    Overtaken,
    Stale,
    Uncacheable,
    Unsliced,
)
from edgecache.edge.leases import WAIT, FillLeases
from edgecache.edge.lookup import Candidate, Found, Shelf
from edgecache.edge.sites import unsliced
from edgecache.edge.slices import Slicer
from edgecache.edge.visit import Visit
from edgecache.http.message import Request, Response
from edgecache.http.tasks import spawn
from edgecache.observe.events import Outcome
from edgecache.origin.api import OriginResponse
from edgecache.policy import cache_status, coding, rules
from edgecache.policy.verdicts import DoNotStore, Fetch, Ranges, Reason, Revalidate, Whole

SendPassed = Callable[[Visit, Found, OriginResponse, Response, DoNotStore, int], Awaitable[object]]


class Then(Enum):
    """How a handler ended."""

    DONE = 1
    AGAIN = 2


class Collapse:
    """The fills under way in this worker."""

    def __init__(
        self,
        shelf: Shelf,
        clock: Callable[[], float],
        to_origin: Callable[[Request], Request],
        from_origin: Callable[[Response], Response],
        send_passed: SendPassed,
        codings: Codings,
        under_way: Callable[[int], None],
        leases: FillLeases | None = None,
        budget: Budget | None = None,
        slicer: Slicer | None = None,
    ) -> None:
        """`under_way` is told how many fills there are, whenever that changes. `leases`: what the other workers of the
        node fetch; None where there are none."""
        self.fills: dict[bytes, Fill] = {}
        """By key: that of the first look-up, and once the response is known to vary, that of its variant too."""
        self._number = 0
        self._under_way = under_way
        self._shelf = shelf
        self._clock = clock
        self._to_origin = to_origin
        self._from_origin = from_origin
        self._send_passed = send_passed
        self._codings = codings
        self._leases = leases
        self._budget = budget
        self._slicer = slicer

    async def fetch(
        self, visit: Visit, found: Found, verdict: Fetch | Revalidate, on_interim: Callable[[Response], None]
    ) -> Then:
        """A miss, or a stale entry: lead a fill, or wait for the one under way."""
        if await self._without_asking(visit, found, verdict):
            return Then.DONE
        shared = visit.share and verdict.collapse
        fill = self.fills.get(found.fill_key) if shared else None
        if fill is not None and fill.joinable(visit.request, visit.sequence):
            outcome = await _outcome(fill, on_interim)
            if not _for_everyone(outcome, fill, visit):
                visit.share = visit.share and not isinstance(outcome, Uncacheable)
                return Then.AGAIN
            return await self._use(visit, found, verdict, fill, outcome, collapsed=True)
        lease = self._lease(found.fill_key, visit.sequence) if shared else -1
        if lease == WAIT and self._leases is not None:
            await self._leases.wait(found.fill_key)
            return Then.AGAIN
        if shared and not visit.looked_again and self._stored_now(visit, found, verdict):
            # By a fetch that ended since we looked, in whatever worker: a look on disk takes a moment. Once: it may be
            # nothing for us after all.
            visit.looked_again = True
            self._releaser(found.fill_key, lease)()
            return Then.AGAIN
        held = verdict.stored if isinstance(verdict, Revalidate) else verdict.completes
        candidate = found.of(held) if held is not None else None
        if candidate is not None and (plain := self._shelf.plain(candidate)) is not candidate:
            candidate = plain
            verdict = rules.revalidation(visit.request, plain.stored, verdict.reason, visit.site.policy)
        fill = self._begin(visit, visit.request, found, verdict, candidate, shared=shared, lease=lease)
        try:
            outcome = await _outcome(fill, on_interim)
        except asyncio.CancelledError:
            # Whoever leads owns an answer that nobody may share, and must not leave it lying about.
            fill.outcome.add_done_callback(_let_go)
            raise
        return await self._use(visit, found, verdict, fill, outcome, collapsed=False)

    def _stored_now(self, visit: Visit, found: Found, verdict: Fetch | Revalidate) -> bool:
        """Has somebody stored what was missing, or renewed what was of no use?"""
        if isinstance(verdict, Revalidate):
            return self._shelf.renewed(found.of(verdict.stored))
        if found.candidates:
            return any(map(self._shelf.renewed, found.candidates))
        if self._shelf.store.peek(found.fill_key) is not None:
            return True
        if not visit.site.policy.no_vary_search:
            return False
        # It may lie where its own No-Vary-Search leads to.
        again = self._shelf.find(visit.site, visit.key_text, found.primary, visit.request, self._clock(), touch=False)
        return bool(again.candidates)

    async def _without_asking(self, visit: Visit, found: Found, verdict: Fetch | Revalidate) -> bool:
        """Where the origin failed a moment ago to renew what is stored, that is used as it was then."""
        if not isinstance(verdict, Revalidate) or verdict.reason is not Reason.STALE:
            return False
        now, policy = self._clock(), visit.site.policy
        if not policy.retry_after_failure_s or not self._shelf.failed_lately(found.fill_key, now):
            return False
        use = rules.on_failure(visit.request, verdict.stored, now, policy)
        if use is None:
            return False
        story, candidate = visit.story, found.of(verdict.stored)
        story.outcome, story.reason = Outcome.STALE, use.reason
        story.cache_status = cache_status.member(
            policy, reason=use.reason, hit=True, ttl=candidate.stored.fresh_for(now), key=visit.key_text
        )
        await respond.send_candidate(visit, candidate, use.form, now)
        return True

    async def _use(
        self,
        visit: Visit,
        found: Found,
        verdict: Fetch | Revalidate,
        fill: Fill,
        outcome: FillOutcome,
        *,
        collapsed: bool,
    ) -> Then:
        story, policy, key = visit.story, visit.site.policy, visit.key_text
        story.origin_s = max(0.0, fill.head_at - visit.exchange.received_at)
        story.reason = verdict.reason
        match outcome:
            case Arriving(response=response):
                story.outcome = Outcome.COLLAPSED if collapsed else Outcome.MISS
                story.cache_status = cache_status.member(
                    policy,
                    reason=verdict.reason,
                    fwd_status=response.status,
                    stored=True,
                    collapsed=collapsed,
                    key=key,
                )
                await self._send_arriving(visit, outcome, leading=not collapsed)
            case InSlices(response=response, origin_status=status):
                story.outcome = Outcome.COLLAPSED if collapsed else Outcome.MISS
                story.cache_status = cache_status.member(
                    policy, reason=verdict.reason, fwd_status=status, stored=True, collapsed=collapsed, key=key
                )
                return await self._send_slices(visit, outcome, leading=not collapsed)
            case Unsliced():
                visit.site = unsliced(visit.site)
                return Then.AGAIN
            case Confirmed(candidate):
                story.outcome = Outcome.REVALIDATED
                story.cache_status = cache_status.member(
                    policy, reason=verdict.reason, fwd_status=304, stored=True, collapsed=collapsed, key=key
                )
                return await self._send_confirmed(visit, candidate, collapsed=collapsed)
            case Stale(candidate, reason, why, origin_status):
                story.outcome, story.reason, story.error = Outcome.STALE, reason, why
                story.cache_status = cache_status.member(
                    policy,
                    reason=reason,
                    fwd=cache_status.FORWARDED[verdict.reason],
                    fwd_status=origin_status,
                    ttl=candidate.stored.fresh_for(self._clock()),
                    key=key,
                )
                return await self._send_confirmed(visit, candidate, collapsed=collapsed)
            case Uncacheable(response, origin, judged):
                story.outcome = Outcome.MISS
                await self._send_passed(visit, found, origin, response, judged, fill.fill_seq)
            case Failed(error):
                raise error
            case Overtaken():
                return Then.AGAIN
            case _:
                assert_never(outcome)
        return Then.DONE

    async def _send_arriving(self, visit: Visit, outcome: Arriving, *, leading: bool) -> None:
        """A body that is still coming; each client reads it at its own pace."""
        exchange, story, buffer = visit.exchange, visit.story, outcome.buffer
        stored = outcome.stored
        if buffer.length is not None:
            stored = replace(stored, body_size=buffer.length)
        form = rules.form_as_sent(stored, exchange.request, visit.site.policy)
        if leading and rules.as_it_came(stored, form):
            out = rules.relay(outcome.response, exchange.request, visit.site.policy, story.cache_status)
        else:
            out = rules.respond(stored, form, exchange.request, self._clock(), visit.site.policy, story.cache_status)
        story.status = out.response.status
        base = stored.held.first if stored.held is not None else 0
        match form:
            case Whole() if out.body:
                await respond.send_stream(exchange, story, out.response, buffer.reader())
            case Ranges(parts=((first, last),)) if out.body:
                await respond.send_stream(exchange, story, out.response, buffer.reader(first - base, last - base))
            case _:
                reader = buffer.reader()

                async def read(offset: int, size: int) -> bytes:
                    return await reader.read_at(offset - base, size)

                try:
                    await respond.send_stored(exchange, story, out, form, buffer.length or 0, read)
                finally:
                    reader.close()

    async def _send_slices(self, visit: Visit, outcome: InSlices, *, leading: bool) -> Then:
        """A large response whose slices have just begun to come, or some of them."""
        assert self._slicer is not None
        stored, request = outcome.stored, visit.request
        form = rules.form_as_sent(stored, request, visit.site.policy)
        reader = self._slicer.reader(visit, stored, outcome.key, outcome.feed.fill_seq)
        if not await reader.prime(form):
            return Then.AGAIN
        if leading and rules.as_it_came(stored, form):
            out = rules.relay(outcome.response, request, visit.site.policy, visit.story.cache_status)
        else:
            out = rules.respond(stored, form, request, self._clock(), visit.site.policy, visit.story.cache_status)
        await self._slicer.send(visit, out, form, stored, reader)
        return Then.DONE

    async def _send_confirmed(self, visit: Visit, candidate: Candidate, *, collapsed: bool) -> Then:
        """What the origin, or its failure, lets us use. Whoever waited takes a hold of its own, unless it is gone."""
        own = self._shelf.again(candidate) if collapsed else candidate
        if own is None:
            return Then.AGAIN
        own = self._shelf.best(own, visit.request)
        form = rules.form_as_sent(own.stored, visit.request, visit.site.policy)
        if self._slicer is not None and own.stored.sliced is not None:
            reader = self._slicer.reader(visit, own.stored, own.key, own.entry.fill_seq)
            if not await reader.prime(form):
                return Then.AGAIN
            policy, status = visit.site.policy, visit.story.cache_status
            out = rules.respond(own.stored, form, visit.request, self._clock(), policy, status)
            await self._slicer.send(visit, out, form, own.stored, reader)
            return Then.DONE
        await respond.send_candidate(visit, own, form, self._clock())
        return Then.DONE

    # --- fills ---

    def _begin(
        self,
        visit: Visit,
        request: Request,
        found: Found,
        verdict: Fetch | Revalidate,
        candidate: Candidate | None,
        *,
        shared: bool,
        lease: int,
    ) -> Fill:
        fill = Fill(
            site=visit.site,
            request=request,
            headers=verdict.headers,
            cache_key=visit.key_text,
            primary=found.primary,
            key=found.fill_key,
            candidate=candidate,
            fill_seq=self._shelf.store.sequence(),
            shelf=self._shelf,
            codings=self._codings,
            clock=self._clock,
            to_origin=self._to_origin,
            from_origin=self._from_origin,
            outcome=asyncio.get_running_loop().create_future(),
            release=self._releaser(found.fill_key, lease),
            budget=self._budget,
            slicer=self._slicer,
            slice=verdict.slice if isinstance(verdict, Fetch) else None,
        )
        task = spawn(fill.run(), f"fill {visit.key_text}")
        if shared:
            earlier = self.fills.get(fill.key)
            if earlier is not None and not earlier.outcome.done():
                earlier.earlier, fill.earlier = None, earlier
            fill.varies = self._also_found_by
            self.fills[fill.key] = fill
            self._count(1)
            task.add_done_callback(lambda _: self._end(fill))
        return fill

    def _also_found_by(self, fill: Fill, key: bytes) -> None:
        """Who looks up from now on, here or in another worker, is led to the variant, and waits for it there."""
        if key in self.fills:
            return
        self.fills[key] = fill
        fill.also.append(key)
        if self._leases is None:
            return
        lease = self._leases.acquire(key, fill_seq=fill.fill_seq, sequence=fill.fill_seq)
        ends = (fill.release, self._releaser(key, lease))

        def release() -> None:
            for end in ends:
                end()

        fill.release = release

    def _lease(self, key: bytes, sequence: int) -> int:
        if self._leases is None:
            return -1
        return self._leases.acquire(key, fill_seq=self._shelf.store.sequence(), sequence=sequence)

    def _releaser(self, key: bytes, lease: int) -> Callable[[], None]:
        """Ends the lease: as soon as other workers can find the answer, or know that there will be none for them."""

        def release() -> None:
            if self._leases is not None:
                self._leases.release(key, lease)

        return release

    def _end(self, fill: Fill) -> None:
        for key in (fill.key, *fill.also):
            if self.fills.get(key) is fill:
                del self.fills[key]
        self._count(-1)

    def _count(self, more: int) -> None:
        self._number += more
        self._under_way(self._number)

    def revalidate_in_background(self, visit: Visit, found: Found, candidate: Candidate) -> None:
        """One conditional request while the stale response is served (RFC 5861 §3)."""
        if found.fill_key in self.fills:
            return
        if visit.site.policy.retry_after_failure_s and self._shelf.failed_lately(found.fill_key, self._clock()):
            return
        lease = self._lease(found.fill_key, visit.sequence)
        if lease == WAIT:
            return  # another worker asks already
        if self._shelf.renewed(candidate):
            self._releaser(found.fill_key, lease)()
            return  # somebody has asked since we looked
        candidate = self._shelf.plain(candidate)
        request = visit.request.with_method("GET")
        verdict = rules.revalidation(request, candidate.stored, Reason.STALE, visit.site.policy)
        fill = self._begin(visit, request, found, verdict, candidate, shared=True, lease=lease)
        fill.outcome.add_done_callback(_let_go)


def _for_everyone(outcome: FillOutcome, fill: Fill, visit: Visit) -> bool:
    """May a request that waited use this outcome? Purged since it arrived, or another variant: no."""
    match outcome:
        case Uncacheable() | Overtaken():
            return False
        case Failed() | Unsliced():
            return True
        case Arriving() | InSlices():
            return fill.joinable(visit.request, visit.sequence)
        case Confirmed() | Stale() if visit.sequence > fill.fill_seq:
            return False
        case Confirmed(candidate) | Stale(candidate):
            return coding.matches(candidate.stored.selecting, visit.request.headers)
        case _:
            assert_never(outcome)


async def _outcome(fill: Fill, on_interim: Callable[[Response], None]) -> FillOutcome:
    if fill.outcome.done():
        return fill.outcome.result()
    fill.interim_listeners.append(on_interim)
    fill.waiting += 1
    try:
        return await asyncio.shield(fill.outcome)
    finally:
        fill.interim_listeners.remove(on_interim)
        fill.came()


def _let_go(outcome: asyncio.Future[FillOutcome]) -> None:
    """An answer nobody may share, and nobody is there to take: drop it."""
    if not outcome.cancelled() and isinstance(result := outcome.result(), Uncacheable):
        result.origin.body.close()
