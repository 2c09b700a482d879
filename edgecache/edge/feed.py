"""Slices of one version, in order, from the origin to the disk and to whoever reads them while they come.

A feed is either one slice that was missing, asked for as a range, or the whole of a representation that an origin sends
to a plain GET. The latter goes no further ahead of the readers that take part in it than `AHEAD` slices, and ends where
nobody is left: what was stored until then stays of use.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from edgecache.edge.arrival import Arrival
from edgecache.edge.leases import FillLeases
from edgecache.edge.octets import Ask, Octets
from edgecache.edge.turns import Turns
from edgecache.http.errors import HttpError
from edgecache.http.message import BodyStream
from edgecache.http.stored import StoredResponse
from edgecache.http.tasks import spawn
from edgecache.policy import slices
from edgecache.store.disk import DiskStore
from edgecache.store.memory import Record

AHEAD = 2
"""Slices that a feed may be ahead of its foremost reader."""
AT_ONCE = 16
"""Slices asked for singly at once, in each worker: where the origin is faster than we are, each holds up to a MiB that
has come and is not written."""
PATIENCE_S = 3.0
"""Where no slice was finished for so long the origin is slow, and then nothing gathers: more are asked for."""
KEEP_S = 7 * 86_400.0
"""A slice outlives its manifest's freshness: the next manifest of the same version finds it."""


def slice_record(stored: StoredResponse, now: float, fill_seq: int, tags: tuple[int, ...], meta: bytes) -> Record:
    """What is stored beside the octets of a slice."""
    until = max(stored.fresh_until, stored.stale_until, now + KEEP_S)
    return Record(b"", meta, now, until, 0.0, 0, 0, fill_seq, tags)


class Reader(Protocol):
    index: int
    """The slice it reads."""


class Feed:
    """One request to the origin, with what follows where it breaks off."""

    def __init__(
        self,
        ask: Ask,
        *,
        first: int,
        last: int,
        fill_seq: int,
        tags: tuple[int, ...],
        meta: bytes,
        disk: DiskStore,
        clock: Callable[[], float],
        arrivals: dict[bytes, Arrival],
        leases: FillLeases | None,
        turns: Turns,
        body: BodyStream | None = None,
        token: int | None = None,
    ) -> None:
        """Slices `first` to `last`. `arrivals`: all of this worker, by their keys. `body`: what comes already. `token`:
        of the lease on the first slice; None: it is not taken yet. `turns`: of `AT_ONCE`."""
        assert ask.stored.sliced is not None
        self.ask = ask
        self.sliced = ask.stored.sliced
        self.total = ask.stored.body_size
        self.index = first
        self.last = last
        self.fill_seq = fill_seq
        self.tags = tags
        self.meta = meta
        self.single = first == last
        self.ended = False
        self.given_up = False
        """The origin is known to have another version by now."""
        self._turns = turns
        self._has_turn = False
        self._waits = body is None
        self._disk = disk
        self._clock = clock
        self._arrivals = arrivals
        self._leases = leases
        self._octets = Octets(ask, self._extent(first)[0], self._extent(last)[1], body)
        self._promised: dict[int, Arrival] = {}
        self._readers: set[Reader] = set()
        self._moved: asyncio.Future[None] | None = None
        first_key = slices.slice_key(self.sliced, first)
        self._tokens = {first: self._acquire(first_key) if token is None else token}
        self._storing: asyncio.Task[None] | None = None
        self.promise(first)

    def _extent(self, index: int) -> tuple[int, int]:
        return slices.extent(self.sliced, self.total, index)

    # --- for readers ---

    def promise(self, index: int) -> Arrival:
        """What the slice will be once the feed has come to it."""
        arrival = self._promised.get(index)
        if arrival is None:
            first, last = self._extent(index)
            key = slices.slice_key(self.sliced, index)
            arrival = self._promised[index] = Arrival(key, index, last + 1 - first, self.fill_seq)
            self._arrivals[key] = arrival
        return arrival

    def comes_to(self, index: int) -> bool:
        """Will it be at this slice soon, or sooner than anybody else could?"""
        near = self.index <= index <= self.last
        return not self.ended and near and (self._octets.refuses_ranges or index - self.index <= AHEAD)

    def join(self, reader: Reader) -> None:
        self._readers.add(reader)
        self.moved()

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)
        self.moved()

    def moved(self) -> None:
        """A reader has gone on or left."""
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    # --- its own work ---

    async def run(self) -> None:
        """Fetch and store. Tells its readers of every failure, and raises none of them."""
        error: HttpError | None = None
        try:
            if self._waits:
                if await self._is_stored():
                    return
                self._has_turn = await self._turns.take()
            await self._octets.open()
            if self._octets.refuses_ranges and self._octets.at:
                self._take_all()
            while self.index <= self.last and await self._wanted():
                if not await self._slice(self.index):
                    break
                self.index += 1
        except HttpError as failure:
            error = failure
        finally:
            self.ended = True
            self._octets.close()
            if self._has_turn:
                self._turns.give_back()
            for arrival in self._promised.values():
                if error is not None:
                    arrival.fail(error)
                else:
                    arrival.lose()
            await self._end()

    async def _end(self) -> None:
        for arrival in self._promised.values():
            self._forget(arrival)
            await arrival.drop()
        if self._storing is not None:
            await asyncio.wait([self._storing])
        for index in list(self._tokens):
            self._release(index)

    async def _is_stored(self) -> bool:
        """Has the slice been stored between the look of whoever began this and our lease, by any worker?"""
        arrival = self.promise(self.index)
        arrival.stored = arrival.key in await self._disk.present([arrival.key])
        return arrival.stored

    def _take_all(self) -> None:
        """The origin knows no ranges: it sends all that is before the slice, so that may as well be stored."""
        self._release(self.index)
        self._octets.rewind()
        self.index, self.last = 0, slices.count(self.sliced, self.total) - 1
        self.single = False

    async def _wanted(self) -> bool:
        """Wait until somebody is near enough to need the next slice; False where nobody is left."""
        while not self.single:
            if not self._readers:
                return False
            if max(reader.index for reader in self._readers) + AHEAD >= self.index:
                return True
            self._release(self.index)  # other workers need not wait for our slow readers
            self._moved = asyncio.get_running_loop().create_future()
            await self._moved
        return True

    async def _slice(self, index: int) -> bool:
        """One slice, from its first octet to its last. False where the disk takes no more."""
        first, last = self._extent(index)
        known = self._arrivals.get(slices.slice_key(self.sliced, index))
        if index not in self._promised and known is not None and not known.gone:
            await self._pass_over(last + 1 - first)  # another feed has it in hand
            return True
        arrival = self.promise(index)
        if index not in self._tokens:
            self._tokens[index] = self._acquire(arrival.key)
        self._release_all_but(index)
        arrival.begin(self._disk)
        while arrival.at < arrival.size:
            if not await arrival.append(await self._octets.next(arrival.size - arrival.at)):
                return False
        del self._promised[index]
        if index < self.last:
            self._hold_next(index + 1)
        if self._storing is not None:
            await asyncio.wait([self._storing])
        self._storing = spawn(self._store(arrival), "slice-store")
        return True

    def _hold_next(self, index: int) -> None:
        """Have other workers wait for the next slice, unless another feed here has it in hand, and its lease."""
        key = slices.slice_key(self.sliced, index)
        if self._arrivals.get(key) is self._promised.get(index):
            self._tokens[index] = self._acquire(key)

    async def _pass_over(self, size: int) -> None:
        while size:
            size -= len(await self._octets.next(size))

    async def _store(self, arrival: Arrival) -> None:
        now = self._clock()
        try:
            await arrival.commit(slice_record(self.ask.stored, now, self.fill_seq, self.tags, self.meta), now)
        finally:
            self._forget(arrival)
            self._release(arrival.index)

    def _forget(self, arrival: Arrival) -> None:
        if self._arrivals.get(arrival.key) is arrival:
            del self._arrivals[arrival.key]

    # --- leases: what other workers leave to this one ---

    def _acquire(self, key: bytes) -> int:
        if self._leases is None:
            return -1
        sequence = self.fill_seq
        return self._leases.acquire(key, fill_seq=sequence, sequence=sequence)

    def _release(self, index: int) -> None:
        token = self._tokens.pop(index, -1)
        if self._leases is not None:
            self._leases.release(slices.slice_key(self.sliced, index), token)

    def _release_all_but(self, index: int) -> None:
        """Those of slices that were passed over."""
        for other in [other for other in self._tokens if other < index - 1]:
            self._release(other)
