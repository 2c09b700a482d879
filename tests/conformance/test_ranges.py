"""RFC 9110 §14, RFC 9111 §3.3 and §3.4: ranges of whole and of partial stored responses, and parts put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.headers import Headers
from edgecache.http.stored import Held
from edgecache.policy import ranges
from edgecache.policy.ranges import Piece, Span, Unsatisfiable
from edgecache.policy.site import SitePolicy
from edgecache.policy.verdicts import Reason
from tests.conformance.model import Model, Result, answer, date, unreachable

FRESH = ("Cache-Control", "max-age=100")
BODY = b"0123456789"
TAG = {"ETag": '"a"'}
MANY = bytes(range(256)) * 4


def part(first: int, last: int, complete: int | str = 10, body: bytes | None = None, **fields: str):
    lines = {"Cache-Control": "max-age=100", "Content-Range": f"bytes {first}-{last}/{complete}", **fields}
    return answer(lines, status=206, body=BODY[first : last + 1] if body is None else body)


def whole(asked: dict[str, str], body: bytes = BODY, **fields: str) -> Result:
    edge = Model()
    edge.ask(answer([FRESH, *fields.items()], body=body))
    return edge.at(1).ask(lines=asked)


@pytest.mark.parametrize(
    ("asked", "status", "octets", "content_range"),
    [
        pytest.param("bytes=0-0", 206, b"0", "bytes 0-0/10", id="first"),
        pytest.param("bytes=2-4", 206, b"234", "bytes 2-4/10", id="middle"),
        pytest.param("bytes=8-", 206, b"89", "bytes 8-9/10", id="open"),
        pytest.param("bytes=8-99999999999999999999", 206, b"89", "bytes 8-9/10", id="beyond-the-end"),
        pytest.param("bytes=-3", 206, b"789", "bytes 7-9/10", id="suffix"),
        pytest.param("bytes=-30", 206, BODY, "bytes 0-9/10", id="suffix-larger-than-all"),
        pytest.param("bytes=0-", 206, BODY, "bytes 0-9/10", id="all"),
        pytest.param("BYTES=0-1", 206, b"01", "bytes 0-1/10", id="unit-case"),
        pytest.param("bytes=10-", 416, b"", "bytes */10", id="behind-the-end"),
        pytest.param("bytes=-0", 416, b"", "bytes */10", id="nothing"),
        pytest.param("bytes=20-30, -0", 416, b"", "bytes */10", id="none-of-several"),
        pytest.param("bytes=20-30, 0-1", 206, b"01", "bytes 0-1/10", id="one-of-several"),
        # §14.2: what is malformed or of another unit is ignored
        pytest.param("bytes=4-2", 200, BODY, None, id="backwards"),
        pytest.param("bytes=4-2, 0-1", 200, BODY, None, id="one-backwards"),
        pytest.param("bytes=a-b", 200, BODY, None, id="no-numbers"),
        pytest.param("bytes=-", 200, BODY, None, id="no-ends"),
        pytest.param("bytes=", 200, BODY, None, id="no-range"),
        pytest.param("bytes", 200, BODY, None, id="unit-only"),
        pytest.param("bytes=0 - 1", 200, BODY, None, id="spaces"),
        pytest.param("lines=0-1", 200, BODY, None, id="another-unit"),
        pytest.param("bytes=--1", 200, BODY, None, id="minus"),
        # overlapping, touching and near ones are one
        pytest.param("bytes=0-3,2-5", 206, b"012345", "bytes 0-5/10", id="overlapping"),
        pytest.param("bytes=4-5,0-3", 206, b"012345", "bytes 0-5/10", id="touching"),
        pytest.param("bytes=0-0,9-9", 206, BODY, "bytes 0-9/10", id="near"),
    ],
)
def test_of_a_whole(asked: str, status: int, octets: bytes, content_range: str | None) -> None:
    result = whole({"Range": asked}, **TAG)
    assert (result.status, result.body, result.headers.get("content-range")) == (status, octets, content_range)
    assert result.headers.get("content-length") == str(len(octets))
    assert ("etag" in result.headers) is (status != 416)


def test_several_parts() -> None:
    """§14.6; the order asked for is kept."""
    result = whole({"Range": "bytes=900-901, 0-1, 500-501, 300-301,301-303"}, MANY, **{"Content-Type": "text/plain"})
    assert result.body == b"|".join([MANY[900:902], MANY[:2], MANY[500:502], MANY[300:304]])
    assert result.status == 206
    assert not {"content-type", "content-length", "content-range"} & {name.lower() for name, _ in result.headers}


def test_spans_as_text() -> None:
    assert [str(Span(*each)) for each in [(1, 2), (1, None), (None, None, 5)]] == ["1-2", "1-", "-5"]


def test_parts_on_the_wire() -> None:
    head = ranges.part_head("SEP", "text/plain", (0, 4), 10)
    assert head == b"\r\n--SEP\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-4/10\r\n\r\n"
    assert ranges.part_head("SEP", None, (0, 4), None) == b"\r\n--SEP\r\nContent-Range: bytes 0-4/*\r\n\r\n"
    assert ranges.multipart_end("SEP") == b"\r\n--SEP--\r\n"
    assert ranges.multipart_type("SEP") == "multipart/byteranges; boundary=SEP"


def test_too_many_ranges_get_the_whole() -> None:
    many = "bytes=" + ",".join(f"{n * 100}-{n * 100}" for n in range(17))
    assert whole({"Range": many}).status == 200
    assert whole({"Range": many.rpartition(",")[0]}, MANY * 4).status == 206


def test_two_range_lines_get_the_whole() -> None:
    edge = Model()
    edge.ask(answer([FRESH]))
    assert edge.ask(lines=[("Range", "bytes=0-1"), ("Range", "bytes=0-1")]).status == 200


@pytest.mark.parametrize("status", [203, 404])
def test_only_200_has_ranges(status: int) -> None:
    edge = Model()
    edge.ask(answer([FRESH], status=status))
    assert edge.ask(lines={"Range": "bytes=0-1"}).status == status


def test_an_empty_body_has_none() -> None:
    assert whole({"Range": "bytes=0-1"}, b"").status == 200


def test_only_get_has_ranges() -> None:
    edge = Model()
    edge.ask(answer([FRESH], body=BODY))
    result = edge.ask(lines={"Range": "bytes=0-1"}, method="HEAD")
    assert (result.status, result.headers.get("content-length")) == (200, "10")


@pytest.mark.parametrize(
    ("stored", "if_range", "status"),
    [
        pytest.param(TAG, '"a"', 206, id="tag"),
        pytest.param(TAG, '"b"', 200, id="another-tag"),
        pytest.param({"ETag": 'W/"a"'}, 'W/"a"', 200, id="weak"),
        pytest.param({}, '"a"', 200, id="no-tag"),
        pytest.param({"Last-Modified": date(-60)}, date(-60), 206, id="date"),
        pytest.param({"Last-Modified": date(-59)}, date(-59), 200, id="date-too-near-to-be-strong"),
        pytest.param({"Last-Modified": date(-60)}, date(-50), 200, id="later-date"),
        pytest.param({"Last-Modified": date(-60)}, date(-70), 200, id="earlier-date"),
        pytest.param({}, date(-60), 200, id="no-date"),
        pytest.param(TAG, "junk", 200, id="malformed"),
        pytest.param(TAG, '"a", "a"', 200, id="list"),
    ],
)
def test_if_range(stored: dict[str, str], if_range: str, status: int) -> None:
    """RFC 9110 §13.1.5: only a strong validator that matches lets Range count."""
    assert whole({"Range": "bytes=0-1", "If-Range": if_range}, **stored).status == status


def test_two_if_range_lines() -> None:
    edge = Model()
    edge.ask(answer([FRESH, *TAG.items()]))
    assert edge.ask(lines=[("Range", "bytes=0-1"), ("If-Range", '"a"'), ("If-Range", '"a"')]).status == 200


def test_a_range_behind_the_end_with_another_tag_gets_the_whole() -> None:
    assert whole({"Range": "bytes=99-", "If-Range": '"b"'}, **TAG).status == 200


def test_conditions_come_before_ranges() -> None:
    """RFC 9110 §13.2.2."""
    assert whole({"Range": "bytes=0-1", "If-None-Match": '"a"'}, **TAG).status == 304


# --- misses ---


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"Range": "bytes=2-4"}, "bytes=2-4"),
        ({"Range": "bytes=2-4", "If-Range": '"x"'}, "bytes=2-4"),
        ({"Range": "bytes=0-"}, None),
        ({"Range": "bytes=4-2"}, None),
        ({"Range": "lines=1"}, None),
    ],
)
def test_a_miss_asks_for_what_the_client_wants(asked: dict[str, str], sent: str | None) -> None:
    result = Model().ask(answer(body=BODY), asked)
    assert result.asked[0].headers.get("range") == sent
    assert ("if-range" in result.asked[0].headers) is (sent is not None and "If-Range" in asked)


def test_a_miss_that_the_origin_answers_whole() -> None:
    edge = Model()
    result = edge.ask(answer([FRESH], body=BODY), {"Range": "bytes=2-4"})
    assert (result.status, result.body) == (206, b"234")
    assert edge.ask().body == BODY


def test_head_takes_no_range_along() -> None:
    assert "range" not in Model().ask(answer(), {"Range": "bytes=2-4"}, method="HEAD").asked[0].headers


# --- parts ---


@pytest.mark.parametrize(
    ("asked", "octets"),
    [
        ("bytes=4-9", b"456789"),
        ("bytes=-6", b"456789"),
        ("bytes=6-8", b"678"),
        ("bytes=6-", b"6789"),
        ("bytes=-1", b"9"),
        ("bytes=4-50", b"456789"),
        ("bytes=3-5", None),
        ("bytes=-7", None),
        ("bytes=0-", None),
        ("bytes=5-6,8-8", None),
        ("bytes=99-", None),
        (None, None),
    ],
)
def test_of_a_part(asked: str | None, octets: bytes | None) -> None:
    """RFC 9111 §3.3: only what lies wholly within."""
    edge = Model()
    first = edge.ask(part(4, 9), {"Range": "bytes=4-9"})
    assert (first.status, first.body, first.headers.get("content-range")) == (206, b"456789", "bytes 4-9/10")
    result = edge.ask(answer([FRESH], body=BODY), {} if asked is None else {"Range": asked})
    assert result.cached is (octets is not None)
    if octets is not None:
        assert (result.status, result.body) == (206, octets)
        assert result.headers.get("content-length") == str(len(octets))


@pytest.mark.parametrize(
    ("asked", "cached"),
    [("bytes=4-5", True), ("bytes=4-6", True), ("bytes=4-7", False), ("bytes=4-", False), ("bytes=-1", False)],
)
def test_of_a_part_of_unknown_length(asked: str, cached: bool) -> None:
    edge = Model()
    edge.ask(part(4, 6, "*"), {"Range": "bytes=4-6"})
    result = edge.ask(answer(body=BODY), {"Range": asked})
    assert result.cached is cached
    assert not cached or result.headers.get("content-range") == f"bytes {asked[6:]}/*"


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        pytest.param({"Content-Range": "bytes 0-4/10"}, {}, id="unasked"),
        pytest.param({}, {"Range": "bytes=0-4"}, id="no-content-range"),
        pytest.param({"Content-Range": "bytes 4-0/10"}, {"Range": "bytes=0-4"}, id="backwards"),
        pytest.param({"Content-Range": "bytes 0-10/10"}, {"Range": "bytes=0-4"}, id="beyond"),
        pytest.param({"Content-Range": "bytes */10"}, {"Range": "bytes=0-4"}, id="unsatisfied"),
        pytest.param({"Content-Range": "lines 0-4/10"}, {"Range": "bytes=0-4"}, id="another-unit"),
        pytest.param(
            {"Content-Range": "bytes 0-4/10", "Content-Length": "3", "ETag": '"a"'}, {"Range": "bytes=0-4"}, id="length"
        ),
        pytest.param({"Content-Range": "bytes 0-9/10", "Content-Length": "11"}, {"Range": "bytes=0-"}, id="longer"),
        pytest.param(
            {"Content-Range": "bytes 0-4/10", "Content-Length": "3"}, {"Range": "bytes=0-4"}, id="shorter-inside"
        ),
        pytest.param({"Content-Type": "multipart/byteranges; boundary=x"}, {"Range": "bytes=0-1,5-6"}, id="several"),
    ],
)
def test_parts_that_are_not_stored(fields: dict[str, str], asked: dict[str, str]) -> None:
    edge = Model()
    result = edge.ask(answer({"Cache-Control": "max-age=100", **fields}, status=206, body=b"01234"), asked)
    assert result.status == 206, "passed on as it came"
    assert not edge.entries
    assert edge.at(1).ask(answer()).reason is Reason.URI_MISS


def test_a_part_that_turns_out_shorter_is_not_kept() -> None:
    edge = Model()
    edge.ask(part(4, 9, body=b"456"), {"Range": "bytes=4-9"})
    assert not edge.entries


def test_a_short_part_that_claims_the_end_without_validators() -> None:
    """docs/conformance.md: the octets count, not the numbers."""
    edge = Model()
    edge.ask(part(4, 9, body=b"45678", **{"Content-Length": "5"}), {"Range": "bytes=-5"})
    for asked, octets in [("bytes=-5", b"45678"), ("bytes=6-8", b"678"), ("bytes=6-", b"678"), ("bytes=-1", b"8")]:
        result = edge.ask(lines={"Range": asked})
        assert (result.status, result.body) == (206, octets)


def test_a_part_of_other_octets_than_asked_for_is_passed_on_as_it_came() -> None:
    edge = Model()
    result = edge.ask(part(0, 4), {"Range": "bytes=-5"})
    assert (result.status, result.body, result.headers.get("content-range")) == (206, b"01234", "bytes 0-4/10")
    assert edge.ask(lines={"Range": "bytes=1-2"}).body == b"12"


def test_a_stale_part_is_not_validated_but_fetched_anew() -> None:
    edge = Model()
    edge.ask(part(4, 9, **TAG), {"Range": "bytes=4-9"})
    result = edge.at(200).ask(answer([FRESH], body=BODY), {"Range": "bytes=4-5"})
    assert result.asked[0].headers.get("range") == "bytes=4-5"
    assert "if-none-match" not in result.asked[0].headers
    assert result.body == b"45"


def test_a_part_has_conditions_too() -> None:
    edge = Model()
    edge.ask(part(4, 9, **TAG), {"Range": "bytes=4-9"})
    assert edge.ask(lines={"If-None-Match": '"a"'}).status == 304


# --- completing (§3.3) and combining (§3.4) ---


@pytest.mark.parametrize(
    ("held", "asked", "sent"),
    [
        ((0, 4), None, "bytes=5-"),
        ((0, 4), "bytes=0-7", "bytes=5-7"),
        ((0, 4), "bytes=5-7", "bytes=5-7"),
        ((0, 4), "bytes=2-", "bytes=5-"),
        ((5, 9), None, "bytes=0-4"),
        ((5, 9), "bytes=2-6", "bytes=2-4"),
        ((5, 9), "bytes=0-4", "bytes=0-4"),
        ((3, 6), None, None),
        ((3, 6), "bytes=0-1", "bytes=0-1"),
        ((3, 6), "bytes=8-9", "bytes=8-9"),
        ((3, 6), "bytes=0-8", "bytes=0-8"),
        ((3, 6), "bytes=0-1,4-5", "bytes=0-1,4-5"),
    ],
)
def test_what_is_missing_is_asked_for(held: tuple[int, int], asked: str | None, sent: str | None) -> None:
    edge = Model()
    edge.ask(part(*held, **TAG), {"Range": f"bytes={held[0]}-{held[1]}"})
    result = edge.ask(answer([FRESH], body=BODY), {} if asked is None else {"Range": asked})
    assert result.reason is Reason.PARTIAL_MISS
    assert result.asked[0].headers.get("range") == sent
    completing = sent not in (None, asked) or (asked in ("bytes=5-7", "bytes=0-4") and held != (3, 6))
    assert result.asked[0].headers.get("if-range") == ('"a"' if completing else None)


def test_parts_with_the_same_strong_tag_become_the_whole() -> None:
    edge = Model()
    edge.ask(part(0, 4, **TAG, X="1", Old="1"), {"Range": "bytes=0-4"})
    result = edge.at(1).ask(part(5, 9, **TAG, X="2"))
    assert (result.status, result.body) == (200, BODY)
    assert (result.headers.get("x"), result.headers.get("old")) == ("2", "1")
    assert result.headers.get_all("content-length") == ["10"]
    assert "content-range" not in result.headers
    assert edge.ask().body == BODY
    assert edge.ask(lines={"Range": "bytes=3-6"}).body == b"3456"


def test_parts_become_a_larger_part() -> None:
    edge = Model()
    edge.ask(part(2, 4, **TAG), {"Range": "bytes=2-4"})
    result = edge.ask(part(5, 7, **TAG), {"Range": "bytes=3-7"})
    assert (result.status, result.body, result.headers.get("content-range")) == (206, b"34567", "bytes 3-7/10")
    assert edge.ask(lines={"Range": "bytes=2-7"}).body == b"234567"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(TAG, {"ETag": '"b"'}, id="another-tag"),
        pytest.param({"ETag": 'W/"a"'}, {"ETag": 'W/"a"'}, id="weak"),
        pytest.param({}, {}, id="no-tag"),
        pytest.param(TAG, {}, id="tag-not-repeated"),
        pytest.param(TAG, {**TAG, "Cache-Control": "no-store"}, id="no-store"),
        pytest.param(TAG, {**TAG, "Content-Range": "bytes 6-9/10"}, id="a-gap-between"),
        pytest.param(TAG, {**TAG, "Content-Range": "bytes 5-9/11"}, id="another-length"),
        pytest.param(TAG, {**TAG, "Content-Range": "junk"}, id="malformed"),
    ],
)
def test_parts_that_may_not_be_combined(before: dict[str, str], after: dict[str, str]) -> None:
    """§3.4: then the whole is asked for."""
    edge = Model()
    edge.ask(part(0, 4, **before), {"Range": "bytes=0-4"})
    calls = iter([part(5, 9, **after), answer([FRESH], body=b"other")])
    result = edge.ask(lambda request: next(calls)(request))
    assert (result.status, result.body) == (200, b"other")
    assert [each.headers.get("range") for each in result.asked] == ["bytes=5-", None]


@pytest.mark.parametrize("status", [416, 304])
def test_the_rest_is_not_there_any_more(status: int) -> None:
    edge = Model()
    edge.ask(part(0, 4, **TAG), {"Range": "bytes=0-4"})
    calls = iter([answer(TAG, status=status), answer([FRESH], body=b"other")])
    result = edge.ask(lambda request: next(calls)(request), {"Range": "bytes=0-7"})
    assert [each.headers.get("range") for each in result.asked] == ["bytes=5-7", "bytes=0-7"]
    assert (result.status, result.body) == (206, b"other")


def test_the_rest_comes_as_a_new_whole() -> None:
    """If-Range: the origin sends all of a representation that has changed."""
    edge = Model()
    edge.ask(part(0, 4, **TAG), {"Range": "bytes=0-4"})
    result = edge.ask(answer([FRESH, ("ETag", '"b"')], body=b"other"))
    assert (result.status, result.body) == (200, b"other")
    assert edge.ask().body == b"other"


def test_the_rest_cannot_be_had() -> None:
    edge = Model()
    edge.ask(part(0, 4, **TAG), {"Range": "bytes=0-4"})
    assert edge.ask(unreachable).status == 502
    assert edge.ask(answer(status=503)).status == 503
    assert edge.ask(lines={"Range": "bytes=0-4"}).body == b"01234", "what was there is there"


def test_a_whole_too_large_to_keep_is_not_completed() -> None:
    edge = Model(SitePolicy(max_object_bytes=9))
    edge.ask(part(0, 4, **TAG), {"Range": "bytes=0-4"})
    assert "range" not in edge.ask(answer(body=BODY)).asked[0].headers


# --- the arithmetic, against plain models ---

POSITIONS = st.integers(0, 30)


@given(st.lists(st.tuples(POSITIONS, POSITIONS), min_size=1, max_size=5), st.integers(0, 25))
def test_selected_octets_are_those_asked_for(asked: list[tuple[int, int]], complete: int) -> None:
    spans = [Span(min(pair), max(pair)) for pair in asked]
    wanted = {octet for span in spans for octet in range(span.first or 0, (span.last or 0) + 1) if octet < complete}
    selected = ranges.select(spans, complete)
    if isinstance(selected, Unsatisfiable):
        assert not wanted
        return
    sent = [octet for first, last in selected for octet in range(first, last + 1)]
    assert wanted <= set(sent) <= set(range(complete))
    assert len(sent) == len(set(sent)), "no octet twice"


@given(POSITIONS, POSITIONS, POSITIONS, POSITIONS)
def test_joined_octets_are_in_place(a: int, b: int, c: int, d: int) -> None:
    before, arrived = Held(min(a, b), max(a, b), None), Held(min(c, d), max(c, d), 40)
    text = bytes(range(40))
    joined = ranges.joined(before, arrived)
    if joined is None:
        assert before.last + 1 < arrived.first or arrived.last + 1 < before.first
        return
    held, pieces = joined
    bodies = {False: text[before.first : before.last + 1], True: text[arrived.first : arrived.last + 1]}
    whole = b"".join(bodies[piece.arrived][piece.offset : piece.offset + piece.size] for piece in pieces)
    assert whole == text[held.first : held.last + 1]
    assert (held.first, held.last, held.complete) == (min(a, b, c, d), max(a, b, c, d), 40)


def test_joined_takes_what_arrived_where_both_have_it() -> None:
    held, pieces = ranges.joined(Held(0, 9, 20), Held(5, 7, 20)) or (None, ())
    assert held == Held(0, 9, 20)
    assert pieces == (Piece(False, 0, 5), Piece(True, 0, 3), Piece(False, 8, 2))


@given(st.tuples(POSITIONS, POSITIONS), st.none() | st.tuples(POSITIONS, POSITIONS), st.integers(1, 31))
def test_held_and_the_gap_are_enough(held_at: tuple[int, int], asked: tuple[int, int] | None, more: int) -> None:
    complete = max(held_at) + more
    held = Held(min(held_at), max(held_at), complete)
    spans = () if asked is None else (Span(min(asked), max(asked)),)
    missing = ranges.gap(spans, held)
    if missing is None:
        return
    octets = missing.within(complete)
    assert octets is not None
    joined = ranges.joined(held, Held(*octets, complete))
    assert joined is not None
    wanted = spans[0].within(complete) if spans else (0, complete - 1)
    assert wanted is not None
    assert joined[0].first <= wanted[0] <= wanted[1] <= joined[0].last


@given(st.text(alphabet="bytes=0123456789-, \t*/", max_size=30))
def test_no_reader_raises(text: str) -> None:
    for span in ranges.parse_range(Headers([("Range", text)]), 16):
        span.within(7)
    ranges.parse_content_range(Headers([("Content-Range", text)]))
