"""Tags: every purge is a tag purge (DESIGN §7). Pure.

An object's tags are its URL, its host, each path prefix at a segment boundary, its site, and the surrogate keys its
origin gave it. A tag is a 64-bit hash of a text that names its kind, the same on every node and after every boot.
URL, host and prefix tags leave out the scheme: who purges a page means it however it was reached.

    u <authority><path>?<query>     the URL as in the cache key
    h <host>                        without port
    p <authority><path prefix>      no trailing slash; only the root's is empty
    s <site>
    k <site> NUL <surrogate key>
"""

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from edgecache._native.arena import hash_tag
from edgecache.purge.message import PurgeError, PurgeOrder
from edgecache.purge.patterns import MAX_PATTERNS, check_pattern

MAX_TARGETS = 10_000
MAX_PREFIX_DEPTH = 32
"""Path segments that get a prefix tag of their own; deeper ones are covered by these."""

Normalise = Callable[[str, str], str]
"""(site-independent absolute URL parts) authority, target -> the cache key's text, with a scheme in front."""


def object_tags(
    *, cache_key: str, site: str, surrogate_keys: Iterable[str], also: Iterable[str] = ()
) -> tuple[int, ...]:
    """The tags of a response stored under `cache_key` ("scheme://authority/path?query").

    `also`: further key texts, purged by whose URL it is purged as well. The first tag is that of the URL.
    """
    location = cache_key.partition("://")[2]
    authority, slash, rest = location.partition("/")
    path = (slash + rest).partition("?")[0]
    texts = [f"u {location}", f"h {host_of(authority)}", f"s {site}"]
    texts.extend(f"u {key.partition('://')[2]}" for key in also)
    texts.extend(f"p {authority}{prefix}" for prefix in _prefixes(path))
    texts.extend(f"k {site}\0{key}" for key in surrogate_keys)
    return tuple(dict.fromkeys(hash_tag(text.encode("latin-1", "surrogateescape")) for text in texts))


def order_tags(
    order: PurgeOrder, *, sites: Iterable[str], cache_keys: Callable[[str], Iterable[str]]
) -> tuple[int, ...]:
    """The tags an order names. `cache_keys(url)` gives the key texts a URL may be stored under (one per recipe).

    Raises `PurgeError`, naming the part that is wrong.
    """
    check_order(order)
    known = tuple(sites)
    if order.site is not None and order.site not in known:
        raise PurgeError(f"no site is named {order.site!r}", path="site", status=404)
    named = known if order.site is None else (order.site,)
    texts: list[str] = []
    for url in order.urls:
        texts.extend(f"u {key.partition('://')[2]}" for key in cache_keys(url))
    texts.extend(f"k {site}\0{key}" for key in order.keys for site in named)
    texts.extend(f"k {site}\0{form}" for key in order.caseless for form in (key, ascii_lower(key)) for site in named)
    texts.extend(f"k {site}\0{group}" for group in order.groups for site in named)
    texts.extend(map(host_text, order.hosts))
    texts.extend(_prefix_text(prefix, cache_keys) for prefix in order.prefixes)
    if order.everything and order.site is not None:
        texts.append(f"s {order.site}")
    return tuple(dict.fromkeys(hash_tag(_octets(text)) for text in texts))


def check_order(order: PurgeOrder) -> None:
    """Raises `PurgeError` for what no edge could carry out, whatever its sites. What passes here fails in `order_tags`
    only where it names a site that edge does not know."""
    count = order.targets
    if count > MAX_TARGETS:
        raise PurgeError(f"{count} targets in one purge; at most {MAX_TARGETS}", status=413)
    if not count and not order.everything:
        raise PurgeError("nothing to purge: name urls, keys, hosts, prefixes, patterns or all")
    for i, url in enumerate(order.urls):
        _absolute(url, f"urls[{i}]")
    for i, key in enumerate(order.keys):
        if not key or any(ord(c) <= 32 or ord(c) == 127 for c in key) or not _encodable(key):
            raise PurgeError("a surrogate key is visible characters without spaces", path=f"keys[{i}]")
    for name, texts in (("groups", order.groups), ("caseless", order.caseless)):
        for i, text in enumerate(texts):
            if not text or not _encodable(text):
                raise PurgeError("a key is a text that is not empty", path=f"{name}[{i}]")
    for i, host in enumerate(order.hosts):
        if not host or any(c in host for c in "/?#@ ") or not host.isascii():
            raise PurgeError("a host is a name or an address, without scheme or path", path=f"hosts[{i}]")
    for i, prefix in enumerate(order.prefixes):
        _check_prefix(prefix, f"prefixes[{i}]")
    if len(order.patterns) > MAX_PATTERNS:
        raise PurgeError(f"{len(order.patterns)} patterns in one purge; at most {MAX_PATTERNS}", status=413)
    for i, pattern in enumerate(order.patterns):
        check_pattern(pattern, f"patterns[{i}]")
    if order.site is not None and not (order.site and _encodable(order.site)):
        raise PurgeError("a site's name is a text that is not empty", path="site")


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def ascii_lower(text: str) -> str:
    """Letters of ASCII only: the octets of others stay whole."""
    return text.translate(_LOWER)


def _encodable(text: str) -> bool:
    """Half a surrogate pair, which JSON can write, is in no text."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _octets(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")


def _absolute(url: str, path: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
        _ = parts.port
    except ValueError:
        valid = False
    if not valid or any(ord(c) <= 32 for c in url) or not _encodable(url):
        raise PurgeError("a URL is absolute, http or https, without user or spaces", path=path)


def _check_prefix(prefix: str, path: str) -> None:
    if "?" in prefix or "#" in prefix:
        raise PurgeError("a prefix is a host and a path, without query", path=path)
    url = _prefix_url(prefix)
    _absolute(url, path)
    if url.partition("://")[2].rstrip("/").count("/") > MAX_PREFIX_DEPTH:
        raise PurgeError(f"a prefix has at most {MAX_PREFIX_DEPTH} path segments", path=path)


def _prefix_url(prefix: str) -> str:
    return prefix if "://" in prefix else f"https://{prefix}"


def _prefix_text(prefix: str, cache_keys: Callable[[str], Iterable[str]]) -> str:
    location = next(iter(cache_keys(_prefix_url(prefix)))).partition("://")[2]
    authority, slash, rest = location.partition("/")
    return f"p {authority}{(slash + rest).rstrip('/')}"


def _prefixes(path: str) -> list[str]:
    """ "/a/b/c" -> ["", "/a", "/a/b", "/a/b/c"]: what a prefix purge may name to cover this path."""
    found = [""]
    at = 0
    while len(found) <= MAX_PREFIX_DEPTH:
        at = path.find("/", at + 1)
        if at < 0:
            break
        found.append(path[:at])
    whole = path.rstrip("/")
    if len(found) <= MAX_PREFIX_DEPTH and whole != found[-1]:
        found.append(whole)
    return found


def host_text(host: str) -> str:
    return f"h {host_of(host.lower())}"


def host_of(authority: str) -> str:
    """Without port."""
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0]
