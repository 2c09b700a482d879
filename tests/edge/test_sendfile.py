"""A body from a file: octet for octet what is in it, to readers of every kind, and never past what was announced."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgecache.edge import sendfile
from edgecache.edge.connection import ClientLimits
from edgecache.edge.exchange import Exchange, Handler
from edgecache.edge.listener import Listener
from edgecache.edge.sendfile import read_file, resident, warm
from edgecache.http.errors import ClientGone
from tests.edge.world import until
from tests.wirekit import RawClient, listening, plain

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(9 << 20)


@pytest.fixture(scope="module")
def fd(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path: Path = tmp_path_factory.mktemp("sendfile") / "body"
    path.write_bytes(content)
    number = os.open(path, os.O_RDONLY)
    path.unlink()  # an open file is enough
    yield number
    os.close(number)


def sends(fd: int, *spans: tuple[int, int], length: int | None = -1, told: list[int] | None = None) -> Handler:
    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), sum(size for _, size in spans) if length == -1 else length)
        for offset, size in spans:
            await exchange.write_file(fd, offset, size, told.append if told is not None else lambda _: None)
        exchange.finish()

    return handler


@asynccontextmanager
async def asked(
    handler: Handler,
    *,
    receive_buffer: int = 0,
    tls: ssl.SSLContext | None = None,
    trust: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[RawClient, Listener]]:
    async with (
        listening(handler, tls=tls) as listener,
        await RawClient.connect(listener.port, receive_buffer=receive_buffer, tls=trust) as client,
    ):
        yield client, listener


SPANS = {
    "one-octet": [(7, 1)],
    "small": [(0, 1000)],
    "across-steps": [(sendfile.STEP - 5, sendfile.STEP + 10)],
    "whole": [(0, 9 << 20)],
    "parts": [(100_000, 300_000), (0, 10), (5_000_000, 1_000_000)],
    "nothing": [(0, 0)],
}


@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
async def test_what_is_in_the_file_is_sent(fd: int, content: bytes, spans: list[tuple[int, int]]) -> None:
    told: list[int] = []
    async with listening(sends(fd, *spans, told=told)) as listener, await RawClient.connect(listener.port) as client:
        for _ in range(2):  # the connection goes on
            await client.send(GET)
            assert (await client.answer()).body == b"".join(content[at : at + size] for at, size in spans)
            assert sum(told) == sum(size for _, size in spans)
            told.clear()


async def test_a_slow_reader_gets_it_in_order_between_other_octets(fd: int, content: bytes) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), 100_000 + (8 << 20) + 6)
        await exchange.write(b"a" * 100_000)
        await exchange.write_file(fd, 0, 4 << 20)
        await exchange.write(b"middle")
        await exchange.write_file(fd, 4 << 20, 4 << 20)
        exchange.finish()

    async with asked(handler, receive_buffer=4096) as (client, _):
        await client.send(GET)
        got = await client.answer()
        assert got.body == b"a" * 100_000 + content[: 4 << 20] + b"middle" + content[4 << 20 : 8 << 20]


async def test_pipelined_requests_get_their_answers_in_order(fd: int, content: bytes) -> None:
    async with listening(sends(fd, (10, 400_000))) as listener, await RawClient.connect(listener.port) as client:
        await client.send(GET * 20)
        for _ in range(20):
            assert (await client.answer()).body == content[10:400_010]


async def test_where_the_length_is_not_announced(fd: int, content: bytes) -> None:
    async with asked(sends(fd, (10, 400_000), length=None)) as (client, _):
        await client.send(GET)
        assert (await client.answer()).body == content[10:400_010]
        await client.send(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        assert (await client.answer()).body == content[10:400_010]


async def test_over_tls(fd: int, content: bytes, certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trust = ssl.create_default_context(cafile=certificate[0])
    async with asked(sends(fd, (10, 3_000_000)), tls=context, trust=trust) as (client, _):
        await client.send(GET)
        assert (await client.answer()).body == content[10:3_000_010]


async def test_head_gets_no_body(fd: int) -> None:
    async with listening(sends(fd, (0, 500_000))) as listener, await RawClient.connect(listener.port) as client:
        await client.send(GET.replace(b"GET", b"HEAD"))
        assert (await client.answer("HEAD")).status == 200
        await client.send(GET)
        assert len((await client.answer()).body) == 500_000


async def test_a_file_that_ends_early_cuts_the_connection(fd: int) -> None:
    size = os.fstat(fd).st_size
    async with asked(sends(fd, (size - 1000, 5000))) as (client, _):
        await client.send(GET)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.answer()


async def test_more_than_announced_is_refused(fd: int) -> None:
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), 100)
        try:
            await exchange.write_file(fd, 0, 101)
        except ValueError as error:
            failed.set_result(error)

    async with listening(handler) as listener, await RawClient.connect(listener.port) as client:
        await client.send(GET)
        await asyncio.wait_for(failed, 10)
        assert await client.gone()


@pytest.mark.parametrize("how", ["takes nothing", "leaves"])
async def test_a_client_that_stops_reading(fd: int, how: str) -> None:
    ended: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
    told: list[int] = []

    async def handler(exchange: Exchange) -> None:
        exchange.start(plain(), 9 << 30)
        try:
            while True:
                await exchange.write_file(fd, 0, 9 << 20, told.append)
        except ClientGone as error:
            ended.set_result((error.detail, sum(told)))

    async with (
        listening(handler, limits=ClientLimits(stall_s=0.3)) as listener,
        await RawClient.connect(listener.port, receive_buffer=4096) as client,
    ):
        client.writer.transport.pause_reading()
        await client.send(GET)
        if how == "leaves":
            await until(lambda: bool(told))
            client.writer.transport.abort()
        detail, counted = await asyncio.wait_for(ended, 10)
        assert "closed or stalled" in detail
        assert 0 < counted < 1 << 30
        assert listener.counters.stalled == (how == "takes nothing")


async def test_drain_waits_for_it(fd: int, content: bytes) -> None:
    async with asked(sends(fd, (0, 8 << 20)), receive_buffer=4096) as (client, listener):
        await client.send(GET)
        head = await client.head()
        draining = asyncio.ensure_future(listener.drain(10))
        assert await client.rest() == content[: 8 << 20]
        assert head.status == 200
        assert await draining is True


async def test_what_is_not_in_memory_is_read_in_a_thread(
    fd: int, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[tuple[int, int]] = []
    monkeypatch.setattr(sendfile, "resident", lambda _, offset, size: (offset, size) in warmed)
    monkeypatch.setattr(sendfile, "warm", lambda _, offset, size: warmed.append((offset, size)))
    async with listening(sends(fd, (0, 9 << 20))) as listener, await RawClient.connect(listener.port) as client:
        await client.send(GET)
        assert (await client.answer()).body == content[: 9 << 20]
    assert warmed == [(0, sendfile.WINDOW), (4 << 20, sendfile.WINDOW), (8 << 20, 1 << 20)]


def test_cold_pages_are_told_from_warm_ones(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"x" * (2 << 20))
    number = os.open(path, os.O_RDWR)
    try:
        os.fsync(number)
        assert resident(number, 0, 2 << 20)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            os.preadv(number, [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            pass
        except OSError as error:
            pytest.skip(f"the file system cannot say: {error}")
        assert not resident(number, 0, 2 << 20)
        assert not resident(number, 12_345, 1)
        warm(number, 0, 2 << 20)
        assert resident(number, 0, 2 << 20)
    finally:
        os.close(number)


async def test_reading_waits_in_a_thread_where_it_must(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"0123456789" * 100_000)
    number = os.open(path, os.O_RDWR)
    os.fsync(number)
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    got = b""
    while data := await read_file(number, len(got), 1 << 20):
        got += data
    assert got == path.read_bytes()
    os.close(number)
    assert await read_file(number, 0, 100) == b""
