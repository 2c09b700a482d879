"""PURE. What a zone says to a question (RFC 1034 §4.3.2, RFC 4592), before anything of it is put on the wire.

Names that depend on the client are asked of `geo`, so that this module knows nothing of clients.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset
from dns.rdatatype import RdataType

from edgecache.config.zones import Records, ZoneData
from edgecache.geodns.answer import AAAA, A, Choice, Reason
from edgecache.geodns.query import ANY, Rcode

_CHASES = 8
"""Aliases followed in one answer; then the resolver goes on by itself."""
_HINFO_TTL_S = 3600
_IN = dns.rdataclass.IN
_WILD = dns.name.Name([b"*"])

Geo = Callable[[dns.name.Name, int], Choice]
"""The choice for an owner (maybe a wildcard) and A or AAAA."""


@dataclass(slots=True)
class Reply:
    """The sections of an answer."""

    rcode: Rcode = Rcode.NOERROR
    authoritative: bool = True
    answer: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)
    additional: list[dns.rrset.RRset] = field(default_factory=list)
    choice: Choice | None = None
    """Of the geo name that was met; None: the answer is the same for everybody."""


class Zone:
    """One zone, ready to be asked."""

    def __init__(self, data: ZoneData) -> None:
        self.origin = data.origin
        self.nodes = data.nodes
        self.geo = data.geo
        self._names = {data.origin}
        for name in data.nodes:
            while name not in self._names:  # with what is in between and has no records: RFC 4592 §2.2.2
                self._names.add(name)
                name = name.parent()  # noqa: PLW2901 - up to what is known
        soa = data.nodes[data.origin][RdataType.SOA]
        self.soa = soa[0]
        self.negative_s = min(soa.ttl, self.soa.minimum)

    def ask(self, name: dns.name.Name, kind: int, geo: Geo) -> Reply:
        """`name` is in the zone. The reply's owners are in the case that was asked in."""
        reply = Reply()
        for _ in range(_CHASES):
            target = self._step(name, kind, geo, reply)
            if target is None or not target.is_subdomain(self.origin):
                break
            name = target
        return reply

    def no_such_name(self) -> Reply:
        """What is said of a name that does not exist."""
        reply = Reply(rcode=Rcode.NXDOMAIN)
        self._negative(reply, self.negative_s)
        return reply

    def _step(self, name: dns.name.Name, kind: int, geo: Geo, reply: Reply) -> dns.name.Name | None:
        """One name's part of the reply; returns where an alias leads."""
        cut = self.cut(name, kind)
        if cut is not None:
            self._refer(cut, reply)
            return None
        owner = self._owner(name)
        if owner is None:
            reply.rcode = Rcode.NXDOMAIN
            self._negative(reply, self.negative_s)
            return None
        records = self.nodes.get(owner, {})
        if kind == ANY:
            reply.answer.append(hinfo(name))
        elif kind in (A, AAAA) and owner in self.geo:
            self._geo(name, owner, kind, geo, reply)
        elif kind in records:
            reply.answer.append(_rrset(name, records[RdataType(kind)]))
            self._glue(records[RdataType(kind)], reply)
        elif RdataType.CNAME in records:
            alias = records[RdataType.CNAME]
            reply.answer.append(_rrset(name, alias))
            target: dns.name.Name = alias[0].target
            return target
        else:
            self._negative(reply, self.negative_s)
        return None

    def _geo(self, name: dns.name.Name, owner: dns.name.Name, kind: int, geo: Geo, reply: Reply) -> None:
        choice = reply.choice = geo(owner, kind)
        if choice.reason is Reason.NO_ADDRESS:
            self._negative(reply, min(self.negative_s, choice.ttl_s))
            return
        rrset = dns.rrset.RRset(name, _IN, RdataType(kind))
        rrset.update_ttl(choice.ttl_s)
        for address in choice.addresses:
            rrset.add(dns.rdata.from_wire(_IN, RdataType(kind), address, 0, len(address)))
        reply.answer.append(rrset)

    def cut(self, name: dns.name.Name, kind: int = ANY) -> dns.name.Name | None:
        """The highest delegation on the way to a name. DS records are the parent's (RFC 4035 §3.1.4.1)."""
        labels = len(name) - len(self.origin)
        for depth in range(1, labels + 1):
            above = dns.name.Name(name.labels[labels - depth :])
            if RdataType.NS in self.nodes.get(above, {}):
                return None if above == name and kind == RdataType.DS else above
        return None

    def _owner(self, name: dns.name.Name) -> dns.name.Name | None:
        """The name itself, or the wildcard that stands for it (RFC 4592 §3.3.1); None: there is no such name."""
        if name in self._names:
            return name
        above = name.parent()
        while above not in self._names:
            above = above.parent()
        wild = dns.name.Name(_WILD.labels + above.labels)
        return wild if wild in self._names else None

    def _refer(self, cut: dns.name.Name, reply: Reply) -> None:
        servers = self.nodes[cut][RdataType.NS]
        reply.authoritative = bool(reply.answer)
        reply.authority.append(_rrset(cut, servers))
        self._glue(servers, reply)

    def _glue(self, servers: dns.rdataset.Rdataset, reply: Reply) -> None:
        """Addresses of the name servers that are within the zone."""
        if servers.rdtype != RdataType.NS:
            return
        for server in servers:
            records: Records = self.nodes.get(server.target, {})
            for kind in (RdataType.A, RdataType.AAAA):
                if kind in records:
                    reply.additional.append(_rrset(server.target, records[kind]))

    def _negative(self, reply: Reply, ttl_s: int) -> None:
        """RFC 2308 §3: the SOA says for how long it is remembered."""
        soa = dns.rrset.RRset(self.origin, _IN, RdataType.SOA)
        soa.add(self.soa, ttl_s)
        reply.authority.append(soa)


def _rrset(name: dns.name.Name, records: dns.rdataset.Rdataset) -> dns.rrset.RRset:
    rrset = dns.rrset.RRset(name, _IN, records.rdtype)
    for rdata in records:
        rrset.add(rdata, records.ttl)
    return rrset


def hinfo(name: dns.name.Name) -> dns.rrset.RRset:
    """RFC 8482 §4.2: the least answer to ANY."""
    return dns.rrset.from_text(name, _HINFO_TTL_S, "IN", "HINFO", '"RFC8482" ""')


def find(zones: Iterable[Zone], name: dns.name.Name) -> Zone | None:
    """The zone a name is in: the deepest."""
    return max(
        (zone for zone in zones if name.is_subdomain(zone.origin)), key=lambda zone: len(zone.origin), default=None
    )
