"""Cache keys and references: what RFC 3986 calls the same is the same, and nothing else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.http.cachekey import (
    QueryMode,
    QueryRecipe,
    Uri,
    cache_key,
    normal_authority,
    parse_uri,
    remove_dot_segments,
    resolve,
)

ALL = QueryRecipe()


@pytest.mark.parametrize(
    ("scheme", "authority", "target", "key"),
    [
        pytest.param("http", "Example.COM", "/a?b", "http://example.com/a?b", id="host-case"),
        pytest.param("HTTP", "e", "/", "http://e/", id="scheme-case"),
        pytest.param("http", "e:80", "/", "http://e/", id="default-port"),
        pytest.param("https", "e:443", "/", "https://e/", id="default-port-tls"),
        pytest.param("http", "e:", "/", "http://e/", id="empty-port"),
        pytest.param("http", "e:0080", "/", "http://e/", id="leading-zeros"),
        pytest.param("http", "e:443", "/", "http://e:443/", id="another-port"),
        pytest.param("http", "[2001:DB8::1]", "/", "http://[2001:db8::1]/", id="ipv6"),
        pytest.param("http", "[2001:DB8::1]:8080", "/", "http://[2001:db8::1]:8080/", id="ipv6-port"),
        pytest.param("http", "E" * 300 + ":80", "/", f"http://{'e' * 300}/", id="longer-than-a-name"),
        pytest.param("http", "%65xa%4Dple.com:81", "/", "http://example.com:81/", id="escaped-host"),
        pytest.param("http", "e", "", "http://e/", id="empty-path"),
        pytest.param("http", "e", "?q", "http://e/?q", id="empty-path-query"),
        pytest.param("http", "e", "/%7euser/%2fx%C3%bc", "http://e/~user/%2Fx%C3%BC", id="escapes"),
        pytest.param("http", "e", "/a?x=%41%26&y=%3d", "http://e/a?x=A%26&y=%3D", id="escapes-in-query"),
        pytest.param("http", "e", "/%", "http://e/%", id="broken-escape-stays"),
        pytest.param("http", "e", "/%zz%4", "http://e/%zz%4", id="broken-escapes-stay"),
        pytest.param("http", "e", "/%2541", "http://e/%2541", id="decoded-once"),
        pytest.param("http", "e", "/a/../b/./c//d", "http://e/a/../b/./c//d", id="dot-segments-stay"),
        pytest.param("http", "e", "/a?", "http://e/a?", id="empty-query-stays"),
        pytest.param("http", "e", "/a?b?c", "http://e/a?b?c", id="question-mark-in-query"),
        pytest.param("http", "e", "/a?b&a", "http://e/a?b&a", id="order-stays"),
        pytest.param("http", "e.", "/", "http://e./", id="dot-at-the-end-of-the-host-stays"),
        pytest.param("http", "e", "*", "http://e*", id="asterisk"),
    ],
)
def test_key(scheme: str, authority: str, target: str, key: str) -> None:
    assert cache_key(scheme, authority, target, ALL) == key


@pytest.mark.parametrize(
    ("recipe", "query", "kept"),
    [
        pytest.param(
            QueryRecipe(QueryMode.DROP, ("utm_*", "fbclid")), "?utm_source=x&a=1&fbclid=y&b", "?a=1&b", id="drop"
        ),
        pytest.param(QueryRecipe(QueryMode.DROP, ("utm_*",)), "?utm_a=1&utm_b=2", "", id="drop-all-takes-the-mark"),
        pytest.param(QueryRecipe(QueryMode.DROP, ("*",)), "?a&b", "", id="drop-everything"),
        pytest.param(QueryRecipe(QueryMode.DROP, ("a",)), "?ab=1&a=2&A=3", "?ab=1&A=3", id="whole-names-by-case"),
        pytest.param(QueryRecipe(QueryMode.KEEP, ("id", "p*")), "?x=1&id=2&page=3", "?id=2&page=3", id="keep"),
        pytest.param(QueryRecipe(QueryMode.KEEP, ()), "?x=1", "", id="keep-none"),
        pytest.param(QueryRecipe(sort=True), "?b=2&a=1&b=1&a", "?a=1&a&b=2&b=1", id="sort-keeps-order-of-repeated"),
        pytest.param(QueryRecipe(QueryMode.DROP, ("~",)), "?%7e=1&a=2", "?a=2", id="names-in-normal-form"),
        pytest.param(QueryRecipe(QueryMode.KEEP, ("a",), sort=True), "?b&a=2&a=1", "?a=2&a=1", id="keep-and-sort"),
        pytest.param(QueryRecipe(sort=True), "", "", id="no-query"),
        pytest.param(QueryRecipe(sort=True), "?", "", id="empty-query"),
    ],
)
def test_recipe(recipe: QueryRecipe, query: str, kept: str) -> None:
    assert cache_key("http", "e", "/p" + query, recipe) == "http://e/p" + kept


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="%"), max_size=30))
def test_a_target_without_escapes_is_in_normal_form(target: str) -> None:
    assert cache_key("http", "e", "/" + target, ALL) == "http://e/" + target


@given(st.text(alphabet="ab%1&=?/~", max_size=20))
def test_escaping_what_is_unreserved_changes_nothing(target: str) -> None:
    escaped = "/" + "".join(f"%{ord(char):02x}" if char in "ab~" else char for char in target.replace("%", ""))
    assert cache_key("http", "e", escaped, ALL) == cache_key("http", "e", "/" + target.replace("%", ""), ALL)


# RFC 3986 §5.4, its examples, with an http base
@pytest.mark.parametrize(
    ("reference", "target"),
    [
        *(
            ("g", "/b/c/g"),
            ("./g", "/b/c/g"),
            ("g/", "/b/c/g/"),
            ("/g", "/g"),
            ("?y", "/b/c/d;p?y"),
            ("g?y", "/b/c/g?y"),
        ),
        *(("#s", "/b/c/d;p?q"), ("g#s", "/b/c/g"), ("g?y#s", "/b/c/g?y"), (";x", "/b/c/;x"), ("g;x", "/b/c/g;x")),
        *(("", "/b/c/d;p?q"), (".", "/b/c/"), ("./", "/b/c/"), ("..", "/b/"), ("../", "/b/"), ("../g", "/b/g")),
        *(("../..", "/"), ("../../", "/"), ("../../g", "/g"), ("../../../g", "/g"), ("/./g", "/g"), ("/../g", "/g")),
        *(("g.", "/b/c/g."), (".g", "/b/c/.g"), ("..g", "/b/c/..g"), ("./../g", "/b/g"), ("./g/.", "/b/c/g/")),
        *(("g/./h", "/b/c/g/h"), ("g/../h", "/b/c/h"), ("g;x=1/../y", "/b/c/y"), ("g?y/../x", "/b/c/g?y/../x")),
    ],
)
def test_resolve_path(reference: str, target: str) -> None:
    assert resolve(Uri("http", "a", "/b/c/d;p?q"), reference) == Uri("http", "a", target)


@pytest.mark.parametrize(
    ("reference", "uri"),
    [
        ("//G:80/x", "http://g/x"),
        ("//g", "http://g/"),
        ("https://G:443?y", "https://g/?y"),
        ("HTTP://g/%7e", "http://g/~"),
        ("//[::1]:81/", "http://[::1]:81/"),
        ("http:g", None),
        ("mailto:a@b", None),
        ("ftp://g/", None),
        ("//", None),
        ("///x", None),
        ("//user@g/", None),
        ("//g:x/", None),
        ("//g h/", None),
        ("//[::1", None),
        ("1:2", "http://a/b/c/1:2"),
    ],
)
def test_resolve_authority(reference: str, uri: str | None) -> None:
    resolved = resolve(Uri("http", "a", "/b/c/d;p?q"), reference)
    assert (None if resolved is None else str(resolved)) == uri


def test_resolve_beside_a_base_without_query() -> None:
    assert resolve(Uri("http", "a", "/b"), "") == Uri("http", "a", "/b")
    assert resolve(Uri("http", "a", "/b?"), "") == Uri("http", "a", "/b?")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://a:80/x", "http://A/y", True),
        ("http://a/", "https://a/", False),
        ("http://a/", "http://a:81/", False),
        ("http://a/", "http://b.a/", False),
    ],
)
def test_same_origin(one: str, other: str, same: bool) -> None:
    base = Uri("http", "base", "/")
    a, b = resolve(base, one), resolve(base, other)
    assert a is not None
    assert b is not None
    assert a.same_origin(b) is same


def test_parse_uri() -> None:
    assert str(parse_uri("HTTP", "E:80", "")) == "http://e/"
    assert str(parse_uri("http", "E:8", "/%41?%42")) == "http://e:8/A?B"


@given(st.lists(st.sampled_from(["", ".", "..", "a", "b.", "..."]), max_size=8))
def test_dot_segments_like_the_rfc(segments: list[str]) -> None:
    assert remove_dot_segments("/" + "/".join(segments)) == _by_the_letter("/" + "/".join(segments))


def _by_the_letter(path: str) -> str:
    """RFC 3986 §5.2.4, step by step."""
    output = ""
    while path:
        if path.startswith("../"):
            path = path[3:]
        elif path.startswith(("./", "/./")):
            path = path[2:]
        elif path == "/.":
            path = "/"
        elif path.startswith("/../"):
            path, output = path[3:], output.rpartition("/")[0]
        elif path == "/..":
            path, output = "/", output.rpartition("/")[0]
        elif path in (".", ".."):
            path = ""
        else:
            head, slash, tail = path[1:].partition("/")
            output, path = output + "/" + head, slash + tail
    return output


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=40))
def test_no_reader_raises(text: str) -> None:
    cache_key("http", text, text, QueryRecipe(QueryMode.DROP, ("a*",), sort=True))
    resolve(Uri("http", "a", "/b"), text)
    normal_authority("http", text)


@pytest.mark.parametrize("unit", ["%", "%41", "/..", "&a", "a=", "?", "#", ":", "//", "/."])
def test_linear(unit: str) -> None:
    began = time.process_time()
    text = "/" + unit * 20_000
    cache_key("http", "e", text, QueryRecipe(QueryMode.DROP, ("a*", "b"), sort=True))
    resolve(Uri("http", "a", text), text[1:])
    resolve(Uri("http", "a", "/"), text)
    assert time.process_time() - began < 1
