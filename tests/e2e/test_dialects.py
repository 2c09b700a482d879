"""Purges in other products' words at an edge of several processes: whichever worker hears one, all of them obey."""

import asyncio

import aiohttp
import pytest

from tests.e2e.edge import TOKEN, edge
from tests.e2e.origin import Answer, Asked, origin

pytestmark = pytest.mark.e2e

CONNECTIONS = 8


@pytest.mark.parametrize("token", [False, True], ids=["address", "address-and-token"])
async def test_the_public_listeners_of_all_workers(token: bool) -> None:
    count = 0

    async def answer(asked: Asked, reply: Answer) -> None:
        nonlocal count
        assert asked.method == "GET", "a purge has got through to the origin"
        count += 1
        await reply.whole(b"page", f"Cache-Control: max-age=600|Surrogate-Key: a|X-Version: {count}")

    fields = {"Authorization": f"Bearer {TOKEN}"} if token else {}
    allow = f'workers: 2\npurge: {{dialects: {{public: {{allow: ["127.0.0.1"], token: {str(token).lower()}}}}}}}'
    async with origin(answer) as back, edge(back.url, allow) as front:

        async def ask(method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
            """On a connection of its own: the kernel chooses the worker."""
            connector = aiohttp.TCPConnector(force_close=True)
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.request(method, front.url + path, headers=headers) as response,
            ):
                await response.read()
                return response.status, response.headers.get("X-Version", "")

        for purge in ({"xkey": "a"}, {"X-Magento-Tags-Pattern": "(^|,)a(,|$)"}, {}):
            for _ in range(CONNECTIONS):
                (before,) = set(await asyncio.gather(*(ask("GET", "/page", {}) for _ in range(CONNECTIONS))))
                assert (await ask("PURGE", "/page", purge | fields))[0] == 200
                (after,) = set(await asyncio.gather(*(ask("GET", "/page", {}) for _ in range(CONNECTIONS))))
                assert int(after[1]) == int(before[1]) + 1
        if token:
            assert (await ask("PURGE", "/page", {}))[0] == 405
            assert set(await asyncio.gather(*(ask("GET", "/page", {}) for _ in range(CONNECTIONS)))) == {after}
