"""What a dialect is made of, and what its requests become.

A route's reader turns a request into a `Deal`: orders, all checked before the first is carried out, and the answer that
its clients expect when they have been. Whatever is wrong is `Refused`, with a kind that the dialect puts into its own
words; nothing has been purged then.
"""

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.purge.message import PurgeKind, PurgeOrder

_NOT_IN_PHRASE = re.compile(r"[^\t\x20-\x7e\xa0-\xff]")


class Fault(StrEnum):
    """Why a request has no success. All but `LATE` mean that nothing was purged."""

    NO_TOKEN = "no-token"  # noqa: S105 - the name of a fault
    BAD_TOKEN = "bad-token"  # noqa: S105
    FORBIDDEN = "forbidden"
    BAD = "bad"
    NO_SITE = "no-site"
    TOO_LARGE = "too-large"
    TOO_MANY = "too-many"
    """More than may be asked for in a time."""
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"
    LATE = "late"
    """It was purged, and will be everywhere, but not every edge that is connected has confirmed it in time."""


class Refused(Exception):
    """No success: see `Fault`. `code`: the product's own number for this error, where there is one."""

    def __init__(self, fault: Fault, detail: str, *, code: int = 0) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    response: Response
    body: bytes


@dataclass(frozen=True, slots=True)
class Deal:
    """What is asked for. `reply` gets the number of each order."""

    orders: tuple[PurgeOrder, ...]
    reply: Callable[[tuple[int, ...]], Answer]


class SiteNames:
    """Which site a product's service or zone is."""

    def __init__(self, ids: Mapping[str, str], sites: Callable[[], Iterable[str]] | None) -> None:
        """`sites`: the names of all sites there are; None where they are not known, and only listed ids are."""
        self._ids = ids
        self._sites = sites

    def of(self, given: str) -> str:
        """The site meant by an id: as configured, or of that name, or the only one. Raises `Refused`."""
        if (site := self._ids.get(given)) is not None:
            return site
        names = tuple(self._sites()) if self._sites is not None else ()
        if given in names:
            return given
        if len(names) == 1 and not self._ids:
            return names[0]
        raise Refused(
            Fault.NO_SITE, f"nothing in dialects.ids says which site {given!r} is, and no site known here is named so"
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that a route has taken."""

    request: Request
    body: bytes
    match: re.Match[str]
    names: SiteNames
    widen: bool
    """May a pattern that is no list of tags, hosts or paths be answered by purging something larger?"""
    compare: bool = False
    """May one on URLs be compared with what is stored?"""

    @property
    def headers(self) -> Headers:
        return self.request.headers

    @property
    def url(self) -> str:
        """The URL of the request itself."""
        return url_of(self.request.authority, self.request.target)


@dataclass(frozen=True, slots=True)
class Route:
    """A row of a dialect's table. The path is matched with its query."""

    methods: frozenset[str]
    path: re.Pattern[str]
    read: Callable[[Ask], Deal]
    fields: tuple[str, ...] = ()
    """One of these must be there, in lower case; empty: it takes none."""
    plain: bool = False
    """Several dialects have it, and the first of them that is spoken answers."""

    def match(self, request: Request) -> re.Match[str] | None:
        if request.method not in self.methods:
            return None
        if self.fields and not any(name in request.headers for name in self.fields):
            return None
        return self.path.fullmatch(request.target)


def route(
    methods: str, path: str, read: Callable[[Ask], Deal], *, fields: tuple[str, ...] = (), plain: bool = False
) -> Route:
    """`methods` with spaces between."""
    return Route(frozenset(methods.split()), re.compile(path, re.DOTALL), read, fields, plain)


@dataclass(frozen=True, slots=True)
class Dialect:
    name: str
    routes: tuple[Route, ...]
    tokens: Callable[[Headers], tuple[str, ...]]
    """The tokens that a request shows, wherever this product's clients put them."""
    refuse: Callable[[Refused], Answer]


# --- parts of requests ---


def url_of(authority: str, target: str) -> str:
    """An absolute URL. The scheme makes no difference to a purge but for what it says of the port."""
    scheme = "https" if authority.endswith(":443") else "http"
    return f"{scheme}://{authority}{target}"


def bearer(headers: Headers) -> tuple[str, ...]:
    """The token of `Authorization: Bearer …`."""
    found = []
    for value in headers.get_all("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            found.append(token.strip())
    return tuple(found)


def json_object(body: bytes) -> dict[str, Any]:
    """Raises `Refused`."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused(Fault.BAD, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(Fault.BAD, "the body is no JSON object")
    return value


def _no_constant(_text: str) -> NoReturn:
    raise ValueError("not JSON")


def octets(text: str) -> str:
    """A text of JSON as header fields hold it: its UTF-8, a character an octet. Raises `Refused`."""
    try:
        return text if text.isascii() else text.encode().decode("latin-1")
    except UnicodeEncodeError:
        raise Refused(Fault.BAD, "half a surrogate pair is in no text") from None


def tagged(
    keys: Iterable[str], *, site: str | None, kind: PurgeKind, source: str, everything: bool = False
) -> PurgeOrder:
    """An order for surrogate keys, in whatever characters."""
    plain: dict[str, None] = {}
    spaced: dict[str, None] = {}
    for key in keys:
        (spaced if any(ord(c) <= 32 or ord(c) == 127 for c in key) else plain)[key] = None
    return PurgeOrder(
        keys=tuple(plain), groups=tuple(spaced), site=site, kind=kind, source=source, everything=everything
    )


# --- answers ---


def json_answer(status: int, value: object, lines: Iterable[tuple[str, str]] = ()) -> Answer:
    body = json.dumps(value).encode()
    return _answer(status, "", "application/json", body, lines)


def page(status: int, phrase: str, body: str) -> Answer:
    """An HTML page; `phrase` is the reason phrase, which some clients read."""
    return _answer(status, phrase, "text/html; charset=utf-8", body.encode(errors="replace"), ())


def quoted(text: str) -> str:
    return html.escape(text)


def _answer(status: int, phrase: str, kind: str, body: bytes, lines: Iterable[tuple[str, str]]) -> Answer:
    headers = Headers((("Content-Type", kind), ("Cache-Control", "no-store"), *lines))
    return Answer(Response(status, _NOT_IN_PHRASE.sub("?", phrase), headers), body)
