"""Zones and a snapshot as a table for the compiled path. What it is given is what `zone` would say, octet for octet but
for compression; what takes more than a ready answer is left to `respond`."""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import dns.name
import dns.rdataset
from dns.rdatatype import RdataType

from edgecache._native.dnsranges import Ranges as NativeRanges
from edgecache._native.dnstable import BY_CLIENT, Answer, Node, Table, siblings
from edgecache.config.zones import Records
from edgecache.geodns.answer import AAAA, A, Choice
from edgecache.geodns.mapping import Mapping, Ranges
from edgecache.geodns.query import AA, ANY, Rcode
from edgecache.geodns.snapshot import COMPRESSED, Snapshot
from edgecache.geodns.tally import Tally
from edgecache.geodns.zone import Zone, hinfo

_BY_SLOW = 0
"""The number of a geo that is never ready."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A mapping's ranges as the compiled path searches them: made once for each mapping, before processes fork."""

    lists_4: NativeRanges
    lists_6: NativeRanges
    places_4: NativeRanges
    places_6: NativeRanges
    """By the place of the country's counter."""

    @classmethod
    def of(cls, mapping: Mapping, countries: Sequence[int]) -> "Searched":
        """`countries`: the place of the counter of each of the mapping's."""
        return cls(
            _native(mapping.v4), _native(mapping.v6), _native(mapping.country_4, countries),
            _native(mapping.country_6, countries),
        )  # fmt: skip


def _native(ranges: Ranges, numbers: Sequence[int] | None = None) -> NativeRanges:
    ids = ranges.ids if numbers is None else array("I", [numbers[number] for number in ranges.ids])
    return NativeRanges(ranges.hi, ranges.lo, ids)


@dataclass(slots=True)
class _Wire:
    """Records, with pointers to the question's name and to the zone's within it."""

    apex: dns.name.Name
    data: bytearray = field(default_factory=bytearray)
    patches: list[tuple[int, int]] = field(default_factory=list)

    def name(self, name: dns.name.Name) -> None:
        """What is above the zone's own name, then a pointer to that."""
        if not name.is_subdomain(self.apex):
            self.data += name.to_wire() or b""
            return
        above = name.relativize(self.apex)
        for label in above.labels:
            self.data += bytes((len(label),)) + label
        self.patches.append((len(self.data), 12 - len(self.apex.to_wire() or b"")))
        self.data += b"\0\0"

    def record(self, kind: int, ttl_s: int, rdata: object) -> None:
        """Behind its owner."""
        self.data += struct.pack(">HHIH", kind, 1, ttl_s, 0)
        start = len(self.data)
        if kind == RdataType.SOA:
            self.name(rdata.mname)  # type: ignore[attr-defined]
            self.name(rdata.rname)  # type: ignore[attr-defined]
            times = (rdata.serial, rdata.refresh, rdata.retry, rdata.expire, rdata.minimum)  # type: ignore[attr-defined]
            self.data += struct.pack(">5I", *times)
        elif kind in (RdataType.NS, RdataType.CNAME):
            self.name(rdata.target)  # type: ignore[attr-defined]
        else:
            self.data += rdata.to_wire()  # type: ignore[attr-defined]
        struct.pack_into(">H", self.data, start - 2, len(self.data) - start)


class TableMaker:
    """Makes tables for one set of zones; what does not depend on health is made once."""

    def __init__(self, zones: Sequence[Zone], tally: Tally) -> None:
        self._tally = tally
        self._nodes: dict[bytes, Node] = {}
        self._absent: list[Answer | None] = []
        self._geos: list[tuple[bytes, int, Zone]] = [(b"", 0, zones[0])]
        for index, zone in enumerate(zones):
            self._absent.append(_negative(zone, Rcode.NXDOMAIN, zone.negative_s))
            self._zone(index, zone)
        self._counters = tally.layout.size

    def make(self, snapshot: Snapshot, searched: Searched) -> Table:
        """For this state of the world."""

        def ready(geo: int, number: int, client: bytes | None) -> Answer | object | None:
            owner, kind, zone = self._geos[geo]
            name = snapshot.names.get(owner)
            if geo == _BY_SLOW or name is None:
                return None
            choice = snapshot.choice(name, kind, number, client or b"")
            if choice.by_client and client is None:
                return BY_CLIENT
            return self._answer(zone, kind, choice, snapshot)

        return Table(
            self._nodes,
            self._absent,
            outside=Answer(b"", 0, 0, int(Rcode.REFUSED)),
            ranges_4=searched.lists_4,
            ranges_6=searched.lists_6,
            lists=len(snapshot.mapping.lists),
            geos=len(self._geos),
            ready=ready,
            counters=self._counters,
            places_4=searched.places_4,
            places_6=searched.places_6,
        )

    def _answer(self, zone: Zone, kind: int, choice: Choice, snapshot: Snapshot) -> Answer:
        counted = (
            self._tally.pops[choice.pops[0]] if choice.pops else -1,
            self._tally.layout.reason(choice.reason),
        )
        if not choice.addresses:
            empty = _negative(zone, Rcode.NOERROR, min(zone.negative_s, choice.ttl_s))
            return empty._replace(by_client=choice.by_client, counted=counted)
        records = snapshot.records(kind, choice)
        return Answer(records, len(choice.addresses), by_client=choice.by_client, counted=counted)

    def _zone(self, index: int, zone: Zone) -> None:
        nodata = _negative(zone, Rcode.NOERROR, zone.negative_s)
        found: dict[bytes, Node] = {}
        for name in {*zone.nodes, *zone.geo}:
            cut = zone.cut(name)
            if cut is not None and cut != name:
                continue  # not ours to answer: the delegation is what is found
            owner = name.canonicalize().to_wire() or b""
            found[owner] = self._node(index, zone, name, zone.nodes.get(name, {}), nodata)
        apex = zone.origin.canonicalize().to_wire() or b""
        empty = Node(index, {int(ANY): _any(zone)}, nodata)
        for owner in siblings(found, apex):
            found.setdefault(owner, empty)
        self._nodes |= found

    def _node(self, index: int, zone: Zone, name: dns.name.Name, records: Records, nodata: Answer) -> Node:
        if RdataType.NS in records and name != zone.origin:
            return Node(index, {}, None, slow=True)
        kinds: dict[int, Answer | int] = {int(ANY): _any(zone)}
        if RdataType.CNAME in records:
            # Where it leads within the zone is looked up for the client; every type but CNAME itself goes that way.
            kinds[int(RdataType.CNAME)] = _fixed(zone, records[RdataType.CNAME])
            inside = records[RdataType.CNAME][0].target.is_subdomain(zone.origin)
            return Node(index, kinds, None if inside else _fixed(zone, records[RdataType.CNAME]))
        for kind, rdataset in records.items():
            glued = kind == RdataType.NS and zone.has_glue(rdataset)
            kinds[int(kind)] = _BY_SLOW if glued else _fixed(zone, rdataset)
        if name in zone.geo:
            owner = name.canonicalize().to_wire() or b""
            for asked in (A, AAAA):
                kinds[asked] = len(self._geos)
                self._geos.append((owner, asked, zone))
        return Node(index, kinds, nodata)


def _fixed(zone: Zone, rdataset: dns.rdataset.Rdataset) -> Answer:
    wire = _Wire(zone.origin)
    for rdata in rdataset:
        wire.data += COMPRESSED
        wire.record(int(rdataset.rdtype), rdataset.ttl, rdata)
    return Answer(bytes(wire.data), len(rdataset), patches=tuple(wire.patches))


def _any(zone: Zone) -> Answer:
    rrset = hinfo(zone.origin)
    wire = _Wire(zone.origin)
    wire.data += COMPRESSED
    wire.record(int(rrset.rdtype), rrset.ttl, rrset[0])
    return Answer(bytes(wire.data), 1)


def _negative(zone: Zone, rcode: Rcode, ttl_s: int) -> Answer:
    wire = _Wire(zone.origin)
    wire.name(zone.origin)
    wire.record(int(RdataType.SOA), ttl_s, zone.soa)
    return Answer(bytes(wire.data), 0, 1, AA | int(rcode), tuple(wire.patches))
