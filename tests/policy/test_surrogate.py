"""Surrogate keys, in the habits of several products (RFC 9875 for one)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.headers import Headers
from edgecache.policy import surrogate


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        ([], ()),
        ([("Surrogate-Key", " a  b\tc ")], ("a", "b", "c")),
        ([("Surrogate-Key", "a,b")], ("a,b",)),
        ([("xkey", "a b"), ("XKey", "b c")], ("a", "b", "c")),
        ([("xkey", "a, b,c d")], ("a", "b", "c", "d")),
        ([("Cache-Tags", "node:1 node:2,node:3")], ("node:1", "node:2", "node:3")),
        ([("X-Magento-Tags", "cat_p_12,cat_c_3")], ("cat_p_12", "cat_c_3")),
        ([("Cache-Tag", "News, news , ÄB")], ("News", "news", "ÄB", "Äb")),
        ([("Surrogate-Key", "News"), ("X-Cache-Tags", "A")], ("News", "A")),
        ([("Cache-Tag", "a, b c ,,d")], ("a", "b c", "d")),
        ([("X-Cache-Tags", "a,b")], ("a", "b")),
        ([("Cache-Groups", '"a b", "c,d"')], ("a b", "c,d")),
        ([("Cache-Groups", '"a";x=1, b, ("c"), 1, "d"')], ("a", "d")),
        ([("Cache-Groups", '"a", "open')], ()),
        ([("Surrogate-Key", "b a"), ("Cache-Tag", "a,c"), ("Cache-Groups", '"d"')], ("b", "a", "c", "d")),
    ],
)
def test_keys(lines: list[tuple[str, str]], keys: tuple[str, ...]) -> None:
    assert surrogate.keys(Headers(lines), 100) == keys


def test_bound() -> None:
    headers = Headers([("Surrogate-Key", "aa bb aa"), ("Cache-Tag", "cc")])
    assert surrogate.keys(headers, 6) == ("aa", "bb", "cc")
    assert surrogate.keys(headers, 5) is None


def test_the_bound_counts_what_the_origin_sent() -> None:
    """Not the form in lower case that is kept beside it."""
    assert surrogate.keys(Headers([("Cache-Tag", "ABC")]), 3) == ("ABC", "abc")


@pytest.mark.parametrize(
    ("value", "groups"), [('"a", "b"', ("a", "b")), ('"a"', ("a",)), ("a", ()), ('"a', ()), ("", ())]
)
def test_groups(value: str, groups: tuple[str, ...]) -> None:
    """RFC 9875 §2, §3."""
    assert surrogate.groups(Headers([("Cache-Groups", value)])) == groups
    assert surrogate.invalidated_groups(Headers([("Cache-Group-Invalidation", value)])) == groups


@given(st.sampled_from(sorted(surrogate.FIELDS)), st.text(alphabet='ab", \t;()\\1', max_size=30))
def test_no_reader_raises(name: str, value: str) -> None:
    surrogate.keys(Headers([(name, value)]), 1000)
