"""A small writer of MaxMind-format databases, for tests: the format's description and nothing else stands behind it."""

import ipaddress
import struct
from collections.abc import Mapping
from typing import Any

MARKER = b"\xab\xcd\xefMaxMind.com"


def value(item: Any) -> bytes:
    """An item of the data section."""
    match item:
        case bool():
            return _control(14, int(item))
        case str():
            raw = item.encode()
            return _control(2, len(raw)) + raw
        case float():
            return _control(3, 8) + struct.pack(">d", item)
        case int():
            raw = item.to_bytes((item.bit_length() + 7) // 8, "big")
            return _control(6 if item < 1 << 32 else 9, len(raw)) + raw
        case dict():
            return _control(7, len(item)) + b"".join(value(k) + value(v) for k, v in item.items())
        case list():
            return _control(11, len(item)) + b"".join(map(value, item))
    raise TypeError(item)


def pointer(target: int) -> bytes:
    """To another value of the data section, in the widest form."""
    return bytes((1 << 5 | 3 << 3,)) + target.to_bytes(4, "big")


def _control(kind: int, size: int) -> bytes:
    extended = bytes((kind - 7,)) if kind > 7 else b""
    first = 0 if kind > 7 else kind << 5
    if size < 29:
        return bytes((first | size,)) + extended
    if size < 285:
        return bytes((first | 29,)) + extended + bytes((size - 29,))
    return bytes((first | 30,)) + extended + (size - 285).to_bytes(2, "big")


def database(
    networks: Mapping[str, Any], *, record_size: int = 24, ip_version: int = 6, kind: str = "Test", alias: bool = False
) -> bytes:
    """The longer prefix wins. `alias`: IPv4 hangs at ::ffff:0:0/96 and 2002::/16 as well, as in MaxMind's own files."""
    nodes: list[list[Any]] = [[None, None]]
    data, places = b"", {}
    for text, record in sorted(networks.items(), key=lambda pair: ipaddress.ip_network(pair[0]).prefixlen):
        network = ipaddress.ip_network(text)
        bits, length = int(network.network_address), network.prefixlen
        if network.version == 4 and ip_version == 6:
            length += 96
        width = 32 if ip_version == 4 else 128
        packed = value(record)
        if packed not in places:
            places[packed] = len(data)
            data += packed
        _insert(nodes, bits, length, width, ("data", places[packed]))
    if alias:
        node: Any = 0
        for _ in range(96):
            node = nodes[node][0]
        for text in ("::ffff:0:0/96", "2002::/16"):
            network = ipaddress.ip_network(text)
            _insert(nodes, int(network.network_address), network.prefixlen, 128, node)
    count = len(nodes)

    def number(item: Any) -> int:
        if item is None:
            return count
        return count + 16 + item[1] if isinstance(item, tuple) else item

    tree = b"".join(_node(number(left), number(right), record_size) for left, right in nodes)
    about = {
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1_700_000_000,
        "database_type": kind,
        "description": {"en": "for a test"},
        "ip_version": ip_version,
        "languages": ["en"],
        "node_count": count,
        "record_size": record_size,
    }
    return tree + bytes(16) + data + MARKER + value(about)


def _insert(nodes: list[list[Any]], bits: int, length: int, width: int, leaf: Any) -> None:
    at = 0
    for depth in range(length):
        side = bits >> (width - 1 - depth) & 1
        if depth == length - 1:
            nodes[at][side] = leaf
            return
        below = nodes[at][side]
        if not isinstance(below, int):
            nodes.append([below, below])
            below = nodes[at][side] = len(nodes) - 1
        at = below


def _node(left: int, right: int, size: int) -> bytes:
    if size == 28:
        middle = (left >> 24) << 4 | right >> 24
        return (left & 0xFFFFFF).to_bytes(3, "big") + bytes((middle,)) + (right & 0xFFFFFF).to_bytes(3, "big")
    return left.to_bytes(size // 8, "big") + right.to_bytes(size // 8, "big")
