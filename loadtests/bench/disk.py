"""``python -m loadtests.bench.disk``: what the disk tier promises beside the rows of the benchmark.

    size       the directory stays within its bound, and no call of a writer takes long, while two processes write
    look-up    what looking on disk adds to a miss
    hits       hits in memory while the tier writes, and while it evicts
    start      how long a start takes with 1,000,000 records, and the memory it takes (only when named)

Nothing here stands beside another product: these are promises about itself. Exit code 1 where one is not kept.
"""

import asyncio
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import uvloop

from edgecache.store.disk import DiskStore
from loadtests.ending import end_when_told

from .diskload import Asked, absent, ask, bytes_on_disk, fill, never_purged, started, writers
from .generators import percentile
from .own import Edgecache, Origin
from .process import Running, compile_tools, free_ports, make_certificate
from .rows import KIB, MIB
from .server import Setup

BOUND_BYTES = 256 * MIB
RECORDS = 100_000
START_RECORDS = 1_000_000
LOOKUPS_PER_S = 500
HITS_PER_S = 500
WRITE_BYTES_PER_S = 100 * MIB
_EVICTING_BYTES = 512 * MIB

Figures = dict[str, float]


@contextmanager
def _directory(parent: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="edgecache-disk-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def size(parent: Path, seconds: float) -> Figures:
    """Two processes write as fast as they can into a directory a fraction of what they write."""
    with _directory(parent) as path:
        most, looks = 0, 0
        with writers(path, BOUND_BYTES, 2, seconds) as written:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                most, looks = max(most, bytes_on_disk(path)), looks + 1
                time.sleep(0.02)
        calls = sorted(took for each in written for took in each.calls)
        own = [took - queued for each in written for took, queued in zip(each.calls, each.queued, strict=True)]
        return {
            "bound_mib": BOUND_BYTES / MIB,
            "looks": looks,
            "most_over_bound": most / BOUND_BYTES,
            "written_mib_per_s": sum(each.bytes for each in written) / MIB / seconds,
            "evicted": sum(each.evicted for each in written),
            "calls": len(calls),
            "call_p99_ms": percentile(calls, 0.99) * 1e3,
            "call_max_ms": calls[-1] * 1e3,
            "call_less_queue_max_ms": max(own) * 1e3,
            "checkpoint_max_ms": max(took for each in written for took in each.checkpoints) * 1e3,
        }


def look_up(parent: Path, seconds: float) -> Figures:
    """Look-ups of absent keys through the event loop and its threads, idle and while another process writes."""
    limit = 4 << 30
    with _directory(parent) as path:
        fill(path, limit, RECORDS, 500)

        async def measure() -> list[float]:
            store = DiskStore(path, limit, owner=1001, purged=never_purged)
            await store.start()
            try:
                await absent(store, LOOKUPS_PER_S, 1.0)
                return sorted(await absent(store, LOOKUPS_PER_S, seconds))
            finally:
                await store.close()

        idle = uvloop.run(measure())
        with writers(path, limit, 1, seconds + 3, 20 * MIB):
            time.sleep(1)
            busy = uvloop.run(measure())
        return {
            "records": RECORDS,
            "idle_p50_ms": percentile(idle, 0.5) * 1e3,
            "idle_p99_ms": percentile(idle, 0.99) * 1e3,
            "writing_p99_ms": percentile(busy, 0.99) * 1e3,
        }


def hits(parent: Path, tools: Path, seconds: float, cores: tuple[int, int], nice: int = 0) -> Figures:
    """1 KiB hits at a steady rate; beside them, 1 MiB misses so many that the tier writes 100 MB/s.

    The misses cost by themselves. So they are also sent to an edge without a disk tier: what is more than that is what
    writing costs.
    """
    certificate = make_certificate(tools)
    found: Figures = {}
    kinds = {"no_disk": 0, "writing": 64 << 30, "evicting": _EVICTING_BYTES}
    for kind, disk_bytes in kinds.items():
        with ExitStack() as stack, _directory(parent) as path:
            origin_port, port, tls_port, *spare = free_ports(8)
            setups = {
                name: Setup(
                    directory=tools / f"{kind}-{name}",
                    port=own,
                    tls_port=tls_port,
                    spare_ports=tuple(spare),
                    origin_port=origin_port,
                    certificate=certificate[0],
                    key=certificate[1],
                    tools=tools,
                    memory_bytes=256 * MIB,
                    disk=path if disk_bytes and name == "edge" else None,
                    disk_bytes=disk_bytes,
                )
                for name, own in (("origin", origin_port), ("edge", port))
            }
            for setup in setups.values():
                setup.directory.mkdir()
            stack.enter_context(Running(Origin(), setups["origin"], (cores[1],), nice))
            stack.enter_context(Running(Edgecache(), setups["edge"], (cores[0],), nice))
            idle, busy = uvloop.run(_hits(port, kind, seconds, evict=kind == "evicting"))
            found[f"{kind}_idle_p99_ms"] = idle.at(0.99) * 1e3
            found[f"{kind}_p50_ms"] = busy.at(0.5) * 1e3
            found[f"{kind}_p99_ms"] = busy.at(0.99) * 1e3
            found[f"{kind}_failed"] = idle.failed + busy.failed
            if disk_bytes:
                written = sum(file.stat().st_size for file in path.rglob("*-*") if file.is_file())
                found[f"{kind}_mib_on_disk"] = written / MIB
    return found


async def _hits(port: int, kind: str, seconds: float, *, evict: bool) -> tuple[Asked, Asked]:

    def lasting(span: float) -> Callable[[], bool]:
        end = time.perf_counter() + span
        return lambda: time.perf_counter() >= end

    hot, cold = itertools.cycle([f"/s/{KIB}"]), (f"/s/{MIB}?{kind}{number}" for number in itertools.count())
    await ask(port, hot, HITS_PER_S, lasting(1.0), 16)
    idle = await ask(port, hot, HITS_PER_S, lasting(seconds), 16)
    rate = WRITE_BYTES_PER_S / MIB
    if evict:  # until it is full
        await ask(port, cold, rate, lasting(1.2 * _EVICTING_BYTES / WRITE_BYTES_PER_S), 16)
    misses = asyncio.ensure_future(ask(port, cold, rate, lasting(seconds), 16))
    busy = await ask(port, hot, HITS_PER_S, lasting(seconds), 16)
    missed = await misses
    busy.failed += missed.failed
    return idle, busy


def start(parent: Path) -> Figures:
    """What a node does with the directory before it serves: sweep, open, and a first look-up."""
    limit = 16 << 30
    with _directory(parent) as path:
        fill(path, limit, START_RECORDS, 300)
        found = started(path, limit)
        return {"records": START_RECORDS, "mib_on_disk": bytes_on_disk(path) / MIB, **found}


def judged(figures: dict[str, Figures]) -> list[tuple[str, float, float]]:
    """(promise, measured, at most)."""
    found = []
    if "size" in figures:
        found.append(("directory over its bound", figures["size"]["most_over_bound"], 1.02))
        found.append(("longest call, less waiting for a core, ms", figures["size"]["call_less_queue_max_ms"], 50.0))
    if "start" in figures:
        found.append(("start with 1,000,000 records, s", figures["start"]["start_s"], 2.0))
    if "look-up" in figures:
        found.append(("look-up added to a miss, p99 ms", figures["look-up"]["writing_p99_ms"], 2.0))
    if "hits" in figures:
        one = figures["hits"]
        found.append(
            ("hit p99 while 100 MB/s are written, over idle", one["writing_p99_ms"] / one["writing_idle_p99_ms"], 2.0)
        )
    return found


@click.command(context_settings={"show_default": True})
@click.option("--only", default="size,look-up,hits", help="Which of them.")
@click.option("--seconds", default=10.0, type=click.FloatRange(0.5), help="How long each is measured.")
@click.option(
    "--disk",
    default="/var/tmp",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the files lie.",
)
@click.option("--nice", default=0, type=click.IntRange(-20, 19), help="Priority of all that is measured.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to it.")
def main(only: str, seconds: float, disk: Path, nice: int, json_file: Path | None) -> None:
    """Measure what the disk tier promises of itself."""
    figures: dict[str, Figures] = {}
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    with _directory(disk) as tools:
        for name in only.split(","):
            match name:
                case "size":
                    figures[name] = size(disk, seconds)
                case "look-up":
                    figures[name] = look_up(disk, seconds)
                case "start":
                    figures[name] = start(disk)
                case "hits":
                    compile_tools(tools)
                    figures[name] = hits(disk, tools, seconds, (0, 1), nice)
                case _:
                    raise click.UsageError(f"nothing is called {name!r}; there are: size, look-up, hits, start")
            for figure, value in figures[name].items():
                click.echo(f"{name:8} {figure:24} {value:,.3f}")
    outcome = judged(figures)
    for says, measured, at_most in outcome:
        click.echo(f"{says:48} {measured:10.3f}  at most {at_most:g}  {'met' if measured <= at_most else 'missed'}")
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(any(measured > at_most for _, measured, at_most in outcome))


if __name__ == "__main__":
    end_when_told()
    main()
