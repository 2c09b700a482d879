"""The codec under arbitrary octets: the same events however they are cut, nothing raised but FramingError, memory
within the limits, time linear; and beside h11, a reader written apart from ours: what we accept it accepts, with the
same meaning.
"""

import time
from collections.abc import Iterable

import h11
from http1_events import Event, cut, octets, read_requests, read_responses
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgecache._native.http1 import End, FramingError, Limits, RequestDecoder, RequestHead, ResponseDecoder

SMALL = Limits(request_line=40, field_line=40, head=160, fields=6, chunk_line=20, trailer_fields=2)

COMMON = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\0",
    b"\x80",
    b"Host: a.example\r\n",
    b"host:b:80\r\n",
    b"Content-Length: 5\r\n",
    b"content-length:0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"TRANSFER-ENCODING: \tChunked \r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive, Upgrade\r\n",
    b"X: \xe9 a\tb \r\n",
    b"X:\r\n",
    b"X-Name: value\r\n",
    b"Trailer: X\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: x\r\n",
    b"hello",
    b"5\r\nhello\r\n",
    b"05;a=b\r\nhello\r\n",
    b'1;a="\\""\r\nx\r\n',
    b"0\r\n",
    b"0\r\n\r\n",
    b"\r\n\r\n",
]
REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a.example\r\n",
    b"POST /a?b HTTP/1.1\r\nHost: a\r\n",
    b"PUT /a HTTP/1.0\r\n",
    b"POST http://b.example/x HTTP/1.1\r\nHost: a\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200\r\n",
    b"HTTP/1.0 404 Not Found\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 204 \r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
]


FIELDS = [
    b"Connection: close\r\n",
    b"Connection: keep-alive, Upgrade\r\n",
    b"Upgrade: x\r\n",
    b"Expect: 100-continue\r\n",
    b"X: \xe9 a\tb \r\n",
    b"X:\r\n",
    b"x-name:value\r\n",
]
BODIES = [
    (b"", b""),
    (b"Content-Length: 5\r\n", b"hello"),
    (b"Content-Length: 0\r\n", b""),
    (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: Chunked\r\n", b'5;a\r\nhello\r\nA;b="c" ; d=e\r\n0123456789\r\n0;x\r\nX: \xe9\r\ny:\r\n\r\n'),
    (b"Transfer-Encoding: chunked\r\n", b"0\r\nTrailer: x\r\nX-Sum: 1\r\n\r\n"),
]


@st.composite
def wires(draw: st.DrawFn, starts: list[bytes]) -> bytes:
    """Mostly sensible messages, half of them spoilt in a place or two; and some heaps of parts."""
    if draw(st.integers(0, 3)):
        framing, body = draw(st.sampled_from(BODIES))
        fields = [framing, *draw(st.lists(st.sampled_from(FIELDS), max_size=3))]
        start = draw(st.sampled_from([start for start in starts if b"\r\n\r\n" not in start]))
        more = draw(st.sampled_from([b"", b"", b"\r\n", b"x", start]))
        data = bytearray(start + b"".join(draw(st.permutations(fields))) + b"\r\n" + body + more)
    else:
        part = st.sampled_from(COMMON + starts) | st.binary(max_size=3)
        data = bytearray(draw(st.sampled_from(starts)) + b"".join(draw(st.lists(part, max_size=9))))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from([b"", b"\r", b"\n", b" ", b"\0", b"x", b"\r\n"]))
    return bytes(data)


PLACES = st.lists(st.integers(0, 2000), max_size=12)
METHODS = st.lists(st.sampled_from(["GET", "HEAD", "CONNECT", "POST"]), min_size=1, max_size=3)


@settings(max_examples=400, deadline=None)
@given(wires(REQUESTS) | st.binary(max_size=80), PLACES, st.sampled_from([Limits(), SMALL]))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n\r\nGET", [5], SMALL)
def test_requests_cut_anywhere_are_the_same(data: bytes, places: list[int], limits: Limits) -> None:
    whole = read_requests([data], limits)
    assert read_requests(cut(data, places), limits) == whole
    assert read_requests(octets(data), limits) == whole
    assert read_requests(cut(data, places), limits, feeds=3) == whole
    assert read_requests(octets(data), limits, feeds=7) == whole


@settings(max_examples=400, deadline=None)
@given(wires(RESPONSES) | st.binary(max_size=80), PLACES, METHODS, st.booleans(), st.sampled_from([Limits(), SMALL]))
def test_responses_cut_anywhere_are_the_same(
    data: bytes, places: list[int], methods: list[str], eof: bool, limits: Limits
) -> None:
    # One request only: octets past a response are an error or an answer by when they come, as they must be.
    methods = methods[:1]
    whole = read_responses([data], methods, eof=eof, limits=limits)
    assert read_responses(cut(data, places), methods, eof=eof, limits=limits) == whole
    assert read_responses(octets(data), methods, eof=eof, limits=limits) == whole
    assert read_responses(cut(data, places), methods, eof=eof, limits=limits, feeds=3) == whole


@settings(max_examples=150, deadline=None)
@given(st.lists(wires(REQUESTS), min_size=1, max_size=8), st.lists(st.integers(0, 5), max_size=20))
def test_any_order_of_calls(pieces: list[bytes], calls: list[int]) -> None:
    """feed, next, resume, take_rest in any order raise what the contract says and nothing else."""
    requests, responses = RequestDecoder(SMALL), ResponseDecoder(SMALL)
    left = list(pieces)
    for call in calls:
        for decoder in (requests, responses):
            try:
                if call <= 1 and left:
                    decoder.feed(left.pop())
                elif call <= 3:
                    decoder.next()
                elif call == 4:
                    assert isinstance(decoder.take_rest(), bytes)
                elif isinstance(decoder, RequestDecoder):
                    decoder.resume()
                else:
                    decoder.begin("GET")
            except FramingError:
                assert decoder.buffered == 0
            except RuntimeError:
                assert call == 5
            assert decoder.buffered >= 0


# --- beside h11 --------------------------------------------------------------------------------------------------

# What an h11 event says, in the terms of ours that both have.
VOID_TRAILERS = {
    b"connection",
    b"keep-alive",
    b"te",
    b"trailer",
    b"upgrade",
    b"expect",
    b"content-type",
    b"content-range",
    b"content-encoding",
    b"proxy-connection",
}


def lines_of(event: h11.Request | h11.Response | h11.InformationalResponse) -> tuple[tuple[str, str], ...]:
    return lower_coding((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers.raw_items())


def lower_coding(lines: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """h11 hands on the value of Transfer-Encoding in lower case; we do as sent."""
    return tuple((n, v.lower() if n.lower() == "transfer-encoding" else v) for n, v in lines)


def by_h11(connection: h11.Connection) -> list[Event]:
    """Events of one message; raises h11.RemoteProtocolError."""
    events: list[Event] = []
    body = b""
    while True:
        match connection.next_event():
            case h11.Request() as event:
                target = event.target.decode("latin-1")
                events.append(("request", event.method.decode("ascii"), target, lines_of(event)))
            case h11.Response() | h11.InformationalResponse() as event:
                events.append(("response", event.status_code, event.reason.decode("latin-1"), lines_of(event)))
            case h11.Data() as event:
                body += bytes(event.data)
            case h11.EndOfMessage() as event:
                kept = tuple(line for line in event.headers.raw_items() if line[0].lower() not in VOID_TRAILERS)
                trailers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in kept)
                return [*events, ("data", body), ("end", trailers)]
            case _:
                return [*events, ("data", body)]


def comparable(events: list[Event]) -> list[Event]:
    """Our events of the first message, in the same form."""
    out: list[Event] = []
    body = b""
    for event in events:
        match event[0]:
            case "request" | "response":
                out.append((*event[:3], lower_coding(event[4])))
            case "data":
                body += event[1]
            case "end":
                return [*out, ("data", body), event]
    return [*out, ("data", body)]


def h11_exception(data: bytes, head: Event) -> bool:
    """What we accept and h11 does not, each with the reason."""
    return (
        data.startswith(b"\r\n")  # empty lines first: RFC 9112 §2.2 says to ignore one
        or not head[2].isascii()  # raw UTF-8 in the target: passed on as sent, by contract
    )


@settings(max_examples=600, deadline=None)
@given(wires(REQUESTS))
@example(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: x\r\n\r\n")
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n05;a=b ; c\r\nhello\r\n0\r\nX: \xe9\r\n\r\n")
def test_requests_beside_h11(data: bytes) -> None:
    events = read_requests([data])
    first = comparable(events)
    failed_early = events and events[-1][0] == "error" and ("end" not in [event[0] for event in events])
    if not events or events[0][0] != "request" or failed_early or h11_exception(data, events[0]):
        return
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    assert by_h11(connection) == first
    # The message ends at the same octet.
    decoder = RequestDecoder(Limits())
    decoder.feed(data)
    while (event := decoder.next()) is not None:
        if isinstance(event, RequestHead):
            keep_alive = event.keep_alive
            # h11 waits after either; for Upgrade it does not ask whether Connection names it.
            tunnel = event.method == "CONNECT" or any(name.lower() == "upgrade" for name, _ in event.lines)
        if isinstance(event, End):
            assert connection.trailing_data[0] == decoder.take_rest()
            if not tunnel:
                # h11 has no HTTP/1.0 keep-alive.
                assert keep_alive == (connection.their_state is h11.DONE) or b"HTTP/1.0" in data
            return


@settings(max_examples=600, deadline=None)
@given(wires(RESPONSES), st.sampled_from(["GET", "HEAD"]))
@example(b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", "GET")
@example(b"HTTP/1.0 200 OK\r\n\r\nhello", "GET")
def test_responses_beside_h11(data: bytes, method: str) -> None:
    events = read_responses([data], [method], eof=True)
    ended = "end" in [event[0] for event in events]
    if not ended or any(event[1] == 101 for event in events):
        return  # a cut-off or refused one has no meaning to compare; 101 is not ours to expect
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    assert by_h11(connection) == comparable(events)
    decoder = ResponseDecoder(Limits())
    decoder.begin(method)
    decoder.feed(data)
    decoder.feed_eof()
    while not isinstance(decoder.next(), End):
        pass
    assert connection.trailing_data[0] == decoder.take_rest()


# --- bounds ------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_bounded() -> None:
    """Senders that never come to an end: refused within the limits, or drained as they send."""
    start = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless = {
        "request line": (b"GET /", b"a" * 100),
        "field name": (b"GET / HTTP/1.1\r\n", b"a" * 100),
        "field lines": (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        "chunk size": (start, b"0" * 100),
        "extension": (start + b"5;", b"a" * 100),
        "chunks": (start, b"5\r\nhello\r\n"),
        "trailers": (start + b"0\r\n", b"a: b\r\n"),
        "trailer": (start + b"0\r\n", b"a" * 100),
        "quoted": (start + b'5;a="', b"\\a" * 50),
        "empty lines": (b"", b"\r\n"),
    }
    for name, (first, more) in endless.items():
        decoder = RequestDecoder(Limits())
        decoder.feed(first)
        refused = False
        most = 0
        for _ in range(30000):
            try:
                while decoder.next() is not None:
                    pass
            except FramingError:
                refused = True
                break
            most = max(most, decoder.buffered)
            decoder.feed(more)
        assert refused or name == "chunks"
        assert most <= 65536 + 100


def test_work_is_linear_however_octets_arrive() -> None:
    """A 1 MiB line octet by octet: looking or copying from its start each time would take minutes."""
    limits = Limits(request_line=1 << 21, field_line=1 << 21, head=1 << 22)
    size = 1 << 20
    started = time.process_time()
    decoder = RequestDecoder(limits)
    for piece in octets(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * size + b"\r\n\r\n"):
        decoder.feed(piece)
        event = decoder.next()
    assert isinstance(event, RequestHead)
    assert time.process_time() - started < 20
