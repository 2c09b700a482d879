"""The stored form of a record: what comes out is what went in, or nothing."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.store.diskrecord import CHUNK, Checksums, DiskRecordError, decode, decode_tag, encode
from edgecache.store.memory import Record

KEY = bytes(range(16))
records = st.builds(
    Record,
    head=st.binary(max_size=200),
    meta=st.binary(max_size=200),
    born_at=st.floats(allow_nan=False),
    fresh_until=st.floats(allow_nan=False),
    stale_until=st.floats(allow_nan=False),
    flags=st.integers(0, 2**32 - 1),
    status=st.integers(0, 999),
    fill_seq=st.integers(0, 2**64 - 1),
    tags=st.lists(st.integers(1, 2**64 - 1), max_size=5).map(tuple),
)


@given(records, st.binary(max_size=500), st.integers(1, 2**63))
def test_what_is_in_the_row_comes_back(record: Record, body: bytes, generation: int) -> None:
    value, tag = encode(KEY, record, generation=generation, body_size=len(body), body=body)
    found = decode(KEY, value, tag, in_file=False)
    assert (found.record, found.body, found.body_size, found.generation) == (record, body, len(body), generation)


@given(records, st.integers(1, 3 * CHUNK))
def test_what_has_a_file_comes_back(record: Record, size: int) -> None:
    checksums = tuple(range(-(-size // CHUNK)))
    value, tag = encode(KEY, record, generation=1, body_size=size, body=None, checksums=checksums)
    found = decode(KEY, value, tag, in_file=True)
    assert (found.record, found.body, found.checksums) == (record, None, checksums)


@given(records, st.binary(max_size=60), st.data())
def test_any_changed_bit_is_noticed(record: Record, body: bytes, data: st.DataObject) -> None:
    value, tag = encode(KEY, record, generation=1, body_size=len(body), body=body)
    row = bytearray(KEY + tag + value)
    at = data.draw(st.integers(0, len(row) * 8 - 1))
    row[at // 8] ^= 1 << at % 8
    cut = len(KEY) + len(tag)
    with pytest.raises(DiskRecordError):
        decode(bytes(row[:16]), bytes(row[cut:]), bytes(row[16:cut]), in_file=False)


@given(records, st.binary(min_size=1, max_size=60))
def test_every_shortened_row_is_noticed(record: Record, body: bytes) -> None:
    value, tag = encode(KEY, record, generation=1, body_size=len(body), body=body)
    for end in range(len(value)):
        with pytest.raises(DiskRecordError):
            decode(KEY, value[:end], tag, in_file=False)
    with pytest.raises(DiskRecordError):
        decode(KEY, value + b"x", tag, in_file=False)


@pytest.mark.parametrize(
    ("value", "tag"),
    [("text", b"\0" * 8), (b"", b"\0" * 8), (None, None), (7, b""), (b"\1", "text"), (b"\x80\x04N.", b"\0" * 8)],
    ids=["text", "empty", "null", "number", "text tag", "a pickle"],
)
def test_what_is_no_record_is_refused(value: object, tag: object) -> None:
    with pytest.raises(DiskRecordError):
        decode(KEY, value, tag, in_file=False)


@pytest.mark.parametrize("tag", [b"", b"\0" * 7, b"\0" * 9, "12345678", None])
def test_what_are_no_tags_is_refused(tag: object) -> None:
    with pytest.raises(DiskRecordError):
        decode_tag(tag)


def test_a_row_with_a_file_is_not_one_without() -> None:
    record = Record(b"", b"", 0.0, 0.0, 0.0, 0, 200, 0, ())
    value, tag = encode(KEY, record, generation=1, body_size=3, body=b"abc")
    with pytest.raises(DiskRecordError, match="add up"):
        decode(KEY, value, tag, in_file=True)


VERSION_1 = bytes.fromhex(
    "01ba56344800000000000000073ff00000000000004000000000000000400800000000000000000005"
    "00c8000000000000000300000002000000010000000068696d616263"
)


def test_version_1_is_read() -> None:
    """These octets are on people's disks: they stay readable for ever."""
    record = Record(b"hi", b"m", 1.0, 2.0, 3.0, 5, 200, 9, (1, 2**64 - 1))
    tag = bytes.fromhex("00000000000000090000000000000001ffffffffffffffff")
    found = decode(KEY, VERSION_1, tag, in_file=False)
    assert (found.record, found.body, found.generation) == (record, b"abc", 7)
    assert encode(KEY, record, generation=7, body_size=3, body=b"abc") == (VERSION_1, tag)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(DiskRecordError, match="version 2"):
        decode(KEY, b"\2" + VERSION_1[1:], bytes(8), in_file=False)


@given(st.lists(st.integers(0, 700_000), max_size=6))
def test_checksums_do_not_depend_on_the_pieces(sizes: list[int]) -> None:
    whole = bytes(i % 251 for i in range(1000)) * (sum(sizes) // 1000 + 1)
    whole = whole[: sum(sizes)]
    checksums, at = Checksums(), 0
    for size in sizes:
        checksums.add(whole[at : at + size])
        at += size
    assert checksums.all() == tuple(zlib.crc32(whole[i : i + CHUNK]) for i in range(0, len(whole), CHUNK))


def test_a_record_may_be_replaced_field_by_field() -> None:
    """Guards the layout: every field of `Record` is stored."""
    base = Record(b"h", b"m", 1.0, 2.0, 3.0, 4, 200, 5, (6,))
    for change in (
        {"head": b"H"},
        {"meta": b"M"},
        {"born_at": 9.0},
        {"fresh_until": 9.0},
        {"stale_until": 9.0},
        {"flags": 9},
        {"status": 404},
        {"fill_seq": 9},
        {"tags": (9,)},
    ):
        assert encode(KEY, replace(base, **change), generation=1, body_size=0, body=b"") != encode(  # type: ignore[arg-type]
            KEY, base, generation=1, body_size=0, body=b""
        )
