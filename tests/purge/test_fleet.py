"""Two real edges and a real coordinator on loopback: what is purged by way of one edge is gone from both."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from edgecache.admin.wire import receipt_json
from edgecache.purge.message import PurgeOrder
from tests.edge import world as edges
from tests.edge.world import until
from tests.purge.coordinator import kit

FRESH = {"Cache-Control": "max-age=60", "Surrogate-Key": "a", "ETag": '"1"'}


@pytest.fixture
def fleet(tmp_path: Path) -> kit.World:
    return kit.World(tmp_path)


def following(w: edges.World) -> dict[str, object]:
    return w.edge.stats()["purges"]  # type: ignore[return-value]


@asynccontextmanager
async def edge(made: kit.Running, name: str, **settings: object) -> AsyncIterator[edges.World]:
    token = made.folder / "edge.token"
    token.write_text(made.tokens["admin"])
    purge = {"coordinator": made.url, "token_file": str(token), "max_silence": 5}
    async with edges.world(name=name, purge={**purge, **settings.pop("purge", {})}, **settings) as w:  # type: ignore[dict-item]
        await until(lambda: bool(following(w)["caught_up"]))
        w.answers("one", **FRESH)
        assert (await w.get()).body == b"one"
        assert "hit" in (await w.get()).cache_status
        yield w


async def test_any_edge_purges_all_of_them(fleet: kit.World, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(fleet.coordinator(heartbeat_s=1.0))
        a = await stack.enter_async_context(edge(made, "a"))
        b = await stack.enter_async_context(edge(made, "b", disk={"path": str(tmp_path / "b"), "size": "64MiB"}))
        for w in (a, b):
            w.answers("two", **FRESH)
        receipt = await a.edge.purge(PurgeOrder(keys=("a",)), wait=True)
        assert receipt.sequence == 1
        assert sorted((each.edge, each.applied) for each in receipt.edges) == [("a", True), ("b", True)]
        assert receipt_json(receipt)["away"] == []
        for w in (a, b):
            assert (await w.get()).body == b"two"
            assert following(w)["position"] == 1
            assert b"edgecache_purge_position 1.0" in w.edge.metrics()


async def test_an_unsafe_request_purges_its_own_edge_only(fleet: kit.World) -> None:
    async with fleet.coordinator(heartbeat_s=1.0) as made, edge(made, "a") as a, edge(made, "b") as b:
        for w in (a, b):
            w.answers("two", **FRESH)
        await a.get(method="POST")
        assert (await a.get()).body == b"two"
        assert (await b.get()).body == b"one"
        assert made.log.state().head == 0


async def test_what_was_purged_while_it_was_away_is_gone_when_it_is_back(fleet: kit.World, tmp_path: Path) -> None:
    """A warm restart: what is on disk is served again, less what was purged meanwhile, which was never served."""
    disk = {"path": str(tmp_path / "disk"), "size": "64MiB", "admit": "always"}

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="new", headers={**FRESH, "Surrogate-Key": request.path[1:]})

    async with fleet.coordinator(heartbeat_s=1.0) as made:
        async with edge(made, "a", disk=disk, workers=0) as a:
            a.answer = answer
            for path in ("/x", "/y"):
                await a.get(path)
            url = a.url
        await made.purge("x")
        token = made.folder / "edge.token"
        port = int(url.rpartition(":")[2])
        async with edges.world(
            name="a",
            listen=[f"127.0.0.1:{port}"],
            disk=disk,
            purge={"coordinator": made.url, "token_file": str(token), "max_silence": 5},
        ) as a:
            await until(lambda: bool(following(a)["caught_up"]))
            a.answer = answer
            assert "hit" in (await a.get("/y")).cache_status
            assert a.asked == []
            await a.get("/x")
            assert len(a.asked) == 1
            assert following(a)["resets"] == 0


async def test_an_edge_whose_log_is_gone_uses_nothing_from_before(fleet: kit.World, tmp_path: Path) -> None:
    async with fleet.coordinator(heartbeat_s=1.0) as made:
        port = made.server.address.port
        async with edge(made, "a") as a:
            a.answers("two", **FRESH)
            # The coordinator begins anew, with another log, at the same address.
            await made.server.close()
            await made.log.close()
            await until(lambda: not following(a)["connected"])
            (tmp_path / "other").mkdir()
            other = kit.World(tmp_path / "other")
            async with other.coordinator(port=port, heartbeat_s=1.0) as again:
                (made.folder / "edge.token").write_text(again.tokens["admin"])
                await until(lambda: bool(following(a)["caught_up"]))
                assert following(a)["resets"] == 2
                assert (await a.get()).body == b"two"
            await until(lambda: not following(a)["connected"])
