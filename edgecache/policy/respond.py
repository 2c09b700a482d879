"""The head of a response on its way to the client: from what is stored, or straight from the origin.

The connection's own fields, `Date` where it is missing, `Via` and the boundary of several parts are the edge's.
"""

from typing import assert_never

from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.http.stored import StoredResponse
from edgecache.policy import ranges, surrogate
from edgecache.policy.site import SitePolicy
from edgecache.policy.validation import HOP_BY_HOP, list_names
from edgecache.policy.verdicts import (
    Form,
    NotModified,
    Outgoing,
    PreconditionFailed,
    RangeNotSatisfiable,
    Ranges,
    Whole,
)

NOT_IN_304 = frozenset(
    {
        "content-encoding",
        "content-language",
        "content-length",
        "content-md5",
        "content-digest",
        "content-range",
        "content-type",
        "accept-ranges",
    }
)
"""Representation metadata that does not guide a cache's update (RFC 9110 §15.4.5), and what is about the content."""

_ABOUT_LENGTH = frozenset({"content-length", "content-range"})

NO_CONTENT = frozenset({204, 205, 304})


def respond(
    stored: StoredResponse, form: Form, request: Request, now: float, site: SitePolicy, cache_status: str
) -> Outgoing:
    """The head for a stored response in this form, with Age (RFC 9111 §4, §5.1) and our member of Cache-Status.

    Several parts: Content-Type is left out, for the edge to set with `ranges.multipart_type`; so is Content-Length.
    """
    head = stored.response
    match form:
        case Whole():
            pass  # Content-Length is in the record since it was completed
        case NotModified():
            head = Response(304, "Not Modified", _not_modified(head.headers))
        case Ranges(parts=((first, last) as part,), complete=complete):
            fields = head.headers.without({"content-length"} if _as_it_came(stored, part) else _ABOUT_LENGTH)
            if "content-range" not in fields:
                fields = fields.plus((("Content-Range", ranges.content_range(first, last, complete)),))
            fields = fields.plus((("Content-Length", str(last - first + 1)),))
            head = Response(206, "Partial Content", fields)
        case Ranges():
            fields = head.headers.without(_ABOUT_LENGTH | {"content-type"})
            head = Response(206, "Partial Content", fields)
        case RangeNotSatisfiable(complete=complete):
            fields = _bare(head.headers).plus((("Content-Range", f"bytes */{complete}"), ("Content-Length", "0")))
            head = Response(416, "Range Not Satisfiable", fields)
        case PreconditionFailed():
            fields = _bare(head.headers).plus((("Content-Length", "0"),))
            head = Response(412, "Precondition Failed", fields)
        case _:  # pragma: no cover - for the type checker: every form is above
            assert_never(form)
    if not isinstance(form, RangeNotSatisfiable | PreconditionFailed):
        age = max(0, int(now - stored.born_at))
        head = head.with_headers(head.headers.plus((("Age", str(age)),)))
    body = isinstance(form, Whole | Ranges) and request.method != "HEAD" and head.status not in NO_CONTENT
    return Outgoing(_dressed(head, site, cache_status), body)


def relay(response: Response, request: Request, site: SitePolicy, cache_status: str) -> Outgoing:
    """The head for what the origin sent, passed on as it came: fields the cache would not store included."""
    headers = response.headers
    if (connection := headers.get_all("connection")) and (named := list_names(connection)):
        headers = headers.without(named)
    ours = _NOT_RELAYED_WITH_KEYS if site.strip_surrogate_keys else _NOT_RELAYED
    body = request.method != "HEAD" and response.status >= 200 and response.status not in NO_CONTENT
    return Outgoing(response.with_headers(headers.without(ours, (("Cache-Status", cache_status),))), body)


def _as_it_came(stored: StoredResponse, part: tuple[int, int]) -> bool:
    """All of a stored part: then Content-Range is what the origin said it was."""
    return stored.held is not None and (stored.held.first, stored.held.last) == part


def _not_modified(headers: Headers) -> Headers:
    """Last-Modified goes too only where there is no ETag (RFC 9110 §15.4.5)."""
    return headers.without(NOT_IN_304 | {"last-modified"} if "etag" in headers else NOT_IN_304)


def _bare(headers: Headers) -> Headers:
    """An error made of a stored response: nothing that describes its content or how to store it."""
    return headers.without(NOT_IN_304 | {"last-modified", "etag", "cache-control", "expires", "content-location"})


def _dressed(response: Response, site: SitePolicy, cache_status: str) -> Response:
    """Surrogate-Control is for us alone; our Cache-Status comes after those nearer the origin (RFC 9211 §2)."""
    return response.with_headers(response.headers.without(hidden(site), (("Cache-Status", cache_status),)))


def hidden(site: SitePolicy) -> frozenset[str]:
    """Fields that are kept with a response but not shown to clients; lower case."""
    return _HIDDEN_WITH_KEYS if site.strip_surrogate_keys else _HIDDEN


_HIDDEN = frozenset({"surrogate-control"})
_HIDDEN_WITH_KEYS = _HIDDEN | surrogate.FIELDS
_NOT_RELAYED = _HIDDEN | HOP_BY_HOP
_NOT_RELAYED_WITH_KEYS = _HIDDEN_WITH_KEYS | HOP_BY_HOP
