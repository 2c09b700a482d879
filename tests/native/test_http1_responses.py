"""ResponseDecoder against tables, a row per rule: each fed whole, octet by octet, and with octets after its end."""

import pytest
from http1_events import octets, read_responses

from edgecache._native.http1 import End, FramingError, Limits, ResponseDecoder, ResponseHead

Event = tuple[object, ...]
END = ("end", ())
OK = b"HTTP/1.1 200 OK\r\n"
L0 = b"Content-Length: 0\r\n"
STRAY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!"


def answer(fields: bytes = b"", line: bytes = OK) -> bytes:
    return line + fields + b"\r\n"


def chunked(body: bytes) -> bytes:
    return answer(b"Transfer-Encoding: chunked\r\n") + body


REFUSED: list[tuple[str, bytes]] = [
    # RFC 9112 §2.2
    ("2.2 bare LF after the status line", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
    ("2.2 bare LF after a field line", b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n"),
    ("2.2 bare LF as the empty line", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n"),
    ("2.2 bare CR in the reason", answer(L0, b"HTTP/1.1 200 O\rK\r\n")),
    ("2.2 bare CR in a value", answer(L0 + b"X: a\rb\r\n")),
    ("2.2 empty line first", b"\r\n" + answer(L0)),
    ("2.2 space first", b" " + answer(L0)),
    ("2.2 space before the first field line", answer(b" X: a\r\n" + L0)),
    ("not HTTP", b"SSH-2.0-OpenSSH_9.2\r\n"),
    ("TLS alert", b"\x15\x03\x01\x00\x02\x02\x16"),
    # §2.3, §4 status line
    ("4 HTTP/0.9 body", b"<html>"),
    ("4 HTTP/2.0", answer(L0, b"HTTP/2.0 200 OK\r\n")),
    ("4 lower-case name", answer(L0, b"http/1.1 200 OK\r\n")),
    ("4 two-digit minor", answer(L0, b"HTTP/1.10 200 OK\r\n")),
    ("4 no version", answer(L0, b"HTTP 200 OK\r\n")),
    ("4 ICY", answer(L0, b"ICY 200 OK\r\n")),
    ("4 no status", answer(L0, b"HTTP/1.1\r\n")),
    ("4 two spaces before the status", answer(L0, b"HTTP/1.1  200 OK\r\n")),
    ("4 tab before the status", answer(L0, b"HTTP/1.1\t200 OK\r\n")),
    ("4 tab after the status", answer(L0, b"HTTP/1.1 200\tOK\r\n")),
    ("4 two digits", answer(L0, b"HTTP/1.1 20 OK\r\n")),
    ("4 four digits", answer(L0, b"HTTP/1.1 2000 OK\r\n")),
    ("4 letters", answer(L0, b"HTTP/1.1 2OO OK\r\n")),
    ("4 sign", answer(L0, b"HTTP/1.1 +20 OK\r\n")),
    ("4 status 099", answer(L0, b"HTTP/1.1 099 OK\r\n")),
    ("4 status 600", answer(L0, b"HTTP/1.1 600 OK\r\n")),
    ("4 status 999", answer(L0, b"HTTP/1.1 999 OK\r\n")),
    ("4 NUL in the reason", answer(L0, b"HTTP/1.1 200 O\0K\r\n")),
    ("4 DEL in the reason", answer(L0, b"HTTP/1.1 200 O\x7fK\r\n")),
    ("4 status line too long", b"HTTP/1.1 200 " + b"a" * 20000 + b"\r\n"),
    # §5
    ("5 no colon", answer(L0 + b"X\r\n")),
    ("5.1 space before the colon", answer(b"Content-Length : 0\r\n")),
    ("5.1 empty name", answer(L0 + b": a\r\n")),
    ("5.1 name is no token", answer(L0 + b"X@: a\r\n")),
    ("5.2 folded", answer(L0 + b"X: a\r\n b\r\n")),
    ("5.2 folded with a tab", answer(L0 + b"X: a\r\n\tb\r\n")),
    *((f"5.5 octet {c:#04x} in a value", answer(L0 + b"X: a%cb\r\n" % c)) for c in (0, 1, 8, 11, 12, 27, 31, 127)),
    ("5 field line too long", answer(L0 + b"X: " + b"a" * 20000 + b"\r\n")),
    ("5 head too long", answer((b"X: " + b"a" * 8000 + b"\r\n") * 9)),
    ("5 too many fields", answer(b"X: a\r\n" * 129)),
    # §6.1, §6.3
    *(
        (f"6.1 {what}", answer(b"".join(b"Transfer-Encoding: " + v + b"\r\n" for v in values)))
        for what, values in [
            ("unknown coding", [b"gzip"]),
            ("identity", [b"identity"]),
            ("unknown coding before chunked", [b"gzip, chunked"]),
            ("chunked not last", [b"chunked, gzip"]),
            ("chunked twice", [b"chunked, chunked"]),
            ("chunked twice, two lines", [b"chunked", b"chunked"]),
            ("empty", [b""]),
            ("trailing comma", [b"chunked,"]),
            ("chunked with parameters", [b"chunked;a=b"]),
        ]
    ),
    ("6.1 in HTTP/1.0", answer(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.0 200 OK\r\n")),
    ("6.1 in 204", answer(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 204 No Content\r\n")),
    ("6.1 in 103", answer(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 103 Early Hints\r\n")),
    ("6.1 in 101", answer(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 101 Switching Protocols\r\n")),
    ("6.3 both lengths", answer(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
    ("6.3 both lengths, other order", answer(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")),
    ("6.3 two lengths", answer(b"Content-Length: 5\r\nContent-Length: 6\r\n")),
    ("6.3 two equal lengths", answer(b"Content-Length: 5\r\ncontent-length: 5\r\n")),
    *(
        (f"6.3 length {value!r}", answer(b"Content-Length: " + value + b"\r\n"))
        for value in (b"", b"5, 5", b"5,6", b"+5", b"-1", b"0x5", b"5.", b"1 0", b"9223372036854775808", b"1" * 99)
    ),
    ("6.3 bad length of a 304", answer(b"Content-Length: x\r\n", b"HTTP/1.1 304 Not Modified\r\n")),
    # §7.1
    *(
        (f"7.1 chunk {what}", chunked(body))
        for what, body in [
            ("size empty", b"\r\n"),
            ("size signed", b"+5\r\nhello\r\n0\r\n\r\n"),
            ("size 0x", b"0x5\r\nhello\r\n"),
            ("size with a space", b"5 \r\nhello\r\n"),
            ("size overflow", b"8000000000000000\r\n"),
            ("size too long", b"00000000000000000\r\n"),
            ("size with bare LF", b"5\nhello\r\n"),
            ("data without CRLF", b"5\r\nhelloo\r\n"),
            ("extension malformed", b"5;=\r\nhello\r\n"),
            ("extension too long", b"5;" + b"a" * 300 + b"\r\nhello\r\n"),
        ]
    ),
    ("7.1.2 Content-Length in a trailer", chunked(b"0\r\nContent-Length: 5\r\n\r\n")),
    ("7.1.2 trailer folded", chunked(b"0\r\nX: a\r\n b\r\n\r\n")),
    ("7.1.2 too many trailers", chunked(b"0\r\n" + b"X: a\r\n" * 33 + b"\r\n")),
]


@pytest.mark.parametrize("data", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(data: bytes) -> None:
    whole = read_responses([data])
    assert whole[-1][:2] == ("error", 502), whole
    assert "closed" not in whole[-1][2]
    assert read_responses(octets(data)) == whole
    assert read_responses([data + STRAY]) == whole
    assert read_responses(octets(data + STRAY)) == whole
    assert not any("evil" in str(event) for event in whole)


def head(
    status: int = 200,
    reason: str = "OK",
    *lines: tuple[str, str],
    version: tuple[int, int] = (1, 1),
    length: int | None = 0,
    chunks: bool = False,
    keep: bool = True,
) -> Event:
    return ("response", status, reason, version, lines, length, chunks, keep)


CL0 = ("Content-Length", "0")
CL5 = ("Content-Length", "5")
TE = ("Transfer-Encoding", "chunked")
CLOSE = ("Connection", "close")
CHUNKED = head(200, "OK", TE, length=None, chunks=True)
B5 = b"Content-Length: 5\r\n"
BTE = b"Transfer-Encoding: chunked\r\n"

# Self-delimited messages: name, method, octets, events.
ACCEPTED: list[tuple[str, str, bytes, list[Event]]] = [
    ("4 reason", "GET", answer(L0, b"HTTP/1.1 299 A b\r\n"), [head(299, "A b", CL0), END]),
    ("4 known reason of another status", "GET", answer(L0, b"HTTP/1.1 404 OK\r\n"), [head(404, "OK", CL0), END]),
    ("4 empty reason", "GET", answer(L0, b"HTTP/1.1 200 \r\n"), [head(200, "", CL0), END]),
    ("4 no reason and no space", "GET", answer(L0, b"HTTP/1.1 200\r\n"), [head(200, "", CL0), END]),
    ("4 reason with obs-text", "GET", answer(L0, b"HTTP/1.1 200 \xc3\xa9\r\n"), [head(200, "\xc3\xa9", CL0), END]),
    ("4 reason with white space", "GET", answer(L0, b"HTTP/1.1 200  \tx \r\n"), [head(200, " \tx ", CL0), END]),
    ("4 status 599", "GET", answer(L0, b"HTTP/1.1 599 x\r\n"), [head(599, "x", CL0), END]),
    ("2.3 HTTP/1.3 is read as 1.1", "GET", answer(L0, b"HTTP/1.3 200 OK\r\n"), [head(200, "OK", CL0), END]),
    (
        "5.5 obs-text and empty",
        "GET",
        answer(L0 + b"X: \xff\r\nY:\r\n"),
        [head(200, "OK", CL0, ("X", "\xff"), ("Y", "")), END],
    ),
    ("6.2 length", "GET", answer(B5) + b"hello", [head(200, "OK", CL5, length=5), ("data", b"hello"), END]),
    ("6.3 HEAD with a length", "HEAD", answer(B5), [head(200, "OK", CL5), END]),
    ("6.3 HEAD with chunked", "HEAD", answer(BTE), [head(200, "OK", TE), END]),
    ("6.3 HEAD without either", "HEAD", answer(), [head(), END]),
    ("6.3 204", "GET", answer(b"", b"HTTP/1.1 204 No Content\r\n"), [head(204, "No Content"), END]),
    ("6.3 204 with a length", "GET", answer(B5, b"HTTP/1.1 204 No Content\r\n"), [head(204, "No Content", CL5), END]),
    (
        "6.3 304 with a length",
        "GET",
        answer(B5, b"HTTP/1.1 304 Not Modified\r\n"),
        [head(304, "Not Modified", CL5), END],
    ),
    (
        "6.3 304 with chunked",
        "GET",
        answer(BTE, b"HTTP/1.1 304 Not Modified\r\n"),
        [head(304, "Not Modified", TE), END],
    ),
    (
        "6.3 failed CONNECT has a body",
        "CONNECT",
        answer(B5, b"HTTP/1.1 407 x\r\n") + b"hello",
        [head(407, "x", CL5, length=5), ("data", b"hello"), END],
    ),
    ("7.1 chunks", "GET", chunked(b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), [CHUNKED, ("data", b"hello!"), END]),
    ("7.1 no chunks", "GET", chunked(b"0\r\n\r\n"), [CHUNKED, END]),
    ("7.1.2 trailers", "GET", chunked(b"0\r\nX: 1\r\nY: 2\r\n\r\n"), [CHUNKED, ("end", (("X", "1"), ("Y", "2")))]),
    (
        "7.1.2 void trailers left out",
        "GET",
        chunked(b"0\r\nConnection: close\r\nX: 1\r\n\r\n"),
        [CHUNKED, ("end", (("X", "1"),))],
    ),
    ("9.3 close", "GET", answer(L0 + b"Connection: close\r\n"), [head(200, "OK", CL0, CLOSE, keep=False), END]),
    (
        "9.3 HTTP/1.0",
        "GET",
        answer(L0, b"HTTP/1.0 200 OK\r\n"),
        [head(200, "OK", CL0, version=(1, 0), keep=False), END],
    ),
    (
        "9.3 HTTP/1.0 keep-alive",
        "GET",
        answer(L0 + b"Connection: keep-alive\r\n", b"HTTP/1.0 200 OK\r\n"),
        [head(200, "OK", CL0, ("Connection", "keep-alive"), version=(1, 0)), END],
    ),
    (
        "15.2 interim heads",
        "GET",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + answer(L0),
        [head(100, "Continue"), head(103, "Early Hints", ("Link", "a")), head(200, "OK", CL0), END],
    ),
    (
        "15.2 interim head with a length",
        "GET",
        b"HTTP/1.1 102 x\r\nContent-Length: 5\r\n\r\n" + answer(L0),
        [head(102, "x", CL5), head(200, "OK", CL0), END],
    ),
    (
        "15.2 interim heads to HEAD",
        "HEAD",
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(B5),
        [head(100, "Continue"), head(200, "OK", CL5), END],
    ),
]


@pytest.mark.parametrize(("method", "data", "events"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_accepted(method: str, data: bytes, events: list[Event]) -> None:
    for pieces in ([data], octets(data)):
        assert read_responses(pieces, [method]) == events
        assert read_responses([*pieces, *pieces], [method, method]) == events * 2
    for pieces in ([data], octets(data)):
        assert read_responses(pieces, [method], eof=True) == events
    for pieces in ([data + STRAY], octets(data + STRAY)):
        assert read_responses(pieces, [method]) == [*events, ("error", 502, "octets that answer no request")]
    # What an origin sent before the next request was begun is never taken for its answer.
    assert read_responses([data + STRAY], [method, "GET"]) == [
        *events,
        ("error", 502, "octets before the request they answer"),
    ]


def test_until_close() -> None:
    data = answer(b"X: a\r\n") + b"hello\r\nHTTP/1.1 200 OK\r\n\r\n"
    events = [
        head(200, "OK", ("X", "a"), length=None, keep=False),
        ("data", b"hello\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ]
    for pieces in ([data], octets(data)):
        assert read_responses(pieces) == events
        assert read_responses(pieces, eof=True) == [*events, END]
    assert read_responses([answer()], eof=True) == [head(length=None, keep=False), END]
    old = answer(b"Connection: keep-alive\r\n", b"HTTP/1.0 200 OK\r\n")
    assert read_responses([old, b"x"], eof=True) == [
        head(200, "OK", ("Connection", "keep-alive"), version=(1, 0), length=None, keep=False),
        ("data", b"x"),
        END,
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"H",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        answer(B5),
        answer(B5) + b"hell",
        chunked(b""),
        chunked(b"5"),
        chunked(b"5\r\nhel"),
        chunked(b"5\r\nhello"),
        chunked(b"5\r\nhello\r\n"),
        chunked(b"0\r\n"),
        chunked(b"0\r\nX: a\r\n"),
        chunked(b"0\r\nX: a\r\n\r"),
    ],
)
def test_cut_off(data: bytes) -> None:
    for pieces in ([data], octets(data)):
        open_ended = read_responses(pieces)
        assert not any(event[0] in ("error", "end") for event in open_ended)
        closed = read_responses(pieces, eof=True)
        assert closed[:-1] == open_ended
        assert closed[-1][:2] == ("error", 502)
        assert "closed" in closed[-1][2]


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("GET", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        ("CONNECT", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("CONNECT", b"HTTP/1.1 299 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
    ids=["101", "CONNECT", "CONNECT with lengths, to be ignored (RFC 9110 §9.3.6)"],
)
def test_tunnels(method: str, data: bytes) -> None:
    decoder = ResponseDecoder(Limits())
    decoder.begin(method)
    decoder.feed(data + b"\0raw")
    event = decoder.next()
    assert isinstance(event, ResponseHead)
    assert event.content_length == 0
    assert not event.chunked
    assert not event.keep_alive
    assert decoder.next() is None
    assert decoder.take_rest() == b"\0raw"
    decoder.feed(b"more")
    assert decoder.next() is None
    assert decoder.take_rest() == b"more"
    assert not decoder.idle


def test_octets_with_no_request_begun() -> None:
    decoder = ResponseDecoder(Limits())
    assert decoder.idle
    assert decoder.next() is None
    decoder.feed(answer(L0))
    assert not decoder.idle
    for _ in range(2):
        with pytest.raises(FramingError) as caught:
            decoder.next()
        assert caught.value.status == 502
    assert not decoder.idle
    decoder.begin("GET")
    with pytest.raises(FramingError):
        decoder.next()


def test_idle_says_whether_the_connection_may_be_used_again() -> None:
    decoder = ResponseDecoder(Limits())
    for fields, idle in ((B5, True), (B5 + b"Connection: close\r\n", False)):
        decoder.begin("GET")
        assert not decoder.idle
        with pytest.raises(RuntimeError):
            decoder.begin("GET")
        decoder.feed(answer(fields) + b"hello")
        assert isinstance(decoder.next(), ResponseHead)
        assert decoder.next() == b"hello"
        assert not decoder.idle
        assert isinstance(decoder.next(), End)
        assert decoder.next() is None
        assert decoder.idle is idle


def test_closed_while_idle() -> None:
    decoder = ResponseDecoder(Limits())
    decoder.feed_eof()
    assert decoder.next() is None
    assert not decoder.idle
    decoder.begin("GET")
    with pytest.raises(FramingError):
        decoder.next()


def test_buffered() -> None:
    decoder = ResponseDecoder(Limits())
    decoder.begin("GET")
    data = answer(B5)
    for n, piece in enumerate(octets(data)[:-1], 1):
        decoder.feed(piece)
        assert decoder.next() is None
        assert decoder.buffered == n
    decoder.feed(data[-1:])
    decoder.next()
    assert decoder.buffered == 0
