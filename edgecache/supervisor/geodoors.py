"""The sockets of `edgecache geodns`: bound before anything answers, and held while processes come and go.

Each worker has its own UDP and TCP socket for each address (SO_REUSEPORT). The next configuration's workers read from
the same ones, so that a query that waits is answered whoever reads it.
"""

import errno
import socket
from dataclasses import dataclass

from edgecache.config.geodns import GeoDnsConfig
from edgecache.config.units import Address
from edgecache.http.sockets import bind, bind_both, taken


class DoorError(Exception):
    """An address that cannot be had; the message names the key."""


@dataclass(frozen=True, slots=True)
class GeoDoors:
    """Of one worker: for each entry of `listen` one of each."""

    udp: tuple[socket.socket, ...]
    tcp: tuple[socket.socket, ...]


class GeoDoorKeeper:
    def __init__(self) -> None:
        self._held: dict[tuple[Address, int], tuple[socket.socket, socket.socket]] = {}
        self._admin: dict[Address, socket.socket] = {}

    def open(self, config: GeoDnsConfig, workers: int) -> tuple[list[GeoDoors], socket.socket]:
        """One set for each worker, and the admin API's. Raises `DoorError`; what was open stays open."""
        rows = []
        for worker in range(workers):
            pairs = [self._pair(address, worker) for address in config.listen]
            rows.append(GeoDoors(tuple(udp for udp, _ in pairs), tuple(tcp for _, tcp in pairs)))
        address = config.admin.address
        if address not in self._admin:
            try:
                self._admin[address] = bind(address.host, address.port)
            except OSError as error:
                raise DoorError(f"admin {address}: {error.strerror or error}") from error
        return rows, self._admin[address]

    def _pair(self, address: Address, worker: int) -> tuple[socket.socket, socket.socket]:
        held = self._held.get((address, worker))
        if held is not None:
            return held
        first = self._held.get((address, 0))
        port = first[0].getsockname()[1] if first is not None else address.port
        if worker == 0 and taken(address.host, address.port):
            reason = "Address already in use: stop the program that listens there, or choose another with --listen"
            raise DoorError(f"listen {address}: {reason}")
        try:
            pair = bind_both(address.host, port)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno == errno.EACCES:
                reason += ": ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=)"
            raise DoorError(f"listen {address}: {reason}") from error
        self._held[address, worker] = pair
        return pair

    def keep_only(self, config: GeoDnsConfig, workers: int) -> None:
        """Close what this configuration does not use. Whoever still reads from one has a duplicate."""
        for (address, worker), pair in list(self._held.items()):
            if address not in config.listen or worker >= workers:
                for door in pair:
                    door.close()
                del self._held[address, worker]
        for address, door in list(self._admin.items()):
            if address != config.admin.address:
                door.close()
                del self._admin[address]

    def ports(self, config: GeoDnsConfig) -> list[Address]:
        """Where it answers, with the ports the system chose."""
        return [Address(one.host, self._held[one, 0][0].getsockname()[1]) for one in config.listen]

    def close(self) -> None:
        for pair in self._held.values():
            for door in pair:
                door.close()
        for door in self._admin.values():
            door.close()
        self._held.clear()
        self._admin.clear()
