"""Varnish's BAN at a real edge of several workers, with its compiled lane: what it matches is gone from all at once."""

import aiohttp
import pytest

from tests.e2e.edge import TOKEN, edge
from tests.e2e.origin import Answer, Asked, origin

pytestmark = pytest.mark.e2e

MATCH = "workers: 2\npurge: {dialects: {patterns: match}}"
CALLS = 40


@pytest.mark.parametrize("soft", [False, True], ids=["ban", "soft"])
async def test_a_pattern_at_all_workers(soft: bool) -> None:
    """Each request on a connection of its own, so that every worker has its turn."""
    version = b"old"

    async def answer(asked: Asked, reply: Answer) -> None:
        await reply.whole(version, f'Cache-Control: max-age=600|ETag: "{version.decode()}"')

    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        origin(answer) as site,
        edge(site.url, MATCH) as front,
        aiohttp.ClientSession(connector=connector) as http,
    ):

        async def ask(path: str) -> tuple[bytes, str]:
            async with http.get(front.url + path) as response:
                return await response.read(), response.headers.get("Cache-Status", "")

        async def all_of(path: str) -> set[bytes]:
            return {(await ask(path))[0] for _ in range(CALLS)}

        paths = ("/list/1.html", "/list/2.png", "/3.png?size=2", "/user")
        for path in paths:
            assert await all_of(path) == {b"old"}
        version = b"new"
        if soft:
            await front.purge({"patterns": [{"url": r"\.png(\?|$)"}], "soft": True})
        else:
            headers = {"X-Purge-Key": TOKEN, "X-Url": r"\.png(\?|$)"}
            async with http.request("BAN", front.admin + "/", headers=headers) as banned:
                assert (banned.status, banned.reason) == (200, "Ban added")
        for path in paths:
            assert await all_of(path) == {b"new" if ".png" in path else b"old"}
            assert "; hit" in (await ask(path))[1]
        figures = (await front.stats())["purges"]["patterns"]
        assert figures["active"] == 1
        assert figures["matched"] >= 2
        asked_before = len(site.seen)
        catastrophe = "/" + "a" * 4000 + "!"
        await ask(catastrophe)
        await front.purge({"patterns": [{"url": "(a+)+$"}, {"url": "(a|aa)+$"}]})
        assert "; hit" in (await ask(catastrophe))[1], "it does not end in a's"
        assert len(site.seen) == asked_before + 1
