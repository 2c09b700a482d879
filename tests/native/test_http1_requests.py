"""What RequestDecoder accepts, a row per rule, and how its calls behave: fed whole, octet by octet, and with another
request after it.
"""

import pytest
from http1_events import LIMITS, NEXT, chunked, get, octets, read_requests

from edgecache._native.http1 import MAX_EVENT, End, FramingError, Limits, RequestDecoder, RequestHead, encode_chunk


def request(
    method: str = "GET",
    target: str = "/",
    *,
    version: tuple[int, int] = (1, 1),
    lines: tuple[tuple[str, str], ...] = (("Host", "a.example"),),
    host: str = "a.example",
    scheme: str | None = None,
    path: str | None = None,
    length: int | None = 0,
    keep: bool = True,
    expect: bool = False,
    upgrade: str | None = None,
) -> tuple[object, ...]:
    path = target if path is None else path
    return ("request", method, target, version, lines, host, scheme, path, length, keep, expect, upgrade)


HOST = ("Host", "a.example")
TE = ("Transfer-Encoding", "chunked")
END = ("end", ())


def with_lines(*lines: tuple[str, str], **changes: object) -> tuple[object, ...]:
    return request(lines=(HOST, *lines), **changes)  # type: ignore[arg-type]


def body_of(data: bytes, trailers: tuple[tuple[str, str], ...] = ()) -> list[tuple[object, ...]]:
    head = request("POST", lines=(HOST, TE), length=None)
    return [head, *([("data", data)] if data else []), ("end", trailers)]


def tunnel(target: bytes, host: bytes = b"a.example") -> bytes:
    return b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


ACCEPTED: list[tuple[str, bytes, list[tuple[object, ...]]]] = [
    ("2.2 one empty line first", b"\r\n" + get(), [request(), END]),
    ("2.2 two empty lines first", b"\r\n\r\n" + get(), [request(), END]),
    ("2.3 HTTP/1.0", get(line=b"GET / HTTP/1.0"), [request(version=(1, 0), keep=False), END]),
    (
        "2.3 HTTP/1.0 without Host",
        b"GET / HTTP/1.0\r\n\r\n",
        [request(version=(1, 0), keep=False, lines=(), host=""), END],
    ),
    ("2.3 HTTP/1.2 is read as 1.1", get(line=b"GET / HTTP/1.2"), [request(), END]),
    ("2.3 HTTP/1.9 is read as 1.1", get(line=b"GET / HTTP/1.9"), [request(), END]),
    ("3 unknown method", get(line=b"M-X!~ / HTTP/1.1"), [request("M-X!~"), END]),
    ("3 method in lower case", get(line=b"get / HTTP/1.1"), [request("get"), END]),
    ("3.2.1 query", get(line=b"GET /a/b?c=d&e HTTP/1.1"), [request(target="/a/b?c=d&e"), END]),
    ("3.2.1 two slashes", get(line=b"GET //b.example/x HTTP/1.1"), [request(target="//b.example/x"), END]),
    ("3.2.1 raw UTF-8", get(line=b"GET /\xc3\xa9 HTTP/1.1"), [request(target="/\u00c3\u00a9"), END]),
    ("3.2.1 octets outside RFC 3986", get(line=b'GET /<>"{}|^`\\[] HTTP/1.1'), [request(target='/<>"{}|^`\\[]'), END]),
    (
        "3.2.2 absolute form wins over Host",
        get(line=b"GET http://B.example:81/x?y HTTP/1.1"),
        [request(target="http://B.example:81/x?y", host="B.example:81", scheme="http", path="/x?y"), END],
    ),
    (
        "3.2.2 scheme in capitals, no path",
        get(line=b"GET HTTPS://b.example HTTP/1.1"),
        [request(target="HTTPS://b.example", host="b.example", scheme="https", path="/"), END],
    ),
    (
        "3.2.2 query without a path",
        get(line=b"GET http://b.example?x=/y HTTP/1.1"),
        [request(target="http://b.example?x=/y", host="b.example", scheme="http", path="/?x=/y"), END],
    ),
    (
        "3.2.2 at sign in the path",
        get(line=b"GET http://b.example/u@v HTTP/1.1"),
        [request(target="http://b.example/u@v", host="b.example", scheme="http", path="/u@v"), END],
    ),
    (
        "3.2.2 absolute form in HTTP/1.0 without Host",
        b"GET http://b.example/ HTTP/1.0\r\n\r\n",
        [
            request(
                target="http://b.example/",
                version=(1, 0),
                lines=(),
                host="b.example",
                scheme="http",
                path="/",
                keep=False,
            ),
            END,
        ],
    ),
    (
        "3.2.2 address in brackets",
        get(line=b"GET http://[::1]:8080/x HTTP/1.1"),
        [request(target="http://[::1]:8080/x", host="[::1]:8080", scheme="http", path="/x"), END],
    ),
    ("3.2.3 CONNECT", tunnel(b"b.example:443"), [request("CONNECT", "b.example:443", path=""), END]),
    (
        "3.2.3 CONNECT to an address",
        tunnel(b"[2001:db8::1]:443"),
        [request("CONNECT", "[2001:db8::1]:443", path=""), END],
    ),
    ("3.2.4 OPTIONS *", get(line=b"OPTIONS * HTTP/1.1"), [request("OPTIONS", "*"), END]),
    ("3.2.4 OPTIONS on a path", get(line=b"OPTIONS /a HTTP/1.1"), [request("OPTIONS", "/a"), END]),
    (
        "3.2.4 OPTIONS on an absolute form without a path",
        get(line=b"OPTIONS http://b.example HTTP/1.1"),
        [request("OPTIONS", "http://b.example", host="b.example", scheme="http", path="*"), END],
    ),
    *(
        (
            f"3.2 Host {value}",
            get(host=b"Host: " + value.encode() + b"\r\n"),
            [request(lines=(("Host", value),), host=value), END],
        )
        for value in [
            "localhost",
            "a.example:80",
            "a.example:65535",
            "127.0.0.1:8080",
            "[::1]",
            "[2001:db8::1]:443",
            "[::ffff:1.2.3.4]",
            "a_b.example",
            "a%41.example",
            "a!$&'()*+,;=.example",
        ]
    ),
    ("5.1 name in the case sent", get(b"x-FoO: a\r\n"), [with_lines(("x-FoO", "a")), END]),
    ("5.1 known name in lower case", get(b"accept: a\r\n"), [with_lines(("accept", "a")), END]),
    ("5.1 every tchar", get(b"!#$%&'*+-.^_`|~09azAZ: a\r\n"), [with_lines(("!#$%&'*+-.^_`|~09azAZ", "a")), END]),
    ("5.1 no white space after the colon", get(b"X:a\r\n"), [with_lines(("X", "a")), END]),
    ("5.1 white space around the value", get(b"X: \t a b\t \r\n"), [with_lines(("X", "a b")), END]),
    ("5.1 colons in the value", get(b"X: :a:\r\n"), [with_lines(("X", ":a:")), END]),
    ("5.5 empty value", get(b"X:\r\nY: \r\n"), [with_lines(("X", ""), ("Y", "")), END]),
    ("5.5 tab inside a value", get(b"X: a\tb\r\n"), [with_lines(("X", "a\tb")), END]),
    ("5.5 obs-text", get(b"X: \x80\xe9\xff\r\n"), [with_lines(("X", "\x80\xe9\xff")), END]),
    (
        "5.3 repeated fields in order",
        get(b"X: 1\r\nY: 2\r\nX: 3\r\n"),
        [with_lines(("X", "1"), ("Y", "2"), ("X", "3")), END],
    ),
    ("5 as many fields as allowed", get(b"X: a\r\n" * 127), [with_lines(*([("X", "a")] * 127)), END]),
    (
        "6.2 body",
        get(b"Content-Length: 5\r\n") + b"hello",
        [with_lines(("Content-Length", "5"), length=5), ("data", b"hello"), END],
    ),
    ("6.2 length 0", get(b"content-length: 0\r\n"), [with_lines(("content-length", "0")), END]),
    (
        "6.2 leading zeros",
        get(b"CONTENT-LENGTH:\t005 \r\n") + b"\r\n\r\n\n",
        [with_lines(("CONTENT-LENGTH", "005"), length=5), ("data", b"\r\n\r\n\n"), END],
    ),
    (
        "6.2 body in HTTP/1.0",
        get(b"Content-Length: 1\r\n", b"POST / HTTP/1.0") + b"x",
        [
            request("POST", version=(1, 0), lines=(HOST, ("Content-Length", "1")), length=1, keep=False),
            ("data", b"x"),
            END,
        ],
    ),
    ("7.1 no chunks", chunked(b"0\r\n\r\n"), body_of(b"")),
    ("7.1 two chunks", chunked(b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), body_of(b"hello!")),
    ("7.1 chunk of CRLF", chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), body_of(b"\r\n\r\n")),
    ("7.1 size in both cases", chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), body_of(b"0123456789" * 2)),
    ("7.1 leading zeros", chunked(b"0000000000000005\r\nhello\r\n0000\r\n\r\n"), body_of(b"hello")),
    (
        "7.1.1 extensions dropped",
        chunked(b'5;a;b=c; d = "e\\"\x80;f" ;g\r\nhello\r\n0;h\r\n\r\n'),
        body_of(b"hello"),
    ),
    (
        "7.1.2 trailers",
        chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1 \r\ny: \xe9\r\nX-Sum:\r\n\r\n"),
        body_of(b"hello", (("X-Sum", "1"), ("y", "\xe9"), ("X-Sum", ""))),
    ),
    (
        "7.1.2 void trailers left out",
        chunked(
            b"0\r\nConnection: close\r\nX: 1\r\nUpgrade: x\r\nTrailer: y\r\nTE: a\r\nKeep-Alive: 1\r\nExpect: x\r\n"
            b"Content-Encoding: gzip\r\nContent-Type: a/b\r\nContent-Range: x\r\nProxy-Connection: close\r\n\r\n"
        ),
        body_of(b"", (("X", "1"),)),
    ),
    (
        "7 chunked in capitals",
        get(b"TRANSFER-ENCODING: \tCHUNKED \r\n") + b"0\r\n\r\n",
        [with_lines(("TRANSFER-ENCODING", "CHUNKED"), length=None), END],
    ),
    (
        "7.6.1 close",
        get(b"Connection: close\r\n"),
        [with_lines(("Connection", "close"), keep=False), END],
    ),
    (
        "9.3 close in a list and in capitals",
        get(b"Connection: te,\tCLOSE , x\r\n"),
        [with_lines(("Connection", "te,\tCLOSE , x"), keep=False), END],
    ),
    (
        "9.3 close on another line",
        get(b"Connection: keep-alive\r\nconnection: close\r\n"),
        [with_lines(("Connection", "keep-alive"), ("connection", "close"), keep=False), END],
    ),
    (
        "9.3 closed is another option",
        get(b"Connection: closed, not-close\r\n"),
        [with_lines(("Connection", "closed, not-close")), END],
    ),
    (
        "9.3 HTTP/1.0 keep-alive",
        get(b"Connection: Keep-Alive\r\n", b"GET / HTTP/1.0"),
        [with_lines(("Connection", "Keep-Alive"), version=(1, 0)), END],
    ),
    (
        "9.3 HTTP/1.0 keep-alive and close",
        get(b"Connection: keep-alive, close\r\n", b"GET / HTTP/1.0"),
        [with_lines(("Connection", "keep-alive, close"), version=(1, 0), keep=False), END],
    ),
    (
        "10.1.1 expect",
        get(b"Expect: 100-Continue\r\nContent-Length: 1\r\n") + b"x",
        [with_lines(("Expect", "100-Continue"), ("Content-Length", "1"), length=1, expect=True), ("data", b"x"), END],
    ),
    (
        "10.1.1 expect is ignored in HTTP/1.0",
        get(b"Expect: 100-continue\r\n", b"GET / HTTP/1.0"),
        [with_lines(("Expect", "100-continue"), version=(1, 0), keep=False), END],
    ),
    (
        "7.8 upgrade",
        get(b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        [with_lines(("Upgrade", "websocket"), ("Connection", "Upgrade"), upgrade="websocket"), END],
    ),
    (
        "7.8 upgrade on two lines",
        get(b"Upgrade: a/1\r\nConnection: x, upgrade\r\nUpgrade: b\r\n"),
        [
            with_lines(("Upgrade", "a/1"), ("Connection", "x, upgrade"), ("Upgrade", "b"), upgrade="a/1, b"),
            END,
        ],
    ),
    ("7.8 upgrade not named by Connection", get(b"Upgrade: x\r\n"), [with_lines(("Upgrade", "x")), END]),
    (
        "7.8 upgrade in HTTP/1.0",
        get(b"Upgrade: x\r\nConnection: upgrade\r\n", b"GET / HTTP/1.0"),
        [with_lines(("Upgrade", "x"), ("Connection", "upgrade"), version=(1, 0), keep=False), END],
    ),
    (
        "7.8 empty upgrade",
        get(b"Upgrade:\r\nConnection: upgrade\r\n"),
        [with_lines(("Upgrade", ""), ("Connection", "upgrade")), END],
    ),
]


@pytest.mark.parametrize(("data", "events"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_accepted(data: bytes, events: list[tuple[object, ...]]) -> None:
    after = [request("GET", "/smuggled", lines=(("Host", "evil.example"),), host="evil.example"), END]
    assert read_requests([data]) == events
    assert read_requests(octets(data)) == events
    assert read_requests([data + NEXT]) == events + after
    assert read_requests(octets(data + NEXT)) == events + after


def test_a_pipelined_request_waits_for_resume() -> None:
    decoder = RequestDecoder(Limits())
    decoder.feed(get() + NEXT)
    assert decoder.in_message
    assert isinstance(decoder.next(), RequestHead)
    with pytest.raises(RuntimeError):
        decoder.resume()
    assert isinstance(decoder.next(), End)
    assert decoder.next() is None
    assert decoder.buffered == len(NEXT)
    assert not decoder.in_message
    decoder.resume()
    assert decoder.in_message
    head = decoder.next()
    assert isinstance(head, RequestHead)
    assert head.path == "/smuggled"


def test_in_message() -> None:
    decoder = RequestDecoder(Limits())
    assert not decoder.in_message
    decoder.feed(b"\r\n\r")
    assert decoder.next() is None
    assert not decoder.in_message
    decoder.feed(b"\nG")
    assert decoder.in_message
    assert decoder.next() is None
    assert decoder.in_message
    decoder.feed(get(b"Content-Length: 2\r\n")[1:])
    assert isinstance(decoder.next(), RequestHead)
    decoder.feed(b"x")
    assert decoder.next() == b"x"
    assert decoder.in_message
    decoder.feed(b"y")
    assert decoder.next() == b"y"
    assert decoder.in_message
    assert isinstance(decoder.next(), End)
    assert not decoder.in_message


def test_take_rest() -> None:
    decoder = RequestDecoder(Limits())
    decoder.feed(get(b"Upgrade: x\r\nConnection: upgrade\r\n") + b"\x00raw")
    assert isinstance(decoder.next(), RequestHead)
    assert isinstance(decoder.next(), End)
    assert decoder.take_rest() == b"\x00raw"
    assert decoder.take_rest() == b""
    assert decoder.next() is None
    decoder.feed(b"more")
    assert decoder.next() is None
    assert decoder.take_rest() == b"more"
    assert not decoder.in_message


def test_body_octets_are_not_copied_where_the_whole_object_is_body() -> None:
    decoder = RequestDecoder(Limits())
    decoder.feed(get(b"Content-Length: 600000\r\n", b"POST / HTTP/1.1"))
    assert isinstance(decoder.next(), RequestHead)
    piece = b"x" * 200000
    decoder.feed(piece)
    assert decoder.next() is piece
    assert decoder.buffered == 0
    big = b"y" * 400000
    decoder.feed(big)
    first = decoder.next()
    assert isinstance(first, bytes)
    assert len(first) == 262144
    assert decoder.buffered == 400000 - 262144
    second = decoder.next()
    assert isinstance(second, bytes)
    assert first + second == big
    assert isinstance(decoder.next(), End)


def test_common_names_and_methods_make_no_new_text() -> None:
    def head() -> RequestHead:
        decoder = RequestDecoder(Limits())
        decoder.feed(get(b"User-Agent: a\r\nif-none-match: b\r\n"))
        event = decoder.next()
        assert isinstance(event, RequestHead)
        return event

    one, two = head(), head()
    assert one.method is two.method
    assert all(a[0] is b[0] for a, b in zip(one.lines, two.lines, strict=True))


def test_feed_takes_bytes_only() -> None:
    decoder = RequestDecoder(Limits())
    for wrong in (bytearray(b"GET"), "GET", None):
        with pytest.raises(TypeError):
            decoder.feed(wrong)  # type: ignore[arg-type]
    decoder.feed(b"")
    assert decoder.next() is None


def test_trailers_of_one_message_are_not_those_of_another() -> None:
    decoder = RequestDecoder(Limits())
    decoder.feed(get() + get())
    ends = []
    for _ in range(2):
        decoder.next()
        end = decoder.next()
        assert isinstance(end, End)
        end.trailers.append(("X", "1"))
        ends.append(end)
        decoder.resume()
    assert [end.trailers for end in ends] == [[], []]


@pytest.mark.parametrize("size", [1, 5, 4095, 4096, 70000])
@pytest.mark.parametrize("read", [7, 4099, 65536, 1 << 20])
def test_chunks_of_any_size_in_reads_of_any_size(size: int, read: int) -> None:
    """Small chunks are put together into one event, which is still at most MAX_EVENT long."""
    total = 3000 if size * read < 10000 else 600000
    body = bytes(i % 251 for i in range(total // size * size))
    pieces = [encode_chunk(body[i : i + size]) for i in range(0, len(body), size)]
    wire = chunked(b"".join(pieces)) + b"0\r\nX: y\r\n\r\n"
    decoder = RequestDecoder(LIMITS)
    got: list[bytes] = []
    end = None
    for i in range(0, len(wire), read):
        decoder.feed(wire[i : i + read])
        while (event := decoder.next()) is not None:
            if isinstance(event, bytes):
                assert 0 < len(event) <= MAX_EVENT
                got.append(event)
            elif isinstance(event, End):
                end = event
    assert b"".join(got) == body
    assert end is not None
    assert end.trailers == [("X", "y")]
    if size < 4096 and read == 1 << 20:
        assert len(got) <= len(wire) // MAX_EVENT + len(wire) // read + 2


def test_octets_before_an_error_come_before_it() -> None:
    decoder = RequestDecoder(LIMITS)
    decoder.feed(chunked(b"1\r\na\r\n1\r\nb\r\n1\r\ncd"))
    assert isinstance(decoder.next(), RequestHead)
    assert decoder.next() == b"abc"
    with pytest.raises(FramingError, match="CRLF"):
        decoder.next()
