"""The promise, on one node: after a purge has returned, no body older than it is served to whoever asks then.

Random histories over a real edge and a real origin whose bodies carry versions: requests that start at any moment,
fetches that hang before the head or within the body, changes at the origin followed by purges of every kind, origin
failures. What is checked holds for every single response.
"""

import asyncio
import random
from dataclasses import dataclass

import pytest
from aiohttp import web

from edgecache.purge.message import PurgeKind, PurgeOrder
from tests.edge.world import World, world

PATHS = ("/a/1", "/a/2", "/b/1")
HISTORIES = 12
STEPS = 60


@dataclass
class Page:
    version: int = 1
    purged_at: int = 0
    """No body of a lower version may be served to requests that begin now."""


class History:
    def __init__(self, w: World, seed: int) -> None:
        self.w = w
        self.random = random.Random(seed)
        self.pages = {path: Page() for path in PATHS}
        self.gates: list[asyncio.Event] = []
        self.over = False
        """Nothing waits any more: what is asked behind a client's back may be asked after the last client has gone."""
        self.asking: list[asyncio.Task[None]] = []
        self.served = 0
        w.answer = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The version is read when the origin begins to answer; the rest may come much later."""
        version = self.pages[request.path].version
        body = f"{version}:{request.path}:".encode() * 50
        headers = {
            "Cache-Control": self.random.choice(
                ("max-age=60", "max-age=0", "max-age=60, stale-if-error=60", "max-age=0, stale-while-revalidate=60")
            ),
            "Surrogate-Key": f"page {request.path.replace('/', '-')}",
            "ETag": f'"{version}"',
        }
        match self.random.randrange(6):
            case 0:
                await self.gate()
            case 1:
                response = web.StreamResponse(headers=headers | {"Content-Length": str(len(body))})
                await response.prepare(request)
                await response.write(body[:10])
                await self.gate()
                await response.write(body[10:])
                return response
            case 2:
                return web.Response(status=503, text="busy")
            case _:
                pass
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)

    async def gate(self) -> None:
        if self.over:
            return
        event = asyncio.Event()
        self.gates.append(event)
        await event.wait()

    async def ask(self, path: str) -> None:
        least = self.pages[path].purged_at
        got = await self.w.get(path)
        if got.status == 200:
            self.served += 1
            parts = got.body.decode().split(":")
            assert {int(version) for version in parts[0:-1:2]} == {int(parts[0])}, "two versions in one body"
            assert int(parts[0]) >= least, f"{path}: version {parts[0]} served, {least} was purged before it was asked"
        else:
            assert got.status == 503

    async def change_and_purge(self) -> None:
        path = self.random.choice(PATHS)
        everything = dict.fromkeys(("all", "key", "host", "site"), PATHS)
        kind = self.random.choice(("url", "own-key", "prefix", *everything))
        covered = {"url": (path,), "own-key": (path,), "prefix": tuple(p for p in PATHS if p[:3] == path[:3])}
        paths = covered.get(kind, PATHS)
        authority = self.w.authority
        orders = {
            "url": {"urls": (f"http://{authority}{path}",)},
            "own-key": {"keys": (path.replace("/", "-"),)},
            "prefix": {"prefixes": (f"{authority}{path[:2]}",)},
            "all": {"everything": True},
            "site": {"everything": True, "site": "default"},
            "key": {"keys": ("page",)},
            "host": {"hosts": (authority.partition(":")[0],)},
        }
        for changed in paths:
            self.pages[changed].version += 1
        # Where stale responses may be used a soft purge allows them, by design; it is checked elsewhere.
        await self.w.edge.purge(PurgeOrder(**orders[kind], kind=PurgeKind.HARD), wait=True)  # type: ignore[arg-type]
        for changed in paths:
            self.pages[changed].purged_at = self.pages[changed].version

    async def run(self) -> None:
        for _ in range(STEPS):
            match self.random.randrange(8):
                case 0 | 1:
                    await self.change_and_purge()
                case 2 if self.gates:
                    self.gates.pop(self.random.randrange(len(self.gates))).set()
                case _:
                    self.asking.append(asyncio.ensure_future(self.ask(self.random.choice(PATHS))))
            for _ in range(self.random.randrange(6)):
                await asyncio.sleep(0)
        self.over = True
        for event in self.gates:
            event.set()
        await asyncio.wait(self.asking)
        for task in self.asking:
            task.result()
        assert self.served > STEPS // 6


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_no_body_older_than_a_purge(seed):
    async with world() as w:
        await asyncio.wait_for(History(w, seed).run(), 60)
