"""Surrogate keys: the tags an origin gives a response so that it can be purged by them (DESIGN §7, RFC 9875)."""

from edgecache.http.headers import Headers
from edgecache.http.structured import Item, Token, parse_list

# Field -> how its keys are separated. Each is some product's habit; the keys of all of them count.
_BY_SPACE = ("surrogate-key", "xkey")
_BY_COMMA = ("cache-tag", "x-cache-tags")
_GROUPS = "cache-groups"
_GROUP_INVALIDATION = "cache-group-invalidation"

FIELDS = frozenset({*_BY_SPACE, *_BY_COMMA, _GROUPS})


def keys(headers: Headers, max_bytes: int) -> tuple[str, ...] | None:
    """Each key once, in order; None where they take more than `max_bytes` together.

    xkey and Surrogate-Key separate keys with white space, Cache-Tag and X-Cache-Tags with commas; Cache-Groups is a
    List of Strings, of no effect where it is malformed (RFC 9875 §2).
    """
    found: dict[str, None] = {}
    for name in _BY_SPACE:
        for line in headers.get_all(name):
            found.update(dict.fromkeys(line.split()))
    for name in _BY_COMMA:
        for line in headers.get_all(name):
            found.update(dict.fromkeys(key for part in line.split(",") if (key := part.strip())))
    found.update(dict.fromkeys(groups(headers)))
    return tuple(found) if sum(len(key) for key in found) <= max_bytes else None


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
