"""Cache-Group-Invalidation (RFC 9875 §3) through a real edge."""

import pytest
from aiohttp import web

from tests.edge.world import World, world

GROUPS = {"/list": '"items", "with space"', "/item": '"with space"', "/other": '"others"', "/none": ""}


def origin(w: World, status: int = 200, invalidates: str = '"with space"') -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            headers = {"Cache-Control": "max-age=60", "Cache-Groups": GROUPS[request.path]}
            return web.Response(text=request.path, headers=headers)
        return web.Response(status=status, headers={"Cache-Group-Invalidation": invalidates})

    w.answer = answer


async def fresh(w: World) -> set[str]:
    found = set()
    for path in GROUPS:
        if "; hit" in (await w.get(path)).cache_status:
            found.add(path)
    return found


@pytest.mark.parametrize(
    ("method", "status", "invalidates", "left"),
    [
        pytest.param("POST", 200, '"with space"', {"/other", "/none"}, id="success"),
        pytest.param("DELETE", 303, '"items", "others"', {"/item", "/none"}, id="several"),
        pytest.param("POST", 500, '"items"', set(GROUPS), id="error"),
        pytest.param("OPTIONS", 200, '"items"', set(GROUPS), id="safe"),
        pytest.param("POST", 200, "items", set(GROUPS), id="malformed"),
        pytest.param("POST", 200, '"Items"', set(GROUPS), id="case"),
    ],
)
async def test_what_is_left(method, status, invalidates, left):
    async with world() as w:
        origin(w, status, invalidates)
        await fresh(w)
        assert await fresh(w) == set(GROUPS)
        await w.get("/act", method)
        assert await fresh(w) == left


async def test_no_more_than_what_was_asked_is_purged_in_one_step():
    """The URL itself and the groups are one purge."""
    async with world() as w:
        origin(w)
        await w.get("/act", "POST")
        assert w.edge.pipeline.shelf.store.sequence() == 1
