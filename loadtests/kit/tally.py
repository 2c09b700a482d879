"""What clients saw: counts and latencies by second, made to be added up over processes and sent as JSON.

Latencies are counted in buckets of 1/16 of a power of two of microseconds: percentiles are right to 4.4 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

PARTS = 16
MOST_NOTES = 20


def bucket(seconds: float) -> int:
    return max(0, round(math.log2(max(seconds * 1e6, 1.0)) * PARTS))


def seconds_of(number: float) -> float:
    return float(2 ** (number / PARTS) / 1e6)


def quantile(buckets: Counter[int], share: float) -> float | None:
    """Seconds that this share of requests did not exceed; None where there were none."""
    total = sum(buckets.values())
    rank, seen = share * total, 0
    for number in sorted(buckets):
        seen += buckets[number]
        if seen >= rank:
            return seconds_of(number)
    return None


class Tally:
    """By second of the monotonic clock: named counts, and latencies by class of request."""

    def __init__(self) -> None:
        self.counts: dict[int, Counter[str]] = {}
        self.times: dict[int, dict[str, Counter[int]]] = {}
        self.notes: list[str] = []
        """The first few things that were wrong, as sentences."""

    def count(self, now: float, name: str, amount: int = 1) -> None:
        self.counts.setdefault(int(now), Counter())[name] += amount

    def took(self, now: float, kind: str, seconds: float) -> None:
        self.times.setdefault(int(now), {}).setdefault(kind, Counter())[bucket(seconds)] += 1

    def note(self, text: str) -> None:
        if len(self.notes) < MOST_NOTES:
            self.notes.append(text)

    def take(self) -> dict[str, Any]:
        """Everything since the last time, and forget it."""
        taken = self.as_json()
        self.counts, self.times, self.notes = {}, {}, []
        return taken

    def as_json(self) -> dict[str, Any]:
        return {"counts": self.counts, "times": self.times, "notes": self.notes}

    def add(self, other: dict[str, Any]) -> None:
        for second, counts in other["counts"].items():
            self.counts.setdefault(int(second), Counter()).update(counts)
        for second, kinds in other["times"].items():
            here = self.times.setdefault(int(second), {})
            for kind, buckets in kinds.items():
                here.setdefault(kind, Counter()).update({int(number): count for number, count in buckets.items()})
        for text in other["notes"]:
            self.note(text)

    # --- what came of it ---
    def total(self, name: str, seconds: Iterable[int] | None = None) -> int:
        """A count over all seconds, or over these."""
        chosen = self.counts if seconds is None else [second for second in seconds if second in self.counts]
        return sum(self.counts[second][name] for second in chosen)

    def names(self) -> list[str]:
        return sorted({name for counts in self.counts.values() for name in counts})

    def latencies(self, kind: str, seconds: Iterable[int] | None = None) -> Counter[int]:
        chosen = self.times if seconds is None else [second for second in seconds if second in self.times]
        merged: Counter[int] = Counter()
        for second in chosen:
            merged.update(self.times[second].get(kind, {}))
        return merged

    def kinds(self) -> list[str]:
        return sorted({kind for kinds in self.times.values() for kind in kinds})
