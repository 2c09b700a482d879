"""What the fast lane got wrong once."""

import asyncio
import gc
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgecache._native.arena import Arena, hash_key
from edgecache._native.fastlane import FastConnection
from edgecache._native.lane import Lane, LaneSite
from edgecache.config.model import Config
from tests.edge.lanes import Bench, assert_same, start, stop
from tests.wirekit import RawClient

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = await start(tmp_path / "log")
    yield made
    await stop(made)


async def test_the_log_line_of_a_small_body_says_what_cache_status_said(bench: Bench) -> None:
    """It pointed to where the head had been before the body was joined to it; seen with heads of some length."""
    bench.objects("/x", b"body", "Cache-Control: max-age=1000", f"X-Long: {'l' * 500}")
    ordinary, fast, served = await bench.both(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert served == 1
    assert_same(ordinary, fast)
    assert json.loads(fast.log[0])["cache_status"].startswith("edgecache; hit; ttl=")


async def test_a_304_with_a_malformed_etag(bench: Bench) -> None:
    """Last-Modified stays only where there is no ETag line at all, fit or not."""
    bench.objects("/x", b"body", "Cache-Control: max-age=1000", "ETag: v1", f"Last-Modified: {DATE}")
    asked = f"GET /x HTTP/1.1\r\nHost: a.example\r\nIf-Modified-Since: {DATE}\r\n\r\n"
    ordinary, fast, served = await bench.both(asked.encode())
    assert (served, fast.answer[:12]) == (1, b"HTTP/1.1 304")
    assert_same(ordinary, fast)
    assert b"Last-Modified" not in fast.answer


@pytest.mark.parametrize("status", ["600", "999"])
async def test_a_status_beyond_the_classes_is_counted_where_the_ordinary_path_counts_it(
    bench: Bench, status: str
) -> None:
    bench.objects("/x", b"body", "Cache-Control: max-age=1000", status=f"{status} x")
    ordinary, fast, _ = await bench.both(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert_same(ordinary, fast)


async def test_a_content_length_that_freshening_took_away(bench: Bench) -> None:
    """The lane sends the stored head as it is, so a record without its length must not be the lane's."""
    control = 'Cache-Control: max-age=0, no-cache="content-length"'
    lines = f'{control}\r\nETag: "v1"\r\n'
    full = f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 4\r\n\r\nbody".encode()
    same = f"HTTP/1.1 304 Not Modified\r\n{lines.replace('max-age=0', 'max-age=1000')}\r\n".encode()
    bench.origin[b"/x"] = lambda head: same if b"-none-match" in head.lower() else full
    asked = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
    await bench.exchange(asked)
    ordinary, fast, _ = await bench.both(asked)
    assert_same(ordinary, fast)
    assert b"\r\nContent-Length: 4\r\n" in fast.answer


async def test_what_strangers_send_fills_no_memo(bench: Bench) -> None:
    """Long values of fields that select, and long Referers, were kept by the thousand."""
    bench.objects("/x", b"body", "Cache-Control: max-age=1000", "Vary: X-Thing")
    for i in range(40):
        long = f"{i:05d}" * 3000
        asked = f"GET /x HTTP/1.1\r\nHost: a.example\r\nX-Thing: {long}\r\nReferer: http://a/?b={long}\r\n\r\n"
        await bench.exchange(asked.encode())
    kept = [memo for memo in gc.get_referents(bench.lane) if isinstance(memo, dict)]
    assert len(kept) == 5
    assert sum(len(key) for memo in kept for key in memo) < 10_000


@pytest.mark.parametrize("turns", range(4))
async def test_answers_come_in_the_order_of_their_requests(bench: Bench, turns: int) -> None:
    """The ordinary path's waits for the loop to come round; the lane's to a request that came meanwhile overtook it."""
    for name in ("first", "second"):
        bench.objects(f"/{name}", name.encode(), "Cache-Control: max-age=1000")
        await bench.exchange(f"GET /{name} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
    async with await RawClient.connect(bench.port) as client:
        await client.send(b"HEAD /second HTTP/1.1\r\nHost: a.example\r\n\r\n")
        await client.answer("HEAD")
        client.writer.write(b"GET /first HTTP/1.1\r\nHost: a.example\r\nCache-Control: max-age=100\r\n\r\n")
        for _ in range(turns):
            await asyncio.sleep(0)
        client.writer.write(b"GET /second HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert [(await client.answer()).body for _ in range(2)] == [b"first", b"second"]


def test_the_caches_name_fits_the_room_there_is() -> None:
    with pytest.raises(ValueError, match="100"):
        LaneSite("x", "n" * 101, plain_query=True, block=0)
    with pytest.raises(ValueError, match="cache_status_name"):
        Config.model_validate({"origin": "http://a.example", "cache": {"cache_status_name": "n" * 101}})


class _Transport:
    """A transport that takes everything at once and therefore never calls back."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.ours, self.theirs = ours, theirs
        self.got = b""

    def get_extra_info(self, name: str) -> object:
        return self.ours if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def drain(self) -> None:
        while True:
            try:
                self.got += self.theirs.recv(1 << 20)
            except BlockingIOError:
                return

    def write(self, data: bytes) -> None:
        self.drain()
        self.got += data


def test_a_socket_that_empties_between_the_lanes_attempt_and_the_transports() -> None:
    """The transport then sends the piece at once, pauses nobody, and so never says when to go on."""
    arena = Arena(16 << 20)
    secret = os.urandom(16)
    body = os.urandom(900_000)
    numbers = {"born_at": 0.0, "fresh_until": 9e9, "stale_until": 0.0, "flags": 0, "status": 200, "fill_seq": 0}
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n"
    key = hash_key(secret, b"http://a.example/")
    assert arena.put(key, head, b"", [body], tags=[], **numbers)  # type: ignore[arg-type]
    lane = Lane(
        arena,
        secret,
        find_site=lambda _: LaneSite("x", "edgecache", plain_query=True, block=0),
        secondary_key=lambda *_: None,
        readable_date=lambda _: False,
        redact=str,
        trusts=lambda _: False,
        received_by="edgecache",
        request_line=1024,
        field_line=1024,
        head=4096,
        fields=16,
        slots=(20, 0, 900, 901),
    )
    done: list[bool] = []
    slow = SimpleNamespace(
        peer=SimpleNamespace(ip="127.0.0.1", tls=False),
        connection_made=lambda _: None,
        lane_done=lambda: done.append(True),
        unsent=False,
        write_paused=False,
        lost=False,
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        transport = _Transport(ours, theirs)
        connection = FastConnection(lane, slow)  # type: ignore[arg-type]
        connection.connection_made(transport)  # type: ignore[arg-type]
        connection.arm()
        connection.data_received(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        transport.drain()
    assert done == [True]
    assert not connection.busy
    assert transport.got.endswith(body)
    assert arena.stats()["pins"] == 0
