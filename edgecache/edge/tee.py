"""A large body stored in slices beside its way to its clients: for what no validator names, or is of unknown length.

Stored whole or not at all, since nothing that is missing could be asked for. Its clients read it from the fill's own
buffer, whatever becomes of the disk.
"""

from collections.abc import Callable

from edgecache.edge.feed import slice_record
from edgecache.http.stored import Sliced, StoredResponse
from edgecache.policy import slices
from edgecache.store.disk import DiskStore
from edgecache.store.spool import Spool


class Tee:
    """Written by one fill."""

    def __init__(
        self,
        disk: DiskStore,
        clock: Callable[[], float],
        stored: StoredResponse,
        sliced: Sliced,
        *,
        fill_seq: int,
        tags: tuple[int, ...],
        meta: bytes,
    ) -> None:
        self.sliced = sliced
        self.size = 0
        """Octets that have come."""
        self._disk = disk
        self._clock = clock
        self._stored = stored
        self._fill_seq = fill_seq
        self._tags = tags
        self._meta = meta
        self._spool: Spool | None = None
        self._in_slice = 0
        self._done: list[bytes] = []
        """Keys of the slices that are stored."""
        self._failed = False

    async def append(self, data: bytes) -> None:
        """Add octets. Once the disk has not taken some, nothing happens any more."""
        while data and not self._failed:
            part, data = data[: self.sliced.size - self._in_slice], data[self.sliced.size - self._in_slice :]
            if self._spool is None:
                self._spool = await self._disk.spool(slices.slice_key(self.sliced, len(self._done)), self.sliced.size)
            if self._spool is None or not await self._spool.write(part):
                await self.abandon()
                return
            self.size += len(part)
            self._in_slice += len(part)
            if self._in_slice == self.sliced.size:
                await self._commit()

    async def finish(self) -> bool:
        """That was all. True where every octet is on disk."""
        if self._spool is not None and not self._failed:
            await self._commit()
        return not self._failed

    async def abandon(self) -> None:
        """It does not become whole: nothing of it stays."""
        self._failed = True
        spool, self._spool = self._spool, None
        if spool is not None:
            await spool.drop()
        for key in self._done:
            self._disk.remove(key)
        self._done.clear()

    async def _commit(self) -> None:
        spool, self._spool = self._spool, None
        assert spool is not None
        spool.size = self._in_slice
        now = self._clock()
        if await spool.commit(slice_record(self._stored, now, self._fill_seq, self._tags, self._meta), now):
            self._done.append(spool.key)
            self._in_slice = 0
        else:
            await self.abandon()
