"""Random zones, PoPs, places and health, and questions about them, each from a seed."""

import random
import struct

import dns.name

from edgecache._native.dnsguard import Cookies
from edgecache._native.dnstable import Table
from edgecache.config.geodns import GeoDnsConfig
from edgecache.config.zones import read_zones
from edgecache.geodns.answer import GeoName, Health, Pop
from edgecache.geodns.mapping import Mapping, PopList, Ranges
from edgecache.geodns.snapshot import Snapshot
from edgecache.geodns.table import Searched, TableMaker
from edgecache.geodns.tally import Layout, Rows, Tally
from edgecache.geodns.wire import lower
from edgecache.geodns.zone import Zone

NOW = 1_700_000_000
COOKIES = Cookies([bytes(range(16))])
PEERS = (bytes([10, 0, 0, 1]), bytes([200, 1, 2, 3]), b"\x20\1" + bytes(14), bytes(16))
COUNTRIES = ("", "DE", "FR")

_ORIGINS = (("example.com",), ("example.com", "example.net"), ("Example.com", "a.example.com"))
_OWNERS = (
    *(
        "@",
        "www",
        "a",
        "b.a",
        "WWW.b",
        "*.b",
        "*.a.b",
        "*",
        "mail",
        "deep.down.under",
        "sub",
        "ns1",
        "ns1.sub",
        "alias",
    ),
    *("*.alias", "b.c.www"),
)
_DATA = {
    "A": ["192.0.2.1", "192.0.2.2"],
    "AAAA": ["2001:db8::1"],
    "TXT": ["text", "more text", "t" * 300],
    "CAA": ['0 issue "ca.example"'],
    "MX": ["10 mail.example.com.", "20 mail.example.net."],
    "SRV": ["1 2 3 www.example.com."],
    "TYPE65280": [r"\# 2 0102"],
}
_TARGETS = (
    *("www.example.com.", "a.example.com.", "b.a.example.com.", "nowhere.example.com.", "www.example.net."),
    *("a.b.Example.com.", "alias.example.com.", "sub.example.com."),
)
_LABELS = ("www", "a", "b", "c", "mail", "x" * 40, "*", "WwW", "ns1", "deep", "down", "under", "sub", "alias", "q")
_ENDS = ("example.com", "Example.COM", "example.net", "org", "a.example.com")
_TYPES = (1, 2, 5, 6, 15, 16, 28, 33, 43, 64, 65, 99, 128, 249, 250, 251, 252, 253, 254, 255, 256, 257, 65280, 0, 41)


class World:
    """Everything a responder is made of."""

    def __init__(self, rng: random.Random) -> None:
        count = rng.randint(1, 4)
        self.pops = tuple(
            Pop(
                f"p{number}",
                tuple(bytes([10, 0, number, k]) for k in range(rng.randint(0, 3))),
                tuple(bytes(15) + bytes([number * 16 + k]) for k in range(rng.randint(0, 2))),
                rng.choice([1.0, 2.5]),
                rng.choice([1.0, 1.0, 0.5, 0.0]),
            )
            for number in range(count)
        )
        lists = tuple(_list(rng, count) for _ in range(rng.randint(1, 5)))
        last = len(lists) - 1
        self.mapping = Mapping(
            _ranges(rng, 4, last), _ranges(rng, 6, last), lists, _ranges(rng, 4, 2), _ranges(rng, 6, 2), COUNTRIES
        )
        pops = [{"name": pop.name, "latitude": 0, "longitude": 0, "addresses": ["192.0.2.1"]} for pop in self.pops]
        data, _ = read_zones(GeoDnsConfig.model_validate({"pops": pops, "zones": _zones(rng)}))
        self.names: dict[bytes, GeoName] = {}
        for zone in data:
            for owner, asked in zone.geo.items():
                down = int(asked.all_down[1:]) if asked.all_down.startswith("p") else asked.all_down
                mine = {rng.randrange(count) for _ in range(3)} | {down if isinstance(down, int) else 0}
                key = lower(owner)
                self.names[key] = GeoName(
                    key, frozenset(mine), asked.answers, int(asked.ttl_s), int(asked.min_ttl_s), down  # type: ignore[arg-type]
                )  # fmt: skip
        self.zones = [Zone(one) for one in data]
        layout = Layout()
        tally = Tally(layout, Rows(layout).row(0), [pop.name for pop in self.pops], COUNTRIES)
        self._maker = TableMaker(self.zones, tally)
        self._searched = Searched.of(self.mapping, tally.countries)
        self.snapshot = self.other_health(rng)

    def table(self, snapshot: Snapshot) -> Table:
        """For the compiled path."""
        return self._maker.make(snapshot, self._searched)

    def other_health(self, rng: random.Random) -> Snapshot:
        """The same world on another day."""
        usable = tuple(rng.random() < 0.7 for _ in self.pops)
        settled = tuple(rng.choice([0.0, 3.7, 1e9]) for _ in self.pops)
        return Snapshot(self.mapping, self.pops, Health(rng.getrandbits(30), usable, settled), self.names)


def _list(rng: random.Random, count: int) -> PopList:
    order, ranks, rank = list(range(count)), [], 0
    rng.shuffle(order)
    always = rng.random() < 0.5
    for _ in order:
        ranks.append(rank)
        rank += 1 if always else rng.randint(0, 1)
    return PopList(tuple(order), tuple(ranks), rng.choice(["distance", "default", "country:DE"]))


def _ranges(rng: random.Random, version: int, most: int) -> Ranges:
    made = Ranges.empty(version)
    shift = 16 if version == 4 else 112
    for start in sorted({0, *(rng.randrange(1, 1 << 16) for _ in range(rng.randint(0, 40)))}):
        made.append(start << shift, rng.randint(0, most))
    return made


def _zones(rng: random.Random) -> list[dict[str, object]]:
    made: list[dict[str, object]] = []
    for origin in rng.choice(_ORIGINS):
        records: list[dict[str, object]] = []
        geo: list[dict[str, object]] = []
        for owner in {owner.lower(): owner for owner in rng.sample(_OWNERS, rng.randint(0, 10))}.values():
            what = rng.choice(["geo", "records", "both", "cname", "ns"])
            if what in ("geo", "both"):
                down = rng.choice(["every", "nearest", "p0"])
                geo.append({"name": owner, "answers": rng.randint(1, 4), "ttl": rng.randint(0, 100), "all_down": down})
                geo[-1]["min_ttl"] = 0
            if what in ("records", "both"):
                for kind in rng.sample(sorted(_DATA), rng.randint(1, 3)):
                    if what == "records" or kind not in ("A", "AAAA"):
                        data = rng.sample(_DATA[kind], rng.randint(1, len(_DATA[kind])))
                        records.append({"name": owner, "type": kind, "data": data, "ttl": rng.randint(0, 9999)})
            if what == "cname" and owner != "@":
                records.append({"name": owner, "type": "CNAME", "data": rng.choice(_TARGETS)})
            if what == "ns" and owner != "@" and "*" not in owner:
                records.append({"name": owner, "type": "NS", "data": ["ns1.example.com.", "ns1.sub.example.com."]})
        servers = rng.choice([["ns1"], ["ns1", "ns2.example.net"]])
        made.append(
            {"name": origin, "nameservers": servers, "records": records, "geo": geo, "ttl": rng.randint(0, 9999)}
        )
    return made


def option(code: int, data: bytes) -> bytes:
    """Of EDNS."""
    return struct.pack(">HH", code, len(data)) + data


def subnet(rng: random.Random) -> bytes:
    """A client subnet option as it should be."""
    family, width = rng.choice([(1, 32), (2, 128)])
    source = rng.choice([0, 24, 32, width - 72 if width > 72 else 25, rng.randint(0, width)])
    number = rng.getrandbits(width) >> (width - source) << (width - source) if source else 0
    octets = number.to_bytes(width // 8, "big")[: (source + 7) // 8]
    return option(8, struct.pack(">HBB", family, source, 0) + octets)


def cookie(rng: random.Random) -> bytes:
    """A cookie option: a client's alone, a good one, an old one, a forged one."""
    client = bytes(8)
    made, _ = COOKIES.reply(client, rng.choice(PEERS), NOW - rng.choice([0, 100, 2000, 4000]))
    return option(10, rng.choice([client, made, client + bytes(16), client + b"x" * 9]))


def question(rng: random.Random) -> bytes:
    """A plain query, mostly for a name that is there or nearly so."""
    front = rng.choices(_LABELS, k=rng.choice([0, 1, 1, 2, 2, 3, 4]))
    name = dns.name.from_text(".".join([*front, rng.choice(_ENDS)]))
    kind = rng.choice((1, 28, 16) if rng.random() < 0.5 else _TYPES)
    head = struct.pack(">HH", rng.getrandbits(16), rng.choice([0, 0x0100, 0x0120, 0x0110]))
    body = name.to_wire() + struct.pack(">HH", kind, 1)  # type: ignore[operator]
    if rng.random() < 0.3:
        return head + struct.pack(">HHHH", 1, 0, 0, 0) + body
    options = [made for made in (subnet(rng), cookie(rng)) if rng.random() < 0.5]
    rng.shuffle(options)
    data = b"".join(options)
    size = rng.choice([0, 512, 600, 1232, 4096])
    opt = b"\0" + struct.pack(">HHIH", 41, size, rng.choice([0, 0x8000]), len(data)) + data
    return head + struct.pack(">HHHH", 1, 0, 0, 1) + body + opt


def damaged(rng: random.Random, packet: bytes) -> bytes:
    """The same with a few octets changed, cut off, or added."""
    made = bytearray(packet)
    for _ in range(rng.choice((1, 1, 2, 4))):
        made[rng.randrange(len(made))] = rng.choice((0, 1, 63, 64, 192, 255, rng.randrange(256)))
    if rng.random() < 0.2:
        del made[rng.randrange(len(made) + 1) :]
    elif rng.random() < 0.2:
        made += rng.randbytes(rng.randrange(1, 40))
    return bytes(made)
