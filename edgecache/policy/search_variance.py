"""No-Vary-Search: parts of the query that an origin says make no difference (draft-ietf-httpbis-no-vary-search).

A site option. The draft replaces one condition of RFC 9111 §4: the target URIs need only be equivalent modulo the
stored response's search variance. For a look-up by key that means: remember the variance last seen for a path, and
find the response under the simplified form of the request's URI.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from edgecache.http.headers import Headers
from edgecache.http.structured import InnerList, Item, Member, Token, parse_dictionary


@dataclass(frozen=True, slots=True)
class SearchVariance:
    """Which parameters tell two URIs apart (§4): all but `names`, or with `only` none but `names`."""

    names: frozenset[str] = frozenset()
    only: bool = False
    order: bool = True
    """Does the order of parameters with different names count?"""

    @property
    def default(self) -> bool:
        """URIs must be the same, as without the field."""
        return self == _DEFAULT

    def __str__(self) -> str:
        """The field value that means this: what is remembered of a path."""
        names = " ".join(f'"{quote(name, safe="")}"' for name in sorted(self.names))
        members = ["key-order"] * (not self.order)
        if self.only:
            members.append("params")
        if self.names:
            members.append(f"{'except' if self.only else 'params'}=({names})")
        return ", ".join(members)

    def simplified(self, uri: str) -> str:
        """One text for all URIs that are equivalent (§6); `uri` is a cache key, whose query this replaces."""
        if self.default:
            return uri
        path, _, query = uri.partition("?")
        pairs = [pair for pair in _pairs(query) if (pair[0] in self.names) is self.only]
        if not self.order:
            pairs.sort(key=lambda pair: pair[0])
        text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
        return f"{path}?{text}" if text else path


_DEFAULT = SearchVariance()


def search_variance(headers: Headers) -> SearchVariance:
    """§5.1: anything that is not understood means the default, which only costs hits; unknown keys are ignored."""
    members = parse_dictionary(headers.get("no-vary-search") or "") or {}
    order = _boolean(members, "key-order", absent=False)
    params = members.get("params")
    if order is None:
        return _DEFAULT
    if isinstance(params, InnerList):
        names = _names(params)
        bad = names is None or "except" in members
        return _DEFAULT if bad else SearchVariance(names or frozenset(), order=not order)
    wildcard = _boolean(members, "params", absent=False)
    if wildcard is None:
        return _DEFAULT
    if "except" not in members:
        return SearchVariance(only=wildcard, order=not order)
    kept = _names(members["except"]) if wildcard else None
    return _DEFAULT if kept is None else SearchVariance(kept, only=True, order=not order)


def parse_variance(value: str) -> SearchVariance:
    """The same, of one combined field value."""
    return search_variance(Headers([("No-Vary-Search", value)]))


def _boolean(members: Mapping[str, Member], name: str, *, absent: bool) -> bool | None:
    """None where there is something else under the name."""
    if name not in members:
        return absent
    member = members[name]
    value = member.value if isinstance(member, Item) else None
    return value if isinstance(value, bool) else None


def _names(member: Member) -> frozenset[str] | None:
    """An Inner List of Strings, each decoded as a parameter's name is (§5.2)."""
    if not isinstance(member, InnerList):
        return None
    names = [item.value for item in member.items]
    if any(not isinstance(name, str) or isinstance(name, Token) for name in names):
        return None
    return frozenset(_decoded(str(name)) for name in names)


def _pairs(query: str) -> list[tuple[str, str]]:
    """The query as application/x-www-form-urlencoded."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1", "replace")).decode("utf-8", "replace")
