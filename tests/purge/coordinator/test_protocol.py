"""Both sides against peers that do not keep to the protocol, are slow, or are cut off by the network."""

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from edgecache.http.tasks import spawn
from edgecache.purge import frames
from edgecache.purge.bus import LogPosition, Welcome
from edgecache.purge.coordinator import hub as hub_module
from edgecache.purge.coordinator import subscription
from edgecache.purge.frames import Hello
from edgecache.purge.message import PurgeOrder
from edgecache.purge.transport.pace import Pace
from tests.purge.bus_contract import CALLER, NOW
from tests.purge.coordinator.kit import LightEdge, Running, World
from tests.wirekit import RawClient

HELLO = frames.hello_frame(Hello("odd", "i", "1", None))


@asynccontextmanager
async def subscription_of(running: Running) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers = {"Authorization": f"Bearer {running.tokens['edge']}"}
    async with running.session.ws_connect(running.url + "/v1/subscribe", headers=headers) as ws:
        yield ws


async def ended(ws: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """Read to the end: the close code and reason."""
    async with asyncio.timeout(10):
        while True:
            message = await ws.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra or ""
            if message.type is not aiohttp.WSMsgType.TEXT:
                return ws.close_code, ""


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        pytest.param(["{"], 1002, "not JSON", id="not-json"),
        pytest.param([frames.ack_frame(0)], 1002, "no hello", id="ack-first"),
        pytest.param(['{"type":"welcome"}'], 1002, "no frame of an edge", id="other-way"),
        pytest.param([HELLO.replace('"format":1', '"format":2')], 1002, "format 2", id="format"),
        pytest.param([HELLO.replace('"odd"', '""')], 1002, "edge", id="no-name"),
        pytest.param([HELLO, HELLO], 1002, "second hello", id="second-hello"),
        pytest.param([HELLO, frames.ack_frame(7)], 1002, "an ack of 7", id="ack-of-what-was-not-sent"),
        pytest.param([HELLO, '{"type":"new"}'], 1002, "type 'new'", id="unknown-type"),
        pytest.param([HELLO, b"binary"], 1002, "not text", id="binary"),
        pytest.param([b"binary"], 1002, "not text", id="binary-first"),
        pytest.param([" " * 5000], 1009, "", id="too-large"),
        pytest.param([HELLO, " " * 5000], 1009, "", id="too-large-later"),
    ],
)
async def test_an_odd_edge_is_told_why(running: Running, said: list[str | bytes], code: int, words: str) -> None:
    async with LightEdge(running.url, "good", running.tokens["edge"]) as good:
        await good.until(lambda e: e.welcomes)
        async with subscription_of(running) as ws:
            for text in said:
                await (ws.send_str(text) if isinstance(text, str) else ws.send_bytes(text))
            got = await ended(ws)
            assert got[0] == code
            assert words in got[1]
        answer = await running.purge("k", wait=True)
        assert [edge["edge"] for edge in answer["edges"]] == ["good"]
        assert answer["complete"]


async def test_whoever_says_nothing_is_cut_off(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "HELLO_S", 0.05)
    async with subscription_of(running) as ws:
        assert await ended(ws) == (1002, "no hello")


async def test_an_edge_that_falls_silent_is_cut_off(world: World) -> None:
    async with world.coordinator(heartbeat_s=0.05) as running, subscription_of(running) as ws:
        await ws.send_str(HELLO)
        code, reason = await ended(ws)
        assert (code, reason) == (1001, "nothing was heard of it")
        assert running.coordinator.hub.connected == 0


async def test_noise_disturbs_nobody(running: Running) -> None:
    """Frames torn, swapped and mixed with others; whatever comes of it, the coordinator goes on."""
    rng = random.Random(6)
    parts = [
        HELLO,
        frames.ack_frame(1),
        frames.ack_frame(0),
        '{"type":"ack"}',
        "null",
        "[]",
        '"😀"',
        "{}",
        "",
    ]
    async with LightEdge(running.url, "good", running.tokens["edge"]) as good:
        await good.until(lambda e: e.welcomes)
        for _ in range(60):
            async with subscription_of(running) as ws:
                for _ in range(rng.randrange(1, 6)):
                    text = rng.choice(parts)
                    if rng.random() < 0.5:
                        at = rng.randrange(len(text) + 1)
                        text = text[:at] + rng.choice(['"', "{", "\0", "9" * 30, "é", ""]) + text[at + 1 :]
                    with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                        await ws.send_str(text)
        answer = await running.purge("k", wait=True, timeout_s=2)
        assert ("good", True) in [(edge["edge"], edge["applied"]) for edge in answer["edges"]]


async def test_octets_that_are_no_websocket_disturb_nobody(running: Running) -> None:
    rng = random.Random(7)
    upgrade = (
        f"GET /v1/subscribe HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {running.tokens['edge']}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    for _ in range(40):
        async with await RawClient.connect(running.server.address.port) as client:
            client.writer.write(upgrade)
            async with asyncio.timeout(10):
                head = await client.reader.readuntil(b"\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    client.writer.write(rng.randbytes(rng.randrange(1, 200)))
                    client.eof()
                    await client.rest()
        assert head.startswith(b"HTTP/1.1 101")
    assert (await running.purge("k", wait=True))["complete"]
    assert running.coordinator.hub.connected == 0


# --- an edge against an odd coordinator ---

GOOD = frames.welcome_frame(Welcome(LogPosition("l", 5, 1.0), 5, False, 5.0))
ENTRY = {"seq": 6, "time": 1, "order": {"kind": "hard", "source": "x", "keys": ["k"]}}


def purges(*numbers: int) -> str:
    return json.dumps({"type": "purges", "entries": [ENTRY | {"seq": number} for number in numbers]})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param([purges(6)], "no welcome", id="no-welcome"),
        pytest.param([GOOD, GOOD], "a second welcome", id="second-welcome"),
        pytest.param([GOOD, purges(7)], "entry 7 instead of 6", id="gap"),
        pytest.param([GOOD, purges(6), purges(6)], "entry 6 instead of 7", id="again"),
        pytest.param([GOOD, purges(6, 8)], "one by one", id="gap-within"),
        pytest.param([GOOD, '{"type":"heartbeat","head":6,"time":1}'], "a head of 6 instead of 5", id="head"),
        pytest.param([GOOD, '{"type":"ack","position":1}'], "no frame of a coordinator", id="other-way"),
        pytest.param([GOOD, "]"], "not JSON", id="not-json"),
        pytest.param([GOOD, b"binary"], "not text", id="binary"),
        pytest.param([GOOD, " " * (frames.MAX_DOWN_BYTES + 1)], "", id="too-large"),
        pytest.param([GOOD, None], "closed the connection: enough", id="closed"),
        pytest.param([None], "closed the connection: enough", id="closed-at-once"),
        pytest.param([GOOD.replace("5.0", "0.02")], "nothing heard", id="silent"),
        pytest.param([GOOD.replace('"format":1', '"format":9')], "format 9", id="format"),
    ],
)
async def test_an_odd_coordinator_is_left(said: list[str | bytes | None], words: str) -> None:
    async def talk(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(timeout=1)
        await ws.prepare(request)
        await ws.receive()
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            for text in said:
                if text is None:
                    await ws.close(code=1013, message=b"enough")
                else:
                    await (ws.send_str(text) if isinstance(text, str) else ws.send_bytes(text))
            async for _ in ws:
                pass
        return ws

    async with serving(talk) as url, LightEdge(url, "a", None) as edge:
        await edge.until(lambda e: len(e.lost) >= 2)
        assert all(words in reason for reason in edge.lost), edge.lost
        assert all(entry.sequence == 6 for entry in edge.entries)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "token"), (403, "scope"), (404, "status 404"), (503, "status 503"), (200, "status 200")],
)
async def test_a_refusal_is_told(status: int, words: str) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serving(refuse) as url, LightEdge(url, "a", None) as edge:
        await edge.until(lambda e: e.lost)
        assert words in edge.lost[0]


async def test_nobody_there_is_told(unused_tcp_port: int) -> None:
    async with LightEdge(f"http://127.0.0.1:{unused_tcp_port}", "a", None) as edge:
        await edge.until(lambda e: len(e.lost) >= 3)
        assert "onnect" in edge.lost[0]


def test_the_pace_grows_to_its_bound_with_jitter() -> None:
    pace = Pace(first_s=0.5, most_s=30)
    assert pace.delay(1, 1.0) == 1.0
    assert pace.delay(4, 1.0) == 8.0
    assert pace.delay(1000, 1.0) == 30.0
    assert 0 < pace.delay(1000, 0.0) < pace.delay(1000, 0.5) < 30.0


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/v1/subscribe", handler)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# --- slow, and cut off ---


async def test_an_edge_that_takes_nothing_costs_nobody_and_is_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten MiB are purged past an edge that reads nothing: the others have them at once, little waits for it, it is cut
    off, and has lost nothing when it comes back."""
    monkeypatch.setattr(hub_module, "SILENT_BEATS", 1000)
    async with world.coordinator(stall_s=0.3) as running, contextlib.AsyncExitStack() as closing:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", running.server.address.port))
        reader, writer = await asyncio.open_connection(sock=slow, limit=1024)
        closing.callback(writer.transport.abort)
        writer.write(
            f"GET /v1/subscribe HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {running.tokens['edge']}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        text = HELLO.encode()
        writer.write(bytes([0x81, 0x80 | 126]) + len(text).to_bytes(2) + b"\0\0\0\0" + text)
        await reader.read(1)
        async with LightEdge(running.url, "good", running.tokens["edge"]) as good:
            await good.until(lambda e: e.welcomes)
            await good.until(lambda _: running.coordinator.hub.connected == 2)
            [odd] = [each for each in running.coordinator.hub._subscribers if each.edge == "odd"]
            most = 0
            for i in range(40):
                order = PurgeOrder(urls=tuple(f"http://a/{'x' * 240}/{i}/{j}" for j in range(1000)))
                await running.log.append(order, now=NOW, caller=CALLER)
                await good.at(i + 1)
                most = max(most, odd.connection.backlog())
            assert most < 3 << 20
            await good.until(lambda _: running.coordinator.hub.connected == 1)
            assert running.coordinator.hub.tally.cut == 1
        writer.transport.abort()
        back = LightEdge(running.url, "odd", running.tokens["edge"])
        back.position = LogPosition(running.log.state().log, 0, 0.0)
        async with back:
            await back.at(40)
            assert [entry.sequence for entry in back.entries] == list(range(1, 41))


class Network:
    """Between an edge and a coordinator; it can be cut without either being told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._end()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        there = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, there[1]]
        for one, other in ((reader, there[1]), (there[0], writer)):
            task = spawn(self._carry(one, other), "network")
            self._tasks.add(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self._cut:
                    writer.write(data)
            if not self._cut:
                writer.close()

    def cut(self) -> None:
        """What is sent from now on is lost; nobody is told."""
        self._cut = True

    def heal(self) -> None:
        self._end()
        self._cut = False

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        self._tasks.clear()
        self._writers.clear()


async def test_a_partition_is_noticed_on_both_sides_and_mended_without_a_gap(world: World) -> None:
    async with (
        world.coordinator(heartbeat_s=0.1) as running,
        Network(running.server.address.port) as network,
        LightEdge(f"http://127.0.0.1:{network.port}", "far", running.tokens["edge"]) as far,
    ):
        await far.until(lambda e: e.welcomes)
        assert (await running.purge("before", wait=True))["complete"]
        network.cut()
        answer: Any = await running.purge("during", wait=True, timeout_s=0.1)
        assert [(edge["edge"], edge["applied"]) for edge in answer["edges"]] == [("far", False)]
        await far.until(lambda e: e.lost)
        assert "nothing heard" in far.lost[0]
        await far.until(lambda _: running.coordinator.hub.connected == 0)
        answer = await running.purge("away", wait=True)
        assert (answer["edges"], answer["away"]) == ([], ["far"])
        waiting = asyncio.ensure_future(running.purge("more"))
        network.heal()
        await waiting
        await far.at(4)
        assert far.keys == ["before", "during", "away", "more"]
        assert far.resets == 1
        assert (await running.purge("after", wait=True))["complete"]
