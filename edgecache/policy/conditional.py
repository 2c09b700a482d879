"""Conditional requests answered from what is stored (RFC 9110 §13, RFC 9111 §4.3.2)."""

from enum import Enum

from edgecache.http.dates import parse_date
from edgecache.http.fields import EntityTag, parse_entity_tag, parse_entity_tags
from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.policy.freshness import date_of, last_modified

CONDITIONS = frozenset({"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"})
"""RFC 9110 §13.1: what a request carries to compare with the selected representation."""

_STRONG_DATE_S = 60.0  # RFC 9110 §8.8.2.2: Date so much later than Last-Modified makes it a strong validator


class Outcome(Enum):
    """What the preconditions come to (RFC 9110 §13.2.2)."""

    PROCEED = "proceed"
    NOT_MODIFIED = "304"
    FAILED = "412"


def evaluate(request: Request, response: Response, response_time: float) -> Outcome:
    """The preconditions in order of precedence, against a stored response that could answer with 200.

    If-Range is not one of them: see `ranges`. Where the response is not a success, no condition applies (§13.2.1).
    """
    if not 200 <= response.status < 300:
        return Outcome.PROCEED
    headers = request.headers
    # Steps 1 and 2.
    if "if-match" in headers:
        if not _if_match(headers, response):
            return Outcome.FAILED
    elif "if-unmodified-since" in headers and not _unmodified(headers, response, response_time):
        return Outcome.FAILED
    if request.method not in ("GET", "HEAD"):
        return Outcome.PROCEED
    # Steps 3 and 4: If-None-Match, where it is there, is the only one that counts.
    if "if-none-match" in headers:
        return Outcome.PROCEED if _if_none_match(headers, response) else Outcome.NOT_MODIFIED
    if "if-modified-since" in headers and not _modified(headers, response, response_time):
        return Outcome.NOT_MODIFIED
    return Outcome.PROCEED


def entity_tag(headers: Headers) -> EntityTag | None:
    """ETag (RFC 9110 §8.8.3); None where it is missing, malformed or there are several."""
    lines = headers.get_all("etag")
    return parse_entity_tag(lines[0]) if len(lines) == 1 else None


def _if_match(headers: Headers, response: Response) -> bool:
    """§13.1.1: strong comparison; "*" is true of any stored representation."""
    value = headers.get("if-match") or ""
    if value.strip() == "*":
        return True
    mine = entity_tag(response.headers)
    return mine is not None and any(mine.strongly_equals(tag) for tag in parse_entity_tags(value))


def _if_none_match(headers: Headers, response: Response) -> bool:
    """§13.1.2: weak comparison; "*" is false of any stored representation."""
    value = headers.get("if-none-match") or ""
    if value.strip() == "*":
        return False
    mine = entity_tag(response.headers)
    return mine is None or not any(mine.weakly_equals(tag) for tag in parse_entity_tags(value))


def _modified(headers: Headers, response: Response, response_time: float) -> bool:
    """§13.1.3: a date that is malformed or given twice is ignored. Without Last-Modified, Date (RFC 9111 §4.3.2)."""
    since = _date(headers, "if-modified-since", response_time)
    if since is None:
        return True
    modified = last_modified(response.headers, response_time)
    return (date_of(response.headers, response_time) if modified is None else modified) > since


def _unmodified(headers: Headers, response: Response, response_time: float) -> bool:
    """§13.1.4, and the same for a date that is malformed; false where nothing says when it was modified."""
    since = _date(headers, "if-unmodified-since", response_time)
    if since is None:
        return True
    modified = last_modified(response.headers, response_time)
    return modified is not None and modified <= since


def _date(headers: Headers, name: str, now: float) -> int | None:
    lines = headers.get_all(name)
    return parse_date(lines[0], now) if len(lines) == 1 else None


def if_range(request: Request, response: Response, response_time: float) -> bool:
    """Does If-Range let Range count (§13.1.5)? True where there is none."""
    lines = request.headers.get_all("if-range")
    if not lines:
        return True
    if len(lines) > 1:
        return False
    tag = parse_entity_tag(lines[0])
    if tag is not None:
        mine = entity_tag(response.headers)
        return mine is not None and mine.strongly_equals(tag)
    moment = parse_date(lines[0], response_time)
    return moment is not None and moment == strong_date(response.headers, response_time)


def strong_date(headers: Headers, response_time: float) -> int | None:
    """Last-Modified where it is a strong validator: well before the Date of the response (§8.8.2.2)."""
    modified = last_modified(headers, response_time)
    if modified is None or "date" not in headers or date_of(headers, response_time) - modified < _STRONG_DATE_S:
        return None
    return modified
