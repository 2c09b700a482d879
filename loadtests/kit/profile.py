"""What a profile is: the traffic, what happens meanwhile, and the promise that is checked at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtests.kit.board import Board
from loadtests.kit.processes import Edge, Origin, Process
from loadtests.kit.tally import Tally

if TYPE_CHECKING:
    from loadtests.kit.client import Client


@dataclass(frozen=True, slots=True)
class Check:
    """One sentence of a promise, and whether it holds."""

    holds: bool
    sentence: str
    """What was promised, with the counts that were checked: true when it holds."""
    broken: str = ""
    """What to say when it does not."""

    def __str__(self) -> str:
        return self.sentence if self.holds else (self.broken or f"not so: {self.sentence}")


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment of the edge."""

    at: float
    stats: dict[str, Any]
    processes: tuple[Process, ...]
    origin_requests: int

    @property
    def own_bytes(self) -> int:
        """Resident memory of all processes, without what they share."""
        return sum(process.rss_bytes for process in self.processes)


@dataclass(slots=True)
class Run:
    """A run as its director sees it."""

    folder: Path
    plan: dict[str, Any]
    board: Board
    origin: Origin
    edge: Edge | None
    """None: somebody else's, at `plan["host"]`."""
    began: float = 0.0
    ends: float = 0.0
    marks: list[tuple[float, str]] = field(default_factory=list)
    """What was done to the edge or its origin, and when: shown in the plots."""
    purges: list[tuple[float, float]] = field(default_factory=list)
    """When each purge returned, and how long it took; seconds."""
    samples: list[Sample] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What `direct` leaves for `judge`, and for the page."""
    table: list[tuple[str, ...]] = field(default_factory=list)
    """Rows that are shown beside the promise, and printed: what, before, after, the difference, how large it may be."""
    over: Callable[[], bool] = lambda: False
    """The load has ended."""

    @property
    def own(self) -> Edge:
        """The edge, for profiles that run against their own only."""
        assert self.edge is not None
        return self.edge

    def tabulate(self, *cells: str) -> None:
        self.table.append(cells)

    def mark(self, text: str) -> float:
        now = time.monotonic()
        self.marks.append((now, text))
        return now

    def left(self) -> float:
        return 0.0 if self.over() else max(0.0, self.ends - time.monotonic())

    def sleep(self, seconds: float) -> None:
        """As long as the load goes on."""
        until = time.monotonic() + seconds
        while (rest := min(until - time.monotonic(), self.left())) > 0:
            time.sleep(min(rest, 0.1))

    def purge(self, **targets: Any) -> dict[str, Any]:
        begun = time.monotonic()
        receipt = self.own.purge(**targets)
        now = time.monotonic()
        self.purges.append((now, now - begun))
        return receipt

    def seconds(self, begin: float, end: float) -> range:
        """The whole seconds between two moments."""
        return range(int(begin) + 1, int(end))


def idle(run: Run) -> None:
    """A director that has nothing to do."""
    run.sleep(run.left())


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    title: str
    ask: Callable[[Client], None]
    """One turn of a user."""
    judge: Callable[[Run, Tally], Iterable[Check]]
    direct: Callable[[Run], None] = idle
    """In a thread beside the load, for as long as it takes."""
    prepare: Callable[[Run], None] = lambda _: None
    """Before the load."""
    after: Callable[[Run], None] = lambda _: None
    """When the load is over, and the edge still runs."""
    sections: Callable[[Run], Iterable[str]] = lambda _: ()
    """Further parts of the page, as HTML."""
    config: dict[str, Any] = field(default_factory=dict)
    """Of the edge."""
    users: int = 40
    seconds: int = 30
    think_s: float = 0.0
    """How long a user waits between requests, when there is no fixed rate."""
    elsewhere: str = ""
    """It can be run against any URL, too, and this is what it promises there."""
    disk: bool = False
    trace: bool = False
    """It plays a trace or an access log: --trace FILE."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Goes into the plan, for `ask`."""
    files: int = 0
    """Descriptors that the director needs beside those of the users."""


def nothing_lost(seen: Tally) -> list[Check]:
    return [check for check in nothing_wrong(seen) if "body" not in check.sentence]


def nothing_wrong(seen: Tally) -> list[Check]:
    """What every profile promises."""
    wrong, right = seen.total("wrong"), seen.total("requests")
    lost = seen.total("lost") + seen.total("refused")  # a connection refused is no answer either
    said = f": {seen.notes[0]}" if seen.notes else ""
    return [
        Check(right > 0, f"{right} requests were answered", "no request was answered"),
        Check(wrong == 0, "every body was the right one", f"{wrong} answers were wrong{said}"),
        Check(lost == 0, "no request was left without an answer", f"{lost} requests were left without an answer{said}"),
    ]
