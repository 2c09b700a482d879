"""Patterns and what they are compared with."""

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgecache._native import probe
from edgecache._native.arena import Arena
from edgecache.config.dialects import DialectsConfig
from edgecache.purge import bans
from edgecache.purge.audit import summary
from edgecache.purge.bans import ANY_QUERY, BUDGET_S, Bans, carry_out, newest_first
from edgecache.purge.frames import order_of, order_text
from edgecache.purge.message import PurgeError, PurgeKind, PurgeOrder, UrlPattern
from edgecache.purge.patterns import check_enabled
from edgecache.purge.tags import check_order, object_tags
from edgecache.store.memory import MemoryStore, Record


def make() -> Arena:
    return Arena(1 << 20, max_object=8 << 10, purge_slots=256)


def order(*given: UrlPattern, soft: bool = False) -> PurgeOrder:
    return PurgeOrder(patterns=given, kind=PurgeKind.SOFT if soft else PurgeKind.HARD)


def tags_of(url: str) -> tuple[int, ...]:
    return object_tags(cache_key=url, site="default", surrogate_keys=())


def verdict(url: str | None, *given: UrlPattern, soft: bool = False, tags_url: str = "http://a.example/x") -> int:
    """0 valid, 1 soft-purged, 2 hard-purged: what was filled before."""
    arena = make()
    carry_out(arena, order(*given, soft=soft), (), now=0.0, match=True)
    tags = tags_of(tags_url if url is None else url.removesuffix(ANY_QUERY))
    Bans(arena).settle(url, tags, 0)
    return arena.purged(0, tags)


@pytest.mark.parametrize(
    ("pattern", "url", "matches"),
    [
        pytest.param(UrlPattern(r"\.png$"), "http://a.example/i/x.png", True, id="suffix"),
        pytest.param(UrlPattern(r"\.png$"), "http://a.example/i/x.png?v=1", False, id="query-is-part-of-it"),
        pytest.param(UrlPattern(r"\?.*v=1"), "http://a.example/i/x.png?v=1", True, id="query"),
        pytest.param(UrlPattern("^/blog"), "http://a.example/blogger", True, id="anchored"),
        pytest.param(UrlPattern("^/blog"), "http://a.example/a/blog", False, id="not-in-the-middle"),
        pytest.param(UrlPattern("blog"), "http://a.example/a/blog/1", True, id="anywhere"),
        pytest.param(UrlPattern("a.example"), "http://a.example/", False, id="host-is-no-part-of-it"),
        pytest.param(UrlPattern("/x", "a.example"), "https://a.example:8443/x", True, id="host-whatever-port"),
        pytest.param(UrlPattern("/x", "A.Example"), "http://a.example/x", True, id="host-in-capitals"),
        pytest.param(UrlPattern("/x", "a.example:80"), "http://a.example/x", True, id="host-given-with-port"),
        pytest.param(UrlPattern("/x", "b.example"), "http://a.example/x", False, id="other-host"),
        pytest.param(UrlPattern("/x", "[::1]"), "http://[::1]:81/x", True, id="address"),
        pytest.param(UrlPattern("/X"), "http://a.example/x", False, id="case"),
        pytest.param(UrlPattern("(?i)/X"), "http://a.example/x", True, id="case-left-out"),
        pytest.param(UrlPattern("/x"), None, True, id="unknown-url"),
        pytest.param(UrlPattern("/x$"), "http://a.example/y?q" + ANY_QUERY, True, id="answers-more-urls"),
        pytest.param(UrlPattern("/y", "b.example"), "http://a.example/y" + ANY_QUERY, False, id="but-not-its-host"),
        pytest.param(UrlPattern("%C3%A9"), "http://a.example/%C3%A9", True, id="encoded"),
    ],
)
def test_what_matches(pattern: UrlPattern, url: str | None, matches: bool) -> None:
    assert verdict(url, pattern) == (2 if matches else 0)
    assert verdict(url, pattern, soft=True) == (1 if matches else 0)


def test_the_newest_hard_and_the_newest_soft_one_count() -> None:
    arena = make()
    url = "http://a.example/x"
    tags = tags_of(url)
    numbers = [
        carry_out(arena, order(UrlPattern(text), soft=soft), (), now=0.0, match=True).sequence
        for text, soft in (("/x", False), ("/x", True), ("/x", False), ("/x", True), ("/y", False))
    ]
    found = Bans(arena)
    assert found.settle(url, tags, 0) == numbers[-1]
    assert arena.purged(numbers[1], tags) == 2
    assert arena.purged(numbers[2], tags) == 1
    assert arena.purged(numbers[3], tags) == 0


def test_only_newer_patterns_are_compared() -> None:
    arena = make()
    told: list[bool] = []
    found = Bans(arena, tell=lambda matched, _: told.append(matched))
    tags = tags_of("http://a.example/x")
    number = carry_out(arena, order(UrlPattern("/x")), (), now=0.0, match=True).sequence
    found.settle("http://a.example/x", tags, number)
    assert told == []
    found.settle("http://a.example/x", tags, number - 1)
    found.settle("http://a.example/x", tags, number - 1)
    assert told == [True], "known from the first time"


@pytest.mark.parametrize(
    ("text", "long"),
    [("(a+)+$", 8000), ("(x+x+)+y", 8000), ("(a|aa)+$", 8000), ("(a?){500}b", 8000), ("(.*a.{300}b)$", 8000)],
)
def test_no_pattern_runs_away(text: str, long: int) -> None:
    """A backtracking matcher would take years over most of these."""
    arena = make()
    carry_out(arena, order(UrlPattern(text)), (), now=0.0, match=True)
    url = f"http://a.example/{'a' * long}!"
    begun = time.process_time()
    Bans(arena).settle(url, tags_of(url), 0)
    assert time.process_time() - begun < 0.1


def test_what_takes_too_long_counts_as_matching() -> None:
    arena = make()
    told: list[tuple[bool, int]] = []
    carry_out(arena, order(UrlPattern("(a?){500}b")), (), now=0.0, match=True)
    url = f"http://a.example/{'a' * 4000}"
    Bans(arena, tell=lambda *said: told.append(said)).settle(url, tags_of(url), 0)
    assert told == [(True, 1)]
    assert arena.purged(0, tags_of(url)) == 2


def test_all_patterns_together_have_a_budget() -> None:
    arena = make()
    times = iter([0.0, BUDGET_S / 2, BUDGET_S * 2])
    told: list[tuple[bool, int]] = []
    carry_out(arena, order(*(UrlPattern(f"/never{i}") for i in range(30))), (), now=0.0, match=True)
    found = Bans(arena, tell=lambda *said: told.append(said), clock=lambda: next(times))
    found.settle("http://a.example/x", tags_of("http://a.example/x"), 0)
    assert told == [(True, 1)], "the first that is not decided settles it"


@pytest.mark.parametrize(
    ("pattern", "path", "words"),
    [
        pytest.param(UrlPattern("("), "patterns[0].url", "missing )", id="not-closed"),
        pytest.param(UrlPattern("(?!a)b"), "patterns[0].url", "(?!", id="look-around"),
        pytest.param(UrlPattern(r"(a)\1"), "patterns[0].url", "\\1", id="back-reference"),
        pytest.param(UrlPattern("(((a{1,100}){100}){100})"), "patterns[0].url", "", id="too-large-inside"),
        pytest.param(UrlPattern(""), "patterns[0].url", "1 to 1024", id="empty"),
        pytest.param(UrlPattern("a" * 1025), "patterns[0].url", "1 to 1024", id="too-long"),
        pytest.param(UrlPattern("\u00e9"), "patterns[0].url", "ASCII", id="not-ascii"),
        pytest.param(UrlPattern("a\0b"), "patterns[0].url", "printable", id="nul"),
        pytest.param(UrlPattern("a", "http://x/"), "patterns[0].host", "without scheme", id="host"),
        pytest.param(UrlPattern("a", ""), "patterns[0].host", "name or an address", id="no-host"),
    ],
)
def test_refused_when_ordered(pattern: UrlPattern, path: str, words: str) -> None:
    with pytest.raises(PurgeError) as refused:
        check_order(order(pattern))
    assert (refused.value.path, refused.value.status) == (path, 400)
    assert words in refused.value.detail


def test_refused_unless_enabled() -> None:
    with pytest.raises(PurgeError, match=r"set purge\.dialects\.patterns to match"):
        check_enabled(order(UrlPattern("a")), enabled=False, setting="purge.dialects.patterns")
    check_enabled(order(UrlPattern("a")), enabled=True, setting="")
    check_enabled(PurgeOrder(urls=("http://a/",)), enabled=False, setting="")


def test_at_most_a_thousand_in_one_order() -> None:
    with pytest.raises(PurgeError) as refused:
        check_order(order(*(UrlPattern(str(i)) for i in range(1001))))
    assert refused.value.status == 413


@pytest.mark.parametrize("without", ["setting", "library"])
@pytest.mark.parametrize(
    ("host", "gone"), [("a.example", ["http://a.example/1"]), (None, ["http://a.example/1", "http://b.example/1"])]
)
def test_widened_where_nothing_is_compared(
    without: str, host: str | None, gone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if without == "library":
        monkeypatch.setattr(bans, "installed", lambda: False)
    arena = make()
    message = carry_out(arena, order(UrlPattern("/2", host)), (), now=0.0, match=without == "library")
    assert arena.newest_pattern() == 0
    assert (message.patterns, message.everything) == ((), host is None)
    for url in ("http://a.example/1", "http://b.example/1"):
        assert arena.purged(0, tags_of(url)) == (2 if url in gone else 0)


def test_what_cannot_be_read_here_matches_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the library was removed under a running edge."""
    arena = make()
    carry_out(arena, order(UrlPattern("/2", "a.example")), (), now=0.0, match=True)
    monkeypatch.setattr(bans, "installed", lambda: False)
    found = Bans(arena)
    for url, state in (("http://a.example/1", 2), ("http://b.example/1", 0)):
        found.settle(url, tags_of(url), 0)
        assert arena.purged(0, tags_of(url)) == state


def test_as_the_audit_record_says() -> None:
    kind, count, text = summary(order(UrlPattern("/a", "h"), UrlPattern("/b"), soft=True))
    assert (kind, count, text) == ("soft", 2, "patterns: h ~ /a, * ~ /b")


def test_the_library_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecache.config.dialects.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r"pip install 'edgecache\[patterns\]'"):
        DialectsConfig(patterns="match")
    assert DialectsConfig(patterns="widen").patterns == "widen"


def test_as_shown_to_operators() -> None:
    arena = make()
    carry_out(arena, order(UrlPattern("/a", "h")), (), now=0.0, match=True)
    carry_out(arena, order(UrlPattern("/b"), soft=True), (), now=0.0, match=True)
    assert newest_first((arena.patterns() or (0, 0, []))[2]) == [
        {"sequence": 2, "host": None, "url": "/b", "soft": True},
        {"sequence": 1, "host": "h", "url": "/a", "soft": False},
    ]


def test_softened_tags_are_taken_once() -> None:
    arena = make()
    found = Bans(arena)
    found.keeps_softened = True
    number = carry_out(arena, order(UrlPattern("/x"), soft=True), (), now=0.0, match=True).sequence
    tags = tags_of("http://a.example/x")
    found.settle("http://a.example/x", tags, 0)
    taken = found.take_softened()
    assert taken == {number: [tags[0]]}
    assert found.take_softened() == {}
    found.give_back(taken)
    assert found.take_softened() == taken


def test_the_wire_format() -> None:
    given_order = PurgeOrder(keys=("k",), patterns=(UrlPattern("\\.png$"), UrlPattern("^/a", "h")))
    assert order_of(order_text(given_order)) == given_order
    assert '"patterns":[{"url":"\\\\.png$"},{"url":"^/a","host":"h"}]' in order_text(given_order)
    assert "patterns" not in order_text(PurgeOrder(keys=("k",)))


# --- against a plain model: every purge is remembered, and every entry compared with all of them each time ---

URLS = [f"http://{host}/{path}" for host in ("a", "b") for path in ("x", "y", "x/y", "y?q=x")]
TEXTS = ["x", "^/x", "y$", "q", "^/$", "x|y", "/y.q"]
STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(URLS), st.integers(0, 3)),
    st.tuples(st.just("get"), st.sampled_from(URLS), st.booleans()),
    st.tuples(st.just("ban"), st.sampled_from(TEXTS), st.sampled_from([None, "a", "b"]), st.booleans()),
    st.tuples(st.just("purge"), st.sampled_from(URLS), st.booleans()),
    st.tuples(st.just("end")),
)


class Plain:
    """What is stored, and what is to be found."""

    def __init__(self) -> None:
        self.stored: dict[str, int] = {}
        self.purges: list[tuple[int, str, str | None, bool]] = []
        self.retired = 0

    def state(self, url: str, fill_seq: int) -> int:
        host, _, rest = url.partition("://")[2].partition("/")
        hits = [
            1 if soft else 2
            for number, text, on, soft in self.purges
            if number > fill_seq and on in {None, host} and re.search(text, f"/{rest}")
        ]
        return max(hits, default=0)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_as_a_plain_model_says(steps: list[tuple[Any, ...]]) -> None:
    arena = make()
    store = MemoryStore(arena, bytes(16))
    store.stored_url = lambda meta: meta.decode()
    plain = Plain()
    for step in steps:
        match step:
            case ("put", url, late):
                fill_seq = max(arena.sequence() - late, 0)
                record = Record(b"", url.encode(), 1.0, 2e9, 0.0, 0, 200, fill_seq, tags_of(url))
                taken = store.put(store.key(url), record, [b"body"])
                state = plain.state(url, fill_seq)
                if taken:
                    plain.stored[url] = fill_seq
                else:
                    assert state or fill_seq < plain.retired, "refused for nothing"
            case ("get", url, peek):
                found = (store.peek if peek else store.get)(store.key(url))
                fill = plain.stored.get(url)
                expected = 2 if fill is None else plain.state(url, fill)
                assert (found is None) == (expected == 2), (url, expected)
                if found is not None:
                    assert found.soft_purged == (expected == 1)
                elif not peek:
                    plain.stored.pop(url, None)
                assert probe_agrees(arena, store.key(url), expected)
            case ("ban", text, host, soft):
                number = carry_out(arena, order(UrlPattern(text, host), soft=soft), (), now=0.0, match=True).sequence
                plain.purges.append((number, text, host, soft))
            case ("purge", url, soft):
                number = arena.append_purge(tags_of(url)[:1], soft=soft)
                host, _, rest = url.partition("://")[2].partition("/")
                plain.purges.append((number, f"^{re.escape('/' + rest)}$", host, soft))
            case ("end",):
                through = arena.newest_pattern()
                arena.retire_patterns(through, forgotten=False)
                for shard in range(arena.shards):
                    for found_key in arena.unresolved_keys(shard, 0, 1 << 30)[0]:
                        store.peek(found_key)
                arena.retire_patterns(through, forgotten=True)
                plain.retired = max(plain.retired, through)
    arena.check()


def probe_agrees(arena: Arena, key: bytes, expected: int) -> bool:
    """The fast lane hits what is valid, and nothing else."""
    return (probe.lookup(arena, key, 1.0, 0, True, 1 << 16, 0)[0] == 2) <= (expected == 0)
