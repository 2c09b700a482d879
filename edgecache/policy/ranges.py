"""Range requests (RFC 9110 §14) answered from whole and from partial stored responses, and parts put together.

Positions are octets of the representation, counted from 0, first and last inclusive. A request for ranges can be
ignored at will (§14.2), so what is malformed, of another unit or abusive is answered with the whole.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from edgecache.http.fields import parse_digits, split_list
from edgecache.http.headers import Headers
from edgecache.http.stored import Held

_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)", re.IGNORECASE)
_GAP = 80  # ranges nearer than this are sent as one: the part's head would cost as much (RFC 9110 §15.3.7.2)


@dataclass(frozen=True, slots=True)
class Span:
    """One range as asked for: from `first` to `last` (None: the end), or the last `suffix` octets."""

    first: int | None
    last: int | None
    suffix: int = 0

    def within(self, complete: int) -> tuple[int, int] | None:
        """Its octets in a representation of that length; None where it is not satisfiable (§14.1.2)."""
        if self.first is None:
            return (max(0, complete - self.suffix), complete - 1) if self.suffix and complete else None
        if self.first >= complete:
            return None
        return self.first, complete - 1 if self.last is None else min(self.last, complete - 1)

    def __str__(self) -> str:
        if self.first is None:
            return f"-{self.suffix}"
        return f"{self.first}-" if self.last is None else f"{self.first}-{self.last}"


class Unsatisfiable(Enum):
    """No range of the request lies in the representation: 416 (§15.5.17)."""

    UNSATISFIABLE = "416"


def parse_range(headers: Headers, max_ranges: int) -> tuple[Span, ...]:
    """The ranges asked for; () where there are none, or none that must be honoured."""
    lines = headers.get_all("range")
    if len(lines) != 1:
        return ()
    unit, equals, text = lines[0].partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return ()
    elements = split_list(text)
    if not 1 <= len(elements) <= max_ranges:
        return ()  # §14.2: many small ranges are an attack, or a client that wants the whole
    spans = [_span(element) for element in elements]
    return () if None in spans else tuple(span for span in spans if span is not None)


def _span(text: str) -> Span | None:
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    first, last = parse_digits(match[1]), parse_digits(match[2])
    if first is None:
        return None if last is None else Span(None, None, last)
    return None if last is not None and last < first else Span(first, last)


def select(spans: Iterable[Span], complete: int) -> tuple[tuple[int, int], ...] | Unsatisfiable:
    """The octets to send of a whole of that length: satisfiable ranges, in the order asked for; those that overlap
    or nearly touch are joined (§14.2, §15.3.7.2)."""
    wanted = [octets for span in spans if (octets := span.within(complete)) is not None]
    return tuple(_coalesced(wanted)) if wanted else Unsatisfiable.UNSATISFIABLE


def _coalesced(wanted: list[tuple[int, int]]) -> list[tuple[int, int]]:
    # In ascending order join what touches; then put each group where its first range was asked for.
    groups: list[tuple[int, int, int]] = []
    for (first, last), place in sorted(zip(wanted, range(len(wanted)), strict=True)):
        if groups and len(wanted) > 1 and first <= groups[-1][1] + _GAP:
            before = groups[-1]
            groups[-1] = (before[0], max(before[1], last), min(before[2], place))
        else:
            groups.append((first, last, place))
    return [(first, last) for first, last, _ in sorted(groups, key=lambda group: group[2])]


# --- partial content ---


def parse_content_range(headers: Headers) -> Held | None:
    """Content-Range of a 206 with one part (§14.4); None where it is missing, malformed or impossible."""
    lines = headers.get_all("content-range")
    match = _CONTENT_RANGE.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None:
        return None
    first, last, complete = parse_digits(match[1]), parse_digits(match[2]), parse_digits(match[3])
    if first is None or last is None or last < first or (complete is not None and last >= complete):
        return None
    return Held(first, last, complete)


def content_range(first: int, last: int, complete: int | None) -> str:
    return f"bytes {first}-{last}/{'*' if complete is None else complete}"


def select_held(spans: tuple[Span, ...], held: Held) -> tuple[int, int] | None:
    """The octets to send of a stored part, which must hold all of the one range asked for (RFC 9111 §3.3).

    With an unknown length only a range with both ends can be known to lie within.
    """
    if len(spans) != 1:
        return None
    span = spans[0]
    if held.complete is not None:
        octets = span.within(held.complete)
    elif span.first is None or span.last is None:
        octets = None
    else:
        octets = span.first, span.last
    if octets is None or octets[0] < held.first or octets[1] > held.last:
        return None
    return octets


def gap(spans: tuple[Span, ...], held: Held) -> Span | None:
    """The one range to ask for so that `held` and the answer together hold what is wanted (nothing: the whole).

    None where it takes more than one, or nothing of what is held would be of use.
    """
    if len(spans) > 1 or held.complete is None:
        return None
    octets = spans[0].within(held.complete) if spans else (0, held.complete - 1)
    if octets is None:
        return None
    first, last = octets
    if held.first <= first <= held.last + 1 and last > held.last:
        return Span(held.last + 1, None if last == held.complete - 1 else last)
    if held.first - 1 <= last <= held.last and first < held.first:
        return Span(first, held.first - 1)
    return None


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of octets of one of two stored bodies."""

    arrived: bool
    """Of the response that arrived, else of the one stored before."""
    offset: int
    size: int


def joined(before: Held, arrived: Held) -> tuple[Held, tuple[Piece, ...]] | None:
    """How two parts become one continuous part (RFC 9111 §3.4): what it holds, and which octets to take in order.

    None where they leave a gap between them or do not agree on the length. Where they overlap, what arrived is taken.
    """
    complete = arrived.complete if before.complete is None else before.complete
    if complete is not None and arrived.complete not in (None, complete):
        return None
    if before.last + 1 < arrived.first or arrived.last + 1 < before.first:
        return None
    pieces = (
        Piece(False, 0, arrived.first - before.first),
        Piece(True, 0, arrived.last - arrived.first + 1),
        Piece(False, arrived.last + 1 - before.first, before.last - arrived.last),
    )
    held = Held(min(before.first, arrived.first), max(before.last, arrived.last), complete)
    return held, tuple(piece for piece in pieces if piece.size > 0)


def believed(headers: Headers, held: Held) -> Held | None:
    """What a 206 holds whose Content-Length does not fit its Content-Range.

    None where that cannot be known. A body shorter than said, in a response that claims to reach the end of the
    representation, is taken as it came: the octets from `first` on, and the end of the body is the end of the
    representation. Only without validators: then no client can put these octets together with others (RFC 9110
    §15.3.7.3), so a wrong guess stays within the answers the origin itself would have given.
    """
    lines = headers.get_all("content-length")
    length = parse_digits(lines[0]) if len(lines) == 1 else None
    size = held.last - held.first + 1
    if length is None or length == size:
        return held
    validated = "etag" in headers or "last-modified" in headers
    if validated or not 0 < length < size or held.complete != held.last + 1:
        return None
    end = held.first + length
    return Held(held.first, end - 1, end)


# --- multipart/byteranges (RFC 9110 §14.6) ---


def multipart_type(boundary: str) -> str:
    """Content-Type of a 206 with several parts; the boundary is chosen by whoever sends."""
    return f"multipart/byteranges; boundary={boundary}"


def part_head(boundary: str, content_type: str | None, part: tuple[int, int], complete: int | None) -> bytes:
    """What stands before the octets of one part."""
    kind = f"Content-Type: {content_type}\r\n" if content_type is not None else ""
    text = f"\r\n--{boundary}\r\n{kind}Content-Range: {content_range(*part, complete)}\r\n\r\n"
    return text.encode("latin-1")


def multipart_end(boundary: str) -> bytes:
    return f"\r\n--{boundary}--\r\n".encode("latin-1")
