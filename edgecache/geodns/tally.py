"""What is counted: answers by reason, by PoP and by country, and what became of packets.

Counts stand in a row of numbers whose meaning is fixed by the configuration's PoPs; each process has a row of its own
in shared memory, and whoever shows them adds the rows up.
"""

import mmap
from collections.abc import Iterator, Sequence
from typing import Final

from edgecache._native.dnsudp import COUNTERS
from edgecache.geodns.answer import Choice, Reason
from edgecache.geodns.countries import COUNTRIES
from edgecache.geodns.query import Rcode

ROWS: Final = 64
REASONS: Final = tuple(Reason)
RCODES: Final = tuple(Rcode)
COUNTRY_NAMES: Final = ("", *sorted(COUNTRIES))
_COUNTRY_INDEX: Final = {name: index for index, name in enumerate(COUNTRY_NAMES)}
TCP: Final = ("tcp_connections", "tcp_refused", "tcp_queries", "tcp_timed_out")
OTHER_POP: Final = "other"
MOST_POPS: Final = 1000


class Layout:
    """Where which count is. PoPs keep their places over reloads; a new one takes the next."""

    def __init__(self) -> None:
        self._pops: dict[str, int] = {}
        self.reasons = 0
        self.rcodes = len(REASONS)
        self.udp = self.rcodes + len(RCODES)
        self.tcp = self.udp + len(COUNTERS)
        self.countries = self.tcp + len(TCP)
        self.pops = self.countries + len(COUNTRY_NAMES)
        self.size = self.pops + MOST_POPS + 1

    def pop(self, name: str) -> int:
        place = self._pops.setdefault(name, len(self._pops))
        return self.pops + min(place, MOST_POPS)

    def country(self, code: str) -> int:
        return self.countries + _COUNTRY_INDEX.get(code, 0)

    def reason(self, reason: Reason) -> int:
        return self.reasons + REASONS.index(reason)

    def named(self) -> Iterator[tuple[str, dict[str, str], int]]:
        """(family of metrics, labels, place) of all there are."""
        for k, reason in enumerate(REASONS):
            yield "geo_answers", {"reason": reason.value}, self.reasons + k
        for k, rcode in enumerate(RCODES):
            yield "slow_answers", {"rcode": rcode.name}, self.rcodes + k
        for k, name in enumerate(COUNTERS):
            yield "udp_packets", {"outcome": name}, self.udp + k
        for k, name in enumerate(TCP):
            yield "tcp", {"event": name.removeprefix("tcp_")}, self.tcp + k
        for k, name in enumerate(COUNTRY_NAMES):
            yield "country_answers", {"country": name or "unknown"}, self.countries + k
        for name in self._pops:
            yield "pop_answers", {"pop": name}, self.pop(name)


class Rows:
    """All processes' counts, in memory they share."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._memory = mmap.mmap(-1, ROWS * layout.size * 8)
        self._all = memoryview(self._memory).cast("Q")

    def row(self, process: int) -> memoryview:
        """Of the process in this slot. It goes on where the last one there stopped."""
        size = self.layout.size
        return self._all[process * size : (process + 1) * size]

    def total(self, place: int) -> int:
        return sum(self._all[place :: self.layout.size])


class Tally:
    """Counts for one process."""

    def __init__(self, layout: Layout, row: memoryview, pops: Sequence[str], countries: Sequence[str]) -> None:
        self.layout = layout
        self.row = row
        self.pops = [layout.pop(name) for name in pops]
        self.countries = [layout.country(code) for code in countries]
        self._seen: dict[int, int] = {}

    def answered(self, choice: Choice | None, country: int, rcode: Rcode) -> None:
        """By the ordinary path."""
        self.row[self.layout.rcodes + RCODES.index(rcode)] += 1
        if choice is not None:
            self.row[self.layout.reason(choice.reason)] += 1
            self.row[self.countries[country]] += 1
            if choice.pops:
                self.row[self.pops[choice.pops[0]]] += 1

    def tcp(self, what: str) -> None:
        self.row[self.layout.tcp + TCP.index(what)] += 1

    def follow(self, key: int, place: int, value: int) -> None:
        """Something else counts too (`key` names it): what it came to since it was last looked at is added."""
        self.row[place] += value - self._seen.get(key, 0)
        self._seen[key] = value

    def forget(self, first: int) -> None:
        """Those with keys from `first` on begin again at 0."""
        self._seen = {key: value for key, value in self._seen.items() if key < first}
