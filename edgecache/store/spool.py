"""A body on its way into the disk tier, written as it comes: nothing gathers in memory, and it can be read at once.

Its space is counted before the first octet, its file lies in the spool, journalled, until it is whole; then it is moved
into place and gets its record. The file stays readable as long as somebody holds the `Spool`, whatever becomes of it.
"""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from edgecache.store.diskrecord import Checksums
from edgecache.store.memory import Record
from edgecache.store.volume import Put, Volume, write_all

_T = TypeVar("_T")


class Run(Protocol):
    """Does blocking work elsewhere; None where the disk failed, which has turned the tier off."""

    def __call__(self, work: Callable[[], _T], /) -> Awaitable[_T | None]: ...


class Spool:
    """Made by `DiskStore.spool`. One writer, which is done with one call before it makes the next."""

    def __init__(
        self, volume: Volume, key: bytes, size: int, name: str, fd: int, *, writing: Run, storing: Run
    ) -> None:
        self.key = key
        self.size = size
        self.fd = fd
        """Of the file: what has been written may be read from it at any time."""
        self._volume = volume
        self._name = name
        self._writing = writing
        self._storing = storing
        self._checksums = Checksums()
        self._open = True

    async def write(self, data: bytes) -> bool:
        """Add octets. False where the disk failed."""
        return bool(await self._writing(partial(self._write, data)))

    def _write(self, data: bytes) -> bool:
        write_all(self.fd, data)
        self._checksums.add(data)
        return True

    async def commit(self, record: Record, now: float) -> bool:
        """The body is whole: store it. False where it was not stored; the file is gone then, but for who holds it."""
        self._open = False
        put = Put(self.key, record, (), self.size, self._name, self._checksums.all())
        return bool(await self._storing(partial(self._volume.adopt, put, now)))

    async def drop(self) -> None:
        """It does not become whole: give its space back. After `commit` this changes nothing."""
        if self._open:
            self._open = False
            await self._storing(partial(self._volume.abandon, self._name))

    def __del__(self) -> None:
        os.close(self.fd)  # no call can be under way: it would hold this object
