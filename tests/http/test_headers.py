"""Header fields as they came (RFC 9110 §5)."""

import pytest

from edgecache.http.headers import Headers

LINES = [("Accept", "a"), ("X-B", "1"), ("accept", "b"), ("ACCEPT", "")]


def test_order_case_and_repetition_are_kept() -> None:
    headers = Headers(LINES)
    assert list(headers) == LINES
    assert len(headers) == 4
    assert repr(headers) == f"Headers({LINES!r})"


def test_look_ups_are_by_lower_case_name() -> None:
    headers = Headers(LINES)
    assert headers.get("accept") == "a, b, "
    assert headers.get("x-b") == "1"
    assert headers.get("none") is None
    assert headers.get_all("accept") == ["a", "b", ""]
    assert headers.get_all("none") == []
    assert "x-b" in headers
    assert "X-B" not in headers


def test_equality() -> None:
    assert Headers(LINES) == Headers(tuple(LINES))
    assert hash(Headers(LINES)) == hash(Headers(LINES))
    assert Headers(LINES) != Headers(LINES[:3])
    assert Headers(LINES) != LINES


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("accept", [("Accept", "new"), ("X-B", "1")]),
        ("x-b", [("Accept", "a"), ("X-B", "new"), ("accept", "b"), ("ACCEPT", "")]),
        ("x-new", [*LINES, ("X-New", "new")]),
    ],
)
def test_replaced(name: str, lines: list[tuple[str, str]]) -> None:
    assert list(Headers(LINES).replaced(name, "new")) == lines


def test_without_and_plus() -> None:
    assert list(Headers(LINES).without({"accept"}).plus([("Y", "2")])) == [("X-B", "1"), ("Y", "2")]
