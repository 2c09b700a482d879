"""Per dialect: request -> order -> reply, and what each kind of failure looks like to its clients."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.admin.dialects.build import by_token
from edgecache.admin.dialects.desk import DIALECTS, Desk, Perform
from edgecache.admin.dialects.spoken import Answer, SiteNames
from edgecache.admin.tokens import TokenCheck
from edgecache.http.headers import Headers
from edgecache.http.message import Request
from edgecache.purge.message import EdgeReceipt, PurgeError, PurgeKind, PurgeOrder, PurgeReceipt, UrlPattern

TOKEN = "the-token-of-these-tests"
SOFT = PurgeKind.SOFT
ALL = ("varnish", "fastly", "cloudflare", "magento", "nginx")
AUTH = {
    "varnish": {"X-Purge-Key": TOKEN},
    "fastly": {"Fastly-Key": TOKEN},
    "cloudflare": {"Authorization": f"Bearer {TOKEN}"},
    "magento": {"X-Purge-Token": TOKEN},
    "nginx": {"Authorization": f"bearer {TOKEN}"},
}


class Log:
    """Numbers orders from 41 on."""

    def __init__(self, error: Exception | None = None) -> None:
        self.orders: list[PurgeOrder] = []
        self.error = error

    async def __call__(self, order: PurgeOrder) -> PurgeReceipt:
        if self.error is not None:
            raise self.error
        self.orders.append(order)
        return PurgeReceipt(40 + len(self.orders), (EdgeReceipt("edge", True, 0.001),))


def desk(speak: Sequence[str] = ALL, **settings: Any) -> Desk:
    names = SiteNames({"SU1Z0isxPaozGVKXdv0eY": "shop", "023e105f": "shop"}, lambda: ("shop", "blog"))
    return Desk(speak, names, **settings)


def request(line: str, fields: dict[str, str] | None = None, host: str = "www.example.com") -> Request:
    method, _, target = line.partition(" ")
    return Request(method, "http", host, target, Headers({"Host": host, **(fields or {})}.items()))


async def ask(
    at: Desk,
    log: Log,
    line: str,
    fields: dict[str, str] | None = None,
    body: object = b"",
    host: str = "www.example.com",
) -> tuple[str, Answer]:
    asked = request(line, fields, host)
    found = at.find(asked)
    assert found is not None, "nobody's request"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    check: Perform = log
    answer = await at.answer(found, asked, data, by_token(TokenCheck(TOKEN), check))
    return found.dialect.name, answer


def order(**parts: Any) -> PurgeOrder:
    return PurgeOrder(**{name: tuple(value) if isinstance(value, list) else value for name, value in parts.items()})


FASTLY_ID = {"status": "ok", "id": "41"}
FASTLY = [
    pytest.param(
        "POST /service/SU1Z0isxPaozGVKXdv0eY/purge/news",
        {},
        b"",
        order(keys=["news"], site="shop"),
        FASTLY_ID,
        id="key",
    ),
    pytest.param(
        "POST /service/blog/purge/news", {}, b"", order(keys=["news"], site="blog"), FASTLY_ID, id="site-by-name"
    ),
    pytest.param(
        "POST /service/shop/purge/tech%2Fnews", {}, b"", order(keys=["tech/news"], site="shop"), FASTLY_ID, id="escaped"
    ),
    pytest.param(
        "POST /service/shop/purge/tech/news", {}, b"", order(keys=["tech/news"], site="shop"), FASTLY_ID, id="slash"
    ),
    pytest.param(
        "POST /service/shop/purge/News", {}, b"", order(keys=["News"], site="shop"), FASTLY_ID, id="case-is-kept"
    ),
    pytest.param("PUT /service/shop/purge/a", {}, b"", order(keys=["a"], site="shop"), FASTLY_ID, id="put"),
    pytest.param(
        "POST /service/shop/purge/news",
        {"Fastly-Soft-Purge": "1"},
        b"",
        order(keys=["news"], site="shop", kind=SOFT),
        FASTLY_ID,
        id="soft",
    ),
    pytest.param(
        "POST /service/shop/purge/news",
        {"Fastly-Soft-Purge": "0"},
        b"",
        order(keys=["news"], site="shop"),
        FASTLY_ID,
        id="not-soft",
    ),
    pytest.param(
        "POST /service/shop/purge",
        {"Surrogate-Key": "a  b,c\ta"},
        b"",
        order(keys=["a", "b,c"], site="shop"),
        {"a": "41", "b,c": "41"},
        id="keys-in-the-header",
    ),
    pytest.param(
        "POST /service/shop/purge",
        {"Content-Type": "application/json"},
        {"surrogate_keys": ["a", "b/c"]},
        order(keys=["a", "b/c"], site="shop"),
        {"a": "41", "b/c": "41"},
        id="keys-in-the-body",
    ),
    pytest.param(
        "POST /service/shop/purge",
        {"Surrogate-Key": "a"},
        {"surrogate_keys": ["b", "ü"]},
        order(keys=["a", "b", "Ã¼"], site="shop"),
        {"a": "41", "b": "41", "ü": "41"},
        id="keys-in-both",
    ),
    pytest.param(
        "POST /service/shop/purge_all",
        {"Fastly-Soft-Purge": "1"},
        b"",
        order(everything=True, site="shop"),
        {"status": "ok"},
        id="all-is-hard-always",
    ),
    pytest.param(
        "POST /purge/www.example.com/a/b?c=1",
        {},
        b"",
        order(urls=["http://www.example.com/a/b?c=1"]),
        FASTLY_ID,
        id="url",
    ),
    pytest.param(
        "POST /purge/https://www.example.com/a",
        {},
        b"",
        order(urls=["https://www.example.com/a"]),
        FASTLY_ID,
        id="scheme",
    ),
    pytest.param(
        "POST /purge/https%3A%2F%2Fwww.example.com%2Fa%3Fb",
        {"Fastly-Soft-Purge": "1"},
        b"",
        order(urls=["https://www.example.com/a?b"], kind=SOFT),
        FASTLY_ID,
        id="url-escaped-as-a-whole",
    ),
    pytest.param(
        "PURGE /a?b=1",
        {"Fastly-Soft-Purge": "1"},
        b"",
        order(urls=["http://www.example.com/a?b=1"], kind=SOFT),
        FASTLY_ID,
        id="method",
    ),
]


@pytest.mark.parametrize(("line", "fields", "body", "expected", "reply"), FASTLY)
async def test_fastly(line: str, fields: dict[str, str], body: object, expected: PurgeOrder, reply: object) -> None:
    log = Log()
    name, answer = await ask(desk(), log, line, {**AUTH["fastly"], **fields}, body)
    assert (name, answer.response.status) == ("fastly", 200)
    assert [given_order(each) for each in log.orders] == [expected]
    assert answer.response.headers.get("content-type") == "application/json"
    assert json.loads(answer.body) == reply


def given_order(one: PurgeOrder) -> PurgeOrder:
    """Without its source."""
    assert one.source in DIALECTS
    return order(**{name: getattr(one, name) for name in PurgeOrder.__slots__ if name != "source"})


ZONE = "POST /client/v4/zones/023e105f/purge_cache"
CLOUDFLARE = [
    pytest.param({"files": ["https://www.example.com/a"]}, order(urls=["https://www.example.com/a"]), id="file"),
    pytest.param(
        {"files": [{"url": "http://x/", "headers": {"Origin": "https://y"}}, "http://z/"]},
        order(urls=["http://x/", "http://z/"]),
        id="file-objects",
    ),
    pytest.param({"tags": ["News", " b "]}, order(caseless=["News", "b"]), id="tags-without-case"),
    pytest.param({"tags": ["a b"]}, order(caseless=["a b"]), id="tag-with-a-space"),
    pytest.param({"tags": ["Ä"]}, order(caseless=["Ã\x84"]), id="octets-of-other-letters-stay"),
    pytest.param({"hosts": ["WWW.example.com"]}, order(hosts=["www.example.com"]), id="host"),
    pytest.param({"prefixes": ["www.example.com/blog/"]}, order(prefixes=["www.example.com/blog/"]), id="prefix"),
    pytest.param({"purge_everything": True}, order(everything=True), id="everything"),
    pytest.param(
        {"tags": ["a"], "hosts": ["h"], "files": [], "purge_everything": False},
        order(caseless=["a"], hosts=["h"]),
        id="several",
    ),
]


@pytest.mark.parametrize(("body", "expected"), CLOUDFLARE)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_cloudflare(method: str, body: object, expected: PurgeOrder) -> None:
    log = Log()
    _, answer = await ask(desk(), log, ZONE.replace("POST", method), AUTH["cloudflare"], body)
    (given,) = log.orders
    assert given.site == "shop"
    assert given_order(given) == order(
        **{name: getattr(expected, name) for name in PurgeOrder.__slots__ if name not in ("source", "site")},
        site="shop",
    )
    assert answer.response.status == 200
    assert json.loads(answer.body) == {"success": True, "errors": [], "messages": [], "result": {"id": "023e105f"}}


async def test_cloudflare_by_key_and_address() -> None:
    log = Log()
    fields = {"X-Auth-Email": "a@example.com", "X-Auth-Key": TOKEN}
    _, answer = await ask(desk(), log, ZONE, fields, {"tags": ["a"]})
    assert (answer.response.status, len(log.orders)) == (200, 1)
    _, answer = await ask(desk(), log, ZONE, {"X-Auth-Key": TOKEN}, {"tags": ["a"]})
    assert (answer.response.status, json.loads(answer.body)["errors"][0]["code"], len(log.orders)) == (400, 9106, 1)


EVERYTHING = order(everything=True)
VARNISH = [
    pytest.param("PURGE /a?b", {}, order(urls=["http://www.example.com/a?b"]), "Purged", id="purge"),
    pytest.param("BAN /a?b", {}, order(urls=["http://www.example.com/a?b"]), "Ban added", id="ban-of-its-url"),
    pytest.param("BAN /a/.*", {}, order(prefixes=["http://www.example.com/a/"]), "Ban added", id="ban-below-its-url"),
    pytest.param("PURGE /", {"xkey": "a b,c"}, order(keys=["a", "b", "c"]), "Invalidated 3 objects", id="xkey"),
    pytest.param("PURGE /", {"XKey-Purge": "a"}, order(keys=["a"]), "Invalidated 1 objects", id="xkey-purge"),
    pytest.param(
        "PURGE /",
        {"XKey-SoftPurge": "a, b"},
        order(keys=["a", "b"], kind=SOFT),
        "Invalidated 2 objects",
        id="xkey-soft",
    ),
    pytest.param(
        "PURGEKEYS /", {"xkey-purge": "a b"}, order(keys=["a", "b"]), "Purged 2 objects, expired 0 objects", id="keys"
    ),
    pytest.param(
        "PURGEKEYS *",
        {"xkey-softpurge": "a"},
        order(keys=["a"], kind=SOFT),
        "Purged 0 objects, expired 1 objects",
        id="keys-soft",
    ),
    pytest.param("BAN /", {"X-Host": ".*", "X-Url": ".*", "X-Content-Type": ".*"}, EVERYTHING, "Ban added", id="all"),
    pytest.param("BAN /", {"X-Host": r"^(a\.b|c:80)$"}, order(hosts=["a.b", "c:80"]), "Ban added", id="hosts"),
    pytest.param(
        "BAN /", {"X-Host": "a.b", "X-Url": "^/x$"}, order(urls=["http://a.b/x"]), "Ban added", id="host-and-url"
    ),
    pytest.param(
        "BAN /",
        {"X-Host": r"^(a\.b|c)$", "X-Url": r"^/x\.y/.*", "X-Content-Type": ".*"},
        order(prefixes=["http://a.b/x.y/", "http://c/x.y/"]),
        "Ban added",
        id="hosts-and-path",
    ),
    pytest.param(
        "BAN /", {"X-Host": "a", "X-Url": "/x"}, order(prefixes=["http://a/x"]), "Ban added", id="path-as-it-is"
    ),
    pytest.param("BAN /", {"X-Host": "a", "X-Url": "^/.*"}, order(hosts=["a"]), "Ban added", id="all-of-a-host"),
    pytest.param(
        "BAN /",
        {"X-Host": ".*", "X-Url": ".*", "X-Content-Type": ".*", "X-Cache-Tags": r"(node\:1|b\-2)(,.+)?$"},
        order(keys=["node:1", "b-2"]),
        "Ban added",
        id="tags",
    ),
    pytest.param("BAN /", {"Cache-Tags": "node:1|node:2"}, order(keys=["node:1", "node:2"]), "Ban added", id="drupal"),
    pytest.param("BAN /", {"Cache-Tags": "config:a.b c"}, order(keys=["config:a.b", "c"]), "Ban added", id="spaces"),
    pytest.param("BAN /", {"X-Cache-Tags": ".*", "X-Host": "a"}, order(hosts=["a"]), "Ban added", id="all-tags"),
    pytest.param(
        "PURGE /.*", {"X-Purge-Method": "regex"}, order(hosts=["www.example.com"]), "Purged", id="wordpress-all"
    ),
    pytest.param(
        "PURGE /a", {"X-Purge-Method": "default"}, order(urls=["http://www.example.com/a"]), "Purged", id="wordpress"
    ),
]


@pytest.mark.parametrize(("line", "fields", "expected", "phrase"), VARNISH)
async def test_varnish(line: str, fields: dict[str, str], expected: PurgeOrder, phrase: str) -> None:
    log = Log()
    name, answer = await ask(desk(), log, line, {**AUTH["varnish"], **fields})
    assert (name, answer.response.status, answer.response.reason) == ("varnish", 200, phrase)
    assert [given_order(each) for each in log.orders] == [expected]
    assert f"<title>200 {phrase}</title>" in answer.body.decode()
    assert "XID: 41" in answer.body.decode()


async def test_varnish_hard_and_soft_at_once() -> None:
    log = Log()
    _, answer = await ask(
        desk(), log, "PURGEKEYS /", {"X-Purge-Key": TOKEN, "xkey-purge": "a", "xkey-softpurge": "b c"}
    )
    assert [(each.keys, each.kind) for each in log.orders] == [(("a",), PurgeKind.HARD), (("b", "c"), SOFT)]
    assert answer.response.reason == "Purged 1 objects, expired 2 objects"


MAGENTO = [
    ("((^|,)cat_p_12(,|$))|((^|,)cat_c_3(,|$))", order(keys=["cat_p_12", "cat_c_3"])),
    ("((^|,)cat_p_12(,|$))", order(keys=["cat_p_12"])),
    ("(^|,)CMS_P(,|$)", order(keys=["CMS_P"])),
    ("cat_p_1|cat_p_2", order(keys=["cat_p_1", "cat_p_2"])),
    (".*", EVERYTHING),
]


@pytest.mark.parametrize(("pattern", "expected"), MAGENTO)
async def test_magento(pattern: str, expected: PurgeOrder) -> None:
    log = Log()
    fields = {**AUTH["magento"], "X-Magento-Tags-Pattern": pattern}
    name, answer = await ask(desk(), log, "PURGE /", fields, host="varnish:6081")
    assert (name, answer.response.status, answer.response.reason) == ("magento", 200, "Purged")
    assert [given_order(each) for each in log.orders] == [expected]


NGINX = [
    ("PURGE /a?b", ("nginx",), order(urls=["http://www.example.com/a?b"])),
    ("PURGE /a/b/*", ALL, order(prefixes=["http://www.example.com/a/b/"])),
    ("PURGE /a/b*", ALL, order(prefixes=["http://www.example.com/a/"])),
    ("PURGE /a/b?c*", ALL, order(prefixes=["http://www.example.com/a/"])),
    ("PURGE /*", ALL, order(prefixes=["http://www.example.com/"])),
]


@pytest.mark.parametrize(("line", "speak", "expected"), NGINX)
async def test_nginx(line: str, speak: Sequence[str], expected: PurgeOrder) -> None:
    log = Log()
    name, answer = await ask(desk(speak), log, line, AUTH["nginx"])
    assert (name, answer.response.status) == ("nginx", 200)
    assert [given_order(each) for each in log.orders] == [expected]
    assert "<h1>Successful purge</h1>" in answer.body.decode()
    assert f"Key : www.example.com{line.removeprefix('PURGE ')}<" in answer.body.decode()


async def test_a_key_shown_in_a_page_is_escaped() -> None:
    _, answer = await ask(desk(("nginx",)), Log(), "PURGE /<script>", AUTH["nginx"])
    assert b"<script>" not in answer.body
    assert b"/&lt;script&gt;<" in answer.body


@pytest.mark.parametrize(
    ("speak", "fields", "name"),
    [
        pytest.param(ALL, {}, "varnish", id="first-of-them"),
        pytest.param(("nginx", "varnish"), {}, "nginx", id="in-the-order-configured"),
        pytest.param(("fastly",), {}, "fastly", id="only-one"),
        pytest.param(ALL, {"Fastly-Key": "x"}, "fastly", id="by-a-field"),
        pytest.param(("varnish",), {"Fastly-Key": "x"}, "varnish", id="not-spoken"),
        pytest.param(ALL, {"X-Magento-Tags-Pattern": "a"}, "magento", id="magento"),
        pytest.param(("cloudflare",), {}, None, id="nobody"),
    ],
)
def test_whose_purge_it_is(speak: Sequence[str], fields: dict[str, str], name: str | None) -> None:
    found = desk(speak).find(request("PURGE /a", fields))
    assert (found.dialect.name if found is not None else None) == name


@pytest.mark.parametrize(
    "line",
    [
        "GET /service/shop/purge_all",
        "POST /v1/purge",
        "POST /service/shop",
        "POST /service//purge_all",
        "POST /client/v4/zones/023e105f/settings",
        "POST /",
        "OPTIONS /a",
        "BANANA /a",
        "PURGE *",
    ],
)
def test_what_is_nobodys(line: str) -> None:
    assert desk().find(request(line)) is None


# --- what goes wrong ---

LONG = {"surrogate_keys": [f"k{i}" for i in range(10_001)]}
WRONG = [
    pytest.param("POST /service/nobody/purge/a", {}, b"", 404, "Record not found", id="fastly-service"),
    pytest.param("POST /service/shop/purge", {}, b"", 400, "Bad request", id="fastly-no-keys"),
    pytest.param("POST /service/shop/purge", {}, b"{", 400, "Bad request", id="fastly-no-json"),
    pytest.param("POST /service/shop/purge", {}, b"[1]", 400, "Bad request", id="fastly-no-object"),
    pytest.param("POST /service/shop/purge", {}, {"surrogate_keys": "a"}, 400, "Bad request", id="fastly-no-list"),
    pytest.param("POST /service/shop/purge", {}, {"surrogate_keys": ["a", 1]}, 400, "Bad request", id="fastly-no-text"),
    pytest.param(
        "POST /service/shop/purge", {}, {"surrogate_keys": ["a", "b c"]}, 400, "Bad request", id="fastly-space"
    ),
    pytest.param("POST /service/shop/purge", {}, {"surrogate_keys": ["\ud800"]}, 400, "Bad request", id="fastly-half"),
    pytest.param("POST /service/shop/purge", {}, LONG, 413, "Request entity too large", id="fastly-too-many"),
    pytest.param("POST /service/shop/purge/a%20b", {}, b"", 400, "Bad request", id="fastly-spaced-key"),
    pytest.param("POST /purge/ftp://x/", {}, b"", 400, "Bad request", id="fastly-url"),
    pytest.param("POST /purge//", {}, b"", 400, "Bad request", id="fastly-no-host"),
]


@pytest.mark.parametrize(("line", "fields", "body", "status", "text"), WRONG)
async def test_fastly_refuses(line: str, fields: dict[str, str], body: object, status: int, text: str) -> None:
    log = Log()
    _, answer = await ask(desk(), log, line, {**AUTH["fastly"], **fields}, body)
    said = json.loads(answer.body)
    assert (answer.response.status, said["msg"]) == (status, text)
    assert said["detail"]
    assert not log.orders


@pytest.mark.parametrize(
    ("zone", "body", "status", "code"),
    [
        pytest.param("nobody", {"tags": ["a"]}, 404, 7003, id="zone"),
        pytest.param("023e105f", b"", 400, 1012, id="empty"),
        pytest.param("023e105f", {}, 400, 1012, id="nothing"),
        pytest.param("023e105f", {"tags": []}, 400, 1012, id="an-empty-list"),
        pytest.param("023e105f", {"tags": "a"}, 400, 1014, id="no-list"),
        pytest.param("023e105f", {"hosts": ["a", 1]}, 400, 1014, id="no-text"),
        pytest.param("023e105f", {"files": [{"headers": {}}]}, 400, 1014, id="file-without-url"),
        pytest.param("023e105f", {"files": [{"url": "http://a/", "headers": 1}]}, 400, 1014, id="odd-headers"),
        pytest.param("023e105f", {"files": ["/a"]}, 400, 1012, id="relative-url"),
        pytest.param("023e105f", {"tags": ["a"], "files": ["/a"]}, 400, 1012, id="one-of-two-wrong"),
        pytest.param("023e105f", {"prefixes": ["a/?b"]}, 400, 1012, id="prefix-with-query"),
        pytest.param("023e105f", {"purge_everything": "yes"}, 400, 1012, id="no-boolean"),
        pytest.param("023e105f", {"purge_everything": True, "tags": ["a"]}, 400, 1012, id="everything-and-more"),
        pytest.param("023e105f", {"tag": ["a"]}, 400, 1012, id="unknown"),
        pytest.param("023e105f", b"nonsense", 400, 1012, id="no-json"),
        pytest.param("023e105f", {"tags": [f"k{i}" for i in range(10_001)]}, 413, 1012, id="too-many"),
    ],
)
async def test_cloudflare_refuses(zone: str, body: object, status: int, code: int) -> None:
    log = Log()
    _, answer = await ask(desk(), log, f"POST /client/v4/zones/{zone}/purge_cache", AUTH["cloudflare"], body)
    said = json.loads(answer.body)
    assert answer.response.status == status
    assert set(said) == {"success", "errors", "messages", "result"}
    assert (said["success"], said["messages"], said["result"]) == (False, [], None)
    assert [error["code"] for error in said["errors"]] == [code]
    assert all(error["message"] for error in said["errors"])
    assert not log.orders


@pytest.mark.parametrize(
    ("line", "fields", "status", "words"),
    [
        pytest.param("PURGEKEYS /", {}, 400, "Neither header XKey-Purge or XKey-SoftPurge set", id="no-keys"),
        pytest.param("PURGEKEYS /", {"xkey-purge": " , "}, 400, "no keys", id="empty-keys"),
        pytest.param("PURGE /", {"xkey": ""}, 400, "no keys", id="empty-xkey"),
        pytest.param("BAN /", {"X-Host": "a", "X-Url": r"\.png$"}, 400, "matches no such patterns", id="suffix"),
        pytest.param(
            "BAN /", {"X-Host": "a", "X-Url": "^/blog"}, 400, "matches no such patterns", id="beginning-of-a-name"
        ),
        pytest.param("BAN /", {"X-Url": "^/blog/"}, 400, "add X-Host", id="path-without-host"),
        pytest.param("BAN /", {"X-Host": r"^[a-z]+\.b$"}, 400, "lists no hosts", id="host-pattern"),
        pytest.param("BAN /", {"X-Cache-Tags": "a[0-9]+"}, 400, "lists no tags", id="tag-pattern"),
        pytest.param("BAN /", {"X-Content-Type": "image/png"}, 400, "x-content-type", id="content-type"),
        pytest.param("BAN /a(b|c)", {}, 400, "matches no such patterns", id="own-url"),
        pytest.param("PURGE /a.+b", {"X-Purge-Method": "regex"}, 400, "matches no such patterns", id="wordpress"),
    ],
)
async def test_varnish_refuses(line: str, fields: dict[str, str], status: int, words: str) -> None:
    log = Log()
    _, answer = await ask(desk(), log, line, {**AUTH["varnish"], **fields})
    assert (answer.response.status, words in answer.response.reason) == (status, True), answer.response.reason
    assert not log.orders


@pytest.mark.parametrize(
    ("line", "fields", "expected"),
    [
        pytest.param("BAN /", {"X-Host": "a", "X-Url": r"\.png$"}, order(hosts=["a"]), id="suffix"),
        pytest.param("BAN /", {"X-Host": "a", "X-Url": "^/b/log"}, order(prefixes=["http://a/b/"]), id="beginning"),
        pytest.param("BAN /", {"X-Host": "a", "X-Url": "^/b/x|^/c"}, order(hosts=["a"]), id="two-beginnings"),
        pytest.param("BAN /", {"X-Url": "^/blog/"}, EVERYTHING, id="path-without-host"),
        pytest.param("BAN /", {"X-Host": r"^[a-z]+\.b$", "X-Url": "^/a$"}, EVERYTHING, id="host-pattern"),
        pytest.param("BAN /", {"X-Cache-Tags": "a[0-9]+", "X-Host": "^a$"}, order(hosts=["a"]), id="tag-pattern"),
        pytest.param("BAN /", {"X-Content-Type": "image/png", "X-Host": "a"}, order(hosts=["a"]), id="content-type"),
        pytest.param("PURGE /", {"X-Magento-Tags-Pattern": "cat_.*"}, EVERYTHING, id="magento"),
    ],
)
async def test_patterns_widened(line: str, fields: dict[str, str], expected: PurgeOrder) -> None:
    log = Log()
    _, answer = await ask(desk(patterns="widen"), log, line, {**AUTH["varnish"], **fields})
    assert answer.response.status == 200
    assert [given_order(each) for each in log.orders] == [expected]


PNG = UrlPattern(r"\.png$", "a")


@pytest.mark.parametrize(
    ("line", "fields", "expected"),
    [
        pytest.param("BAN /", {"X-Host": "a", "X-Url": r"\.png$"}, order(patterns=[PNG]), id="suffix"),
        pytest.param("BAN /", {"X-Url": r"\.png$"}, order(patterns=[UrlPattern(r"\.png$")]), id="every-host"),
        pytest.param("BAN /", {"X-Url": "^/a/"}, order(patterns=[UrlPattern("^/a/")]), id="path-on-every-host"),
        pytest.param(
            "BAN /",
            {"X-Host": "^(a|b)$", "X-Url": "^/b/log"},
            order(patterns=[UrlPattern("^/b/log", "a"), UrlPattern("^/b/log", "b")]),
            id="two-hosts",
        ),
        pytest.param(
            "PURGE /.*.png",
            {"X-Purge-Method": "regex", "Host": "a"},
            order(patterns=[UrlPattern("/.*.png", "a")]),
            id="wp",
        ),
        pytest.param("BAN /a(b|c)+", {"Host": "a"}, order(patterns=[UrlPattern("/a(b|c)+", "a")]), id="own-url"),
        pytest.param("BAN /", {"X-Host": "a", "X-Url": "^/b/"}, order(prefixes=["http://a/b/"]), id="a-path-stays-one"),
        pytest.param("BAN /", {"X-Host": "a", "X-Url": "^/b$"}, order(urls=["http://a/b"]), id="a-url-stays-one"),
        pytest.param("BAN /", {"X-Host": "a", "X-Url": "/b"}, order(patterns=[UrlPattern("/b", "a")]), id="anywhere"),
        pytest.param("BAN /", {"X-Cache-Tags": "(a|b)"}, order(keys=["a", "b"]), id="tags-stay-tags"),
        pytest.param("BAN /", {"X-Host": "a", "X-Url": ".*"}, order(hosts=["a"]), id="all-of-a-host"),
    ],
)
async def test_patterns_compared(line: str, fields: dict[str, str], expected: PurgeOrder) -> None:
    log = Log()
    _, answer = await ask(desk(patterns="match"), log, line, {**AUTH["varnish"], **fields}, host="a")
    assert answer.response.status == 200, answer.response.reason
    assert [given_order(each) for each in log.orders] == [expected]


@pytest.mark.parametrize(
    ("line", "fields", "words"),
    [
        pytest.param("BAN /", {"X-Host": "a", "X-Url": "^/(a"}, "not a regular expression", id="not-closed"),
        pytest.param("BAN /", {"X-Url": "(?!a)b"}, "not a regular expression", id="look-around"),
        pytest.param("BAN /", {"X-Url": "(a|b){2}" * 200}, "1 to 1024", id="too-long"),
        pytest.param("BAN /", {"X-Host": r"^[a-z]+\.b$"}, "lists no hosts", id="host-pattern"),
        pytest.param("BAN /", {"X-Cache-Tags": "a[0-9]+"}, "lists no tags", id="tag-pattern"),
        pytest.param("BAN /", {"X-Content-Type": "image/png"}, "x-content-type", id="content-type"),
    ],
)
async def test_patterns_that_cannot_be_compared(line: str, fields: dict[str, str], words: str) -> None:
    log = Log()
    _, answer = await ask(desk(patterns="match"), log, line, {**AUTH["varnish"], **fields})
    assert (answer.response.status, words in answer.response.reason) == (400, True), answer.response.reason
    assert not log.orders


@pytest.mark.parametrize(
    "fields", [{"X-Magento-Tags-Pattern": " "}, {"X-Pool": "a"}, {"X-Magento-Tags-Pattern": "c.*"}]
)
async def test_magento_refuses(fields: dict[str, str]) -> None:
    log = Log()
    _, answer = await ask(desk(), log, "PURGE /", {**AUTH["magento"], **fields})
    assert answer.response.status == 400
    assert not log.orders


ONE_OF_EACH = [
    ("fastly", "POST /service/shop/purge/a", {}, b""),
    ("cloudflare", ZONE, {}, {"tags": ["a"]}),
    ("varnish", "BAN /", {"X-Cache-Tags": "a"}, b""),
    ("magento", "PURGE /", {"X-Magento-Tags-Pattern": "a"}, b""),
    ("nginx", "PURGE /*", {}, b""),
]


@pytest.mark.parametrize(("name", "line", "fields", "body"), ONE_OF_EACH, ids=[each[0] for each in ONE_OF_EACH])
async def test_tokens_and_failures(name: str, line: str, fields: dict[str, str], body: object) -> None:
    """No token, a wrong one, and every way in which the purge itself can fail."""
    log = Log()
    for shown in ({}, {key: value.replace(TOKEN, "another") for key, value in AUTH[name].items()}):
        _, answer = await ask(desk(), log, line, {**shown, **fields}, body)
        assert answer.response.status in {400, 401, 403, 405}
    statuses = {403: {403, 405}, 404: {404}, 413: {413}, 429: {429}, 503: {503}, 500: {500, 503}, 400: {400}}
    for status, expected in statuses.items():
        failing = Log(PurgeError("told", status=status))
        _, answer = await ask(desk(), failing, line, {**AUTH[name], **fields}, body)
        assert answer.response.status in expected, (status, answer.response.status)
    _, answer = await ask(desk(), Log(RuntimeError("a secret")), line, {**AUTH[name], **fields}, body)
    assert answer.response.status in {500, 503}
    assert b"secret" not in answer.body
    assert not log.orders
    _, answer = await ask(desk(), log, line, {**AUTH[name], **fields}, body)
    assert (answer.response.status, len(log.orders)) == (200, 1)


async def test_fewer_targets_where_configured() -> None:
    log = Log()
    _, answer = await ask(desk(max_targets=2), log, "PURGE /", {**AUTH["varnish"], "xkey": "a b c"})
    assert (answer.response.status, log.orders) == (413, [])


async def test_every_id_is_the_only_site_where_none_is_listed() -> None:
    log = Log()
    at = Desk(ALL, SiteNames({}, lambda: ("default",)))
    _, answer = await ask(at, log, "POST /service/7i6HN3TK9wS159v2gPAZ8A/purge_all", AUTH["fastly"])
    assert (answer.response.status, log.orders[0].site) == (200, "default")


TEXT = st.text(alphabet=st.characters(min_codepoint=1, max_codepoint=255), max_size=40)


@given(
    st.sampled_from(["PURGE", "BAN", "PURGEKEYS", "POST", "DELETE"]),
    st.sampled_from(
        ["/", "/service/shop/purge", "/service/shop/purge/", "/purge/", "/client/v4/zones/shop/purge_cache"]
    ),
    TEXT,
    st.dictionaries(
        st.sampled_from(
            [
                "xkey",
                "xkey-purge",
                "x-cache-tags",
                "cache-tags",
                "x-host",
                "x-url",
                "x-magento-tags-pattern",
                "x-purge-method",
            ]
        ),
        TEXT | st.text(alphabet="^$(|),.*+?\\ab/", max_size=30),
        max_size=3,
    ),
    st.binary(max_size=30)
    | st.sampled_from([b'{"tags": ["a"]}', b'{"files": [{"url": 1}]}', b'{"surrogate_keys": [[]]}']),
)
async def test_anything_is_answered(method: str, path: str, rest: str, fields: dict[str, str], body: bytes) -> None:
    """With a status, and carried out only as a whole."""
    log = Log()
    asked = Request(method, "http", "h", path + rest, Headers({**fields, "Authorization": f"Bearer {TOKEN}"}.items()))
    at = desk(patterns=("refuse", "widen", "match")[len(rest) % 3])
    if (found := at.find(asked)) is None:
        return
    answer = await at.answer(found, asked, body, by_token(TokenCheck(TOKEN), log))
    assert answer.response.status in {200, 400, 404, 413}
    assert bool(log.orders) is (answer.response.status == 200)
