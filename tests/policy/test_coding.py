"""Content codings made by the edge: what, for whom, and what the record then says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.headers import Headers
from edgecache.http.stored import StoredFlag, StoredResponse
from edgecache.policy import coding
from edgecache.policy.site import SitePolicy
from tests.conformance.model import Model, answer

SITE = SitePolicy(compress_types=("text/*", "application/json"), compress_min_bytes=5)


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
    ],
)
def test_compressible(fields: dict[str, str], yes: bool) -> None:
    assert coding.compressible(stored(fields), SITE) is yes


@pytest.mark.parametrize(("body", "yes"), [(b"1234", False), (b"12345", True), (b"", True)])
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


@pytest.mark.parametrize(
    ("vary", "after"), [("accept-encoding", "accept-encoding"), ("*", "*"), (None, "Accept-Encoding")]
)
def test_vary(vary: str | None, after: str) -> None:
    assert coding.with_vary(Headers([("Vary", vary)] if vary else [])).get("vary") == after


@given(st.text(alphabet='gzipbr;q=0.51, *"', max_size=30))
def test_no_reader_raises(value: str) -> None:
    assert coding.choose(Headers([("Accept-Encoding", value)]), ("br", "gzip")) in ("br", "gzip", "identity")
