"""Hit ratios of the arena's eviction policies: `python -m loadtests.bench.traces [FILE…]`.

Plays request traces (NAME.req.xz, or a generated Zipf trace) through the real arena at fractions of their footprint,
and prints object and byte hit ratios per policy beside an exact LRU in plain Python. As shipped, with shards, metadata
and memory in units, an object larger than --max-object never enters, neither the arena nor the reference. With --exact
the arena has one shard and counts octets of bodies only, as a simulator does. Bodies take their memory but are not
written.

Exit codes: 0 played; 2 it cannot be run as asked.
"""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import edgecache
from edgecache._native import probe
from edgecache._native.arena import Arena, hash_key
from edgecache.config.units import format_size, parse_size

from . import reference
from .reference import PIECE, Hits
from .tracefile import BadTrace, Trace, read, zipf

POLICIES = ("lru", "sieve", "s3fifo")
MIB = 1 << 20
WIDTH = 130


@dataclass(frozen=True, slots=True)
class Row:
    """One trace at one size. Ratios are shares of 1: of requests, of octets."""

    trace: str
    fraction: float
    size_bytes: int
    exact_lru: tuple[float, float]
    policies: dict[str, tuple[float, float]]
    exact_policies: dict[str, tuple[float, float]]
    """In an exact run, what the other policies' references say."""
    impossible: str
    """Why there is no arena of that size; empty: there is."""


class CannotPlay(click.ClickException):
    exit_code = 2


def arena_for(trace: Trace, capacity: int, eviction: str, *, exact: bool, most: int) -> Arena:
    """An arena to play in; ValueError if there is none of that size."""
    if not exact:
        return Arena(capacity, max_object=most, eviction=eviction)
    # Room for bodies, for what else an object takes, for the largest; it is mapped, and taken only where it is used.
    objects, largest = len(trace.sizes), max(trace.sizes)
    size = capacity + 700 * objects + 20 * largest + 64 * MIB
    arena = Arena(size, max_object=largest, shards=1, eviction=eviction)
    probe.bind_bodies(arena, capacity)
    return arena


def play(arena: Arena, keys: bytes, trace: Trace, told: Callable[[int], object]) -> Hits:
    asked, sizes = memoryview(trace.asked), memoryview(trace.sizes)
    count = octets = 0
    for begin in range(0, len(asked), PIECE):
        piece = asked[begin : begin + PIECE]
        hits = probe.play(arena, keys, piece, sizes)
        count += hits[0]
        octets += hits[1]
        told(len(piece))
    return Hits(count, octets)


def measure(
    trace: Trace, fractions: Sequence[float], *, exact: bool, max_object: int, told: Callable[[int], object]
) -> list[Row]:
    """Play one trace at each size; `told` how many more requests were played, by the arena or a reference."""
    keys = b"".join(hash_key(bytes(16), number.to_bytes(4, "little")) for number in range(len(trace.sizes)))
    footprint, octets, requests = trace.footprint, trace.octets, len(trace.asked)

    def ratios(hits: Hits) -> tuple[float, float]:
        return hits.count / requests, hits.octets / octets

    rows = []
    for fraction in fractions:
        capacity = max(int(footprint * fraction), 1)
        most = max(trace.sizes) if exact else max_object
        lru = ratios(reference.play("lru", trace, capacity, most, told))
        played, references, impossible = {}, {}, ""
        for policy in POLICIES:
            try:
                arena = arena_for(trace, capacity, policy, exact=exact, most=most)
            except ValueError as error:
                impossible = str(error)
                told(requests)
                continue
            played[policy] = ratios(play(arena, keys, trace, told))
            if exact:
                arena.check()
                references[policy] = (
                    lru if policy == "lru" else ratios(reference.play(policy, trace, capacity, most, told))
                )
        if impossible:
            played = {}
        rows.append(Row(trace.name, fraction, capacity, lru, played, references, impossible))
    return rows


def _percent(pair: tuple[float, float]) -> str:
    return f"{pair[0] * 100:6.2f} {pair[1] * 100:6.2f}"


def table(rows: Sequence[Row], *, exact: bool) -> Table:
    how = "one shard, octets of bodies counted" if exact else "as shipped"
    shown = Table(title=f"Hit ratios in %, objects and bytes ({how})")
    shown.add_column("trace", no_wrap=True)
    for name in ("of footprint", "size", "exact LRU", "lru", "below it", "sieve", "s3fifo"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        begin = (row.trace, f"{row.fraction * 100:g} %", format_bytes(row.size_bytes), _percent(row.exact_lru))
        if row.impossible:
            shown.add_row(*begin, "too small", "", "", "")
            continue
        digits = 4 if exact else 2
        below = (row.exact_lru[0] - row.policies["lru"][0]) * 100
        others = (_percent(row.policies[policy]) for policy in POLICIES[1:])
        shown.add_row(*begin, _percent(row.policies["lru"]), f"{below:.{digits}f}", *others)
    return shown


def format_bytes(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"


def remarks(rows: Sequence[Row], traces: Sequence[Trace], *, exact: bool, max_object: int) -> list[str]:
    """What a reader has to know beside the ratios."""
    said = [f"{row.trace} at {format_bytes(row.size_bytes)}: {row.impossible}" for row in rows if row.impossible]
    if exact:
        worst = {
            policy: max(
                (abs(row.policies[policy][i] - row.exact_policies[policy][i]) for row in rows for i in (0, 1)),
                default=0.0,
            )
            for policy in POLICIES
        }
        said.append(
            "largest difference from the policy's reference in plain Python, as a share of 1: "
            + ", ".join(f"{policy} {difference:.6f}" for policy, difference in worst.items())
        )
        return said
    for trace in traces:
        large = [number for number, size in enumerate(trace.sizes) if size > max_object]
        if large:
            those = set(large)
            times = sum(number in those for number in trace.asked)
            share = sum(trace.sizes[number] for number in trace.asked if number in those) / trace.octets
            said.append(
                f"{trace.name}: {times / len(trace.asked):.2%} of requests, {share:.1%} of bytes are for objects "
                f"larger than {format_size(max_object)}, which never enter"
            )
    return said


def _fractions(_context: click.Context, _option: click.Parameter, text: str) -> list[float]:
    try:
        percents = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"percents with commas between them, not {text!r}") from None
    if not all(0 < percent <= 100 for percent in percents):
        raise click.BadParameter("percents are above 0 and at most 100")
    return [percent / 100 for percent in percents]


def _size(_context: click.Context, _option: click.Parameter, text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not 1 <= size < 1 << 32:
        raise click.BadParameter("from 1 to 4 GiB less one octet")
    return size


@click.command(help=(__doc__ or "").split("\n\n", 1)[1])
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option("--exact", is_flag=True, help="One shard, octets of bodies counted and nothing else.")
@click.option(
    "--sizes", default="0.1,1,10", show_default=True, callback=_fractions, help="Sizes in percent of the footprint."
)
@click.option(
    "--max-object", default="1MiB", show_default=True, callback=_size, help="As memory.max_object, if not --exact."
)
@click.option("--json", "json_file", type=click.File("w", lazy=True), help="Write the ratios there too; - for stdout.")
def main(files: tuple[Path, ...], exact: bool, sizes: list[float], max_object: int, json_file: Any) -> None:
    try:
        traces = [read(path) for path in files] or [zipf()]
    except BadTrace as error:
        raise CannotPlay(str(error)) from error
    rows: list[Row] = []
    plays = 1 + len(POLICIES) + (len(POLICIES) - 1 if exact else 0)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(len(trace.asked) for trace in traces) * plays * len(sizes))
        for trace in traces:
            progress.update(task, description=trace.name)
            rows += measure(
                trace, sizes, exact=exact, max_object=max_object, told=lambda count: progress.advance(task, count)
            )
    said = remarks(rows, traces, exact=exact, max_object=max_object)
    versions = f"edgecache {edgecache.__version__}, Python {platform.python_version()}"
    measured = {"measured": f"{datetime.now(UTC):%Y-%m-%d}", "versions": versions}
    if json_file is not None:
        result = {**measured, "exact": exact, "rows": [asdict(row) for row in rows], "remarks": said}
        json.dump(result, json_file, indent=1)
        json_file.write("\n")
        if json_file.name == "-":
            return
    console = Console(soft_wrap=True)
    console.width = max(console.width, WIDTH)
    console.print(table(rows, exact=exact))
    for remark in (", ".join(measured.values()), *said):
        console.print(remark, markup=False, highlight=False)


if __name__ == "__main__":
    main()
