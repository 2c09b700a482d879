"""Records of a MaxMind-format database against maxminddb's own decoder, and files that mean harm."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from maxminddb.decoder import Decoder

from edgecache._native.mmdbdata import MOST_DEPTH, MOST_VALUES, Records
from tests.geodns.mmdbfile import pointer, value

VALUES = st.recursive(
    st.one_of(
        st.text(max_size=40),
        st.integers(0, (1 << 64) - 1),
        st.floats(allow_nan=False),
        st.booleans(),
        st.sampled_from(["x" * size for size in (28, 29, 30, 284, 285, 286, 65_820)]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=12,
)


def size(kind: int, count: int) -> bytes:
    """A control octet with what follows it, in the shortest form."""
    extended = bytes((kind - 7,)) if kind > 7 else b""
    first = 0 if kind > 7 else kind << 5
    for bits, least, octets in ((29, 29, 1), (30, 285, 2), (31, 65_821, 3)):
        if least <= count < least + (1 << 8 * octets):
            return bytes((first | bits,)) + extended + (count - least).to_bytes(octets, "big")
    return bytes((first | count,)) + extended


@given(VALUES)
@example({"a": [1.5, True, "x"], "b": {}})
def test_values(item: Any) -> None:
    data = value(item)
    assert Records(data).decode(0) == Decoder(data).decode(0)[0] == item


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(size(4, 3) + b"\0\1\2", b"\0\1\2", id="bytes"),
        pytest.param(size(5, 2) + b"\1\2", 258, id="uint16"),
        pytest.param(size(5, 0), 0, id="uint16 of no octets"),
        pytest.param(size(6, 4) + b"\xff" * 4, (1 << 32) - 1, id="uint32"),
        pytest.param(size(8, 4) + b"\xff\xff\xff\xfe", -2, id="int32"),
        pytest.param(size(8, 1) + b"\xfe", 254, id="int32, short"),
        pytest.param(size(9, 8) + b"\xff" * 8, (1 << 64) - 1, id="uint64"),
        pytest.param(size(10, 16) + b"\xff" * 16, (1 << 128) - 1, id="uint128"),
        pytest.param(size(14, 0), False, id="false"),
        pytest.param(size(15, 4) + b"\x3f\xc0\0\0", 1.5, id="float"),
        pytest.param(size(2, 285) + b"x" * 285, "x" * 285, id="text of two octets of size"),
        pytest.param(size(2, 65_821) + b"x" * 65_821, "x" * 65_821, id="text of three octets of size"),
        pytest.param(size(2, 3) + "é".encode() + b"!", "é!", id="UTF-8"),
    ],
)
def test_kinds(data: bytes, expected: object) -> None:
    assert Records(data).decode(0) == expected
    assert Decoder(data).decode(0)[0] == expected


@pytest.mark.parametrize(
    ("control", "target"),
    [
        pytest.param(bytes((0x20 | 5, 7)), (5 << 8) | 7, id="11 bits"),
        pytest.param(bytes((0x28 | 1, 2, 3)), ((1 << 16) | (2 << 8) | 3) + 2048, id="19 bits"),
        pytest.param(bytes((0x30, 0, 0, 9)), 9 + 526_336, id="27 bits"),
        pytest.param(bytes((0x38, 0, 0, 0, 20)), 20, id="32 bits"),
    ],
)
def test_pointers(control: bytes, target: int) -> None:
    data = control.ljust(target, b"\0") + value("there")
    assert Records(data).decode(0) == "there"
    assert Decoder(data).decode(0)[0] == "there"


def test_what_is_shared_is_decoded_once() -> None:
    shared = value({"a": ["b"]})
    records = Records(shared + pointer(0) + pointer(0))
    one, other = records.decode(len(shared)), records.decode(len(shared) + 5)
    assert one == {"a": ["b"]}
    assert one is other


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(size(2, 5) + b"abcd", id="text cut short"),
        pytest.param(b"\x5d", id="a size cut short"),
        pytest.param(b"\0", id="a kind cut short"),
        pytest.param(size(2, 1) + b"\xff", id="no UTF-8"),
        pytest.param(size(3, 7) + bytes(7), id="a double of 7"),
        pytest.param(size(15, 8) + bytes(8), id="a float of 8"),
        pytest.param(size(9, 9) + bytes(9), id="a uint64 of 9"),
        pytest.param(size(10, 17) + bytes(17), id="a uint128 of 17"),
        pytest.param(size(8, 5) + bytes(5), id="an int32 of 5"),
        pytest.param(size(12, 0), id="a cache"),
        pytest.param(size(13, 0), id="an end"),
        pytest.param(b"\0\xff", id="an unknown kind"),
        pytest.param(size(7, 1) + size(14, 1) + size(14, 1), id="a key that is no text"),
        pytest.param(size(7, 1) + value("a"), id="a key without a value"),
        pytest.param(pointer(100), id="a pointer out of the file"),
        pytest.param(b"\x38\0", id="a pointer cut short"),
        pytest.param(pointer(0), id="a pointer to itself"),
        pytest.param(size(11, 1) + pointer(0), id="a list of itself"),
        pytest.param(size(11, 1) * (MOST_DEPTH + 1) + value("x"), id="too deep"),
        pytest.param(size(11, MOST_VALUES) + size(14, 1) * MOST_VALUES, id="too many"),
        pytest.param(size(11, (1 << 24) - 1), id="many that are not there"),
    ],
)
def test_harm_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"file|size|nested|many|text|decode"):
        Records(data).decode(0)


def test_as_deep_and_as_many_as_allowed() -> None:
    Records(size(11, 1) * MOST_DEPTH + value("x")).decode(0)
    Records(size(11, MOST_VALUES - 1) + size(14, 1) * (MOST_VALUES - 1)).decode(0)


@given(st.binary(max_size=200), st.integers(0, 250))
def test_any_octets(data: bytes, offset: int) -> None:
    with suppress(ValueError):
        Records(data).decode(offset)
