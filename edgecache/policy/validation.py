"""Asking the origin whether a stored response is still good, and taking over its answer (RFC 9111 §4.3)."""

import re

from edgecache.http.fields import EntityTag, parse_entity_tag, split_lines
from edgecache.http.headers import Headers
from edgecache.http.message import Response
from edgecache.http.stored import StoredResponse
from edgecache.policy.conditional import CONDITIONS, entity_tag

_BARE_TAG = re.compile(r"[\x21\x23-\x29\x2b\x2d-\x7e\x80-\xff]+")
_NOT_SENT = CONDITIONS | {"range"}

HOP_BY_HOP = frozenset(
    {
        # RFC 9110 §7.6.1, and what RFC 9111 §3.1 names beside it
        *("connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"),
        # meant for this hop alone: RFC 9110 §11.7
        *("proxy-authenticate", "proxy-authentication-info", "proxy-authorization"),
    }
)
"""Fields that are not stored and not passed on."""

_NOT_KEPT = HOP_BY_HOP | {"age"}

DESCRIBES_STORED_OCTETS = frozenset(
    {
        "content-encoding",
        "content-length",
        "content-range",
        "content-md5",
        "content-digest",
        "repr-digest",
        "digest",
        "etag",
        "transfer-encoding",
    }
)
"""Fields that a 304 does not change: they are about the body we have (RFC 9111 §3.2)."""


def unconditional(headers: Headers) -> Headers:
    """The client's fields less its conditions and Range."""
    return headers.without(_NOT_SENT)


def conditional(headers: Headers, stored: StoredResponse) -> Headers:
    """The fields to send for validating `stored` (§4.3.1): its validators in place of the client's conditions."""
    head = stored.response.headers
    lines: list[tuple[str, str]] = []
    if (tag := _tag_text(head)) is not None:
        lines.append(("If-None-Match", tag))
    if (date := _date_text(head)) is not None:
        lines.append(("If-Modified-Since", date))
    return unconditional(headers).plus(lines)


def has_validator(headers: Headers) -> bool:
    return _tag_text(headers) is not None or _date_text(headers) is not None


def _tag_text(headers: Headers) -> str | None:
    """ETag as it came. One without its quotes is handed back so too, since its origin may well know it again; but
    nothing that would mean more than one tag ("*", a comma)."""
    lines = headers.get_all("etag")
    if len(lines) != 1:
        return None
    return lines[0] if _BARE_TAG.fullmatch(lines[0]) or parse_entity_tag(lines[0]) is not None else None


def _date_text(headers: Headers) -> str | None:
    """Last-Modified as it came, which is what an origin compares with (RFC 9110 §13.1.3)."""
    lines = headers.get_all("last-modified")
    return lines[0] if len(lines) == 1 else None


def confirms(stored: StoredResponse, response: Response) -> bool:
    """Does this 304 speak of what is stored (§4.3.4)?

    We ask about one stored response at a time. With its entity-tag in If-None-Match, a 304 can only mean it. With
    Last-Modified alone, a 304 that shows another date or brings a tag of its own means another representation.
    """
    mine, theirs = stored.response.headers, response.headers
    if _tag_text(mine) is not None:
        return True
    if _date_text(mine) is None or theirs.get_all("etag") not in ([], mine.get_all("etag")):
        return False
    dates = theirs.get_all("last-modified")
    return not dates or dates == mine.get_all("last-modified")


def describes_same(stored: StoredResponse, response: Response) -> bool:
    """Is what a HEAD was answered with the head of what is stored (§4.3.5)?

    The validators it has, and Content-Length where it has one, must be the same.
    """
    mine, theirs = stored.response.headers, response.headers
    if response.status != stored.response.status or stored.held is not None:
        return False
    for name in ("etag", "last-modified"):
        if name in theirs and theirs.get_all(name) != mine.get_all(name):
            return False
    lengths = theirs.get_all("content-length")
    return not lengths or lengths == [str(stored.body_size)]


def freshened(stored: Headers, update: Headers) -> Headers:
    """The stored fields with those of the 304 (or of the answer to HEAD) in their place (§3.2, §4.3.4)."""
    update = update.without(DESCRIBES_STORED_OCTETS)
    replaced = {name.lower() for name, _ in update}
    return stored.without(replaced).plus(update)


def storable_fields(headers: Headers) -> Headers:
    """What of a response head is kept (§3.1): no hop-by-hop fields, none that Connection names, no Age."""
    connection = headers.get_all("connection")
    return headers.without(_NOT_KEPT | list_names(connection) if connection else _NOT_KEPT)


def list_names(values: list[str]) -> frozenset[str]:
    """The field names of a list such as Connection, lower case."""
    return frozenset(name.lower() for name in split_lines(values))


def strong_tag(headers: Headers) -> EntityTag | None:
    tag = entity_tag(headers)
    return None if tag is None or tag.weak else tag
