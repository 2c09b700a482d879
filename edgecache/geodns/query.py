"""PURE. Reading a query from the wire, strictly: what is odd is named, and nothing is repaired.

A packet becomes a `Query`, a `Refusal` with the RCODE to send, or silence (None) where even that would be too much:
what is too short for a header, and what is a response, since two servers that answer each other never stop.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import dns.name

HEADER: Final = 12
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPT, IXFR, AXFR, ANY = 41, 251, 252, 255
IN: Final = 1
DO: Final = 0x8000
ECS, COOKIE = 8, 10
"""Options of EDNS (RFC 7871, RFC 7873)."""
_NOTIFY, _UPDATE = 4, 5
_META: Final = frozenset({249, 250, 253, 254})
"""TKEY, TSIG, MAILB, MAILA: types for transactions we do not take part in, and two that are long obsolete."""


class Rcode(IntEnum):
    """RFC 6895 §2.3."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Subnet(NamedTuple):
    """A client subnet option (RFC 7871 §6)."""

    family: int
    """1: IPv4, 2: IPv6; 0 with a source of 0."""
    source: int
    address: bytes
    """As many octets as the source prefix needs."""

    @property
    def version(self) -> int:
        return 6 if self.family == 2 else 4

    @property
    def number(self) -> int:
        """The address as a number, zeros behind the prefix."""
        return int.from_bytes(self.address.ljust(16 if self.family == 2 else 4, b"\0"), "big")


@dataclass(frozen=True, slots=True)
class Edns:
    """An OPT record."""

    size: int
    dnssec_ok: bool
    subnet: Subnet | None = None
    cookie: bytes | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A question that can be answered."""

    id: int
    flags: int
    name: dns.name.Name
    """In the case it was asked in."""
    kind: int
    question: bytes
    """As sent."""
    edns: Edns | None
    """None: the query has no OPT record, and the answer may have none."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is not answered, with what is said instead."""

    id: int
    flags: int
    rcode: Rcode
    question: bytes = b""
    edns: Edns | None = None


class _Odd(Exception):
    """Malformed."""


def read(packet: bytes) -> Query | Refusal | None:
    """Never raises."""
    if len(packet) < HEADER:
        return None
    number, flags, questions, answers, authority, additional = struct.unpack_from(">6H", packet)
    if flags & QR:
        return None
    opcode = flags >> 11 & 15
    if opcode:
        rcode = Rcode.REFUSED if opcode in (_NOTIFY, _UPDATE) else Rcode.NOTIMP
        return Refusal(number, flags, rcode, b"", _edns_of_another(packet, questions, answers + authority, additional))
    question, edns = b"", None
    try:
        if questions == 0:
            return _only_a_cookie(packet, number, flags, answers, authority, additional)
        if questions > 1:  # RFC 9619
            raise _Odd
        name, at = _question_name(packet)
        if at + 4 > len(packet):
            raise _Odd
        kind, class_ = struct.unpack_from(">HH", packet, at)
        at += 4
        question = packet[HEADER:at]
        if answers:
            raise _Odd
        opt = _opt(packet, at, authority, additional)
        if opt is not None:
            size, version, bits, data = opt
            edns = Edns(size, bool(bits & DO))
            if version:  # RFC 6891 §6.1.3
                return Refusal(number, flags, Rcode.BADVERS, question, edns)
            edns = _options(edns, data)
    except _Odd:
        return Refusal(number, flags, Rcode.FORMERR, question, edns)
    refused = _refused(kind, class_)
    if refused is not None:
        return Refusal(number, flags, refused, question, edns)
    return Query(number, flags, name, kind, question, edns)


def _edns_of_another(packet: bytes, questions: int, records: int, additional: int) -> Edns | None:
    """What other opcodes mean is not known here, but where the sections are as ever, an OPT record is to be answered by
    one (RFC 6891 §6.1.1)."""
    at = HEADER
    try:
        for _ in range(questions):
            at = _skip_name(packet, at) + 4
        opt = _opt(packet, at, records, additional)
    except _Odd:
        return None
    return Edns(opt[0], bool(opt[2] & DO)) if opt is not None else None


def _refused(kind: int, class_: int) -> Rcode | None:
    """What no zone is asked for."""
    if class_ != IN:
        return Rcode.REFUSED
    if kind in (0, OPT):
        return Rcode.FORMERR
    if kind in (AXFR, IXFR):
        return Rcode.REFUSED
    return Rcode.NOTIMP if kind in _META else None


def _only_a_cookie(packet: bytes, number: int, flags: int, answers: int, authority: int, additional: int) -> Refusal:
    """RFC 7873 §5.4: a query without a question may fetch a cookie."""
    opt = _opt(packet, HEADER, authority, additional) if not answers else None
    if opt is None or opt[1]:
        raise _Odd
    edns = _options(Edns(opt[0], bool(opt[2] & DO)), opt[3])
    return Refusal(number, flags, Rcode.FORMERR if edns.cookie is None else Rcode.NOERROR, b"", edns)


def _question_name(packet: bytes) -> tuple[dns.name.Name, int]:
    """Nothing is in front that a pointer could point to."""
    labels, at = [], HEADER
    while True:
        if at >= len(packet):
            raise _Odd
        length = packet[at]
        if length > 63 or at + 1 + length > len(packet):
            raise _Odd
        labels.append(packet[at + 1 : at + 1 + length])
        at += 1 + length
        if at - HEADER > 255:
            raise _Odd
        if not length:
            return dns.name.Name(labels), at


def _opt(packet: bytes, at: int, authority: int, additional: int) -> tuple[int, int, int, bytes] | None:
    """The OPT record among what follows the question: payload size, version, flags, options. One at most, owned by the
    root (RFC 6891 §6.1.1). Nothing may be behind the last record."""
    found = None
    for index in range(authority + additional):
        start = at
        at = _skip_name(packet, at)
        if at + 10 > len(packet):
            raise _Odd
        kind, size, _, version, bits, length = struct.unpack_from(">HHBBHH", packet, at)
        at += 10 + length
        if at > len(packet):
            raise _Odd
        if kind == OPT:
            if found is not None or index < authority or packet[start]:
                raise _Odd
            found = (size, version, bits, packet[at - length : at])
    if at != len(packet):
        raise _Odd
    return found


def _skip_name(packet: bytes, at: int) -> int:
    """Pointers are not followed, so they cannot loop; forward they may not point."""
    start = at
    while True:
        if at >= len(packet):
            raise _Odd
        length = packet[at]
        if length >= 0xC0:
            if at + 2 > len(packet) or (length & 63) << 8 | packet[at + 1] >= start:
                raise _Odd
            return at + 2
        if length > 63 or at - start > 254:
            raise _Odd
        at += 1 + length
        if not length:
            return at


def _options(edns: Edns, data: bytes) -> Edns:
    at, subnet, cookie = 0, None, None
    while at < len(data):
        if at + 4 > len(data):
            raise _Odd
        code, length = struct.unpack_from(">HH", data, at)
        value = data[at + 4 : at + 4 + length]
        at += 4 + length
        if len(value) != length:
            raise _Odd
        if code == ECS:
            if subnet is not None:
                raise _Odd
            subnet = _subnet(value)
        elif code == COOKIE and cookie is None:  # RFC 7873 §5.2: the first counts
            cookie = value
            if not (length == 8 or 16 <= length <= 40):
                raise _Odd
    return Edns(edns.size, edns.dnssec_ok, subnet, cookie)


def _subnet(value: bytes) -> Subnet:
    """RFC 7871 §6: as many octets as the prefix needs, no bit behind it, and a scope of 0 in a query."""
    if len(value) < 4:
        raise _Odd
    family, source, scope = struct.unpack_from(">HBB", value)
    address = value[4:]
    most = {0: 0, 1: 32, 2: 128}.get(family, -1)
    if scope or source > most or len(address) != (source + 7) // 8:
        raise _Odd
    if source % 8 and address[-1] & 0xFF >> source % 8:
        raise _Odd
    return Subnet(family, source, address)
