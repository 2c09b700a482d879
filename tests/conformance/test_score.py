"""The arithmetic of the public suite's results."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.conformance.score import DELIBERATE, Baseline, Kind, Outcome, Report, Score, Suite
from tests.conformance.suite import BASELINE, PAGE


def _test(test_id: str, kind: str = "required", needs: tuple[str, ...] = (), *, browser: bool = False) -> object:
    return {"id": test_id, "name": test_id, "kind": kind, "needs": list(needs), "browser": browser}


SUITE = Suite.read(
    [
        {"id": "one", "tests": [_test("a"), _test("b", needs=("a",)), _test("only-browsers", browser=True)]},
        {"id": "two", "tests": [_test("c", "optimal", ("b",)), _test("d", "check"), _test("e", "optimal")]},
    ]
)
ALL: Mapping[str, Outcome] = dict.fromkeys("abcde", True)
FAILED = ["Assertion", "Response 2 comes from cache"]


@pytest.mark.parametrize(
    ("results", "passed"),
    [
        pytest.param(ALL, "abcde", id="all"),
        pytest.param({**ALL, "c": FAILED}, "abde", id="one fails"),
        pytest.param({**ALL, "a": FAILED}, "de", id="what depends on it, directly or not, does not count"),
        pytest.param({**ALL, "d": False}, "abce", id="false"),
        pytest.param({}, "", id="nothing ran"),
    ],
)
def test_what_passed(results: Mapping[str, Outcome], passed: str) -> None:
    score = Score(SUITE, results)
    assert "".join(test_id for test_id in SUITE.tests if score.passed(test_id)) == passed
    assert {test.id for test in score.failing()} == set("abce") - set(passed)


def test_counts() -> None:
    score = Score(SUITE, {**ALL, "b": FAILED})
    assert score.count(Kind.REQUIRED) == (1, 2)
    assert score.count(Kind.OPTIMAL) == (1, 2)
    assert score.count(Kind.OPTIMAL, "one") == (0, 0)
    assert score.count(Kind.CHECK, "two") == (1, 1)


@pytest.mark.parametrize(
    ("results", "why"),
    [
        pytest.param({**ALL, "b": FAILED}, "Assertion: Response 2 comes from cache", id="its own reason"),
        pytest.param({**ALL, "a": FAILED}, "passes, but depends on a", id="what it depends on"),
        pytest.param({"a": True}, "it did not run", id="left out"),
    ],
)
def test_why(results: Mapping[str, Outcome], why: str) -> None:
    assert Score(SUITE, results).why("b") == why


def test_a_baseline_is_kept_and_compared(tmp_path: Path) -> None:
    Baseline.of("1", Score(SUITE, {**ALL, "e": FAILED})).save(tmp_path / "b.json")
    baseline = Baseline.load(tmp_path / "b.json")
    assert baseline.lost(Score(SUITE, ALL)) == []
    worse = Score(SUITE, {**ALL, "b": FAILED, "d": FAILED})
    assert baseline.lost(worse) == ["b", "c"]
    assert baseline.changed(worse) == ["d"]
    assert baseline.changed(Score(SUITE, ALL)) == []


def test_a_report_names_what_fails() -> None:
    lines = list(Report("1", Score(SUITE, {**ALL, "a": FAILED})).lines())
    at = lines.index("Not passed:")
    assert [line.split()[1] for line in lines[at + 1 :]] == ["a:", "b:", "c:"]
    assert "Not passed:" not in list(Report("1", Score(SUITE, ALL)).lines())


def test_the_page_s_table() -> None:
    table = Report("1", Score(SUITE, {**ALL, "e": FAILED})).markdown().splitlines()
    assert table[2:] == [
        "| one | 2 / 2 | - | - |",
        "| two | - | 1 / 2 | 1 / 1 |",
        "| **all** | 2 / 2 | 1 / 2 | 1 / 1 |",
    ]


def test_every_choice_is_on_the_page() -> None:
    """What does not pass on purpose, and each answer to a test that only asks, has a row; in the right table."""
    why_not, yes, no = re.findall(r"^\| tests \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    named = [
        re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (.*?) \| ", t, re.MULTILINE))) for t in (why_not, yes, no)
    ]
    chosen = Baseline.load(BASELINE).chosen
    wanted = [set(DELIBERATE), {name for name, answer in chosen.items() if answer}]
    wanted.append(set(chosen) - wanted[1])
    for patterns, names in zip(named, wanted, strict=True):
        assert {name for name in names if not any(fnmatchcase(name, each) for each in patterns)} == set()
        assert {each for each in patterns if not any(fnmatchcase(name, each) for name in names)} == set()
