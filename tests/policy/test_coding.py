"""Content codings made by the edge: what, for whom, and what the record then says."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.http.stored import StoredFlag, StoredResponse
from edgecache.policy import coding, rules, storing, vary
from edgecache.policy.site import SitePolicy
from edgecache.policy.storing import Answer
from edgecache.policy.verdicts import DoNotStore, Reason
from tests.conformance.model import Model, answer

SITE = SitePolicy(compress_types=("text/*", "application/json"), compress_min_bytes=5, compress_max_bytes=9)

REQUEST = Request("GET", "http", "example.com", "/", Headers())


def stored(fields: dict[str, str] | None = None, *, status: int = 200, body: bytes = b"12345") -> StoredResponse:
    edge = Model()
    edge.ask(
        answer({"Cache-Control": "max-age=60", "Content-Type": "text/html", **(fields or {})}, status=status, body=body)
    )
    (record, _), *_ = edge.entries.values()
    return record


@pytest.mark.parametrize(
    ("fields", "yes"),
    [
        ({}, True),
        ({"Content-Type": "Text/CSS; charset=utf-8"}, True),
        ({"Content-Type": "application/json"}, True),
        ({"Content-Type": "image/png"}, False),
        ({"Content-Type": "junk"}, False),
        ({"Content-Type": ""}, False),
        ({"Content-Encoding": "gzip"}, False),
        ({"Content-Encoding": "identity"}, False),
        ({"Cache-Control": "max-age=60, no-transform"}, False),
        ({"Repr-Digest": "sha-256=:YQ==:"}, False),
        ({"Content-MD5": "x"}, False),
        ({"Vary": "Accept-Encoding"}, False),
        ({"Vary": "Cookie"}, True),
    ],
)
def test_compressible(fields: dict[str, str], yes: bool) -> None:
    assert coding.compressible(stored(fields), SITE) is yes


@pytest.mark.parametrize(
    ("body", "yes"), [(b"1234", False), (b"12345", True), (b"", True), (b"1" * 9, True), (b"1" * 10, False)]
)
def test_size(body: bytes, yes: bool) -> None:
    """Nothing is known of a size of 0 while the body is on its way."""
    assert coding.compressible(stored(body=body), SITE) is yes


def test_only_whole_successes() -> None:
    assert not coding.compressible(stored(status=404), SITE)
    assert not coding.compressible(stored(), SitePolicy())
    edge = Model()
    lines = {"Cache-Control": "max-age=60", "Content-Type": "text/html", "Content-Range": "bytes 0-4/9"}
    edge.ask(answer(lines, status=206, body=b"12345"), {"Range": "bytes=0-4"})
    (part, _), *_ = edge.entries.values()
    assert not coding.compressible(part, SITE)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("GZIP;Q=0.5", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip;q=1, br;q=0.9", "gzip"),
        ("zstd;q=0.3, gzip;q=0.2", "zstd"),
        ("*", "br"),
        ("br;q=0, *", "zstd"),
        ("*;q=0.5, gzip", "gzip"),
        ("identity", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity, gzip", "gzip"),
        ("gzip;q=0", "identity"),
        ("identity;q=0, compress", "identity"),
        ("gzip;q=2", "identity"),
        ("deflate", "identity"),
        ("gzip;q=0.5, gzip;q=0", "gzip"),
    ],
)
def test_choose(accepted: str | None, chosen: str) -> None:
    """RFC 9110 §12.5.3."""
    headers = Headers([] if accepted is None else [("Accept-Encoding", accepted)])
    assert coding.choose(headers, ("br", "zstd", "gzip")) == chosen


@pytest.mark.parametrize(("tag", "weak"), [('"a"', 'W/"a"'), ('W/"a"', 'W/"a"'), (None, None), ("bare", "bare")])
def test_encoded(tag: str | None, weak: str | None) -> None:
    plain = stored(
        {"Accept-Ranges": "bytes", "Content-Length": "5", "Vary": "Cookie", **({"ETag": tag} if tag else {})}
    )
    record = coding.encoded(plain, "br")
    headers = record.response.headers
    assert headers.get("etag") == weak
    assert headers.get("content-encoding") == "br"
    assert headers.get("vary") == "Cookie, Accept-Encoding"
    assert not {"content-length", "accept-ranges"} & {name.lower() for name, _ in headers}
    assert record.body_size == 0
    assert StoredFlag.ENCODED in record.flags
    assert StoredFlag.HAS_VARY in record.flags
    assert record.fresh_until == plain.fresh_until


def test_prepared() -> None:
    """A response that will have other forms says so from the first; any other is not touched."""
    plain = stored({"Vary": "Cookie"})
    record = coding.prepared(plain, SITE)
    assert record.selecting == (("accept-encoding", "=identity"), ("cookie", None))
    assert record.response.headers.get("vary") == "Cookie, Accept-Encoding"
    assert StoredFlag.HAS_VARY in record.flags
    assert coding.awaits_forms(record, SITE)
    assert not coding.awaits_forms(replace(record, body_size=3), SITE)
    assert not coding.awaits_forms(coding.encoded(record, "br"), SITE)
    assert coding.prepared(plain, SitePolicy()) is plain
    assert coding.shown(plain.response, plain) is plain.response
    assert coding.shown(plain.response, record) == record.response


@pytest.mark.parametrize(
    ("form", "accepted", "yes"),
    [
        ("identity", "br", True),
        ("identity", "identity;q=0", True),
        ("br", "br", True),
        ("br", "gzip", False),
        ("br", "identity, br;q=0.1", False),
        (None, "br", False),
        (None, "gzip", True),
    ],
)
def test_matches(form: str | None, accepted: str, yes: bool) -> None:
    """None: the origin's own choice, made for a request with "Accept-Encoding: gzip"."""
    selected: vary.Selecting = (("accept-encoding", "gzip"),) if form is None else (("accept-encoding", f"={form}"),)
    assert coding.matches(selected, Headers([("Accept-Encoding", accepted)])) is yes


def test_a_304_means_every_form() -> None:
    plain = coding.prepared(stored({"ETag": '"a"'}), SITE)
    br = replace(coding.encoded(plain, "br"), body_size=3)
    for news, about in (("=identity", plain), ("=br", br)):
        fresh, keep = storing.freshened(about, confirmation({"X-New": "1", "ETag": '"a"', "Vary": "Cookie"}))
        assert keep
        assert dict(fresh.selecting)["accept-encoding"] == news
        assert fresh.response.headers.get("vary") == "Cookie, Accept-Encoding"
        for form in (plain, br):
            after = coding.freshened(form, fresh)
            assert after is not None
            assert after.response.headers.get("x-new") == "1"
            assert after.response.headers.get("etag") == form.response.headers.get("etag")
            assert after.response.headers.get("content-encoding") == form.response.headers.get("content-encoding")
            assert (after.selecting, after.body_size) == (form.selecting, form.body_size)
            assert after.fresh_until == fresh.fresh_until
            assert (StoredFlag.ENCODED in after.flags) is (form is br)


def test_a_304_may_forbid_the_other_forms() -> None:
    plain = coding.prepared(stored({"ETag": '"a"'}), SITE)
    fresh, _ = storing.freshened(plain, confirmation({"Cache-Control": "max-age=60, no-transform"}))
    assert coding.freshened(coding.encoded(plain, "br"), fresh) is None


def test_head_says_nothing_of_a_form() -> None:
    """Its length and its tag are the identity form's (RFC 9111 §4.3.5)."""
    br = coding.encoded(coding.prepared(stored({"ETag": '"a"'}), SITE), "br")
    head = REQUEST.with_method("HEAD")
    response = Response(200, "OK", Headers([("ETag", '"b"')]))
    judged = rules.on_response(head, response, stored=br, request_time=0.0, now=0.0, site=SITE)
    assert judged == DoNotStore(Reason.METHOD)


def confirmation(fields: dict[str, str]) -> Answer:
    return Answer(REQUEST, Response(304, "Not Modified", Headers(fields.items())), 1e9, 1e9, SITE)


@pytest.mark.parametrize(
    ("names", "after"), [("accept-encoding", "accept-encoding"), ("*", "*"), (None, "Accept-Encoding")]
)
def test_vary(names: str | None, after: str) -> None:
    assert coding.with_vary(Headers([("Vary", names)] if names else [])).get("vary") == after


@given(st.text(alphabet='gzipbr;q=0.51, *"', max_size=30))
def test_no_reader_raises(value: str) -> None:
    assert coding.choose(Headers([("Accept-Encoding", value)]), ("br", "gzip")) in ("br", "gzip", "identity")
