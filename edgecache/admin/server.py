"""The admin listener: binds, serves the admin API, and stops."""

import asyncio
import socket

from aiohttp import web

from edgecache.admin.anymethod import LOG, listen
from edgecache.admin.api import Access, make_app
from edgecache.admin.dialects.desk import Desk
from edgecache.admin.node import Node
from edgecache.admin.tokens import TokenCheck
from edgecache.config.listeners import AdminConfig
from edgecache.config.purge import PurgeConfig
from edgecache.config.units import Address
from edgecache.http.sockets import bind

_BACKLOG = 128


class AdminServer:
    """The admin API of a node on its own address."""

    def __init__(
        self, node: Node, config: AdminConfig, purge: PurgeConfig, token: str, *, desk: Desk | None = None
    ) -> None:
        """`desk`: for the clients of other products."""
        self._config = config
        self._access = Access(
            TokenCheck(token),
            config.address.loopback,
            config.hosts,
            purge.max_targets,
            purge.dialects.patterns == "match",
        )
        self._runner = web.AppRunner(
            make_app(node, self._access, desk), handle_signals=False, access_log=None, logger=LOG, shutdown_timeout=2.0
        )
        self._server: asyncio.Server | None = None
        self.address = config.address
        """Where it listens; the port is known once started."""

    async def start(self, listener: socket.socket | None = None) -> None:
        """Binds, or accepts on a bound socket, which is then the server's to close.

        Raises OSError where the address cannot be had.
        """
        await self._runner.setup()
        if listener is None:
            listener = bind(self._config.address.host, self._config.address.port)
        self._server = await listen(self._runner, listener, backlog=_BACKLOG)
        self.address = Address(self._config.address.host, listener.getsockname()[1])

    def shut(self) -> None:
        """Accept no more connections."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        self.shut()
        await self._runner.cleanup()
