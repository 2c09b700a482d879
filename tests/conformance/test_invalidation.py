"""RFC 9111 §4.4: what unsafe requests make invalid."""

import pytest

from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.policy import rules
from edgecache.policy.site import SitePolicy
from tests.conformance.model import Model, answer


def uris(method: str, status: int, *lines: tuple[str, str], target: str = "/a?b") -> list[str]:
    request = Request(method, "http", "Example.com:80", target, Headers())
    found = rules.invalidated(request, Response(status, "", Headers(lines)), SitePolicy())
    return [uri.removeprefix("http://example.com") for uri in found]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "LOCK", "whatever", "get"])
@pytest.mark.parametrize("status", [200, 201, 204, 299, 301, 303, 399])
def test_unsafe_methods_that_succeed(method: str, status: int) -> None:
    assert uris(method, status) == ["/a?b"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "M-SEARCH"])
@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_unsafe_methods_that_fail(method: str, status: int) -> None:
    assert not uris(method, status, ("Location", "/c"))


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY", "PRI"])
def test_safe_methods(method: str) -> None:
    assert not uris(method, 200, ("Location", "/c"))


@pytest.mark.parametrize("name", ["Location", "Content-Location", "LOCATION"])
@pytest.mark.parametrize(
    ("reference", "also"),
    [
        ("/c", ["/c"]),
        ("c", ["/c"]),
        ("?d", ["/a?d"]),
        ("http://EXAMPLE.com/c#part", ["/c"]),
        ("//example.com:80/x/../c", ["/c"]),
        ("/%7ec", ["/~c"]),
        ("", []),
        ("/a?b", []),
        ("https://example.com/c", []),
        ("http://example.com:81/c", []),
        ("http://other.com/c", []),
        ("http://sub.example.com/c", []),
        ("javascript:c", []),
        ("http://[/c", []),
    ],
)
def test_references_of_the_same_origin(name: str, reference: str, also: list[str]) -> None:
    assert uris("POST", 201, (name, reference)) == ["/a?b", *also]


def test_both_references_each_once() -> None:
    assert uris("PUT", 200, ("Location", "/c"), ("Content-Location", "/d"), ("Location", "/c")) == ["/a?b", "/c", "/d"]


@pytest.mark.parametrize(("status", "gone"), [(200, True), (500, False)])
def test_what_was_stored_is_gone(status: int, gone: bool) -> None:
    edge = Model()
    for target in ("/", "/c", "/d"):
        edge.ask(answer({"Cache-Control": "max-age=100"}), target=target)
    edge.at(1).ask(answer({"Location": "/c"}, status=status), method="POST")
    assert edge.ask(answer()).cached is not gone
    assert edge.ask(answer(), target="/c").cached is not gone
    assert edge.ask(target="/d").cached


@pytest.mark.parametrize(
    ("method", "status", "value", "groups"),
    [
        pytest.param("POST", 200, '"a", "b c"', ("a", "b c"), id="success"),
        pytest.param("PURGE-ALL", 303, '"a", "a"', ("a",), id="unknown-method-and-twice"),
        pytest.param("GET", 200, '"a"', (), id="safe"),
        pytest.param("POST", 500, '"a"', (), id="error"),
        pytest.param("POST", 404, '"a"', (), id="client-error"),
        pytest.param("POST", 200, "a", (), id="token"),
        pytest.param("POST", 200, '"a', (), id="malformed"),
    ],
)
def test_groups(method: str, status: int, value: str, groups: tuple[str, ...]) -> None:
    """RFC 9875 §3."""
    request = Request(method, "http", "example.com", "/", Headers())
    response = Response(status, "", Headers([("Cache-Group-Invalidation", value)]))
    assert rules.invalidated_groups(request, response) == groups
