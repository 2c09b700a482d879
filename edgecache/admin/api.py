"""The admin API: what an operator, a monitor and the command line ask of a running edge.

Whatever changes state needs the token. Reads are open on a loopback address only; anywhere else they need it too,
but for /healthz and /readyz. A Host that is neither an IP address, localhost nor configured is refused, so that no
web page reaches this through DNS rebinding, and no answer allows another origin to read it. Every error is JSON.
"""

import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic import ValidationError

from edgecache.admin.dialects.build import by_token
from edgecache.admin.dialects.desk import Admit, Desk
from edgecache.admin.foreign import speaks
from edgecache.admin.node import Node
from edgecache.admin.openapi import document
from edgecache.admin.tokens import TokenCheck
from edgecache.admin.wire import (
    MAX_BODY_BYTES,
    MAX_TARGETS,
    PatternBody,
    PurgeBody,
    error_json,
    explanation_json,
    receipt_json,
)
from edgecache.config.options import spell
from edgecache.http.headers import Headers
from edgecache.purge.bus import Caller
from edgecache.purge.message import PurgeError
from edgecache.purge.patterns import check_enabled

_log = logging.getLogger("edgecache.admin")

MOST_AUDIT = 1000
"""Records in one answer."""
_AUDIT = 100

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_OPEN = frozenset({"/healthz", "/readyz"})
"""Always open: they say nothing but yes or no, and checks come by whatever name a load balancer uses."""

_TCHAR = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_CODES = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    409: "conflict",
    415: "unsupported-media-type",
    429: "too-many-requests",
    502: "bad-coordinator",
    503: "unavailable",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what."""

    token: TokenCheck
    open_reads: bool
    """Are reads allowed without the token? Only on a loopback address."""
    hosts: tuple[str, ...] = ()
    """Names, beside IP addresses and localhost, under which the API may be reached; "*." for every name below."""
    max_targets: int = MAX_TARGETS
    patterns: bool = False
    """May a purge name regular expressions?"""


class ApiError(Exception):
    """Becomes an answer with this status."""

    def __init__(self, status: int, message: str, *, path: str = "", code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_json(code or _CODES.get(status, "error"), message, path)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def host_allowed(host: str | None, names: tuple[str, ...]) -> bool:
    """An IP literal, localhost, or one of `names`; whatever the port."""
    if not host:
        return False
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
        if not bracket or rest == ":":
            return False
    else:
        name, _, port = host.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return False
    name = name.lower().removesuffix(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        wild = any(pattern.startswith("*.") and name.endswith(pattern[1:]) for pattern in names)
        return wild or name == "localhost" or name in names
    return True


def make_app(node: Node, access: Access, desk: Desk | None = None) -> web.Application:
    """The API of this node as an aiohttp application. `desk`: for the clients of other products."""
    api = _Api(node, access)

    def admit(request: web.Request) -> Admit:
        return by_token(access.token, partial(node.purge, caller=_caller(request), wait=True))

    foreign = [] if desk is None else [speaks(desk, admit)]
    app = web.Application(
        middlewares=[errors, *foreign, guard(access)],
        client_max_size=MAX_BODY_BYTES,
    )
    app.router.add_get("/healthz", api.healthz)
    app.router.add_get("/readyz", api.readyz)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_get("/v1/stats", api.stats)
    app.router.add_get("/v1/explain", api.explain)
    app.router.add_post("/v1/purge", api.purge)
    app.router.add_get("/v1/purge/{sequence:[0-9]{1,16}}", api.purged)
    app.router.add_get("/v1/edges", api.edges)
    app.router.add_get("/v1/audit", api.audit)
    app.router.add_get("/v1/openapi.json", api.openapi)
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error, whoever raised it, becomes JSON with the right status; a bug says nothing of itself."""
    headers: dict[str, str] = {}
    try:
        response = await handler(request)
    except ApiError as error:
        response = web.json_response(error.body, status=error.status, headers=error.headers)
    except web.HTTPException as error:
        if "Allow" in error.headers:
            headers["Allow"] = error.headers["Allow"]
        message = "the body is too large" if error.status == 413 else error.reason
        body = error_json(_CODES.get(error.status, "error"), message)
        response = web.json_response(body, status=error.status, headers=headers)
    except Exception:  # noqa: BLE001 - the boundary: whatever it was is logged and becomes a 500
        _log.exception("the admin API failed on %s %s", request.method, request.path)
        response = web.json_response(error_json("internal", "internal error; see the log"), status=500)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def guard(access: Access) -> Middleware:
    """By a Host that is allowed, what reads; with the token, what changes too. What is open, by everybody."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _OPEN:
            return await handler(request)
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or not host_allowed(hosts[0], access.hosts):
            raise ApiError(403, "this Host is not allowed; add it to admin.hosts, or use the address", code="host")
        if not (access.open_reads and request.method in ("GET", "HEAD")):
            _require_token(request, access.token)
        return await handler(request)

    return guarded


def _require_token(request: web.Request, right: TokenCheck) -> None:
    given = request.headers.getall("Authorization", [])
    challenge = 'Bearer realm="edgecache"'
    if not given:
        raise ApiError(401, "this needs the admin token: Authorization: Bearer …", WWW_Authenticate=challenge)
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not right(token.strip()):
        raise ApiError(401, "the token is not the one of this server", WWW_Authenticate=challenge)


class _Api:
    def __init__(self, node: Node, access: Access) -> None:
        self._node = node
        self._access = access
        self._document = document()

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        ready, why = self._node.ready()
        body = {"status": "ready" if ready else "not ready", "detail": why}
        return web.json_response(body, status=200 if ready else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._node.metrics(), headers={"Content-Type": METRICS_TYPE})

    async def stats(self, _request: web.Request) -> web.Response:
        return web.json_response(self._node.stats())

    async def openapi(self, _request: web.Request) -> web.Response:
        return web.json_response(self._document)

    async def explain(self, request: web.Request) -> web.Response:
        query = request.query
        for name in query:
            if name not in ("url", "method", "header"):
                raise ApiError(400, "no such parameter; there are url, method and header", path=name)
        urls, methods = query.getall("url", []), query.getall("method", ["GET"])
        if len(urls) != 1 or not urls[0]:
            raise ApiError(400, "one absolute URL is needed", path="url")
        if len(methods) != 1 or not methods[0] or not _TCHAR.issuperset(methods[0]):
            raise ApiError(400, "one method is needed", path="method")
        lines = [_field_line(text, index) for index, text in enumerate(query.getall("header", []))]
        try:
            explanation = await self._node.explain(methods[0], urls[0], Headers(lines))
        except ValueError as error:
            raise ApiError(400, str(error), path="url") from None
        return web.json_response(explanation_json(explanation))

    async def purge(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise ApiError(415, "the body must be application/json")
        body = purge_body(await request.read())
        if body.targets > self._access.max_targets:
            raise ApiError(413, f"more than {self._access.max_targets} targets in one purge")
        if not body.targets:
            raise ApiError(
                400, "nothing to purge: one of urls, keys, hosts, prefixes, patterns and all must name something"
            )
        try:
            order = body.order("admin")
            check_enabled(order, enabled=self._access.patterns, setting="purge.dialects.patterns")
            receipt = await self._node.purge(
                order,
                caller=_caller(request),
                wait=body.wait,
                timeout_s=body.timeout_s,
                key=idempotency_key(request),
            )
        except PurgeError as error:
            raise ApiError(error.status, error.detail, path=error.path, code=error.code) from None
        return web.json_response(receipt_json(receipt))

    async def purged(self, request: web.Request) -> web.Response:
        return await _asked(self._node.purged(int(request.match_info["sequence"])))

    async def audit(self, request: web.Request) -> web.Response:
        _require_token(request, self._access.token)
        before, limit = audit_page(request)
        return await _asked(self._node.audit(before, limit))

    async def edges(self, _request: web.Request) -> web.Response:
        return await _asked(self._node.edges())


async def _asked(asking: Awaitable[dict[str, object]]) -> web.Response:
    try:
        return web.json_response(await asking)
    except PurgeError as error:
        raise ApiError(error.status, error.detail, path=error.path, code=error.code) from None


def peer(request: web.Request) -> str:
    """The address it came from; "" where there is none."""
    found = request.get_extra_info("peername")
    return str(found[0]) if isinstance(found, tuple) else ""


def _caller(request: web.Request) -> Caller:
    return Caller("admin", peer(request))


def idempotency_key(request: web.Request) -> str | None:
    """Raises `ApiError`."""
    keys = request.headers.getall("Idempotency-Key", [])
    if len(keys) > 1:
        raise ApiError(400, "one idempotency key at most", path="Idempotency-Key")
    return keys[0] if keys else None


def audit_page(request: web.Request) -> tuple[int | None, int]:
    """Numbered less than what, and how many. Raises `ApiError`."""
    return _number(request, "before", 1 << 53), _number(request, "limit", MOST_AUDIT) or _AUDIT


def _number(request: web.Request, name: str, most: int) -> int | None:
    given = request.query.getall(name, [])
    if not given:
        return None
    text = given[0]
    if len(given) > 1 or not (text.isascii() and text.isdigit() and len(text) < 17) or not 1 <= int(text) <= most:
        raise ApiError(400, f"a number from 1 to {most} is needed", path=name)
    return int(text)


def _field_line(text: str, index: int) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    bad = any((ord(c) < 32 and c != "\t") or ord(c) == 127 or ord(c) > 255 for c in value)
    if not colon or not name or not _TCHAR.issuperset(name) or bad:
        raise ApiError(400, "a header field is needed, such as Accept-Language: de", path=f"header[{index}]")
    return name, value.strip(" \t")


def purge_body(data: bytes) -> PurgeBody:
    """Raises `ApiError`."""
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        detail = str(error) if isinstance(error, json.JSONDecodeError | _DuplicateError) else "it cannot be read"
        raise ApiError(400, f"the body is not JSON: {detail}") from None
    try:
        return PurgeBody.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = spell(first["loc"])
        if first["type"] == "extra_forbidden":
            model = PatternBody if first["loc"][0] == "patterns" and len(first["loc"]) > 1 else PurgeBody
            known = ", ".join(model.model_fields)
            raise ApiError(400, f"no such key; there are {known}", path=path) from None
        raise ApiError(400, first["msg"].removeprefix("Value error, "), path=path) from None


class _DuplicateError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateError("a key is there twice")
    return found


def _no_constant(_text: str) -> NoReturn:
    raise ValueError("not JSON")
