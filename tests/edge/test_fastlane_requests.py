"""Which requests are the fast lane's, a row each; and that it makes nothing of one that is not there whole."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edge.lanes import Bench, assert_same, start, stop
from tests.wirekit import RawClient

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = await start(tmp_path / "log", limits={"request_line": 2100, "field_line": 1024, "head": 4096, "fields": 70})
    made.objects("/x", b"body", "Cache-Control: max-age=1000", 'ETag: "v1"', f"Last-Modified: {DATE}")
    yield made
    await stop(made)


PLAIN = {
    "bare": "GET /x HTTP/1.1|Host: a.example",
    "head": "HEAD /x HTTP/1.1|Host: a.example",
    "query": "GET /x?a=b&c=%20 HTTP/1.1|Host: a.example",
    "port": "GET /x HTTP/1.1|Host: a.example:8080",
    "address": "GET /x HTTP/1.1|Host: 127.0.0.1:1",
    "names in any case": "GET /x HTTP/1.1|hOST: a.example|ACCEPT: */*",
    "white space around values": "GET /x HTTP/1.1|Host:\t a.example \t|Accept:",
    "browser": "GET /x HTTP/1.1|Host: a.example|Connection: keep-alive|User-Agent: b|Accept: */*|Cookie: a=b; c=d",
    "keep-alive twice": "GET /x HTTP/1.1|Host: a.example|Connection: Keep-Alive|Connection: keep-alive",
    "tag that matches": 'GET /x HTTP/1.1|Host: a.example|If-None-Match: W/"v1"',
    "one of several tags": 'GET /x HTTP/1.1|Host: a.example|If-None-Match: "v0", "v1"',
    "tag that does not": 'GET /x HTTP/1.1|Host: a.example|If-None-Match: "v2"',
    "date that matches": f"GET /x HTTP/1.1|Host: a.example|If-Modified-Since: {DATE}",
    "obs-text": "GET /x HTTP/1.1|Host: a.example|X: caf\xe9",
    "longest target": f"GET /x?{'l' * 1997} HTTP/1.1|Host: a.example",
    "longest line": f"GET /x HTTP/1.1|Host: a.example|X: {'l' * 1021}",
    "longest head": "GET /x HTTP/1.1|Host: a.example" + f"|X: {'l' * 997}" * 4 + f"|X: {'l' * 39}",
    "most fields": "GET /x HTTP/1.1|Host: a.example" + "|X: y" * 63,
}
ODD = {
    "method": "POST /x HTTP/1.1|Host: a.example",
    "method in lower case": "get /x HTTP/1.1|Host: a.example",
    "version 1.0": "GET /x HTTP/1.0|Host: a.example",
    "version 1.2": "GET /x HTTP/1.2|Host: a.example",
    "absolute form": "GET http://a.example/x HTTP/1.1|Host: a.example",
    "asterisk": "OPTIONS * HTTP/1.1|Host: a.example",
    "two spaces": "GET  /x HTTP/1.1|Host: a.example",
    "space at the end": "GET /x HTTP/1.1 |Host: a.example",
    "lower-case hex": "GET /x%2f HTTP/1.1|Host: a.example",
    "escaped unreserved": "GET /%78 HTTP/1.1|Host: a.example",
    "cut escape": "GET /x% HTTP/1.1|Host: a.example",
    "fragment": "GET /x#f HTTP/1.1|Host: a.example",
    "raw octet in the target": "GET /x\xe9 HTTP/1.1|Host: a.example",
    "target too long": f"GET /x?{'l' * 1998} HTTP/1.1|Host: a.example",
    "no host": "GET /x HTTP/1.1|Accept: */*",
    "no fields": "GET /x HTTP/1.1",
    "two hosts": "GET /x HTTP/1.1|Host: a.example|Host: a.example",
    "host in upper case": "GET /x HTTP/1.1|Host: A.example",
    "default port": "GET /x HTTP/1.1|Host: a.example:80",
    "port 0": "GET /x HTTP/1.1|Host: a.example:0",
    "port with a zero in front": "GET /x HTTP/1.1|Host: a.example:0443",
    "port too large": "GET /x HTTP/1.1|Host: a.example:65536",
    "no port": "GET /x HTTP/1.1|Host: a.example:",
    "IPv6": "GET /x HTTP/1.1|Host: [::1]",
    "userinfo": "GET /x HTTP/1.1|Host: u@a.example",
    "white space before the colon": "GET /x HTTP/1.1|Host: a.example|X : y",
    "folded line": "GET /x HTTP/1.1|Host: a.example|X: y| z",
    "no colon": "GET /x HTTP/1.1|Host: a.example|X",
    "no name": "GET /x HTTP/1.1|Host: a.example|: y",
    "control octet": "GET /x HTTP/1.1|Host: a.example|X: \0",
    "bare CR": "GET /x HTTP/1.1|Host: a.example|X: a\rb",
    "bare LF": "GET /x HTTP/1.1|Host: a.example|X: a\nY: b",
    "empty line in front": "|GET /x HTTP/1.1|Host: a.example",
    "line too long": f"GET /x HTTP/1.1|Host: a.example|X: {'l' * 1022}",
    "too many fields": "GET /x HTTP/1.1|Host: a.example" + "|X: y" * 64,
    **{
        f"needs judgement: {line}": f"GET /x HTTP/1.1|Host: a.example|{line}"
        for line in (
            *("Range: bytes=0-1", "If-Range: x", "Cache-Control: no-cache", "Pragma: no-cache", "Authorization: x"),
            *(
                "Expect: 100-continue",
                "Upgrade: x",
                "Connection: close",
                "Connection: keep-alive, x",
                "Max-Forwards: 1",
            ),
            *("Content-Length: 0", "If-Match: x", f"If-Unmodified-Since: {DATE}", "If-None-Match: *"),
            *("If-None-Match: v1", 'If-None-Match: "v1",', "If-None-Match:", 'If-None-Match: "v1" "v2"'),
            *("If-Modified-Since: yesterday", "If-Modified-Since: Mon, 07 Nov 1994 08:49:37 GMT"),
        )
    },
    **{
        f"{name} twice": f"GET /x HTTP/1.1|Host: a.example|{name}: x|{name}: x"
        for name in ("Via", "Referer", "User-Agent")
    },
}


def octets(row: str) -> bytes:
    return (row.replace("|", "\r\n") + "\r\n\r\n").encode("latin-1")


@pytest.mark.parametrize("row", PLAIN.values(), ids=PLAIN)
async def test_plain(bench: Bench, row: str) -> None:
    ordinary, fast, served = await bench.both(octets(row))
    assert_same(ordinary, fast)
    assert fast.answer[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 304")
    assert served == 1


@pytest.mark.parametrize("row", ODD.values(), ids=ODD)
async def test_odd(bench: Bench, row: str) -> None:
    ordinary, fast, served = await bench.both(octets(row))
    assert_same(ordinary, fast)
    assert served == 0


async def test_transfer_encoding_is_not_for_it(bench: Bench) -> None:
    data = octets("GET /x HTTP/1.1|Host: a.example|Transfer-Encoding: chunked") + b"0\r\n\r\n"
    ordinary, fast, served = await bench.both(data)
    assert_same(ordinary, fast)
    assert served == 0


@pytest.mark.parametrize(
    "row", ["GET /x?a=%20 HTTP/1.1|Host: a.example:81|X:  y ", 'HEAD /x HTTP/1.1|If-None-Match: "v1"|Host: b']
)
async def test_cut_anywhere(bench: Bench, row: str) -> None:
    data = octets(row)
    await bench.exchange(data)
    whole, _, served = await bench.both(data)
    assert served == 1
    for at in range(1, len(data)):
        async with await RawClient.connect(bench.port) as client:
            await bench._warm(client.reader, client.writer)
            before = bench.lane.served
            for piece in (data[:at], data[at:]):
                client.writer.write(piece)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            client.eof()
            assert (await client.rest())[:60] == whole.answer[:60], f"cut at {at}"
        assert bench.lane.served in (before, before + 1)


@pytest.mark.parametrize("behind", [b"\r\n", b"\0", b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", b"GET /x"])
async def test_octets_behind_the_end(bench: Bench, behind: bytes) -> None:
    ordinary, fast, _ = await bench.both(octets("GET /x HTTP/1.1|Host: a.example") + behind)
    assert_same(ordinary, fast)
