"""nginx with ngx_cache_purge: PURGE of a URL, or with a trailing `*` of what begins with it.

nginx compares beginnings of its keys as text. What is purged here ends at a slash: `PURGE /a/*` is /a and all below,
`PURGE /a/b*` is widened to that too, so that nothing the client meant is left. The module says 412 where it finds
nothing to purge; here nothing is searched for, and every purge succeeds.
"""

from edgecache.admin.dialects.spoken import (
    Answer,
    Ask,
    Deal,
    Dialect,
    Fault,
    Refused,
    bearer,
    page,
    quoted,
    route,
    url_of,
)
from edgecache.http.headers import Headers
from edgecache.purge.message import PurgeOrder

_SOURCE = "nginx"
_STATUS = {
    Fault.NO_TOKEN: (403, "Forbidden"),
    Fault.BAD_TOKEN: (403, "Forbidden"),
    Fault.FORBIDDEN: (403, "Forbidden"),
    Fault.NO_SITE: (404, "Not Found"),
    Fault.BAD: (400, "Bad Request"),
    Fault.TOO_LARGE: (413, "Request Entity Too Large"),
    Fault.TOO_MANY: (429, "Too Many Requests"),
    Fault.UNAVAILABLE: (503, "Service Temporarily Unavailable"),
    Fault.INTERNAL: (500, "Internal Server Error"),
    Fault.LATE: (504, "Gateway Time-out"),
}


def _url(ask: Ask) -> Deal:
    return _deal(ask, PurgeOrder(urls=(ask.url,), source=_SOURCE))


def _beginning(ask: Ask) -> Deal:
    path = ask.match["beginning"].partition("?")[0]
    prefix = url_of(ask.request.authority, path[: path.rfind("/") + 1])
    return _deal(ask, PurgeOrder(prefixes=(prefix,), source=_SOURCE))


def _deal(ask: Ask, order: PurgeOrder) -> Deal:
    key = quoted(ask.request.authority + ask.request.target)
    body = (
        '<html><head><title>Successful purge</title></head><body bgcolor="white"><center><h1>Successful purge</h1>'
        f"<p>Key : {key}</p></center></body></html>"
    )
    return Deal((order,), lambda _: page(200, "OK", body))


def _tokens(headers: Headers) -> tuple[str, ...]:
    return (*headers.get_all("x-purge-key"), *headers.get_all("x-purge-token"), *bearer(headers))


def _refuse(refused: Refused) -> Answer:
    status, text = _STATUS[refused.fault]
    body = (
        f"<html><head><title>{status} {text}</title></head><body><center><h1>{status} {text}</h1></center>"
        f"<p>{quoted(refused.detail)}</p></body></html>"
    )
    return page(status, text, body)


NGINX = Dialect(
    "nginx",
    (
        route("PURGE", r"(?P<beginning>/[^?]*(?:\?.*)?)\*", _beginning),
        route("PURGE", r"/.*", _url, plain=True),
    ),
    _tokens,
    _refuse,
)
