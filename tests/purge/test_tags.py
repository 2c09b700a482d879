"""What a purge names, and what it covers: tables of objects and orders (DESIGN §7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.edge.sites import Site, Sites
from edgecache.http.cachekey import QueryMode, QueryRecipe, cache_key
from edgecache.policy.site import SitePolicy
from edgecache.purge.message import PurgeError, PurgeOrder
from edgecache.purge.tags import MAX_TARGETS, object_tags, order_tags

SITES = Sites(
    [
        Site(SitePolicy(name="www"), origin=None, hosts=("www.example.com",)),  # type: ignore[arg-type]
        Site(
            SitePolicy(name="shop", query=QueryRecipe(QueryMode.DROP, ("utm_*",))),
            origin=None,  # type: ignore[arg-type]
            hosts=("shop.example.com", "*.shop.example.com"),
        ),
    ]
)


def tags_of(url: str, *keys: str) -> set[int]:
    scheme, _, location = url.partition("://")
    authority, slash, rest = location.partition("/")
    site = SITES.find(authority)
    assert site is not None
    text = cache_key(scheme, authority, slash + rest, site.policy.query)
    return set(object_tags(cache_key=text, site=site.name, surrogate_keys=keys))


def covered(order: PurgeOrder, url: str, *keys: str) -> bool:
    named = order_tags(order, sites=SITES.names(), cache_keys=SITES.cache_keys)
    return bool(tags_of(url, *keys) & set(named))


WWW = "http://www.example.com"
CASES = {
    "url": (PurgeOrder(urls=(f"{WWW}/a/b?x=1",)), f"{WWW}/a/b?x=1", True),
    "url-other-query": (PurgeOrder(urls=(f"{WWW}/a/b?x=1",)), f"{WWW}/a/b?x=2", False),
    "url-without-query": (PurgeOrder(urls=(f"{WWW}/a/b",)), f"{WWW}/a/b?x=2", False),
    "url-other-scheme": (PurgeOrder(urls=("https://www.example.com/a",)), f"{WWW}/a", True),
    "url-default-port": (PurgeOrder(urls=("http://www.example.com:80/a",)), f"{WWW}/a", True),
    "url-other-port": (PurgeOrder(urls=("http://www.example.com:81/a",)), f"{WWW}/a", False),
    "url-case-of-host": (PurgeOrder(urls=("http://WWW.Example.com/a",)), f"{WWW}/a", True),
    "url-case-of-path": (PurgeOrder(urls=(f"{WWW}/A",)), f"{WWW}/a", False),
    "url-escapes": (PurgeOrder(urls=(f"{WWW}/%7Ea%2fb",)), f"{WWW}/~a%2Fb", True),
    "url-empty-path": (PurgeOrder(urls=(WWW,)), f"{WWW}/", True),
    "url-fragment": (PurgeOrder(urls=(f"{WWW}/a#top",)), f"{WWW}/a", True),
    "url-by-the-sites-recipe": (
        PurgeOrder(urls=("https://shop.example.com/p?utm_source=x&id=1",)),
        "https://shop.example.com/p?id=1",
        True,
    ),
    "host": (PurgeOrder(hosts=("www.example.com",)), f"{WWW}/a/b", True),
    "host-any-port": (PurgeOrder(hosts=("www.example.com",)), "http://www.example.com:8080/a", True),
    "host-other": (PurgeOrder(hosts=("example.com",)), f"{WWW}/a/b", False),
    "host-wildcard-site": (PurgeOrder(hosts=("a.shop.example.com",)), "http://a.shop.example.com/x", True),
    "prefix": (PurgeOrder(prefixes=("www.example.com/a/",)), f"{WWW}/a/b/c", True),
    "prefix-itself": (PurgeOrder(prefixes=("www.example.com/a/",)), f"{WWW}/a", True),
    "prefix-without-slash": (PurgeOrder(prefixes=("www.example.com/a",)), f"{WWW}/a/b", True),
    "prefix-with-scheme": (PurgeOrder(prefixes=(f"{WWW}/a",)), f"{WWW}/a/b?q", True),
    "prefix-not-at-a-boundary": (PurgeOrder(prefixes=("www.example.com/a",)), f"{WWW}/ab", False),
    "prefix-root": (PurgeOrder(prefixes=("www.example.com/",)), f"{WWW}/ab", True),
    "prefix-deeper": (PurgeOrder(prefixes=("www.example.com/a/b/c",)), f"{WWW}/a/b", False),
    "prefix-ignores-the-query": (PurgeOrder(prefixes=("www.example.com/a",)), f"{WWW}/a?b", True),
    "site": (PurgeOrder(everything=True, site="www"), f"{WWW}/a", True),
    "other-site": (PurgeOrder(everything=True, site="shop"), f"{WWW}/a", False),
}


@pytest.mark.parametrize(("order", "url", "hit"), CASES.values(), ids=CASES.keys())
def test_what_a_purge_covers(order, url, hit):
    assert covered(order, url) is hit


@pytest.mark.parametrize(
    ("named", "carried", "hit"),
    [
        pytest.param("News of today", "News of today", True, id="as-it-is"),
        pytest.param("NEWS", "news", True, id="in-lower-case"),
        pytest.param("news", "NEWS", False, id="not-the-other-way-round"),
        pytest.param("\xc4", "\xe4", False, id="letters-beyond-ascii"),
    ],
)
def test_keys_without_regard_to_case(named: str, carried: str, hit: bool) -> None:
    assert covered(PurgeOrder(caseless=(named,)), f"{WWW}/a", carried) is hit


def test_a_key_belongs_to_its_site():
    word = "news"
    assert covered(PurgeOrder(keys=(word,), site="www"), f"{WWW}/a", "other", word)
    assert not covered(PurgeOrder(keys=(word,), site="shop"), f"{WWW}/a", word)
    assert covered(PurgeOrder(keys=(word,)), f"{WWW}/a", word)
    assert not covered(PurgeOrder(keys=(word,)), f"{WWW}/a", "News")


@given(st.lists(st.text("abc-._~", min_size=1, max_size=4), min_size=1, max_size=40), st.data())
def test_every_prefix_at_a_boundary_covers_and_no_other_does(segments, data):
    path = "/" + "/".join(segments)
    depth = data.draw(st.integers(0, min(len(segments), 32)))
    prefix = "/" + "/".join(segments[:depth])
    assert covered(PurgeOrder(prefixes=(f"www.example.com{prefix}",)), f"{WWW}{path}")
    longer = prefix.rstrip("/") + "x" if depth else "/zzz"
    assert not covered(PurgeOrder(prefixes=(f"www.example.com{longer}",)), f"{WWW}{path}")


WRONG = {
    "nothing": (PurgeOrder(), "", "nothing to purge"),
    "relative-url": (PurgeOrder(urls=("/a",)), "urls[0]", "absolute"),
    "second-url": (PurgeOrder(urls=(f"{WWW}/", "ftp://x/")), "urls[1]", "absolute"),
    "url-with-user": (PurgeOrder(urls=("http://me@www.example.com/",)), "urls[0]", "absolute"),
    "url-with-space": (PurgeOrder(urls=(f"{WWW}/a b",)), "urls[0]", "absolute"),
    "url-bad-port": (PurgeOrder(urls=("http://www.example.com:x/",)), "urls[0]", "absolute"),
    "empty-key": (PurgeOrder(keys=("",)), "keys[0]", "surrogate key"),
    "key-with-space": (PurgeOrder(keys=("a", "b c")), "keys[1]", "surrogate key"),
    "host-with-path": (PurgeOrder(hosts=("www.example.com/a",)), "hosts[0]", "host"),
    "prefix-with-query": (PurgeOrder(prefixes=("www.example.com/a?b",)), "prefixes[0]", "query"),
    "prefix-too-deep": (PurgeOrder(prefixes=("www.example.com" + "/a" * 33,)), "prefixes[0]", "at most 32"),
    "unknown-site": (PurgeOrder(keys=("a",), site="nobody"), "site", "no site"),
}


@pytest.mark.parametrize(("order", "path", "words"), WRONG.values(), ids=WRONG.keys())
def test_an_order_that_cannot_be_carried_out_names_what_is_wrong(order, path, words):
    with pytest.raises(PurgeError, match=words) as caught:
        order_tags(order, sites=SITES.names(), cache_keys=SITES.cache_keys)
    assert caught.value.path == path


def test_too_many_targets():
    with pytest.raises(PurgeError) as caught:
        order_tags(PurgeOrder(keys=("k",) * (MAX_TARGETS + 1)), sites=SITES.names(), cache_keys=SITES.cache_keys)
    assert caught.value.status == 413
