"""The arena alone: `python -m loadtests.bench.arena [--quick] [--traces DIR]`.

Times are measured in Cython loops, one process, the best of several rounds (what the machine can do, not what else it
was doing). A look-up is lock, search, validity, recency, counters and a snapshot of the numbers; an insert is an insert
that evicts, with its copy, beside a plain copy of as many octets. Memory is counted from the figures the arena keeps.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

from edgecache._native import probe
from edgecache._native.arena import OVERHEAD, Arena, hash_key

from . import reference
from .tracefile import read

GIB = 1 << 30
HEAD, BODY = 200, 1024
NUMBERS = {"born_at": 0.0, "fresh_until": 0.0, "stale_until": 0.0, "flags": 0, "status": 200, "fill_seq": 0}


def row(name: str, value: str, target: str) -> None:
    print(f"{name:<52} {value:>18}   {target}", flush=True)


def best(rounds: int, run: Callable[[], float]) -> float:
    return min(run() for _ in range(rounds))


def random_keys(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(16 * count)


def times(quick: bool) -> None:
    keys = random_keys(200_000)
    copy = best(5, lambda: probe.bench_copy(HEAD + BODY, 300_000))
    for eviction in ("lru", "sieve", "s3fifo"):
        arena = Arena(64 << 20, eviction=eviction)
        probe.bench_put(arena, keys, HEAD, BODY, 1)
        there = b"".join(key for queue in probe.queues(arena, 0) for key, _, _ in queue)
        few, last = there[: 16 * 100], there[:16]
        hot = best(5, lambda arena=arena, keys=last: probe.bench_find(arena, keys, 1_000_000))  # type: ignore[misc]
        row(f"{eviction}: look-up of a hot key", f"{hot:.0f} ns", "60 ns")
        hot = best(5, lambda arena=arena, keys=few: probe.bench_find(arena, keys, 10_000))  # type: ignore[misc]
        row(f"{eviction}: look-up, of 100 keys in turn", f"{hot:.0f} ns", "")
        insert = best(5, lambda arena=arena: probe.bench_put(arena, keys, HEAD, BODY, 1))  # type: ignore[misc]
        row(f"{eviction}: evicting insert of 1 KiB, 64 MiB arena", f"{insert:.0f} ns", f"250 + {copy:.0f} ns of copy")
    if quick:
        return
    count = 1_000_000
    arena = Arena(2 * GIB)
    keys = random_keys(count)
    probe.bench_put(arena, keys, HEAD, BODY, 1)
    order = list(range(count))
    random.Random(2).shuffle(order)
    shuffled = b"".join(keys[16 * i : 16 * i + 16] for i in order)
    row(f"look-up of one in {count:,}", f"{best(5, lambda: probe.bench_find(arena, shuffled, 1)):.0f} ns", "400 ns")
    arena = Arena(GIB)
    for seed in (3, 4):
        probe.bench_put(arena, random_keys(count, seed), HEAD, BODY, 1)
    insert = best(3, lambda: probe.bench_put(arena, keys, HEAD, BODY, 1))
    row("evicting insert of 1 KiB, 1 GiB arena", f"{insert:.0f} ns", f"250 + {copy:.0f} ns of copy")


def memory() -> None:
    arena = Arena(256 << 20)
    probe.bench_put(arena, random_keys(250_000), HEAD, BODY, 1)
    stats, layout = arena.stats(), probe.layout(arena)
    index = layout["buckets"] * layout["bucket"] * arena.shards / stats["objects"]
    links = stats["bytes_used"] / layout["unit"] * 4 / stats["objects"]
    header = layout["object_header"]
    slack = stats["bytes_slack"] / stats["objects"]
    parts = f"{header} + {index:.1f} + {links:.1f} octets"
    row("1 KiB object: header + index + links", parts, f"160 octets (OVERHEAD {OVERHEAD})")
    row("1 KiB object: allocator slack", f"{slack:.0f} octets, {slack / BODY:.1%}", "15 %")
    row("1 KiB object: everything, free memory included", f"{arena.size / stats['objects']:.0f} octets", "")


def trace(path: Path, fraction: float, max_object: int) -> None:
    read_trace = read(path)
    requests, sizes = read_trace.asked, read_trace.sizes
    size = int(read_trace.footprint * fraction)
    arena = Arena(size, max_object=max_object)
    keys = [hash_key(bytes(16), number.to_bytes(4, "little")) for number in range(len(sizes))]
    piece = bytes(65536)
    hits = 0
    for number in requests:
        entry = arena.get(keys[number])
        if entry is not None:
            hits += 1
            entry.close()
        else:
            whole, rest = divmod(sizes[number], len(piece))
            arena.put(keys[number], b"", b"", [piece] * whole + [piece[:rest]], tags=(), **NUMBERS)  # type: ignore[arg-type]
    stats, broken = arena.stats(), probe.extents(arena)
    share = (size - stats["bytes_body"]) / size
    exact = reference.play("lru", read_trace, size, max_object).count
    points = (exact - hits) / len(requests) * 100
    name = f"{path.name.split('.')[0]} at {size >> 20} MiB"
    row(f"{name}: allocator slack", f"{stats['bytes_slack'] / size:.2%}", "5 %")
    row(f"{name}: all that is not body, free included", f"{share:.2%}", "")
    row(f"{name}: hit ratio {hits / len(requests):.2%}, below exact LRU", f"{points:.2f} points", "0.6 points")
    per_mib = broken["extents"] / stats["bytes_used"] * (1 << 20)
    row(f"{name}: pieces of memory a MiB", f"{per_mib:.0f}", "512 with 2 KiB chunks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out what needs gigabytes")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="also play akamai-images.req.xz from there")
    options = parser.parse_args()
    row("measured", "", "target")
    times(options.quick)
    memory()
    if options.traces:
        for fraction in (0.03, 0.1):
            trace(options.traces / "akamai-images.req.xz", fraction, 1 << 20)


if __name__ == "__main__":
    main()
