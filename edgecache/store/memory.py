"""The memory tier's Python face: keys and records in, entries out. It knows nothing of HTTP.

What a record's octets mean is the caller's affair (`edge/record.py`); what the arena does with them is in
`_native/arena.pyi`. Nothing here blocks: a call takes a shard's lock for well under a microsecond plus the copy.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from edgecache._native.arena import FLAG_BODY_IN_FILE, Arena, Entry, hash_key
from edgecache.store.filebody import FileBody, FileEntry

AnyEntry = Entry | FileEntry


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored beside a body: two opaque blobs and the numbers the store and the fast lane need."""

    head: bytes
    meta: bytes
    born_at: float
    fresh_until: float
    stale_until: float
    flags: int
    status: int
    fill_seq: int
    """The purge sequence this node had applied when the request to the origin was sent (DESIGN §7)."""
    tags: tuple[int, ...]


class MemoryStore:
    """The memory tier. All workers of a node share one arena and one secret."""

    def __init__(self, arena: Arena, secret: bytes | None = None) -> None:
        self.arena = arena
        self.secret = secret if secret is not None else secrets.token_bytes(16)
        self.directory = ""
        """Where bodies that stay on disk lie; none do, where it is empty."""

    def key(self, text: str) -> bytes:
        """The 128-bit key of a cache key's text."""
        return hash_key(self.secret, text.encode("latin-1"))

    def variant_key(self, primary: bytes, secondary: bytes) -> bytes:
        """The key of one variant under a primary key (RFC 9111 §4.1)."""
        return hash_key(self.secret, primary + secondary)

    def get(self, key: bytes) -> AnyEntry | None:
        """The entry, if no purge covers it; becomes the most recently used. A body in a file has been opened."""
        entry = self.arena.get(key)
        if entry is None or not entry.flags & FLAG_BODY_IN_FILE:
            return entry
        found = FileEntry(entry, self.directory)
        if not found.open():
            self.arena.remove(key, entry.generation)  # no longer on disk: as if it had never been here
            return None
        return found

    def peek(self, key: bytes) -> AnyEntry | None:
        """The same, with no side effect: a body in a file is not opened."""
        entry = self.arena.peek(key)
        return FileEntry(entry, self.directory) if entry is not None and entry.flags & FLAG_BODY_IN_FILE else entry

    def put(self, key: bytes, record: Record, body: Sequence[bytes]) -> bool:
        """Store. False, with nothing changed, where it is too large or purged meanwhile."""
        return self._put(key, record, body, record.flags & ~FLAG_BODY_IN_FILE)

    def put_file(self, key: bytes, record: Record, body: FileBody) -> bool:
        """Store, the body where it is."""
        return self._put(key, record, [body.pack()], record.flags | FLAG_BODY_IN_FILE)

    def _put(self, key: bytes, record: Record, body: Sequence[bytes], flags: int) -> bool:
        return self.arena.put(
            key,
            record.head,
            record.meta,
            body,
            born_at=record.born_at,
            fresh_until=record.fresh_until,
            stale_until=record.stale_until,
            flags=flags,
            status=record.status,
            fill_seq=record.fill_seq,
            tags=record.tags,
        )

    def freshen(self, key: bytes, generation: int, record: Record) -> bool:
        """New head and numbers for the same body. False where the entry has changed or gone."""
        before = self.arena.peek(key)
        where = before.flags & FLAG_BODY_IN_FILE if before is not None else 0
        return self.arena.freshen(
            key,
            generation,
            record.head,
            record.meta,
            born_at=record.born_at,
            fresh_until=record.fresh_until,
            stale_until=record.stale_until,
            flags=record.flags & ~FLAG_BODY_IN_FILE | where,
            status=record.status,
            fill_seq=record.fill_seq,
            tags=record.tags,
        )

    def remove(self, key: bytes, generation: int = 0) -> bool:
        return self.arena.remove(key, generation)

    def sequence(self) -> int:
        """The last purge applied on this node: read before a request is sent to the origin."""
        return self.arena.sequence()

    def silent(self) -> bool:
        """May purges have come that this node has not heard of?"""
        return self.arena.silent()

    def purged(self, fill_seq: int, tags: Sequence[int]) -> bool:
        """Does a purge, hard or soft, newer than `fill_seq` cover a response with these tags?"""
        return self.arena.purged(fill_seq, tags) != 0
