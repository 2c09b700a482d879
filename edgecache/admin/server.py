"""The admin listener: binds, serves the admin API, and stops."""

import asyncio
import socket

from aiohttp import web
from aiohttp.http_parser import HttpRequestParserPy

from edgecache.admin.api import Access, make_app
from edgecache.admin.dialects.desk import Desk
from edgecache.admin.node import Node
from edgecache.admin.tokens import TokenCheck
from edgecache.config.listeners import AdminConfig
from edgecache.config.purge import PurgeConfig
from edgecache.config.units import Address
from edgecache.http.sockets import bind

_BACKLOG = 128
_BUFFER_BYTES = 1 << 16
_FIELD_LINE_BYTES = 64 * 1024
"""Clients of other products write whole lists of tags into a field."""


class AdminServer:
    """The admin API of a node on its own address."""

    def __init__(
        self, node: Node, config: AdminConfig, purge: PurgeConfig, token: str, *, desk: Desk | None = None
    ) -> None:
        """`desk`: for the clients of other products."""
        self._config = config
        self._access = Access(TokenCheck(token), config.address.loopback, config.hosts, purge.max_targets)
        self._runner = web.AppRunner(
            make_app(node, self._access, desk), handle_signals=False, access_log=None, shutdown_timeout=2.0
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
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._protocol, sock=listener, backlog=_BACKLOG)
        except BaseException:
            listener.close()
            raise
        self.address = Address(self._config.address.host, listener.getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _protocol(self) -> asyncio.Protocol:
        """aiohttp's own, but for the parser: the compiled one knows no BAN and no PURGEKEYS."""
        server = self._runner.server
        assert server is not None  # it has been set up
        protocol = server()
        protocol._parser = HttpRequestParserPy(  # there is no other way to choose it
            protocol,
            asyncio.get_running_loop(),
            _BUFFER_BYTES,
            max_line_size=_FIELD_LINE_BYTES,
            max_field_size=_FIELD_LINE_BYTES,
            payload_exception=web.RequestPayloadError,
        )
        return protocol
