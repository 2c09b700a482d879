"""Cloudflare's `purge_cache`: files, tags, hosts, prefixes, or everything of a zone; hard always.

Tags are compared without regard to the case of ASCII letters: see `policy.surrogate`, which keeps what `Cache-Tag`
names in lower case too. A tag purge means each tag as given, for keys from other fields, and in lower case.
"""

from typing import Any
from urllib.parse import unquote

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
)
from edgecache.http.headers import Headers
from edgecache.purge.message import PurgeOrder

_LISTS = ("files", "tags", "hosts", "prefixes")
_NOTHING = 1012
_NO_LIST = 1014
_STATUS = {
    Fault.NO_TOKEN: (400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers"),
    Fault.BAD_TOKEN: (401, 10000, "Authentication error"),
    Fault.FORBIDDEN: (403, 10000, "Authentication error"),
    Fault.NO_SITE: (404, 7003, ""),
    Fault.BAD: (400, 1012, ""),
    Fault.TOO_LARGE: (413, 1012, ""),
    Fault.TOO_MANY: (429, 971, "Please wait and consider throttling your request speed"),
    Fault.UNAVAILABLE: (503, 10001, ""),
    Fault.INTERNAL: (500, 10001, ""),
    Fault.LATE: (504, 10001, ""),
}
"""Status, number of the error, and its text where that is the same always."""


def _purge(ask: Ask) -> Deal:
    zone = unquote(ask.match["id"])
    site = ask.names.of(zone)
    given = json_object(ask.body) if ask.body.strip() else {}
    if unknown := [name for name in given if name not in (*_LISTS, "purge_everything")]:
        raise Refused(Fault.BAD, f"unknown member {unknown[0]!r}", code=_NOTHING)
    everything = given.get("purge_everything", False)
    if not isinstance(everything, bool):
        raise Refused(Fault.BAD, '"purge_everything" must be a boolean', code=_NOTHING)
    lists = {name: _list(given, name) for name in _LISTS}
    if everything and any(lists.values()):
        raise Refused(Fault.BAD, '"purge_everything" must be the only one in the request', code=_NOTHING)
    if not everything and not any(lists.values()):
        raise Refused(
            Fault.BAD,
            'Request must contain one of "purge_everything", "files", "tags", "hosts" or "prefixes"',
            code=_NOTHING,
        )
    tags = [octets(_text(tag, "tags").strip(" \t")) for tag in lists["tags"]]
    order = PurgeOrder(
        urls=tuple(_file(file) for file in lists["files"]),
        caseless=tuple(dict.fromkeys(tags)),
        hosts=tuple(_text(host, "hosts").lower() for host in lists["hosts"]),
        prefixes=tuple(_text(prefix, "prefixes") for prefix in lists["prefixes"]),
        everything=everything,
        site=site,
        source="cloudflare",
    )
    return Deal((order,), lambda _: _envelope(200, {"id": zone}, []))


def _list(given: dict[str, Any], name: str) -> list[Any]:
    value = given.get(name)
    if value is not None and not isinstance(value, list):
        raise Refused(Fault.BAD, f'"{name}" must be an array', code=_NO_LIST)
    return value or []


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Refused(Fault.BAD, f'"{name}" must be an array of strings that are not empty', code=_NO_LIST)
    return value


def _file(file: object) -> str:
    """A URL, or an object with one; all variants of it are purged, so its headers make no difference."""
    if isinstance(file, dict):
        if not isinstance(file.get("headers", {}), dict):
            raise Refused(Fault.BAD, '"headers" of a file must be an object', code=_NO_LIST)
        file = file.get("url")
    return _text(file, "files")


def _envelope(status: int, result: object, errors: list[dict[str, object]]) -> Answer:
    return json_answer(status, {"success": not errors, "errors": errors, "messages": [], "result": result})


def _tokens(headers: Headers) -> tuple[str, ...]:
    """An API token, or a key with its e-mail address, which is not looked at."""
    keys = headers.get_all("x-auth-key") if "x-auth-email" in headers else []
    return (*bearer(headers), *headers.get_all("x-auth-user-service-key"), *keys)


def _refuse(refused: Refused) -> Answer:
    status, code, text = _STATUS[refused.fault]
    return _envelope(status, None, [{"code": refused.code or code, "message": text or refused.detail}])


CLOUDFLARE = Dialect(
    "cloudflare",
    (route("POST DELETE", r"/client/v4/zones/(?P<id>[^/?]+)/purge_cache/?(?:\?.*)?", _purge),),
    _tokens,
    _refuse,
)
