"""limits.request_body: what is announced as too large is refused before it is read, what turns out so is cut off."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.edge.world import World, world


async def reads(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


async def chunks(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 500):
        yield b"x" * min(500, size - start)


async def post(w: World, size: int, *, chunked: bool) -> tuple[int, str]:
    data = chunks(size) if chunked else b"x" * size
    async with w.client.post(w.url + "/", data=data) as response:
        return response.status, await response.text()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 1000])
async def test_a_body_within_the_limit_passes(size: int, chunked: bool) -> None:
    async with world(limits={"request_body": 1000}) as w:
        w.answer = reads
        assert await post(w, size, chunked=chunked) == (200, str(size))


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_larger_body_gets_413(chunked: bool) -> None:
    async with world(limits={"request_body": 1000}) as w:
        w.answer = reads
        status, text = await post(w, 1001, chunked=chunked)
        assert status == 413
        assert "1000 octets" in text
        if not chunked:
            assert w.asked == []
        assert (await post(w, 10, chunked=chunked))[0] == 200
        by_outcome = w.edge.stats()["requests"]["by_outcome"]  # type: ignore[index]
        assert by_outcome["rejected"] == 1


async def test_without_a_limit_everything_passes() -> None:
    async with world() as w:
        w.answer = reads
        assert await post(w, 1_000_000, chunked=True) == (200, "1000000")
