"""What edgecache promises in the rows of the benchmark, as ratios within one run."""

from collections.abc import Mapping
from dataclasses import dataclass

SUBJECT = "edgecache"
PEERS = ("haproxy", "nginx", "varnish")


@dataclass(frozen=True, slots=True)
class Target:
    """`figure` of edgecache in `row` is at most `at_most` times the least of `against` in `against_row`."""

    row: str
    figure: str
    against: tuple[str, ...]
    at_most: float
    against_row: str = ""


def _cpu(row: str, at_most: float, *against: str, against_row: str = "") -> Target:
    return Target(row, "cpu_us", against, at_most, against_row)


TARGETS: tuple[Target, ...] = (
    _cpu("hit-1k", 1.25, "floor"),
    _cpu("hit-1k", 0.90, "haproxy"),
    _cpu("hit-1k", 0.65, "nginx"),
    _cpu("hit-1k", 0.50, "varnish"),
    _cpu("objects-zipf", 1.15, SUBJECT, against_row="objects-1"),
    _cpu("objects-zipf", 1.00, "nginx"),
    _cpu("objects-zipf", 1.00, "varnish"),
    _cpu("hit-16k", 0.85, *PEERS),
    *(_cpu(row, 1.00, peer) for row in ("hit-256k", "hit-1m") for peer in ("nginx", "haproxy")),
    *(_cpu(row, 1.20, "varnish") for row in ("hit-256k", "hit-1m")),
    _cpu("tls-1k", 0.85, "nginx"),
    _cpu("tls-16k", 0.75, "nginx"),
    _cpu("tls-1m", 0.75, "nginx"),
    Target("hit-1k", "p99_us", PEERS, 1.00),
    _cpu("pass-1k", 3.00, "nginx"),
    _cpu("disk-64k", 1.30, "nginx", "nginx-sf"),
    _cpu("disk-100m", 1.00, "nginx", "nginx-sf"),
    _cpu("workers-2", 1.10, SUBJECT, against_row="workers-1"),
)

Figures = Mapping[tuple[str, str], Mapping[str, float]]
"""Medians: (row, server) to figure to number."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A target beside what was measured. `against` is the best of the `among` servers measured."""

    target: Target
    against: str
    among: int
    ratio: float

    @property
    def met(self) -> bool:
        """Whether the promise held in this run."""
        return self.ratio <= self.target.at_most


def judge(figures: Figures) -> list[Outcome]:
    """Every target whose row was measured for edgecache and for someone it is held against."""
    outcomes = []
    for target in TARGETS:
        own = figures.get((target.row, SUBJECT))
        row = target.against_row or target.row
        others = {name: figures[row, name][target.figure] for name in target.against if (row, name) in figures}
        if own is None or not others:
            continue
        best = min(others, key=others.__getitem__)
        if others[best] > 0:
            outcomes.append(Outcome(target, best, len(others), own[target.figure] / others[best]))
    return outcomes
