"""An edge with slices before an origin of large files, which counts what it sends and breaks off where told."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from edgecache.edge import octets
from edgecache.edge.lookup import stored_response
from edgecache.edge.slices import Slicer
from edgecache.http.stored import Sliced
from edgecache.purge.message import PurgeKind, PurgeOrder
from edgecache.store.tiers import TieredStore
from tests.edge.world import Got, World, until, world

KIB = 1024
SLICE = 64 * KIB
HOST = "www.example.test"


def content(size: int, seed: str = "a") -> bytes:
    """Octets that tell where they are from."""
    block = b"".join(hashlib.sha256(f"{seed}{i}".encode()).digest() for i in range(64))
    return b"".join((block[i % 997 :] + block)[:2048] for i in range(size // 2048 + 1))[:size]


@dataclass
class Files:
    """An origin of one large file."""

    body: bytes
    fields: dict[str, str] = field(default_factory=lambda: {"ETag": '"1"', "Cache-Control": "max-age=1000"})
    takes_ranges: bool = True
    chunked: bool = False
    asked: list[str | None] = field(default_factory=list)
    """The Range of each GET."""
    sent: int = 0
    cut_after: list[int] = field(default_factory=list)
    """After how many octets to cut the next answers, one each."""
    fail: list[int] = field(default_factory=list)
    """Statuses of the next answers."""
    gate: Callable[[int], object] = lambda _: None
    """Awaited, if it can be, before the octet at this offset."""

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            self.asked.append(request.headers.get("Range"))
        if self.fail:
            return web.Response(status=self.fail.pop(0))
        body, fields = self.body, dict(self.fields)
        etag = fields.get("ETag")
        if etag is not None and request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=fields)
        status, first, last = 200, 0, len(body) - 1
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        condition = request.headers.get("If-Range")
        same = condition is None or condition in {etag, fields.get("Last-Modified")}
        if wanted is not None and self.takes_ranges and same:
            first = int(wanted[1])
            last = min(int(wanted[2] or last), last)
            if first >= len(body):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
            status = 206
            fields["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        if not self.chunked:
            fields["Content-Length"] = str(last + 1 - first)
        response = web.StreamResponse(status=status, headers=fields)
        if self.chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        cut = self.cut_after.pop(0) if self.cut_after else None
        at = first
        while at <= last:
            waiting = self.gate(at)
            if waiting is not None:
                await waiting  # type: ignore[misc]
            end = min(at + 16 * KIB, last + 1, len(body) if cut is None else first + cut)
            await response.write(body[at:end])
            self.sent += end - at
            at = end
            if cut is not None and at - first >= cut:
                assert request.transport is not None
                await asyncio.sleep(0.05)
                request.transport.close()
                return response
        return response


@dataclass
class Place:
    """An edge with slices before such an origin."""

    w: World
    files: Files

    @property
    def slicer(self) -> Slicer:
        slicer = self.w.edge.pipeline.slicer
        assert slicer is not None
        return slicer

    @property
    def store(self) -> TieredStore:
        store = self.w.edge.pipeline.shelf.store
        assert isinstance(store, TieredStore)
        return store

    async def get(self, spec: str | None = None, path: str = "/v", method: str = "GET", **headers: str) -> Got:
        if spec is not None:
            headers["range"] = f"bytes={spec}"
        return await self.w.get(path, method, host=HOST, **headers)

    async def settled(self) -> None:
        """Everything under way has ended and is on disk."""
        await until(lambda: not self.slicer._tasks and not self.slicer.tees)
        await self.store.disk.flush()

    async def purge(self, *, kind: PurgeKind = PurgeKind.HARD, **order: object) -> None:
        await self.w.edge.purge(PurgeOrder(kind=kind, **order), wait=True)  # type: ignore[arg-type]

    async def manifest(self) -> Sliced:
        found = self.store.peek(self.store.key(f"http://{HOST}/v"))
        assert found is not None
        sliced = stored_response(found).sliced
        assert sliced is not None
        return sliced

    async def records(self) -> int:
        return (await self.store.disk.stats())["records"]


@asynccontextmanager
async def place(path: Path, size: int = 1024 * KIB, *, cut: str = "64KiB", **settings: object) -> AsyncIterator[Place]:
    files = Files(content(size))
    disk = {"path": str(path), "size": "64MiB"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(octets, "PAUSES_S", (0.0, 0.01, 0.02))
        async with world(disk=disk, cache={"slice": cut}, **settings) as w:
            w.answer = files
            made = Place(w, files)
            await until(lambda: made.store.disk.on, 60)
            yield made


RANGES = {
    "begin": "0-99",
    "one octet": "65536-65536",
    "across slices": "65000-140000",
    "to the end": "1000000-",
    "suffix": "-70000",
    "all": "0-",
    "beyond": "1048570-99999999",
}


def expected(spec: str, body: bytes) -> bytes:
    first, _, last = spec.partition("-")
    if not first:
        return body[-int(last) :]
    return body[int(first) : int(last) + 1 if last else None]
