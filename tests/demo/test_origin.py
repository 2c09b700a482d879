"""The demo's origin by itself: what it answers, what it counts, and that publishing purges after it changes."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer

from edgecache.demo.origin import Shop


class RecordedEdge:
    """An edge that remembers what it was asked, and what the shop sold at that moment."""

    def __init__(self) -> None:
        self.purged: list[tuple[str, int]] = []
        self.shop: Shop | None = None
        self.served: int | None = 10

    async def purge(self, key: str) -> str:
        assert self.shop is not None
        product = self.shop.catalogue.get(int(key.removeprefix("product-")))
        assert product is not None
        self.purged.append((key, product.version))
        return f"purged {key}"

    async def requests(self) -> int | None:
        return self.served


Client = TestClient  # type: ignore[type-arg]


@pytest.fixture
async def edge() -> RecordedEdge:
    return RecordedEdge()


@pytest.fixture
async def client(edge: RecordedEdge) -> AsyncIterator[Client]:
    shop = edge.shop = Shop(edge, slow_s=0.0)
    async with TestClient(TestServer(shop.app())) as client:
        yield client
        shop.end_feeds()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/products", 200),
        ("/products/42", 200),
        ("/products/42.svg", 200),
        ("/products/7", 404),
        ("/products/7.svg", 404),
        ("/kiln", 200),
        ("/about", 200),
        ("/basket", 200),
        ("/slow", 200),
        ("/hello", 200),
        ("/assets/panel.js", 200),
        ("/assets/nothing.js", 404),
        ("/nowhere", 404),
    ],
)
async def test_paths(client: Client, path: str, status: int) -> None:
    async with client.get(path) as answer:
        assert answer.status == status
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert await answer.read()


async def test_a_known_etag_gets_304(client: Client) -> None:
    async with client.get("/about") as first:
        etag = first.headers["ETag"]
    for tag in (etag, etag.removeprefix("W/"), f'"other", {etag}'):
        async with client.get("/about", headers={"If-None-Match": tag}) as second:
            assert second.status == 304
    async with client.get("/about", headers={"If-None-Match": '"other"'}) as third:
        assert third.status == 200


async def test_publish_changes_first_and_purges_after(client: Client, edge: RecordedEdge) -> None:
    async with client.post("/products/42/publish", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/products/42")
    assert edge.purged == [("product-42", 2)]
    async with client.get("/products/42") as page:
        assert "version 2" in await page.text()


async def test_publish_is_for_the_shops_own_pages(client: Client, edge: RecordedEdge) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    async with client.post("/products/42/publish", headers=headers, allow_redirects=False) as answer:
        assert answer.status == 403
    async with client.post("/products/7/publish", allow_redirects=False) as answer:
        assert answer.status == 404
    assert edge.purged == []


async def test_the_feed_tells_of_requests_as_they_come(client: Client, edge: RecordedEdge) -> None:
    async with client.get("/demo/feed") as feed, ClientSession() as other:
        assert feed.headers["Content-Type"] == "text/event-stream"
        first = json.loads((await feed.content.readuntil(b"\n\n"))[5:])
        assert first == {"edge": 10, "origin": 0, "log": []}
        edge.served = 11
        async with other.get(client.make_url("/nowhere")):
            pass
        second = json.loads((await asyncio.wait_for(feed.content.readuntil(b"\n\n"), 10))[5:])
        assert (second["edge"], second["origin"]) == (11, 1)
        assert second["log"][0]["what"] == "GET /nowhere → 404"


async def test_the_panels_own_requests_are_in_neither_figure(client: Client, edge: RecordedEdge) -> None:
    assert edge.shop is not None
    async with client.get("/demo/nothing") as answer:
        assert answer.status == 404
    async with client.get("/demo/feed") as feed:
        state = json.loads((await feed.content.readuntil(b"\n\n"))[5:])
    assert (state["edge"], state["origin"]) == (9, 0)


async def test_an_edge_that_cannot_be_asked_leaves_its_figure_out(client: Client, edge: RecordedEdge) -> None:
    edge.served = None
    async with client.get("/demo/feed") as feed:
        assert json.loads((await feed.content.readuntil(b"\n\n"))[5:])["edge"] is None
