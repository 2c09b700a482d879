"""The coordinator's listener: binds, serves the API, takes over new certificates, and stops."""

import asyncio
import socket
import ssl

from aiohttp import web

from edgecache.admin.anymethod import LOG, listen
from edgecache.admin.dialects.desk import Desk
from edgecache.config.units import Address
from edgecache.http.sockets import bind
from edgecache.purge.coordinator.api import make_app
from edgecache.purge.coordinator.service import Coordinator

_BACKLOG = 1024
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
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, logger=LOG, shutdown_timeout=DRAIN_S)
        self._server: asyncio.Server | None = None
        self.address = address
        """Where it listens; the port is known once started."""

    async def start(self, listener: socket.socket | None = None) -> None:
        """Raises OSError where the address cannot be had."""
        await self._runner.setup()
        if listener is None:
            listener = bind(self.address.host, self.address.port)
        self._server = await listen(self._runner, listener, backlog=_BACKLOG, tls=self._tls)
        self.address = Address(self.address.host, listener.getsockname()[1])

    async def close(self) -> None:
        """No new calls; those under way end; edges are told."""
        self._coordinator.draining = True
        if self._server is not None:
            self._server.close()
        await self._coordinator.close()
        await self._runner.cleanup()
