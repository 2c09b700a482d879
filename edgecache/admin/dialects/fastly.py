"""Fastly's purge API: surrogate keys by service, URLs, everything; hard and soft.

Keys are separated by white space and compared octet for octet. `Fastly-Soft-Purge` makes a purge soft, but for
`purge_all`, which is always hard there. A purge's id is its number.
"""

from urllib.parse import unquote, unquote_to_bytes

from edgecache.admin.dialects.spoken import (
    Answer,
    Ask,
    Deal,
    Dialect,
    Fault,
    Refused,
    bearer,
    json_answer,
    json_object,
    octets,
    route,
    tagged,
    url_of,
)
from edgecache.http.headers import Headers
from edgecache.purge.message import PurgeKind, PurgeOrder

_SOURCE = "fastly"
_STATUS = {
    Fault.NO_TOKEN: (401, "Provided credentials are missing or invalid"),
    Fault.BAD_TOKEN: (401, "Provided credentials are missing or invalid"),
    Fault.FORBIDDEN: (403, "You are not authorized to perform this action"),
    Fault.NO_SITE: (404, "Record not found"),
    Fault.BAD: (400, "Bad request"),
    Fault.TOO_LARGE: (413, "Request entity too large"),
    Fault.TOO_MANY: (429, "Too many requests"),
    Fault.UNAVAILABLE: (503, "Service unavailable"),
    Fault.INTERNAL: (500, "Internal server error"),
    Fault.LATE: (504, "Gateway timeout"),
}


def _one_key(ask: Ask) -> Deal:
    key = unquote_to_bytes(ask.match["key"]).decode("latin-1")
    if any(ord(c) <= 32 for c in key):
        raise Refused(Fault.BAD, "a surrogate key has no spaces")
    order = tagged((key,), site=ask.names.of(unquote(ask.match["id"])), kind=_kind(ask), source=_SOURCE)
    return Deal((order,), _done)


def _several_keys(ask: Ask) -> Deal:
    """By header, by body, or both."""
    keys = [key for line in ask.headers.get_all("surrogate-key") for key in line.split()]
    if ask.body.strip():
        given = json_object(ask.body).get("surrogate_keys", [])
        if not isinstance(given, list) or not all(isinstance(key, str) for key in given):
            raise Refused(Fault.BAD, "surrogate_keys is a list of texts")
        if any(not key or any(ord(c) <= 32 for c in key) for key in given):
            raise Refused(Fault.BAD, "a surrogate key is not empty and has no spaces")
        keys += [octets(key) for key in given]
    if not keys:
        raise Refused(Fault.BAD, "no surrogate keys: give them in Surrogate-Key, or as surrogate_keys in a JSON object")
    order = tagged(keys, site=ask.names.of(unquote(ask.match["id"])), kind=_kind(ask), source=_SOURCE)
    return Deal((order,), lambda numbers: json_answer(200, dict.fromkeys(map(_shown, keys), _id(numbers))))


def _all(ask: Ask) -> Deal:
    site = ask.names.of(unquote(ask.match["id"]))
    return Deal((PurgeOrder(everything=True, site=site, source=_SOURCE),), lambda _: json_answer(200, {"status": "ok"}))


def _named_url(ask: Ask) -> Deal:
    """The URL is the rest of the path, with or without a scheme, and escaped as a whole by some clients."""
    url = ask.match["url"]
    if "/" not in url and "%2f" in url.lower():
        url = unquote(url)
    if "://" not in url:
        authority, slash, rest = url.partition("/")
        url = url_of(authority, slash + rest)
    return Deal((PurgeOrder(urls=(url,), kind=_kind(ask), source=_SOURCE),), _done)


def _own_url(ask: Ask) -> Deal:
    return Deal((PurgeOrder(urls=(ask.url,), kind=_kind(ask), source=_SOURCE),), _done)


def _kind(ask: Ask) -> PurgeKind:
    return PurgeKind.SOFT if ask.headers.get("fastly-soft-purge") not in (None, "0") else PurgeKind.HARD


def _id(numbers: tuple[int, ...]) -> str:
    return str(numbers[0])


def _done(numbers: tuple[int, ...]) -> Answer:
    return json_answer(200, {"status": "ok", "id": _id(numbers)})


def _shown(key: str) -> str:
    return key if key.isascii() else key.encode("latin-1").decode(errors="replace")


def _tokens(headers: Headers) -> tuple[str, ...]:
    return (*headers.get_all("fastly-key"), *bearer(headers))


def _refuse(refused: Refused) -> Answer:
    status, text = _STATUS[refused.fault]
    if refused.fault in (Fault.NO_TOKEN, Fault.BAD_TOKEN):
        return json_answer(status, {"msg": text})
    return json_answer(status, {"msg": text, "detail": refused.detail})


FASTLY = Dialect(
    "fastly",
    (
        route("POST PUT", r"/service/(?P<id>[^/?]+)/purge_all(?:\?.*)?", _all),
        route("POST PUT", r"/service/(?P<id>[^/?]+)/purge(?:\?.*)?", _several_keys),
        route("POST PUT", r"/service/(?P<id>[^/?]+)/purge/(?P<key>[^?]+)(?:\?.*)?", _one_key),
        route("POST", r"/purge/(?P<url>.+)", _named_url),
        route("PURGE", r"/.*", _own_url, fields=("fastly-key", "fastly-soft-purge")),
        route("PURGE", r"/.*", _own_url, plain=True),
    ),
    _tokens,
    _refuse,
)
