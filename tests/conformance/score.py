"""What the results of the public suite amount to: pure, from its JSON to a score, a table and a comparison.

A test counts as passed where it passed and everything it depends on did too, as on the suite's own pages.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

Outcome = bool | Sequence[str]
"""As the suite reports it: true, or the kind of failure and its message."""


class Kind(StrEnum):
    REQUIRED = "required"
    OPTIMAL = "optimal"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Test:
    __test__ = False  # not pytest's

    id: str
    group: str
    name: str
    kind: Kind
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests that apply to proxies, by id, in the suite's order."""

    tests: Mapping[str, Test]

    @classmethod
    def read(cls, suites: Sequence[Mapping[str, object]]) -> "Suite":
        found: dict[str, Test] = {}
        for suite in suites:
            tests = suite["tests"]
            assert isinstance(tests, list)
            for test in tests:
                if not test["browser"]:
                    found[test["id"]] = Test(
                        test["id"], str(suite["id"]), test["name"], Kind(test["kind"]), tuple(test["needs"])
                    )
        return cls(found)

    def of(self, kind: Kind, group: str | None = None) -> list[Test]:
        return [test for test in self.tests.values() if test.kind is kind and group in (None, test.group)]

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(test.group for test in self.tests.values()))


@dataclass(frozen=True, slots=True)
class Score:
    suite: Suite
    results: Mapping[str, Outcome]

    def passed(self, test_id: str) -> bool:
        test = self.suite.tests.get(test_id)
        return test is not None and self.results.get(test_id) is True and all(map(self.passed, test.needs))

    def why(self, test_id: str) -> str:
        """The reason of a failure, in one line."""
        outcome = self.results.get(test_id)
        if outcome is None:
            return "it did not run"
        if outcome is True:
            needs = [other for other in self.suite.tests[test_id].needs if not self.passed(other)]
            return f"passes, but depends on {', '.join(needs)}"
        assert not isinstance(outcome, bool)
        return ": ".join(outcome).strip()

    def count(self, kind: Kind, group: str | None = None) -> tuple[int, int]:
        """How many passed, of how many."""
        tests = self.suite.of(kind, group)
        return sum(self.passed(test.id) for test in tests), len(tests)

    def failing(self) -> list[Test]:
        """Every required and optimal test that does not pass."""
        return [test for test in self.suite.tests.values() if test.kind is not Kind.CHECK and not self.passed(test.id)]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is known to pass, and what was chosen where the suite only asks (`check`)."""

    edition: str
    passed: frozenset[str]
    chosen: Mapping[str, bool]

    @classmethod
    def of(cls, edition: str, score: Score) -> "Baseline":
        tests = score.suite.tests.values()
        return cls(
            edition,
            frozenset(test.id for test in tests if test.kind is not Kind.CHECK and score.passed(test.id)),
            {test.id: score.passed(test.id) for test in tests if test.kind is Kind.CHECK},
        )

    @classmethod
    def load(cls, path: Path) -> "Baseline":
        found = json.loads(path.read_text())
        return cls(found["edition"], frozenset(found["passed"]), found["chosen"])

    def save(self, path: Path) -> None:
        content = {
            "edition": self.edition,
            "passed": sorted(self.passed),
            "chosen": dict(sorted(self.chosen.items())),
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    def lost(self, score: Score) -> list[str]:
        """Tests that passed and do not any more."""
        return sorted(test_id for test_id in self.passed if not score.passed(test_id))

    def changed(self, score: Score) -> list[str]:
        """Choices that are another now."""
        return sorted(test_id for test_id, choice in self.chosen.items() if score.passed(test_id) is not choice)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another cache's totals, and where they are from."""

    name: str
    required: int
    optimal: int


DELIBERATE = {
    **dict.fromkeys(
        (
            *("age-parse-nonnumeric", "age-parse-negative", "age-parse-float", "age-parse-prefix-twoline"),
            *("age-parse-dup-0", "age-parse-dup-0-twoline", "age-parse-dup-old"),
            *("age-parse-parameter", "age-parse-numeric-parameter"),
        ),
        "RFC 9111 §5.1: the first Age counts, and what is no integer is ignored; newer editions ask for that",
    ),
    **dict.fromkeys(
        (
            *("stale-close-must-revalidate", "stale-close-proxy-revalidate"),
            *("stale-close-no-cache", "stale-close-s-maxage=2"),
        ),
        "the answer is a 502, nothing stale; this edition looks for a field that only the origin sends",
    ),
    "conditional-lm-fresh-no-lm": "RFC 9110 §13.1.3: by its Date it is newer than If-Modified-Since, so it is sent",
    **dict.fromkeys(
        ("headers-store-Set-Cookie", "304-etag-update-response-Set-Cookie", "other-set-cookie"),
        "safety: Set-Cookie is stored only with a word meant for shared caches",
    ),
    "headers-store-Transfer-Encoding": "safety: an unknown transfer coding is a 502",
}
"""Required and optimal tests that do not pass on purpose, and why; at length in docs/conformance.md."""

NEWEST = (160, 105)
"""Required and optimal tests of the suite's newest edition that apply to proxies."""

PUBLISHED = (
    Peer("Apache Traffic Server", 134, 73),
    Peer("Apache httpd", 131, 68),
    Peer("Squid", 121, 58),
    Peer("Caddy's cache", 121, 44),
    Peer("Varnish", 119, 45),
    Peer("nginx", 100, 58),
    Peer("Fastly", 96, 49),
    Peer("HAProxy", 89, 39),
)
"""Totals of others in that edition, measured or published."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one run has to say."""

    edition: str
    score: Score
    others: Sequence[tuple[str, Score]] = ()

    def lines(self) -> Iterator[str]:
        yield from self.by_group()
        yield ""
        yield from self.beside_others()
        for title, tests in (("Not passed", self.defects()), ("Not passed on purpose", self.deliberate())):
            if tests:
                yield ""
                yield f"{title}:"
            for test in tests:
                yield f"  {test.kind:8} {test.id}: {self.score.why(test.id)}"
                if test.id in DELIBERATE:
                    yield f"           {DELIBERATE[test.id]}"

    def defects(self) -> list[Test]:
        return [test for test in self.score.failing() if test.id not in DELIBERATE]

    def deliberate(self) -> list[Test]:
        return [test for test in self.score.failing() if test.id in DELIBERATE]

    def markdown(self) -> str:
        """The score by group, for the page about conformance."""
        score = self.score
        lines = ["| group | required | optimal | check: yes |", "|---|---|---|---|"]
        for group in [*score.suite.groups, None]:
            cells = " | ".join(_cell(*score.count(kind, group)) for kind in Kind)
            lines.append(f"| {group or '**all**'} | {cells} |")
        return "\n".join(lines) + "\n"

    def by_group(self) -> Iterator[str]:
        score = self.score
        yield f"{f'edition {self.edition}':22} {'required':>12} {'optimal':>12} {'check: yes':>12}"
        for group in [*score.suite.groups, None]:
            cells = [_cell(*score.count(kind, group)) for kind in Kind]
            yield f"{group or 'all':22} " + " ".join(f"{cell:>12}" for cell in cells)

    def beside_others(self) -> Iterator[str]:
        score = self.score
        kinds = (Kind.REQUIRED, Kind.OPTIMAL)
        own = [_cell(*score.count(kind)) for kind in kinds]
        yield f"{'':36} {'required':>12} {'optimal':>12}"
        yield _row("edgecache", *own)
        if self.others:
            yield "the same edition, results that come with the suite (old versions):"
            for name, other in self.others:
                yield _row(name, *(_cell(*other.count(kind)) for kind in kinds))
        yield "the newest edition, measured or published:"
        for peer in PUBLISHED:
            yield _row(peer.name, _cell(peer.required, NEWEST[0]), _cell(peer.optimal, NEWEST[1]))


def _cell(passed: int, total: int) -> str:
    return f"{passed} / {total}" if total else "-"


def _row(name: str, *cells: str) -> str:
    return f"  {name:34} " + " ".join(f"{cell:>12}" for cell in cells)
