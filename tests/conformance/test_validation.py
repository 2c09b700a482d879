"""RFC 9111 §4.3: validating, freshening by 304 and by HEAD."""

import pytest

from edgecache.policy.verdicts import Reason
from tests.conformance.model import Model, Origin, answer, date

TAG = {"ETag": '"a"'}
OLD = {"Last-Modified": date(-1000)}


def filled(fields: dict[str, str], control: str = "max-age=10", **about: object) -> Model:
    edge = Model()
    edge.ask(answer({"Cache-Control": control, **fields}, body=b"old", **about))  # type: ignore[arg-type]
    return edge.at(20)


def sent(edge: Model, origin: Origin, fields: dict[str, str] | None = None) -> dict[str, str]:
    result = edge.ask(origin, fields or {})
    return {name.lower(): value for name, value in result.asked[0].headers}


@pytest.mark.parametrize(
    ("fields", "conditions"),
    [
        pytest.param(TAG, {"if-none-match": '"a"'}, id="strong"),
        pytest.param({"ETag": 'W/"a"'}, {"if-none-match": 'W/"a"'}, id="weak"),
        pytest.param({"ETag": "bare"}, {"if-none-match": "bare"}, id="as-the-origin-writes-it"),
        pytest.param({"ETag": "*"}, {}, id="would-match-anything"),
        pytest.param({"ETag": '"a", "b"'}, {}, id="two"),
        pytest.param(OLD, {"if-modified-since": date(-1000)}, id="date"),
        pytest.param({"Last-Modified": "yesterday"}, {"if-modified-since": "yesterday"}, id="date-as-it-came"),
        pytest.param({**TAG, **OLD}, {"if-none-match": '"a"', "if-modified-since": date(-1000)}, id="both"),
        pytest.param({}, {}, id="none"),
    ],
)
def test_conditions_sent(fields: dict[str, str], conditions: dict[str, str]) -> None:
    """§4.3.1: our validators, in place of whatever the client sent."""
    theirs = {
        "If-None-Match": '"x"',
        "If-Modified-Since": date(-5),
        "Range": "bytes=0-0",
        "If-Range": '"x"',
        "X-Kept": "1",
    }
    headers = sent(filled(fields), answer(), theirs)
    assert headers == {**conditions, "x-kept": "1"}


def test_fields_that_select_go_along() -> None:
    edge = Model()
    edge.ask(answer({**TAG, "Cache-Control": "max-age=10", "Vary": "Abc"}), {"Abc": "1"})
    assert sent(edge.at(20), answer(), {"Abc": "1"})["abc"] == "1"


def test_304_freshens() -> None:
    """§4.3.4, §3.2: its fields replace the stored ones; the others stay; age starts again."""
    edge = filled({**TAG, "X-Old": "1", "X-Both": "1"})
    result = edge.ask(
        answer(
            {**TAG, "Cache-Control": "max-age=30", "X-Both": "2", "Age": "4", "Connection": "x-hop", "X-Hop": "1"},
            status=304,
        )
    )
    assert (result.status, result.body) == (200, b"old")
    for each in (result, edge.ask()):
        assert each.headers.get_all("x-both") == ["2"]
        assert each.headers.get("x-old") == "1"
        assert each.headers.get("age") == "4"
        assert each.headers.get("date") == date(20)
        assert "x-hop" not in each.headers
    assert edge.at(45.5).ask().cached, "lifetime 30, age 4 when it came"
    assert not edge.at(46).ask(answer()).cached


def test_304_without_date_is_dated_when_it_came() -> None:
    edge = filled(TAG)
    edge.ask(answer({**TAG, "Cache-Control": "max-age=30"}, status=304, dated=False))
    assert edge.at(25).ask().headers.get("date") == date(20)


@pytest.mark.parametrize(
    "name",
    [
        "Content-Encoding",
        "Content-Length",
        "Content-Range",
        "Content-MD5",
        "Content-Digest",
        "Repr-Digest",
        "Digest",
        "ETag",
    ],
)
def test_what_describes_the_stored_octets_stays(name: str) -> None:
    """§3.2, and our reading of it: docs/conformance.md."""
    value = '"a"' if name == "ETag" else "3"
    edge = filled({**TAG, name: value})
    result = edge.ask(answer({"Cache-Control": "max-age=30", name: '"b"'}, status=304))
    assert result.body == b"old"
    assert edge.ask().headers.get(name.lower()) == value


@pytest.mark.parametrize(
    "name", ["Content-Type", "Content-Location", "Content-Foo", "Content-Security-Policy", "Expires", "X-Frame-Options"]
)
def test_what_is_updated(name: str) -> None:
    edge = filled({**TAG, name: "1"})
    edge.ask(answer({**TAG, "Cache-Control": "max-age=30", name: "2"}, status=304))
    assert edge.ask().headers.get(name.lower()) == "2"


@pytest.mark.parametrize(
    ("fields", "update", "confirmed"),
    [
        pytest.param(TAG, {}, True, id="nothing-said"),
        pytest.param(TAG, {"ETag": 'W/"a"'}, True, id="weak-form"),
        pytest.param(TAG, {"ETag": '"b"'}, True, id="another-tag-than-asked-for"),
        pytest.param({"ETag": 'W/"a"'}, {"ETag": 'W/"a"'}, True, id="weak"),
        pytest.param(OLD, OLD, True, id="date"),
        pytest.param(OLD, {}, True, id="date-not-repeated"),
        pytest.param(OLD, {"Last-Modified": date(-2000)}, False, id="an-older-one-put-back"),
        pytest.param(OLD, {"Last-Modified": date(-5)}, False, id="a-newer-one"),
        pytest.param(OLD, {**OLD, **TAG}, False, id="a-tag-we-do-not-know"),
        pytest.param({**OLD, "ETag": "*"}, {**OLD, "ETag": "*"}, True, id="an-odd-tag-on-both"),
        pytest.param({}, {}, False, id="never-asked"),
    ],
)
def test_which_304_confirms(fields: dict[str, str], update: dict[str, str], confirmed: bool) -> None:
    """§4.3.4: one that speaks of another representation is not believed; the whole is asked for again."""
    calls = iter([answer({**update, "Cache-Control": "max-age=30"}, status=304), answer(body=b"new")])
    edge = filled(fields, "max-age=10, public")
    result = edge.ask(lambda request: next(calls)(request))
    assert result.body == (b"old" if confirmed else b"new")
    assert len(result.asked) == (1 if confirmed else 2)
    if not confirmed:
        assert not {"if-none-match", "if-modified-since"} & {name.lower() for name, _ in result.asked[1].headers}


def test_304_to_a_request_without_conditions_is_passed_on_and_forgotten() -> None:
    edge = Model()
    assert edge.ask(answer(TAG, status=304)).status == 304
    assert not edge.at(1).ask(answer()).cached


@pytest.mark.parametrize(
    "update",
    [{"Cache-Control": "no-store"}, {"Cache-Control": "private"}, {"Set-Cookie": "a=b"}, {"Vary": "*"}],
    ids=["no-store", "private", "set-cookie", "vary"],
)
def test_304_that_forbids_storing(update: dict[str, str]) -> None:
    """The answer is used, once."""
    edge = filled(TAG, "max-age=10")
    result = edge.ask(answer({**TAG, **update}, status=304))
    assert result.body == b"old"
    assert all(result.headers.get(name.lower()) == value for name, value in update.items())
    assert not edge.ask(answer()).cached


def test_304_brings_a_new_vary() -> None:
    edge = filled(TAG)
    edge.ask(answer({**TAG, "Cache-Control": "max-age=30", "Vary": "Foo"}, status=304), {"Foo": "1"})
    assert edge.ask(lines={"Foo": "1"}).cached
    assert not edge.ask(answer(), {"Foo": "2"}).cached


@pytest.mark.parametrize("status", [200, 404])
def test_a_full_answer_replaces(status: int) -> None:
    """§4.3.3."""
    edge = filled(TAG)
    edge.ask(answer({"Cache-Control": "max-age=30"}, status=status, body=b"new"))
    assert (edge.at(21).ask().status, edge.ask().body) == (status, b"new")


def test_an_error_does_not_replace() -> None:
    edge = filled(TAG)
    assert edge.ask(answer(status=500)).status == 500
    assert edge.ask(answer({**TAG, "Cache-Control": "max-age=5"}, status=304)).body == b"old"


def test_no_cache_is_validated_on_every_use() -> None:
    """§5.2.2.4."""
    edge = filled(TAG, "max-age=100, no-cache")
    for _ in range(2):
        result = edge.ask(answer({**TAG, "Cache-Control": "max-age=100, no-cache"}, status=304))
        assert (result.body, result.reason) == (b"old", Reason.NO_CACHE)


def test_conditional_request_of_the_client_after_validation() -> None:
    edge = filled(OLD)
    result = edge.ask(answer({**OLD, "Cache-Control": "max-age=30"}, status=304), {"If-Modified-Since": date(-1000)})
    assert (result.status, result.body) == (304, b"")


def test_head_of_a_stale_response_is_validated_too() -> None:
    edge = filled(TAG)
    result = edge.ask(answer({**TAG, "Cache-Control": "max-age=30"}, status=304), method="HEAD")
    assert (result.status, result.asked[0].method) == (200, "HEAD")
    assert edge.ask().body == b"old"


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        pytest.param({**TAG, **OLD, "Content-Length": "3"}, True, id="all-the-same"),
        pytest.param({}, True, id="nothing-to-compare"),
        pytest.param({"Content-Length": "3"}, True, id="length"),
        pytest.param({"Content-Length": "4"}, False, id="another-length"),
        pytest.param({"ETag": '"b"'}, False, id="another-tag"),
        pytest.param({"Last-Modified": date(-5)}, False, id="another-date"),
    ],
)
def test_head_freshens_what_it_describes(fields: dict[str, str], kept: bool) -> None:
    """§4.3.5: and makes what it does not describe unusable."""
    edge = filled({**TAG, **OLD, "X": "1"})
    head = edge.ask(answer({**fields, "Cache-Control": "max-age=30", "X": "2"}), method="HEAD")
    assert head.body == b""
    result = edge.at(22).ask(answer(body=b"new"))
    assert result.cached is kept
    assert (result.body, result.headers.get("x")) == ((b"old", "2") if kept else (b"new", None))


def test_head_with_another_status_outdates() -> None:
    edge = filled({})
    edge.ask(answer({"Cache-Control": "max-age=30"}, status=410), method="HEAD")
    assert edge.ask(answer(body=b"new")).body == b"new"


def test_head_with_an_error_changes_nothing() -> None:
    edge = filled(TAG)
    assert edge.ask(answer(status=503), method="HEAD").status == 503
    assert edge.ask(answer(TAG, status=304)).body == b"old"
