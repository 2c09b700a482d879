"""From a packet to a packet: everything that is asked, common or not. The compiled path answers what it can by itself
and hands on the rest; this one is the measure of both.

Nothing here raises for what a stranger sent: a bug is an answer of SERVFAIL, counted and logged.
"""

import logging
import struct
from collections.abc import Callable, Sequence
from typing import Any

import dns.exception
import dns.name
import dns.renderer
import dns.rrset
from dns.rdatatype import RdataType

from edgecache._native.dnsguard import Cookies
from edgecache.geodns.answer import Choice, client_key, scope_of
from edgecache.geodns.query import AA, COOKIE, DO, ECS, OPT, QR, RD, TC, Edns, Query, Rcode, Refusal, Subnet, read
from edgecache.geodns.snapshot import Snapshot
from edgecache.geodns.zone import Reply, Zone, find

_log = logging.getLogger("edgecache.geodns")

AMPLIFICATION = 3
"""Over UDP, to an address that has not proved by a cookie that it is its own, an answer is at most as many times as
long as the query."""
LEAST_UDP = 512
MOST_TCP = 65_535

_Renderer: Any = dns.renderer.Renderer  # its methods have no types

Told = Callable[[int, int, Choice | None, Rcode], None]
"""Counts an answer: IP version and number of the client's address, the choice, the RCODE."""


class Responder:
    """Answers packets. A reload replaces it; health and database replace its snapshot."""

    def __init__(
        self,
        zones: Sequence[Zone],
        snapshot: Snapshot,
        *,
        cookies: Cookies | None,
        clock: Callable[[], float],
        udp_size: int = 1232,
        told: Told | None = None,
    ) -> None:
        self._zones = {zone.origin: zone for zone in zones}
        self.snapshot = snapshot
        self._cookies = cookies
        self._clock = clock
        self._udp_size = udp_size
        self._told = told

    def respond(self, packet: bytes, client: bytes, *, tcp: bool = False) -> bytes | None:
        """None: silence. `client`: its address, 4 or 16 octets."""
        asked = read(packet)
        if asked is None:
            return None
        try:
            return self._answer(asked, len(packet), client, tcp=tcp)
        except Exception:  # noqa: BLE001 - the boundary: whatever it is, the client learns that it is ours
            _log.exception("a query could not be answered: %s", packet.hex())
            return _header(asked.id, asked.flags, Rcode.SERVFAIL)

    def _answer(self, asked: Query | Refusal, length: int, client: bytes, *, tcp: bool) -> bytes:
        proven, options = tcp, b""
        edns = asked.edns
        if edns is not None and edns.cookie is not None and self._cookies is not None:
            cookie, good = self._cookies.reply(edns.cookie, client, int(self._clock()))
            options += struct.pack(">HH", COOKIE, len(cookie)) + cookie
            proven = proven or good
        if tcp:
            most = MOST_TCP
        else:
            most = min(self._udp_size, max(LEAST_UDP, edns.size if edns is not None else LEAST_UDP))
            most = most if proven else min(most, AMPLIFICATION * length)
        version, number = _client(edns, client)
        if isinstance(asked, Refusal):
            self._tell(version, number, None, asked.rcode)
            if edns is not None and edns.subnet is not None and asked.rcode != Rcode.FORMERR:
                options += _subnet_option(edns.subnet, 0)
            return _refuse(asked, options, self._udp_size)
        zone = self._zone(asked.name)
        if zone is None:
            self._tell(version, number, None, Rcode.REFUSED)
            if edns is not None and edns.subnet is not None:
                options += _subnet_option(edns.subnet, 0)
            refused = Refusal(asked.id, asked.flags, Rcode.REFUSED, asked.question, edns)
            return _refuse(refused, options, self._udp_size)
        chosen, scope = self.snapshot.mapping.find(version, number)
        key = client_key(version, number)

        def geo(owner: dns.name.Name, kind: int) -> Choice:
            name = self.snapshot.names[owner.canonicalize().to_wire() or b""]
            return self.snapshot.choice(name, kind, chosen, key)

        reply = zone.ask(asked.name, asked.kind, geo)
        self._tell(version, number, reply.choice, reply.rcode)
        if edns is not None and edns.subnet is not None:
            depends = reply.choice is not None and edns.subnet.source > 0
            options += _subnet_option(
                edns.subnet, scope_of(version, scope, reply.choice) if depends and reply.choice is not None else 0
            )
        return _write(asked, reply, options, most, self._udp_size)

    def _tell(self, version: int, number: int, choice: Choice | None, rcode: Rcode) -> None:
        if self._told is not None:
            self._told(version, number, choice, rcode)

    def _zone(self, name: dns.name.Name) -> Zone | None:
        while True:
            zone = self._zones.get(name)
            if zone is not None or name == dns.name.root:
                return zone
            name = name.parent()

    def where(self, name: dns.name.Name) -> Zone | None:
        """The zone a name is in."""
        return find(self._zones.values(), name)


def _client(edns: Edns | None, client: bytes) -> tuple[int, int]:
    """Whose place decides: the client subnet's, else the resolver's (RFC 7871 §7.2.1). A source prefix of 0 is the wish
    not to be looked at."""
    if edns is not None and edns.subnet is not None and edns.subnet.source:
        return edns.subnet.version, edns.subnet.number
    return (4 if len(client) == 4 else 6), int.from_bytes(client, "big")


def _subnet_option(subnet: Subnet, scope: int) -> bytes:
    """As it came, with a scope."""
    value = struct.pack(">HBB", subnet.family, subnet.source, scope) + subnet.address
    return struct.pack(">HH", ECS, len(value)) + value


def _opt(edns: Edns, rcode: Rcode, options: bytes, size: int) -> bytes:
    bits = DO if edns.dnssec_ok else 0  # RFC 3225 §3
    return b"\0" + struct.pack(">HHBBHH", OPT, size, rcode >> 4, 0, bits, len(options)) + options


def _header(number: int, flags: int, rcode: int, counts: tuple[int, int, int, int] = (0, 0, 0, 0)) -> bytes:
    """`flags`: of the query, of which the opcode and RD are said again."""
    return struct.pack(">6H", number, QR | flags & (0x7800 | RD) | rcode & 15, *counts)


def _refuse(asked: Refusal, options: bytes, size: int) -> bytes:
    head = _header(
        asked.id, asked.flags, asked.rcode, (1 if asked.question else 0, 0, 0, 1 if asked.edns is not None else 0)
    )
    opt = _opt(asked.edns, asked.rcode, options, size) if asked.edns is not None else b""
    return head + asked.question + opt


def _write(asked: Query, reply: Reply, options: bytes, most: int, size: int) -> bytes:
    """What must be there and does not fit is left out whole, and TC says so (RFC 2181 §9); what is extra may be."""
    opt = _opt(asked.edns, reply.rcode, options, size) if asked.edns is not None else b""
    flags = QR | asked.flags & RD | (AA if reply.authoritative else 0) | reply.rcode & 15
    room = most - len(opt)
    renderer = _Renderer(asked.id, flags, max(room, 12 + len(asked.question)))
    renderer.add_question(asked.name, RdataType(asked.kind))
    try:
        for section, rrsets in ((dns.renderer.ANSWER, reply.answer), (dns.renderer.AUTHORITY, reply.authority)):
            for rrset in rrsets:
                renderer.add_rrset(section, rrset, want_shuffle=False)  # the nearest first
    except dns.exception.TooBig:
        counts = (1, 0, 0, 1 if opt else 0)
        head = struct.pack(">6H", asked.id, flags | TC, *counts)
        return head + asked.question + opt
    for rrset in reply.additional:
        try:
            renderer.add_rrset(dns.renderer.ADDITIONAL, rrset, want_shuffle=False)
        except dns.exception.TooBig:
            break
    renderer.write_header()
    wire = bytearray(renderer.get_wire())
    if opt:
        (extra,) = struct.unpack_from(">H", wire, 10)
        struct.pack_into(">H", wire, 10, extra + 1)
    return bytes(wire) + opt
