"""A body that arrives once and is read by many, each at its own pace (DESIGN §3, §8).

Up to `limit` octets stay in memory, so that the fill runs at the origin's pace and its result can be stored. Past
that the response is not stored any more, and the body must not gather: a single reader slows the origin down to its
own pace; several readers share an unlinked temporary file, so that a slow one holds up nobody.
"""

import asyncio
import contextlib
import os
import tempfile

from edgecache.http.errors import HttpError
from edgecache.http.headers import Headers

PIECE = 256 * 1024
"""Octets a reader gets at most at once."""


class Budget:
    """What all the fills of a worker together may hold in memory, octets.

    Each fill is bounded by the largest object, but there may be any number of them. Where the budget is spent a body
    is not gathered any more: it goes to its clients at their pace, and is not stored.
    """

    def __init__(self, octets: int) -> None:
        self.octets = octets
        self.used = 0

    @property
    def spent(self) -> bool:
        return self.used > self.octets


class _Spool:
    """An unlinked temporary file. Open for as long as anybody has it: whoever waited for one of its threads may be gone
    before the thread is through, and the descriptor's number must not be another file's by then."""

    fd = -1

    def __init__(self) -> None:
        self.fd, name = tempfile.mkstemp(prefix="edgecache-fill-")
        os.unlink(name)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def write(self, data: memoryview, place: int) -> int:
        return os.pwrite(self.fd, data, place)

    def read(self, size: int, place: int) -> bytes:
        return os.pread(self.fd, size, place)


class FillBuffer:
    """Written by one fill, read by any number of readers from the first octet on."""

    def __init__(
        self, *, limit: int, length: int | None, budget: Budget | None = None, spool_limit: int = 1 << 30
    ) -> None:
        self._budget = budget or Budget(limit)
        self.length = length
        self.limit = limit
        self.size = 0
        """Octets that have arrived."""
        self.overflowed = False
        """More than `limit` arrived: cannot be stored nor joined."""
        self.done = False
        self.error: HttpError | None = None
        self.trailers: Headers | None = None
        self.chunks: list[bytes] = []
        """All octets while not overflowed; afterwards those not yet read by a lone reader."""
        self._base = 0
        self._readers: set[FillReader] = set()
        self._spool: _Spool | None = None
        self._spool_limit = spool_limit
        # The file is written round and round: a reader is at most the limit behind, and one piece is being added.
        self._ring = spool_limit + 2 * PIECE
        self._arrived: list[asyncio.Future[None]] = []
        self._drained: asyncio.Future[None] | None = None

    # --- the fill's side ---

    async def append(self, data: bytes) -> None:
        """Add octets; waits only past `limit`, for the slowest of the readers that must be waited for."""
        if self._spool is not None:
            await self._to_spool(data)
        else:
            self.chunks.append(data)
            self.size += len(data)
            self._budget.used += len(data)
        if not self.overflowed and (self.size > self.limit or self._budget.spent):
            self.overflowed = True
            if self.size <= self.limit:
                self.limit = min(self.limit, PIECE)
            if len(self._readers) > 1:
                await self._start_spool()
        self._wake()
        while (
            self.overflowed
            and self._readers
            and self._behind() > (self.limit if self._spool is None else self._spool_limit)
        ):
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def about_to_overflow(self, data: bytes) -> bool:
        """Will it be larger than what is kept in memory, with this? What has come is all still there."""
        return not self.overflowed and self.size + len(data) > self.limit

    def finish(self, trailers: Headers | None) -> None:
        self.trailers = trailers
        self.done = True
        self._wake()

    def fail(self, error: HttpError) -> None:
        """Every reader gets `error` once it has read what arrived."""
        self.error = error
        self._wake()

    def __del__(self) -> None:
        self._budget.used -= sum(map(len, self.chunks))

    def _forget(self, count: int) -> None:
        """Drop the first chunks."""
        size = sum(map(len, self.chunks[:count]))
        del self.chunks[:count]
        self._base += size
        self._budget.used -= size

    @property
    def abandoned(self) -> bool:
        """It cannot be stored and nobody reads it: fetching on is waste."""
        return self.overflowed and not self._readers

    def _behind(self) -> int:
        return self.size - min(reader.at for reader in self._readers)

    def _wake(self) -> None:
        arrived, self._arrived = self._arrived, []
        for future in arrived:
            if not future.done():
                future.set_result(None)

    async def _start_spool(self) -> None:
        self._spool = await asyncio.to_thread(_Spool)
        chunks, base = list(self.chunks), self._base
        self._forget(len(chunks))
        self.size = base
        for chunk in chunks:
            await self._to_spool(chunk)

    async def _to_spool(self, data: bytes) -> None:
        spool = self._spool
        assert spool is not None
        view = memoryview(data)
        at = self.size
        while view:
            place = at % self._ring
            written = await asyncio.to_thread(spool.write, view[: self._ring - place], place)
            view, at = view[written:], at + written
        self.size = at

    # --- the readers' side ---

    def reader(self, first: int = 0, last: int | None = None) -> "FillReader":
        """A reader of octets `first` to `last` (inclusive; None: the end). Not once it has overflowed."""
        reader = FillReader(self, first, last)
        self._readers.add(reader)
        return reader

    def leave(self, reader: "FillReader") -> None:
        self._readers.discard(reader)
        self.moved()
        if (self.done or self.error) and not self._readers:
            self._spool = None  # once it has overflowed nobody joins any more

    def moved(self) -> None:
        """A reader has gone on or left: let go of what a lone reader has read, and let the fill go on."""
        if self.overflowed and self._spool is None:
            slowest = min((reader.at for reader in self._readers), default=self.size)
            end, count = self._base, 0
            for chunk in self.chunks:
                end += len(chunk)
                if end > slowest:
                    break
                count += 1
            self._forget(count)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def arrival(self) -> None:
        """Returns when there is more, or the end, or an error."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrived.append(future)
        await future

    async def piece(self, reader: "FillReader", size: int) -> bytes:
        """At most `size` octets at the reader's place; there are some."""
        if self._spool is not None:
            place = reader.at % self._ring
            size = min(size, self.size - reader.at, self._ring - place)
            return await asyncio.to_thread(self._spool.read, size, place)
        start = self._base
        index = 0
        if reader.hint < len(self.chunks) and not self.overflowed:
            index, start = reader.hint, reader.hint_start
        while start + len(self.chunks[index]) <= reader.at:
            start += len(self.chunks[index])
            index += 1
        reader.hint, reader.hint_start = index, start
        offset = reader.at - start
        chunk = self.chunks[index]
        return chunk if offset == 0 and len(chunk) <= size else chunk[offset : offset + size]


class FillReader:
    """A `BodyStream` over a `FillBuffer`."""

    def __init__(self, buffer: FillBuffer, first: int, last: int | None) -> None:
        self._buffer = buffer
        self.at = first
        self._end = None if last is None else last + 1
        self.length = buffer.length if last is None else last + 1 - first
        self.trailers: Headers | None = None
        self.hint = 0
        self.hint_start = 0

    async def read(self) -> bytes:
        buffer = self._buffer
        while True:
            if self._end is not None and self.at >= self._end:
                return b""
            if self.at < buffer.size:
                size = PIECE if self._end is None else min(PIECE, self._end - self.at)
                data = await buffer.piece(self, size)
                self.at += len(data)
                if buffer.overflowed:
                    buffer.moved()
                return data
            if buffer.error is not None:
                self.close()
                raise buffer.error
            if buffer.done:
                self.trailers = buffer.trailers
                self.close()
                return b""
            await buffer.arrival()

    async def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` octets from `offset`, which is nowhere before what was read already."""
        self.at = offset
        self._end = offset + size
        return await self.read()

    def close(self) -> None:
        with contextlib.suppress(KeyError):
            self._buffer.leave(self)
