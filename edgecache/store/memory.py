"""The memory tier's Python face: keys and records in, entries out. It knows nothing of HTTP.

What a record's octets mean is the caller's affair (`edge/record.py`); what the arena does with them is in
`_native/arena.pyi`. Nothing here blocks: a call takes a shard's lock for well under a microsecond plus the copy.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecache._native.arena import FLAG_BODY_IN_FILE, Arena, Entry, hash_key
from edgecache.observe.slots import NodeSlot
from edgecache.purge.bans import Bans
from edgecache.store.filebody import FileBody, FileEntry

AnyEntry = Entry | FileEntry

_TRIES = 4
"""Times an entry is compared anew since new patterns have come meanwhile; then it counts as absent."""


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
    url: str = ""
    """What patterns are compared with (`purge.bans`); "" where it is not known here."""


class MemoryStore:
    """The memory tier. All workers of a node share one arena and one secret."""

    def __init__(self, arena: Arena, secret: bytes | None = None) -> None:
        self.arena = arena
        self.secret = secret if secret is not None else secrets.token_bytes(16)
        self.bans = Bans(arena, tell=self._compared_one)
        self.stored_url: Callable[[bytes], str | None] = lambda _: None
        """Finds the URL in a record's meta; None where it was not kept, and every pattern counts as matching."""
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
        if entry is None and self.arena.newest_pattern():
            entry = self._compared(key, self.arena.get)
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
        if entry is None and self.arena.newest_pattern():
            entry = self._compared(key, self.arena.peek)
        return FileEntry(entry, self.directory) if entry is not None and entry.flags & FLAG_BODY_IN_FILE else entry

    def _compared(self, key: bytes, find: Callable[[bytes, int], Entry | None]) -> Entry | None:
        """The entry, once it has been compared with the patterns that are newer."""
        for _ in range(_TRIES):
            unresolved = self.arena.unresolved(key)
            if unresolved is None:
                return find(key, 0)
            through = self.bans.settle(self.stored_url(unresolved.meta), unresolved.tags(), unresolved.fill_seq)
            unresolved.close()
            if (entry := find(key, through)) is not None:
                return entry
        return None

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

    def purged(self, fill_seq: int, tags: Sequence[int], url: str) -> bool:
        """Does a purge, hard or soft, newer than `fill_seq` cover a response with these tags? `url`: what is kept of it
        for patterns."""
        if fill_seq < self.arena.newest_pattern():
            self.bans.settle(url, tags, fill_seq)
        return self.late(fill_seq) or self.arena.purged(fill_seq, tags) != 0

    def _compared_one(self, matched: bool, undecided: int) -> None:
        self.arena.add(NodeSlot.PATTERN_CHECKS)
        if matched:
            self.arena.add(NodeSlot.PATTERN_MATCHES)
        if undecided:
            self.arena.add(NodeSlot.PATTERN_UNDECIDED, undecided)

    # --- patterns, also for a disk tier below (`volume.Patterns`) ---

    def newest_pattern(self) -> int:
        return self.arena.newest_pattern()

    def late(self, fill_seq: int) -> bool:
        """Was this asked for before a pattern that is forgotten?"""
        return fill_seq < self.arena.retired()

    def settle(self, meta: bytes, tags: Sequence[int], fill_seq: int) -> None:
        """Have the tags of a record say what patterns do."""
        self.bans.settle(self.stored_url(meta), tags, fill_seq)

    def compare(self, tags: Sequence[int], url: str) -> None:
        """Have the tags of this URL say what patterns do."""
        if self.arena.newest_pattern():
            self.bans.settle(url, tags, 0)
