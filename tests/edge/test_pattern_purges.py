"""Purging by regular expression behind a real edge: whatever way a response comes, none that matches is used."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgecache.http.tasks import spawn
from edgecache.purge.message import PurgeError, PurgeKind, PurgeOrder, UrlPattern
from edgecache.store.lurker import Lurker
from edgecache.store.memory import MemoryStore
from tests.edge.slicekit import content, place
from tests.edge.world import TOKEN, World, until, world

MATCH = {"dialects": {"patterns": "match"}}
FRESH = {"Cache-Control": "max-age=1000"}
HOST = "www.example.test"
HIT = "; hit"


async def ban(w: World, url: str, host: str | None = None, *, soft: bool = False) -> int:
    kind = PurgeKind.SOFT if soft else PurgeKind.HARD
    return (await w.edge.purge(PurgeOrder(patterns=(UrlPattern(url, host),), kind=kind), wait=True)).sequence


async def hit(w: World, path: str, **headers: str) -> bool:
    return HIT in (await w.get(path, host=HOST, **headers)).cache_status


def head_is_here(w: World) -> bool:
    """Of the response that is under way."""
    return all(fill.outcome.done() for fill in w.edge.pipeline.collapse.fills.values())


async def begun(w: World) -> tuple[asyncio.Task[Any], asyncio.Event]:
    """A request for /a whose response has begun at the origin, and what lets it end: with the body `old`."""
    gate = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**FRESH, "Content-Length": "3"})
        await response.prepare(request)
        await gate.wait()
        await response.write(b"old")
        return response

    w.answer = slow
    first = spawn(w.get("/a", host=HOST), "early")
    await until(lambda: bool(w.edge.pipeline.collapse.fills) and head_is_here(w))
    return first, gate


def lurker(w: World) -> Lurker:
    made = w.edge.control._lurker
    made._patience_s = 0.0
    return made


async def ended(w: World) -> bool:
    return await lurker(w).look()


@pytest.mark.parametrize("soft", [False, True])
async def test_what_matches_goes_and_the_rest_stays(soft: bool) -> None:
    async with world(purge=MATCH) as w:
        w.answers("old", ETag='"1"', **FRESH)
        for path in ("/a.png", "/a.html", "/b/c.png?x=1"):
            await w.get(path, host=HOST)
        w.answers("new", ETag='"2"', **FRESH)
        await ban(w, r"\.png(\?|$)", HOST, soft=soft)
        for _ in range(2):
            assert (await w.get("/a.html", host=HOST)).body == b"old"
            assert (await w.get("/a.png", host=HOST)).body == b"new"
            assert (await w.get("/b/c.png?x=1", host=HOST)).body == b"new"
        assert len(w.asked) == 5
        assert sum("if-none-match" in headers for _, _, headers in w.asked) == (2 if soft else 0)


async def test_the_lane_answers_again_once_an_entry_is_compared() -> None:
    async with world(purge=MATCH) as w:
        w.answers("old", **FRESH)
        await w.get("/a", host=HOST)
        compared = w.edge.stats()["purges"]["patterns"]["compared"]  # type: ignore[index]
        assert compared == 0
        for number in range(3):
            await ban(w, f"/other{number}")
        for _ in range(3):
            assert await hit(w, "/a")
        assert w.edge.stats()["purges"]["patterns"] | {"newest": []} == {  # type: ignore[index]
            "active": 3, "compared": 1, "matched": 0, "undecided": 0, "newest": [],
        }  # fmt: skip
        metrics = w.edge.metrics().decode()
        assert "edgecache_purge_patterns 3.0" in metrics
        assert "edgecache_purge_patterns_compared_total 1.0" in metrics


async def test_every_variant() -> None:
    async with world(purge=MATCH) as w:
        w.answers("old", Vary="Accept-Language", **FRESH)
        for language in ("de", "en"):
            await w.get("/a", host=HOST, accept_language=language)
        await ban(w, "^/a$")
        w.answers("new", Vary="Accept-Language", **FRESH)
        for language in ("de", "en"):
            assert (await w.get("/a", host=HOST, accept_language=language)).body == b"new"


async def test_a_compressed_form_goes_too() -> None:
    async with world(purge=MATCH, cache={"compress": {"codings": ["gzip"], "min_size": 1}}) as w:
        w.answers("old " * 200, Content_Type="text/plain", **FRESH)
        await w.get("/a", host=HOST, accept_encoding="gzip")
        await until(lambda: len(w.edge._shared.arena) >= 3)
        assert await hit(w, "/a", accept_encoding="gzip")
        await ban(w, "^/a$")
        assert not await hit(w, "/a", accept_encoding="gzip")


async def test_what_answers_for_more_urls_goes_with_its_host() -> None:
    async with world(purge=MATCH, cache={"no_vary_search": True}) as w:
        w.answers("old", No_Vary_Search="params", **FRESH)
        await w.get("/a?x=1", host=HOST)
        assert await hit(w, "/a?x=2")
        await ban(w, "nowhere", "other.example")
        assert await hit(w, "/a?x=2")
        await ban(w, "x=2")
        assert not await hit(w, "/a?x=1")


async def test_not_even_where_the_origin_fails() -> None:
    async with world(purge=MATCH, cache={"stale_if_error": "1h"}) as w:
        w.answers("old", Cache_Control="max-age=1000")
        for path in ("/hard", "/soft"):
            await w.get(path, host=HOST)
        await ban(w, "^/hard")
        await ban(w, "^/soft", soft=True)
        w.answers("busy", status=503)
        assert (await w.get("/hard", host=HOST)).body == b"busy"
        assert (await w.get("/soft", host=HOST)).body == b"old"


@pytest.mark.parametrize("soft", [False, True])
async def test_what_was_under_way_is_not_used_afterwards(soft: bool) -> None:
    """A response asked for before, stored after: it is older than the pattern."""
    async with world(purge=MATCH) as w:
        first, gate = await begun(w)
        await ban(w, "^/a$", soft=soft)
        w.answers("new", **FRESH)
        assert (await w.get("/a", host=HOST)).body == b"new", "it joins no fetch that began before"
        gate.set()
        assert (await first).body == b"old"
        assert (await w.get("/a", host=HOST)).body == b"new"


async def test_what_was_under_way_when_patterns_end_is_not_stored() -> None:
    async with world(purge=MATCH) as w:
        first, gate = await begun(w)
        await ban(w, "^/a$")
        assert await ended(w)
        gate.set()
        await first
        w.answers("new", **FRESH)
        assert (await w.get("/a", host=HOST)).body == b"new"
        assert await hit(w, "/a")


async def test_patterns_end_when_nothing_older_is_left() -> None:
    async with world(purge=MATCH) as w:
        w.answers("old", **FRESH)
        for i in range(50):
            await w.get(f"/{i}", host=HOST)
        await ban(w, "7")
        assert await ended(w)
        assert w.edge._shared.arena.newest_pattern() == 0
        assert not await ended(w)
        w.answers("new", **FRESH)
        for i in range(50):
            assert (await w.get(f"/{i}", host=HOST)).body == (b"new" if "7" in str(i) else b"old")


async def test_a_young_pattern_stays() -> None:
    async with world(purge=MATCH) as w:
        await ban(w, "7")
        assert not await w.edge.control._lurker.look()
        assert w.edge._shared.arena.newest_pattern()


# --- a disk tier ---


def disk(path: Path) -> dict[str, Any]:
    return {"disk": {"path": str(path), "size": "64MiB", "admit": "always"}, "purge": MATCH}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("size", [3, 100_000], ids=["row", "file"])
async def test_a_restart_remembers(tmp_path: Path, size: int, soft: bool) -> None:
    async with world(**disk(tmp_path)) as w:
        w.answers(b"o" * size, ETag='"1"', **FRESH)
        for path in ("/a.png", "/a.html"):
            await w.get(path, host=HOST)
        await w.edge.pipeline.shelf.store.disk.flush()  # type: ignore[attr-defined]
        await ban(w, r"\.png$", soft=soft)
    async with world(**disk(tmp_path)) as w:
        assert w.edge._shared.arena.newest_pattern()
        w.answers(b"n" * size, ETag='"2"', **FRESH)
        assert (await w.get("/a.html", host=HOST)).body == b"o" * size
        assert (await w.get("/a.png", host=HOST)).body == b"n" * size
        assert await hit(w, "/a.html")


@pytest.mark.parametrize("soft", [False, True])
async def test_the_disk_is_compared_before_patterns_end(tmp_path: Path, soft: bool) -> None:
    async with world(**disk(tmp_path)) as w:
        w.answers("old", ETag='"1"', **FRESH)
        for path in ("/a.png", "/a.html"):
            await w.get(path, host=HOST)
        await w.edge.pipeline.shelf.store.disk.flush()  # type: ignore[attr-defined]
    async with world(**disk(tmp_path)) as w:  # nothing in memory
        number = await ban(w, r"\.png$", soft=soft)
        below = w.edge.pipeline.shelf.store.disk  # type: ignore[attr-defined]
        lurker(w)
        while not await w.edge.control._lurker.look():
            assert w.edge._shared.arena.newest_pattern()
            await asyncio.sleep(0.01)
        assert below.clean_through >= number
        assert w.edge._shared.arena.newest_pattern() == 0
        if soft:
            w.answers("new", ETag='"2"', **FRESH)
            assert (await w.get("/a.html", host=HOST)).body == b"old"
    async with world(**disk(tmp_path)) as w:
        assert w.edge._shared.arena.newest_pattern() == 0
        w.answers("new", ETag='"2"', **FRESH)
        assert (await w.get("/a.html", host=HOST)).body == b"old"
        assert (await w.get("/a.png", host=HOST)).body == b"new"


async def test_slices_go_without_their_manifest(tmp_path: Path) -> None:
    """The manifest is gone from memory and disk, its slices are not, and the origin has kept the ETag."""
    async with place(tmp_path, purge=MATCH) as p:
        await p.get("/v")
        await p.settled()
        store = p.w.edge.pipeline.shelf.store
        assert isinstance(store, MemoryStore)
        await p.w.edge.purge(PurgeOrder(patterns=(UrlPattern("^/v$"),)), wait=True)
        store.remove(store.key(f"http://{HOST}/v"))
        p.files.body = content(len(p.files.body), "b")
        assert (await p.get("/v")).body == p.files.body


# --- where it is not enabled ---


async def test_refused_unless_enabled() -> None:
    async with world() as w:
        body = {"patterns": [{"url": r"\.png$"}]}
        async with w.client.post(
            f"http://{w.edge.admin.address}/v1/purge", json=body, headers={"Authorization": f"Bearer {TOKEN}"}
        ) as answer:
            said = await answer.json()
        assert answer.status == 400
        assert "purge.dialects.patterns to match" in said["error"]["message"]
        assert said["error"]["path"] == "patterns"


async def test_widened_where_urls_are_not_kept() -> None:
    async with world() as w:
        w.answers("old", **FRESH)
        await w.get("/a", host=HOST)
        await w.get("/a", host="other.test")
        await ban(w, "nowhere", HOST)
        assert not await hit(w, "/a")
        assert HIT in (await w.get("/a", host="other.test")).cache_status


async def test_what_was_stored_before_it_was_enabled_counts_as_matching(tmp_path: Path) -> None:
    async with world(**(disk(tmp_path) | {"purge": {}})) as w:
        w.answers("old", **FRESH)
        await w.get("/a", host=HOST)
        await w.edge.pipeline.shelf.store.disk.flush()  # type: ignore[attr-defined]
    async with world(**disk(tmp_path)) as w:
        await ban(w, "nowhere")
        w.answers("new", **FRESH)
        assert (await w.get("/a", host=HOST)).body == b"new"


async def test_one_that_cannot_be_read_purges_nothing() -> None:
    async with world(purge=MATCH) as w:
        with pytest.raises(PurgeError):
            await ban(w, "(")
        assert w.edge._shared.arena.sequence() == 0
