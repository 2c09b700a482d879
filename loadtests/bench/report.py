"""Medians, ratios, tables and JSON. Pure until `show`, which prints to the console it is given."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .measure import LeftOut, Sample
from .rows import GROUPS, Row, Work
from .targets import Outcome, judge

BUSY = 0.95
"""A core at or above this share of its time is at its limit."""
DISTURBED = 0.05
STOLEN = 0.01
LOG_LOST = 0.01
ASKED_AGAIN = 0.001


@dataclass(frozen=True, slots=True)
class Cell:
    """One server in one row: medians over its turns, and what must be said about them."""

    row: Row
    server: str
    samples: tuple[Sample, ...]
    per_second: float
    cpu_us: float
    p50_us: float
    p99_us: float
    memory_bytes: float
    disk_bytes: float
    remarks: tuple[str, ...]

    def figures(self) -> dict[str, float]:
        """The medians by name."""
        names = ("per_second", "cpu_us", "p50_us", "p99_us", "memory_bytes", "disk_bytes")
        return {name: getattr(self, name) for name in names}


def remarks(row: Row, samples: Sequence[Sample]) -> tuple[str, ...]:
    """What a reader has to know beside the medians; nothing that went wrong is left unsaid."""
    said = []
    errors, refused = sum(s.load.errors for s in samples), sum(s.load.refused for s in samples)
    requests = sum(s.load.requests for s in samples)
    if errors:
        said.append(f"{errors:,} requests without an answer")
    if refused:
        said.append(f"{refused:,} of {requests:,} answers 4xx or 5xx")
    if not requests:
        return (*said, "no request was answered")
    read = sum(s.load.bytes_read for s in samples) / requests
    if row.work is Work.NOT_MODIFIED and read > row.size_bytes:
        said.append(f"{read:,.0f} bytes per answer: not all were 304")
    if row.work is not Work.NOT_MODIFIED and read < row.size_bytes * 0.98:
        said.append(f"{read:,.0f} bytes per answer: bodies are missing")
    again = sum(s.origin_requests for s in samples)
    if row.work is not Work.PASS and again > ASKED_AGAIN * requests:
        said.append(f"{again:,} of {requests:,} requests reached the origin")
    logged = [s for s in samples if s.log_lines is not None]
    lines, due = sum(s.log_lines or 0 for s in logged), sum(s.load.requests for s in logged)
    if lines < due * (1 - LOG_LOST):
        said.append(f"{1 - lines / due:.1%} of the access log's lines are missing")
    limited = sum(1 for s in samples if s.load_busy >= BUSY > s.server_busy)
    if limited * 2 > len(samples):
        said.append("limited by the load generator, not the server: its req/s and latencies are the generator's")
    if median(s.others for s in samples) > DISTURBED:
        said.append(f"others used {median(s.others for s in samples):.0%} of its core")
    if median(s.stolen for s in samples) > STOLEN:
        said.append(f"the hypervisor took {median(s.stolen for s in samples):.0%}")
    if not all(s.same_processes for s in samples):
        said.append("processes came or went during a turn")
    return tuple(said)


def cells(rows: Iterable[Row], samples: Iterable[Sample]) -> list[Cell]:
    """A cell per row and server, in the order they were first measured."""
    grouped: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        grouped.setdefault((sample.row, sample.server), []).append(sample)
    by_name = {row.name: row for row in rows}
    return [
        Cell(
            row=by_name[row],
            server=server,
            samples=tuple(turns),
            per_second=median(s.load.per_second for s in turns),
            cpu_us=median(s.cpu_us for s in turns),
            p50_us=median(s.load.p50_us for s in turns),
            p99_us=median(s.load.p99_us for s in turns),
            memory_bytes=median(s.memory_bytes for s in turns),
            disk_bytes=median(s.disk_bytes for s in turns),
            remarks=remarks(by_name[row], turns),
        )
        for (row, server), turns in grouped.items()
    ]


def figures(measured: Iterable[Cell]) -> dict[tuple[str, str], dict[str, float]]:
    """The medians by row and server, as the targets want them."""
    return {(cell.row.name, cell.server): cell.figures() for cell in measured}


def ratio(one: float, other: float | None) -> float | None:
    """`one` over `other`; None when there is nothing to divide by."""
    if other is None or not other > 0 or math.isnan(one):
        return None
    return one / other


def _ratio_text(one: Cell, other: Cell | None) -> str:
    if other is None or other is one:
        return "" if other is None else "-"
    value = ratio(one.cpu_us, other.cpu_us)
    return "" if value is None else f"{value:.2f}"


def time_text(microseconds: float) -> str:
    """``197 µs``, ``5.84 ms``."""
    if not microseconds:
        return "-"
    return f"{microseconds:,.0f} µs" if microseconds < 1000 else f"{microseconds / 1000:,.2f} ms"


def size_text(size: float) -> str:
    """In MiB: ``3.4M``, ``512M``."""
    mib = size / (1 << 20)
    return f"{mib:.1f}M" if mib < 10 else f"{mib:,.0f}M"


def _memory_text(cell: Cell) -> str:
    return size_text(cell.memory_bytes) + (f"+{size_text(cell.disk_bytes)}" if cell.disk_bytes else "")


def row_table(inside: Mapping[str, Cell], bases: Sequence[str], notes: dict[str, int], *, headed: bool) -> Table:
    """The table of one row, a line per server. `notes` numbers the remarks of the whole group and grows here.

    Widths are fixed, so that the tables of a group stand under one header; eleven columns fit into 100 characters.
    """
    table = Table(box=None, show_header=headed, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", width=11, no_wrap=True)
    table.add_column("req/s", width=7, justify="right", no_wrap=True)
    table.add_column("CPU µs", width=7, justify="right", no_wrap=True, style="bold")
    for base in bases:
        table.add_column(f"/{base}", width=8, justify="right", no_wrap=True)
    table.add_column("p50", width=8, justify="right", no_wrap=True)
    table.add_column("p99", width=9, justify="right", no_wrap=True)
    table.add_column("memory", width=9, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for cell in inside.values():
        marks = [notes.setdefault(remark, len(notes) + 1) for remark in cell.remarks]
        table.add_row(
            f"  {cell.server}",
            f"{cell.per_second:,.0f}",
            "-" if math.isnan(cell.cpu_us) else f"{cell.cpu_us:,.2f}",
            *(_ratio_text(cell, inside.get(base)) for base in bases),
            time_text(cell.p50_us),
            time_text(cell.p99_us),
            _memory_text(cell),
            f"({','.join(map(str, marks))})" if marks else "",
        )
    return table


def show_group(console: Console, group: str, measured: Sequence[Cell], bases: Sequence[str]) -> None:
    """Prints a group: a table per row under one header, then the numbered remarks."""
    console.print(f"\n{GROUPS[group]}", style="bold", highlight=False)
    present = {cell.server for cell in measured}
    shown = [base for base in bases if base in present]
    notes: dict[str, int] = {}
    for number, row in enumerate(dict.fromkeys(cell.row for cell in measured)):
        table = row_table({cell.server: cell for cell in measured if cell.row is row}, shown, notes, headed=number == 0)
        console.print(f"[italic]{escape(row.says)}[/]", highlight=False)
        console.print(table)
    for text, number in notes.items():
        console.print(escape(f"({number}) {text}"), style="yellow", highlight=False)


def target_table(outcomes: Sequence[Outcome]) -> Table:
    """What was promised beside what was measured."""
    table = Table(title="Targets", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("row")
    table.add_column("edgecache's")
    table.add_column("over")
    table.add_column("measured", justify="right")
    table.add_column("at most", justify="right")
    table.add_column("")
    for outcome in outcomes:
        target = outcome.target
        over = f"{outcome.against} (best of {outcome.among})" if outcome.among > 1 else outcome.against
        if target.against_row:
            over += f" in {target.against_row}"
        figure = "CPU" if target.figure == "cpu_us" else "p99"
        met = "met" if outcome.met else "[bold red]missed[/]"
        table.add_row(target.row, figure, over, f"{outcome.ratio:.2f}", f"{target.at_most:.2f}", met)
    return table


def show(
    console: Console,
    environment: Mapping[str, str],
    measured: Sequence[Cell],
    left_out: Sequence[LeftOut],
    bases: Sequence[str],
) -> None:
    """Prints the whole report."""
    head = Table(box=None, show_header=False, pad_edge=False)
    head.add_column(no_wrap=True, style="dim")
    head.add_column()
    for name, value in environment.items():
        head.add_row(name, escape(value))
    console.print(head)
    for group in dict.fromkeys(cell.row.group for cell in measured):
        show_group(console, group, [cell for cell in measured if cell.row.group == group], bases)
    outcomes = judge(figures(measured))
    if outcomes:
        console.print()
        console.print(target_table(outcomes))
    if left_out:
        console.print("\nLeft out", style="bold")
        for (server, why), rows in _merged(left_out).items():
            where = f" in {', '.join(rows)}" if rows else ""
            console.print(escape(f"{server}{where}: {why}"))


def _merged(left_out: Sequence[LeftOut]) -> dict[tuple[str, str], list[str]]:
    merged: dict[tuple[str, str], list[str]] = {}
    for left in left_out:
        rows = merged.setdefault((left.server, left.why), [])
        if left.row:
            rows.append(left.row)
    return merged


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is not a number becomes null: JSON has no word for it."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def as_json(environment: Mapping[str, str], measured: Sequence[Cell], left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """Everything, each turn included."""
    return {
        "environment": dict(environment),
        "cells": [
            {
                "row": cell.row.name,
                "server": cell.server,
                "medians": _finite(cell.figures()),
                "remarks": list(cell.remarks),
                "turns": [_finite(asdict(sample)) for sample in cell.samples],
            }
            for cell in measured
        ],
        "targets": [asdict(outcome) | {"met": outcome.met} for outcome in judge(figures(measured))],
        "left_out": [asdict(left) for left in left_out],
    }
