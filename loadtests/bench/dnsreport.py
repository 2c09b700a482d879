"""What dnsperf prints, medians, promises and tables of the DNS benchmark. Pure until `show`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .generators import BadTable
from .report import size_text, time_text
from .targets import SUBJECT

BUSY = 0.95
"""A server at or above this share of its core is at its limit."""
LOAD_BUSY = 0.9
"""dnsperf at or above this share of its time is: it also reads its queries, and waits for the last answer."""
LOST = 0.01
MIB = 1 << 20

ROWS: dict[str, str] = {
    "subnet-4": "A by client subnet, another /24 in each query",
    "subnet-6": "A by client subnet, another /56 in each query",
    "plain": "A without EDNS: by the resolver's address",
    "absent": "names that do not exist, another in each query",
}


@dataclass(frozen=True, slots=True)
class DnsLoad:
    """What dnsperf saw in one turn."""

    sent: int
    completed: int
    lost: int
    seconds: float
    mean_us: float
    codes: tuple[tuple[str, int], ...]

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.completed / self.seconds if self.seconds else 0.0


def parse_dnsperf(output: str) -> DnsLoad:
    """The statistics dnsperf prints at the end; BadTable when one is missing."""

    def number(pattern: str) -> str:
        match = re.search(pattern, output, re.MULTILINE)
        if match is None:
            raise BadTable(f"dnsperf printed no {pattern!r} line:\n{output.strip()}")
        return match[1]

    codes = re.search(r"^\s*Response codes:\s*(.*)$", output, re.MULTILINE)
    found = re.findall(r"(\w+) (\d+) \(", codes[1]) if codes else []
    return DnsLoad(
        sent=int(number(r"^\s*Queries sent:\s*(\d+)")),
        completed=int(number(r"^\s*Queries completed:\s*(\d+)")),
        lost=int(number(r"^\s*Queries lost:\s*(\d+)")),
        seconds=float(number(r"^\s*Run time \(s\):\s*([\d.]+)")),
        mean_us=float(number(r"^\s*Average Latency \(s\):\s*([\d.]+)")) * 1e6,
        codes=tuple((code, int(count)) for code, count in found),
    )


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what dnsperf saw, what it cost, and the shares of their cores that the server and dnsperf used.
    `others`: the share of the server's core that neither it nor the idle loop had."""

    row: str
    server: str
    load: DnsLoad
    cpu_us: float
    memory_bytes: int
    server_own: float
    load_own: float
    others: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One server in one row: medians of its turns."""

    row: str
    server: str
    per_second: float
    cpu_us: float
    mean_us: float
    memory_bytes: float
    remarks: tuple[str, ...]


def cells(turns: Iterable[Turn]) -> list[Cell]:
    """In the order they were first measured."""
    grouped: dict[tuple[str, str], list[Turn]] = {}
    for turn in turns:
        grouped.setdefault((turn.row, turn.server), []).append(turn)
    return [
        Cell(
            row,
            server,
            median(turn.load.per_second for turn in some),
            median(turn.cpu_us for turn in some),
            median(turn.load.mean_us for turn in some),
            median(turn.memory_bytes for turn in some),
            remarks(row, some),
        )
        for (row, server), some in grouped.items()
    ]


def remarks(row: str, turns: Sequence[Turn]) -> tuple[str, ...]:
    """What a reader has to know beside the medians."""
    said = []
    sent, lost = sum(turn.load.sent for turn in turns), sum(turn.load.lost for turn in turns)
    if lost > LOST * sent:
        said.append(f"{lost / sent:.1%} of the queries were not answered")
    expected = "NXDOMAIN" if row == "absent" else "NOERROR"
    other = sum(count for turn in turns for code, count in turn.load.codes if code != expected)
    if other:
        said.append(f"{other:,} answers were not {expected}")
    if limited(turns):
        said.append("limited by the load generator, not the server")
    disturbed = median(turn.others for turn in turns)
    if disturbed > 0.05:
        said.append(f"others used {disturbed:.0%} of its core")
    return tuple(said)


def limited(turns: Sequence[Turn]) -> bool:
    """Whether dnsperf was at its limit and the server was not: by what they used themselves, whoever else was there."""
    return sum(turn.load_own >= LOAD_BUSY and turn.server_own < BUSY for turn in turns) * 2 > len(turns)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A promise beside what was measured."""

    what: str
    measured: str
    promised: str
    met: bool


def judge(measured: Sequence[Cell], turns: Sequence[Turn], started: Mapping[str, tuple[float, int]]) -> list[Outcome]:
    """Every promise that this run can tell about. `started`: seconds and octets after loading."""
    by = {(cell.row, cell.server): cell for cell in measured}
    outcomes = []
    for row in ("subnet-4", "subnet-6"):
        own = by.get((row, SUBJECT))
        for peer, most in (("gdnsd", 1.35), ("powerdns", 0.5)):
            other = by.get((row, peer))
            if own and other and other.cpu_us > 0:
                ratio = own.cpu_us / other.cpu_us
                outcomes.append(
                    Outcome(f"{row}: CPU over {peer}", f"{ratio:.2f}", f"at most {most:.2f}", ratio <= most)
                )
        if own:
            at_limit = limited([turn for turn in turns if (turn.row, turn.server) == (row, SUBJECT)])
            met = own.per_second >= 150_000 or at_limit
            said = "at least 150,000, or the generator's limit"
            outcomes.append(Outcome(f"{row}: answers/s", f"{own.per_second:,.0f}", said, met))
    if SUBJECT in started:
        load_s, memory = started[SUBJECT]
        outcomes.append(Outcome("load", f"{load_s:.2f} s", "under 5 s", load_s < 5))
        outcomes.append(Outcome("memory after loading", size_text(memory), "under 150M", memory < 150 * MIB))
    return outcomes


def row_table(inside: Sequence[Cell], started: Mapping[str, tuple[float, int]], notes: dict[str, int]) -> Table:
    """The table of one row, a line per server; `notes` numbers remarks and grows here."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", width=11, no_wrap=True)
    table.add_column("answers/s", width=9, justify="right")
    table.add_column("CPU µs", width=7, justify="right", style="bold")
    bases = [cell for cell in inside if cell.server != SUBJECT]
    for base in bases:
        table.add_column(f"/{base.server}", width=9, justify="right")
    table.add_column("mean", width=8, justify="right")
    table.add_column("loaded in", width=9, justify="right")
    table.add_column("memory", width=7, justify="right")
    table.add_column("", no_wrap=True)
    for cell in inside:
        marks = [notes.setdefault(remark, len(notes) + 1) for remark in cell.remarks]
        table.add_row(
            f"  {cell.server}",
            f"{cell.per_second:,.0f}",
            f"{cell.cpu_us:,.2f}",
            *("-" if base is cell else f"{cell.cpu_us / base.cpu_us:.2f}" for base in bases),
            time_text(cell.mean_us),
            f"{started[cell.server][0]:.2f} s",
            size_text(cell.memory_bytes),
            f"({','.join(map(str, marks))})" if marks else "",
        )
    return table


def show(
    console: Console,
    environment: Mapping[str, str],
    measured: Sequence[Cell],
    outcomes: Sequence[Outcome],
    started: Mapping[str, tuple[float, int]],
    left_out: Sequence[tuple[str, str]],
) -> None:
    """Prints the whole report."""
    head = Table(box=None, show_header=False, pad_edge=False)
    head.add_column(no_wrap=True, style="dim")
    head.add_column()
    for name, value in environment.items():
        head.add_row(name, escape(value))
    console.print(head)
    for row in dict.fromkeys(cell.row for cell in measured):
        notes: dict[str, int] = {}
        console.print(f"\n{row}: {ROWS[row]}", style="bold", highlight=False)
        console.print(row_table([cell for cell in measured if cell.row == row], started, notes))
        for text, number in notes.items():
            console.print(escape(f"({number}) {text}"), style="yellow", highlight=False)
    if outcomes:
        table = Table(title="Targets", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("", "measured", "promised", ""):
            table.add_column(column, justify="right" if column == "measured" else "left")
        for outcome in outcomes:
            met = "met" if outcome.met else "[bold red]missed[/]"
            table.add_row(outcome.what, outcome.measured, outcome.promised, met)
        console.print()
        console.print(table)
    if left_out:
        console.print("\nLeft out", style="bold")
        for name, why in left_out:
            console.print(escape(f"{name}: {why}"))
