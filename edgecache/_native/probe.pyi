"""For tests and benchmarks of the arena: the full check, ways to die inside a critical section, timed loops."""

from typing_extensions import Buffer

from edgecache._native.arena import Arena

def check(arena: Arena) -> None:
    """Walk every structure of every shard under its lock; AssertionError names what is inconsistent."""

def crash_after(points: int) -> None:
    """SIGKILL this process at the n-th crash point of a mutating section from now on; 0: never."""

def lock_shard(arena: Arena, shard: int) -> None:
    """Take a shard's lock and keep it: for a process about to be killed."""

def lock_purges(arena: Arena) -> None:
    """The same with the purge table's."""

def pinned_units(arena: Arena) -> list[int]:
    """Units of pinned bodies, by shard."""

def layout(arena: Arena) -> dict[str, int]:
    """Counts of the layout: unit, units, reserve, buckets, purge_slots, pin_slots, object_header, body_header."""

def extents(arena: Arena) -> dict[str, int]:
    """How broken up memory is: objects, chains, extents of chains, free runs, free units, objects in overflow."""

def lookup(
    arena: Arena, key: bytes, now: float, denied: int, want_body: bool, room: int, gap: int
) -> tuple[int, bytes]:
    """The fast lane's look-up: its outcome, and the buffer's octets (a pinned body read through iovecs behind them)."""

def queues(arena: Arena, shard: int) -> tuple[list[tuple[bytes, int, bool]], list[tuple[bytes, int, bool]]]:
    """A shard's objects by queue (main, small), the newest first: key, uses counted, whether SIEVE's hand is there."""

def bind_bodies(arena: Arena, size: int) -> None:
    """From now on bound the sum of body sizes too, and weigh objects by them: what a simulator counts. The arena has
    one shard, is empty, and is made so large that memory binds nothing."""

def play(arena: Arena, keys: bytes, asked: Buffer, sizes: Buffer) -> tuple[int, int]:
    """Ask for objects by number, store what is missing: (hits, octets hit). `keys`: 16 octets an object; `asked`,
    `sizes`: uint32. Bodies take their memory but are not written. `asked` is trusted to be within `sizes`."""

def bench_find(arena: Arena, keys: bytes, rounds: int) -> float:
    """Nanoseconds a look-up, of all keys (16 octets each) in order: lock, search, validity, LRU, counters, snapshot."""

def bench_put(arena: Arena, keys: bytes, head: int, body: int, rounds: int) -> float:
    """Nanoseconds an insert of the keys in order, each object of `head` and `body` octets."""

def bench_copy(size: int, rounds: int) -> float:
    """Nanoseconds of a plain copy of `size` octets over a large range of targets: what an insert must pay anyway."""
