"""No-Vary-Search: the tables of the draft, and that equivalence is what its algorithm says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.headers import Headers
from edgecache.policy.search_variance import SearchVariance, parse_variance, search_variance


def of(value: str) -> SearchVariance:
    return search_variance(Headers([("No-Vary-Search", value)]))


@pytest.mark.parametrize(
    ("value", "variance"),
    [
        ("params", SearchVariance(only=True)),
        ("params=?1", SearchVariance(only=True)),
        ('params=("a")', SearchVariance(frozenset("a"))),
        ('params, except=("x")', SearchVariance(frozenset("x"), only=True)),
        ("params, except=()", SearchVariance(only=True)),
        ("key-order", SearchVariance(order=False)),
        ('params, key-order, except=("x")', SearchVariance(frozenset("x"), only=True, order=False)),
        ('key-order, params=("a" "b")', SearchVariance(frozenset("ab"), order=False)),
        ('params=("a"), unknown=1', SearchVariance(frozenset("a"))),
        ('params=("%C3%A9+%E6%B0%97")', SearchVariance(frozenset(["é 気"]))),
    ],
)
def test_variance(value: str, variance: SearchVariance) -> None:
    assert of(value) == variance
    assert not variance.default


@pytest.mark.parametrize(
    "value",
    [
        *("", "unknown-key", 'key-order="no"', "key-order=(1)", 'params="no"', "params=(no)"),
        'params=("a"), except=("x")',
        *("params=(), except=()", 'params=?0, except=("x")', "params, except=(no)", 'params, except="no"'),
        "params, except=?1",
        *('except=("x")', "except=()", "params=?0", "params=()", "key-order=?0", "&&&", 'params=("a"'),
    ],
)  # fmt: skip
def test_default(value: str) -> None:
    assert of(value).default


@given(st.frozensets(st.text(max_size=5), max_size=3), st.booleans(), st.booleans())
def test_written_and_read_again(names: frozenset[str], only: bool, order: bool) -> None:
    """What is remembered of a path means the same."""
    names = frozenset(name.encode("utf-8", "replace").decode() for name in names)
    variance = SearchVariance(names, only=only, order=order)
    assert parse_variance(str(variance)) == variance


KEY = "http://example.com/p"


@pytest.mark.parametrize(
    ("value", "one", "other", "same"),
    [
        ("key-order", "?a=1&b=2", "?b=2&a=1", True),
        ("key-order", "?a=1&a=2", "?a=2&a=1", False),
        ("key-order", "", "?", True),
        ("key-order", "?a=x", "?%61=%78", True),
        ("key-order", "?a=\xc3\xa9", "?a=%C3%A9", True),
        ("key-order", "?a=%f6", "?a=%ef%bf%bd", True),
        ("key-order", "?a=x&&&&", "?a=x", True),
        ("key-order", "?a=", "?a", True),
        ("key-order", "?a=%20", "?a=+", True),
        ("key-order", "?a=1&b", "?a=1%26b", False),
        ('params=("utm")', "?utm=1&a=1", "?a=1&utm=2", True),
        ('params=("utm")', "?utm=1", "", True),
        ('params=("utm")', "?a=1", "?a=2", False),
        ('params=("utm")', "?a=1&b=1", "?b=1&a=1", False),
        ('params=("%C3%A9+%E6%B0%97")', "?\xc3\xa9+\xe6\xb0\x97=2", "?%C3%A9%20%E6%B0%97=1", True),
        ("params", "?a=1", "?b=2", True),
        ('params, except=("id")', "?id=1&x", "?id=1&y", True),
        ('params, except=("id")', "?id=1", "?id=2", False),
        ("", "?a&", "?a", False),
        ("", "", "?", False),
    ],
)
def test_equivalence(value: str, one: str, other: str, same: bool) -> None:
    variance = of(value)
    assert (variance.simplified(KEY + one) == variance.simplified(KEY + other)) is same


QUERIES = st.text(alphabet="ab=&%12+", max_size=12)


@given(QUERIES)
def test_simplifying_twice_changes_nothing(query: str) -> None:
    for variance in (
        SearchVariance(order=False),
        SearchVariance(frozenset("a")),
        SearchVariance(frozenset("a"), only=True),
    ):
        once = variance.simplified(f"{KEY}?{query}")
        assert variance.simplified(once) == once


@given(st.text(max_size=30))
def test_no_reader_raises(text: str) -> None:
    of(text).simplified(text)
