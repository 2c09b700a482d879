"""The coordinator over HTTP: purging, looking at what became of it, and the edges' subscriptions.

Every call shows a token, but for /healthz and /readyz, and, on a loopback address, reads. There a Host that is neither
an IP address, localhost nor configured is refused, so that no web page reads this through DNS rebinding; with a token
any Host will do. Errors are JSON, as those of the admin API.
"""

import json
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Final

from aiohttp import web

from edgecache.admin.api import (
    METRICS_TYPE,
    ApiError,
    audit_page,
    errors,
    host_allowed,
    idempotency_key,
    peer,
    purge_body,
)
from edgecache.admin.dialects.desk import Admit, Desk, Perform
from edgecache.admin.foreign import speaks
from edgecache.admin.wire import MAX_BODY_BYTES, MAX_TARGETS, receipt_json
from edgecache.observe.metrics import expose
from edgecache.purge.bus import BusError
from edgecache.purge.coordinator import subscription
from edgecache.purge.coordinator.openapi import document
from edgecache.purge.coordinator.seldom import Seldom
from edgecache.purge.coordinator.service import Coordinator, Purged, Refused
from edgecache.purge.coordinator.tokens import Grant, Scope
from edgecache.purge.message import PurgeError, PurgeOrder, PurgeReceipt
from edgecache.purge.transport.websocket import PATH as SUBSCRIBE

_log = logging.getLogger("edgecache.purge")

_OPEN: Final = frozenset({"/healthz", "/readyz"})
_CHALLENGE: Final = 'Bearer realm="edgecache"'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    coordinator: Coordinator,
    *,
    open_reads: bool,
    hosts: tuple[str, ...] = (),
    certificates: bool = False,
    desk: Desk | None = None,
) -> web.Application:
    """`open_reads`: reads need no token. `certificates`: edges must have shown one. `desk`: for the clients of other
    products."""
    api = _Api(coordinator, open_reads=open_reads, hosts=hosts, certificates=certificates)
    foreign = [] if desk is None else [speaks(desk, api.admit)]
    app = web.Application(middlewares=[errors, *foreign], client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/healthz", api.healthz)
    app.router.add_get("/readyz", api.readyz)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_get("/v1/stats", api.stats)
    app.router.add_get("/v1/edges", api.edges)
    app.router.add_get("/v1/audit", api.audit)
    app.router.add_post("/v1/purge", api.purge)
    app.router.add_get("/v1/purge/{sequence:[0-9]{1,16}}", api.purged)
    app.router.add_get("/v1/openapi.json", api.openapi)
    app.router.add_get(SUBSCRIBE, api.subscribe)
    return app


class _Api:
    def __init__(
        self, coordinator: Coordinator, *, open_reads: bool, hosts: tuple[str, ...], certificates: bool
    ) -> None:
        self._coordinator = coordinator
        self._open_reads = open_reads
        self._hosts = hosts
        self._certificates = certificates
        self._document = document()
        self._seldom = Seldom()

    # --- who may ---

    def _grant(self, request: web.Request) -> Grant | None:
        """None where no token was shown."""
        given = request.headers.getall("Authorization", [])
        if not given:
            return None
        scheme, _, token = given[0].partition(" ")
        grant = self._coordinator.book.find(token.strip()) if scheme.lower() == "bearer" else None
        if len(given) > 1 or grant is None:
            raise ApiError(401, "this token is not known here", WWW_Authenticate=_CHALLENGE)
        return grant

    def _require(self, request: web.Request, *scopes: Scope) -> Grant:
        """A token that allows one of these."""
        grant = self._grant(request)
        if grant is None:
            raise ApiError(401, "this needs a token: Authorization: Bearer …", WWW_Authenticate=_CHALLENGE)
        if not any(grant.allows(scope) for scope in scopes):
            raise ApiError(403, f"this token does not have the scope {scopes[0]}", code="scope")
        return grant

    def _may_read(self, request: web.Request, *scopes: Scope) -> None:
        if self._open_reads and "Authorization" not in request.headers:
            hosts = request.headers.getall("Host", [])
            if len(hosts) == 1 and host_allowed(hosts[0], self._hosts):
                return
            raise ApiError(403, "this Host is not allowed; use the address, or show a token", code="host")
        self._require(request, *scopes)

    # --- reads ---

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        ready, why = self._coordinator.ready()
        body = {"status": "ready" if ready else "not ready", "detail": why}
        return web.json_response(body, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        self._may_read(request, Scope.READ)
        return web.Response(body=expose(self._coordinator.figures()), headers={"Content-Type": METRICS_TYPE})

    async def stats(self, request: web.Request) -> web.Response:
        self._may_read(request, Scope.READ)
        return web.json_response(self._coordinator.stats())

    async def openapi(self, request: web.Request) -> web.Response:
        self._may_read(request, Scope.READ, Scope.PURGE, Scope.EDGE)
        return web.json_response(self._document)

    async def edges(self, request: web.Request) -> web.Response:
        self._may_read(request, Scope.READ)
        state = self._coordinator.bus.state()
        edges = [asdict(edge) for edge in self._coordinator.hub.edges()]
        return web.json_response({"log": state.log, "floor": state.floor, "head": state.head, "edges": edges})

    async def audit(self, request: web.Request) -> web.Response:
        self._require(request, Scope.ADMIN)
        before, limit = audit_page(request)
        try:
            records = await self._coordinator.bus.audit(before=before, limit=limit)
        except BusError as error:
            raise ApiError(503, error.detail, code="log-unavailable", Retry_After="1") from None
        return web.json_response({"records": [asdict(record) for record in records]})

    async def purged(self, request: web.Request) -> web.Response:
        self._may_read(request, Scope.READ, Scope.PURGE)
        try:
            record, waited = await self._coordinator.find(int(request.match_info["sequence"]))
        except Refused as error:
            raise _answer(error) from None
        edges = [{"edge": edge.edge, "applied": edge.applied} for edge in waited.edges]
        body = {"sequence": record.sequence, "time": record.time, "order": json.loads(record.text)}
        return web.json_response({**body, "edges": edges, "away": waited.away})

    # --- purging ---

    async def purge(self, request: web.Request) -> web.Response:
        grant = self._require(request, Scope.PURGE)
        if request.content_type != "application/json":
            raise ApiError(415, "the body must be application/json")
        body = purge_body(await request.read())
        if body.targets > MAX_TARGETS:
            raise ApiError(413, f"more than {MAX_TARGETS} targets in one purge")
        order = body.order(grant.name)
        try:
            purged = await self._coordinator.purge(
                order,
                grant,
                peer(request),
                key=idempotency_key(request),
                wait=body.wait,
                timeout_s=body.timeout_s,
            )
        except Refused as error:
            raise _answer(error) from None
        return web.json_response(receipt_json(_receipt(purged)))

    def admit(self, request: web.Request) -> Admit:
        """What a request of another product's client may do: whatever its token allows."""

        def by_token(tokens: tuple[str, ...]) -> Perform | None:
            grants = [grant for token in tokens if (grant := self._coordinator.book.find(token)) is not None]
            return partial(self._perform, grants[0], peer(request)) if grants else None

        return by_token

    async def _perform(self, grant: Grant, address: str, order: PurgeOrder) -> PurgeReceipt:
        """Raises `PurgeError`."""
        if not grant.allows(Scope.PURGE):
            raise PurgeError(f"this token does not have the scope {Scope.PURGE}", status=403)
        try:
            purged = await self._coordinator.purge(order, grant, address)
        except Refused as error:
            raise PurgeError(error.detail, path=error.path, status=error.status) from None
        return _receipt(purged)

    # --- edges ---

    async def subscribe(self, request: web.Request) -> web.StreamResponse:
        try:
            grant = self._require(request, Scope.EDGE)
            if self._certificates and not request.get_extra_info("peercert"):
                raise ApiError(403, "an edge must show a certificate here", code="certificate")
        except ApiError as error:
            line = f"an edge at {peer(request)} is turned away: {error}"
            if self._seldom.may(line):
                _log.warning("%s", line)
            raise
        if self._coordinator.draining:
            raise ApiError(503, "the coordinator is stopping", Retry_After="1")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise ApiError(426, "edges subscribe over a WebSocket", code="upgrade-required", Upgrade="websocket")
        coordinator = self._coordinator
        return await subscription.serve(request, coordinator.hub, peer(request), lambda: coordinator.book.holds(grant))


def _receipt(purged: Purged) -> PurgeReceipt:
    record, waited = purged.record, purged.waited
    edges, away = (waited.edges, waited.away) if waited is not None else ((), ())
    return PurgeReceipt(record.sequence, edges, away, time=record.time, again=purged.again, waited=waited is not None)


def _answer(error: Refused) -> ApiError:
    headers = {} if error.retry_s is None else {"Retry_After": str(math.ceil(error.retry_s))}
    return ApiError(error.status, error.detail, path=error.path, code=error.code, **headers)
