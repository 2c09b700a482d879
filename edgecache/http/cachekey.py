"""URIs: the cache key of a request, and the references of Location and Content-Location (RFC 3986, RFC 9110 §4).

The edge forwards a target octet for octet, so two targets may share a key only where RFC 3986 itself calls them
equivalent and no origin that follows it can tell them apart:

- done: lower-case scheme and host, default port left out (§6.2.3), upper-case hex digits in %XX (§6.2.2.1), %XX of
  an unreserved character decoded (§6.2.2.2), the empty path written "/" (§6.2.3);
- not done: dot segments (§6.2.2.3). Clients resolve them before they send (RFC 9110 §4.2.3), so a target that still
  has them is somebody's probe, and an origin may well resolve them otherwise than we would. Also not done: anything
  about "//", "+", an empty query, the order of parameters, a dot at the end of the host.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


class QueryMode(StrEnum):
    """What of the query is in the cache key (beyond what RFC 3986 calls equivalent)."""

    ALL = "all"
    DROP = "drop"
    """All parameters but those whose names match `names`."""
    KEEP = "keep"
    """Only the parameters whose names match `names`."""


@dataclass(frozen=True, slots=True)
class QueryRecipe:
    mode: QueryMode = QueryMode.ALL
    names: tuple[str, ...] = ()
    """Exact names, or prefixes written with a trailing "*"."""
    sort: bool = False
    """Order parameters by name (stable for repeated ones)."""


_DEFAULT_PORTS = {"http": "80", "https": "443"}
_ESCAPED = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.vV]+\]|[^:\[\]@/?#\s]+)(?::(?P<port>[0-9]*))?")
_REFERENCE = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL)
_ALL = QueryRecipe()
_REMEMBERED = 261
"""Octets of the longest authority that is remembered: a name (RFC 1035 §2.3.4), a colon and a port."""


@dataclass(frozen=True, slots=True)
class Uri:
    """An absolute http or https URI in normal form, less its fragment."""

    scheme: str
    authority: str
    target: str
    """Path and query."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def same_origin(self, other: "Uri") -> bool:
        """RFC 9110 §4.3.1: the same scheme, host and port."""
        return self.scheme == other.scheme and self.authority == other.authority


def cache_key(scheme: str, authority: str, target: str, recipe: QueryRecipe = _ALL) -> str:
    """The primary cache key (RFC 9111 §2), a text that is the same for equivalent URIs: "http://host/path?query"."""
    path, mark, query = _normal(target).partition("?")
    if mark and (recipe.sort or recipe.mode is not QueryMode.ALL):
        query = _cook(query, recipe)
        mark = "?" if query else ""
    return f"{scheme.lower()}://{normal_authority(scheme, authority)}{path or '/'}{mark}{query}"


def normal_authority(scheme: str, authority: str) -> str:
    """Lower-case host, port unless it is the scheme's default (RFC 3986 §6.2.2.1, §6.2.3)."""
    return (_known_authority if len(authority) <= _REMEMBERED else _normal_authority)(scheme, authority)


def _normal_authority(scheme: str, authority: str) -> str:
    host, port = split_authority(authority)
    port = port.lstrip("0")
    if not port or port == _DEFAULT_PORTS.get(scheme.lower()):
        return host
    return f"{host}:{port}"


_known_authority = lru_cache(maxsize=1024)(_normal_authority)
"""Every request names one, and there are few. What is longer than any name is worked out each time."""


def split_authority(authority: str) -> tuple[str, str]:
    """(host in lower case with its brackets, port or ""), of an authority that is valid already."""
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, ""
    return _normal(host).lower() if "%" in host else host.lower(), port


def _normal(text: str) -> str:
    return _ESCAPED.sub(_escape, text) if "%" in text else text


def _escape(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return char if char in _UNRESERVED else match[0].upper()


def _cook(query: str, recipe: QueryRecipe) -> str:
    parameters = query.split("&")
    if recipe.mode is not QueryMode.ALL:
        exact = frozenset(name for name in recipe.names if not name.endswith("*"))
        prefixes = tuple(name[:-1] for name in recipe.names if name.endswith("*"))
        keep = recipe.mode is QueryMode.KEEP
        parameters = [text for text in parameters if _matches(_name(text), exact, prefixes) is keep]
    if recipe.sort:
        parameters.sort(key=_name)
    return "&".join(parameters)


def _name(parameter: str) -> str:
    return parameter.partition("=")[0]


def _matches(name: str, exact: frozenset[str], prefixes: tuple[str, ...]) -> bool:
    return name in exact or name.startswith(prefixes)


# --- references (RFC 3986 §5) ---


def parse_uri(scheme: str, authority: str, target: str) -> Uri:
    """The target URI of a request (RFC 9110 §7.1)."""
    path, mark, query = _normal(target).partition("?")
    return Uri(scheme.lower(), normal_authority(scheme, authority), f"{path or '/'}{mark}{query}")


def resolve(base: Uri, reference: str) -> Uri | None:
    """The URI that `reference` means beside `base` (RFC 3986 §5.2), its fragment dropped.

    None where it is no http(s) URI or its authority is malformed.
    """
    match = _REFERENCE.fullmatch(reference)
    assert match is not None  # the pattern takes any text (RFC 3986 Appendix B)
    scheme, authority, path, query = match.groups()
    scheme = (scheme or base.scheme).lower()
    if scheme not in _DEFAULT_PORTS:
        return None
    if match[1] is not None and authority is None:
        return None  # "http:path": allowed by no scheme of ours
    base_path, base_mark, base_query = base.target.partition("?")
    if authority is None:
        authority = base.authority
        if not path:
            path = base_path
            query = base_query if query is None and base_mark else query
        elif not path.startswith("/"):
            path = base_path.rpartition("/")[0] + "/" + path
    elif _AUTHORITY.fullmatch(authority) is None:
        return None
    target = remove_dot_segments(path) or "/"
    return parse_uri(scheme, authority, target if query is None else f"{target}?{query}")


def remove_dot_segments(path: str) -> str:
    """RFC 3986 §5.2.4, for a path that begins with "/" or is empty."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
