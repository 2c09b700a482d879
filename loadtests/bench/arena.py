"""The arena alone: `python -m loadtests.bench.arena [--quick] [--traces DIR]`.

Times are measured in Cython loops, one process, the best of several rounds (what the machine can do, not what else it
was doing). A look-up is lock, search, validity, recency, counters and a snapshot of the numbers; an insert is an insert
that evicts, with its copy, beside a plain copy of as many octets. Memory is counted from the figures the arena keeps.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
from array import array
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from edgecache._native import probe
from edgecache._native.arena import OVERHEAD, Arena, hash_key

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
    arena = Arena(64 << 20)
    keys = random_keys(200_000)
    probe.bench_put(arena, keys, HEAD, BODY, 1)
    last = keys[-16:]
    row("look-up of a hot key", f"{best(5, lambda: probe.bench_find(arena, last, 1_000_000)):.0f} ns", "60 ns")
    copy = best(5, lambda: probe.bench_copy(HEAD + BODY, 300_000))
    insert = best(5, lambda: probe.bench_put(arena, keys, HEAD, BODY, 1))
    row("evicting insert of 1 KiB, 64 MiB arena", f"{insert:.0f} ns", f"250 + {copy:.0f} ns of copy")
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


def columns(path: Path) -> tuple[array[int], array[int]]:
    """The objects asked for, in order, and the objects' sizes."""
    with lzma.open(path) as stream:
        head = json.loads(stream.readline())
        read = [array("I") for _ in range(3)]
        for column, length in zip(read, (head["requests"], head["requests"], head["objects"]), strict=True):
            column.frombytes(stream.read(4 * length))
    return read[1], read[2]


def exact(requests: array[int], sizes: array[int], capacity: int, max_object: int) -> int:
    """Hits of an LRU without shards, chunks or metadata."""
    cached: OrderedDict[int, int] = OrderedDict()
    used = hits = 0
    for number in requests:
        if number in cached:
            cached.move_to_end(number)
            hits += 1
        elif sizes[number] <= max_object:
            cached[number] = sizes[number]
            used += sizes[number]
            while used > capacity:
                used -= cached.popitem(last=False)[1]
    return hits


def trace(path: Path, fraction: float, max_object: int) -> None:
    requests, sizes = columns(path)
    size = int(sum(sizes) * fraction)
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
    points = (exact(requests, sizes, size, max_object) - hits) / len(requests) * 100
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
