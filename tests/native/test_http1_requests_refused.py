"""What RequestDecoder refuses, a row per rule: fed whole, octet by octet, and with another request after it."""

import pytest
from http1_events import NEXT, H, chunked, get, octets, read_requests

from edgecache._native.http1 import FramingError, Limits, RequestDecoder

REFUSED: list[tuple[str, int, bytes]] = [
    # RFC 9112 §2.2: lines and what stands before them
    ("2.2 bare LF after the request line", 400, b"GET / HTTP/1.1\n" + H + b"\r\n"),
    ("2.2 bare LF after a field line", 400, b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    ("2.2 bare LF as the empty line", 400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("2.2 bare LF before the request line", 400, b"\nGET / HTTP/1.1\r\n"),
    ("2.2 bare CR in the request line", 400, b"GET /\r HTTP/1.1\r\n"),
    ("2.2 bare CR after the version", 400, b"GET / HTTP/1.1\r\r\n"),
    ("2.2 bare CR in a value", 400, get(b"X: a\rb\r\n")),
    ("2.2 bare CR before the CRLF of a value", 400, get(b"X: a\r\r\n")),
    ("2.2 bare CR before the request line", 400, b"\rGET / HTTP/1.1\r\n"),
    ("2.2 CR CR LF as the empty line", 400, b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n"),
    ("2.2 too many empty lines first", 400, b"\r\n\r\n\r\n" + get()),
    ("2.2 space before the request line", 400, b" GET / HTTP/1.1\r\n"),
    ("2.2 space before the first field line", 400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("2.2 tab before the first field line", 400, b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n"),
    ("TLS ClientHello", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("NUL first", 400, b"\0"),
    # §2.3 versions
    ("2.3 HTTP/0.9 simple request", 505, b"GET /\r\n"),
    ("2.3 HTTP/0.9 named", 505, get(line=b"GET / HTTP/0.9")),
    ("2.3 lower-case name", 505, get(line=b"GET / http/1.1")),
    ("2.3 HTTP/2.0", 505, get(line=b"GET / HTTP/2.0")),
    ("2.3 HTTP/2 preface", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("2.3 HTTP/3.1", 505, get(line=b"GET / HTTP/3.1")),
    ("2.3 no minor", 400, get(line=b"GET / HTTP/1")),
    ("2.3 two-digit minor", 400, get(line=b"GET / HTTP/1.10")),
    ("2.3 two-digit major", 400, get(line=b"GET / HTTP/11.1")),
    ("2.3 letters", 400, get(line=b"GET / HTTP/x.y")),
    ("2.3 other protocol", 400, get(line=b"GET / ICAP/1.0")),
    ("2.3 space after", 400, get(line=b"GET / HTTP/1.1 ")),
    ("2.3 empty version", 400, get(line=b"GET / ")),
    # §3 request line
    ("3 no spaces", 400, b"GET\r\n"),
    ("3 two spaces after the method", 400, get(line=b"GET  / HTTP/1.1")),
    ("3 two spaces before the version", 400, get(line=b"GET /  HTTP/1.1")),
    ("3 tab instead of a space", 400, get(line=b"GET\t/ HTTP/1.1")),
    ("3 tab before the version", 400, get(line=b"GET /\tHTTP/1.1")),
    ("3 form feed before the version", 400, get(line=b"GET /\x0cHTTP/1.1")),
    ("3 method is no token", 400, get(line=b"G(T / HTTP/1.1")),
    ("3 method with obs-text", 400, get(line=b"G\xc9T / HTTP/1.1")),
    ("3 method with a colon", 400, get(line=b"GET: / HTTP/1.1")),
    ("3 empty method", 400, get(line=b" / HTTP/1.1")),
    # §3.2 targets
    ("3.2 space in the target", 400, get(line=b"GET /a b HTTP/1.1")),
    ("3.2 NUL in the target", 400, get(line=b"GET /a\0b HTTP/1.1")),
    ("3.2 DEL in the target", 400, get(line=b"GET /a\x7fb HTTP/1.1")),
    ("3.2 tab in the target", 400, get(line=b"GET /a\tb HTTP/1.1")),
    ("3.2 fragment", 400, get(line=b"GET /a#b HTTP/1.1")),
    ("3.2 fragment in absolute form", 400, get(line=b"GET http://a.example/#b HTTP/1.1")),
    ("3.2 no leading slash", 400, get(line=b"GET a HTTP/1.1")),
    ("3.2 query only", 400, get(line=b"GET ?a HTTP/1.1")),
    ("3.2.2 other scheme", 400, get(line=b"GET ftp://a.example/ HTTP/1.1")),
    ("3.2.2 no authority", 400, get(line=b"GET http:///x HTTP/1.1")),
    ("3.2.2 no authority, nor path", 400, get(line=b"GET http:// HTTP/1.1")),
    ("3.2.2 one slash", 400, get(line=b"GET http:/a.example HTTP/1.1")),
    ("3.2.2 userinfo", 400, get(line=b"GET http://u@a.example/ HTTP/1.1")),
    ("3.2.2 userinfo with password", 400, get(line=b"GET http://u:p@a.example/ HTTP/1.1")),
    ("3.2.2 bad port", 400, get(line=b"GET http://a.example:x/ HTTP/1.1")),
    ("3.2.2 backslash for slash", 400, get(line=b"GET http://a.example\\x HTTP/1.1")),
    ("3.2.2 Host still required", 400, b"GET http://a.example/ HTTP/1.1\r\n\r\n"),
    ("3.2.2 Host still checked", 400, get(line=b"GET http://a.example/ HTTP/1.1", host=b"Host: b/c\r\n")),
    ("3.2.3 authority form for GET", 400, get(line=b"GET a.example:80 HTTP/1.1")),
    ("3.2.3 CONNECT with a path", 400, get(line=b"CONNECT / HTTP/1.1")),
    ("3.2.3 CONNECT without a port", 400, get(line=b"CONNECT a.example HTTP/1.1")),
    ("3.2.3 CONNECT with an empty port", 400, get(line=b"CONNECT a.example: HTTP/1.1")),
    ("3.2.3 CONNECT with a path behind", 400, get(line=b"CONNECT a.example:80/x HTTP/1.1")),
    ("3.2.3 CONNECT with a scheme", 400, get(line=b"CONNECT http://a.example:80 HTTP/1.1")),
    ("3.2.4 asterisk for GET", 400, get(line=b"GET * HTTP/1.1")),
    ("3.2.4 asterisk with more", 400, get(line=b"OPTIONS *x HTTP/1.1")),
    # §3.2 Host
    ("3.2 no Host", 400, get(host=b"")),
    ("3.2 two Hosts", 400, get(b"Host: b.example\r\n")),
    ("3.2 two equal Hosts", 400, get(H)),
    ("3.2 two Hosts in two cases", 400, get(b"hOST: a.example\r\n")),
    ("3.2 two Hosts in HTTP/1.0", 400, get(H, b"GET / HTTP/1.0")),
    *(
        (f"3.2 Host {what}", 400, get(host=b"Host: " + value + b"\r\n"))
        for what, value in [
            ("empty", b""),
            ("blank", b" \t"),
            ("list", b"a.example, b.example"),
            ("with a space", b"a example"),
            ("with userinfo", b"u@a.example"),
            ("with a path", b"a.example/"),
            ("with a query", b"a.example?x"),
            ("with a fragment", b"a.example#x"),
            ("with a scheme", b"http://a.example"),
            ("with a backslash", b"a.example\\b"),
            ("with a quote", b'"a.example"'),
            ("with raw UTF-8", b"\xc3\xa9.example"),
            ("with a bad escape", b"a%zz.example"),
            ("with a cut-off escape", b"a.example%4"),
            ("of a port only", b":80"),
            ("with an empty port", b"a.example:"),
            ("with a port in letters", b"a.example:http"),
            ("with a signed port", b"a.example:+80"),
            ("with port 0", b"a.example:0"),
            ("with port 65536", b"a.example:65536"),
            ("with six digits of port", b"a.example:000080"),
            ("with two ports", b"a.example:80:80"),
            ("of bare IPv6", b"::1"),
            ("with an open bracket", b"[::1"),
            ("with empty brackets", b"[]"),
            ("with a bad literal", b"[::g]"),
            ("with too many groups", b"[1:2:3:4:5:6:7:8:9]"),
            ("with IPv4 in brackets", b"[127.0.0.1]"),
            ("with a zone", b"[fe80::1%25eth0]"),
            ("with IPvFuture", b"[v1.a]"),
            ("with a tail after the literal", b"[::1]a"),
            ("with a bad port after the literal", b"[::1]:"),
            ("with an over-long literal", b"[" + b"0" * 200 + b"::1]"),
        ]
    ),
    # §5 field lines
    ("5 no colon", 400, get(b"X\r\n")),
    ("5.1 space before the colon", 400, get(b"X : a\r\n")),
    ("5.1 tab before the colon", 400, get(b"X\t: a\r\n")),
    ("5.1 space before the colon of a length", 400, get(b"Content-Length : 5\r\n")),
    ("5.1 empty name", 400, get(b": a\r\n")),
    ("5.1 space in a name", 400, get(b"X Y: a\r\n")),
    ("5.1 NUL in a name", 400, get(b"X\0: a\r\n")),
    ("5.1 obs-text in a name", 400, get(b"X\xe9: a\r\n")),
    ("5.1 parenthesis in a name", 400, get(b"X(: a\r\n")),
    ("5.2 folded with a space", 400, get(b"X: a\r\n b\r\n")),
    ("5.2 folded with a tab", 400, get(b"X: a\r\n\tb\r\n")),
    ("5.2 folded empty", 400, get(b"X: a\r\n \r\n")),
    *((f"5.5 octet {c:#04x} in a value", 400, get(b"X: a%cb\r\n" % c)) for c in (0, 1, 8, 11, 12, 27, 31, 127)),
    # §6.1 Transfer-Encoding
    *(
        (f"6.1 {what}", status, get(b"".join(b"Transfer-Encoding: " + v + b"\r\n" for v in values)))
        for what, status, values in [
            ("unknown coding", 501, [b"gzip"]),
            ("identity", 501, [b"identity"]),
            ("unknown coding before chunked", 501, [b"gzip, chunked"]),
            ("unknown coding on its own line", 501, [b"gzip", b"chunked"]),
            ("unknown coding with parameters", 501, [b"x;y=z"]),
            ("longer word", 501, [b"xchunked"]),
            ("chunked not last", 400, [b"chunked, gzip"]),
            ("chunked not last, two lines", 400, [b"chunked", b"gzip"]),
            ("chunked twice", 400, [b"chunked, chunked"]),
            ("chunked twice, two lines", 400, [b"chunked", b"chunked"]),
            ("empty", 400, [b""]),
            ("trailing comma", 400, [b"chunked,"]),
            ("leading comma", 400, [b",chunked"]),
            ("chunked with parameters", 400, [b"chunked;a=b"]),
            ("chunked and a word", 400, [b"chunked x"]),
            ("quoted", 400, [b'"chunked"']),
            ("vertical tab before chunked", 400, [b"\x0bchunked"]),
            ("obs-text", 400, [b"chunked\xa0"]),
        ]
    ),
    ("6.1 in HTTP/1.0", 400, get(b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.0")),
    ("6.1 both lengths", 400, get(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
    ("6.1 both lengths, other order", 400, get(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")),
    ("6.1 both lengths, unknown coding", 400, get(b"Transfer-Encoding: gzip\r\nContent-Length: 5\r\n")),
    # §6.3 Content-Length
    ("6.3 two lengths", 400, get(b"Content-Length: 5\r\nContent-Length: 6\r\n")),
    ("6.3 two equal lengths", 400, get(b"Content-Length: 5\r\nContent-Length: 5\r\n")),
    *(
        (f"6.3 length {what}", status, get(b"Content-Length: " + value + b"\r\n"))
        for what, status, value in [
            ("empty", 400, b""),
            ("list", 400, b"5, 6"),
            ("equal list", 400, b"5, 5"),
            ("plus", 400, b"+5"),
            ("minus", 400, b"-5"),
            ("hexadecimal", 400, b"0x5"),
            ("letters", 400, b"five"),
            ("decimal point", 400, b"5.0"),
            ("underscore", 400, b"1_0"),
            ("inner space", 400, b"1 0"),
            ("superscript two", 400, b"\xb2"),
            ("2^63", 413, b"9223372036854775808"),
            ("2^64 + 5", 413, b"18446744073709551621"),
            ("1000 digits", 413, b"1" * 1000),
        ]
    ),
    # §7.1 chunks
    *(
        (f"7.1 chunk {what}", 400, chunked(body))
        for what, body in [
            ("size empty", b"\r\n"),
            ("size of white space", b" \r\n"),
            ("size plus", b"+5\r\nhello\r\n0\r\n\r\n"),
            ("size minus", b"-5\r\n"),
            ("size 0x", b"0x5\r\nhello\r\n"),
            ("size with a space before", b" 5\r\nhello\r\n"),
            ("size with a space behind", b"5 \r\nhello\r\n"),
            ("size with a tab behind", b"5\t\r\nhello\r\n"),
            ("size in letters", b"g\r\n"),
            ("size of 17 digits", b"00000000000000005\r\nhello\r\n"),
            ("size 2^63", b"8000000000000000\r\n"),
            ("size 2^64 - 1", b"ffffffffffffffff\r\n"),
            ("size with bare LF", b"5\nhello\r\n"),
            ("size with bare CR", b"5\rhello\r\n"),
            ("size with NUL", b"5\0\r\n"),
            ("data without CRLF", b"5\r\nhello0\r\n\r\n"),
            ("data with LF", b"5\r\nhello\n0\r\n\r\n"),
            ("data with CR and more", b"5\r\nhello\rx0\r\n\r\n"),
            ("data longer than said", b"4\r\nhello\r\n0\r\n\r\n"),
            ("last, then bare LF", b"0\r\n\n"),
            ("extension without a name", b"5;\r\nhello\r\n"),
            ("extension after a space", b"5 ;a\r\nhello\r\n"),
            ("extension with a space behind", b"5;a \r\nhello\r\n"),
            ("extension without a value", b"5;a=\r\nhello\r\n"),
            ("extension with a bad value", b"5;a=(\r\nhello\r\n"),
            ("extension with an open quote", b'5;a="b\r\nhello\r\n'),
            ("extension with an open escape", b'5;a="b\\\r\nhello\r\n'),
            ("extension with a tail", b'5;a="b"c\r\nhello\r\n'),
            ("extension with NUL", b'5;a="\0"\r\nhello\r\n'),
            ("extension with bare CR", b"5;a\rb\r\nhello\r\n"),
            ("extension with bare LF", b"5;a\nhello\r\n"),
            ("extension too long", b"5;" + b"a" * 300 + b"\r\nhello\r\n"),
        ]
    ),
    ("7.1.1 extensions out of proportion", 400, chunked((b"1;" + b"a" * 250 + b"\r\nx\r\n") * 300)),
    # §7.1.2 trailers
    *(
        (f"7.1.2 trailer {what}", 400, chunked(b"0\r\n" + lines + b"\r\n"))
        for what, lines in [
            ("Transfer-Encoding", b"Transfer-Encoding: chunked\r\n"),
            ("Content-Length", b"Content-Length: 5\r\n"),
            ("content-LENGTH", b"content-LENGTH: 5\r\n"),
            ("Host", b"Host: b.example\r\n"),
            ("folded", b"X: a\r\n b\r\n"),
            ("first line indented", b" X: a\r\n"),
            ("without a colon", b"X\r\n"),
            ("space before the colon", b"X : a\r\n"),
            ("NUL", b"X: \0\r\n"),
            ("bare LF", b"X: a\n"),
            ("bare CR", b"X: a\rb\r\n"),
        ]
    ),
    # RFC 9110 §10.1.1
    ("10.1.1 other expectation", 417, get(b"Expect: 200-ok\r\n")),
    ("10.1.1 empty expectation", 417, get(b"Expect:\r\n")),
    ("10.1.1 list", 417, get(b"Expect: 100-continue, x\r\n")),
    ("10.1.1 twice", 417, get(b"Expect: 100-continue\r\nExpect: 100-continue\r\n")),
    ("10.1.1 with a parameter", 417, get(b"Expect: 100-continue;a=b\r\n")),
    # limits (RFC 9112 §3, RFC 6585 §5)
    ("3 request line too long", 414, b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n"),
    ("3 method too long", 414, b"A" * 20000),
    ("5 field line too long", 431, get(b"X: " + b"a" * 20000 + b"\r\n")),
    ("5 field name too long", 431, get(b"X" * 20000)),
    ("5 head too long", 431, get(b"".join(b"X-%d: %s\r\n" % (i, b"a" * 8000) for i in range(9)))),
    ("5 too many fields", 431, get(b"X: a\r\n" * 128)),
    ("5 trailer line too long", 431, chunked(b"0\r\nX: " + b"a" * 20000 + b"\r\n\r\n")),
    ("5 too many trailers", 431, chunked(b"0\r\n" + b"X: a\r\n" * 33 + b"\r\n")),
    ("5 trailer section too long", 431, chunked(b"0\r\n" + (b"X: " + b"a" * 8000 + b"\r\n") * 9 + b"\r\n")),
]


@pytest.mark.parametrize(("status", "data"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(status: int, data: bytes) -> None:
    whole = read_requests([data])
    assert whole[-1][:2] == ("error", status), whole
    assert "\n" not in whole[-1][2]
    assert read_requests(octets(data)) == whole
    assert read_requests([data + NEXT]) == whole
    assert read_requests(octets(data + NEXT)) == whole
    assert sum(event[0] == "request" for event in whole) <= 1
    assert not any("smuggled" in str(event) for event in whole)


EXACT: list[tuple[str, Limits, int, bytes, bytes]] = [
    ("request_line", Limits(request_line=20), 414, b"GET /aaaaaa HTTP/1.1\r\n" + H + b"\r\n", b"/aaaaaa"),
    ("field_line", Limits(field_line=17), 431, get(b"X: aaaaaaaaaaaaaa\r\n"), b"X: a"),
    ("head", Limits(head=16 + 17 + 10 + 2), 431, get(b"X: aaaaa\r\n"), b"X: a"),
    ("head, first line", Limits(head=37), 414, get(line=b"GET / HTTP/1.1"), b"/" + b"a" * 24),
    ("fields", Limits(fields=2), 431, get(b"X: a\r\n"), b"X: a\r\n"),
    ("chunk_line", Limits(chunk_line=6), 400, chunked(b"1;aaaa\r\nx\r\n0\r\n\r\n"), b";a"),
    ("trailer line", Limits(field_line=26), 431, chunked(b"0\r\nX: %s\r\n\r\n" % (b"a" * 23)), b"X: a"),
    ("trailer section", Limits(head=64), 431, chunked(b"0\r\nX: %s\r\n\r\n" % (b"a" * 57)), b"X: a"),
    ("trailer_fields", Limits(trailer_fields=1), 431, chunked(b"0\r\nX: a\r\n\r\n"), b"X: a\r\n"),
]


@pytest.mark.parametrize(
    ("limits", "status", "fits", "part"), [row[1:] for row in EXACT], ids=[row[0] for row in EXACT]
)
def test_limits_are_exact(limits: Limits, status: int, fits: bytes, part: bytes) -> None:
    """One octet, or one line, more than fits is refused: `part` says where it is put."""
    if part in fits:
        over = fits.replace(part, part * 2 if part.endswith(b"\n") else part + b"a", 1)
    else:
        over = fits.replace(b"/", part, 1)
    for pieces in ([fits], octets(fits)):
        assert read_requests(pieces, limits)[-1][0] == "end"
    for pieces in ([over], octets(over)):
        assert read_requests(pieces, limits)[-1][:2] == ("error", status)


def test_limits_are_checked() -> None:
    for name in ("request_line", "field_line", "head", "chunk_line"):
        with pytest.raises(ValueError, match="limits"):
            Limits(**{name: 0})
    with pytest.raises(ValueError, match="limits"):
        Limits(fields=-1)
    with pytest.raises(ValueError, match="limits"):
        Limits(head=1 << 40)


def test_error_is_raised_again_and_nothing_is_kept() -> None:
    decoder = RequestDecoder(Limits())
    decoder.feed(b"GET / HTTP/1.1\r\nX\r\n" + b"x" * 1000)
    for _ in range(3):
        with pytest.raises(FramingError, match="colon") as caught:
            decoder.next()
        assert caught.value.status == 400
        assert caught.value.detail == str(caught.value)
    assert not decoder.in_message
    assert decoder.buffered == 0
    decoder.resume()
    with pytest.raises(FramingError):
        decoder.next()
