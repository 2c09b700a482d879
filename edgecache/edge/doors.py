"""The doors of a node: every listening socket, bound before anything serves and held while workers come and go.

Each worker has a socket of its own for each public address (SO_REUSEPORT). Whoever holds the doors opens them for a
configuration, and again for the next one: what both need is kept, with the connections that wait in its queue.
"""

import errno
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from edgecache.config.model import Config
from edgecache.config.units import Address
from edgecache.http.sockets import bind, hush, taken

_PUBLIC = "listen"
_Place = tuple[str, Address, int]
"""What it is for, where, and the how-manieth of the same: port 0 may be asked for twice."""


class DoorError(Exception):
    """An address that cannot be had; the message names the key."""


@dataclass(frozen=True, slots=True)
class Doors:
    """The sockets of one configuration. Bound; who accepts on one makes it listen, on a duplicate of its own."""

    public: tuple[tuple[socket.socket, ...], ...]
    """For each worker one for each entry of `listen`, in its order."""
    admin: socket.socket

    def addresses(self) -> tuple[Address, ...]:
        """Where clients are accepted, in the order of `listen`, with the ports the system chose."""
        return tuple(_address(door) for door in self.public[0])

    def all(self) -> set[socket.socket]:
        return {self.admin, *(door for row in self.public for door in row)}


class DoorKeeper:
    """Holds every socket that was opened and not given up."""

    def __init__(self, *, share: bool) -> None:
        """`share`: several processes accept on one address."""
        self._share = share
        self._held: dict[_Place, list[socket.socket]] = {}

    def open(self, config: Config, workers: int) -> Doors:
        """The doors this configuration needs: those that are open already, and new ones.

        Raises `DoorError`; what was opened for this call is closed then.
        """
        new: list[socket.socket] = []
        seen: Counter[Address] = Counter()
        rows: list[list[socket.socket]] = []
        try:
            for listen in config.listen:
                place = (_PUBLIC, listen.address, seen[listen.address])
                seen[listen.address] += 1
                rows.append(self._row(place, workers, new))
            (admin,) = self._row(("admin", config.admin.address, 0), 1, new)
        except DoorError:
            self._give_up(set(new))
            raise
        return Doors(tuple(zip(*rows, strict=True)), admin)

    def keep_only(self, doors: Doors) -> None:
        """Close all others. Whoever still accepts on one of them has a duplicate, and is to empty its queue."""
        self._give_up({door for row in self._held.values() for door in row} - doors.all())

    def close_public(self) -> None:
        """Give up where clients come in; the operator may still ask."""
        self._give_up({door for place, row in self._held.items() if place[0] == _PUBLIC for door in row})

    def close(self) -> None:
        """Give up all."""
        self._give_up({door for row in self._held.values() for door in row})

    def forget(self, but: Iterable[socket.socket]) -> None:
        """In a forked process: let go of what others accept on. These few are the caller's then."""
        self._give_up({door for row in self._held.values() for door in row} - set(but), hushed=False)
        self._held.clear()

    def _row(self, place: _Place, number: int, new: list[socket.socket]) -> list[socket.socket]:
        what, address, _ = place
        row = self._held.setdefault(place, [])
        share = self._share and what == _PUBLIC
        try:
            if share and not row and taken(address.host, address.port):
                raise DoorError(f"{what} {address}: {_TAKEN}")
            while len(row) < number:
                port = _address(row[0]).port if row else address.port
                made = bind(address.host, port, share=share)
                row.append(made)
                new.append(made)
        except OSError as error:
            reason = _TAKEN if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            raise DoorError(f"{what} {address}: {reason}") from error
        return row[:number]

    def _give_up(self, doors: set[socket.socket], *, hushed: bool = True) -> None:
        for place, row in list(self._held.items()):
            kept = [door for door in row if door not in doors]
            if kept:
                self._held[place] = kept
            else:
                del self._held[place]
        for door in doors:
            if hushed:
                hush(door)
            door.close()


_TAKEN = "Address already in use: stop the program that listens there, or choose another with --listen and --admin"


def _address(door: socket.socket) -> Address:
    name = door.getsockname()
    return Address(name[0], name[1])
