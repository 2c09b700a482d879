import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.admin.api import ApiError, host_allowed, make_app, purge_body
from edgecache.admin.node import Node
from edgecache.admin.openapi import document
from edgecache.admin.server import AdminServer
from edgecache.config.listeners import AdminConfig
from edgecache.config.purge import PurgeConfig
from edgecache.purge.message import PurgeKind, PurgeOrder
from tests.admin.fake import TOKEN, DictNode

AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def node() -> DictNode:
    return DictNode(objects={"http://a/1": ("news",), "http://a/2": ("shop",)})


def server(node: Node, address: str = "127.0.0.1:0", hosts: tuple[str, ...] = (), targets: int = 10_000) -> AdminServer:
    config = AdminConfig.model_validate({"address": address, "hosts": hosts})
    return AdminServer(node, config, PurgeConfig(max_targets=targets), TOKEN)


@pytest.fixture
async def edge(node: DictNode) -> AsyncIterator[AdminServer]:
    made = server(node, hosts=("edge.internal", "*.pops.example"))
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def client(edge: AdminServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{edge.address.port}") as session:
        yield session


async def error_of(response: aiohttp.ClientResponse) -> tuple[int, str, str]:
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in response.headers
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "path"}
    assert body["error"]["message"]
    return response.status, body["error"]["code"], body["error"]["path"]


async def test_health_and_readiness(client: aiohttp.ClientSession, node: DictNode) -> None:
    async with client.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    async with client.get("/readyz") as response:
        assert response.status == 200
    node.why_not = "draining"
    async with client.get("/readyz") as response:
        assert (response.status, await response.json()) == (503, {"status": "not ready", "detail": "draining"})
    async with client.get("/healthz") as response:
        assert response.status == 200


async def test_metrics_and_stats(client: aiohttp.ClientSession) -> None:
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await response.text() == "# TYPE up gauge\nup 1\n"
    async with client.get("/v1/stats") as response:
        assert await response.json() == {"edge": "edge-1"}


async def test_a_purge_carries_everything_that_was_asked(client: aiohttp.ClientSession, node: DictNode) -> None:
    body = {
        "urls": ["http://a/1"],
        "keys": ["k1", "ü"],
        "hosts": ["h"],
        "prefixes": ["h/p/"],
        "all": True,
        "site": "s",
        "soft": True,
        "wait": False,
    }
    async with client.post("/v1/purge", json=body, headers=AUTH) as response:
        assert response.status == 200
        assert await response.json() == {
            "sequence": 1,
            "time": 0.0,
            "again": False,
            "waited": True,
            "complete": True,
            "edges": [{"edge": "edge-1", "applied": True, "duration_s": 0.0012}],
            "away": [],
        }
    order = PurgeOrder(("http://a/1",), ("k1", "ü"), ("h",), ("h/p/",), True, "s", PurgeKind.SOFT, "admin")
    assert node.orders == [(order, False)]


async def test_a_purge_purges(client: aiohttp.ClientSession, node: DictNode) -> None:
    async with client.post("/v1/purge", json={"keys": ["news"]}, headers=AUTH) as response:
        assert response.status == 200
    assert list(node.objects) == ["http://a/2"]
    assert node.orders[0][1] is True


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        pytest.param(b"", 400, "", id="empty"),
        pytest.param(b"{", 400, "", id="not-json"),
        pytest.param(b"\xff", 400, "", id="not-utf-8"),
        pytest.param(b"[" * 100_000, 400, "", id="deep"),
        pytest.param(b'{"keys": ["a"], "keys": ["b"]}', 400, "", id="key-twice"),
        pytest.param(b'{"all": NaN}', 400, "", id="nan"),
        pytest.param(b"[]", 400, "", id="list"),
        pytest.param(b"null", 400, "", id="null"),
        pytest.param(b"{}", 400, "", id="nothing-to-purge"),
        pytest.param(b'{"keys": [], "all": false}', 400, "", id="nothing-named"),
        pytest.param(b'{"key": ["a"]}', 400, "key", id="unknown-key"),
        pytest.param(b'{"patterns": [{"url": "a", "hosts": "b"}]}', 400, "patterns[0].hosts", id="unknown-in-pattern"),
        pytest.param(b'{"keys": "a"}', 400, "keys", id="string-for-list"),
        pytest.param(b'{"keys": ["a", 1]}', 400, "keys[1]", id="number-in-list"),
        pytest.param(b'{"keys": ["a", ""]}', 400, "keys[1]", id="empty-key"),
        pytest.param(b'{"keys": ["a\\r\\nX: y"]}', 400, "keys[0]", id="line-break"),
        pytest.param(b'{"keys": ["' + b"a" * 8193 + b'"]}', 400, "keys[0]", id="long-key"),
        pytest.param(b'{"all": 1}', 400, "all", id="number-for-bool"),
        pytest.param(b'{"all": "true"}', 400, "all", id="string-for-bool"),
        pytest.param(b'{"urls": ["http://a/", "/relative"]}', 400, "urls[1]", id="refused-by-the-node"),
        pytest.param(b'{"all": true, "site": "unknown"}', 404, "site", id="status-of-the-node"),
        pytest.param(b'{"keys": ["\\ud800"]}', 400, "keys[0]", id="half-a-character"),
        pytest.param(b" " * (1 << 20) + b"{}", 413, "", id="body-too-large"),
        pytest.param(json.dumps({"keys": ["k"] * 10_001}).encode(), 413, "", id="too-many-targets"),
    ],
)
async def test_a_bad_purge_body_changes_nothing(
    client: aiohttp.ClientSession, node: DictNode, body: bytes, status: int, path: str
) -> None:
    headers = AUTH | {"Content-Type": "application/json"}
    async with client.post("/v1/purge", data=io.BytesIO(body), headers=headers) as response:
        found = await error_of(response)
    assert (found[0], found[2]) == (status, path)
    assert node.orders == []
    async with client.post("/v1/purge", json={"all": True}, headers=AUTH) as response:
        assert response.status == 200


async def test_ten_thousand_targets_go_in_one_purge(client: aiohttp.ClientSession, node: DictNode) -> None:
    async with client.post("/v1/purge", json={"keys": [f"key-{n}" for n in range(10_000)]}, headers=AUTH) as response:
        assert response.status == 200
    assert len(node.orders[0][0].keys) == 10_000


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_what_a_browser_could_send_without_asking_is_no_purge(client: aiohttp.ClientSession, kind: str) -> None:
    headers = AUTH | {"Content-Type": kind}
    async with client.post("/v1/purge", data=b'{"all":true}', headers=headers) as response:
        assert (await error_of(response))[:2] == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="none"),
        pytest.param(f"Bearer {TOKEN}x", id="wrong"),
        pytest.param("Bearer ", id="empty"),
        pytest.param(f"Basic {TOKEN}", id="basic"),
        pytest.param(TOKEN, id="bare"),
        pytest.param(f"Bearer {TOKEN}, Bearer {TOKEN}", id="two-in-one"),
    ],
)
async def test_a_purge_needs_the_token(client: aiohttp.ClientSession, node: DictNode, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    async with client.post("/v1/purge", json={"all": True}, headers=headers) as response:
        assert (await error_of(response))[:2] == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert TOKEN not in await response.text()
    assert node.orders == []


async def test_the_scheme_is_compared_without_case(client: aiohttp.ClientSession) -> None:
    headers = {"Authorization": f"bearer {TOKEN}"}
    async with client.post("/v1/purge", json={"all": True}, headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("address", ["0.0.0.0:0", ":0"])
async def test_off_loopback_reads_need_the_token_too(node: DictNode, address: str) -> None:
    edge = server(node, address)
    await edge.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{edge.address.port}") as client:
            for path in ("/metrics", "/v1/stats", "/v1/explain?url=http://a/1", "/v1/openapi.json", "/nowhere"):
                async with client.get(path) as response:
                    assert response.status == 401, path
            for path in ("/healthz", "/readyz"):
                async with client.get(path) as response:
                    assert response.status == 200
            async with client.get("/v1/stats", headers=AUTH) as response:
                assert response.status == 200
    finally:
        await edge.close()


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8081", True),
        ("10.1.2.3:80", True),
        ("[::1]:8081", True),
        ("[::1]", True),
        ("localhost:8081", True),
        ("LOCALHOST.", True),
        ("edge.internal:1", True),
        ("a.pops.example", True),
        ("pops.example", False),
        ("evil.example", False),
        ("evil.example:8081", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("edge.internal.evil.example", False),
        ("xpops.example", False),
        ("localhost:x", False),
        ("localhost:80:80", False),
        ("[::1]x", False),
        ("[::1", False),
        ("", False),
        (None, False),
    ],
)
def test_hosts(host: str | None, allowed: bool) -> None:
    assert host_allowed(host, ("edge.internal", "*.pops.example")) is allowed


async def test_a_rebound_name_gets_nothing(client: aiohttp.ClientSession, node: DictNode) -> None:
    for path in ("/v1/stats", "/metrics", "/v1/explain?url=http://a/1"):
        async with client.get(path, headers={"Host": "evil.example"}) as response:
            assert (await error_of(response))[:2] == (403, "host")
    async with client.post("/v1/purge", json={"all": True}, headers=AUTH | {"Host": "evil.example"}) as response:
        assert response.status == 403
    assert node.orders == []
    async with client.get("/healthz", headers={"Host": "balancer.example"}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not-found"),
        ("GET", "/v1/nothing", 404, "not-found"),
        ("GET", "/v1/purge", 405, "method-not-allowed"),
        ("POST", "/v1/stats", 405, "method-not-allowed"),
        ("DELETE", "/v1/purge", 405, "method-not-allowed"),
        ("OPTIONS", "/v1/purge", 405, "method-not-allowed"),
        ("PURGE", "/v1/stats", 405, "method-not-allowed"),
    ],
)
async def test_wrong_paths_and_methods(
    client: aiohttp.ClientSession, method: str, path: str, status: int, code: str
) -> None:
    async with client.request(method, path, headers=AUTH) as response:
        assert (await error_of(response))[:2] == (status, code)
        assert ("Allow" in response.headers) == (status == 405)


async def test_a_bug_is_logged_and_says_nothing(
    client: aiohttp.ClientSession, node: DictNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.broken = True
    async with client.post("/v1/purge", json={"all": True}, headers=AUTH) as response:
        assert (await error_of(response))[:2] == (500, "internal")
        assert "secret" not in await response.text()
    assert "a bug with a secret in it" in caplog.text


async def test_explain(client: aiohttp.ClientSession) -> None:
    params = [("url", "http://a/1"), ("method", "HEAD"), ("header", "Accept-Language: de"), ("header", "X:")]
    async with client.get("/v1/explain", params=params) as response:
        found = await response.json()
    assert (response.status, found["verdict"], found["cache_key"]) == (200, "serve", "HEAD http://a/1")
    assert found["stored"][0]["vary"] == [["accept-language", "de"]]


@pytest.mark.parametrize(
    ("params", "path"),
    [
        pytest.param([], "url", id="no-url"),
        pytest.param([("url", "")], "url", id="empty-url"),
        pytest.param([("url", "http://a"), ("url", "http://b")], "url", id="two-urls"),
        pytest.param([("url", "/relative")], "url", id="relative"),
        pytest.param([("url", "http://a"), ("method", "G T")], "method", id="method"),
        pytest.param([("url", "http://a"), ("method", "")], "method", id="empty-method"),
        pytest.param([("url", "http://a"), ("header", "A: b"), ("header", "no colon")], "header[1]", id="header"),
        pytest.param([("url", "http://a"), ("header", "A: b\r\nC: d")], "header[0]", id="header-line-break"),
        pytest.param([("url", "http://a"), ("header", "A b: c")], "header[0]", id="header-name"),
        pytest.param([("url", "http://a"), ("header", "A: \u20ac")], "header[0]", id="header-not-latin-1"),
        pytest.param([("url", "http://a"), ("headers", "A: b")], "headers", id="unknown"),
    ],
)
async def test_a_bad_question(client: aiohttp.ClientSession, params: list[tuple[str, str]], path: str) -> None:
    async with client.get("/v1/explain", params=params) as response:
        assert await error_of(response) == (400, "bad-request", path)


async def test_the_document_names_every_route(client: aiohttp.ClientSession) -> None:
    async with client.get("/v1/openapi.json") as response:
        served = await response.json()
    assert served == json.loads(json.dumps(document()))
    app = make_app(DictNode(), server(DictNode())._access)
    routes = {(route.resource.canonical, route.method) for route in app.router.routes() if route.resource}
    named = {(path, method.upper()) for path, methods in served["paths"].items() for method in methods}
    assert {route for route in routes if route[1] != "HEAD"} == named
    assert set(served["components"]["schemas"]["PurgeBody"]["properties"]) == {
        *("urls", "keys", "groups", "caseless", "hosts", "prefixes", "patterns", "all"),
        *("site", "soft", "wait", "timeout_s"),
    }


async def test_an_address_that_is_taken_is_an_error(edge: AdminServer, node: DictNode) -> None:
    other = server(node, f"127.0.0.1:{edge.address.port}")
    with pytest.raises(OSError, match="in use"):
        await other.start()
    await other.close()


@given(st.text(max_size=40))
def test_no_host_does_anything_but_pass_or_not(text: str) -> None:
    assert host_allowed(text, ()) in (True, False)


def _jsons() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=10)
    keys = st.sampled_from(["urls", "keys", "hosts", "all", "site", "soft", "x"])
    return st.recursive(leaves, lambda x: st.lists(x, max_size=4) | st.dictionaries(keys, x, max_size=4), max_leaves=10)


@given(_jsons())
def test_any_json_is_an_order_or_an_error(value: Any) -> None:
    data = json.dumps(value).encode()
    try:
        body = purge_body(data)
    except ApiError as error:
        assert error.status == 400  # noqa: PT017 - both ways are right
    else:
        assert isinstance(value, dict)
        assert body.order("x").everything is body.all
