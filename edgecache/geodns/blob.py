"""One value that one process writes and others read, in memory they share: what is healthy, what people ordered.

Layout: count (8 octets, odd while a value is being written), length (4), checksum (4), the value as JSON. A reader that
meets a write, or half of one by a writer that died, keeps what it had and looks again later.
"""

import json
import mmap
import struct
import zlib
from typing import Any

_HEAD = struct.Struct("=QII")


class Blob:
    """Made before any fork."""

    def __init__(self, size: int = 1 << 19) -> None:
        self._memory = mmap.mmap(-1, size)
        self._size = size

    @property
    def count(self) -> int:
        """Another one means another value."""
        number: int = _HEAD.unpack_from(self._memory)[0]
        return number

    def write(self, value: Any) -> None:
        """Raises ValueError where it has no room."""
        data = json.dumps(value, separators=(",", ":")).encode()
        if len(data) > self._size - _HEAD.size:
            raise ValueError("too much to share")
        count = self.count | 1
        struct.pack_into("=Q", self._memory, 0, count)
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._memory, 0, count + 1, len(data), zlib.crc32(data))

    def read(self) -> tuple[int, Any] | None:
        """(count, value), or None: nothing yet, or not now."""
        count, length, checksum = _HEAD.unpack_from(self._memory)
        if not count or count & 1 or length > self._size - _HEAD.size:
            return None
        data = self._memory[_HEAD.size : _HEAD.size + length]
        if self.count != count or zlib.crc32(data) != checksum:
            return None
        return count, json.loads(data)
