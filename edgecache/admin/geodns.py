"""The admin API of `edgecache geodns`: what is healthy and why, draining, and health reported from elsewhere.

Whatever changes state needs the token; reads do where the address is not a loopback one. See `api` for the same rules.
"""

import json
import socket
from typing import Any, Protocol

from aiohttp import web

from edgecache.admin.anymethod import LOG
from edgecache.admin.api import METRICS_TYPE, Access, ApiError, errors, guard
from edgecache.admin.tokens import TokenCheck
from edgecache.config.listeners import AdminConfig
from edgecache.config.units import Address
from edgecache.http.sockets import bind

_MAX_BODY = 4096


class GeoNode(Protocol):
    """A running GeoDNS."""

    def ready(self) -> tuple[bool, str]:
        """May it be asked? And if not, why."""
        ...

    def pops(self) -> list[dict[str, Any]]:
        """Each PoP, ready for JSON."""
        ...

    def drain(self, name: str, *, drained: bool) -> None:
        """Raises LookupError for a PoP that is not there."""
        ...

    def report(self, name: str, *, up: bool | None) -> None:
        """None takes back what was said. Raises LookupError."""
        ...

    def stats(self) -> dict[str, Any]:
        """Plain figures."""
        ...

    def metrics(self) -> bytes:
        """Prometheus text exposition."""
        ...


def make_app(node: GeoNode, access: Access) -> web.Application:
    api = _Api(node)
    app = web.Application(middlewares=[errors, guard(access)], client_max_size=_MAX_BODY)
    app.router.add_get("/healthz", api.healthz)
    app.router.add_get("/readyz", api.readyz)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_get("/v1/stats", api.stats)
    app.router.add_get("/v1/pops", api.pops)
    app.router.add_put("/v1/pops/{name}/drained", api.drained)
    app.router.add_put("/v1/pops/{name}/health", api.health)
    return app


class _Api:
    def __init__(self, node: GeoNode) -> None:
        self._node = node

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

    async def pops(self, _request: web.Request) -> web.Response:
        return web.json_response({"pops": self._node.pops()})

    async def drained(self, request: web.Request) -> web.Response:
        value = await _value(request, "drained")
        if not isinstance(value, bool):
            raise ApiError(400, "true or false is needed", path="drained")
        return self._changed(request, lambda name: self._node.drain(name, drained=value))

    async def health(self, request: web.Request) -> web.Response:
        value = await _value(request, "up")
        if value is not None and not isinstance(value, bool):
            raise ApiError(400, "true, false, or null to take it back", path="up")
        return self._changed(request, lambda name: self._node.report(name, up=value))

    def _changed(self, request: web.Request, change: Any) -> web.Response:
        name = request.match_info["name"]
        try:
            change(name)
        except LookupError:
            raise ApiError(404, f"there is no PoP {name}", code="not-found") from None
        return web.json_response(next(pop for pop in self._node.pops() if pop["name"] == name))


async def _value(request: web.Request, key: str) -> object:
    """The value of the one key of a JSON object."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(body, dict) or set(body) != {key}:
        raise ApiError(400, f"an object with the key {key} is needed, and no other", path=key)
    found: object = body[key]
    return found


class GeoAdminServer:
    """The API on its own address."""

    def __init__(self, node: GeoNode, config: AdminConfig, token: str) -> None:
        access = Access(TokenCheck(token), config.address.loopback, config.hosts)
        self._config = config
        self._runner = web.AppRunner(
            make_app(node, access), handle_signals=False, access_log=None, logger=LOG, shutdown_timeout=2.0
        )
        self.address = config.address

    async def start(self, listener: socket.socket | None = None) -> None:
        """Binds, or accepts on a bound socket, which is then the server's to close. Raises OSError."""
        await self._runner.setup()
        if listener is None:
            listener = bind(self._config.address.host, self._config.address.port)
        await web.SockSite(self._runner, listener).start()
        self.address = Address(self._config.address.host, listener.getsockname()[1])

    async def close(self) -> None:
        await self._runner.cleanup()
