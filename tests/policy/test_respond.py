"""Heads on their way to the client."""

import pytest

from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.policy import rules
from edgecache.policy.site import SitePolicy
from tests.conformance.model import Model, answer

GET = Request("GET", "http", "example.com", "/", Headers())
KEYS = {"Surrogate-Key": "a", "Cache-Tag": "b", "xkey": "c", "X-Cache-Tags": "d", "Cache-Groups": '"e"'}


@pytest.mark.parametrize("strip", [False, True])
def test_fields_for_surrogates(strip: bool) -> None:
    """Surrogate-Control ends here; keys and CDN-Cache-Control go on, keys only unless the site says otherwise."""
    edge = Model(SitePolicy(strip_surrogate_keys=strip))
    origin = answer({"Surrogate-Control": "max-age=9", "CDN-Cache-Control": "max-age=9", **KEYS})
    for result in (edge.ask(origin), edge.ask()):
        names = {name.lower() for name, _ in result.headers}
        assert "surrogate-control" not in names
        assert "cdn-cache-control" in names
        assert {name.lower() in names for name in KEYS} == {not strip}


def test_age_counts_from_birth() -> None:
    edge = Model()
    edge.ask(answer({"Cache-Control": "max-age=99", "Age": "30"}))
    assert edge.ask().headers.get_all("age") == ["30"]
    assert edge.at(3.9).ask().headers.get_all("age") == ["33"]
    assert edge.at(-9).ask().headers.get_all("age") == ["21"]
    again = edge.at(-99).ask(answer({"Cache-Control": "max-age=99"}, body=b"new"))
    assert again.body == b"new", "a clock put back before the birth: nobody knows how old it is"


@pytest.mark.parametrize("status", [204, 205])
def test_no_content_has_no_length_and_no_body(status: int) -> None:
    edge = Model()
    edge.ask(answer({"Cache-Control": "max-age=99"}, status=status, body=b""))
    result = edge.ask()
    assert (result.status, result.body, result.headers.get("content-length")) == (status, b"", None)


@pytest.mark.parametrize(
    ("method", "status", "body"),
    [
        ("GET", 200, True),
        ("POST", 404, True),
        ("HEAD", 200, False),
        ("GET", 204, False),
        ("GET", 304, False),
        ("GET", 103, False),
    ],
)
def test_relay(method: str, status: int, body: bool) -> None:
    """As it came, Age and Set-Cookie included, hop-by-hop fields not."""
    lines = [
        ("Age", "5"),
        ("Set-Cookie", "a=b"),
        ("Connection", "close, x"),
        ("X", "1"),
        ("Surrogate-Control", "max-age=9"),
    ]
    request = Request(method, "http", "example.com", "/", Headers())
    out = rules.relay(Response(status, "Fine", Headers(lines)), request, SitePolicy(), "edgecache; fwd=uri-miss")
    assert out.body is body
    assert (out.response.status, out.response.reason) == (status, "Fine")
    assert sorted(out.response.headers) == [
        ("Age", "5"),
        ("Cache-Status", "edgecache; fwd=uri-miss"),
        ("Set-Cookie", "a=b"),
    ]
