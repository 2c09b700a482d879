"""The shapes of field values (RFC 9110 §5.6, §8, §12.4.2)."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecache.http.fields import (
    DELTA_MAX,
    EntityTag,
    is_token,
    parse_delta,
    parse_digits,
    parse_entity_tag,
    parse_entity_tags,
    parse_media_type,
    parse_parameters,
    parse_qvalue,
    parse_weighted,
    split_lines,
    split_list,
    split_parameters,
    unquote,
)

ANY = st.text(alphabet=st.characters(max_codepoint=255))
SPECIAL = st.text(alphabet='",\\;= \tabW/*-', max_size=30)


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ("", []),
        (" , ,\t,", []),
        ("a", ["a"]),
        ("a,b , c\t,,d", ["a", "b", "c", "d"]),
        ('a="x, y", b', ['a="x, y"', "b"]),
        (r'a="x\", y", b', [r'a="x\", y"', "b"]),
        ('"a,b"c,d', ['"a,b"c', "d"]),
        ('a, "open, b', ["a", '"open, b']),
        ('a, "open\\', ["a", '"open\\']),
        ('a, ""', ["a", '""']),
        ("a\x0b", ["a\x0b"]),
    ],
)
def test_split_list(value: str, elements: list[str]) -> None:
    assert split_list(value) == elements


def test_split_lines_ends_an_open_quote_with_its_line() -> None:
    assert split_lines(['a, "b', "c, d"]) == ["a", '"b', "c", "d"]


@given(SPECIAL)
def test_split_list_loses_nothing_but_commas_and_white_space(value: str) -> None:
    kept = "".join(split_list(value))
    assert sorted(kept.replace(",", "").replace(" ", "").replace("\t", "")) == sorted(
        value.replace(",", "").replace(" ", "").replace("\t", "")
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('""', ""),
        ('"a b\t"', "a b\t"),
        (r'"a\"b\\c"', r'a"b\c'),
        ('"é"', "é"),
        ("a", None),
        ('"', None),
        ('"a', None),
        ('"a"b', None),
        (r'"a\"', None),
        ('"a\x00"', None),
        ('"a\n"', None),
    ],
)
def test_unquote(text: str, value: str | None) -> None:
    assert unquote(text) == value


@pytest.mark.parametrize(
    ("text", "result"), [("a-Z0!#", True), ("", False), ("a b", False), ("a,", False), ("é", False)]
)
def test_is_token(text: str, result: bool) -> None:
    assert is_token(text) is result


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("003600", 3600),
        ("2147483648", DELTA_MAX),
        ("99999999999", DELTA_MAX),
        ("9" * 10_000, DELTA_MAX),
        ("0" * 10_000, 0),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        ("1 ", None),
        ("1a", None),
        ("１", None),
        ("1_0", None),
    ],
)
def test_parse_delta(text: str, number: int | None) -> None:
    assert parse_delta(text) == number


def test_parse_digits_beyond_reason() -> None:
    assert parse_digits("9" * 18) == 10**18 - 1
    assert parse_digits("1" + "0" * 18) == 10**18


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        *(("0", 0), ("1", 1000), ("0.", 0), ("1.", 1000), ("0.5", 500), ("0.333", 333), ("1.000", 1000)),
        *(("", None), ("2", None), ("1.001", None), ("0.1234", None), (".5", None), ("-0", None), ("0,5", None)),
    ],
)
def test_parse_qvalue(text: str, weight: int | None) -> None:
    assert parse_qvalue(text) == weight


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ('"a"', EntityTag("a")),
        ('""', EntityTag("")),
        ('W/"a"', EntityTag("a", weak=True)),
        ('"é!\\"', EntityTag("é!\\")),
        ("a", None),
        ('w/"a"', None),
        ('W "a"', None),
        ('W\\"a"', None),
        ('"a b"', None),
        ('"a"b"', None),
        ('"a" ', None),
        ("", None),
    ],
)
def test_parse_entity_tag(text: str, tag: EntityTag | None) -> None:
    assert parse_entity_tag(text) == tag
    assert tag is None or str(tag) == text


@pytest.mark.parametrize(
    ("value", "opaque"),
    [
        ('"a", W/"b" ,"c"', ["a", "b", "c"]),
        ('"a,b", "c"', ["a,b", "c"]),
        ('a, "b", "c', ["b"]),
        ("*", []),
        ('"a\\", "b"', ["a\\", "b"]),
        ("", []),
    ],
)
def test_parse_entity_tags(value: str, opaque: list[str]) -> None:
    assert [tag.opaque for tag in parse_entity_tags(value)] == opaque


# RFC 9110 §8.8.3.2, its table
@pytest.mark.parametrize(
    ("one", "other", "strong", "weak"),
    [
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', '"1"', True, True),
    ],
)
def test_entity_tag_comparison(one: str, other: str, strong: bool, weak: bool) -> None:
    a, b = parse_entity_tag(one), parse_entity_tag(other)
    assert a is not None
    assert b is not None
    assert a.strongly_equals(b) is b.strongly_equals(a) is strong
    assert a.weakly_equals(b) is b.weakly_equals(a) is weak


@pytest.mark.parametrize(
    ("value", "essence", "parameters"),
    [
        ("text/html", "text/html", ()),
        ("Text/HTML;Charset=UTF-8", "text/html", (("charset", "UTF-8"),)),
        ('text/html ; charset="utf-8;x" ; a=b', "text/html", (("charset", "utf-8;x"), ("a", "b"))),
        ("text/html;;a=b;", "text/html", (("a", "b"),)),
    ],
)
def test_parse_media_type(value: str, essence: str, parameters: tuple[tuple[str, str], ...]) -> None:
    parsed = parse_media_type(value)
    assert parsed is not None
    assert (parsed.essence, parsed.parameters) == (essence, parameters)


@pytest.mark.parametrize(
    "value", ["", "text", "text/", "/html", "te xt/html", "text/html;a", "text/html;a=b c", 'a"b/c;d="e"']
)
def test_parse_media_type_refuses(value: str) -> None:
    assert parse_media_type(value) is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("", [""]),
        (" a ; b ;; c=d", ["a", "b", "c=d"]),
        ('a;b="x;y"; c', ["a", 'b="x;y"', "c"]),
        ('a="x;y";c', ['a="x;y";c']),
        ('a;b="open;c', ["a", 'b="open;c']),
    ],
)
def test_split_parameters(text: str, parts: list[str]) -> None:
    assert split_parameters(text) == parts


def test_parse_parameters_names_are_lower_case() -> None:
    assert parse_parameters(["Q=1", 'X="y z"']) == (("q", "1"), ("x", "y z"))


@pytest.mark.parametrize(
    ("value", "weighted"),
    [
        ("", []),
        ("en, de", [("en", 1000), ("de", 1000)]),
        ("EN ; Q=0.5,de;q=1", [("en", 500), ("de", 1000)]),
        ("text/html;level=1;q=0.3", [("text/html;level=1", 300)]),
        ("en;q=2", None),
        ("en, ;q=1", None),
        ("en;q=", None),
    ],
)
def test_parse_weighted(value: str, weighted: list[tuple[str, int]] | None) -> None:
    assert parse_weighted(value) == weighted


@given(ANY | SPECIAL)
@example('"\\')
def test_no_reader_raises(text: str) -> None:
    for read in (split_list, split_parameters, unquote, parse_delta, parse_qvalue, parse_entity_tag, parse_entity_tags):
        read(text)
    parse_media_type(text)
    parse_weighted(text)


@pytest.mark.parametrize(
    "unit", ["a,", '"', '\\"', '"a",', '"\\', ";q=", "a;", ',"', "W/", '"a\\",', " "], ids=lambda unit: ascii(unit)
)
def test_every_reader_is_linear(unit: str) -> None:
    readers = (split_list, split_parameters, unquote, parse_entity_tags, parse_media_type, parse_weighted)
    text = unit * 12_000
    began = time.process_time()
    for read in readers:
        read(text)
        read('"' + text)
        read("a;" + text)
    assert time.process_time() - began < 2
