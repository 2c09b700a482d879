"""Patterns that are lists, against the matcher they were written for."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecache.admin.dialects import patterns
from edgecache.admin.dialects.patterns import NoListError, Paths

LISTS = [
    ("a", ("a",)),
    ("a|b|a", ("a", "b")),
    ("(a|b)(,.+)?$", ("a", "b")),
    ("(^|,)a(,|$)", ("a",)),
    ("((^|,)a(,|$))|((^|,)b(,|$))", ("a", "b")),
    (r"(^|\s)node:1(\s|$)", ("node:1",)),
    (r"(^| )a( |$)", ("a",)),
    (r"\ba\b", ("a",)),
    (r"^a\.b$", ("a.b",)),
    ("^a.b$", ("a.b",)),
    ("^(?:a|b)$", ("a", "b")),
    ("a(b|c)d", ("abd", "acd")),
    (r"a\-b\:c", ("a-b:c",)),
]
NO_LISTS = [
    "",
    "a+",
    "a*",
    "a.*",
    "a?",
    "[ab]",
    "a{2}",
    r"\d",
    "(a",
    "a)",
    "(a|b)+",
    "a|",
    "(|a)",
    r"\w+",
    "(?i)a",
    "a\\",
]


@pytest.mark.parametrize(("pattern", "found"), LISTS)
def test_lists(pattern: str, found: tuple[str, ...]) -> None:
    assert patterns.choices(pattern) == found


@pytest.mark.parametrize("pattern", NO_LISTS)
def test_true_patterns(pattern: str) -> None:
    with pytest.raises(NoListError):
        patterns.choices(pattern)


@pytest.mark.parametrize("pattern", [".*", "^.*$", ".+", "(.*)", "", " .* "])
def test_all(pattern: str) -> None:
    assert patterns.is_all(pattern)
    assert not patterns.is_all(pattern + "a")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("^/a$", Paths("/a", below=False)),
        (r"^/a\.b\?c=1$", Paths("/a.b?c=1", below=False)),
        ("^/a/", Paths("/a/", below=True)),
        ("^/a/.*", Paths("/a/", below=True)),
        ("^/a/.*$", Paths("/a/", below=True)),
        ("^/a(/.*)?$", Paths("/a", below=True)),
        ("^/a(/|$)", Paths("/a", below=True)),
        ("/a/.*", Paths("/a/", below=True)),
        ("/a", Paths("/a", below=True)),
        ("^/a", Paths("/", below=True, exact=False)),
        ("^/a.*", Paths("/", below=True, exact=False)),
        ("^/a/b.*", Paths("/a/", below=True, exact=False)),
        (r"^/a/.*\.png$", Paths("/a/", below=True, exact=False)),
        ("^/a/(b|c)$", Paths("/a/", below=True, exact=False)),
    ],
)
def test_paths(pattern: str, found: Paths) -> None:
    assert patterns.paths(pattern) == found


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", r"\.png$", "^.*/a$", "/a$", "/a.+b", r"^/a\?b", "^(/a|/b)$", ""),
        *("^/a/x|^/b", "^/a/|", "^/a/[(]|/b", r"^/a/\Q(\E|/b", r"^/a/\(|/b"),
    ],
)
def test_no_paths(pattern: str) -> None:
    with pytest.raises(NoListError):
        patterns.paths(pattern)


WORDS = st.lists(st.text(alphabet="ab_.-:1", min_size=1, max_size=6), min_size=1, max_size=4)
FORMS = st.sampled_from(
    [
        lambda words: "|".join(f"((^|,){re.escape(word)}(,|$))" for word in words),
        lambda words: f"({'|'.join(map(re.escape, words))})(,.+)?$",
        lambda words: f"(^|,)({'|'.join(map(re.escape, words))})(,|$)",
    ]
)


@given(WORDS, FORMS, WORDS)
def test_a_list_covers_what_the_matcher_means(words: list[str], form: object, stored: list[str]) -> None:
    """Tags that are named are purged; and by the forms with edges, none that a matcher would not have found."""
    assert callable(form)
    pattern = form(words)
    listed = patterns.choices(pattern)
    assert set(listed) == set(words)
    if set(listed) & set(stored):
        assert re.search(pattern, ",".join(stored))


@example("^/a/*", "ab")
@example("^/./?", "a")
@example("^/a/b|/b", "b")
@given(st.text(alphabet="ab/.*?$|()", max_size=12).map(lambda rest: f"^/{rest}"), st.text(alphabet="ab/.", max_size=8))
def test_a_path_covers_every_url_the_pattern_matches(pattern: str, rest: str) -> None:
    """Whether exact or widened. A dot that repeats nothing is meant as a dot, as in `^/index.html$`."""
    url = f"/{rest}"
    try:
        found = patterns.paths(pattern)
        matches = re.search(re.sub(r"\.(?![*+?])", r"\.", pattern), url) is not None
    except (NoListError, re.error):
        return
    below = found.text.rstrip("/")
    covered = url == found.text or (found.below and (url.rstrip("/") == below or url.startswith(below + "/")))
    assert covered or not matches, (pattern, url, found)


@pytest.mark.parametrize(
    "pattern", ["(" * 5000, "((^|,)" * 5000, "(a|b)" * 30, "|" * 60_000, "(,|" * 20_000, "a" * 70_000]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    begun = time.process_time()
    with pytest.raises(NoListError):
        patterns.choices(pattern)
    assert time.process_time() - begun < 1.0
