"""RFC 9111 §4.1: negotiated responses."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecache.http.headers import Headers
from edgecache.policy import vary
from edgecache.policy.verdicts import Reason
from tests.conformance.model import Model, answer


def fields(vary: str, **more: str) -> dict[str, str]:
    return {
        "Cache-Control": "max-age=100",
        "Vary": vary,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


@pytest.mark.parametrize(
    ("names", "first", "second", "cached"),
    [
        pytest.param("Foo", {"Foo": "1"}, {"Foo": "1"}, True, id="same"),
        pytest.param("foo", {"FOO": "1"}, {"Foo": "1"}, True, id="case-of-names"),
        pytest.param("Foo", {"Foo": "1"}, {"Foo": "2"}, False, id="different"),
        pytest.param("Foo", {"Foo": "a"}, {"Foo": "A"}, False, id="case-of-values"),
        pytest.param("Foo", {}, {"Foo": "1"}, False, id="omitted-before"),
        pytest.param("Foo", {"Foo": "1"}, {}, False, id="omitted-after"),
        pytest.param("Foo", {"Foo": ""}, {}, False, id="empty-is-not-omitted"),
        pytest.param("Foo", {}, {}, True, id="omitted-both-times"),
        pytest.param("Foo", {"Foo": "1", "Bar": "1"}, {"Foo": "1", "Bar": "2"}, True, id="others-do-not-matter"),
        pytest.param("Foo, Bar", {"Foo": "1", "Bar": "2"}, {"Bar": "2", "Foo": "1"}, True, id="two"),
        pytest.param("Foo, Bar", {"Foo": "1", "Bar": "2"}, {"Foo": "2", "Bar": "1"}, False, id="two-swapped"),
        pytest.param("Foo, Bar", {"Foo": "1"}, {"Bar": "1"}, False, id="one-of-two"),
        pytest.param("Foo,foo , FOO", {"Foo": "1"}, {"Foo": "1"}, True, id="repeated-names"),
        pytest.param("", {"Foo": "1"}, {"Foo": "2"}, True, id="empty"),
        pytest.param("*", {}, {}, False, id="star"),
        pytest.param("*, *", {}, {}, False, id="stars"),
        pytest.param(", *", {}, {}, False, id="empty-and-star"),
        pytest.param("Foo, *", {"Foo": "1"}, {"Foo": "1"}, False, id="name-and-star"),
        pytest.param("*, Foo", {"Foo": "1"}, {"Foo": "1"}, False, id="star-and-name"),
        pytest.param("Foo;q=1", {"Foo": "1"}, {"Foo": "1"}, False, id="not-a-name"),
        pytest.param('"Foo"', {}, {}, False, id="quoted"),
        # values of unknown fields: combined, white space around elements
        pytest.param("Foo", {"Foo": "1,2"}, {"Foo": " 1 ,\t2 "}, True, id="white-space"),
        pytest.param("Foo", {"Foo": "1, 2"}, {"Foo": "2, 1"}, False, id="order-of-unknown"),
        pytest.param("Foo", {"Foo": "1 2"}, {"Foo": "1  2"}, False, id="white-space-inside"),
        pytest.param("Foo", {"Foo": '"a, b"'}, {"Foo": '"a,b"'}, False, id="white-space-quoted"),
        # proactive negotiation (RFC 9110 §12.5)
        pytest.param(
            "Accept-Language", {"Accept-Language": "en, de"}, {"Accept-Language": "de,EN"}, True, id="languages"
        ),
        pytest.param(
            "Accept-Language",
            {"Accept-Language": "en;q=0.5, de"},
            {"Accept-Language": "de ; q=1.0,en; Q=0.50"},
            True,
            id="weights",
        ),
        pytest.param(
            "Accept-Language",
            {"Accept-Language": "en;q=0.5, de"},
            {"Accept-Language": "en, de;q=0.5"},
            False,
            id="other-weights",
        ),
        pytest.param(
            "Accept-Language", {"Accept-Language": "en"}, {"Accept-Language": "en, en"}, True, id="said-twice"
        ),
        pytest.param(
            "Accept-Language",
            {"Accept-Language": "en;q=x"},
            {"Accept-Language": "en;q=y"},
            False,
            id="malformed-differs",
        ),
        pytest.param(
            "Accept-Language", {"Accept-Language": "en;q=x"}, {"Accept-Language": " en;q=x"}, True, id="malformed-same"
        ),
        pytest.param(
            "Accept-Encoding", {"Accept-Encoding": "gzip, br"}, {"Accept-Encoding": "br,gzip"}, True, id="codings"
        ),
        pytest.param(
            "Accept-Encoding", {"Accept-Encoding": "gzip;q=0"}, {"Accept-Encoding": "gzip"}, False, id="coding-refused"
        ),
        pytest.param(
            "Accept",
            {"Accept": "text/html;level=1, */*;q=0.1"},
            {"Accept": "*/*; q=0.1, Text/HTML ; level=1"},
            True,
            id="types",
        ),
        pytest.param(
            "Accept", {"Accept": "text/html;level=1"}, {"Accept": "text/html;level=2"}, False, id="parameters"
        ),
    ],
)
def test_selection(names: str, first: dict[str, str], second: dict[str, str], cached: bool) -> None:
    edge = Model()
    edge.ask(answer(fields(names)), first)
    assert edge.at(1).ask(answer(fields(names)), second).cached is cached


def test_lines_are_combined() -> None:
    edge = Model()
    edge.ask(answer(fields("Foo")), {"Foo": "1, 2"})
    assert edge.ask(lines=[("Foo", "1"), ("foo", "2")]).cached


def test_star_in_another_line() -> None:
    edge = Model()
    edge.ask(answer([("Cache-Control", "max-age=100"), ("Vary", ""), ("Vary", "*")]))
    assert not edge.at(1).ask(answer()).cached


def test_variants_live_side_by_side() -> None:
    edge = Model()
    for value in ("1", "2"):
        result = edge.ask(answer(fields("Foo"), body=value.encode()), {"Foo": value})
        assert result.reason is (Reason.URI_MISS if value == "1" else Reason.VARY_MISS)
    assert edge.ask(lines={"Foo": "1"}).body == b"1"
    assert edge.ask(lines={"Foo": "2"}).body == b"2"


# The language that the origin chose, found by those who prefer it.
@pytest.mark.parametrize(
    ("accepted", "cached"),
    [
        pytest.param("de", True, id="only"),
        pytest.param("fr;q=0.5, de;q=1.0", True, id="highest"),
        pytest.param("DE;q=0.9, fr;q=0.8", True, id="case"),
        pytest.param("de, fr", False, id="tie"),
        pytest.param("fr, de;q=0.5", False, id="lower"),
        pytest.param("de-CH, de;q=0.5", False, id="another-tag"),
        pytest.param("*", False, id="any"),
        pytest.param("de;q=0", False, id="refused"),
        pytest.param("", False, id="none"),
        pytest.param("de;q=x", False, id="malformed"),
    ],
)
def test_by_content_language(accepted: str, cached: bool) -> None:
    edge = Model()
    edge.ask(answer(fields("Accept-Language", Content_Language="de")), {"Accept-Language": "en, de"})
    assert edge.at(1).ask(answer(), {"Accept-Language": accepted}).cached is cached
    assert edge.at(1).ask(lines={"Accept-Language": "de, en"}).cached, "and by the selection itself"


def test_by_content_language_where_the_first_request_prefers_it() -> None:
    edge = Model()
    edge.ask(
        answer(fields("Accept-Language, Foo", Content_Language="DE")), {"Accept-Language": "de, en;q=0.5", "Foo": "1"}
    )
    assert len(edge.entries) == 1
    assert edge.ask(lines={"Accept-Language": "de, en;q=0.5", "Foo": "1"}).cached
    assert edge.ask(lines={"Accept-Language": "de", "Foo": "1"}).cached
    assert not edge.ask(answer(), {"Accept-Language": "de", "Foo": "2"}).cached


@pytest.mark.parametrize("language", ["de, en", "", "en"])
def test_languages_that_are_not_the_preferred_one(language: str) -> None:
    edge = Model()
    edge.ask(answer(fields("Accept-Language", Content_Language=language)), {"Accept-Language": "en, de"})
    assert not edge.ask(answer(), {"Accept-Language": "de"}).cached


VALUES = st.text(alphabet='ab1,;=q.0 \t"*\n:-', max_size=12)


@given(
    st.dictionaries(st.sampled_from(["foo", "accept", "accept-language"]), VALUES),
    st.dictionaries(st.sampled_from(["foo", "accept", "accept-language"]), VALUES),
)
def test_keys_tell_selections_apart(one: dict[str, str], other: dict[str, str]) -> None:
    names = ("accept", "accept-language", "foo")
    a, b = vary.selecting(names, Headers(one.items())), vary.selecting(names, Headers(other.items()))
    assert (vary.secondary_key(a) == vary.secondary_key(b)) is (a == b)
    assert vary.matches(a, Headers(one.items()))
    assert vary.matches(a, Headers(other.items())) is (a == b)


@given(VALUES)
@example("0,;")
def test_normal_form_is_stable(value: str) -> None:
    for name in ("foo", "accept"):
        once = vary.normalise(name, value)
        assert vary.normalise(name, once) == once


@pytest.mark.parametrize("unit", ["a,", '"', ";q=1,", "a;", "\\"])
def test_linear(unit: str) -> None:
    began = time.process_time()
    vary.normalise("accept", unit * 20_000)
    vary.vary_names(Headers([("Vary", unit * 20_000)]))
    assert time.process_time() - began < 1


def test_homes_are_where_storage_puts() -> None:
    """Whatever the request, a response is found again by its own selection and language."""
    names = ["accept-language", "cookie"]
    for said in ("de", "fr, de;q=0.5", ""):
        for fields in ([], [("Content-Language", "de")]):
            request, response = Headers([("Accept-Language", said)]), Headers(fields)
            selected = vary.selecting(names, request)
            assert set(vary.storage(names, request, response)) <= set(vary.homes(selected, response))
    assert vary.homes((("cookie", None),), Headers([("Content-Language", "de")])) == ((("cookie", None),),)
