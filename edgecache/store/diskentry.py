"""What a look-up on disk hands out: a record, and its body as octets or as an open file that survives its deletion."""

import os
import threading
import zlib
from dataclasses import dataclass
from itertools import islice

from edgecache.store.diskrecord import CHUNK, DiskRecord
from edgecache.store.memory import Record

SEEN_MAX = 32_768
"""Chunks of body files known to be whole, per process: about 5 MiB when full."""


SPAN = 8 * CHUNK
"""Octets handed out at once."""


class BodyCorrupt(Exception):
    """A body is not what was stored."""

    def __init__(self, key: bytes) -> None:
        super().__init__("a body on disk is not what was stored")
        self.key = key


class Seen:
    """A bounded set; the oldest quarter goes when it is full."""

    def __init__(self, limit: int = SEEN_MAX) -> None:
        self._marks: dict[tuple[str | None, int], None] = {}
        self._limit = limit
        self._lock = threading.Lock()

    def __contains__(self, mark: tuple[str | None, int]) -> bool:
        return mark in self._marks

    def add(self, mark: tuple[str | None, int]) -> None:
        with self._lock:
            if len(self._marks) >= self._limit:
                for old in list(islice(self._marks, self._limit // 4)):
                    del self._marks[old]
            self._marks[mark] = None


@dataclass(frozen=True, slots=True)
class Known:
    """A record that was found, without its file open."""

    key: bytes
    data: DiskRecord
    filename: str
    proved: int


class DiskEntry:
    """A record found on disk. The body's file stays readable until `close`, whatever becomes of the record.

    `read` and `verify` block.
    """

    __slots__ = ("_data", "_seen", "fd", "filename", "key", "proved", "soft_purged")

    def __init__(
        self, key: bytes, data: DiskRecord, fd: int, filename: str | None, seen: Seen, soft: bool, proved: int
    ) -> None:
        self.key = key
        self._data = data
        self.fd = fd
        self.filename = filename
        self._seen = seen
        self.soft_purged = soft
        self.proved = proved
        """When it was found, no record was left that a hard purge up to this number covers."""

    @property
    def known(self) -> Known:
        """What to find it by again. The body is in a file."""
        assert self.filename is not None
        return Known(self.key, self._data, self.filename, self.proved)

    @property
    def record(self) -> Record:
        return self._data.record

    @property
    def body_size(self) -> int:
        return self._data.body_size

    @property
    def generation(self) -> int:
        """Changes with every put under this key."""
        return self._data.generation

    @property
    def in_file(self) -> bool:
        return self._data.body is None

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` octets of the body from `offset`; b"" at or past its end. Raises `BodyCorrupt`."""
        if self._data.body is not None:
            return self._data.body[offset : offset + size]
        size = min(size, self.body_size - offset)
        if size <= 0:
            return b""
        self.verify(offset, size)
        data = os.pread(self.fd, size, offset)
        if len(data) < size and not data:
            raise BodyCorrupt(self.key)
        return data

    def span(self, offset: int, size: int) -> tuple[int, int, int] | None:
        """(fd, offset, size) for `os.sendfile`, up to the end of a chunk, verified. None: the body is in the row."""
        size = min(size, self.body_size - offset, CHUNK - offset % CHUNK)
        if self._data.body is not None or size <= 0:
            return None
        self.verify(offset, size)
        return self.fd, offset, size

    def known_span(self, offset: int, size: int) -> tuple[int, int, int] | None:
        """The same, of as many chunks as have been verified, without reading; None where that is none."""
        size = min(size, self.body_size - offset, SPAN)
        end = offset
        while end < offset + size and (self.filename, end // CHUNK) in self._seen:
            end += CHUNK - end % CHUNK
        if self._data.body is not None or end == offset or size <= 0:
            return None
        return self.fd, offset, min(end - offset, size)

    def unknown(self) -> int | None:
        """Where the first chunk begins that has not been verified; None where there is none."""
        for at in range(0, self.body_size if self.in_file else 0, CHUNK):
            if (self.filename, at // CHUNK) not in self._seen:
                return at
        return None

    def verify(self, offset: int, size: int) -> None:
        """Compare the checksums of the chunks that hold these octets, once a process. Raises `BodyCorrupt`."""
        for chunk in range(offset // CHUNK, (offset + size - 1) // CHUNK + 1):
            mark = (self.filename, chunk)
            if mark in self._seen:
                continue
            data = os.pread(self.fd, CHUNK, chunk * CHUNK)
            if zlib.crc32(data) != self._data.checksums[chunk]:
                raise BodyCorrupt(self.key)
            self._seen.add(mark)

    def close(self) -> None:
        """Again changes nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()
