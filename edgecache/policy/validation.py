"""Asking the origin whether a stored response is still good, and taking over its answer (RFC 9111 §4.3)."""

from edgecache.http.fields import EntityTag, split_lines
from edgecache.http.headers import Headers
from edgecache.http.message import Response
from edgecache.http.stored import StoredResponse
from edgecache.policy.conditional import CONDITIONS, entity_tag

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
    if (tags := head.get_all("etag")) and len(tags) == 1:
        lines.append(("If-None-Match", tags[0]))
    if (dates := head.get_all("last-modified")) and len(dates) == 1:
        lines.append(("If-Modified-Since", dates[0]))
    return unconditional(headers).plus(lines)


def has_validator(headers: Headers) -> bool:
    return len(headers.get_all("etag")) == 1 or len(headers.get_all("last-modified")) == 1


def confirms(stored: StoredResponse, response: Response) -> bool:
    """Does this 304 speak of what is stored (§4.3.4)?

    We ask about one stored response at a time. With its entity-tag in If-None-Match, a 304 can only mean it. With
    Last-Modified alone, a 304 that shows another date or brings a tag of its own means another representation.
    """
    mine, theirs = stored.response.headers, response.headers
    if len(mine.get_all("etag")) == 1:
        return True
    if len(mine.get_all("last-modified")) != 1 or "etag" in theirs:
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
    named = {name.lower() for name in split_lines(headers.get_all("connection"))}
    return headers.without(HOP_BY_HOP | named | {"age"})


def strong_tag(headers: Headers) -> EntityTag | None:
    tag = entity_tag(headers)
    return None if tag is None or tag.weak else tag
