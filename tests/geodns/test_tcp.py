"""TCP: framing byte by byte, order, limits on numbers and slowness."""

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgecache.config.geodns import GeoLimitsConfig
from edgecache.geodns.tcp import TcpService, packed


class Service:
    def __init__(self, **limits: Any) -> None:
        self.counted: Counter[str] = Counter()
        self.seen: list[tuple[bytes, bytes]] = []
        config = GeoLimitsConfig.model_validate(limits)
        self.service = TcpService(config, self.respond, lambda what: self.counted.update([what]))
        self.server: asyncio.Server | None = None

    def respond(self, query: bytes, client: bytes) -> bytes | None:
        self.seen.append((query, client))
        return None if query == b"silence" else query * (10_000 if query == b"long" else 1)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        if self.server is None:
            self.server = await loop.create_server(self.service.protocol, "127.0.0.1", 0)
        return await asyncio.open_connection("127.0.0.1", self.server.sockets[0].getsockname()[1])


@pytest.fixture
async def made() -> AsyncIterator[list[Service]]:
    services: list[Service] = []
    yield services
    for service in services:
        service.service.leave()
        if service.server is not None:
            service.server.close()


def framed(*queries: bytes) -> bytes:
    return b"".join(struct.pack(">H", len(query)) + query for query in queries)


async def message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">H", await reader.readexactly(2))
    return await reader.readexactly(length)


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_queries_come_whole_or_in_pieces(made: list[Service], size: int) -> None:
    made.append(Service())
    reader, writer = await made[0].connect()
    data = framed(b"one", b"", b"three")
    for at in range(0, len(data), size):
        writer.write(data[at : at + size])
        await writer.drain()
        await asyncio.sleep(0)
    assert [await message(reader) for _ in range(3)] == [b"one", b"", b"three"]
    assert made[0].seen[0] == (b"one", bytes((127, 0, 0, 1)))
    writer.close()


async def test_what_is_no_query_ends_the_connection(made: list[Service]) -> None:
    made.append(Service())
    reader, writer = await made[0].connect()
    writer.write(framed(b"one", b"silence", b"two"))
    with contextlib.suppress(ConnectionError):
        assert framed(b"one").startswith(await reader.read())
    assert [query for query, _ in made[0].seen] == [b"one", b"silence"]
    writer.close()


async def test_no_more_connections_than_are_allowed(made: list[Service]) -> None:
    made.append(Service(tcp_per_client=2))
    first, second = await made[0].connect(), await made[0].connect()
    for reader, writer in (first, second):
        writer.write(framed(b"x"))
        assert await message(reader) == b"x"
    reader, writer = await made[0].connect()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readexactly(1)
    writer.close()
    assert made[0].counted["tcp_refused"] == 1
    first[1].close()
    async with asyncio.timeout(10):
        while made[0].service.by_client[packed("127.0.0.1")] > 1:  # noqa: ASYNC110 - a socket
            await asyncio.sleep(0.01)
    reader, writer = await made[0].connect()
    writer.write(framed(b"y"))
    assert await message(reader) == b"y"
    for one in (writer, second[1]):
        one.close()


async def test_idle_and_dripping_clients_are_cut_off(made: list[Service]) -> None:
    made.append(Service(tcp_idle_timeout=0.2))
    idle, idler = await made[0].connect()
    dripping, writer = await made[0].connect()
    writer.write(b"\0\5ab")
    async with asyncio.timeout(10):
        for reader in (idle, dripping):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(1)
    assert made[0].counted["tcp_timed_out"] == 2
    for one in (idler, writer):
        one.close()


async def test_a_client_that_takes_nothing_is_cut_off(made: list[Service]) -> None:
    """What waits for it is bounded: no more is read from it meanwhile."""
    made.append(Service(tcp_write_timeout=0.3, tcp_idle_timeout=60))
    _, writer = await made[0].connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(400):
        writer.write(framed(*[b"long"] * 10))
    async with asyncio.timeout(20):
        while not made[0].counted["tcp_timed_out"]:  # noqa: ASYNC110 - a clock
            await asyncio.sleep(0.02)
    assert len(made[0].seen) < 4000
    writer.close()


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("192.0.2.1", bytes((192, 0, 2, 1))),
        ("::ffff:192.0.2.1", bytes((192, 0, 2, 1))),
        ("fe80::1%lo", b"\xfe\x80" + bytes(13) + b"\1"),
    ],
)
def test_addresses(text: str, octets: bytes) -> None:
    assert packed(text) == octets
