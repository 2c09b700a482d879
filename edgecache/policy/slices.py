"""Large representations cut into slices: what to ask the origin for, and what its answers may be used as. Pure.

A slice is an aligned run of octets of one version of a representation. That versions never mix is a matter of strong
validators (RFC 9110 §8.8.1): the key of the slices is made of one, a slice is asked for under it (If-Range), and what
comes is compared with it. Where there is none, a representation is stored whole or not at all.
"""

import hashlib
from dataclasses import dataclass, replace

from edgecache.http.fields import parse_digits
from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.http.stored import Held, Sliced, StoredFlag, StoredResponse
from edgecache.policy import conditional, ranges, storing, validation
from edgecache.policy.ranges import Span
from edgecache.policy.site import SitePolicy
from edgecache.policy.storing import Answer

KEY_SIZE = 16


# --- one representation ---


def validator(stored: StoredResponse) -> str | None:
    """What goes into If-Range (RFC 9110 §13.1.5): a strong entity-tag; a date only where there is no tag, and where it
    is a strong validator (§8.8.2.2)."""
    headers = stored.response.headers
    if "etag" in headers:
        tag = validation.strong_tag(headers)
        return None if tag is None else str(tag)
    if conditional.strong_date(headers, stored.response_time) is None:
        return None
    return headers.get("last-modified")


def manifest(stored: StoredResponse, total: int, *, cache_key: str, slice_bytes: int, unique: bytes) -> StoredResponse:
    """The record of a 200 whose `total` octets lie in slices. `unique`: of this fill; its slices are for nobody else
    where nothing says which version they are of.

    An origin that refuses ranges (Accept-Ranges: none) has nothing to fetch a single slice from (§14.3).
    """
    text = validator(stored)
    refused = "none" in (line.strip().lower() for line in stored.response.headers.get_all("accept-ranges"))
    validated = text is not None and not refused
    key = _key(cache_key, stored, total, slice_bytes, str(text).encode("latin-1") if validated else unique)
    return with_slices(stored, total, Sliced(key, slice_bytes, validated))


def with_slices(stored: StoredResponse, total: int, sliced: Sliced) -> StoredResponse:
    """The record of a response whose octets lie in these slices."""
    fields = stored.response.headers
    if fields.get_all("content-length") != [str(total)]:
        fields = fields.without({"content-length"}).plus((("Content-Length", str(total)),))
    return replace(
        stored,
        response=stored.response.with_headers(fields),
        flags=stored.flags | StoredFlag.SLICED,
        body_size=total,
        sliced=sliced,
    )


def _key(cache_key: str, stored: StoredResponse, total: int, size: int, version: bytes) -> bytes:
    parts = [cache_key.encode("latin-1"), b"%d %d" % (total, size), version]
    for name, value in stored.selecting:
        parts += [name.encode("latin-1"), b"-" if value is None else b"+" + value.encode("latin-1")]
    digest = hashlib.blake2b(digest_size=KEY_SIZE, person=b"edgecache slices")
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.digest()


def slice_key(sliced: Sliced, index: int) -> bytes:
    """The key of one slice, the same after every boot."""
    text = sliced.key + index.to_bytes(8, "big")
    return hashlib.blake2b(text, digest_size=KEY_SIZE, person=b"edgecache slice").digest()


def count(sliced: Sliced, total: int) -> int:
    """How many slices there are."""
    return -(-total // sliced.size)


def extent(sliced: Sliced, total: int, index: int) -> tuple[int, int]:
    """First and last octet of a slice."""
    first = index * sliced.size
    return first, min(first + sliced.size, total) - 1


# --- nothing is stored, and a range is wanted ---


def first_asked(request: Request, site: SitePolicy) -> Span | None:
    """The slice to ask for first: where the one range of the request begins; None where slices do not help.

    Where the end of a representation is wanted nobody knows yet where that is: its first slice says it.
    """
    if not site.slice_bytes or request.method != "GET" or "authorization" in request.headers:
        return None
    spans = ranges.parse_range(request.headers, site.max_ranges)
    if len(spans) != 1:
        return None
    first = (spans[0].first or 0) // site.slice_bytes * site.slice_bytes
    return Span(first, first + site.slice_bytes - 1)


@dataclass(frozen=True, slots=True)
class Begin:
    """A first slice has arrived, and with it all that is known of the whole."""

    stored: StoredResponse
    """The manifest."""
    response: Response
    """The head as a 200 would have had it."""
    held: Held
    """The octets that come."""


@dataclass(frozen=True, slots=True)
class Small:
    """The slice is the whole representation: it is stored as the 200 that was not asked for."""

    stored: StoredResponse
    response: Response


@dataclass(frozen=True, slots=True)
class Unsliceable:
    """Not to be stored, or not in slices: the request is to be sent as the client has made it."""

    seconds: float
    """How long to remember it."""


def arrived(answer: Answer, asked: Span, *, cache_key: str) -> Begin | Small | Unsliceable:
    """A 206 to a request for the slice `asked`, which the client has not asked for in these words."""
    site = answer.site
    refuse = Unsliceable(site.hit_for_pass_s)
    held = ranges.parse_content_range(answer.response.headers)
    if held is None or held.complete is None or held.first != asked.first or asked.last is None:
        return refuse
    if held.last > asked.last or not _length_fits(answer.response.headers, held):
        return refuse
    total = held.complete
    fields = answer.response.headers.without({"content-range", "content-length"})
    whole = Response(200, "OK", fields.plus((("Content-Length", str(total)),)), answer.response.version)
    stored = storing.record(replace(answer, response=whole))
    if not isinstance(stored, StoredResponse):
        return refuse
    if held.first == 0 and held.last == total - 1 and total <= site.max_object_bytes:
        return Small(stored, whole)
    made = manifest(stored, total, cache_key=cache_key, slice_bytes=site.slice_bytes, unique=b"")
    if made.sliced is None or not made.sliced.validated:
        return refuse
    return Begin(made, whole, held)


def _length_fits(headers: Headers, held: Held) -> bool:
    """A Content-Length that says something else than Content-Range: nobody knows what comes."""
    lines = headers.get_all("content-length")
    return not lines or (len(lines) == 1 and parse_digits(lines[0]) == held.last - held.first + 1)


# --- a manifest is stored, and octets are missing ---


def question(headers: Headers, stored: StoredResponse, first: int, last: int) -> Headers:
    """The fields that ask for octets of the stored version, and of no other (RFC 9110 §14.2, §13.1.5)."""
    lines = [("Range", f"bytes={first}-{last}")]
    if (text := validator(stored)) is not None:
        lines.append(("If-Range", text))
    return validation.unconditional(headers).plus(lines)


@dataclass(frozen=True, slots=True)
class Part:
    """The octets from the first one asked for on, maybe fewer than asked for."""

    last: int


@dataclass(frozen=True, slots=True)
class FromStart:
    """All of the same version: the origin takes no ranges."""


@dataclass(frozen=True, slots=True)
class Changed:
    """There is another version now, or none: what is stored is of no use any more."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An error, which says nothing of what is stored."""

    status: int
    again: bool
    """Is it worth asking once more?"""


_GONE = frozenset({404, 410, 412, 416})
"""There is nothing at this place, or not so much of it: 416 to octets that the stored version has (§15.5.17)."""
_PASSING = frozenset({429, 500, 502, 503, 504})


def judge(stored: StoredResponse, response: Response, first: int, last: int) -> Part | FromStart | Changed | Refused:
    """What the answer to `question` is."""
    match response.status:
        case 206:
            held = ranges.parse_content_range(response.headers)
            if held is None or held.first != first or held.last > last or not _length_fits(response.headers, held):
                return Refused(502, again=False)
            same = _same_version(stored, response.headers, conditioned=True)
            return Part(held.last) if same and held.complete in (None, stored.body_size) else Changed()
        case 200:
            lengths = response.headers.get_all("content-length")
            same = _same_version(stored, response.headers, conditioned=False)
            return FromStart() if same and lengths in ([], [str(stored.body_size)]) else Changed()
        case status if status in _GONE:
            return Changed()
        case status:
            return Refused(status if status >= 400 else 502, again=status in _PASSING)


def _same_version(stored: StoredResponse, headers: Headers, *, conditioned: bool) -> bool:
    """Is this answer of the stored version (RFC 9110 §15.3.7.3)?

    A tag must be there and be the same. A date may be missing in a 206 to If-Range, which says by itself that it held
    (§15.3.7); in a 200 it must be there. Another coding is another representation.
    """
    mine = stored.response.headers
    if headers.get_all("content-encoding") not in ([], mine.get_all("content-encoding")):
        return False
    if not conditioned and headers.get_all("content-encoding") != mine.get_all("content-encoding"):
        return False
    tag = validation.strong_tag(mine)
    if tag is not None:
        theirs = validation.strong_tag(headers)
        return theirs is not None and tag.strongly_equals(theirs)
    dates = headers.get_all("last-modified")
    return dates == mine.get_all("last-modified") or (conditioned and not dates)
