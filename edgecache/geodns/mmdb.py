"""Reading a whole MaxMind-format database: its search tree walked once, each record decoded once.

A look-up per address is what the usual readers are made for; here every network is wanted, in order. The file is read
into memory first, so that one that is overwritten in place harms nobody, and nothing in it is trusted: a tree that is
visited more often than it has nodes, a pointer out of the file, a record of too many values refuse the file.
"""

import io
import struct
from array import array
from pathlib import Path
from typing import Any

import maxminddb

from edgecache._native.mmdbdata import Records
from edgecache.geodns.mapping import Numbers

_MARKER = b"\xab\xcd\xefMaxMind.com"
_SEPARATOR = 16
"""Octets of zero between the tree and the records."""
_MOST_BYTES = 2 << 30
_LOW = (1 << 64) - 1


class BadDatabase(Exception):
    """A file that cannot be used; the message says why."""


class Database:
    """One file, in memory."""

    def __init__(self, data: bytes) -> None:
        """Raises `BadDatabase`."""
        try:
            reader = maxminddb.Reader(io.BytesIO(data), maxminddb.MODE_FD)
            about = reader.metadata()
        except (maxminddb.InvalidDatabaseError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise BadDatabase(str(error) or "no MaxMind database") from error
        except (LookupError, struct.error, RecursionError) as error:
            raise BadDatabase("its description cannot be read") from error
        sizes = (about.node_count, about.record_size, about.ip_version)
        if not all(isinstance(size, int) for size in sizes):
            raise BadDatabase("its description cannot be read")
        if about.record_size not in (24, 28, 32) or about.ip_version not in (4, 6):
            raise BadDatabase(f"record size {about.record_size} and IP version {about.ip_version} are not known")
        self.version: int = about.ip_version
        self.nodes: int = about.node_count
        self.kind = str(about.database_type)
        self.built_at = about.build_epoch if isinstance(about.build_epoch, int) else 0
        tree = self.nodes * about.record_size // 4
        end = data.rfind(_MARKER)
        if self.nodes < 1 or tree + _SEPARATOR > end:
            raise BadDatabase("its search tree is longer than the file")
        self._left, self._right = _records(data[:tree], about.record_size)
        self._size = end - tree - _SEPARATOR
        self._records = Records(data[tree + _SEPARATOR : end])

    def walk(self, version: int) -> tuple[Numbers, Numbers | None, Numbers]:
        """Every address of a family: starts (upper and lower halves for IPv6), and where the record of what begins
        there is (0: none). Neighbours with the same record are one. Raises `BadDatabase`."""
        if version == 4:
            return self._walk_4()
        return self._walk_6()

    def has_4(self) -> bool:
        """Does it know anything of IPv4? A file for IPv6 alone may have that part empty."""
        return self._root_4() != self.nodes

    def _root_4(self) -> int:
        """The node, or record, that all of IPv4 hangs from: in a tree of IPv6 behind 96 zeros."""
        node = 0
        if self.version == 6:
            for _ in range(96):
                if node >= self.nodes:
                    break
                node = self._left[node]
        return node

    def _walk_4(self) -> tuple[Numbers, None, Numbers]:
        left, right, nodes = self._left, self._right, self.nodes
        starts, found = array("I"), array("I")
        add_start, add_found = starts.append, found.append
        last = -1
        budget = nodes
        stack = [(self._root_4(), 0, 1 << 31)]
        pop, push = stack.pop, stack.append
        while stack:
            node, base, bit = pop()
            while node < nodes:
                budget -= 1
                if not bit or budget < 0:
                    raise BadDatabase("its search tree is corrupt")
                push((right[node], base | bit, bit >> 1))
                node = left[node]
                bit >>= 1
            if node != last:
                add_start(base)
                add_found(node - nodes)
                last = node
        return starts, None, found

    def _walk_6(self) -> tuple[Numbers, Numbers, Numbers]:
        left, right, nodes = self._left, self._right, self.nodes
        upper, lower, found = array("Q"), array("Q"), array("I")
        if self.version == 4:
            return array("Q", [0]), array("Q", [0]), array("I", [0])
        inner = self._root_4()
        # IPv4 hangs in the tree again where IPv6 embeds it (mapped, 6to4, Teredo): known by its node, and left out.
        last = -1
        budget = nodes
        stack = [(0, 0, 1 << 127)]
        while stack:
            node, base, bit = stack.pop()
            while node < nodes:
                if node == inner:
                    node = nodes
                    break
                budget -= 1
                if not bit or budget < 0:
                    raise BadDatabase("its search tree is corrupt")
                stack.append((right[node], base | bit, bit >> 1))
                node = left[node]
                bit >>= 1
            if node != last:
                upper.append(base >> 64)
                lower.append(base & _LOW)
                found.append(node - nodes)
                last = node
        return upper, lower, found

    def record(self, place: int) -> Any:
        """The record at a place that `walk` gave. Raises `BadDatabase`."""
        offset = place - _SEPARATOR
        if not 0 <= offset < self._size:
            raise BadDatabase("a network's record lies outside of the file")
        try:
            return self._records.decode(offset)
        except ValueError as error:
            raise BadDatabase(f"a record cannot be read: {error}") from error


_HIGH_NIBBLE = bytes(octet >> 4 for octet in range(256))
_LOW_NIBBLE = bytes(octet & 15 for octet in range(256))


def _records(tree: bytes, size: int) -> tuple[Numbers, Numbers]:
    """Left and right records of all nodes, unpacked by slices rather than one by one."""
    width = size // 4
    count = len(tree) // width
    sides = []
    for side in (0, 1):
        wide = bytearray(4 * count)
        if size == 28:  # three octets each, and in the middle one that holds the upper four bits of both
            wide[0::4] = tree[3::7].translate(_HIGH_NIBBLE if side == 0 else _LOW_NIBBLE)
            for k in range(3):
                wide[k + 1 :: 4] = tree[side * 4 + k :: 7]
        else:
            octets = size // 8
            for k in range(octets):
                wide[4 - octets + k :: 4] = tree[side * octets + k :: width]
        one = array("I", bytes(wide))
        one.byteswap()
        sides.append(one)
    return sides[0], sides[1]


def read(path: Path) -> Database:
    """Raises `BadDatabase`, also where the file cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BadDatabase(f"it cannot be read: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise BadDatabase("it is larger than 2 GiB")
    return Database(data)
