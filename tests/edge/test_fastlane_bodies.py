"""Large bodies sent from the arena and from files: slow clients, lost ones, purges, pipelines, ends of all kinds."""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgecache.edge.connection import ClientLimits
from edgecache.edge.listener import Listener
from tests.edge.lanes import KIB, Bench, keep_bodies_on_disk, start, stop
from tests.edge.world import until
from tests.wirekit import RawClient

SIZE = 1000 * KIB
BODY = bytes(i * i % 251 for i in range(SIZE))
SMALL = 4096
"""A receive buffer that makes the sender wait."""
PIECE = 64 * KIB
ASK = b"GET /big HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.fixture(params=["memory", "file"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "memory":
        made = await start(tmp_path / "log")
    else:
        made = await start(tmp_path / "log", disk={"path": str(tmp_path / "tier"), "size": "64MiB"})
        keep_bodies_on_disk(made)
    narrow(made.listener)
    await stored(made)
    yield made
    await stop(made)


def narrow(listener: Listener) -> None:
    """Let what is accepted from now on have little room in the kernel."""
    for sock in listener.sockets:
        with socket.socket(fileno=os.dup(sock.fileno())) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)


async def stored(bench: Bench) -> None:
    for path, body in (("/big", BODY), ("/small", b"small")):
        bench.objects(path, body, "Cache-Control: max-age=1000")
        async with await RawClient.connect(bench.port) as client:
            await client.send(b"GET %b HTTP/1.1\r\nHost: a.example\r\n\r\n" % path.encode())
            assert (await client.answer()).body == body
    bench.log()


def pins(bench: Bench) -> int:
    """Bodies being sent."""
    pinned = bench.edge._shared.arena.stats()["pins"]
    listeners = [bench.listener, *bench.more]
    connections = [connection for listener in listeners for connection in listener._shared.connections]
    return pinned or sum(each.lane is not None and each.lane.busy for each in connections)


async def begun(bench: Bench, tls: ssl.SSLContext | None = None) -> RawClient:
    """A client that has asked for the body and has read nothing of it but the first octets."""
    client = await RawClient.connect(bench.port, receive_buffer=SMALL, tls=tls)
    try:
        await client.send(b"HEAD /small HTTP/1.1\r\nHost: a.example\r\n\r\n")
        await client.answer("HEAD")  # from now on the lane is ready for it
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        served = bench.lane.served
        await client.send(ASK)
        await until(lambda: pins(bench) == 1)
        assert bench.lane.served == served, "nothing is told before the end"
    except BaseException:
        client.writer.transport.abort()
        raise
    return client


async def all_of(client: RawClient) -> bytes:
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    answer = await client.answer()
    assert answer.status == 200
    return answer.body


async def test_a_slow_reader_holds_up_nobody_and_fills_no_memory(bench: Bench) -> None:
    async with await begun(bench) as client:
        connection = next(c for c in bench.listener._shared.connections if c.lane.busy)  # type: ignore[union-attr]
        assert 0 < connection.transport.get_write_buffer_size() <= PIECE + KIB
        async with await RawClient.connect(bench.port) as other:
            for _ in range(3):
                await other.send(ASK)
                assert (await other.answer()).body == BODY
        assert connection.transport.get_write_buffer_size() <= PIECE + KIB
        assert await all_of(client) == BODY
    await until(lambda: pins(bench) == 0)
    lines = [json.loads(line) for line in bench.log()]
    told = [(line["bytes_out"], line["status"], line.get("aborted")) for line in lines if line["method"] == "GET"]
    assert told == [(SIZE, 200, None)] * 4


async def test_a_client_that_goes_in_the_middle(bench: Bench) -> None:
    client = await begun(bench)
    before = bench.counts()
    client.writer.transport.abort()
    await until(lambda: pins(bench) == 0)
    line = json.loads(bench.log()[-1])
    assert (line["reason"], line["aborted"], line["outcome"]) == ("client-gone", True, "hit")
    assert 0 < line["bytes_out"] < SIZE
    counts = bench.counts()
    counts.subtract(before)
    assert sorted(count for count in counts.values() if count) == [1, 1, line["bytes_out"]]
    await client.close()


@pytest.mark.parametrize("how", ["purge", "replace", "evict"])
async def test_what_is_being_sent_stays_whole(bench: Bench, how: str) -> None:
    arena = bench.edge._shared.arena
    async with await begun(bench) as client:
        if how == "purge":
            arena.raise_floor(arena.sequence() + 1, soft=False)
        numbers = {"born_at": 0.0, "fresh_until": 9e9, "stale_until": 0.0, "flags": 0, "status": 200, "fill_seq": 9}
        for i in range(200):
            arena.put(b"%016d" % i, b"", b"", [b"\xff" * 900_000], tags=[], **numbers)  # type: ignore[arg-type]
        if how == "replace":
            bench.objects("/big", b"another", "Cache-Control: max-age=1000")
            async with await RawClient.connect(bench.port) as other:
                await other.send(ASK.replace(b"\r\n\r\n", b"\r\nCache-Control: no-cache\r\n\r\n"))
                assert (await other.answer()).body == b"another"
        assert await all_of(client) == BODY
    await until(lambda: pins(bench) == 0)
    arena.check()


@pytest.mark.parametrize("next_one", ["lane", "ordinary", "both", "large", "partial"])
async def test_requests_that_come_while_a_body_is_sent(bench: Bench, next_one: str) -> None:
    small = b"GET /small HTTP/1.1\r\nHost: a.example\r\n\r\n"
    odd = b"GET /small HTTP/1.1\r\nhost: a.example\r\nCache-Control: max-age=10\r\n\r\n"
    follow = {"lane": small, "ordinary": odd, "both": small + odd, "large": ASK, "partial": small[:20]}[next_one]
    async with await begun(bench) as client:
        await client.send(follow)
        await client.send(b"")
        assert await all_of(client) == BODY
        if next_one == "partial":
            await client.send(small[20:])
        for _ in range(follow.count(b"GET /small")):
            assert (await client.answer()).body == b"small"
        if next_one == "large":
            assert (await client.answer()).body == BODY
        await client.send(small)
        assert (await client.answer()).body == b"small"
    await until(lambda: pins(bench) == 0)


@pytest.mark.parametrize(
    "more", [b"", b"GET /small HTTP/1.1\r\nHost: a.example\r\n\r\n"], ids=["alone", "with another"]
)
async def test_a_client_that_ends_its_side(bench: Bench, more: bytes) -> None:
    async with await begun(bench) as client:
        await client.send(more)
        client.eof()
        assert await all_of(client) == BODY
        rest = await client.rest()
        assert rest.endswith(b"\r\n\r\nsmall") if more else rest == b""


async def test_a_drain_waits_for_the_body(bench: Bench) -> None:
    async with await begun(bench) as client:
        drain = asyncio.ensure_future(bench.listener.drain(10.0))
        await until(lambda: bench.listener._server is None)
        assert await all_of(client) == BODY
        assert await client.rest() == b""
        assert await drain


async def test_a_drain_cuts_who_takes_too_long(bench: Bench) -> None:
    async with await begun(bench) as client:
        assert not await bench.listener.drain(0.05)
        await until(lambda: pins(bench) == 0)
        client.writer.transport.abort()


@pytest.fixture
async def impatient(bench: Bench) -> AsyncIterator[Bench]:
    """The same edge, behind a listener with short limits."""
    limits = ClientLimits(idle_s=0.8, stall_s=0.4)
    listener = Listener(bench.edge.pipeline.handle, limits=limits, lane=bench.lane)
    await listener.start(("127.0.0.1", 0))
    narrow(listener)
    bench.more.append(listener)
    bench.port = listener.port
    yield bench
    await listener.drain(1.0)


async def test_a_client_that_reads_nothing_is_cut_off(impatient: Bench) -> None:
    async with await begun(impatient) as client:
        await until(lambda: pins(impatient) == 0)
        client.writer.transport.abort()
    assert json.loads(impatient.log()[-1])["aborted"]


async def test_the_idle_limit_begins_with_the_last_answer(impatient: Bench) -> None:
    small = b"GET /small HTTP/1.1\r\nHost: a.example\r\n\r\n"
    loop = asyncio.get_running_loop()
    async with await RawClient.connect(impatient.port) as client:
        began = loop.time()
        served = impatient.lane.served
        while loop.time() < began + 1.2:
            await client.send(small)
            assert (await client.answer()).body == b"small"
            await asyncio.sleep(0.05)
        assert impatient.lane.served > served
        assert await client.gone()


# --- TLS ---


@pytest.fixture
async def over_tls(bench: Bench, certificate: tuple[Path, Path]) -> AsyncIterator[tuple[Bench, ssl.SSLContext]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    listener = Listener(bench.edge.pipeline.handle, lane=bench.lane)
    await listener.start(("127.0.0.1", 0), context)
    narrow(listener)
    bench.more.append(listener)
    bench.port = listener.port
    for path in (b"/big", b"/small"):
        async with await RawClient.connect(bench.port, tls=trusting) as client:
            await client.send(b"GET %b HTTP/1.1\r\nHost: a.example\r\n\r\n" % path)
            await client.answer()
    yield bench, trusting
    await listener.drain(1.0)


async def test_large_bodies_over_tls(over_tls: tuple[Bench, ssl.SSLContext]) -> None:
    bench, trusting = over_tls
    async with await begun(bench, trusting) as client:
        await client.send(ASK)
        assert await all_of(client) == BODY
        assert (await client.answer()).body == BODY
    await until(lambda: pins(bench) == 0)


@pytest.mark.parametrize(
    "line",
    [
        "",
        'If-None-Match: "x"\r\n',
        "Cache-Control: max-age=60\r\n",
        "Accept-Encoding: gzip\r\n",
        "Host: b\r\n",
        "X: \0\r\n",
    ],
)
@pytest.mark.parametrize("host", ["a.example", "a.example:443", "a.example:80"])
async def test_the_same_over_tls(over_tls: tuple[Bench, ssl.SSLContext], host: str, line: str) -> None:
    bench, trusting = over_tls
    data = f"GET /small HTTP/1.1\r\nHost: {host}\r\n{line}\r\n".encode()
    got = []
    for is_open in (False, False, True):
        bench.lane.open = is_open
        async with await RawClient.connect(bench.port, tls=trusting) as client:
            await client.send(data)
            answer = await client.answer()
            kept = [field for field in answer.fields if field[0] not in ("Age", "Cache-Status", "Date")]
            got.append((answer.status, kept, answer.body))
    assert got[1] == got[2]
