"""One fetch per key, whoever waits for it (DESIGN §8).

A fill asks the origin, lets the policy decide, and tells everybody who waits the outcome as soon as the response head
says it: the body is then stored while it is read. It answers nobody itself, so a client that leaves or dawdles changes
nothing for the others. Uncacheable answers belong to the request that led; the others are released at once.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from edgecache.edge.buffer import Budget, FillBuffer
from edgecache.edge.codings import Codings, Job
from edgecache.edge.feed import Feed
from edgecache.edge.lookup import Candidate, Place, Shelf
from edgecache.edge.sites import Site
from edgecache.edge.slices import Slicer
from edgecache.edge.tee import Tee
from edgecache.http.errors import HttpError, OriginError, OriginReset
from edgecache.http.headers import Headers
from edgecache.http.message import EmptyBody, Request, Response
from edgecache.http.stored import StoredResponse
from edgecache.origin.api import OriginResponse, request_time
from edgecache.policy import coding, ranges, rules, slices, storing
from edgecache.policy.ranges import Span
from edgecache.policy.verdicts import DoNotStore, Freshen, Reason, Retry, Store, UseStale

_log = logging.getLogger("edgecache.edge")


@dataclass(frozen=True, slots=True)
class Arriving:
    """A response that may be shared: its body is in `buffer`, as far as it has come."""

    stored: StoredResponse
    buffer: FillBuffer
    response: Response
    """As it came, for the one who asked: with the fields that are not stored (RFC 9111 §5.2.2.4, §5.2.2.7)."""


@dataclass(frozen=True, slots=True)
class InSlices:
    """A large response that may be shared: its slices are on disk, coming, or still to be asked for."""

    stored: StoredResponse
    """The manifest."""
    key: bytes
    """Where it is stored."""
    response: Response
    """As it came, for the one who asked."""
    origin_status: int
    feed: Feed


@dataclass(frozen=True, slots=True)
class Unsliced:
    """The slice that was asked for is of no use: whoever waits asks in its own words."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The origin says that what is stored is still good (304): serve it."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Stale:
    """The origin failed; the stored response may be used."""

    candidate: Candidate
    reason: Reason
    error: str
    origin_status: int | None


@dataclass(frozen=True, slots=True)
class Uncacheable:
    """Nobody may share it. The leader takes `origin`; the others fetch for themselves."""

    response: Response
    origin: OriginResponse
    judged: DoNotStore


@dataclass(frozen=True, slots=True)
class Failed:
    error: HttpError


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A purge covered the response before anyone had a byte of it: begin again."""


FillOutcome = Arriving | InSlices | Unsliced | Confirmed | Stale | Uncacheable | Failed | Overtaken


@dataclass(slots=True)
class Fill:
    """One fetch under way. Made by the pipeline, run in a task of its own."""

    site: Site
    request: Request
    """As the leading client sent it."""
    headers: Headers
    """What the policy wants to be sent instead of the client's fields."""
    cache_key: str
    primary: bytes
    key: bytes
    candidate: Candidate | None
    """What is being revalidated."""
    fill_seq: int
    shelf: Shelf
    codings: Codings
    clock: Callable[[], float]
    to_origin: Callable[[Request], Request]
    from_origin: Callable[[Response], Response]
    outcome: asyncio.Future[FillOutcome]
    release: Callable[[], None] = lambda: None
    """Ends the lease that other workers wait for; harmless when repeated."""
    varies: "Callable[[Fill, bytes], None]" = lambda _fill, _key: None
    """Called with the key that look-ups will give, before they give it."""
    earlier: "Fill | None" = None
    """The one before for the same key, which had no head yet when this one began."""
    also: list[bytes] = field(default_factory=list)
    """Keys beside `key` by which others find this fill."""
    tags: tuple[int, ...] = ()
    """Known with the outcome."""
    url: str = ""
    """As patterns see it; known with the outcome too."""
    interim_listeners: list[Callable[[Response], None]] = field(default_factory=list)
    started_at: float = 0.0
    head_at: float = 0.0
    stored: bool = False
    budget: Budget | None = None
    slicer: Slicer | None = None
    tee: Tee | None = None
    slice: Span | None = None
    """The slice asked for in place of what the client wants."""
    waiting: int = 0
    """Requests that wait for the outcome."""
    all_here: asyncio.Future[None] | None = None

    def joinable(self, request: Request, sequence: int) -> bool:
        """May a request that arrived when `sequence` was the newest purge share this fill's outcome?

        While the head is not here, its tags are not known: only if no purge has come since the fetch began. But where
        that has led to a second fetch already, the rest waits for the head of that one, and looks then: purges of
        other things, however many, do not multiply fetches.
        """
        if not self.outcome.done():
            return sequence <= self.fill_seq or (self.earlier is not None and not self.earlier.outcome.done())
        match self.outcome.result():
            case Arriving(stored, buffer):
                return (
                    not buffer.overflowed
                    and not (sequence > self.fill_seq and self.shelf.store.purged(self.fill_seq, self.tags, self.url))
                    and coding.matches(stored.selecting, request.headers)
                )
            case InSlices(stored=stored, feed=feed):
                if feed.ended or feed.given_up:
                    return False
                overtaken = sequence > self.fill_seq and self.shelf.store.purged(self.fill_seq, self.tags, self.url)
                return not overtaken and coding.matches(stored.selecting, request.headers)
            case _:
                return False

    async def run(self) -> None:
        """Fetch, decide, store. Always sets the outcome."""
        try:
            await self._run()
        except Exception as error:
            internal = HttpError("internal error", code="internal")
            if not self.outcome.done():
                self.outcome.set_result(Failed(internal))
            elif isinstance(arriving := self.outcome.result(), Arriving) and not arriving.buffer.done:
                arriving.buffer.fail(internal)  # else its readers would wait for ever
            _log.exception("fill of %s failed", self.cache_key)
            if not isinstance(error, HttpError):
                raise
        finally:
            self.release()

    async def _run(self) -> None:
        stored = self.candidate.stored if self.candidate else None
        self.started_at = self.clock()
        headers = self.headers
        for _ in range(2):
            try:
                origin = await self.site.origin.send(
                    self.to_origin(self.request.with_headers(headers)), EmptyBody(), on_interim=self._interim
                )
            except OriginError as error:
                self._fail(error, None)
                return
            now = self.head_at = self.clock()
            self.started_at = request_time(origin, self.started_at, now)
            response = self.from_origin(origin.head)
            if self.slice is not None and response.status == 206:
                await self._slice_arrived(self.slice, response, origin)
                return
            verdict = rules.on_response(
                self.request, response, stored=stored, request_time=self.started_at, now=now, site=self.site.policy
            )
            match verdict:
                case Retry(headers=headers):
                    origin.body.close()
                    stored = None
                case Store(stored=fresh, combine_with=None):
                    await self._store(fresh, response, origin)
                    return
                case Store(stored=fresh, combine_with=StoredResponse() as before):
                    await self._combine(fresh, before, response, origin)
                    return
                case Freshen(stored=fresh, keep=keep):
                    origin.body.close()
                    self._freshen(fresh, keep=keep)
                    return
                case UseStale(reason=reason):
                    origin.body.close()
                    self._use_stale(reason, f"origin answered {response.status}", response.status)
                    return
                case DoNotStore(reason=Reason.MALFORMED):  # a 304 that nobody asked for
                    origin.body.close()
                    break
                case DoNotStore():
                    self._uncacheable(verdict, response, origin)
                    return
        self._fail(OriginError("origin answers 304 to an unconditional request", code="bad-304"), 304)

    async def _everybody_here(self) -> None:
        """Return when all who waited for the outcome have had their turn: a reader must be there from the first
        octet, since a body that turns out too large is not kept for those who come later."""
        while self.waiting:
            self.all_here = asyncio.get_running_loop().create_future()
            await self.all_here

    def came(self) -> None:
        """One of those who waited takes its turn now, in this step of the loop."""
        self.waiting -= 1
        if not self.waiting and self.all_here is not None and not self.all_here.done():
            self.all_here.set_result(None)

    def _interim(self, response: Response) -> None:
        for tell in self.interim_listeners:
            tell(response)

    def _fail(self, error: HttpError, status: int | None) -> None:
        use = rules.on_failure(
            self.request, self.candidate.stored if self.candidate else None, self.clock(), self.site.policy
        )
        if use is not None:
            self._use_stale(use.reason, error.code, status, error)
        else:
            self.outcome.set_result(Failed(error))

    def _use_stale(self, reason: Reason, why: str, status: int | None, error: HttpError | None = None) -> None:
        """The stored response, unless a hard purge took it away while the origin was being asked, or may have."""
        assert self.candidate is not None
        now = self.shelf.again(self.candidate)
        if now is not None and not now.stored.unconfirmed:
            self.shelf.remember_failure(
                self.key,
                now=self.clock(),
                seconds=self.site.policy.retry_after_failure_s,
                fill_seq=self.fill_seq,
            )
            self.outcome.set_result(Stale(now, reason, why, status))
        else:
            self.outcome.set_result(Failed(error or OriginError(f"{why}, and nothing stored may be used")))

    def _overtaken(self) -> bool:
        if self.shelf.store.purged(self.fill_seq, self.tags, self.url):
            self.outcome.set_result(Overtaken())
            return True
        return False

    def _freshen(self, fresh: StoredResponse, *, keep: bool) -> None:
        candidate = self.candidate
        assert candidate is not None
        record = self.shelf.record(fresh, site=self.site, cache_key=self.cache_key, fill_seq=self.fill_seq)
        self.tags, self.url = record.tags, record.url
        if self._overtaken():
            return
        others = list(self.shelf.others(candidate))
        if self.shelf.store.freshen(candidate.key, candidate.entry.generation, record):
            again = self.shelf.again(candidate)
            if again is not None:
                self.stored = keep and self.shelf.stays(self.site, candidate.stored, fresh)
                for other in others:
                    self._freshen_form(other, fresh)
                if not self.stored:
                    self.shelf.remove(again)
                self.outcome.set_result(Confirmed(again))
                return
        # Replaced or evicted while the origin answered: whoever waits looks again.
        self.outcome.set_result(Overtaken())

    def _freshen_form(self, other: Candidate, fresh: StoredResponse) -> None:
        """The origin has spoken of one form of the response, and means all of them."""
        form = coding.freshened(other.stored, fresh)
        generation = other.entry.generation
        if form is not None:
            record = self.shelf.record(form, site=self.site, cache_key=self.cache_key, fill_seq=self.fill_seq)
            if self.shelf.store.freshen(other.key, generation, record):
                return
        self.shelf.store.remove(other.key, generation)

    def _uncacheable(self, verdict: DoNotStore, response: Response, origin: OriginResponse) -> None:
        if verdict.drop_stored and self.candidate is not None:
            self.shelf.remove(self.candidate)
        self.shelf.remember_pass(self.key, now=self.head_at, seconds=verdict.hit_for_pass_s, fill_seq=self.fill_seq)
        self.release()
        self.outcome.set_result(Uncacheable(response, origin, verdict))

    async def _combine(
        self, fresh: StoredResponse, before: StoredResponse, response: Response, origin: OriginResponse
    ) -> None:
        """Join an arriving part with the stored one (RFC 9111 §3.4), then answer from the store.

        Bounded by the largest object; what cannot be joined any more is looked at anew.
        """
        candidate = self.candidate
        arrived = ranges.parse_content_range(response.headers)
        assert candidate is not None
        assert before.held is not None
        assert arrived is not None
        join = ranges.joined(before.held, arrived)
        chunks: list[bytes] = []
        size = 0
        try:
            while join is not None and (data := await origin.body.read()):
                chunks.append(data)
                size += len(data)
                if size > self.site.policy.max_object_bytes:
                    join = None
        except HttpError as error:
            self._fail(error, None)
            return
        finally:
            origin.body.close()
        record = self.shelf.record(fresh, site=self.site, cache_key=self.cache_key, fill_seq=self.fill_seq)
        self.tags, self.url = record.tags, record.url
        if join is not None and size == arrived.last + 1 - arrived.first and not self._overtaken():
            new, old = b"".join(chunks), candidate.entry.read(0, candidate.stored.body_size)
            body = [(new if piece.arrived else old)[piece.offset : piece.offset + piece.size] for piece in join[1]]
            if self.shelf.store.put(candidate.key, record, body):
                again = self.shelf.again(candidate)
                if again is not None:
                    self.stored = True
                    self.outcome.set_result(Confirmed(again))
                    return
        if not self.outcome.done():
            self.outcome.set_result(Overtaken())

    async def _slice_arrived(self, asked: Span, response: Response, origin: OriginResponse) -> None:
        """The answer to a request for a slice that the client has not asked for in these words."""
        answer = storing.Answer(self.request, response, self.started_at, self.head_at, self.site.policy)
        match slices.arrived(answer, asked, cache_key=self.cache_key):
            case slices.Begin(stored=stored, response=whole, held=held):
                await self._in_slices(stored, whole, origin, held.first, held.first)
            case slices.Small(stored=stored, response=whole):
                await self._store(stored, whole, origin)
            case slices.Unsliceable(seconds):
                origin.body.close()
                if self.slicer is not None:
                    self.slicer.avoid(self.primary, seconds)
                self.release()
                self.outcome.set_result(Unsliced())
            case other:
                assert_never(other)

    def _manifest(self, fresh: StoredResponse, length: int) -> StoredResponse | None:
        """The record of a response too large for memory; None where it is not to be stored in slices."""
        size = self.site.policy.slice_bytes
        if self.slicer is None or not self.slicer.on or not size or fresh.response.status != 200:
            return None
        made = slices.manifest(fresh, length, cache_key=self.cache_key, slice_bytes=size, unique=b"")
        return made if made.sliced is not None and made.sliced.validated else None

    def _teeable(self, fresh: StoredResponse) -> bool:
        """May it be stored in slices though no validator names them?"""
        slicer = self.slicer
        sliceable = self.site.policy.slice_bytes and fresh.response.status == 200 and self.request.method == "GET"
        return bool(sliceable) and slicer is not None and slicer.on and self.key not in slicer.tees

    def _begin_tee(self, fresh: StoredResponse) -> None:
        assert self.slicer is not None
        size = self.site.policy.slice_bytes
        self.tee = self.slicer.tee(fresh, size, key=self.key, fill_seq=self.fill_seq, tags=self.tags, url=self.url)

    async def _end_tee(self) -> None:
        if self.tee is not None and self.slicer is not None:
            self.slicer.tees.discard(self.key)
            if not self.stored:
                await self.tee.abandon()

    async def _put_slices(self, tee: Tee, fresh: StoredResponse, place: Place) -> None:
        """All of it has come: store the manifest, where all of it is on disk."""
        whole = rules.completed(fresh, tee.size)
        if await tee.finish() and whole is not None:
            whole = slices.with_slices(whole, tee.size, tee.sliced)
            record = self.shelf.record(whole, site=self.site, cache_key=self.cache_key, fill_seq=self.fill_seq)
            self.stored = self.shelf.put(place, record, [])

    async def _in_slices(
        self, stored: StoredResponse, response: Response, origin: OriginResponse, first: int, last: int
    ) -> None:
        """Store the manifest, and the slices that hold octets `first` to `last` as they come."""
        assert self.slicer is not None
        assert stored.sliced is not None
        record = self.shelf.record(stored, site=self.site, cache_key=self.cache_key, fill_seq=self.fill_seq)
        self.tags, self.url = record.tags, record.url
        if self._overtaken():
            origin.body.close()
            return
        place = self.shelf.place(
            self.site, self.cache_key, self.primary, stored, self.request, self.head_at, self.fill_seq
        )
        self.stored = self.shelf.put(place, record, [])
        size = stored.sliced.size
        ask = self.slicer.ask(self.site, self.request, stored)
        feed = self.slicer.feed(
            ask, first // size, last // size, fill_seq=self.fill_seq, tags=self.tags, url=self.url, body=origin.body
        )
        self.outcome.set_result(InSlices(stored, self.shelf.keys(place)[0], response, origin.head.status, feed))
        self.release()  # others find the manifest now, and wait for slices one by one
        await self._everybody_here()
        await asyncio.wait([self.slicer.run(feed)])

    async def _store(self, fresh: StoredResponse, response: Response, origin: OriginResponse) -> None:
        limit = self.site.policy.max_object_bytes
        length = origin.body.length
        record = self.shelf.record(fresh, site=self.site, cache_key=self.cache_key, fill_seq=self.fill_seq)
        self.tags, self.url = record.tags, record.url
        head_size = len(record.head) + len(record.meta) + 8 * len(record.tags)
        if length is not None and length + head_size > limit:
            made = self._manifest(fresh, length)
            if made is not None:
                await self._in_slices(made, coding.shown(response, fresh), origin, 0, length - 1)
                return
            if not self._teeable(fresh):
                large = DoNotStore(Reason.TOO_LARGE, hit_for_pass_s=self.site.policy.hit_for_pass_s)
                self._uncacheable(large, response, origin)
                return
        if self._overtaken():
            origin.body.close()
            return
        self.varies(self, self.shelf.fill_key(self.primary, fresh, self.request))
        place = self.shelf.place(
            self.site, self.cache_key, self.primary, fresh, self.request, self.head_at, self.fill_seq
        )
        buffer = FillBuffer(limit=limit - head_size, length=length, budget=self.budget)
        self.outcome.set_result(Arriving(fresh, buffer, coding.shown(response, fresh)))
        await self._everybody_here()
        try:
            await self._receive(fresh, place, buffer, origin)
        finally:
            await self._end_tee()

    async def _receive(self, fresh: StoredResponse, place: Place, buffer: FillBuffer, origin: OriginResponse) -> None:
        left = False
        try:
            while data := await origin.body.read():
                before: list[bytes] = []
                if self.tee is None and buffer.about_to_overflow(data) and self._teeable(fresh):
                    before = list(buffer.chunks)
                    self._begin_tee(fresh)
                await buffer.append(data)
                if self.tee is not None:
                    for chunk in (*before, data):
                        await self.tee.append(chunk)
                if buffer.overflowed:
                    self.release()
                if buffer.abandoned and buffer.size != buffer.length:  # who has all of it leaves too
                    origin.body.close()
                    left = True
                    break
        except HttpError as error:
            # Nothing partial is stored as whole: readers see a cut transfer.
            buffer.fail(error)
            return
        except OSError as error:
            _log.error("no room to spool a large response (%s): free space in the temporary directory", error)
            buffer.fail(OriginReset(f"spooling failed: {error}", code="spool"))
            origin.body.close()
            return
        if self.tee is not None:
            buffer.finish(origin.body.trailers)
            if not left:
                await self._put_slices(self.tee, fresh, place)
            return
        if buffer.overflowed:
            self.shelf.remember_pass(
                self.shelf.keys(place)[0],
                now=self.clock(),
                seconds=self.site.policy.hit_for_pass_s,
                fill_seq=self.fill_seq,
            )
        elif (whole := rules.completed(fresh, buffer.size)) is not None:
            record = self.shelf.record(whole, site=self.site, cache_key=self.cache_key, fill_seq=self.fill_seq)
            self.stored = self.shelf.put(place, record, buffer.chunks)
            if self.stored:
                job = Job(self.site, place, whole, self.cache_key, self.fill_seq, buffer.chunks)
                self.codings.make(job)
        buffer.finish(origin.body.trailers)
