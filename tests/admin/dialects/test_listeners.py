"""The dialects on real listeners: the admin's for who shows the token, the public ones for listed addresses."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.edge.world import TOKEN, World, world

TAGS = {"Cache_Control": "max-age=600", "Surrogate_Key": "news", "Cache_Tag": "News", "X_Magento_Tags": "cat_1,cat_2"}
SITE = "www.example.com"


async def raw(port: int, head: str, body: bytes = b"") -> tuple[int, str, dict[str, str], bytes]:
    """Status, reason, lower-case fields and body of the answer to octets as they are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = [*head.strip().splitlines(), "Connection: close", *([f"Content-Length: {len(body)}"] if body else [])]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        answer = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
        await writer.wait_closed()
    top, _, content = answer.partition(b"\r\n\r\n")
    first, *rest = top.decode("latin-1").split("\r\n")
    _, status, reason = first.split(" ", 2)
    return int(status), reason, {n.lower(): v for n, v in (line.split(": ", 1) for line in rest)}, content


async def stored(here: World, path: str = "/a") -> bool:
    """Is it a hit? It is stored afterwards."""
    return "hit" in (await here.get(path, Host=SITE)).cache_status


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        made.answers(**TAGS)
        await made.get("/a", Host=SITE)
        assert await stored(made)
        yield made


AUTH = f"Authorization: Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        pytest.param(f"PURGE /a HTTP/1.1\nHost: {SITE}\n{AUTH}", b"", id="purge"),
        pytest.param(f"PURGE http://{SITE}/a HTTP/1.1\nHost: edge\n{AUTH}", b"", id="absolute-form"),
        pytest.param(f"PURGE /* HTTP/1.1\nHost: {SITE}\n{AUTH}", b"", id="nginx"),
        pytest.param(f"BAN / HTTP/1.1\nHost: edge\nX-Host: {SITE}\nX-Url: .*\n{AUTH}", b"", id="ban"),
        pytest.param(f"BAN / HTTP/1.1\nHost: edge\nX-Cache-Tags: (news|x)(,.+)?$\n{AUTH}", b"", id="ban-tags"),
        pytest.param(f"PURGEKEYS / HTTP/1.1\nHost: edge\nxkey-purge: news\n{AUTH}", b"", id="purgekeys"),
        pytest.param(
            f"PURGE / HTTP/1.1\nHost: edge:80\nX-Magento-Tags-Pattern: ((^|,)cat_2(,|$))\n{AUTH}", b"", id="magento"
        ),
        pytest.param(f"POST /service/any/purge/news HTTP/1.1\nHost: api\nFastly-Key: {TOKEN}", b"", id="fastly"),
        pytest.param(
            f"POST /client/v4/zones/any/purge_cache HTTP/1.1\nHost: api\n{AUTH}", b'{"tags": ["NEWS"]}', id="cloudflare"
        ),
        pytest.param(
            f"POST /client/v4/zones/any/purge_cache HTTP/1.1\nHost: api\nX-Auth-Email: a@b\nX-Auth-Key: {TOKEN}",
            b'{"purge_everything": true}',
            id="cloudflare-all",
        ),
    ],
)
async def test_on_the_admin_listener(here: World, head: str, body: bytes) -> None:
    status, _, fields, _ = await raw(here.edge.admin.address.port, head, body)
    assert status == 200
    assert fields["cache-control"] == "no-store"
    assert not await stored(here)


async def test_the_admin_listener_asks_for_the_token(here: World) -> None:
    for head in (
        f"PURGE /a HTTP/1.1\nHost: {SITE}",
        f"PURGE /a HTTP/1.1\nHost: {SITE}\nAuthorization: Bearer wrong-token-of-some-length",
        f"PURGE /a HTTP/1.1\nHost: {SITE}\nFastly-Key: \xe4\xff",
        f"BAN /a HTTP/1.1\nHost: {SITE}",
    ):
        status, _, _, _ = await raw(here.edge.admin.address.port, head)
        assert status in {401, 405}
    assert await stored(here)


async def test_long_lists_of_keys_in_a_field(here: World) -> None:
    """256 keys of 200 octets, as Fastly takes them."""
    keys = " ".join(f"{i:0200}" for i in range(255))
    head = f"POST /service/x/purge HTTP/1.1\nHost: api\nFastly-Key: {TOKEN}\nSurrogate-Key: {keys} news"
    status, _, _, content = await raw(here.edge.admin.address.port, head)
    assert (status, len(json.loads(content))) == (200, 256)
    assert not await stored(here)


async def test_a_body_that_is_too_large(here: World) -> None:
    head = f"POST /client/v4/zones/any/purge_cache HTTP/1.1\nHost: api\n{AUTH}"
    status, _, _, content = await raw(here.edge.admin.address.port, head, b'{"tags": ["news"]}' + b" " * (1 << 20))
    assert (status, json.loads(content)["success"]) == (413, False)
    assert await stored(here)


async def test_ten_thousand_tags_with_capitals(here: World) -> None:
    """What another field names as it is, and what Cache-Tag names in whatever letters."""
    here.answers(Cache_Control="max-age=600", Cache_Tag="news-9999")
    await here.get("/tagged", Host=SITE)
    here.answers(Cache_Control="max-age=600", Surrogate_Key="News-9998")
    await here.get("/keyed", Host=SITE)
    head = f"POST /client/v4/zones/any/purge_cache HTTP/1.1\nHost: api\n{AUTH}"
    for count, expected in ((10_001, 413), (10_000, 200)):
        assert await stored(here, "/tagged")
        assert await stored(here, "/keyed")
        body = json.dumps({"tags": [f"News-{number}" for number in range(count)]}).encode()
        assert (await raw(here.edge.admin.address.port, head, body))[0] == expected
    assert not await stored(here, "/tagged")
    assert not await stored(here, "/keyed")


async def test_the_native_api_is_what_it_was(here: World) -> None:
    port = here.edge.admin.address.port
    body = b'{"keys": ["news"]}'
    head = f"POST /v1/purge HTTP/1.1\nHost: {{}}\n{AUTH}\nContent-Type: application/json"
    assert (await raw(port, head.format("evil.example"), body))[0] == 403
    assert await stored(here)
    assert (await raw(port, head.format(f"127.0.0.1:{port}"), body))[0] == 200
    assert not await stored(here)


# --- the public listener ---


def public(**settings: Any) -> dict[str, Any]:
    return {"dialects": {"public": {"allow": ["127.0.0.0/8"], **settings}}}


async def fill(made: World) -> None:
    made.answers(**TAGS)
    await made.get("/a", Host=SITE)
    assert await stored(made)


async def test_by_default_a_purge_is_the_sites_own() -> None:
    """It reaches the origin, as any unsafe method does."""
    async with world() as made:
        await fill(made)
        status, _, _, content = await raw(made.edge.listeners[0].port, f"PURGE /b HTTP/1.1\nHost: {SITE}\nxkey: news")
        assert (status, content) == (200, b"hello")
        assert made.asked[-1][:2] == ("PURGE", "/b")
        assert await stored(made)


async def test_from_an_address_that_is_not_listed() -> None:
    async with world(purge={"dialects": {"public": {"allow": ["192.0.2.0/24", "2001:db8::/32"]}}}) as made:
        await fill(made)
        _, _, _, content = await raw(made.edge.listeners[0].port, f"PURGE /b HTTP/1.1\nHost: {SITE}\nxkey: news")
        assert content == b"hello"
        assert made.asked[-1][:2] == ("PURGE", "/b")
        assert await stored(made)


async def test_from_a_listed_address() -> None:
    async with world(purge=public()) as made:
        await fill(made)
        port, asked = made.edge.listeners[0].port, len(made.asked)
        status, reason, fields, content = await raw(port, f"PURGE /a HTTP/1.1\nHost: {SITE}")
        assert (status, reason, fields["content-type"]) == (200, "Purged", "text/html; charset=utf-8")
        assert b"<title>200 Purged</title>" in content
        assert len(made.asked) == asked
        assert not await stored(made)
        body = b'{"tags": ["news"]}'
        status, _, _, content = await raw(port, "POST /client/v4/zones/z/purge_cache HTTP/1.1\nHost: nobodys", body)
        assert (status, json.loads(content)["success"]) == (200, True)
        assert not await stored(made)
        status, _, _, content = await raw(port, f"POST /other HTTP/1.1\nHost: {SITE}", b"for the origin")
        assert (status, content) == (200, b"hello")


async def test_several_on_one_connection() -> None:
    async with world(purge=public()) as made:
        await fill(made)
        for path in ("/a", "/b"):
            got = await made.get(path, "PURGE", Host=SITE)
            assert (got.status, b"Purged" in got.body) == (200, True)
        assert not await stored(made)


async def test_with_a_token_too() -> None:
    async with world(purge=public(token=True)) as made:
        await fill(made)
        port = made.edge.listeners[0].port
        assert (await raw(port, f"PURGE /a HTTP/1.1\nHost: {SITE}"))[:2] == (405, "Not allowed")
        assert await stored(made)
        assert (await raw(port, f"PURGE /a HTTP/1.1\nHost: {SITE}\n{AUTH}"))[0] == 200
        assert not await stored(made)


async def test_behind_a_trusted_proxy_the_client_counts() -> None:
    """Its own address is listed as well: that does not let in whoever it serves."""
    settings = {
        "purge": {"dialects": {"public": {"allow": ["127.0.0.0/8", "192.0.2.7"]}}},
        "forwarding": {"trusted_proxies": ["127.0.0.0/8"]},
    }
    async with world(**settings) as made:
        await fill(made)
        port = made.edge.listeners[0].port
        purge = f"PURGE /a HTTP/1.1\nHost: {SITE}\nxkey: news\nX-Forwarded-For: "
        for stranger in ("198.51.100.1", "192.0.2.7, 198.51.100.1", "nonsense", ""):
            assert (await raw(port, purge + stranger))[3] == b"hello", stranger
            await made.get("/a", Host=SITE)  # the origin's 200 to an unsafe method has invalidated its URL
        assert (await raw(port, purge + "192.0.2.7"))[1] == "Invalidated 1 objects"
        assert not await stored(made)


async def test_a_large_body_on_the_public_listener() -> None:
    async with world(purge=public()) as made:
        await fill(made)
        port = made.edge.listeners[0].port
        head = "POST /client/v4/zones/z/purge_cache HTTP/1.1\nHost: x"
        status, _, _, content = await raw(port, head, b'{"tags": ["news"]}' + b" " * (1 << 20))
        assert (status, json.loads(content)["success"]) == (413, False)
        chunked = f"{head}\nTransfer-Encoding: chunked\n\n" + "10000\n" + "x" * 65536 + "\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(chunked.replace("\n", "\r\n").encode() + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 16)
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 413 ")
        writer.close()
        assert await stored(made)


async def test_over_long_tags_are_not_stored() -> None:
    """Stored with those that fitted it could not be purged by the others."""
    async with world() as made:
        for octets, kept in ((16_384, True), (16_385, False)):
            made.answers(
                Cache_Control="max-age=600",
                Surrogate_Key=" ".join(
                    ["k" * 1000] + [f"{i:0999}" for i in range(15)] + ["x" * (octets - 1000 - 15 * 999)]
                ),
            )
            path = f"/{octets}"
            await made.get(path)
            got = await made.get(path)
            assert ("hit" in got.cache_status) is kept
        assert "too-many-tags" in got.cache_status
