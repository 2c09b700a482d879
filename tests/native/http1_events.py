"""How the tests of the codec feed it: whole, in pieces, octet by octet; and what they compare: plain values."""

import itertools
from collections.abc import Iterable
from typing import Any

from edgecache._native.http1 import (
    End,
    FramingError,
    Limits,
    RequestDecoder,
    RequestHead,
    ResponseDecoder,
    ResponseHead,
)

Event = tuple[Any, ...]
LIMITS = Limits()

H = b"Host: a.example\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n"


def get(fields: bytes = b"", line: bytes = b"GET / HTTP/1.1", host: bytes = H) -> bytes:
    return line + b"\r\n" + host + fields + b"\r\n"


def chunked(body: bytes) -> bytes:
    return get(b"Transfer-Encoding: chunked\r\n", b"POST / HTTP/1.1") + body


def plain(event: RequestHead | ResponseHead | bytes | End) -> Event:
    match event:
        case RequestHead():
            return (
                "request",
                event.method,
                event.target,
                event.version,
                tuple(event.lines),
                event.host,
                event.scheme,
                event.path,
                event.content_length,
                event.keep_alive,
                event.expect_continue,
                event.upgrade,
            )
        case ResponseHead():
            return (
                "response",
                event.status,
                event.reason,
                event.version,
                tuple(event.lines),
                event.content_length,
                event.chunked,
                event.keep_alive,
            )
        case bytes():
            assert 0 < len(event) <= 262144
            return ("data", event)
        case End():
            return ("end", tuple(event.trailers))


def joined(events: list[Event]) -> list[Event]:
    """The same events with adjoining body octets joined: how they are cut is no part of the meaning."""
    out: list[Event] = []
    for event in events:
        if event[0] == "data" and out and out[-1][0] == "data":
            out[-1] = ("data", out[-1][1] + event[1])
        else:
            out.append(event)
    return out


def read_requests(pieces: Iterable[bytes], limits: Limits = LIMITS, *, feeds: int = 1) -> list[Event]:
    """All events of a connection, read after each so many feeds, requests resumed as they end; an error is the last
    one."""
    decoder = RequestDecoder(limits)
    events: list[Event] = []
    for some in batches(pieces, feeds):
        for piece in some:
            decoder.feed(piece)
        try:
            while True:
                event = decoder.next()
                if event is None:
                    break
                events.append(plain(event))
                if isinstance(event, End):
                    assert not decoder.in_message
                    decoder.resume()
        except FramingError as error:
            events.append(("error", error.status, error.detail))
            break
    return joined(events)


def read_responses(
    pieces: Iterable[bytes],
    methods: Iterable[str] = ("GET",),
    *,
    eof: bool = False,
    limits: Limits = LIMITS,
    feeds: int = 1,
) -> list[Event]:
    """All events of a connection on which `methods` are asked one after another."""
    decoder = ResponseDecoder(limits)
    left = iter(methods)
    decoder.begin(next(left))
    events: list[Event] = []

    def drain() -> None:
        while True:
            event = decoder.next()
            if event is None:
                return
            events.append(plain(event))
            if isinstance(event, End):
                method = next(left, None)
                if method is not None:
                    decoder.begin(method)

    try:
        for some in batches(pieces, feeds):
            for piece in some:
                decoder.feed(piece)
            drain()
        if eof:
            decoder.feed_eof()
            drain()
    except FramingError as error:
        events.append(("error", error.status, error.detail))
    return joined(events)


def batches(pieces: Iterable[bytes], size: int) -> Iterable[list[bytes]]:
    left = list(pieces)
    return [left[i : i + size] for i in range(0, len(left), size)]


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` cut at `places` (any integers)."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]
