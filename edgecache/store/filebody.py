"""A body that stays in its file on disk: the reference that lies in the arena in its place, and the entry it makes.

Such an entry has everything else of an entry: head, times, flags, tags, `fill_seq`; so purges, variants, conditions and
the fast lane find it as they find any other, and the octets go from the file to the client. A reference is made of what
this node has verified. It promises nothing: the file may be evicted at any time, and then the entry goes.

    u64 size | u64 offset in the file | u64 generation of the record on disk | 42 octets name below the directory

in the machine's own order: it never leaves the node's memory (`ext/file_body.h` reads it).
"""

import os
import struct
from dataclasses import dataclass

from edgecache._native.arena import FLAG_BODY_IN_FILE, Entry

_LAYOUT = struct.Struct("=QQQ42s")


@dataclass(frozen=True, slots=True)
class FileBody:
    """Where a body lies."""

    size: int
    offset: int
    generation: int
    """Of the record on disk: what `DiskStore.freshen` compares."""
    name: str

    def pack(self) -> bytes:
        name = self.name.encode("ascii")
        if len(name) != _LAYOUT.size - 24:
            raise ValueError("no name of a body's file")
        return _LAYOUT.pack(self.size, self.offset, self.generation, name)

    @classmethod
    def unpack(cls, data: bytes) -> "FileBody":
        size, offset, generation, name = _LAYOUT.unpack(data)
        return cls(size, offset, generation, name.decode("ascii"))


class FileEntry:
    """An entry (as `Entry`) whose body lies in a file. The file is opened by `open`, and stays readable until `close`,
    whatever becomes of it."""

    __slots__ = ("_directory", "_entry", "body", "fd")

    def __init__(self, entry: Entry, directory: str) -> None:
        self._entry = entry
        self._directory = directory
        self.body = FileBody.unpack(entry.read(0, entry.body_size))
        self.fd = -1
        entry.close()

    def open(self) -> bool:
        """False where the file is gone, too short, or cannot be read."""
        if self.fd < 0:
            try:
                self.fd = os.open(f"{self._directory}/{self.body.name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                return False
            if os.fstat(self.fd).st_size < self.body.offset + self.body.size:
                self.close()
                return False
        return True

    def read(self, offset: int, size: int) -> bytes:
        """As `Entry.read`, from the disk; fewer octets where the file is gone. May block."""
        size = min(size, self.body_size - offset)
        try:
            return os.pread(self.fd, size, self.body.offset + offset) if size > 0 and self.open() else b""
        except OSError:
            return b""

    def close(self) -> None:
        """Again changes nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()

    @property
    def body_size(self) -> int:
        return self.body.size

    @property
    def head(self) -> bytes:
        return self._entry.head

    @property
    def meta(self) -> bytes:
        return self._entry.meta

    @property
    def born_at(self) -> float:
        return self._entry.born_at

    @property
    def fresh_until(self) -> float:
        return self._entry.fresh_until

    @property
    def stale_until(self) -> float:
        return self._entry.stale_until

    @property
    def flags(self) -> int:
        """Without the one that says where the body lies: it belongs to the entry, not to the response."""
        return self._entry.flags & ~FLAG_BODY_IN_FILE

    @property
    def status(self) -> int:
        return self._entry.status

    @property
    def fill_seq(self) -> int:
        return self._entry.fill_seq

    @property
    def soft_purged(self) -> bool:
        return self._entry.soft_purged

    @property
    def used(self) -> bool:
        return self._entry.used

    @property
    def generation(self) -> int:
        return self._entry.generation

    def tags(self) -> list[int]:
        return self._entry.tags()
