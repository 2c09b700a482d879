"""What the DNS servers are given and asked: a database of networks, PoPs, and queries, all made from one seed.

The database has the layout of GeoIP2-City ("MaxMind DB File Format Specification" 2.0) in a tree of IPv6 that holds
IPv4 too. Networks are of mixed sizes; neighbours mostly lie in one country but not in one city, as in real ones, so
that what a server merges by PoP is merged here as it would be there.
"""

import math
import random
import struct
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

from edgecache.geodns.countries import COUNTRIES

ZONE = "bench.example"
NAME = f"www.{ZONE}"
TTL_S = 60
_EMPTY = 0xFFFFFFFF
_RECORD = 0x80000000
_CITIES = 250
"""In each country."""
_SPREAD_DEGREES = 2.5
_SEPARATOR = 16
_MARKER = b"\xab\xcd\xefMaxMind.com"


class BenchPop(NamedTuple):
    """A PoP: in one continent, since some servers decide by that."""

    name: str
    continent: str
    latitude: float
    longitude: float
    address: str
    address_6: str


POPS: tuple[BenchPop, ...] = tuple(
    BenchPop(name, continent, latitude, longitude, f"192.0.2.{number}", f"2001:db8::{number}")
    for number, (name, continent, latitude, longitude) in enumerate(
        (
            ("fra", "EU", 50.1, 8.7), ("lon", "EU", 51.5, -0.1), ("mad", "EU", 40.4, -3.7), ("sto", "EU", 59.3, 18.1),
            ("nyc", "NA", 40.7, -74.0), ("lax", "NA", 34.1, -118.2), ("mia", "NA", 25.8, -80.2),
            ("gru", "SA", -23.5, -46.6), ("jnb", "AF", -26.2, 28.0), ("sin", "AS", 1.4, 103.8),
            ("nrt", "AS", 35.7, 139.7), ("bom", "AS", 19.1, 72.9), ("syd", "OC", -33.9, 151.2),
        ),
        1,
    )
)  # fmt: skip
CONTINENTS = ("AF", "AN", "AS", "EU", "NA", "OC", "SA")


class Place(NamedTuple):
    """A city."""

    country: str
    continent: str
    latitude: float
    longitude: float


Network = tuple[int, int, int]
"""(address of 128 bits, prefix length of 128, number of its place). IPv4 lies in ::/96."""


def places(rng: random.Random) -> list[Place]:
    """Every country's cities, one country after the other."""
    made = []
    for country, (continent, latitude, longitude) in sorted(COUNTRIES.items()):
        for _ in range(_CITIES):
            here = max(-89.0, min(89.0, rng.gauss(latitude, _SPREAD_DEGREES)))
            there = (rng.gauss(longitude, _SPREAD_DEGREES) + 180) % 360 - 180
            made.append(Place(country, continent, round(here, 4), round(there, 4)))
    return made


def networks(rng: random.Random, count: int, cities: int) -> Iterator[Network]:
    """About `count` networks in ascending order: three in four of IPv4, the others of IPv6."""
    countries = cities // _CITIES
    blocks = [octet for octet in range(1, 224) if octet not in (10, 127)]
    each = count * 3 // 4 / len(blocks)
    for octet in blocks:
        yield from _cut(rng, octet << 24, 8, 28, 32, each, 96, countries)
    blocks_6 = range(0x2400, 0x2C00, 4)
    each = count / 4 / len(blocks_6)
    for block in blocks_6:
        yield from _cut(rng, block << 112, 14, 64, 128, each, 0, countries)


def _cut(
    rng: random.Random, base: int, length: int, most: int, bits: int, wanted: float, more: int, countries: int
) -> Iterator[Network]:
    """Halves a network until about `wanted` pieces are left; a country holds some pieces on end."""
    left, country = 0, 0
    stack = [(base, length, wanted)]
    while stack:
        address, size, pieces = stack.pop()
        if pieces > 1.5 and size < most:
            share = rng.uniform(0.25, 0.75)
            stack.append((address | 1 << (bits - size - 1), size + 1, pieces * (1 - share)))
            stack.append((address, size + 1, pieces * share))
            continue
        if left <= 0:
            left, country = rng.randrange(1, 120), rng.randrange(countries)
        left -= 1
        yield address, size + more, country * _CITIES + int(_CITIES * rng.random() ** 2)


def database(seed: int, count: int) -> tuple[bytes, int]:
    """A file of about `count` networks, and how many there are."""
    rng = random.Random(seed)
    cities = places(rng)
    left, right = array("I", [_EMPTY]), array("I", [_EMPTY])
    path = [0] * 129
    before, before_length, made = 0, 0, 0
    for address, length, place in networks(rng, count, len(cities)):
        # Nodes down to where this network parts from the last one are there already.
        depth = 128 - (address ^ before).bit_length() if made else 0
        for at in range(min(depth, before_length - 1, length - 1) + 1 if made else 1, length):
            node = len(left)
            left.append(_EMPTY)
            right.append(_EMPTY)
            (right if address >> (128 - at) & 1 else left)[path[at - 1]] = node
            path[at] = node
        (right if address >> (128 - length) & 1 else left)[path[length - 1]] = _RECORD | place
        before, before_length, made = address, length, made + 1
    data, offsets = _data(cities)
    return _file(left, right, data, offsets), made


def _file(left: "array[int]", right: "array[int]", data: bytes, offsets: list[int]) -> bytes:
    count = len(left)
    numbers = array("I", bytes(8 * count))
    for side, nodes in ((0, left), (1, right)):
        numbers[side::2] = array(
            "I",
            [
                count if node == _EMPTY else count + _SEPARATOR + offsets[node & ~_RECORD] if node & _RECORD else node
                for node in nodes
            ],
        )
    numbers.byteswap()
    about = {
        "binary_format_major_version": _sized(5, 2),
        "binary_format_minor_version": _sized(5, 0),
        "build_epoch": _sized(9, 1_767_225_600),
        "database_type": "GeoIP2-City",
        "description": {"en": "made for a benchmark"},
        "ip_version": _sized(5, 6),
        "languages": ["en"],
        "node_count": _sized(6, count),
        "record_size": _sized(5, 32),
    }
    return numbers.tobytes() + bytes(_SEPARATOR) + data + _MARKER + _value(about)


def _data(cities: list[Place]) -> tuple[bytes, list[int]]:
    """Records, and where each begins."""
    data, offsets = bytearray(), []
    for number, city in enumerate(cities):
        offsets.append(len(data))
        names = {"en": f"City {number}", "de": f"Stadt {number}", "fr": f"Ville {number}"}
        data += _value(
            {
                "city": {"geoname_id": _sized(6, number + 1), "names": names},
                "continent": {"code": city.continent, "names": {"en": city.continent}},
                "country": {"iso_code": city.country, "names": {"en": city.country}},
                "location": {"latitude": city.latitude, "longitude": city.longitude, "time_zone": "Etc/UTC"},
            }
        )
    return bytes(data), offsets


class _Number(NamedTuple):
    kind: int
    value: int


def _sized(kind: int, value: int) -> _Number:
    return _Number(kind, value)


def _value(item: Any) -> bytes:
    match item:
        case _Number(kind, number):
            raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
            return _control(kind, len(raw)) + raw
        case str():
            raw = item.encode()
            return _control(2, len(raw)) + raw
        case float():
            return _control(3, 8) + struct.pack(">d", item)
        case dict():
            return _control(7, len(item)) + b"".join(_value(key) + _value(value) for key, value in item.items())
        case list():
            return _control(11, len(item)) + b"".join(map(_value, item))
    raise TypeError(item)


def _control(kind: int, size: int) -> bytes:
    if size > 28:
        raise ValueError("no value here is that long")
    return bytes((size, kind - 7)) if kind > 7 else bytes((kind << 5 | size,))


def distance(one: Place, pop: BenchPop) -> float:
    """Radians along the great circle."""
    a, b = math.radians(one.latitude), math.radians(pop.latitude)
    turn = math.radians(one.longitude - pop.longitude)
    return math.acos(max(-1.0, min(1.0, math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(turn))))


# --- queries, as dnsperf -B reads them ---


def wire_name(name: str) -> bytes:
    """Uncompressed."""
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"


def query(name: str, family: int = 0, address: bytes = b"", source: int = 0, *, edns: bool = True) -> bytes:
    """For A; with a client subnet where a family is given."""
    front = struct.pack(">HHHHHH", 0, 0x0000, 1, 0, 0, int(edns)) + wire_name(name) + b"\0\1\0\1"
    if not edns:
        return front
    option = struct.pack(">HHHBB", 8, 4 + len(address), family, source, 0) + address if family else b""
    return front + b"\0" + struct.pack(">HHIH", 41, 1232, 0, len(option)) + option


def queries(work: str, count: int, seed: int) -> bytes:
    """`count` queries for a row, each behind its length. Clients are anywhere in the networks, a /24 or a /56 each."""
    rng = random.Random(seed)
    out = bytearray()
    for _ in range(count):
        match work:
            case "subnet-4":
                packet = query(NAME, 1, bytes((rng.randrange(1, 224), rng.randrange(256), rng.randrange(256))), 24)
            case "subnet-6":
                address = rng.randrange(0x2400 << 40, 0x2C00 << 40).to_bytes(7, "big")
                packet = query(NAME, 2, address, 56)
            case "plain":
                packet = query(NAME, edns=False)
            case "absent":
                packet = query(f"{rng.randrange(1 << 40):x}.{ZONE}")
            case _:
                raise ValueError(f"no queries are called {work!r}")
        out += struct.pack(">H", len(packet)) + packet
    return bytes(out)
