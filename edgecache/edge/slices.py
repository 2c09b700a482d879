"""Large objects: sent from their slices, on disk or on their way there; what is missing is fetched slice by slice.

To a client it is one object: one head, one line of explanation, one purge. A slice is fetched once, whoever wants it.
Nothing is sent before the first slice wanted is at hand, so that another version can still be answered with itself.
"""

import asyncio
import secrets
from collections.abc import Callable

from edgecache.edge import respond
from edgecache.edge.arrival import Arrival
from edgecache.edge.feed import AT_ONCE, PATIENCE_S, Feed
from edgecache.edge.leases import WAIT, FillLeases
from edgecache.edge.lookup import Shelf, stored_response
from edgecache.edge.octets import Ask, Octets, VersionChanged
from edgecache.edge.record import RecordError
from edgecache.edge.respond import Span
from edgecache.edge.sites import Site
from edgecache.edge.tee import Tee
from edgecache.edge.turns import Turns
from edgecache.edge.visit import Visit
from edgecache.http.errors import ClientGone, HttpError
from edgecache.http.message import BodyStream, Request
from edgecache.http.stored import Sliced, StoredResponse
from edgecache.http.tasks import spawn
from edgecache.policy import slices
from edgecache.policy.verdicts import Form, Outgoing, Ranges, Whole
from edgecache.store.disk import DiskStore
from edgecache.store.diskentry import BodyCorrupt, DiskEntry
from edgecache.store.diskfiles import DiskFault

PIECE = 256 * 1024
MAX_AVOIDED = 4096
"""Keys known to be of no use to slices; the oldest are forgotten."""
_COUNTED = 64
"""Slices looked for before it is said that a response is all there."""
_LOOKS = 8
"""Times a reader looks for one slice anew, before it goes past the disk."""


class Slicer:
    """The slices under way in this worker."""

    def __init__(
        self,
        shelf: Shelf,
        disk: DiskStore,
        clock: Callable[[], float],
        to_origin: Callable[[Request], Request],
        leases: FillLeases | None,
    ) -> None:
        self.shelf = shelf
        self.disk = disk
        self.leases = leases
        self._clock = clock
        self._to_origin = to_origin
        self.arrivals: dict[bytes, Arrival] = {}
        self._feeds: dict[bytes, list[Feed]] = {}
        self._avoided: dict[bytes, float] = {}
        self.tees: set[bytes] = set()
        """Fills that store slices beside sending: one of a key is enough."""
        self.turns = Turns(AT_ONCE, PATIENCE_S)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def on(self) -> bool:
        return self.disk.on

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- what slices are no use for ---

    def avoid(self, key: bytes, seconds: float) -> None:
        """Ranges of what lies here are not to be asked for in slices, for a while."""
        if len(self._avoided) >= MAX_AVOIDED:
            del self._avoided[next(iter(self._avoided))]
        self._avoided.pop(key, None)
        self._avoided[key] = self._clock() + seconds

    def avoids(self, key: bytes) -> bool:
        until = self._avoided.get(key)
        return until is not None and self._clock() < until

    # --- feeds ---

    def ask(self, site: Site, request: Request, stored: StoredResponse) -> Ask:
        return Ask(site, request, stored, self._to_origin)

    def feed(
        self,
        ask: Ask,
        first: int,
        last: int,
        *,
        fill_seq: int,
        tags: tuple[int, ...],
        url: str,
        body: BodyStream | None = None,
        token: int | None = None,
    ) -> Feed:
        """A feed of these slices, to be `run`."""
        feed = Feed(
            ask,
            first=first,
            last=last,
            fill_seq=fill_seq,
            tags=tags,
            meta=self.shelf.slice_meta(url),
            disk=self.disk,
            clock=self._clock,
            arrivals=self.arrivals,
            leases=self.leases,
            turns=self.turns,
            body=body,
            token=token,
        )
        self._feeds.setdefault(feed.sliced.key, []).append(feed)
        return feed

    def tee(
        self, stored: StoredResponse, slice_bytes: int, *, key: bytes, fill_seq: int, tags: tuple[int, ...], url: str
    ) -> Tee:
        """A way to disk for the body that the fill of `key` receives; tell `tees` when it has ended."""
        self.tees.add(key)
        sliced = Sliced(secrets.token_bytes(slices.KEY_SIZE), slice_bytes, validated=False)
        meta = self.shelf.slice_meta(url)
        return Tee(self.disk, self._clock, stored, sliced, fill_seq=fill_seq, tags=tags, meta=meta)

    def run(self, feed: Feed) -> asyncio.Task[None]:
        task = spawn(feed.run(), "slices")
        self.hold(task)
        task.add_done_callback(lambda _: self._ended(feed))
        return task

    def hold(self, task: asyncio.Task[None]) -> None:
        """Give it up when this worker closes."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ended(self, feed: Feed) -> None:
        feeds = self._feeds[feed.sliced.key]
        feeds.remove(feed)
        if not feeds:
            del self._feeds[feed.sliced.key]

    def coming(self, sliced_key: bytes, index: int) -> Feed | None:
        """A feed that comes to this slice by itself."""
        return next((feed for feed in self._feeds.get(sliced_key, ()) if feed.comes_to(index)), None)

    # --- sending ---

    def reader(self, visit: Visit, stored: StoredResponse, key: bytes, fill_seq: int) -> "SliceReader":
        """Of what is stored under `key`, the last purge applied when it was fetched being `fill_seq`."""
        ask = self.ask(visit.site, visit.request, stored)
        tags = self.shelf.tags(stored, site=visit.site, cache_key=visit.key_text)
        url = self.shelf.url(stored, site=visit.site, cache_key=visit.key_text)
        self.shelf.store.compare(tags, url)  # slices may be older than what has brought us here
        return SliceReader(self, ask, key, tags, url, min(visit.sequence, fill_seq))

    def drop(self, key: bytes, stored: StoredResponse) -> None:
        """Remove the manifest, unless another has taken its place: its version is no more."""
        if stored.sliced is not None:
            for feed in self._feeds.get(stored.sliced.key, ()):
                feed.given_up = True
        entry = self.shelf.store.peek(key)
        if entry is None:
            return
        try:
            found = stored_response(entry)
        except RecordError:
            return
        if found.sliced == stored.sliced:
            self.shelf.store.remove(key, entry.generation)

    async def send(
        self, visit: Visit, out: Outgoing, form: Form, stored: StoredResponse, reader: "SliceReader"
    ) -> None:
        """A head that is made, and the body from its slices. A failure in the middle cuts the transfer."""
        exchange, story = visit.exchange, visit.story
        story.status = out.response.status
        try:
            await respond.send_stored(exchange, story, out, form, stored.body_size, reader.read)
        except ClientGone:
            raise
        except HttpError as error:
            if not exchange.started:
                raise
            story.error, story.aborted = error.code, True
            exchange.abort()
            if isinstance(error, VersionChanged):
                self.drop(reader.key, stored)
        finally:
            reader.close()


def first_octet(form: Form) -> int | None:
    """Where a body in this form begins; None where there is none."""
    match form:
        case Whole():
            return 0
        case Ranges(parts=((first, _), *_)):
            return first
        case _:
            return None


class SliceReader:
    """One client's way through the slices of a version. Belongs to one task."""

    def __init__(self, slicer: Slicer, ask: Ask, key: bytes, tags: tuple[int, ...], url: str, sequence: int) -> None:
        assert ask.stored.sliced is not None
        self._slicer = slicer
        self._ask = ask
        self._sliced = ask.stored.sliced
        self._total = ask.stored.body_size
        self.key = key
        self._tags = tags
        self._url = url
        self._sequence = sequence
        """The last purge when the request came, or when the manifest was fetched: none between them covers it, since it
        was found valid. Nothing that was fetched before a purge covered it is joined."""
        self._feed: Feed | None = None
        self._source: DiskEntry | Arrival | Octets | None = None
        self.index = -1
        self._ahead = -1
        """The last slice that was asked for before it was wanted."""
        self._lost = 0
        """Times the disk did not take what came."""
        self._found_stored = -1
        """The slice last found on disk by who was to fetch it: not believed twice in a row."""
        self.fetched = False
        """Something had to come from the origin."""

    # --- what `respond` asks ---

    async def prime(self, form: Form) -> bool:
        """Have the first octet at hand, before anything is sent. False where there is another version: look anew.

        Raises `HttpError` where the origin fails.
        """
        first = first_octet(form)
        if first is None or self._ask.request.method == "HEAD":
            return True
        end = form.parts[0][1] + 1 if isinstance(form, Ranges) else self._total
        try:
            while True:
                source = await self._at(first, end)
                if isinstance(source, Octets):
                    await source.open()
                elif isinstance(source, Arrival) and not await source.wait(first % self._sliced.size):
                    self.fetched = self.fetched and not source.stored
                    self._missed(source)
                    continue
                elif isinstance(source, DiskEntry):
                    await self._count(first, max(end, form.parts[-1][1] + 1) if isinstance(form, Ranges) else end)
                return True
        except VersionChanged:
            self._slicer.drop(self.key, self._ask.stored)
            self.close()
            return False
        except BaseException:
            self.close()
            raise

    async def _count(self, first: int, end: int) -> None:
        """Are the slices behind the first one on disk too? Some of them where they could be fetched, all where not."""
        most = _COUNTED if self._sliced.validated else slices.count(self._sliced, self._total)
        indexes = range(first // self._sliced.size + 1, -(-end // self._sliced.size))[:most]
        keys = [slices.slice_key(self._sliced, index) for index in indexes]
        if len(await self._slicer.disk.present(keys)) < len(keys):
            if not self._sliced.validated:
                raise VersionChanged
            self.fetched = True

    async def read(self, offset: int, size: int) -> bytes | Span:
        """As `respond.Read`."""
        for _ in range(_LOOKS):
            index, within = divmod(offset, self._sliced.size)
            source = await self._at(offset, offset + size)
            most = min(size, self._extent(index) - within)
            found = await self._take(source, offset, within, most)
            if found is not None:
                if isinstance(source, Arrival) and within + most > self._sliced.size // 2:
                    self._look_ahead(index + 1, offset + size)
                return found
            if isinstance(source, Arrival):
                self._missed(source)
            else:
                self._let_go()
        raise HttpError("a slice cannot be read", status=502, code="slice-lost")

    async def _take(
        self, source: "DiskEntry | Arrival | Octets", offset: int, within: int, most: int
    ) -> bytes | Span | None:
        """None where this source has nothing, though there is something."""
        match source:
            case Arrival():
                return source.take(within, most) if await source.wait(within) else None
            case Octets():
                if source.at != offset:
                    return None
                return await source.next(min(most, PIECE))
            case DiskEntry():
                try:
                    span = await self._slicer.disk.span(source, within, most)
                except DiskFault:
                    return None
                except BodyCorrupt:
                    self._slicer.disk.remove(source.key, source.generation)
                    return None
                return await self._slicer.disk.read(source, within, most) if span is None else Span(*span)

    def _missed(self, arrival: Arrival) -> None:
        """It does not come this way: the disk has it already, or did not take it."""
        self._let_go()
        if arrival.stored and self._found_stored != arrival.index:
            self._found_stored = arrival.index
        else:
            self._lost += 1

    def close(self) -> None:
        self._let_go()
        if self._feed is not None:
            self._feed.leave(self)
            self._feed = None

    # --- where a slice is ---

    def _extent(self, index: int) -> int:
        first, last = slices.extent(self._sliced, self._total, index)
        return last + 1 - first

    def _let_go(self) -> None:
        source, self._source = self._source, None
        if isinstance(source, DiskEntry | Octets):
            source.close()

    def _join(self, feed: Feed) -> None:
        if self._feed is not feed:
            if self._feed is not None:
                self._feed.leave(self)
            self._feed = feed
            feed.join(self)

    async def _at(self, offset: int, end: int) -> "DiskEntry | Arrival | Octets":
        """The source of this octet; the one in hand, while it is the same. `end`: of what is wanted."""
        index, source = offset // self._sliced.size, self._source
        if source is not None and (index == self.index or isinstance(source, Octets)):
            self.index = index
            return source
        self._let_go()
        self.index = index
        if self._feed is not None:
            self._feed.moved()
        self._source = source = await self._look(index) or self._past_the_disk(offset, end)
        return source

    async def _look(self, index: int) -> "DiskEntry | Arrival | None":
        """The slice, on disk or on its way there. None where the disk does not take it."""
        key = slices.slice_key(self._sliced, index)
        slicer = self._slicer
        for tries in range(_LOOKS):
            arrival = self._joinable(key, index)
            if arrival is not None:
                return arrival
            entry = await slicer.disk.get_fixed(key)
            if entry is not None:
                if entry.body_size == self._extent(index):
                    return entry
                entry.close()
                slicer.disk.remove(key, entry.generation)
            arrival = self._joinable(key, index)  # it may have begun meanwhile
            if arrival is not None:
                return arrival
            if not slicer.on or tries > 1 or self._lost > 1:
                break
            if not self._sliced.validated:
                raise VersionChanged  # nobody knows how to ask for the rest of it
            arrival = await self._fetch(key, index)
            if arrival is not None:
                return arrival
        return None

    def _past_the_disk(self, offset: int, end: int) -> Octets:
        """The rest from the origin, for this client alone."""
        if not self._sliced.validated:
            raise VersionChanged
        self.fetched = True
        return Octets(self._ask, offset, end - 1)

    def _joinable(self, key: bytes, index: int) -> Arrival | None:
        """The slice as it comes, or will, if a request that arrived when ours did may have it."""
        arrival = self._slicer.arrivals.get(key)
        feed = self._slicer.coming(self._sliced.key, index)
        if arrival is None or arrival.gone or arrival.error is not None:
            if feed is None or not self._may_share(feed.fill_seq):
                return None
            arrival = feed.promise(index)
        elif not self._may_share(arrival.fill_seq):
            return None
        self.fetched = True
        if feed is not None:
            self._join(feed)
        return arrival

    def _may_share(self, fill_seq: int) -> bool:
        return self._sequence <= fill_seq or not self._slicer.shelf.store.purged(fill_seq, self._tags, self._url)

    async def _fetch(self, key: bytes, index: int) -> Arrival | None:
        """Ask the origin for this slice; None after another worker has."""
        feed = self._begin(key, index)
        if feed is None:
            assert self._slicer.leases is not None
            await self._slicer.leases.wait(key)
            return None
        self.fetched = True
        self._join(feed)
        return feed.promise(index)

    def _begin(self, key: bytes, index: int) -> Feed | None:
        """A feed of one slice; None while another worker fetches it."""
        slicer = self._slicer
        fill_seq, token = slicer.shelf.store.sequence(), -1
        if slicer.leases is not None:
            token = slicer.leases.acquire(key, fill_seq=fill_seq, sequence=self._sequence)
            if token == WAIT:
                return None
        feed = slicer.feed(self._ask, index, index, fill_seq=fill_seq, tags=self._tags, url=self._url, token=token)
        slicer.run(feed)
        return feed

    # --- the slice behind ---

    def _look_ahead(self, index: int, end: int) -> None:
        """Whoever had to wait for a slice will want the next one soon: ask for it now, unless it is there."""
        if self._ahead < index and index * self._sliced.size < end and self._sliced.validated and not self._lost:
            self._ahead = index
            key = slices.slice_key(self._sliced, index)
            if not (self._slicer.turns.none_left or self._is_coming(key, index)):
                self._begin(key, index)

    def _is_coming(self, key: bytes, index: int) -> bool:
        return key in self._slicer.arrivals or self._slicer.coming(self._sliced.key, index) is not None
