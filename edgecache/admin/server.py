"""The admin listener: binds, serves the admin API, and stops."""

import socket

from aiohttp import web

from edgecache.admin.api import Access, make_app
from edgecache.admin.node import Node
from edgecache.admin.tokens import TokenCheck
from edgecache.config.model import AdminConfig, PurgeConfig
from edgecache.config.units import Address

_BACKLOG = 128


class AdminServer:
    """The admin API of a node on its own address."""

    def __init__(self, node: Node, config: AdminConfig, purge: PurgeConfig, token: str) -> None:
        self._config = config
        self._access = Access(TokenCheck(token), config.address.loopback, config.hosts, purge.max_targets)
        self._runner = web.AppRunner(
            make_app(node, self._access), handle_signals=False, access_log=None, shutdown_timeout=2.0
        )
        self.address = config.address
        """Where it listens; the port is known once started."""

    async def start(self) -> None:
        """Raises OSError where the address cannot be had."""
        await self._runner.setup()
        listener = _bind(self._config.address)
        try:
            await web.SockSite(self._runner, listener, backlog=_BACKLOG).start()
        except BaseException:
            listener.close()
            raise
        self.address = Address(self._config.address.host, listener.getsockname()[1])

    async def close(self) -> None:
        await self._runner.cleanup()


def _bind(address: Address) -> socket.socket:
    """ "" listens on every address: both families where the machine has IPv6."""
    if address.host == "" and socket.has_dualstack_ipv6():
        return socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
