"""A GeoDNS without sockets: a configuration, a responder, and the compiled path's table for the same."""

import ipaddress
import math
from pathlib import Path
from typing import Any

import dns.message

from edgecache._native.dnsguard import Cookies
from edgecache._native.dnstable import Table
from edgecache.config.load_geodns import LoadedGeo, load_geodns
from edgecache.geodns import plan
from edgecache.geodns.answer import Health
from edgecache.geodns.location import build
from edgecache.geodns.mmdb import Database
from edgecache.geodns.respond import Responder
from edgecache.geodns.snapshot import Snapshot
from edgecache.geodns.table import Searched, TableMaker
from edgecache.geodns.tally import Layout, Rows, Tally
from edgecache.geodns.zone import Zone
from tests.geodns.mmdbfile import database

SECRET = bytes(range(16))
NOW = 1_800_000_000
RESOLVER = bytes((203, 0, 113, 53))

NETWORKS: dict[str, Any] = {
    "192.0.2.0/24": {"country_code": "DE", "latitude": 50.0, "longitude": 8.0},
    "198.51.100.0/24": {"country_code": "US", "latitude": 41.0, "longitude": -74.0},
    "203.0.113.0/25": {"country_code": "SG"},
    "2001:db8:1::/48": {"country_code": "DE"},
    "2001:db8:2::/48": {"country_code": "US"},
}

YAML = (
    """
pops:
  - {name: fra, latitude: 50.1, longitude: 8.7, addresses: [192.0.2.10, "2001:db8:f::1"]}
  - {name: nyc, latitude: 40.7, longitude: -74.0, addresses: [198.51.100.10, 198.51.100.11]}
  - {name: nyc-b, latitude: 40.7, longitude: -74.0, addresses: [198.51.100.20], weight: 3}
  - {name: sin, latitude: 1.3, longitude: 103.8, addresses: [203.0.113.10, "2001:db8:a::1"], capacity_share: 0.5}
  - {name: reserve, latitude: 0, longitude: 0, addresses: [192.0.2.99], standby: true}
zones:
  - name: z.example
    nameservers: [ns1, ns.other.example]
    negative_ttl: 30s
    records:
      - {name: ns1, type: A, data: 192.0.2.53}
      - {name: ns1, type: AAAA, data: "2001:db8::53"}
      - {name: txt, type: TXT, data: [hello, world]}
      - {name: caa, type: CAA, data: '0 issue "ca.example"'}
      - {name: mail, type: MX, data: 10 mx.other.example.}
      - {name: alias, type: CNAME, data: www}
      - {name: away, type: CNAME, data: www.other.example.}
      - {name: nowhere, type: CNAME, data: missing}
      - {name: loop, type: CNAME, data: loop}
      - {name: deep.ent, type: A, data: 192.0.2.7}
      - {name: "*.wild", type: TXT, data: any}
      - {name: sub, type: NS, data: ns1.sub}
      - {name: ns1.sub, type: A, data: 192.0.2.77}
      - {name: big, type: TXT, data: ["AAAA", "BBBB", "CCCC"]}
    geo:
      - www
      - {name: "*.geo", answers: 2, ttl: 20s}
      - {name: one, pops: [fra, sin], all_down: reserve}
      - {name: near, pops: [nyc], all_down: nearest}
      - "@"
  - {name: other.z.example, nameservers: [ns.other.example]}
""".replace('AAAA"', "a" * 250 + '"')
    .replace("BBBB", "b" * 250)
    .replace("CCCC", "c" * 250)
)


class World:
    def __init__(self, folder: Path, text: str = YAML, networks: dict[str, Any] | None = None) -> None:
        file = folder / "geodns.yaml"
        file.write_text(text, encoding="utf-8")
        self.loaded: LoadedGeo = load_geodns(file)
        config = self.loaded.config
        data = database(NETWORKS if networks is None else networks)
        self.mapping = build([Database(data)], plan.networks(config), plan.orders(config))
        self.pops = plan.pops(config)
        self.zones = [Zone(zone) for zone in self.loaded.zones]
        self.names = plan.names(config, self.loaded.zones)
        self.cookies = Cookies([SECRET])
        layout = Layout()
        self.rows = Rows(layout)
        self.tally = Tally(layout, self.rows.row(0), [pop.name for pop in self.pops], self.mapping.countries)
        self.maker = TableMaker(self.zones, self.tally)
        self.searched = Searched.of(self.mapping, self.tally.countries)
        self.snapshot = self.with_health()
        self.responder = Responder(self.zones, self.snapshot, cookies=self.cookies, clock=lambda: NOW)

    def with_health(self, *down: str, settled_s: float = math.inf) -> Snapshot:
        usable = tuple(pop.name not in down for pop in self.pops)
        return Snapshot(self.mapping, self.pops, Health(0, usable, (settled_s,) * len(usable)), self.names)

    def table(self, snapshot: Snapshot | None = None) -> Table:
        return self.maker.make(snapshot or self.snapshot, self.searched)

    def ask(
        self, name: str, kind: str = "A", *, client: str | None = None, tcp: bool = True, **more: Any
    ) -> dns.message.Message:
        """Over TCP, where nothing is cut, unless told otherwise. `client`: a client subnet."""
        query = make(name, kind, client=client, **more)
        wire = self.responder.respond(query.to_wire(), RESOLVER, tcp=tcp)
        assert wire is not None
        answer = dns.message.from_wire(wire)
        assert query.is_response(answer)
        return answer


def make(name: str, kind: str = "A", *, client: str | None = None, **more: Any) -> dns.message.QueryMessage:
    options = list(more.pop("options", ()))
    if client is not None:
        net = ipaddress.ip_network(client)
        options.append(dns.edns.ECSOption(str(net.network_address), net.prefixlen))
    if options:
        more.setdefault("use_edns", 0)
    return dns.message.make_query(name, kind, options=options or None, **more)


def addresses(answer: dns.message.Message) -> list[str]:
    return [rdata.address for rrset in answer.answer for rdata in rrset if hasattr(rdata, "address")]


def scope(answer: dns.message.Message) -> int | None:
    return next((option.scopelen for option in answer.options if isinstance(option, dns.edns.ECSOption)), None)
