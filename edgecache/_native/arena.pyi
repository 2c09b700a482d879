"""The memory tier's arena: hash index, LRU lists and allocator in one shared mapping (DESIGN §5).

The mapping is anonymous and shared: made once, before any fork, used by every process at once. A shard's lock is a
robust process-shared mutex: whoever locks after a process died inside empties that shard and goes on. The byte
budget is a hard bound and covers index, headers, bodies and slack. Times are seconds since the epoch. Numbers of fills
and purges are those of the purge log.

Layout of the mapping: `layout.pxd`. C functions for other compiled modules: `shard.pxd`, on `Arena.view`.
"""

from collections.abc import Iterable, Sequence
from typing import Final, final

from edgecache._native.hashing import hash_key as hash_key
from edgecache._native.hashing import hash_tag as hash_tag

@final
class Entry:
    """One stored object as found by `get` or `peek`: a snapshot, safe to use after the arena has moved on.

    Small bodies are copied out; a large one is pinned in place and must be released (`close`, or when collected).
    After a fork the parent's entries may be read in the child as long as the parent holds them.
    """

    key: bytes
    head: bytes
    """Opaque to the arena; by convention the response head's octets as sent to clients, less the empty line."""
    meta: bytes
    """Opaque to the arena."""
    body_size: int
    born_at: float
    """What Age counts from: response time less corrected initial age."""
    fresh_until: float
    stale_until: float
    """The last moment at which it may be used stale for any reason; 0 for never."""
    flags: int
    status: int
    fill_seq: int
    soft_purged: bool
    """A soft purge applies to it: stale from that moment on."""
    used: bool
    """It, or what it replaced, was asked for since it was stored; by SIEVE and S3-FIFO: and lately."""
    generation: int
    """Changes with every put under this key: what `freshen` and `remove` compare."""
    def tags(self) -> list[int]: ...
    def read(self, offset: int, size: int) -> bytes:
        """At most `size` octets of the body from `offset`; b"" at or past its end. ValueError once a large one is
        closed."""

    def close(self) -> None:
        """Release the body, if it is pinned; again changes nothing."""

@final
class Arena:
    def __init__(
        self,
        size: int,
        *,
        max_object: int = 1 << 20,
        shards: int = 0,
        purge_slots: int = 0,
        counters: int = 1024,
        processes: int = 64,
        pin_above: int = 32768,
        eviction: str = "lru",
    ) -> None:
        """Map `size` octets. `shards` and `purge_slots` 0: chosen from `size`. Bodies larger than `pin_above` are
        pinned while they are read, not copied. `eviction`: "lru", "sieve" or "s3fifo". ValueError, saying what the
        least is, where `size` cannot hold its own index and eight of the largest objects a shard."""

    size: int
    shards: int
    max_object: int
    """Octets of head, meta, body and 8 for each tag."""
    pin_above: int
    eviction: str

    def attach(self, slot: int) -> None:
        """Say which process slot (0 ≤ slot < processes) this process's pins are held in. Once, after fork; no two live
        processes in one slot. Who made the arena has slot 0; a fork that does not attach copies large bodies."""

    def release_slot(self, slot: int) -> None:
        """Drop all pins of a dead process, and what it was storing. Before its slot is given to another."""

    # --- objects ---
    def get(self, key: bytes, through: int = 0) -> Entry | None:
        """The valid entry, its use noted (by LRU: made most recently used). A hard-purged entry is removed and counts
        as absent. One that is older than a pattern counts as absent too, and stays, unless the caller has compared it
        with those up to `through` and noted what matches (`apply_purge`)."""

    def peek(self, key: bytes, through: int = 0) -> Entry | None:
        """As `get`, but changes neither what eviction knows nor counters."""

    def unresolved(self, key: bytes) -> Entry | None:
        """The entry, only where it has to be compared with patterns before it may be used."""

    def put(
        self,
        key: bytes,
        head: bytes,
        meta: bytes,
        body: Sequence[bytes],
        *,
        born_at: float,
        fresh_until: float,
        stale_until: float,
        flags: int,
        status: int,
        fill_seq: int,
        tags: Sequence[int],
    ) -> bool:
        """Store, replacing what was there; evicts what the policy says until it fits.

        False, and nothing is stored, when it is larger than `max_object`, has more than 1024 tags, or a purge newer
        than `fill_seq`, hard or soft, covers one of its tags (what was there stays, if valid); or when pinned bodies
        leave no room (what was there may be gone). No tag is 0.
        """

    def freshen(
        self,
        key: bytes,
        generation: int,
        head: bytes,
        meta: bytes,
        *,
        born_at: float,
        fresh_until: float,
        stale_until: float,
        flags: int,
        status: int,
        fill_seq: int,
        tags: Sequence[int],
    ) -> bool:
        """New head and numbers, same body, if the entry is still that generation (RFC 9111 §4.3.4), which it keeps.

        False, and the entry stays as it was, for the reasons `put` has.
        """

    def remove(self, key: bytes, generation: int = 0) -> bool:
        """Remove the entry (only that generation, where one is given). True if it was there."""

    def __len__(self) -> int: ...

    # --- purges (DESIGN §7) ---
    def sequence(self) -> int:
        """The last sequence number applied here: what a fill must carry as `fill_seq`."""

    def apply_purge(
        self, sequence: int, tags: Sequence[int], *, soft: bool, patterns: Iterable[tuple[int, bytes]] = ()
    ) -> None:
        """Apply one purge to all processes at once; O(len(tags)). Applying one again changes nothing, but for patterns,
        which come once and in the order of their numbers."""

    def raise_floor(self, sequence: int, *, soft: bool) -> None:
        """Everything filled before `sequence` (`fill_seq < sequence`) is purged: purge-all, and after a gap in the log.
        `sequence` counts as applied."""

    def append_purge(
        self, tags: Sequence[int], *, soft: bool, everything: bool = False, patterns: Iterable[tuple[int, bytes]] = ()
    ) -> int:
        """Allot the next number to a purge of these tags (or of everything) and apply it, in one step whatever other
        processes do meanwhile. However many tags: no process finds anything purged by it while another still finds
        something valid that it covers. Returns the number.

        `patterns`: of each the tag of what surely covers it (0: everything), and a text that whoever compares can
        read. At most 1000 are remembered, and as many as there is room for; then the oldest become purges of what
        covers them."""

    # --- patterns: what was stored before the newest is not used until it has been compared ---
    def newest_pattern(self) -> int:
        """Its number; 0: none is in force."""

    def patterns(self, known: int = 0) -> tuple[int, int, list[tuple[int, int, bool, bytes]]] | None:
        """(version, newest, (number, tag, soft, text) oldest first); None where that is still version `known`."""

    def unresolved_keys(self, shard: int, bucket: int, buckets: int) -> tuple[list[bytes], int]:
        """Keys of what has to be compared in so many buckets of a shard, and the next bucket; 0 at the end."""

    def retire_patterns(self, through: int, *, forgotten: bool) -> None:
        """From now on nothing is stored that was filled before `through`. `forgotten`: nothing older is left that has
        not been compared, so patterns up to it are no more."""

    def retired(self) -> int:
        """What was filled before this is not stored."""

    def purged(self, fill_seq: int, tags: Sequence[int], proved: int = 0, /) -> int:
        """0 valid, 1 soft-purged, 2 hard-purged: the rule for a response that is not in the arena. `proved`: for one
        that is stored elsewhere, and known not to be covered by a hard purge up to that number."""

    def purge_slots(self) -> tuple[int, int]:
        """Slots of the purge table that are used, and all there are. At three quarters it is folded."""

    def purges_newer(self, sequence: int) -> int:
        """Slots with a purge newer than this number."""

    def prove(self, shard: int, bucket: int, buckets: int, through: int) -> int:
        """Compare the objects in some buckets of a shard with the purge table: what is hard-purged goes, the rest
        counts as filled at `through`, which is no newer than the last purge applied. Returns the next bucket, 0 at the
        end. Holds the shard's lock meanwhile."""

    def forget_purges(self, through: int, *, soft: bool) -> int:
        """Drop the slots of purges up to this number: all shards have been proved through it, and whatever else is
        stored. Without `soft` that is known of hard purges only, and slots with a soft one stay. What was under way
        since before counts as purged. Returns how many slots went. No purge with a number up to it may come later."""

    def proved(self) -> int:
        """The number up to which purges have been forgotten."""

    def trust(self, until: float) -> None:
        """Every purge is known here until then, a moment of `time.monotonic()`; infinity: for good, as at first."""

    def silent(self) -> bool:
        """Has that moment passed? The fast lane then answers nothing. Up to a tick of the clock late (10 ms)."""

    def trusted_until(self) -> float: ...

    # --- shared counters ---
    def add(self, counter: int, amount: int = 1) -> None: ...
    def counter(self, counter: int) -> int: ...

    # --- figures ---
    def stats(self) -> dict[str, int]:
        """objects, bytes_used (memory not free), bytes_body, bytes_data (all of an object but slack), bytes_slack (used
        beyond that, pinned bodies without an object included), bytes_pinned, bytes_units (memory for objects: `size`
        less tables), size, evictions, inserts, hits, misses, purged, recovered (shards emptied after a death), pins,
        folds (of a full purge table into its floor), purge_slots, purge_slots_used, purges_forgotten (slots dropped
        since nothing stored needed them)."""

    def check(self) -> None:
        """Walk every structure; AssertionError names what is inconsistent. For tests; O(objects)."""

FLAG_VARY_MARKER: Final[int]
FLAG_HIT_FOR_PASS: Final[int]
FLAG_HAS_VARY: Final[int]
FLAG_MUST_REVALIDATE: Final[int]
FLAG_NO_CACHE: Final[int]
FLAG_PARTIAL: Final[int]
FLAG_BODY_IN_FILE: Final[int]
OVERHEAD: Final[int]
"""Octets an object costs beyond head, meta, body, tags and chunk slack: entry header and its share of the index."""
