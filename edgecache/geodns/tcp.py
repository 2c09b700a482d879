"""DNS over TCP (RFC 7766): queries one behind the other on a connection, answered in order.

A connection is kept until it has been idle for long enough, does not take what it is sent, or there are too many.
"""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from edgecache.http.sweep import NEVER, Sweeper

if TYPE_CHECKING:
    from edgecache.config.geodns import GeoLimitsConfig

Respond = Callable[[bytes, bytes], bytes | None]
"""(query, client's address) -> the answer, or None: what is no query ends the connection."""
Count = Callable[[str], None]

_HIGH_WATER = 65_536


class TcpService:
    """What all connections of a process share."""

    def __init__(self, limits: "GeoLimitsConfig", respond: Respond, count: Count) -> None:
        self.limits = limits
        self.respond = respond
        self.count = count
        self.open: set[Connection] = set()
        self.by_client: Counter[bytes] = Counter()
        loop = asyncio.get_running_loop()
        period_s = Sweeper.period_for(limits.tcp_idle_timeout_s, limits.tcp_write_timeout_s)
        self.sweeper = Sweeper(loop, period_s)
        self.leaving = False

    def protocol(self) -> "Connection":
        return Connection(self)

    def leave(self) -> None:
        """Answers what has been asked; then no more."""
        self.leaving = True
        for connection in list(self.open):
            connection.leave()


class Connection(asyncio.Protocol):
    """One client's."""

    def __init__(self, service: TcpService) -> None:
        self._service = service
        self._transport: asyncio.Transport | None = None
        self._client = b""
        self._buffer = bytearray()
        self._paused = False
        self.deadline = NEVER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        service, limits = self._service, self._service.limits
        transport = self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self._client = packed(name[0]) if name else b""
        service.count("tcp_connections")
        crowded = len(service.open) >= limits.tcp_connections
        if not self._client or crowded or service.by_client[self._client] >= limits.tcp_per_client or service.leaving:
            service.count("tcp_refused")
            self._client = b""
            transport.abort()
            return
        service.open.add(self)
        service.by_client[self._client] += 1
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        service.sweeper.add(self)
        self.deadline = service.sweeper.after(limits.tcp_idle_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        service = self._service
        service.sweeper.discard(self)
        if self in service.open:
            service.open.discard(self)
            service.by_client[self._client] -= 1
            if not service.by_client[self._client]:
                del service.by_client[self._client]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._answer()

    def _answer(self) -> None:
        """Whole queries, as long as the client takes the answers."""
        transport, buffer = self._transport, self._buffer
        assert transport is not None
        while not self._paused and len(buffer) >= 2:
            end = 2 + (buffer[0] << 8 | buffer[1])
            if len(buffer) < end:
                break
            query = bytes(buffer[2:end])
            del buffer[:end]
            answer = self._service.respond(query, self._client)
            if answer is None:
                transport.abort()
                return
            self._service.count("tcp_queries")
            transport.write(len(answer).to_bytes(2, "big") + answer)
            if not self._paused:
                self.deadline = self._service.sweeper.after(self._service.limits.tcp_idle_timeout_s)
        if self._service.leaving:
            self.leave()

    def pause_writing(self) -> None:
        self._paused = True
        self.deadline = self._service.sweeper.after(self._service.limits.tcp_write_timeout_s)
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self.deadline = self._service.sweeper.after(self._service.limits.tcp_idle_timeout_s)
        if self._transport is not None:
            self._transport.resume_reading()
        self._answer()

    def eof_received(self) -> bool:
        return False

    def leave(self) -> None:
        """What is written still goes out."""
        if self._transport is not None and not self._paused:
            self._transport.close()

    def expire(self) -> None:
        """For the sweeper."""
        self.deadline = NEVER
        self._service.count("tcp_timed_out")
        if self._transport is not None:
            self._transport.abort()


def packed(host: str) -> bytes:
    """An address in 4 or 16 octets; IPv4 on a socket of IPv6 is IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.packed
    return address.packed
