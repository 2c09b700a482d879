"""Bodies of unknown length that turn out too large to store: whole for who asked, and nothing kept open after them.

A body whose first octets came at once with its head used to be taken for abandoned, cut short, and ended as if it were
whole. And a spool file used to stay open, with its space on the disk, when its readers left before the fill ended.
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import aiohttp
import pytest

from edgecache.edge.buffer import FillBuffer
from edgecache.http.errors import OriginReset
from tests.edge.world import world

LIMIT = 8 * 1024


@contextlib.asynccontextmanager
async def talker(answer: bytes) -> AsyncIterator[str]:
    """An origin that sends all of `answer` at once, head and body, and nothing in between can run."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 20_000, 100_000], ids=str)
async def test_what_outgrows_the_buffer_at_once_comes_whole(size):
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
    async with (
        talker(answer) as origin,
        world(origin=origin, memory={"size": "16MiB", "max_object": str(LIMIT)}) as w,
    ):
        for i in range(6):
            got = await w.get(f"/{i}")
            assert len(got.body) == size


async def test_a_request_for_a_part_of_it_gets_that_part():
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = head + b"%x\r\n%b\r\n0\r\n\r\n" % (50_000, b"x" * 50_000)
    async with (
        talker(answer) as origin,
        world(origin=origin, memory={"size": "16MiB", "max_object": str(LIMIT)}) as w,
    ):
        got = await w.get("/", Range="bytes=10-19")
        assert got.body in (b"x" * 10, b"x" * 50_000)


@pytest.mark.parametrize("end", ["finished", "failed"])
async def test_the_spool_is_closed_where_the_readers_leave_before_the_end(monkeypatch, end):
    import os

    closed: list[int] = []
    close = os.close
    monkeypatch.setattr("edgecache.edge.buffer.os.close", lambda fd: (closed.append(fd), close(fd)))
    buffer = FillBuffer(limit=10, length=None)
    readers = [buffer.reader(), buffer.reader()]
    await buffer.append(b"x" * 20)
    for reader in readers:
        reader.close()
    assert buffer.abandoned
    assert buffer._spool is not None
    spool = buffer._spool.fd
    closed.clear()
    if end == "finished":
        buffer.finish(None)
    else:
        buffer.fail(OriginReset("the origin closed the connection", code="origin-reset"))
    del buffer, readers, reader
    gc.collect()
    assert closed.count(spool) == 1


async def test_a_bug_while_a_body_is_stored_ends_the_transfer(monkeypatch):
    async with world() as w:
        w.answers(b"body", Cache_Control="max-age=60")

        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("edgecache.edge.buffer.FillBuffer.append", broken)
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(w.get("/"), 10)
