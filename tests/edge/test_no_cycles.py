"""What a request has taken is given back when it ends: pins and open files do not wait for the cycle collector, which a
worker runs seldom."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.edge import test_bodies_on_disk as disk
from tests.edge.world import World, until, world

BODY = b"x" * 50_000  # of a small one a copy is taken, and no pin


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def of_ours() -> set[str]:
    """The classes of what only the collector would have found."""
    gc.collect()
    return {type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("edgecache")}


async def ask_in_many_ways(w: World, name: str) -> None:
    w.answers(BODY, Cache_Control="max-age=0, stale-if-error=60", ETag='"x"', Vary="X-Kind")
    for _ in range(3):
        await w.get(f"/varies/{name}", X_Kind="1")
    w.answers(BODY, Cache_Control="max-age=0", ETag='"x"')
    for _ in range(3):
        await w.get(f"/stale/{name}")
    w.answers(BODY, Cache_Control="max-age=60")
    for _ in range(2):
        await w.get(f"/fresh/{name}")
    await w.get(f"/fresh/{name}", Range="bytes=1-3")
    w.answers(BODY, Cache_Control="no-store")
    for _ in range(2):
        await w.get(f"/passed/{name}")
    w.answers(b"broken", status=503)
    await w.get(f"/varies/{name}", X_Kind="1")
    await w.get(f"/stale/{name}")


async def fail(w: World, name: str) -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    w.answer = gone
    await w.get(f"/varies/{name}", X_Kind="1")
    await w.get(f"/stale/{name}")
    assert (await w.get(f"/failed/{name}")).status == 502


async def test_nothing_is_left_in_cycles(no_collection):
    async with world() as w:
        await ask_in_many_ways(w, "first")  # what is made once
        await until(lambda: not w.edge.pipeline.collapse.fills)
        gc.collect()
        gc.garbage.clear()
        for number in range(3):
            await ask_in_many_ways(w, str(number))
        await until(lambda: not w.edge.pipeline.collapse.fills)
        assert w.edge.stats()["memory"]["pins"] == 0
        assert of_ours() == set()
        for number in range(3):
            await fail(w, str(number))
        await until(lambda: not w.edge.pipeline.collapse.fills)
        assert w.edge.stats()["memory"]["pins"] == 0, "an error and its traceback may make a cycle, but of no entry"


@pytest.fixture
async def stored(tmp_path: Path) -> None:
    await disk.stored(tmp_path)


async def test_nothing_is_left_of_what_is_sent_from_a_file(stored, no_collection, tmp_path: Path):
    asked = {"cache_control": "max-age=500"}  # not by the fast lane
    async with disk.node(tmp_path) as w:
        await disk.get(w, "/a", **asked)
        gc.collect()
        gc.garbage.clear()
        for _ in range(3):
            assert (await disk.get(w, "/a", **asked)).body == disk.BODY
            assert (await disk.get(w, "/a", range="bytes=7-99999", **asked)).body == disk.BODY[7:]
        assert disk.served(w) == 0
        assert of_ours() == set()
