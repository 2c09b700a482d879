"""Early hints from stored links (RFC 8297, RFC 8288)."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.headers import Headers
from edgecache.http.message import Request
from edgecache.policy.hints import early_hints, split_links, while_waiting
from edgecache.policy.site import SitePolicy
from tests.conformance.model import Model, answer


def links(*values: str, status: int = 200) -> list[str] | None:
    edge = Model()
    edge.ask(answer([("Cache-Control", "max-age=9"), *(("Link", value) for value in values)], status=status))
    (stored, _), *_ = edge.entries.values()
    hints = early_hints(stored)
    assert hints is None or hints.status == 103
    return None if hints is None else hints.headers.get_all("link")


@pytest.mark.parametrize(
    ("value", "hinted"),
    [
        ("</a.css>; rel=preload; as=style", ["</a.css>; rel=preload; as=style"]),
        (
            '</a>;rel="preload";as=font;crossorigin, <//b>; rel=preconnect',
            ['</a>;rel="preload";as=font;crossorigin', "<//b>; rel=preconnect"],
        ),
        ('</a>; rel="next PRELOAD"', ['</a>; rel="next PRELOAD"']),
        ("</a,b;c>; rel=modulepreload, </d>; rel=next", ["</a,b;c>; rel=modulepreload"]),
        ('</a>; title="x, <y>; z"; rel=preload', ['</a>; title="x, <y>; z"; rel=preload']),
        ("</a>; rel=next", None),
        ("</a>; as=style", None),
        ("</a>", None),
        ("</a> rel=preload", None),
        ("/a; rel=preload", None),
        ("</a; rel=preload", None),
        ("x</a>; rel=preload", None),
        ("</a>; rel=preload; (", None),
        ("", None),
    ],
)
def test_links(value: str, hinted: list[str] | None) -> None:
    assert links(value) == hinted


def test_several_lines_and_other_statuses() -> None:
    assert links("</a>; rel=preload", "</b>; rel=next", "</c>; rel=preconnect") == [
        "</a>; rel=preload",
        "</c>; rel=preconnect",
    ]
    assert links("</a>; rel=preload", status=404) is None


@given(st.text(alphabet='<>;,="\\ relpod/', max_size=40))
def test_no_reader_raises(value: str) -> None:
    links(value)


@pytest.mark.parametrize("unit", ["<a>,", "<", ">", '"', ",", "a", '<a>"\\', "<a>;"])
def test_linear(unit: str) -> None:
    began = time.process_time()
    split_links(unit * 60_000)
    split_links("<a>" + unit * 60_000)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("on", "method", "mode", "hinted"),
    [
        (True, "GET", None, True),
        (True, "GET", "navigate", True),
        (True, "GET", "cors", False),
        (True, "HEAD", None, False),
        (False, "GET", None, False),
    ],
)
def test_who_is_told_while_waiting(on: bool, method: str, mode: str | None, hinted: bool) -> None:
    edge = Model()
    edge.ask(answer([("Cache-Control", "max-age=9"), ("Link", "</a.css>; rel=preload")]))
    (stored, _), *_ = edge.entries.values()
    request = Request(method, "http", "h", "/", Headers([("Sec-Fetch-Mode", mode)] if mode else []))
    assert (while_waiting(request, stored, SitePolicy(early_hints=on)) is not None) is hinted
