"""The coordinator's listener: binds, serves the API, takes over new certificates, and stops."""

import socket
import ssl

from aiohttp import web

from edgecache.admin.dialects.desk import Desk
from edgecache.config.units import Address
from edgecache.http.sockets import bind
from edgecache.purge.coordinator.api import make_app
from edgecache.purge.coordinator.service import Coordinator

_BACKLOG = 1024
_FIELD_LINE_BYTES = 64 * 1024
"""Clients of other products write whole lists of tags into a field."""
DRAIN_S = 5.0
"""How long calls under way may take to end, those that wait for edges among them."""


class CoordinatorServer:
    """Serves one coordinator on one address."""

    def __init__(
        self,
        coordinator: Coordinator,
        address: Address,
        *,
        hosts: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
        certificates: bool = False,
        desk: Desk | None = None,
    ) -> None:
        """`certificates`: edges must show one, which `tls` verifies. `desk`: for the clients of other products."""
        self._coordinator = coordinator
        self._tls = tls
        app = make_app(coordinator, open_reads=address.loopback, hosts=hosts, certificates=certificates, desk=desk)
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            shutdown_timeout=DRAIN_S,
            max_field_size=_FIELD_LINE_BYTES,
            max_line_size=_FIELD_LINE_BYTES,
        )
        self.address = address
        """Where it listens; the port is known once started."""

    async def start(self, listener: socket.socket | None = None) -> None:
        """Raises OSError where the address cannot be had."""
        await self._runner.setup()
        if listener is None:
            listener = bind(self.address.host, self.address.port)
        try:
            await web.SockSite(self._runner, listener, ssl_context=self._tls, backlog=_BACKLOG).start()
        except BaseException:
            listener.close()
            raise
        self.address = Address(self.address.host, listener.getsockname()[1])

    async def close(self) -> None:
        """No new calls; those under way end; edges are told."""
        self._coordinator.draining = True
        for site in tuple(self._runner.sites):
            await site.stop()
        await self._coordinator.close()
        await self._runner.cleanup()
