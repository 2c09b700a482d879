"""A coordinator on loopback, and edges that apply nothing but remember everything."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from edgecache.config.units import Address
from edgecache.http.clock import wall_clock
from edgecache.http.tasks import spawn
from edgecache.purge.bus import Heartbeat, LogEntry, LogPosition, Lost, Purges, Welcome
from edgecache.purge.coordinator import tokens
from edgecache.purge.coordinator.hub import Hub
from edgecache.purge.coordinator.server import CoordinatorServer
from edgecache.purge.coordinator.service import Coordinator
from edgecache.purge.coordinator.tokens import Scope, TokenBook
from edgecache.purge.ledger import Retention
from edgecache.purge.sqlite_log import SqliteLog
from edgecache.purge.transport.pace import Pace
from edgecache.purge.transport.websocket import WebSocketFeed

QUICK = Pace(first_s=0.01, most_s=0.05, steady_s=0.0, connect_s=5.0)


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """In memory where there is such a thing: what is tested is the order of things, not the disk."""
    shared = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)


@dataclass
class Running:
    """A coordinator, and a client with the tokens for it."""

    folder: Path
    log: SqliteLog
    coordinator: Coordinator
    server: CoordinatorServer
    session: aiohttp.ClientSession
    tokens: dict[str, str]
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.address.port}"

    async def ask(
        self, method: str, path: str, token: str | None = "admin", *, headers: dict[str, str] | None = None, **more: Any
    ) -> tuple[int, Any]:
        headers = dict(headers or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {self.tokens.get(token, token)}"
        async with self.session.request(method, self.url + path, headers=headers, **more) as response:
            if response.content_type == "application/json":
                return response.status, await response.json()
            return response.status, await response.text()

    async def purge(self, *keys: str, token: str = "admin", key: str | None = None, **body: Any) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        status, answer = await self.ask(
            "POST", "/v1/purge", token, headers=headers, json={"keys": list(keys), "wait": False} | body
        )
        assert status == 200, answer
        return answer


@dataclass
class World:
    """What a test starts coordinators with; its folder outlives them."""

    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def coordinator(
        self,
        *,
        heartbeat_s: float = 0.2,
        stall_s: float = 5.0,
        most: int = 1000,
        rate: float = 0,
        burst: float = 100,
        entries: int = 1_000_000,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        certificates: bool = False,
        trust: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        match: bool = False,
    ) -> AsyncIterator[Running]:
        path = self.folder / "tokens.json"
        for scope in Scope:
            if scope.value not in self.tokens:
                self.tokens[scope.value] = tokens.add(path, scope.value, [scope], now=0)
        log = SqliteLog(self.folder, Retention(entries=entries))
        await log.start()
        hub = Hub(log, wall=wall_clock, heartbeat_s=heartbeat_s, stall_s=stall_s, most=most)
        clock = asyncio.get_running_loop().time
        coordinator = Coordinator(
            log, TokenBook(path, clock), hub, wall=wall_clock, rate=rate, burst=burst, wait_s=5.0, match=match
        )
        await coordinator.start()
        server = CoordinatorServer(coordinator, Address(host, port), tls=tls, certificates=certificates)
        try:
            await server.start()
            connector = aiohttp.TCPConnector(ssl=trust if trust is not None else True)
            async with aiohttp.ClientSession(connector=connector) as session:
                scheme = "http" if tls is None else "https"
                yield Running(self.folder, log, coordinator, server, session, self.tokens, scheme)
        finally:
            await server.close()
            await log.close()


class LightEdge:
    """Follows a coordinator; its position is kept as an edge keeps it, and it acknowledges unless told not to."""

    def __init__(
        self, url: str, name: str, token: str | None, *, tls: ssl.SSLContext | None = None, acks: bool = True
    ) -> None:
        self.name = name
        self.feed = WebSocketFeed(url, edge=name, token=lambda: token, tls=lambda: tls, pace=QUICK)
        self.position: LogPosition | None = None
        self.entries: list[LogEntry] = []
        self.resets = 0
        self.welcomes = 0
        self.beats = 0
        self.lost: list[str] = []
        self.acks = acks
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = spawn(self._run(), f"edge {self.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.feed.close()
        assert self._task is not None
        await self._task

    async def _run(self) -> None:
        async for event in self.feed.events(lambda: self.position):
            match event:
                case Welcome():
                    self.welcomes += 1
                    self.resets += event.reset
                    self.position = event.position
                    self._ack()
                case Purges(entries):
                    self.entries += entries
                    assert self.position is not None
                    last = entries[-1]
                    self.position = LogPosition(self.position.log, last.sequence, last.time)
                    self._ack()
                case Heartbeat():
                    self.beats += 1
                case Lost(reason):
                    self.lost.append(reason)
            self._changed.set()
            self._changed = asyncio.Event()

    def _ack(self) -> None:
        if self.acks and self.position is not None:
            self.feed.ack(self.position.sequence)

    async def until(self, condition: Any, within_s: float = 10.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition(self):
                await self._changed.wait()

    async def at(self, sequence: int) -> None:
        await self.until(lambda edge: edge.position is not None and edge.position.sequence >= sequence)

    @property
    def keys(self) -> list[str]:
        return [entry.order.keys[0] for entry in self.entries]
