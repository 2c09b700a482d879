"""RFC 9111 §5.2.1, §5.4, RFC 8246, RFC 9110 §7.6.2: what a request may say about it."""

import pytest

from edgecache.policy import rules
from edgecache.policy.site import SitePolicy
from edgecache.policy.verdicts import Reason
from tests.conformance.model import Model, answer


def filled(control: str = "max-age=100", site: SitePolicy | None = None, **fields: str) -> Model:
    edge = Model(site)
    edge.ask(answer({"Cache-Control": control, **fields}))
    return edge


@pytest.mark.parametrize(
    ("control", "age", "cached"),
    [
        *(("max-age=0", 0, False), ("max-age=5", 5, True), ("max-age=5", 5.5, False), ('max-age="5"', 6, False)),
        *(("max-age=x", 50, True), ("max-age", 50, True), ("max-age=5, max-age=9", 50, True), ("max-age =5", 50, True)),
        *(("min-fresh=50", 50, True), ("min-fresh=50", 50.5, False), ("min-fresh=x", 99, True),),
        ("min-fresh=0", 99, True),
        *(("no-cache", 0, False), ("NO-CACHE", 0, False), ("no-cache=x", 0, False), ("foo, bar=1", 0, True)),
        *(("max-stale=5", 50, True), ("no-transform", 50, True), ("stale-if-error=5", 50, True)),
    ],
)  # fmt: skip
def test_directives(control: str, age: float, cached: bool) -> None:
    edge = filled()
    result = edge.at(age).ask(answer(), {"Cache-Control": control})
    assert result.cached is cached
    assert cached or result.reason is Reason.REQUEST_DIRECTIVE


def test_no_cache_validates_with_what_there_is() -> None:
    edge = filled(ETag='"a"')
    result = edge.at(5).ask(
        answer({"ETag": '"a"', "Cache-Control": "max-age=100"}, status=304), {"Cache-Control": "no-cache"}
    )
    assert result.status == 200
    assert result.asked[0].headers.get("if-none-match") == '"a"'
    assert result.asked[0].headers.get("cache-control") == "no-cache", "passed on: caches nearer the origin obey it too"


@pytest.mark.parametrize(
    ("fields", "cached"),
    [
        ({"Pragma": "no-cache"}, False),
        ({"Pragma": "No-Cache"}, False),
        ({"Pragma": "x, no-cache"}, False),
        ({"Pragma": "no-cache", "Cache-Control": "x"}, True),
        ({"Pragma": "no-cache", "Cache-Control": "max-age=90"}, True),
        ({"Pragma": "x"}, True),
    ],
)
def test_pragma(fields: dict[str, str], cached: bool) -> None:
    """§5.4: only where there is no Cache-Control."""
    assert filled().at(1).ask(answer(), fields).cached is cached


@pytest.mark.parametrize(
    ("control", "at", "asked", "cached"),
    [
        ("max-age=100, immutable", 50, "max-age=0", True),
        ("max-age=100, immutable", 50, "no-cache", False),
        ("max-age=100, immutable", 50, "max-age=1", False),
        ("max-age=100, immutable", 100, "max-age=0", False),
        ("max-age=100, immutable=x", 50, "max-age=0", True),
        ("max-age=100", 50, "max-age=0", False),
    ],
)
def test_immutable(control: str, at: float, asked: str, cached: bool) -> None:
    """RFC 8246 §2: a reload is no reason to validate what is fresh and immutable; a forced one is."""
    assert filled(control).at(at).ask(answer(), {"Cache-Control": asked}).cached is cached


@pytest.mark.parametrize(
    ("control", "at", "asked", "status"),
    [
        ("max-age=100", 50, "only-if-cached", 200),
        ("max-age=100", 101, "only-if-cached", 504),
        ("max-age=100", 101, "only-if-cached, max-stale", 200),
        ("max-age=100", 50, "only-if-cached, no-store", 200),
        ("max-age=100", 50, "only-if-cached, no-cache", 504),
        ("max-age=100, no-cache", 50, "only-if-cached", 504),
        ("max-age=100, stale-while-revalidate=9", 101, "only-if-cached", 200),
    ],
)
def test_only_if_cached(control: str, at: float, asked: str, status: int) -> None:
    """§5.2.1.7: no waiting for the origin, whatever else is the matter."""
    result = filled(control).at(at).ask(answer(), {"Cache-Control": asked})
    assert result.status == status
    assert not result.asked or control.endswith("=9")


def test_only_if_cached_without_anything() -> None:
    edge = Model()
    result = edge.ask(lines={"Cache-Control": "only-if-cached"})
    assert (result.status, result.reason) == (504, Reason.ONLY_IF_CACHED)
    edge.ask(answer())
    assert edge.at(1).ask(lines={"Cache-Control": "only-if-cached"}).status == 504, "also where passing is remembered"


def test_only_if_cached_with_credentials() -> None:
    assert filled().ask(lines={"Cache-Control": "only-if-cached", "Authorization": "me"}).status == 504


def test_cookies_do_not_matter() -> None:
    assert filled().at(1).ask(lines={"Cookie": "a=b"}).cached


@pytest.mark.parametrize(
    ("method", "forwards", "status", "sent"),
    [
        ("OPTIONS", "0", 200, None),
        ("TRACE", "0", 405, None),
        ("OPTIONS", "5", 204, "4"),
        ("TRACE", "10", 204, "9"),
        ("OPTIONS", "many", 204, "many"),
        ("POST", "0", 204, "0"),
        ("DELETE", "5", 204, "5"),
    ],
)
def test_max_forwards(method: str, forwards: str, status: int, sent: str | None) -> None:
    """RFC 9110 §7.6.2."""
    result = Model().ask(answer(status=204), {"Max-Forwards": forwards}, method=method)
    assert result.status == status
    assert [each.headers.get("max-forwards") for each in result.asked] == ([] if sent is None else [sent])


def test_surrogate_capability_is_told() -> None:
    edge = Model(SitePolicy(surrogate_name="pop"))
    for method in ("GET", "POST"):
        result = edge.ask(answer(), method=method)
        assert result.asked[0].headers.get("surrogate-capability") == 'pop="Surrogate/1.0"'


def test_newest_date_is_chosen() -> None:
    """§4: of several stored responses that match."""
    edge = Model()
    edge.ask(answer({"Cache-Control": "max-age=100", "Date": "Fri, 15 Jan 2027 07:59:50 GMT"}, body=b"b"), target="/b")
    edge.ask(answer({"Cache-Control": "max-age=100"}, body=b"a"), target="/a")
    stored = [record for record, _ in edge.entries.values()]
    newest = rules.newest(stored)
    assert newest is rules.newest(stored[::-1])
    assert newest is not None
    assert newest.response.headers.get("date") == "Fri, 15 Jan 2027 08:00:00 GMT"
    assert rules.newest([]) is None
