"""The encoders: exact octets, refusal of whatever would break framing, and the way back through the decoders."""

import pytest
from http1_events import LIMITS, read_requests, read_responses
from hypothesis import given
from hypothesis import strategies as st

from edgecache._native.http1 import (
    MAX_EVENT,
    RequestDecoder,
    RequestHead,
    encode_chunk,
    encode_last_chunk,
    encode_request_head,
    encode_response_head,
)

Lines = list[tuple[str, str]]


def test_exact_octets() -> None:
    lines = [("Host", "a.example"), ("x-e", "\xe9\t"), ("Empty", "")]
    fields = b"Host: a.example\r\nx-e: \xe9\t\r\nEmpty: \r\n\r\n"
    assert encode_request_head("GET", "/\xe9?a", lines) == b"GET /\xe9?a HTTP/1.1\r\n" + fields
    assert encode_request_head("QUUX", "*", tuple(lines)) == b"QUUX * HTTP/1.1\r\n" + fields
    assert encode_response_head(299, "Very \xe9", lines) == b"HTTP/1.1 299 Very \xe9\r\n" + fields
    assert encode_response_head(100, "", ()) == b"HTTP/1.1 100 \r\n\r\n"
    assert encode_chunk(b"hello") == b"5\r\nhello\r\n"
    assert encode_last_chunk() == b"0\r\n\r\n"
    assert encode_last_chunk([("X", "1")]) == b"0\r\nX: 1\r\n\r\n"
    assert MAX_EVENT == 262144


@pytest.mark.parametrize("size", [1, 9, 15, 16, 255, 256, 4095, 4096, 65536, 1 << 20])
def test_chunk_sizes(size: int) -> None:
    assert encode_chunk(b"x" * size) == b"%x\r\n" % size + b"x" * size + b"\r\n"


BAD_NAMES = ["", " ", "a b", "a:", "a\r\nb", "a\n", "a\r", "a\0", "\xe9", "\u0100", "a\x7f", "(", '"', "a\t"]
BAD_VALUES = ["a\r\nX: b", "a\nb", "a\rb", "a\0b", "\x01", "\x1f", "\x7f", "\u0100", "\ud800", "\n" + "a" * 40]
BAD_TARGETS = ["", " ", "/a b", "/\r\n", "/\n", "/\r", "/\0", "/\t", "/#", "/\x7f", "/\u0100"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_are_tokens(name: str) -> None:
    for lines in ([(name, "v")], [("Host", "a"), (name, "v")]):
        with pytest.raises(ValueError, match=r"token|Latin-1"):
            encode_request_head("GET", "/", lines)
        with pytest.raises(ValueError, match=r"token|Latin-1"):
            encode_response_head(200, "OK", lines)
        with pytest.raises(ValueError, match=r"token|Latin-1"):
            encode_last_chunk(lines[-1:])
    with pytest.raises(ValueError, match=r"token|Latin-1"):
        encode_request_head(name, "/", [])


@pytest.mark.parametrize("value", BAD_VALUES)
def test_values_cannot_split(value: str) -> None:
    for lines in ([("X", value)], [("Host", "a"), ("X", value)]):
        with pytest.raises(ValueError, match=r"control|Latin-1"):
            encode_request_head("GET", "/", lines)
        with pytest.raises(ValueError, match=r"control|Latin-1"):
            encode_response_head(200, "OK", lines)
        with pytest.raises(ValueError, match=r"control|Latin-1"):
            encode_last_chunk(lines[-1:])
    with pytest.raises(ValueError, match=r"control|Latin-1"):
        encode_response_head(200, value, [])


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_targets_cannot_split(target: str) -> None:
    with pytest.raises(ValueError, match=r"target|Latin-1"):
        encode_request_head("GET", target, [])


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 1000])
def test_status_range(status: int) -> None:
    with pytest.raises(ValueError, match="status"):
        encode_response_head(status, "OK", [])


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "HOST"])
def test_trailers_carry_no_framing(name: str) -> None:
    with pytest.raises(ValueError, match="trailer"):
        encode_last_chunk([(name, "1")])


def test_wrong_types() -> None:
    for lines in ([("X",)], [("X", "1", "2")], ["XY"], [["X", "1"]], [(b"X", "1")], [("X", b"1")], [("X", None)]):
        with pytest.raises(TypeError):
            encode_request_head("GET", "/", lines)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        encode_request_head("GET", "/", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        encode_chunk(b"")
    with pytest.raises(TypeError):
        encode_chunk(bytearray(b"x"))  # type: ignore[arg-type]


TCHAR = "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
TOKENS = st.text(TCHAR, min_size=1, max_size=50)
TEXT = st.text([chr(c) for c in range(256) if c == 9 or (c >= 32 and c != 127)], max_size=60).map(
    lambda text: text.strip(" \t")
)
STEER = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}
STEER |= {"keep-alive", "te", "trailer", "proxy-connection", "content-type", "content-range", "content-encoding"}
COMMON = st.sampled_from(["Accept", "cookie", "X-Real-IP", "sec-ch-ua-platform", "Access-Control-Allow-Credentials"])
LINES = st.lists(st.tuples(TOKENS | COMMON, TEXT).filter(lambda line: line[0].lower() not in STEER), max_size=20)
TARGETS = st.text([chr(c) for c in range(33, 256) if c not in (35, 127)], max_size=60).map(lambda text: "/" + text)
BODY = st.lists(st.binary(min_size=1, max_size=300), max_size=6)


@given(TOKENS.filter(lambda method: method != "CONNECT"), TARGETS, LINES, BODY, LINES)
def test_request_round_trip(method: str, target: str, lines: Lines, body: list[bytes], trailers: Lines) -> None:
    lines = [("Host", "a.example"), ("Transfer-Encoding", "chunked"), *lines]
    wire = encode_request_head(method, target, lines)
    wire += b"".join(map(encode_chunk, body)) + encode_last_chunk(trailers)
    events = read_requests([wire])
    assert events[0][:3] == ("request", method, target)
    assert events[0][4] == tuple(lines)
    assert events[-1] == ("end", tuple(trailers))
    assert [event[1] for event in events[1:-1]] == ([b"".join(body)] if body else [])
    decoder = RequestDecoder(LIMITS)
    decoder.feed(wire)
    head = decoder.next()
    assert isinstance(head, RequestHead)
    assert encode_request_head(head.method, head.target, head.lines) == wire[: wire.index(b"\r\n\r\n") + 4]


@given(st.integers(200, 599).filter(lambda s: s not in (204, 304)), TEXT, LINES, st.binary(max_size=600))
def test_response_round_trip(status: int, reason: str, lines: Lines, body: bytes) -> None:
    lines = [*lines, ("content-length", str(len(body)))]
    events = read_responses([encode_response_head(status, reason, lines), body])
    assert events[0][:3] == ("response", status, reason)
    assert events[0][4] == tuple(lines)
    assert [event[1] for event in events[1:-1]] == ([body] if body else [])
    assert events[-1] == ("end", ())
