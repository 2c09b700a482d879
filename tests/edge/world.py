"""A real origin and a real edge in one event loop, on loopback: what the pipeline's tests stand on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from edgecache.app import Edge, Shared
from edgecache.config.model import Config

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
TOKEN = "test-token-of-some-length"


@dataclass
class World:
    edge: Edge
    origin_url: str
    client: aiohttp.ClientSession
    answer: Answer
    """What the origin does; tests put their own here."""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """(method, path with query, lower-case headers) of each request that reached the origin."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.edge.listeners[0].port}"

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.edge.listeners[0].port}"

    async def get(self, path: str = "/", method: str = "GET", **headers: str) -> "Got":
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(method, self.url + path, headers=fields) as response:
            body = await response.read()
            return Got(response.status, body, {k.lower(): v for k, v in response.headers.items()})

    def answers(self, body: bytes | str = b"hello", status: int = 200, **headers: str) -> None:
        """From now on the origin answers this to everything."""
        data = body.encode() if isinstance(body, str) else body
        fields = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=data, status=status, headers=fields)

        self.answer = answer


@dataclass(frozen=True)
class Got:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def cache_status(self) -> str:
        return self.headers.get("cache-status", "")


@asynccontextmanager
async def world(**settings: object) -> AsyncIterator[World]:
    """`settings`: configuration sections by name, such as cache={"stale_if_error": "1h"}."""
    made: list[World] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        here = made[0]
        here.asked.append((request.method, request.path_qs, {k.lower(): v for k, v in request.headers.items()}))
        return await here.answer(request)

    server = web.Server(handler, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = Config.model_validate(
        {
            "name": "edge-under-test",
            "origin": f"http://127.0.0.1:{port}",
            "listen": ["127.0.0.1:0"],
            "admin": {"address": "127.0.0.1:0"},
            "memory": {"size": "16MiB", "max_object": "256KiB"},
            "log": {"access": {"format": "off"}},
            **settings,
        }
    )
    shared = Shared(config)
    edge = Edge(config, shared, TOKEN)
    await edge.start()
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    client = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=timeout)
    here = World(edge, f"http://127.0.0.1:{port}", client, _nothing)
    made.append(here)
    try:
        yield here
    finally:
        await client.close()
        await edge.close(0.5)
        if shared.disk is not None:
            shared.disk.close()
        shared.orders.close()
        await runner.cleanup()


async def _nothing(_: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Let the loop run until something that happens in it has happened."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.001)


async def at_rest(count: Callable[[], int]) -> None:
    """Until what is counted has stood still for a while: nothing tells that a peer's writes wait."""
    before, same = count(), 0
    while same < 5:
        await asyncio.sleep(0.03)
        before, same = count(), same + 1 if count() == before else 0
