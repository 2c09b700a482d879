"""No-Vary-Search through a real edge: one stored response for every URL that its origin calls the same."""

import pytest
from aiohttp import web

from edgecache.edge.lookup import MAX_SEARCH_VARIANCES
from edgecache.http.clock import wall_clock
from edgecache.http.dates import format_date
from edgecache.http.headers import Headers
from edgecache.purge.message import PurgeKind, PurgeOrder
from tests.edge.world import World, world

ON = {"no_vary_search": True}


def says(w: World, value: str, **fields: str) -> None:
    """The origin answers with the target it was asked for, and this No-Vary-Search."""

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {"Cache-Control": "max-age=60", "No-Vary-Search": value, "ETag": '"v1"', **fields}
        if "If-None-Match" in request.headers:
            return web.Response(status=304, headers=headers)
        return web.Response(text=request.path_qs, headers=headers)

    w.answer = answer


@pytest.mark.parametrize(
    ("value", "first", "same", "others"),
    [
        pytest.param('params=("utm")', "/a?id=1&utm=x", ["/a?id=1", "/a?utm&id=1"], ["/a?id=2"], id="but"),
        pytest.param("params", "/a?x=1", ["/a", "/a?y=2", "/a?"], ["/b"], id="none-of-it"),
        pytest.param('params, except=("id")', "/a?id=1&x", ["/a?id=1", "/a?y&id=1"], ["/a?id=2&x", "/a"], id="only"),
        pytest.param("key-order", "/a?b=2&a=1", ["/a?a=1&b=2"], ["/a?a=2&b=1", "/a"], id="order"),
        pytest.param("nonsense(", "/a?x=1", ["/a?x=1"], ["/a", "/a?x=2"], id="malformed"),
    ],
)  # fmt: skip
async def test_equivalent_urls_share_a_response(value, first, same, others):
    async with world(cache=ON) as w:
        says(w, value)
        assert (await w.get(first)).body == first.encode()
        for path in (first, *same):
            got = await w.get(path)
            assert (got.body, "; hit" in got.cache_status) == (first.encode(), True), path
        assert len(w.asked) == 1
        for path in others:
            assert "; hit" not in (await w.get(path)).cache_status, path


async def test_off_unless_asked_for():
    async with world() as w:
        says(w, "params")
        await w.get("/a?x=1")
        assert (await w.get("/a?x=2")).body == b"/a?x=2"


async def test_several_rules_for_one_path_and_the_newest_response_wins():
    """A page that changes its mind: what was stored under either rule is found, the later one first."""
    async with world(cache=ON) as w:
        says(w, 'params=("utm")', Date=format_date(wall_clock() - 30))
        await w.get("/a?id=1&utm=x")
        says(w, 'params=("ref")')
        await w.get("/a?id=2&ref=x")
        for path, stored in (("/a?id=1&utm=y", b"/a?id=1&utm=x"), ("/a?id=2&ref=y", b"/a?id=2&ref=x")):
            assert (await w.get(path)).body == stored
        assert len(w.asked) == 2
        says(w, "params")
        await w.get("/a?id=3")
        assert (await w.get("/a?id=1&utm=z")).body == b"/a?id=3"
        assert len(w.asked) == 3


async def test_the_rules_remembered_are_bounded():
    async with world(cache=ON) as w:
        for number in range(MAX_SEARCH_VARIANCES + 1):
            says(w, f'params=("p{number}")')
            await w.get(f"/a?p{number}=1&n={number}")
        asked = len(w.asked)
        for number in range(1, MAX_SEARCH_VARIANCES + 1):
            await w.get(f"/a?p{number}=2&n={number}")
        assert len(w.asked) == asked
        await w.get("/a?p0=2&n=0")
        assert len(w.asked) == asked + 1


async def test_the_fast_lane_does_not_serve_what_was_superseded():
    """The URL without a query, which the lane knows, is answered by the newer response with a rule."""
    async with world(cache=ON) as w:
        w.answers(b"old", Cache_Control="max-age=60")
        await w.get("/a")
        assert (await w.get("/a")).body == b"old"
        says(w, "params")
        await w.get("/a?x=1")
        assert (await w.get("/a")).body == b"/a?x=1"
        assert len(w.asked) == 2


@pytest.mark.parametrize("url", ["/a?x=1", "/a?y=2", "/a"])
@pytest.mark.parametrize("kind", list(PurgeKind))
async def test_purging_any_of_the_urls_purges_the_response(url, kind):
    async with world(cache=ON) as w:
        says(w, "params")
        await w.get("/a?x=1")
        await w.get("/a?z=1")
        assert len(w.asked) == 1
        await w.edge.purge(PurgeOrder(urls=(w.url + url,), kind=kind), wait=True)
        await w.get("/a?z=1")
        assert len(w.asked) == 2


async def test_purging_one_url_leaves_what_has_no_rule():
    async with world(cache=ON) as w:
        w.answers(b"plain", Cache_Control="max-age=60")
        await w.get("/a?x=1")
        await w.get("/a?x=2")
        await w.edge.purge(PurgeOrder(urls=(w.url + "/a?x=1",)), wait=True)
        await w.get("/a?x=2")
        assert len(w.asked) == 2


async def test_vary_counts_as_well():
    async with world(cache=ON) as w:
        says(w, "params", Vary="X-Who")
        for who in ("ann", "bob", "ann"):
            await w.get("/a?x=1", X_Who=who)
        assert len(w.asked) == 2
        got = await w.get("/a?x=2", X_Who="bob")
        assert "; hit" in got.cache_status
        assert "vary-miss" in (await w.get("/a?x=3", X_Who="cid")).cache_status


async def test_revalidated_through_another_url():
    async with world(cache=ON) as w:
        says(w, "params", **{"Cache-Control": "max-age=0"})
        await w.get("/a?x=1")
        says(w, "params")
        got = await w.get("/a?x=2")
        assert (got.body, "fwd-status=304" in got.cache_status) == (b"/a?x=1", True)
        assert "; hit" in (await w.get("/a?x=3")).cache_status
        assert len(w.asked) == 2


async def test_a_304_with_another_rule_ends_what_was_stored_under_the_first():
    async with world(cache=ON) as w:
        says(w, "params", **{"Cache-Control": "max-age=0"})
        await w.get("/a?x=1")
        says(w, 'params=("x")')
        assert (await w.get("/a?x=2")).body == b"/a?x=1"
        assert (await w.get("/a?y=2")).body == b"/a?y=2"


async def test_with_codings():
    async with world(cache={**ON, "compress": {"codings": ["gzip"]}}) as w:
        w.answers(b"text " * 1000, Cache_Control="max-age=60", No_Vary_Search="params", Content_Type="text/plain")
        await w.get("/a?x=1")
        while w.edge.pipeline.codings.busy:
            await w.get("/other", "OPTIONS")
        got = await w.get("/a?x=2", Accept_Encoding="gzip")
        assert got.headers["content-encoding"] == "gzip"


async def test_explain_finds_it_too():
    async with world(cache=ON) as w:
        says(w, "params")
        await w.get("/a?x=1")
        assert (await w.edge.explain("GET", f"{w.url}/a?x=2", Headers())).verdict == "serve"
