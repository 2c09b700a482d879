"""Counting finished requests, and showing the counts: Prometheus text and the summary behind `edgecache stats`.

Counting is a handful of integer additions per request (`slots` says where); everything else happens when somebody
asks. Label values come from the configuration and from fixed sets, never from a request, so their number is bounded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from edgecache.observe.events import SERVED_FROM_CACHE, ExchangeFinished, Outcome
from edgecache.observe.slots import (
    ABORTED,
    BOUNDS_S,
    BUCKETS,
    BYTES_IN,
    BYTES_OUT,
    CELL,
    CLASSES,
    ORIGIN,
    OTHER,
    OUTCOMES,
    Counters,
    Layout,
    NodeSlot,
    bucket,
    cell,
)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_INDEX = {outcome: index for index, outcome in enumerate(OUTCOMES)}
_CLASS_NAMES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_LE = tuple(f"{bound:.6f}".rstrip("0") for bound in BOUNDS_S)

_NODE_HELP: dict[NodeSlot, tuple[str, str]] = {
    NodeSlot.LOG_DROPPED: ("access_log_dropped_lines", "Access log lines lost to overload or a failing disk."),
    NodeSlot.CLIENT_ACCEPTED: ("client_accepted", "Client connections accepted."),
    NodeSlot.CLIENT_OVER_LIMIT: ("client_over_limit", "Client connections answered 503, beyond limits.connections."),
    NodeSlot.CLIENT_NO_DESCRIPTORS: (
        "client_no_descriptors",
        "Client connections answered 503, or closed, for lack of file descriptors.",
    ),
    NodeSlot.CLIENT_MALFORMED: ("client_malformed", "Requests whose framing could not be trusted."),
    NodeSlot.CLIENT_TIMED_OUT: ("client_timed_out", "Clients cut off for being slow to ask."),
    NodeSlot.CLIENT_STALLED: ("client_stalled", "Clients cut off for not taking their answer."),
    NodeSlot.PROCESSES_DIED: ("processes_died", "Processes that ended without being told to, and were replaced."),
    NodeSlot.RELOADS: ("reloads", "Configurations taken over by SIGHUP."),
    NodeSlot.RELOADS_REFUSED: ("reloads_refused", "Configurations that SIGHUP found wrong, and left alone."),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure some other part of the house keeps: read when metrics are asked for."""

    name: str
    """Without the "edgecache_" in front or the "_total" behind."""
    help: str
    value: float
    counter: bool = False
    """It only grows; else a gauge."""


class Recorder:
    """Counts finished exchanges."""

    def __init__(self, counters: Counters, layout: Layout) -> None:
        self._add = counters.add
        self._layout = layout

    def record(self, event: ExchangeFinished) -> None:
        add = self._add
        block = self._layout.block(event.site)
        at = block + cell(_INDEX[event.outcome], event.status)
        microseconds = int(event.duration_s * 1e6 + 0.5)  # never below 0, as the teller sees to
        add(at + bucket(microseconds))
        add(at + BUCKETS, microseconds)
        if event.bytes_in:
            add(block + BYTES_IN, event.bytes_in)
        if event.bytes_out:
            add(block + BYTES_OUT, event.bytes_out)
        if event.origin_s is not None:
            microseconds = max(int(event.origin_s * 1e6 + 0.5), 0)
            add(block + ORIGIN + bucket(microseconds))
            add(block + ORIGIN + BUCKETS, microseconds)
        if event.aborted:
            add(block + ABORTED)

    def count(self, slot: NodeSlot, amount: int = 1) -> None:
        """Count something of the whole node."""
        self._add(slot, amount)


class Reader:
    """Reads what the recorders of all processes counted."""

    def __init__(
        self, counters: Counters, layout: Layout, figures: Sequence[Callable[[], Iterable[Figure]]] = ()
    ) -> None:
        self._counters = counters
        self._layout = layout
        self._figures = figures

    def exposition(self) -> bytes:
        """Prometheus text format 0.0.4."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(self.families))
        return generate_latest(registry)

    def summary(self) -> dict[str, Any]:
        """Requests, hit ratio, octets and latency, in all and per site (see docs/operations.md)."""
        sites = {site: self._tally(site) for site in self._labels()}
        total = _Tally()
        for tally in sites.values():
            total.merge(tally)
        return {**total.summary(), "sites": {site: tally.summary() for site, tally in sites.items()}}

    def _labels(self) -> tuple[str, ...]:
        """Of the sites, and of their common block where anything was counted in it."""
        labels = self._layout.labels
        if OTHER in labels or not self._layout.common or not any(self.cells(OTHER)):
            return labels
        return (*labels, OTHER)

    def node(self, slot: NodeSlot) -> int:
        return self._counters.read(slot)

    def histogram(self, at: int) -> tuple[list[int], int]:
        """Bucket counts and the sum in microseconds of the cell that begins here."""
        read = self._counters.read
        return [read(at + k) for k in range(BUCKETS)], read(at + BUCKETS)

    def cells(self, site: str) -> Iterator[tuple[Outcome, str, list[int], int]]:
        """The cells of a site in which anything was counted."""
        block = self._layout.block(site)
        for index, outcome in enumerate(OUTCOMES):
            for number, name in enumerate(_CLASS_NAMES):
                buckets, total = self.histogram(block + (index * CLASSES + number) * CELL)
                if any(buckets):
                    yield outcome, name, buckets, total

    def _tally(self, site: str) -> "_Tally":
        tally = _Tally()
        for outcome, status, buckets, _ in self.cells(site):
            requests = sum(buckets)
            tally.outcomes[outcome] += requests
            tally.statuses[status] = tally.statuses.get(status, 0) + requests
            tally.durations = [a + b for a, b in zip(tally.durations, buckets, strict=True)]
        block = self._layout.block(site)
        tally.origin = self.histogram(block + ORIGIN)[0]
        tally.bytes_in = self._counters.read(block + BYTES_IN)
        tally.bytes_out = self._counters.read(block + BYTES_OUT)
        tally.aborted = self._counters.read(block + ABORTED)
        return tally

    def families(self) -> Iterator[Metric]:
        labels = ["site", "outcome", "status"]
        requests = CounterMetricFamily("edgecache_requests", "Requests answered.", labels=labels)
        durations = HistogramMetricFamily(
            "edgecache_request_duration_seconds", "From a request's head to the end of its response.", labels=labels
        )
        origins = HistogramMetricFamily(
            "edgecache_origin_duration_seconds", "From a request to the origin to its response head.", labels=["site"]
        )
        received = CounterMetricFamily("edgecache_received_bytes", "Octets of request bodies.", labels=["site"])
        sent = CounterMetricFamily("edgecache_sent_bytes", "Octets of response bodies.", labels=["site"])
        aborted = CounterMetricFamily("edgecache_aborted", "Responses cut off before their end.", labels=["site"])
        for site in self._labels():
            for outcome, status, buckets, total in self.cells(site):
                values = [site, outcome.value, status]
                requests.add_metric(values, sum(buckets))
                durations.add_metric(values, _cumulative(buckets), total / 1e6)
            block = self._layout.block(site)
            buckets, total = self.histogram(block + ORIGIN)
            origins.add_metric([site], _cumulative(buckets), total / 1e6)
            received.add_metric([site], self._counters.read(block + BYTES_IN))
            sent.add_metric([site], self._counters.read(block + BYTES_OUT))
            aborted.add_metric([site], self._counters.read(block + ABORTED))
        yield from (requests, durations, origins, received, sent, aborted)
        for slot, (name, text) in _NODE_HELP.items():
            yield CounterMetricFamily(f"edgecache_{name}", text, value=self._counters.read(slot))
        for source in self._figures:
            yield from map(_family, source())


class _Families(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def expose(figures: Iterable[Figure]) -> bytes:
    """Figures alone, of a process that answers no clients: Prometheus text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(lambda: map(_family, figures)))
    return generate_latest(registry)


Labelled = tuple[str, dict[str, str], float]
"""(name, labels, value) of a counter or gauge with several members."""


def expose_labelled(members: Iterable[Labelled], helps: dict[str, str], figures: Iterable[Figure] = ()) -> bytes:
    """The same with families of counters, grouped by name. `helps`: what each family says; names in it only grow."""
    families: dict[str, CounterMetricFamily] = {}
    for name, labels, value in members:
        if name not in families:
            families[name] = CounterMetricFamily(f"edgecache_{name}", helps[name], labels=list(labels))
        families[name].add_metric(list(labels.values()), value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(lambda: [*families.values(), *map(_family, figures)]))
    return generate_latest(registry)


def _family(figure: Figure) -> Metric:
    family = CounterMetricFamily if figure.counter else GaugeMetricFamily
    return family(f"edgecache_{figure.name}", figure.help, value=figure.value)


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    seen, rows = 0, []
    for le, count in zip((*_LE, "+Inf"), buckets, strict=True):
        seen += count
        rows.append((le, float(seen)))
    return rows


def quantile_s(buckets: Sequence[int], q: float) -> float | None:
    """An estimate, by straight lines within a bucket; None where nothing was counted. The last bucket counts as its
    lower bound."""
    total = sum(buckets)
    if not total:
        return None
    rank, seen = q * total, 0
    for k, count in enumerate(buckets):
        if count and seen + count >= rank:
            low = BOUNDS_S[k - 1] if k else 0.0
            high = BOUNDS_S[k] if k < len(BOUNDS_S) else low
            return low + (high - low) * max(0.0, rank - seen) / count
        seen += count
    return BOUNDS_S[-1]


class _Tally:
    """The sums behind a summary."""

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.statuses: dict[str, int] = {}
        self.durations = [0] * BUCKETS
        self.origin = [0] * BUCKETS
        self.bytes_in = 0
        self.bytes_out = 0
        self.aborted = 0

    def merge(self, other: "_Tally") -> None:
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] += count
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        self.durations = [a + b for a, b in zip(self.durations, other.durations, strict=True)]
        self.origin = [a + b for a, b in zip(self.origin, other.origin, strict=True)]
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.aborted += other.aborted

    def summary(self) -> dict[str, Any]:
        total = sum(self.outcomes.values())
        cached = sum(self.outcomes[outcome] for outcome in SERVED_FROM_CACHE)
        considered = total - self.outcomes[Outcome.REJECTED]
        return {
            "requests": {
                "total": total,
                "by_outcome": {outcome.value: count for outcome, count in self.outcomes.items()},
                "by_status": dict(sorted(self.statuses.items())),
                "aborted": self.aborted,
            },
            "hit_ratio": cached / considered if considered else None,
            "bytes": {"received": self.bytes_in, "sent": self.bytes_out},
            "latency_ms": _quantiles_ms(self.durations),
            "origin_latency_ms": {"requests": sum(self.origin), **_quantiles_ms(self.origin)},
        }


def _quantiles_ms(buckets: Sequence[int]) -> dict[str, float | None]:
    found = {name: quantile_s(buckets, q) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    return {name: None if value is None else round(value * 1000, 3) for name, value in found.items()}
