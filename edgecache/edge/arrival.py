"""A slice on its way from the origin to the disk: written once, read by many while it comes.

Only the piece that came last is in memory, until it is written; whoever is behind reads the file. So what a slice costs
does not grow with its size, nor with the number or the slowness of its readers.
"""

import asyncio

from edgecache.edge.respond import Span
from edgecache.http.errors import HttpError
from edgecache.http.tasks import spawn
from edgecache.store.disk import DiskStore
from edgecache.store.memory import Record
from edgecache.store.spool import Spool


class Arrival:
    """One slice of one version."""

    def __init__(self, key: bytes, index: int, size: int, fill_seq: int) -> None:
        self.key = key
        self.index = index
        self.size = size
        self.fill_seq = fill_seq
        """The last purge applied when it was asked for."""
        self.at = 0
        """Octets that have come."""
        self.error: HttpError | None = None
        """Why no more come."""
        self.gone = False
        """Nobody writes it any more, though nothing is wrong with it: look elsewhere."""
        self.stored = False
        """It lies on disk already: nobody had to write it."""
        self._tail = b""
        self._spool: Spool | None = None
        self._spooling: asyncio.Task[Spool | None] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    # --- for who writes it ---

    def begin(self, disk: DiskStore) -> None:
        self._spooling = spawn(disk.spool(self.key, self.size), "disk-spool")

    async def append(self, data: bytes) -> bool:
        """Add octets. False where the disk takes no more: then it is `gone`."""
        self._tail = data
        self.at += len(data)
        self._wake()
        if self._spool is None and self._spooling is not None:
            self._spool = await self._spooling
        if self._spool is None or not await self._spool.write(data):
            self.lose()
            return False
        return True

    async def commit(self, record: Record, now: float) -> bool:
        """It is whole: store it."""
        assert self._spool is not None
        self._tail = b""
        return await self._spool.commit(record, now)

    async def drop(self) -> None:
        """It does not become whole: give its space back."""
        if self._spool is None and self._spooling is not None:
            self._spool = await self._spooling
        if self._spool is not None:
            await self._spool.drop()

    def fail(self, error: HttpError) -> None:
        self.error = error
        self._wake()

    def lose(self) -> None:
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # --- for who reads it ---

    async def wait(self, offset: int) -> bool:
        """Return when there are octets at `offset`; False where it is `gone` before. Raises its `error`."""
        while self.at <= offset:
            if self.error is not None:
                raise self.error
            if self.gone:
                return False
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        return True

    def take(self, offset: int, most: int) -> bytes | Span | None:
        """What there is at `offset`, once `wait` has returned: octets, or where they lie; None where they are lost,
        since the disk failed before they were written."""
        behind = self.at - len(self._tail)
        if offset >= behind:
            return self._tail[offset - behind : offset - behind + most]
        if self._spool is None:
            return None
        return Span(self._spool.fd, offset, min(most, behind - offset))
