"""Purge while a fetch is in flight: what the origin said before the purge is never served after it."""

import asyncio

import aiohttp
import pytest

from tests.e2e.edge import Edge, edge
from tests.e2e.origin import Answer, Asked, origin

pytestmark = pytest.mark.e2e

TARGETS = ("url", "key", "prefix", "host", "all")


def order(target: str, path: str, front: Edge) -> dict[str, object]:
    """A purge that means `path`, said in each of the ways there are."""
    host = front.url.removeprefix("http://")
    said: dict[str, dict[str, object]] = {
        "url": {"urls": [front.url + path]},
        "key": {"keys": [f"key{path.replace('/', '-')}"]},
        "prefix": {"prefixes": [f"{host}{path.rpartition('/')[0]}/"]},
        "host": {"hosts": [host]},
        "all": {"all": True},
    }
    return said[target]


@pytest.mark.parametrize("kind", ["hard", "soft"])
async def test_what_was_fetched_before_a_purge_is_never_served_after_it(kind: str) -> None:
    content = dict.fromkeys((f"/{target}/page" for target in TARGETS), b"old content")
    release: dict[str, asyncio.Event] = {path: asyncio.Event() for path in content}

    async def answer(asked: Asked, reply: Answer) -> None:
        body = content[asked.target]
        key = f"Surrogate-Key: key{asked.target.replace('/', '-')}"
        await reply.head(f'Cache-Control: max-age=600|{key}|Content-Length: {len(body)}|ETag: "{body.decode()[:3]}"')
        await reply.send(body[:4])
        if body.startswith(b"old"):
            await release[asked.target].wait()
        await reply.send(body[4:])

    async with origin(answer) as site, edge(site.url) as front, aiohttp.ClientSession() as session:

        async def ask(path: str) -> bytes:
            async with session.get(front.url + path) as response:
                return await response.read()

        for target in TARGETS:
            path = f"/{target}/page"
            async with session.get(front.url + path) as early:
                assert await early.content.readexactly(4) == b"old "
                content[path] = b"new content"
                receipt = await front.purge({**order(target, path, front), "soft": kind == "soft"})
                assert receipt["sequence"] > 0
                # Somebody who asks now must not join the fetch that began before.
                assert await asyncio.wait_for(ask(path), 30) == b"new content", target
                release[path].set()
                assert await early.read() == b"content", "who was being served keeps what was begun"
            # The old fetch has ended after the new one: it must not have replaced it.
            assert await ask(path) == b"new content", target
            assert site.count(path) == 2, target


@pytest.mark.parametrize("kind", ["hard", "soft"])
async def test_a_fetch_that_a_purge_overtakes_is_not_stored(kind: str) -> None:
    content = dict.fromkeys((f"/{target}/page" for target in TARGETS), b"old content")
    release: dict[str, asyncio.Event] = {path: asyncio.Event() for path in content}

    async def answer(asked: Asked, reply: Answer) -> None:
        body = content[asked.target]
        if body.startswith(b"old"):
            await release[asked.target].wait()  # not even the head has come when the purge does
        await reply.whole(body, f"Cache-Control: max-age=600|Surrogate-Key: key{asked.target.replace('/', '-')}")

    async with origin(answer) as site, edge(site.url) as front, aiohttp.ClientSession() as session:

        async def ask(path: str) -> bytes:
            async with session.get(front.url + path) as response:
                return await response.read()

        for target in TARGETS:
            path = f"/{target}/page"
            early = asyncio.ensure_future(ask(path))
            await site.asked(path, 1)
            content[path] = b"new content"
            await front.purge({**order(target, path, front), "soft": kind == "soft"})
            release[path].set()
            # Who asked before the purge may get either; who asks after it may not.
            assert await early in (b"old content", b"new content")
            assert await ask(path) == b"new content", target
            assert await ask(path) == b"new content", target
