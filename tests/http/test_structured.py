"""Structured fields (RFC 9651): what is read, and that anything else is refused whole."""

import time
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecache.http.structured import (
    Date,
    DisplayString,
    InnerList,
    Item,
    Token,
    parse_dictionary,
    parse_item,
    parse_list,
    serialize_string,
    serialize_token,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # §3.3.1, §4.2.4 Integers
        ("42", 42),
        ("-42", -42),
        ("-0", 0),
        ("0042", 42),
        ("999999999999999", 999_999_999_999_999),
        # §3.3.2 Decimals
        ("4.5", Decimal("4.5")),
        ("-0.123", Decimal("-0.123")),
        ("123456789012.123", Decimal("123456789012.123")),
        # §3.3.3 Strings
        ('"hello world"', "hello world"),
        (r'"a \"b\" \\ c"', r'a "b" \ c'),
        ('""', ""),
        # §3.3.4 Tokens
        ("foo123/456", Token("foo123/456")),
        ("*a:b~", Token("*a:b~")),
        # §3.3.5 Byte Sequences
        (":cHJldGVuZCB0aGlzIGlzIGJpbmFyeSBjb250ZW50Lg==:", b"pretend this is binary content."),
        ("::", b""),
        (":aGVsbG8:", b"hello"),
        (":iZ==:", b"\x89"),
        # §3.3.6 Booleans
        ("?1", True),
        ("?0", False),
        # §3.3.7 Dates
        ("@1659578233", Date(1659578233)),
        ("@-1", Date(-1)),
        # §3.3.8 Display Strings
        ('%"This is intended for display to %c3%bcsers."', DisplayString("This is intended for display to üsers.")),
        ('%"%22"', DisplayString('"')),
        # white space around is allowed: spaces only
        ("  1  ", 1),
    ],
)
def test_items(text: str, value: object) -> None:
    item = parse_item(text)
    assert item == Item(value)  # type: ignore[arg-type]
    assert item is not None
    assert type(item.value) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1\t", "\t1", "1 2", "1,2", "a=b", "--1", "-", "-a", "1000000000000000", "1.", ".1", "1.1234", "+1"),
        *("1234567890123.1", "1e3", "0x1", '"a', '"a\\b"', '"a\x7f"', '"é"', '"a\\"', "'a'", "9a", "é", "&", "!a"),
        *(":a", ":a:", ":a===:", ":=a:", ":a b=:", ":YQ==", "?", "?2", "?true", "@", "@1.5", "@a", "% ", '%"'),
        '%"%C3%BC"',
        *('%"%g0"', '%"%c3"', '%"%ff"', '%"é"', '%"a', "(1 2)", "1;", "1;=a", "1;A", "1; ", "1;a=", "1;a=(1)", "１"),
    ],
)  # fmt: skip
def test_malformed_items(text: str) -> None:
    assert parse_item(text) is None


def test_parameters() -> None:
    item = parse_item('text; a=1;  b; *c="x";a=?0')
    assert item == Item(Token("text"), {"a": False, "b": True, "*c": "x"})
    assert item is not None
    assert list(item.parameters) == ["a", "b", "*c"], "a repeated key keeps its place (§4.2.3.2)"


def test_white_space_before_a_semicolon_ends_the_item() -> None:
    assert parse_item("a ;b") is None


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", []),
        ("   ", []),
        ("1, 2\t,\t3", [Item(1), Item(2), Item(3)]),
        ("a;x=1,b", [Item(Token("a"), {"x": 1}), Item(Token("b"))]),
        ("()", [InnerList(())]),
        ("( 1  2 );q=0.5", [InnerList((Item(1), Item(2)), {"q": Decimal("0.5")})]),
        ("(a;b), c", [InnerList((Item(Token("a"), {"b": True}),)), Item(Token("c"))]),
    ],
)  # fmt: skip
def test_lists(text: str, members: list[object]) -> None:
    assert parse_list(text) == members


@pytest.mark.parametrize(
    "text",
    ["1,", "1, ", ",1", "1,,2", "1 2", "(1", "(1,2)", "(1\t2)", "(1)2", '("a""b")', "((1))", "1;", "\t1", "(", "()a"],
)
def test_malformed_lists(text: str) -> None:
    assert parse_list(text) is None


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", {}),
        ("a", {"a": Item(True)}),
        ("a;x=1, b=2", {"a": Item(True, {"x": 1}), "b": Item(2)}),
        ("a=1,b=(2 3);q", {"a": Item(1), "b": InnerList((Item(2), Item(3)), {"q": True})}),
        ("a=1,a=2", {"a": Item(2)}),
        ("a=?0", {"a": Item(False)}),
        ("*-._a9=1", {"*-._a9": Item(1)}),
    ],
)
def test_dictionaries(text: str, members: dict[str, object]) -> None:
    assert parse_dictionary(text) == members


def test_a_repeated_key_keeps_its_place() -> None:
    members = parse_dictionary("a=1,b=2,a=3")
    assert members is not None
    assert list(members) == ["a", "b"]


@pytest.mark.parametrize(
    "text", ["a=", "a,", "A=1", "a =1", "a= 1", "=1", "1=a", "a=1 b=2", "a=1;", "a,,b", "a=,b", "max-age=1, &&&"]
)
def test_malformed_dictionaries(text: str) -> None:
    assert parse_dictionary(text) is None


@given(
    st.text(alphabet=st.characters(max_codepoint=255), max_size=40)
    | st.text(alphabet='abA1-.,;:=?@%"\\()* \tc3f', max_size=30)
)
@example('%"%c3%28"')
@example(":====:")
def test_no_reader_raises(text: str) -> None:
    for read in (parse_item, parse_list, parse_dictionary):
        read(text)


BARE = (
    st.integers(-999_999_999_999_999, 999_999_999_999_999)
    | st.booleans()
    | st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=10)
)


@given(st.dictionaries(st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True), BARE, min_size=1, max_size=6))
def test_reads_what_is_written(members: dict[str, int | bool | str]) -> None:
    def text(value: int | bool | str) -> str:
        if isinstance(value, str):
            return serialize_string(value)
        return f"?{int(value)}" if isinstance(value, bool) else str(value)

    line = ", ".join(f"{key}={text(value)}" for key, value in members.items())
    assert parse_dictionary(line) == {key: Item(value) for key, value in members.items()}


@pytest.mark.parametrize(
    ("text", "string", "token"),
    [
        ("edgecache", '"edgecache"', "edgecache"),
        ('a "b\\', '"a \\"b\\\\"', '"a \\"b\\\\"'),
        ("é\n", '"??"', '"??"'),
        ("", '""', '""'),
        ("a/b", '"a/b"', "a/b"),
        ("a\n", '"a?"', '"a?"'),
    ],
)
def test_serialize(text: str, string: str, token: str) -> None:
    assert serialize_string(text) == string
    assert serialize_token(text) == token


@pytest.mark.parametrize("unit", ["a,", "a=1,", "(", "( ", ";a", '"', "\\", "(1) ", "1", "%c3", ":", " ", "a;a,"])
def test_every_reader_is_linear(unit: str) -> None:
    began = time.process_time()
    for text in (unit * 20_000, "(" + unit * 20_000, 'a="' + unit * 20_000, '%"' + unit * 20_000, ":" + unit * 20_000):
        for read in (parse_item, parse_list, parse_dictionary):
            read(text)
    assert time.process_time() - began < 2
