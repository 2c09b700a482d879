"""The stored form of a response: round trip, versions, damage."""

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.edge import record
from edgecache.http.headers import Headers
from edgecache.http.message import Response
from edgecache.http.stored import Held, Sliced, StoredFlag, StoredResponse

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABC-0123456789", min_size=1, max_size=20)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40).map(
    lambda value: value.strip(" \t")
)
TIME = st.floats(0, 4e9)
STORED = st.builds(
    StoredResponse,
    response=st.builds(
        Response,
        status=st.integers(200, 599),
        reason=VALUE,
        headers=st.lists(st.tuples(TOKEN, VALUE), max_size=12).map(Headers),
    ),
    selecting=st.lists(st.tuples(TOKEN, st.none() | VALUE), max_size=4).map(tuple),
    request_time=TIME,
    response_time=TIME,
    born_at=TIME,
    fresh_until=TIME,
    swr_until=TIME,
    sie_until=TIME,
    flags=st.sampled_from([StoredFlag(0), StoredFlag.HAS_VARY | StoredFlag.NO_CACHE]),
    body_size=st.integers(0, 2**40),
    held=st.none() | st.builds(Held, st.integers(0, 2**40), st.integers(0, 2**40), st.none() | st.integers(0, 2**40)),
)
SLICED = st.builds(
    lambda stored, sliced: dataclasses.replace(stored, held=None, sliced=sliced),
    STORED,
    st.builds(Sliced, st.binary(min_size=16, max_size=16), st.integers(1, 2**31), st.booleans()),
)


def decode(made, stored):
    return record.decode(
        made.head,
        made.meta,
        born_at=made.born_at,
        fresh_until=made.fresh_until,
        flags=made.flags,
        body_size=stored.body_size,
        soft_purged=False,
    )


@given(STORED)
def test_round_trip(stored):
    made = record.encode(stored, hidden=(), fill_seq=7, tags=(1, 2))
    assert decode(made, stored) == stored
    assert (made.fill_seq, made.tags, made.status) == (7, (1, 2), stored.response.status)
    assert made.stale_until == max(stored.swr_until, stored.sie_until)


@given(SLICED)
def test_a_manifest_says_itself_how_large_the_body_is(stored):
    made = record.encode(stored, hidden=(), fill_seq=7, tags=())
    assert decode(made, dataclasses.replace(stored, body_size=0)) == stored
    assert made.meta[0] == 2


@given(STORED | SLICED, st.data())
def test_damage_is_an_error_never_a_crash(stored, data):
    made = record.encode(stored, hidden=(), fill_seq=0, tags=())
    cut = data.draw(st.integers(0, len(made.meta)))
    broken = data.draw(st.binary(max_size=10))
    damaged = dataclasses.replace(made, meta=made.meta[:cut] + broken)
    with contextlib.suppress(record.RecordError):
        decode(damaged, stored)


def test_hidden_fields_are_kept_but_not_in_the_head_clients_get():
    response = Response(200, "OK", Headers([("Surrogate-Control", "max-age=9"), ("X", "1")]))
    stored = StoredResponse(response, (), 1.0, 2.0, 2.0, 3.0, 3.0, 3.0, StoredFlag(0), 5)
    made = record.encode(stored, hidden={"surrogate-control"}, fill_seq=0, tags=())
    assert made.head == b"HTTP/1.1 200 OK\r\nX: 1\r\n"
    assert decode(made, stored).response.headers.get("surrogate-control") == "max-age=9"


def test_version_1_reads_what_version_1_wrote():
    """Octets written by the first release; a later version must go on reading them."""
    head = b'HTTP/1.1 200 OK\r\nETag: "a"\r\n'
    meta = (
        bytes.fromhex(
            "01"
            "3ff0000000000000"
            "4000000000000000"
            "4010000000000000"
            "4014000000000000"
            "01"
            "0000000000000000"
            "0000000000000004"
            "ffffffffffffffff"
            "0001"
            "0006616363657074"
            "01"
            "00032a2f2a"
        )
        + b"Surrogate-Key: x\r\n"
    )
    stored = record.decode(head, meta, born_at=2.0, fresh_until=4.0, flags=32, body_size=5, soft_purged=True)
    assert stored == StoredResponse(
        Response(200, "OK", Headers([("ETag", '"a"'), ("Surrogate-Key", "x")])),
        (("accept", "*/*"),),
        1.0,
        2.0,
        2.0,
        4.0,
        4.0,
        5.0,
        StoredFlag.PARTIAL,
        5,
        Held(0, 4, None),
        soft_purged=True,
    )


def test_an_unknown_version_is_refused():
    stored = StoredResponse(Response(200, "OK", Headers()), (), 1, 1, 1, 1, 1, 1, StoredFlag(0), 0)
    made = record.encode(stored, hidden=(), fill_seq=0, tags=())
    with pytest.raises(record.RecordError, match="version 9"):
        decode(dataclasses.replace(made, meta=b"\x09" + made.meta[1:]), stored)
