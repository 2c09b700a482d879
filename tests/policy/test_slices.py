"""Slices: which are asked for, what their keys are made of, what answers are worth."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.headers import Headers
from edgecache.http.message import Peer, Request, Response
from edgecache.http.stored import Held, StoredFlag, StoredResponse
from edgecache.policy import rules, slices
from edgecache.policy.ranges import Span
from edgecache.policy.site import SitePolicy
from edgecache.policy.storing import Answer
from edgecache.policy.verdicts import Fetch, Store

NOW = 1_800_000_000.0
MIB = 1 << 20
SITE = SitePolicy(slice_bytes=4 * MIB, max_object_bytes=MIB)
DATE = "Fri, 15 Jan 2027 08:00:00 GMT"  # NOW
OLD = "Fri, 15 Jan 2027 07:00:00 GMT"
JUST_NOW = "Fri, 15 Jan 2027 07:59:30 GMT"
KEY = "http://www.example.test/v"


def request(*lines: tuple[str, str], method: str = "GET") -> Request:
    return Request(method, "http", "www.example.test", "/v", Headers(lines), (1, 1), Peer("127.0.0.1", 1, False))


def response(status: int = 200, **fields: str | None) -> Response:
    lines = {"ETag": '"1"', "Date": DATE, "Cache-Control": "max-age=60"}
    lines |= {name.replace("_", "-"): value for name, value in fields.items()}
    return Response(status, "", Headers((name, value) for name, value in lines.items() if value is not None))


def stored(**fields: str | None) -> StoredResponse:
    verdict = rules.on_response(
        request(), response(**fields), stored=None, request_time=NOW, now=NOW, site=replace(SITE, slice_bytes=MIB)
    )
    assert isinstance(verdict, Store)
    return verdict.stored


def made(total: int = 10 * MIB, size: int = 4 * MIB, unique: bytes = b"", key: str = KEY, **fields: str | None):
    return slices.manifest(stored(**fields), total, cache_key=key, slice_bytes=size, unique=unique)


VALIDATORS = [
    pytest.param({}, '"1"', id="strong tag"),
    pytest.param({"ETag": 'W/"1"'}, None, id="weak tag"),
    pytest.param({"ETag": 'W/"1"', "Last-Modified": OLD}, None, id="a date beside a weak tag (13.1.5)"),
    pytest.param({"ETag": "unquoted", "Last-Modified": OLD}, None, id="a malformed tag"),
    pytest.param({"ETag": None, "Last-Modified": OLD}, OLD, id="an old date"),
    pytest.param({"ETag": None, "Last-Modified": JUST_NOW}, None, id="a date within the minute (8.8.2.2)"),
    pytest.param({"ETag": None, "Last-Modified": "yesterday"}, None, id="no date"),
    pytest.param({"ETag": None}, None, id="nothing"),
]


@pytest.mark.parametrize(("fields", "expected"), VALIDATORS)
def test_what_goes_into_if_range(fields: dict[str, str | None], expected: str | None) -> None:
    manifest = made(**fields)
    assert slices.validator(manifest) == expected
    assert manifest.sliced is not None
    assert manifest.sliced.validated is (expected is not None)
    asked = slices.question(Headers([("Range", "bytes=0-"), ("If-None-Match", "*"), ("A", "b")]), manifest, 5, 9)
    assert asked.get("range") == "bytes=5-9"
    assert asked.get("if-range") == expected
    assert "if-none-match" not in asked
    assert asked.get("a") == "b"


DIFFERENT = [
    pytest.param({"ETag": '"2"'}, id="another tag"),
    pytest.param({"ETag": None, "Last-Modified": OLD}, id="a date"),
    pytest.param({"total": 10 * MIB + 1}, id="another length"),
    pytest.param({"size": 2 * MIB}, id="other slices"),
    pytest.param({"key": KEY + "2"}, id="another object"),
    pytest.param({"ETag": None, "unique": b"x"}, id="no validator"),
]


@pytest.mark.parametrize("change", DIFFERENT)
def test_other_versions_have_other_keys(change: dict[str, object]) -> None:
    one, other = made().sliced, made(**change).sliced  # type: ignore[arg-type]
    assert one is not None
    assert other is not None
    assert one.key != other.key
    assert made().sliced == one, "and the same version the same"
    assert made(ETag=None, unique=b"x").sliced != made(ETag=None, unique=b"y").sliced


def test_variants_have_other_keys() -> None:
    plain = stored()
    keys = set()
    for selecting in ((), (("accept", None),), (("accept", ""),), (("accept", "a"),), (("accep", "ta"),)):
        variant = slices.manifest(
            replace(plain, selecting=selecting), 10, cache_key=KEY, slice_bytes=MIB, unique=b""
        ).sliced
        assert variant is not None
        keys.add(variant.key)
    assert len(keys) == 5


def test_a_manifest_has_the_length_and_says_what_it_is() -> None:
    manifest = made(123, Content_Length="9")
    assert manifest.response.headers.get_all("content-length") == ["123"]
    assert manifest.body_size == 123
    assert StoredFlag.SLICED in manifest.flags


def test_an_origin_that_refuses_ranges_is_not_asked_for_any() -> None:
    sliced = made(Accept_Ranges="none").sliced
    assert sliced is not None
    assert not sliced.validated


@given(st.integers(1, 10**12), st.integers(1, 10**9))
def test_slices_cover_everything_once(total: int, size: int) -> None:
    sliced = replace(made().sliced, size=size)
    number = slices.count(sliced, total)
    assert slices.extent(sliced, total, 0)[0] == 0
    assert slices.extent(sliced, total, number - 1)[1] == total - 1
    for index in {0, number // 2, max(0, number - 2)}:
        first, last = slices.extent(sliced, total, index)
        assert first <= last
        assert last - first < size
        if index + 1 < number:
            assert slices.extent(sliced, total, index + 1)[0] == last + 1


FIRST = [
    pytest.param([("Range", "bytes=0-99")], "GET", Span(0, 4 * MIB - 1), id="the first"),
    pytest.param([("Range", "bytes=4194304-")], "GET", Span(4 * MIB, 8 * MIB - 1), id="the second"),
    pytest.param([("Range", "bytes=4194303-9999999")], "GET", Span(0, 4 * MIB - 1), id="across"),
    pytest.param([("Range", "bytes=-500")], "GET", Span(0, 4 * MIB - 1), id="the end: where is it?"),
    pytest.param([("Range", "bytes=0-1,5-6")], "GET", None, id="several"),
    pytest.param([("Range", "bytes=9-1")], "GET", None, id="malformed"),
    pytest.param([("Range", "lines=1-2")], "GET", None, id="another unit"),
    pytest.param([], "GET", None, id="none"),
    pytest.param([("Range", "bytes=0-99")], "HEAD", None, id="HEAD"),
    pytest.param([("Range", "bytes=0-99"), ("Authorization", "x")], "GET", None, id="credentials"),
]


@pytest.mark.parametrize(("lines", "method", "expected"), FIRST)
def test_which_slice_comes_first(lines: list[tuple[str, str]], method: str, expected: Span | None) -> None:
    asked = request(*lines, method=method)
    assert slices.first_asked(asked, SITE) == expected
    assert slices.first_asked(asked, replace(SITE, slice_bytes=0)) is None
    verdict = rules.on_request(asked, [], NOW, SITE)
    assert isinstance(verdict, Fetch)
    assert verdict.slice == expected
    if expected is not None:
        assert verdict.headers.get("range") == f"bytes={expected}"
        assert verdict.collapse


def arrived(**fields: str | None) -> slices.Begin | slices.Small | slices.Unsliceable:
    answer = Answer(request(("Range", "bytes=7-8")), response(206, **fields), NOW, NOW, SITE)
    return slices.arrived(answer, Span(0, 4 * MIB - 1), cache_key=KEY)


def test_a_first_slice_tells_of_the_whole() -> None:
    begin = arrived(Content_Range=f"bytes 0-4194303/{10 * MIB}", Content_Length=str(4 * MIB))
    assert isinstance(begin, slices.Begin)
    assert begin.stored.sliced == made().sliced
    assert begin.held == Held(0, 4 * MIB - 1, 10 * MIB)
    assert begin.response.status == begin.stored.response.status == 200
    assert "content-range" not in begin.response.headers
    assert begin.stored.body_size == 10 * MIB
    assert begin.stored.held is None


SMALL = [
    pytest.param("bytes 0-99/100", slices.Small, id="all of it"),
    pytest.param("bytes 0-1048575/1048576", slices.Small, id="as large as may be"),
    pytest.param("bytes 0-1048576/1048577", slices.Begin, id="too large for memory: one slice"),
    pytest.param("bytes 0-98/100", slices.Begin, id="less than there is"),
]


@pytest.mark.parametrize(("line", "kind"), SMALL)
def test_what_a_slice_holds_whole_is_an_ordinary_response(line: str, kind: type) -> None:
    got = arrived(Content_Range=line)
    assert isinstance(got, kind)
    assert not isinstance(got, slices.Unsliceable)
    assert "content-range" not in got.stored.response.headers
    assert got.stored.held is None


NO_USE = [
    pytest.param({"Content_Range": None}, id="no Content-Range"),
    pytest.param({"Content_Range": "bytes 0-99/*"}, id="length unknown"),
    pytest.param({"Content_Range": "bytes 1-99/10000000"}, id="begins elsewhere"),
    pytest.param({"Content_Range": "bytes 0-4194304/10000000"}, id="more than asked for"),
    pytest.param({"Content_Range": "bytes 0-99/10000000", "Content_Length": "99"}, id="another Content-Length"),
    pytest.param({"ETag": 'W/"1"'}, id="weak"),
    pytest.param({"Cache_Control": "no-store"}, id="not to be stored"),
    pytest.param({"Cache_Control": "private"}, id="private"),
    pytest.param({"Vary": "*"}, id="varies on everything"),
    pytest.param({"Accept_Ranges": "none"}, id="takes no ranges, it says"),
]


@pytest.mark.parametrize("fields", NO_USE)
def test_slices_that_are_no_use(fields: dict[str, str | None]) -> None:
    got = arrived(**{"Content_Range": "bytes 0-4194303/10000000", **fields})
    assert got == slices.Unsliceable(SITE.hit_for_pass_s)


PART = {"Content_Range": "bytes 100-199/1000"}
JUDGED = [
    pytest.param(206, PART, slices.Part(199), id="as asked"),
    pytest.param(206, {"Content_Range": "bytes 100-150/1000"}, slices.Part(150), id="fewer octets"),
    pytest.param(206, {"Content_Range": "bytes 100-199/*"}, slices.Part(199), id="length not said"),
    pytest.param(206, {"Content_Range": "bytes 100-199/1001"}, slices.Changed(), id="another length"),
    pytest.param(206, {**PART, "ETag": '"2"'}, slices.Changed(), id="another tag"),
    pytest.param(206, {**PART, "ETag": 'W/"1"'}, slices.Changed(), id="weak tag"),
    pytest.param(206, {**PART, "ETag": None}, slices.Changed(), id="no tag"),
    pytest.param(206, {**PART, "Content_Encoding": "gzip"}, slices.Changed(), id="another coding"),
    pytest.param(206, {"Content_Range": "bytes 0-199/1000"}, slices.Refused(502, again=False), id="begins elsewhere"),
    pytest.param(206, {"Content_Range": "bytes 100-200/1000"}, slices.Refused(502, again=False), id="too many"),
    pytest.param(206, {}, slices.Refused(502, again=False), id="no Content-Range"),
    pytest.param(206, {**PART, "Content_Length": "3"}, slices.Refused(502, again=False), id="another Content-Length"),
    pytest.param(200, {}, slices.FromStart(), id="no ranges, same version"),
    pytest.param(200, {"Content_Length": "1000"}, slices.FromStart(), id="no ranges, same length"),
    pytest.param(200, {"Content_Length": "1001"}, slices.Changed(), id="no ranges, another length"),
    pytest.param(200, {"ETag": '"2"'}, slices.Changed(), id="If-Range did not hold"),
    pytest.param(404, {}, slices.Changed(), id="404"),
    pytest.param(410, {}, slices.Changed(), id="410"),
    pytest.param(416, {"Content_Range": "bytes */50"}, slices.Changed(), id="416: it is shorter now"),
    pytest.param(412, {}, slices.Changed(), id="412"),
    pytest.param(500, {}, slices.Refused(500, again=True), id="500"),
    pytest.param(503, {}, slices.Refused(503, again=True), id="503"),
    pytest.param(429, {}, slices.Refused(429, again=True), id="429"),
    pytest.param(403, {}, slices.Refused(403, again=False), id="403"),
    pytest.param(304, {}, slices.Refused(502, again=False), id="304: nobody asked"),
    pytest.param(302, {}, slices.Refused(502, again=False), id="302"),
]


@pytest.mark.parametrize(("status", "fields", "expected"), JUDGED)
def test_what_an_answer_is_worth(status: int, fields: dict[str, str | None], expected: object) -> None:
    assert slices.judge(made(1000), response(status, **fields), 100, 199) == expected


BY_DATE = [
    pytest.param(206, {**PART, "Last-Modified": OLD}, slices.Part(199), id="the same date"),
    pytest.param(206, PART, slices.Part(199), id="left out, as If-Range lets it be (15.3.7)"),
    pytest.param(206, {**PART, "Last-Modified": DATE}, slices.Changed(), id="another date"),
    pytest.param(200, {"Last-Modified": OLD}, slices.FromStart(), id="the whole, same date"),
    pytest.param(200, {}, slices.Changed(), id="the whole, no date"),
]


@pytest.mark.parametrize(("status", "fields", "expected"), BY_DATE)
def test_what_an_answer_is_worth_by_date(status: int, fields: dict[str, str | None], expected: object) -> None:
    manifest = made(1000, ETag=None, **{"Last-Modified": OLD})
    assert slices.judge(manifest, response(status, ETag=None, **fields), 100, 199) == expected


def test_a_304_freshens_a_manifest_and_keeps_its_slices() -> None:
    before = made(Cache_Control="max-age=0")
    verdict = rules.on_response(
        request(), response(304, Cache_Control="max-age=99"), stored=before, request_time=NOW, now=NOW, site=SITE
    )
    assert isinstance(verdict, rules.Freshen)
    assert verdict.keep
    assert verdict.stored.sliced == before.sliced
    assert verdict.stored.body_size == before.body_size
    assert StoredFlag.SLICED in verdict.stored.flags
