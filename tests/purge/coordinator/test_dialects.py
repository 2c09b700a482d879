"""Clients of other products at a coordinator: their requests purge the fleet, as far as their token allows."""

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgecache.admin.dialects.build import fleet_desk
from edgecache.config.dialects import FleetDialectsConfig
from edgecache.config.units import Address
from edgecache.purge.coordinator import tokens
from edgecache.purge.coordinator.server import CoordinatorServer
from edgecache.purge.coordinator.tokens import Scope
from tests.purge.coordinator.kit import LightEdge, Running
from tests.wirekit import RawClient

CONFIG = FleetDialectsConfig.model_validate({"ids": [{"id": "SU1Z0", "site": "shop"}, {"id": "023e", "site": "blog"}]})


@pytest.fixture
async def spoken(running: Running) -> AsyncIterator[Running]:
    """A second listener of the same coordinator, which speaks the dialects."""
    server = CoordinatorServer(running.coordinator, Address("127.0.0.1", 0), desk=fleet_desk(CONFIG))
    await server.start()
    yield dataclasses.replace(running, server=server)
    await server.close()


async def send(
    at: Running, method: str, path: str, fields: dict[str, str], body: object = None
) -> tuple[int, str, str]:
    data = json.dumps(body) if body is not None else None
    async with at.session.request(method, at.url + path, headers=fields, data=data) as response:
        return response.status, response.reason or "", await response.text()


async def logged(at: Running) -> list[dict[str, Any]]:
    return [json.loads(record.text) for record in await at.log.read(0, 100)]


@pytest.mark.parametrize(
    ("method", "path", "fields", "body", "expected"),
    [
        pytest.param(
            "POST",
            "/service/SU1Z0/purge/a",
            {"Fastly-Key": "purge", "Fastly-Soft-Purge": "1"},
            None,
            {"kind": "soft", "keys": ["a"], "site": "shop"},
            id="fastly",
        ),
        pytest.param(
            "POST",
            "/client/v4/zones/023e/purge_cache",
            {"Authorization": "purge"},
            {"tags": ["A"]},
            {"kind": "hard", "caseless": ["A"], "site": "blog"},
            id="cloudflare",
        ),
        pytest.param(
            "PURGE", "/", {"X-Purge-Key": "purge", "xkey": "a b"}, None, {"kind": "hard", "keys": ["a", "b"]}, id="xkey"
        ),
        pytest.param(
            "PURGE",
            "/a",
            {"X-Purge-Key": "purge", "Host": "www.example.com"},
            None,
            {"kind": "hard", "urls": ["http://www.example.com/a"]},
            id="purge",
        ),
        pytest.param(
            "PURGE",
            "/",
            {"X-Purge-Key": "purge", "X-Magento-Tags-Pattern": "((^|,)cat_1(,|$))"},
            None,
            {"kind": "hard", "keys": ["cat_1"]},
            id="magento",
        ),
        pytest.param(
            "PURGE",
            "/a/*",
            {"Authorization": "purge", "Host": "www.example.com"},
            None,
            {"kind": "hard", "prefixes": ["http://www.example.com/a/"]},
            id="nginx",
        ),
        pytest.param(
            "BAN",
            "/",
            {"X-Purge-Key": "purge", "X-Host": "^www\\.example\\.com$", "X-Url": "^/list/.*"},
            None,
            {"kind": "hard", "prefixes": ["http://www.example.com/list/"]},
            id="ban",
        ),
        pytest.param(
            "BAN",
            "/",
            {"X-Purge-Key": "purge", "X-Cache-Tags": "(a|b)(,.+)?$"},
            None,
            {"kind": "hard", "keys": ["a", "b"]},
            id="ban-tags",
        ),
        pytest.param(
            "PURGEKEYS",
            "/",
            {"X-Purge-Key": "purge", "xkey-softpurge": "a"},
            None,
            {"kind": "soft", "keys": ["a"]},
            id="purgekeys",
        ),
    ],
)
async def test_it_is_logged_and_reaches_edges(
    spoken: Running, method: str, path: str, fields: dict[str, str], body: object, expected: dict[str, Any]
) -> None:
    token = spoken.tokens["purge"]
    shown = dict(fields)
    for name in ("Fastly-Key", "X-Purge-Key"):
        if name in shown:
            shown[name] = token
    if "Authorization" in shown:
        shown["Authorization"] = f"Bearer {token}"
    async with LightEdge(spoken.url, "a", spoken.tokens["edge"]) as edge:
        await edge.until(lambda e: e.welcomes)
        status, _, _ = await send(spoken, method, path, shown, body)
        assert status == 200
        assert len(edge.entries) == 1  # it has waited for it
    assert await logged(spoken) == [{"source": "purge", **expected}]


async def test_ten_thousand_tags_with_capitals(spoken: Running) -> None:
    fields = {"Authorization": f"Bearer {spoken.tokens['purge']}"}
    tags = [f"Product-{number}" for number in range(10_000)]
    status, _, _ = await send(spoken, "POST", "/client/v4/zones/023e/purge_cache", fields, {"tags": tags})
    assert status == 200
    [order] = await logged(spoken)
    assert order["caseless"] == tags


async def test_what_a_token_does_not_allow(spoken: Running) -> None:
    one_site = tokens.add(spoken.folder / "tokens.json", "shop-only", [Scope.PURGE], sites=["shop"], now=0)
    spoken.coordinator.book.read()
    for fields, status in (
        ({}, 401),
        ({"Fastly-Key": "unknown"}, 401),
        ({"Fastly-Key": spoken.tokens["read"]}, 403),
        ({"Fastly-Key": one_site}, 200),
    ):
        assert (await send(spoken, "POST", "/service/SU1Z0/purge/a", fields))[0] == status
    status, _, text = await send(
        spoken, "POST", "/client/v4/zones/023e/purge_cache", {"Authorization": f"Bearer {one_site}"}, {"tags": ["a"]}
    )
    assert (status, json.loads(text)["errors"][0]["code"]) == (403, 10000)
    assert [order["site"] for order in await logged(spoken)] == ["shop"]


async def test_an_id_that_is_not_listed(spoken: Running) -> None:
    """A coordinator knows no sites: to log a purge of nobody's would look like a success."""
    status, _, text = await send(spoken, "POST", "/service/other/purge/a", {"Fastly-Key": spoken.tokens["purge"]})
    assert (status, json.loads(text)["msg"]) == (404, "Record not found")
    assert await logged(spoken) == []


HOSTED = "Host: www.example.com\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(
            f"BAN / HTTP/1.1\r\n{HOSTED}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", id="two framings"
        ),
        pytest.param(f"BAN / HTTP/1.1\r\n{HOSTED}Content-Length: 0\r\nContent-Length: 1\r\n\r\n", id="two lengths"),
        pytest.param(f"BAN / HTTP/1.1\r\n{HOSTED}Content-Length: +0\r\n\r\n", id="a length with a sign"),
        pytest.param(f"BAN / HTTP/1.1\r\n{HOSTED}Transfer-Encoding: xchunked\r\n\r\n", id="another coding"),
        pytest.param(f"BAN / HTTP/1.1\r\n{HOSTED}Content-Length : 0\r\n\r\n", id="space before the colon"),
        pytest.param(f"BAN / HTTP/1.1\r\n{HOSTED}X-Url: /a\r\n /b\r\n\r\n", id="folded"),
        pytest.param("BAN / HTTP/1.1\nHost: www.example.com\n\n\r\n\r\n", id="bare line feeds"),
        pytest.param(f"BAN / HTTP/1.1\r\n{HOSTED}X-Url: /a\rX: b\r\n\r\n", id="bare carriage return"),
        pytest.param(f"BAN / HTTP/1.1\r\n{HOSTED}X-Url: /a\0\r\n\r\n", id="NUL"),
        pytest.param(f"B(N / HTTP/1.1\r\n{HOSTED}\r\n", id="no method"),
        pytest.param(f"BAN / HTTP/1.1 \r\n{HOSTED}\r\n", id="space after the version"),
        pytest.param(f"BAN /{'a' * 70_000} HTTP/1.1\r\n{HOSTED}\r\n", id="too long a target"),
        pytest.param(f"BAN / HTTP/1.1\r\n{HOSTED}xkey: {'a' * 70_000}\r\n\r\n", id="too long a field"),
        pytest.param(f"BAN / HTTP/1.1\r\n{HOSTED}" + "a: b\r\n" * 200 + "\r\n", id="too many fields"),
    ],
)
async def test_framing_is_as_strict_as_ever(spoken: Running, sent: str, caplog: pytest.LogCaptureFixture) -> None:
    """The parser that takes any method refuses what the compiled one does, and reads nothing behind it."""
    behind = f"PURGE / HTTP/1.1\r\n{HOSTED}X-Purge-Key: {spoken.tokens['purge']}\r\nxkey: a\r\n\r\n"
    async with await RawClient.connect(spoken.server.address.port) as client:
        client.writer.write((sent + behind).encode("latin-1"))
        answer = await client.rest()
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")), answer[:200]
    assert answer.count(b"\r\n\r\n") == 1
    assert caplog.text == ""
    assert await logged(spoken) == []
