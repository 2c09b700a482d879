"""Surrogate keys: the tags an origin gives a response so that it can be purged by them (DESIGN §7, RFC 9875)."""

from edgecache.http.headers import Headers
from edgecache.http.structured import Item, Token, parse_list

# Field -> how its keys are separated. Each is some product's habit; the keys of all of them count.
_BY_SPACE = ("surrogate-key",)
_BY_COMMA = ("cache-tag", "x-cache-tags", "x-magento-tags")
_BY_EITHER = ("xkey", "cache-tags")
_CASELESS = "cache-tag"
_GROUPS = "cache-groups"
_GROUP_INVALIDATION = "cache-group-invalidation"

FIELDS = frozenset({*_BY_SPACE, *_BY_COMMA, *_BY_EITHER, _GROUPS})

_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def keys(headers: Headers, max_bytes: int) -> tuple[str, ...] | None:
    """Each key once, in order; None where they take more than `max_bytes` together.

    Fastly's Surrogate-Key separates keys with white space; Cloudflare's Cache-Tag, X-Cache-Tags and Magento's
    X-Magento-Tags with commas; the xkey of Varnish and Drupal's Cache-Tags with either. Cache-Groups is a List of
    Strings, of no effect where it is malformed (RFC 9875 §2).

    Keys are compared octet for octet. Cloudflare's are compared without regard to the case of ASCII letters: what
    Cache-Tag names is a key in lower case too, and those who purge by Cloudflare's rules name it like that.
    """
    found: dict[str, None] = {}
    for name in _BY_SPACE:
        for line in headers.get_all(name):
            found.update(dict.fromkeys(line.split()))
    for name in _BY_COMMA:
        for line in headers.get_all(name):
            found.update(dict.fromkeys(key for part in line.split(",") if (key := part.strip())))
    for name in _BY_EITHER:
        for line in headers.get_all(name):
            found.update(dict.fromkeys(line.replace(",", " ").split()))
    found.update(dict.fromkeys(groups(headers)))
    if sum(map(len, found)) > max_bytes:
        return None
    for line in headers.get_all(_CASELESS):
        found.update(dict.fromkeys(key for part in line.translate(_LOWER).split(",") if (key := part.strip())))
    return tuple(found)


def groups(headers: Headers) -> tuple[str, ...]:
    """Cache-Groups (RFC 9875 §2)."""
    return _strings(headers, _GROUPS)


def invalidated_groups(headers: Headers) -> tuple[str, ...]:
    """Cache-Group-Invalidation (RFC 9875 §3): groups of this origin that an unsafe request has made invalid."""
    return _strings(headers, _GROUP_INVALIDATION)


def _strings(headers: Headers, name: str) -> tuple[str, ...]:
    members = parse_list(headers.get(name) or "") or []
    values = [member.value if isinstance(member, Item) else None for member in members]
    return tuple(value for value in values if isinstance(value, str) and not isinstance(value, Token))
