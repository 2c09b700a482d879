"""Who may do what: the file of tokens, scopes as a table, rates."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from edgecache.purge.coordinator import tokens
from edgecache.purge.coordinator.limits import RateLimiter, cost
from edgecache.purge.coordinator.tokens import Denied, Grant, Scope, TokenBook, TokensError
from edgecache.purge.message import PurgeOrder, UrlPattern
from tests.purge.coordinator.kit import LightEdge, Running, World


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "tokens.json"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_known_by_its_hash_alone(path: Path) -> None:
    token = tokens.add(path, "deploy", [Scope.PURGE], now=5, rate=7)
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    book = TokenBook(path, Clock())
    grant = book.find(token)
    assert grant is not None
    assert (grant.name, grant.scopes, grant.rate, grant.created) == ("deploy", {Scope.PURGE}, 7, 5)
    for wrong in ("", token[:-1], token + "x", token.upper(), "ecp_", "\udcff"):
        assert book.find(wrong) is None


def test_tokens_come_and_go_without_a_restart(path: Path) -> None:
    clock = Clock()
    book = TokenBook(path, clock)
    assert len(book) == 0
    token = tokens.add(path, "a", [Scope.READ], now=0)
    assert book.find(token) is None
    clock.now = 1.0
    assert book.find(token) is not None
    tokens.remove(path, "a")
    clock.now = 2.0
    assert book.find(token) is None


def test_a_file_broken_meanwhile_changes_nothing(path: Path) -> None:
    clock = Clock()
    token = tokens.add(path, "a", [Scope.READ], now=0)
    book = TokenBook(path, clock)
    path.write_text("{")
    clock.now = 1.0
    assert book.find(token) is not None


GOOD = {"name": "a", "sha256": "00" * 32, "scopes": ["purge"]}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="list"),
        pytest.param('{"version": 2, "tokens": []}', id="version"),
        pytest.param('{"version": 1}', id="no-tokens"),
        pytest.param('{"version": 1, "tokens": [1]}', id="number"),
        pytest.param(json.dumps({"version": 1, "tokens": [GOOD, GOOD]}), id="twice"),
        pytest.param(json.dumps({"version": 1, "tokens": [GOOD | {"sha256": "00"}]}), id="hash-short"),
        pytest.param(json.dumps({"version": 1, "tokens": [GOOD | {"sha256": "zz" * 32}]}), id="hash-not-hex"),
        pytest.param(json.dumps({"version": 1, "tokens": [GOOD | {"scopes": ["all"]}]}), id="scope"),
        pytest.param(json.dumps({"version": 1, "tokens": [GOOD | {"name": ""}]}), id="no-name"),
        pytest.param(json.dumps({"version": 1, "tokens": [GOOD | {"rate": "x"}]}), id="rate"),
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_file_that_is_wrong_is_refused(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"version": 1, "tokens": [GOOD]}))
    assert len(tokens.read(path)) == 1
    path.write_text(text)
    with pytest.raises(TokensError, match=r"tokens\.json"):
        tokens.read(path)


def test_what_cannot_be_added(path: Path) -> None:
    tokens.add(path, "a", [Scope.READ], now=0)
    with pytest.raises(TokensError, match="already"):
        tokens.add(path, "a", [Scope.READ], now=0)
    with pytest.raises(TokensError, match="scope"):
        tokens.add(path, "b", [], now=0)
    with pytest.raises(TokensError, match="site"):
        tokens.add(path, "b", [Scope.PURGE], now=0, hosts=["h"])
    with pytest.raises(TokensError, match="name"):
        tokens.add(path, "b\n", [Scope.PURGE], now=0)
    with pytest.raises(TokensError, match="no token"):
        tokens.remove(path, "b")
    assert len(tokens.read(path)) == 1


SHOP = Grant("shop", b"", frozenset({Scope.PURGE}), sites=("shop",), hosts=("shop.example", "*.shop.example"))
TWO = dataclasses.replace(SHOP, sites=("shop", "blog"))
ALL = dataclasses.replace(SHOP, sites=(), hosts=())
ADMIN = dataclasses.replace(SHOP, scopes=frozenset({Scope.ADMIN}))


@pytest.mark.parametrize(
    ("grant", "order", "site"),
    [
        pytest.param(ALL, PurgeOrder(everything=True), None, id="everything"),
        pytest.param(ALL, PurgeOrder(keys=("k",), site="any"), "any", id="any-site"),
        pytest.param(ADMIN, PurgeOrder(everything=True), None, id="admin"),
        pytest.param(SHOP, PurgeOrder(keys=("k",), site="shop"), "shop", id="own-site"),
        pytest.param(SHOP, PurgeOrder(keys=("k",)), "shop", id="the-one-site"),
        pytest.param(SHOP, PurgeOrder(everything=True), "shop", id="everything-of-the-one-site"),
        pytest.param(TWO, PurgeOrder(keys=("k",), site="blog"), "blog", id="one-of-two"),
        pytest.param(SHOP, PurgeOrder(urls=("https://SHOP.example:8443/a",)), "shop", id="url"),
        pytest.param(SHOP, PurgeOrder(urls=("http://a.shop.example/",)), "shop", id="url-below"),
        pytest.param(SHOP, PurgeOrder(hosts=("shop.example:80",)), "shop", id="host"),
        pytest.param(SHOP, PurgeOrder(prefixes=("shop.example/a/",)), "shop", id="prefix"),
        pytest.param(SHOP, PurgeOrder(patterns=(UrlPattern("x", "SHOP.example"),)), "shop", id="pattern"),
        pytest.param(SHOP, PurgeOrder(prefixes=("https://shop.example/a/",)), "shop", id="prefix-scheme"),
    ],
)
def test_what_a_token_allows(grant: Grant, order: PurgeOrder, site: str | None) -> None:
    assert grant.narrowed(order) == dataclasses.replace(order, site=site)


@pytest.mark.parametrize(
    ("grant", "order"),
    [
        pytest.param(SHOP, PurgeOrder(keys=("k",), site="blog"), id="other-site"),
        pytest.param(TWO, PurgeOrder(keys=("k",)), id="two-sites-none-named"),
        pytest.param(TWO, PurgeOrder(everything=True), id="everything"),
        pytest.param(SHOP, PurgeOrder(urls=("http://shop.example/", "http://blog.example/")), id="url"),
        pytest.param(SHOP, PurgeOrder(urls=("http://shop.example@blog.example/",)), id="url-user"),
        pytest.param(SHOP, PurgeOrder(urls=("http://notshop.example/",)), id="url-ending"),
        pytest.param(SHOP, PurgeOrder(urls=("http://[/",)), id="url-malformed"),
        pytest.param(SHOP, PurgeOrder(hosts=("blog.example",)), id="host"),
        pytest.param(SHOP, PurgeOrder(patterns=(UrlPattern("x", "blog.example"),)), id="pattern"),
        pytest.param(SHOP, PurgeOrder(patterns=(UrlPattern("x"),)), id="pattern-on-every-host"),
        pytest.param(SHOP, PurgeOrder(prefixes=("blog.example/shop.example/",)), id="prefix"),
        pytest.param(dataclasses.replace(SHOP, hosts=()), PurgeOrder(hosts=("shop.example",)), id="no-hosts"),
    ],
)
def test_what_a_token_does_not_allow(grant: Grant, order: PurgeOrder) -> None:
    with pytest.raises(Denied):
        grant.narrowed(order)


PURGE = ("POST", "/v1/purge", {"json": {"keys": ["k"], "wait": False}})
CALLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "purge": PURGE,
    "purged": ("GET", "/v1/purge/1", {}),
    "edges": ("GET", "/v1/edges", {}),
    "stats": ("GET", "/v1/stats", {}),
    "metrics": ("GET", "/metrics", {}),
    "audit": ("GET", "/v1/audit", {}),
    "subscribe": ("GET", "/v1/subscribe", {}),
    "openapi": ("GET", "/v1/openapi.json", {}),
    "healthz": ("GET", "/healthz", {}),
    "readyz": ("GET", "/readyz", {}),
}
OPEN = {"healthz", "readyz"}
ALLOWED: dict[str | None, set[str]] = {
    None: OPEN,
    "wrong": OPEN,
    "purge": OPEN | {"purge", "purged", "openapi"},
    "edge": OPEN | {"subscribe", "openapi"},
    "read": OPEN | {"purged", "edges", "stats", "metrics", "openapi"},
    "admin": set(CALLS),
}


@pytest.mark.parametrize("token", ALLOWED)
async def test_each_scope_allows_what_it_says(world: World, token: str | None) -> None:
    async with world.coordinator(host="0.0.0.0") as running:
        await running.purge("first")
        for name, (method, path, more) in CALLS.items():
            status, body = await running.ask(method, path, token, **more)
            if name in ALLOWED[token]:
                assert status == (426 if name == "subscribe" else 200), (name, body)
            else:
                assert status == (403 if token in running.tokens else 401), (name, body)
                assert body["error"]["message"]


async def test_reads_are_open_on_loopback_but_for_the_audit(running: Running) -> None:
    for path, status in (("/v1/edges", 200), ("/metrics", 200), ("/v1/stats", 200), ("/v1/audit", 401)):
        assert (await running.ask("GET", path, None))[0] == status
    assert (await running.ask("GET", "/v1/edges", None, headers={"Host": "evil.example"}))[0] == 403
    assert (await running.ask("GET", "/v1/edges", "read", headers={"Host": "evil.example"}))[0] == 200
    assert (await running.ask("GET", "/v1/edges", "wrong"))[0] == 401


async def test_a_token_of_a_site_purges_that_site(running: Running) -> None:
    path = running.folder / "tokens.json"
    running.tokens["shop"] = tokens.add(path, "shop", [Scope.PURGE], now=0, sites=["shop"], hosts=["shop.example"])
    running.coordinator.book.read()
    answer = await running.purge("k", token="shop")
    _, found = await running.ask("GET", f"/v1/purge/{answer['sequence']}")
    assert found["order"] == {"kind": "hard", "source": "shop", "keys": ["k"], "site": "shop"}
    for body in ({"keys": ["k"], "site": "blog"}, {"urls": ["http://blog.example/"]}):
        status, refused = await running.ask("POST", "/v1/purge", "shop", json=body)
        assert (status, refused["error"]["code"]) == (403, "scope")
    assert running.log.state().head == 1


async def test_an_edge_whose_token_is_taken_back_is_cut_off(world: World) -> None:
    async with world.coordinator(heartbeat_s=0.2) as running:
        path = running.folder / "tokens.json"
        other = tokens.add(path, "other", [Scope.EDGE], now=0)
        running.coordinator.book.read()
        async with (
            LightEdge(running.url, "stays", running.tokens["edge"]) as stays,
            LightEdge(running.url, "goes", other) as goes,
        ):
            await stays.until(lambda e: e.welcomes)
            await goes.until(lambda e: e.welcomes)
            tokens.remove(path, "other")
            running.coordinator.book.read()
            await goes.until(lambda e: len(e.lost) >= 2)
            assert "taken back" in goes.lost[0]
            assert "token" in goes.lost[1]
            await stays.until(lambda e: e.beats >= 3)
            assert not stays.lost


def test_a_bucket_fills_steadily() -> None:
    limiter = RateLimiter(rate=10, burst=20)
    assert [limiter.take("a", 1, 0.0) for _ in range(20)] == [0.0] * 20
    assert limiter.take("a", 1, 0.0) == pytest.approx(0.1)
    assert limiter.take("b", 1, 0.0) == 0
    assert limiter.take("a", 1, 0.1) == 0
    assert limiter.take("a", 5, 0.1) == pytest.approx(0.5)
    assert limiter.take("a", 5, 0.6) == 0
    assert limiter.take("a", 1000, 100.0) == 0  # no more than a burst is ever asked
    assert limiter.take("a", 1000, 100.0) == pytest.approx(2.0)


def test_rates_of_their_own() -> None:
    limiter = RateLimiter(rate=0, burst=1)
    assert all(limiter.take("a", 1, 0.0) == 0 for _ in range(1000))
    assert limiter.take("b", 1, 0.0, rate=1) == 0
    assert limiter.take("b", 1, 0.0, rate=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("own", "at_once"),
    [
        pytest.param(None, 2000, id="as-configured"),
        pytest.param(1, 101, id="one-call-of-the-largest"),
        pytest.param(50, 500, id="as-many-seconds"),
        pytest.param(400, 4000, id="more"),
    ],
)
def test_who_may_little_may_save_up_little(own: float | None, at_once: int) -> None:
    limiter = RateLimiter(rate=200, burst=2000)
    taken = [limiter.take("a", 1, 0.0, own) for _ in range(at_once + 1)]
    assert taken[:-1] == [0.0] * at_once
    assert taken[-1] > 0
    assert limiter.take("a", 101, 1e6, own) == 0


def test_a_reload_fills_no_bucket() -> None:
    limiter = RateLimiter(rate=10, burst=20)
    assert limiter.take("a", 20, 0.0) == 0
    limiter.configure(rate=5, burst=20)
    assert limiter.take("a", 1, 0.0) == pytest.approx(0.2)


@pytest.mark.parametrize(("targets", "costs"), [(0, 1), (1, 1), (99, 1), (100, 2), (10_000, 101)])
def test_many_targets_cost_more(targets: int, costs: int) -> None:
    assert cost(targets) == costs


async def test_beyond_the_rate_it_says_when_to_come_again(world: World) -> None:
    async with world.coordinator(rate=0.5, burst=3) as running:
        for i in range(3):
            await running.purge(f"k{i}", token="purge")
        async with running.session.post(
            running.url + "/v1/purge",
            headers={"Authorization": f"Bearer {running.tokens['purge']}"},
            json={"keys": ["k"]},
        ) as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "2"
        await running.purge("k", token="admin")
        assert running.log.state().head == 4
