"""The public side's socket: accepts connections, bounds their number, and drains them when the process stops.

What happens on one connection is `edge/connection.py`'s affair; who answers is the handler's.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import cast

from edgecache._native.fastlane import FastConnection
from edgecache._native.http1 import Limits
from edgecache._native.lane import Lane
from edgecache.edge.connection import ClientConnection, ClientLimits, Counters, Shared
from edgecache.edge.descriptors import Descriptors
from edgecache.edge.exchange import Handler
from edgecache.http.sockets import BACKLOG, bind
from edgecache.http.sweep import Sweeper
from edgecache.http.wire import Round


class Listener:
    """Listens on one address. Start it once; after `drain` it is done for good."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: ClientLimits | None = None,
        decoder_limits: Limits | None = None,
        max_connections: int = 100_000,
        counters: Counters | None = None,
        changed: Callable[[int], None] = lambda _: None,
        lane: Lane | None = None,
        descriptors: Descriptors | None = None,
    ) -> None:
        """`changed` is told how many more, or fewer, connections are open. `lane` stands in front of every connection
        and answers plain hits by itself. `descriptors`: what the system grants, if not what it does at the start."""
        self._handler = handler
        self._limits = limits or ClientLimits()
        self._decoder_limits = decoder_limits or Limits()
        self._max_connections = max_connections
        self.lane = lane
        self._descriptors = descriptors
        self._server: asyncio.Server | None = None
        self._shared: Shared | None = None
        self._ended = asyncio.Event()
        self._changed = changed
        self.counters = counters if counters is not None else Counters()
        self.sockets: Sequence[socket.socket] = ()

    @property
    def port(self) -> int:
        """The port listened on; the first of several."""
        number: int = self.sockets[0].getsockname()[1]
        return number

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._shared.connections) if self._shared is not None else 0

    @property
    def requests(self) -> int:
        """How many have been read, those that the lane answered left out."""
        return self._shared.requests if self._shared is not None else 0

    async def start(self, address: tuple[str, int] | socket.socket, tls_context: ssl.SSLContext | None = None) -> None:
        """Bind and accept, or accept on a bound socket, which is then the listener's to close.

        Port 0: any free one, see `port`. Raises OSError where the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        shared = self._shared = Shared(
            handler=self._handler,
            sweeper=Sweeper(loop, self._limits.period_s()),
            round=Round(loop),
            limits=self._limits,
            decoder_limits=self._decoder_limits,
            max_connections=self._max_connections,
            descriptors=self._descriptors or Descriptors.of_this_process(),
            on_lost=self._one_less,
            counters=self.counters,
            changed=self._changed,
        )
        self._server = await loop.create_server(
            lambda: self._connection(shared, loop),
            sock=address if isinstance(address, socket.socket) else bind(*address),
            ssl=tls_context,
            ssl_handshake_timeout=self._limits.head_s if tls_context is not None else None,
            ssl_shutdown_timeout=self._limits.linger_s if tls_context is not None else None,
            backlog=BACKLOG,
        )
        self.sockets = tuple(self._server.sockets)

    async def shut(self) -> None:
        """Accept no more. Again changes nothing."""
        if self._server is not None and self._server.is_serving():
            for _ in range(2):  # connections the kernel has completed are taken before the door closes
                await asyncio.sleep(0)
            self._server.close()

    async def drain(self, timeout: float, idle_s: float = 0.0) -> bool:  # noqa: ASYNC109 - a bound on politeness
        """Stop accepting, close idle connections, let requests in flight finish with `Connection: close`.

        For `idle_s` seconds idle connections stay open: whoever is about to send a request on one gets its answer, and
        with it the word that the connection closes, instead of a connection that is gone.
        True when all have ended by themselves; after `timeout` seconds those left over are cut, and False.
        """
        await self.shut()
        server, shared = self._server, self._shared
        self._server = None
        if server is None or shared is None:
            return True
        shared.draining = True
        if self.lane is not None:
            self.lane.open = False  # from now on answers say Connection: close
        begun = asyncio.get_running_loop().time()
        if idle_s and shared.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), min(idle_s, timeout))
        shared.idle_ends = True
        for connection in list(shared.connections):
            connection.wake()
        timeout = max(0.0, timeout - (asyncio.get_running_loop().time() - begun))
        whole = True
        try:
            async with asyncio.timeout(timeout):
                if shared.connections:
                    await self._ended.wait()
                while shared.tasks:  # handlers that still wait for an origin though their client has gone
                    await asyncio.wait(shared.tasks)
        except TimeoutError:
            whole = False
            for connection in list(shared.connections):
                connection.transport.abort()
            for task in list(shared.tasks):
                task.cancel()
            if shared.tasks:
                await asyncio.wait(shared.tasks)
        await server.wait_closed()
        return whole

    def _connection(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> asyncio.BaseProtocol:
        connection = ClientConnection(shared, loop)
        front = connection if self.lane is None else FastConnection(self.lane, connection)
        return cast("asyncio.BaseProtocol", front)

    def _one_less(self) -> None:
        if self._shared is not None and not self._shared.connections:
            self._ended.set()
