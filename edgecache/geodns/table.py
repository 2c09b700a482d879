"""Zones and a snapshot as a table for the compiled path.

Every answer in it is the ordinary path's own: `Zone.ask` is asked once for each name and type, and what it says is put
into octets. What is the same for everybody is made when its name is first asked for, and kept; what depends on the
client when its list of PoPs first comes up after a change, so a change of health costs no more than a new table.
Delegations and odd packets are not in it: they are left to `respond`.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import dns.name
from dns.rdatatype import RdataType

from edgecache._native.dnsranges import Ranges as NativeRanges
from edgecache._native.dnstable import BY_CLIENT, Answer, Node, Table, siblings
from edgecache.geodns.answer import AAAA, A, Choice
from edgecache.geodns.mapping import Mapping, Ranges
from edgecache.geodns.query import AA, ANY, Rcode
from edgecache.geodns.snapshot import Snapshot
from edgecache.geodns.tally import Tally
from edgecache.geodns.wire import Body, lower
from edgecache.geodns.zone import Reply, Zone

_SAMPLE: Final = dns.name.Name([b"\0 any name under a wildcard"])
"""In questions that stand for all a wildcard answers. No alias leads to such a name."""
_OTHERS: Final = range(65_280, 65_535)
"""Types for private use (RFC 6895 §3.1): one that no name has stands for all that a name has not."""


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


class _DependsOnClient(Exception):
    """Raised in place of a choice; its argument is the geo name, in wire form and lower case."""


def _depends(owner: dns.name.Name, kind: int) -> Choice:  # noqa: ARG001
    raise _DependsOnClient(lower(owner))


@dataclass(frozen=True, slots=True)
class _Geo:
    """A question whose answer depends on the client, and the end of all names that are asked so."""

    zone: Zone
    asked: dns.name.Name
    kind: int
    end: dns.name.Name
    owner: bytes
    """The name that depends on the client: this one, the wildcard, or what an alias leads to."""


class _Served:
    """A zone, the types in it, and one that is not."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.kinds = {int(kind) for records in zone.nodes.values() for kind in records} | {A, AAAA}
        self.other = next(kind for kind in _OTHERS if kind not in self.kinds)


class TableMaker:
    """Makes tables for one set of zones; what does not depend on health is made once."""

    def __init__(self, zones: Sequence[Zone], tally: Tally) -> None:
        self._tally = tally
        self._nodes: dict[bytes, Node | int] = {}
        """Names that were never asked for have only the number of their zone."""
        self._zones: list[_Served] = []
        self._absent: list[Answer | None] = []
        self._geos: list[_Geo] = []
        for zone in sorted(zones, key=lambda zone: len(zone.origin)):
            self._zone(zone)
        self._counters = tally.layout.size

    def make(self, snapshot: Snapshot, searched: Searched) -> Table:
        """For this state of the world."""
        made: dict[tuple[int, Choice], Answer] = {}

        def ready(geo: int, number: int, client: bytes | None) -> Answer | object | None:
            what = self._geos[geo]
            choice = snapshot.choice(snapshot.names[what.owner], what.kind, number, client or b"")
            if choice.by_client and client is None:
                return BY_CLIENT
            if (geo, choice) not in made:
                made[geo, choice] = self._chosen(choice, what)
            return made[geo, choice]

        return Table(
            self._nodes,
            self._absent,
            outside=Answer(b"", 0, 0, int(Rcode.REFUSED)),
            ranges_4=searched.lists_4,
            ranges_6=searched.lists_6,
            lists=len(snapshot.mapping.lists),
            ready=ready,
            fill=self._fill,
            counters=self._counters,
            places_4=searched.places_4,
            places_6=searched.places_6,
        )

    def _chosen(self, choice: Choice, what: _Geo) -> Answer:
        reply = what.zone.ask(what.asked, what.kind, lambda owner, kind: choice)  # noqa: ARG005
        counted = (
            self._tally.pops[choice.pops[0]] if choice.pops else -1,
            self._tally.layout.reason(choice.reason),
        )
        return _octets(reply, what.asked, what.end)._replace(by_client=choice.by_client, counted=counted)

    def _zone(self, zone: Zone) -> None:
        """Every name there is, with those in between that have no records (RFC 4592 §2.2.2). Parents come first: what
        one says below a child's apex is never asked, since the deepest zone answers."""
        origin = lower(zone.origin)
        self._nodes = {wire: node for wire, node in self._nodes.items() if not _is_below(wire, origin)}
        number = len(self._zones)
        self._zones.append(_Served(zone))
        self._absent.append(_octets(zone.no_such_name(), _SAMPLE, zone.origin))
        self._nodes |= dict.fromkeys(siblings(map(lower, zone.nodes), origin), number)

    def _fill(self, wire: bytes) -> Node:
        """What is at a name, when it is first asked for; later tables have it from the start."""
        number = self._nodes[wire]
        if isinstance(number, Node):
            return number
        served = self._zones[number]
        zone, name = served.zone, dns.name.from_wire(wire, 0)[0]
        if zone.cut(name) is not None:
            node = Node(number, {}, None, slow=True)
        else:
            # An alias is answered with what it leads to, of any type there is. DS is asked of the parent (RFC 4035
            # §3.1.4.1), so an alias to a delegation has an answer of its own for it.
            records = zone.nodes.get(name, {})
            asked = {int(kind) for kind in (served.kinds if RdataType.CNAME in records else records)}
            asked |= {ANY, int(RdataType.DS)} | ({A, AAAA} if name in zone.geo else set())
            answers = {kind: self._ask(zone, name, kind) for kind in sorted(asked)}
            node = Node(number, answers, _constant(zone, name, served.other))
        self._nodes[wire] = node
        return node

    def _ask(self, zone: Zone, name: dns.name.Name, kind: int) -> Answer | int:
        try:
            return _constant(zone, name, kind)
        except _DependsOnClient as depends:
            asked, end = _question(name)
            self._geos.append(_Geo(zone, asked, kind, end, depends.args[0]))
            return len(self._geos) - 1


def _constant(zone: Zone, name: dns.name.Name, kind: int) -> Answer:
    """Raises `_DependsOnClient`."""
    asked, end = _question(name)
    return _octets(zone.ask(asked, kind, _depends), asked, end)


def _question(name: dns.name.Name) -> tuple[dns.name.Name, dns.name.Name]:
    """A name to ask for, and the end of all names that get the same answer."""
    if not name.is_wild():
        return name, name
    return _SAMPLE.concatenate(name.parent()), name.parent()


def _octets(reply: Reply, asked: dns.name.Name, end: dns.name.Name) -> Answer:
    body = Body(end)
    counts = []
    for section in (reply.answer, reply.authority, reply.additional):
        for rrset in section:
            body.add(None if rrset.name == asked else rrset.name, rrset, rrset.ttl)
        counts.append(sum(len(rrset) for rrset in section))
    flags = (AA if reply.authoritative else 0) | int(reply.rcode)
    return body.answer(counts[0], counts[1], flags=flags)


def _above(wire: bytes) -> set[bytes]:
    """A name and all above it."""
    found = set()
    while wire != b"\0":
        found.add(wire)
        wire = wire[wire[0] + 1 :]
    return found


def _is_below(wire: bytes, origin: bytes) -> bool:
    return len(wire) >= len(origin) and origin in _above(wire)
