import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edgecache.observe import slots
from edgecache.observe.events import Outcome
from edgecache.observe.metrics import Figure, Reader, Recorder, quantile_s
from edgecache.observe.slots import ArenaCounters, Layout, LocalCounters, NodeSlot, bucket, cell
from tests.observe.sample import sample


def made(sites: tuple[str, ...] = ("shop", "blog")) -> tuple[Recorder, Reader, LocalCounters, Layout]:
    layout = Layout(sites)
    counters = LocalCounters(layout.slots)
    return Recorder(counters, layout), Reader(counters, layout), counters, layout


def families(reader: Reader) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample of the exposition, by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(reader.exposition().decode()):
        for one in family.samples:
            found.setdefault(one.name, {})[tuple(sorted(one.labels.items()))] = one.value
    return found


@pytest.mark.parametrize(
    ("microseconds", "number"),
    [
        (0, 0),
        (1, 0),
        (32, 0),
        (33, 1),
        (64, 1),
        (65, 2),
        (128, 2),
        (1000, 5),
        (8388608, 18),
        (8388609, 19),
        (10**12, 19),
        (-5, 0),
    ],
)
def test_buckets(microseconds: int, number: int) -> None:
    assert bucket(microseconds) == number


@given(st.integers(0, 10**9))
def test_a_bucket_holds_what_its_bounds_say(microseconds: int) -> None:
    number = bucket(microseconds)
    if number < len(slots.BOUNDS_S):
        assert microseconds <= slots.BOUNDS_S[number] * 1e6 + 1e-6
    if number:
        assert microseconds > slots.BOUNDS_S[number - 1] * 1e6 - 1e-6


def test_no_two_figures_share_a_slot() -> None:
    layout = Layout(("a", "b"))
    used: list[int] = list(range(slots.SITES_AT))
    for site in ("a", "b"):
        block = layout.block(site)
        for index in range(slots.MAX_OUTCOMES):
            for status in (0, 100, 200, 300, 400, 500):
                at = block + cell(index, status)
                used += range(at, at + slots.CELL)
        used += range(block + slots.ORIGIN, block + slots.ORIGIN + slots.CELL)
        used += [block + slots.BYTES_IN, block + slots.BYTES_OUT, block + slots.ABORTED]
    assert sorted(used) == list(range(layout.slots))


@pytest.mark.parametrize(
    ("status", "same_as"), [(0, 0), (99, 0), (600, 0), (999, 0), (204, 200), (418, 400), (599, 500)]
)
def test_statuses_fall_into_classes(status: int, same_as: int) -> None:
    assert cell(0, status) == cell(0, same_as)


def test_what_is_recorded_is_what_is_shown() -> None:
    recorder, reader, *_ = made()
    recorder.record(sample(duration_s=0.0005, bytes_out=1000))
    recorder.record(sample(duration_s=0.0005, bytes_out=24, bytes_in=7))
    recorder.record(sample(outcome=Outcome.MISS, status=404, duration_s=2.0, origin_s=1.5, site="blog", aborted=True))
    recorder.count(NodeSlot.LOG_DROPPED, 3)
    found = families(reader)
    hit = (("outcome", "hit"), ("site", "shop"), ("status", "2xx"))
    miss = (("outcome", "miss"), ("site", "blog"), ("status", "4xx"))
    assert found["edgecache_requests_total"] == {hit: 2, miss: 1}
    assert found["edgecache_request_duration_seconds_count"] == {hit: 2, miss: 1}
    assert found["edgecache_request_duration_seconds_sum"][miss] == 2.0
    buckets = found["edgecache_request_duration_seconds_bucket"]
    cumulative = {labels[0][1]: count for labels, count in buckets.items() if labels[1:] == hit}
    assert cumulative["0.000256"] == 0
    assert cumulative["0.000512"] == cumulative["8.388608"] == cumulative["+Inf"] == 2
    assert found["edgecache_sent_bytes_total"] == {(("site", "shop"),): 1024, (("site", "blog"),): 1024}
    assert found["edgecache_received_bytes_total"][("site", "shop"),] == 7
    assert found["edgecache_origin_duration_seconds_count"] == {(("site", "shop"),): 0, (("site", "blog"),): 1}
    assert found["edgecache_aborted_total"][("site", "blog"),] == 1
    assert found["edgecache_access_log_dropped_lines_total"] == {(): 3}


def test_figures_of_other_parts_are_shown_too() -> None:
    layout = Layout(("a",))
    figures = [lambda: [Figure("memory_objects", "Objects.", 7), Figure("evictions", "Evicted.", 9, counter=True)]]
    found = families(Reader(LocalCounters(layout.slots), layout, figures))
    assert found["edgecache_memory_objects"] == {(): 7}
    assert found["edgecache_evictions_total"] == {(): 9}


def test_labels_are_bounded() -> None:
    names = tuple(f"site-{n}" for n in range(slots.MAX_SITES + 10))
    recorder, reader, _, layout = made(names)
    for name in names:
        recorder.record(sample(site=name))
    recorder.record(sample(site="never-configured"))
    assert layout.slots == slots.SITES_AT + (slots.MAX_SITES + 1) * slots.SITE_SLOTS
    found = families(reader)["edgecache_requests_total"]
    assert len(found) == slots.MAX_SITES + 1
    assert found[("outcome", "hit"), ("site", "other"), ("status", "2xx")] == 11


def test_a_sites_name_cannot_break_the_exposition() -> None:
    recorder, reader, *_ = made(('a"b\\c\nd',))
    recorder.record(sample(site='a"b\\c\nd'))
    assert (("outcome", "hit"), ("site", 'a"b\\c\nd'), ("status", "2xx")) in families(reader)[
        "edgecache_requests_total"
    ]


def test_counters_in_shared_memory_are_read_as_they_are_written() -> None:
    class Arena:
        def __init__(self) -> None:
            self.slots: dict[int, int] = {}

        def add(self, counter: int, amount: int = 1) -> None:
            self.slots[counter] = self.slots.get(counter, 0) + amount

        def counter(self, counter: int) -> int:
            return self.slots.get(counter, 0)

    layout, arena = Layout(("shop",)), Arena()
    Recorder(ArenaCounters(arena), layout).record(sample())
    Recorder(ArenaCounters(arena), layout).record(sample())
    assert Reader(ArenaCounters(arena), layout).summary()["requests"]["total"] == 2


def test_the_summary() -> None:
    recorder, reader, *_ = made()
    assert reader.summary()["hit_ratio"] is None
    assert reader.summary()["latency_ms"] == {"p50": None, "p90": None, "p99": None}
    for outcome in (Outcome.HIT, Outcome.STALE, Outcome.REVALIDATED, Outcome.COLLAPSED):
        recorder.record(sample(outcome=outcome))
    for outcome in (Outcome.MISS, Outcome.PASS, Outcome.ERROR):
        recorder.record(sample(outcome=outcome, status=502, site="blog", origin_s=0.01))
    recorder.record(sample(outcome=Outcome.REJECTED, status=400))
    found = reader.summary()
    assert found["requests"]["total"] == 8
    assert found["requests"]["by_outcome"]["hit"] == 1
    assert found["requests"]["by_status"] == {"2xx": 4, "4xx": 1, "5xx": 3}
    assert found["hit_ratio"] == pytest.approx(4 / 7)
    assert found["bytes"] == {"received": 0, "sent": 8 * 1024}
    assert found["sites"]["shop"]["hit_ratio"] == 1.0
    assert found["sites"]["blog"]["hit_ratio"] == 0.0
    assert found["origin_latency_ms"]["requests"] == 3
    assert 8.192 <= found["origin_latency_ms"]["p50"] <= 16.384


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_quantiles_are_within_their_bucket(q: float) -> None:
    rng = random.Random(1)
    times = sorted(rng.lognormvariate(-7, 1.5) for _ in range(5000))
    counts = [0] * slots.BUCKETS
    for time in times:
        counts[bucket(round(time * 1e6))] += 1
    estimate = quantile_s(counts, q)
    exact = times[int(q * len(times))]
    assert estimate is not None
    assert exact / 2 <= estimate <= exact * 2


def test_beyond_the_last_bound_a_quantile_is_that_bound() -> None:
    counts = [0] * slots.BUCKETS
    counts[-1] = 5
    assert quantile_s(counts, 0.5) == slots.BOUNDS_S[-1]


def test_sites_keep_their_figures_when_others_come_and_go() -> None:
    layout = Layout(("shop", "blog"), spare=2)
    before = {site: layout.block(site) for site in ("shop", "blog")}
    assert layout.extend(("blog", "new", "shop")) == ()
    assert {site: layout.block(site) for site in before} == before
    assert layout.extend(("newer", "newest")) == ("newest",)
    blocks = [layout.block(site) for site in ("shop", "blog", "new", "newer", "newest")]
    assert len(set(blocks)) == 5
    assert layout.labels == ("shop", "blog", "new", "newer", "other")
    assert max(blocks) + slots.SITE_SLOTS == layout.slots


def test_what_is_no_sites_is_shown_once_there_is_any() -> None:
    layout = Layout(("shop",), spare=1)
    counters = LocalCounters(layout.slots)
    reader = Reader(counters, layout)
    assert set(reader.summary()["sites"]) == {"shop"}
    Recorder(counters, layout).record(sample(site=""))
    assert set(reader.summary()["sites"]) == {"shop", "other"}
    assert reader.summary()["requests"]["total"] == 1


def test_what_a_process_has_open_goes_with_it() -> None:
    layout = Layout(("shop",))
    counters = LocalCounters(layout.slots)
    one, other = (slots.ProcessGauges(counters, process) for process in (3, slots.MAX_PROCESSES - 1))
    one.change(slots.Gauge.CONNECTIONS, 5)
    one.change(slots.Gauge.CONNECTIONS, -2)
    one.set(slots.Gauge.FILLS, 2)
    other.set(slots.Gauge.FILLS, 4)
    other.set(slots.Gauge.FILLS, 1)
    assert slots.gauge_total(counters, slots.Gauge.CONNECTIONS) == 3
    assert slots.gauge_total(counters, slots.Gauge.FILLS) == 3
    slots.gauges_clear(counters, 3)
    assert slots.gauge_total(counters, slots.Gauge.CONNECTIONS) == 0
    assert slots.gauge_total(counters, slots.Gauge.FILLS) == 1
