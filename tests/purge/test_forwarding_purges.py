"""Purges that an edge is asked for go on to its coordinator; and what an edge on its own says of itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from edgecache.http.sockets import bind
from edgecache.purge.message import EdgeReceipt, PurgeError, PurgeKind, PurgeOrder, PurgeReceipt
from edgecache.purge.transport.client import CoordinatorClient, token_from
from tests.edge.world import TOKEN, World, world

ANSWER = {
    "sequence": 7,
    "time": 1_800_000_000.5,
    "again": False,
    "waited": True,
    "complete": False,
    "edges": [{"edge": "a", "applied": True, "duration_s": 0.01}, {"edge": "b", "applied": False, "duration_s": 10}],
    "away": ["c"],
}


class Coordinator:
    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], object]] = []
        self.status = 200
        self.answer: object = ANSWER
        self.breaks = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.method == "POST" else request.path
        self.asked.append(({name.lower(): value for name, value in request.headers.items()}, body))
        if self.breaks:
            self.breaks -= 1
            assert request.transport is not None
            request.transport.close()
            await asyncio.sleep(0)
        return web.json_response(self.answer, status=self.status)


@asynccontextmanager
async def coordinator() -> AsyncIterator[Coordinator]:
    made = Coordinator()
    runner = web.ServerRunner(web.Server(made.handle, access_log=None), shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


def client(made: Coordinator) -> CoordinatorClient:
    return CoordinatorClient(made.url, token=lambda: "secret")


async def test_an_order_is_handed_on_whole() -> None:
    async with coordinator() as made:
        order = PurgeOrder(
            urls=("http://h/a",),
            keys=("k",),
            groups=("a b",),
            caseless=("A b",),
            site="s",
            kind=PurgeKind.SOFT,
            everything=False,
        )
        receipt = await client(made).purge(order, wait=True)
        edges = (EdgeReceipt("a", True, 0.01), EdgeReceipt("b", False, 10.0))
        assert receipt == PurgeReceipt(7, edges, ("c",), time=1_800_000_000.5)
        [(headers, body)] = made.asked
        assert headers["authorization"] == "Bearer secret"
        lists = {"urls": ["http://h/a"], "keys": ["k"], "groups": ["a b"], "caseless": ["A b"]}
        assert headers["idempotency-key"]
        assert body == {**lists, "site": "s", "soft": True, "all": False, "wait": True}


async def test_the_callers_patience_and_key_are_handed_on() -> None:
    async with coordinator() as made, world(purge={"coordinator": made.url}) as w:
        url = f"http://127.0.0.1:{w.edge.admin.address.port}/v1/purge"
        headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "mine"}
        async with w.client.post(url, json={"keys": ["a"], "timeout_s": 3}, headers=headers) as response:
            assert response.status == 200
        [(given, body)] = [asked for asked in made.asked if isinstance(asked[1], dict)]
        assert given["idempotency-key"] == "mine"
        assert body == {"keys": ["a"], "all": False, "soft": False, "wait": True, "timeout_s": 3.0}


async def test_a_broken_connection_is_tried_once_more_under_the_same_key() -> None:
    async with coordinator() as made:
        made.breaks = 1
        assert (await client(made).purge(PurgeOrder(keys=("k",)), wait=False)).sequence == 7
        keys = [headers["idempotency-key"] for headers, _ in made.asked]
        assert len(keys) == 2
        assert len(set(keys)) == 1
        made.breaks = 2
        with pytest.raises(PurgeError, match="not known") as caught:
            await client(made).purge(PurgeOrder(keys=("k",)), wait=False)
        assert caught.value.status == 503


@pytest.mark.parametrize(
    ("status", "answer", "expected", "says"),
    [
        pytest.param(404, {"error": {"message": "no such site", "path": "site"}}, 404, "no such site", id="refusal"),
        pytest.param(429, {"error": {"message": "too often"}}, 429, "too often", id="rate"),
        pytest.param(403, {"error": {"message": "scope"}}, 502, "token_file", id="scope"),
        pytest.param(401, {"error": {"message": "token"}}, 502, "token_file", id="token"),
        pytest.param(503, {"error": {"message": "disk full"}}, 503, "disk full", id="log"),
        pytest.param(200, ["?"], 502, "no purge coordinator", id="strange"),
        pytest.param(200, {"sequence": 1}, 502, "no purge coordinator", id="half"),
        pytest.param(404, {"detail": "?"}, 502, "no purge coordinator", id="another-server"),
    ],
)
async def test_refusals(status: int, answer: object, expected: int, says: str) -> None:
    async with coordinator() as made:
        made.status, made.answer = status, answer
        with pytest.raises(PurgeError, match=says) as caught:
            await client(made).purge(PurgeOrder(keys=("k",)), wait=True)
        assert caught.value.status == expected


async def test_a_token_file_that_is_not_there() -> None:
    async with coordinator() as made:
        asking = CoordinatorClient(made.url, token=token_from("/nowhere/token"))
        with pytest.raises(PurgeError, match="nothing was purged") as caught:
            await asking.purge(PurgeOrder(keys=("k",)), wait=True)
        assert (caught.value.status, made.asked) == (503, [])


async def ask(w: World, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    url = f"http://127.0.0.1:{w.edge.admin.address.port}{path}"
    async with w.client.request(method, url, json=body, headers={"Authorization": f"Bearer {TOKEN}"}) as response:
        return response.status, await response.json()


async def test_any_edge_purges_the_fleet() -> None:
    async with coordinator() as made, world(purge={"coordinator": made.url}) as w:
        assert await ask(w, "POST", "/v1/purge", {"keys": ["a"]}) == (200, ANSWER)
        assert w.edge._shared.arena.sequence() == 0, "nothing is applied here before the coordinator says so"
        made.answer = {"edges": []}
        assert await ask(w, "GET", "/v1/edges") == (200, {"edges": []})
        assert await ask(w, "GET", "/v1/purge/7") == (200, {"edges": []})
        status, body = await ask(w, "GET", "/v1/audit")
        assert status == 404
        assert "the coordinator" in str(body)
        assert [body for _, body in made.asked if isinstance(body, str) and "subscribe" not in body] == [
            "/v1/edges",
            "/v1/purge/7",
        ]


async def test_without_its_coordinator_nothing_is_purged_in_part() -> None:
    free = bind("127.0.0.1", 0)
    port = free.getsockname()[1]
    free.close()
    async with world(purge={"coordinator": f"http://127.0.0.1:{port}"}) as w:
        status, body = await ask(w, "POST", "/v1/purge", {"keys": ["a"]})
        assert status == 503
        assert "nothing was purged" in str(body)
        assert w.edge._shared.arena.sequence() == 0
        for question in ("/v1/edges", "/v1/purge/7"):
            status, body = await ask(w, "GET", question)
            assert (status, "cannot be reached" in str(body), "purged" in str(body)) == (503, True, False), body
        status, body = await ask(w, "GET", "/readyz")
        assert (status, body["detail"]) == (503, "purge coordinator: no connection")


async def test_an_edge_on_its_own() -> None:
    async with world() as w:
        assert (await ask(w, "GET", "/v1/purge/1"))[0] == 404
        assert (await ask(w, "POST", "/v1/purge", {"keys": ["a"]}))[0] == 200
        name = w.edge.name
        status, found = await ask(w, "GET", "/v1/purge/1")
        assert (status, found["sequence"], found["edges"]) == (200, 1, [{"edge": name, "applied": True}])
        status, body = await ask(w, "GET", "/v1/edges")
        assert (status, body["head"]) == (200, 1)
        [edge] = body["edges"]  # type: ignore[misc]
        assert (edge["edge"], edge["connected"], edge["lag"]) == (name, True, 0)
