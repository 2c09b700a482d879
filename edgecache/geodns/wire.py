"""PURE. The records of an answer as octets that stand behind any question of their kind.

Names are compressed (RFC 1035 §4.1.4) against the question's name and against each other. Behind a wildcard, or a name
that does not exist, the question's name has any length: what is known of it is its end, and where a pointer leads is so
far from that end. Pointers are therefore written down as patches, (place, target less the length of the question's
name), and filled in for each question.
"""

import struct
from collections.abc import Iterable
from typing import Final

import dns.name
import dns.rdata
import dns.rdataset
from dns.rdatatype import RdataType

from edgecache._native.dnstable import Answer

QUESTION: Final = b"\xc0\x0c"
"""A pointer to the question's name: it begins at octet 12."""
_HEADER: Final = 12
_FIXED: Final = 4
"""Octets of the question after its name."""
_FARTHEST: Final = 0x3FFF - 255
"""Of a target from the end of the question's name, so that a pointer reaches it whatever the name's length."""


def lower(name: dns.name.Name) -> bytes:
    """In wire form and lower case."""
    return name.canonicalize().to_wire()  # type: ignore[return-value]


class Body:
    """Collects records."""

    def __init__(self, end: dns.name.Name) -> None:
        """`end`: what the question's name is, or ends with."""
        self._octets = bytearray()
        self._patches: list[tuple[int, int]] = []
        self._seen: dict[bytes, int] = {}
        wire = lower(end)
        for at in _labels(wire):
            self._seen[wire[at:]] = _HEADER - (len(wire) - at)
        self._count = 0

    def add(self, owner: dns.name.Name | None, rdatas: dns.rdataset.Rdataset, ttl_s: int) -> None:
        """A set of records. No `owner`: that is the question's name."""
        for rdata in rdatas:
            self.add_one(owner, int(rdatas.rdtype), ttl_s, rdata)

    def add_one(self, owner: dns.name.Name | None, kind: int, ttl_s: int, rdata: dns.rdata.Rdata | bytes) -> None:
        """One record."""
        if owner is None:
            self._octets += QUESTION
        else:
            self._name(owner)
        self._octets += struct.pack(">HHIH", kind, 1, ttl_s, 0)
        begin = len(self._octets)
        if isinstance(rdata, bytes):
            self._octets += rdata
        else:
            self._rdata(rdata)
        struct.pack_into(">H", self._octets, begin - 2, len(self._octets) - begin)
        self._count += 1

    def _rdata(self, rdata: dns.rdata.Rdata) -> None:
        """RFC 3597 §4: names are compressed in the types of RFC 1035 alone."""
        match rdata.rdtype:
            case RdataType.NS | RdataType.CNAME | RdataType.PTR:
                self._name(rdata.target)  # type: ignore[attr-defined]
            case RdataType.MX:
                self._octets += struct.pack(">H", rdata.preference)  # type: ignore[attr-defined]
                self._name(rdata.exchange)  # type: ignore[attr-defined]
            case RdataType.SOA:
                wire: bytes = rdata.to_wire()  # type: ignore[assignment]
                self._name(rdata.mname)  # type: ignore[attr-defined]
                self._name(rdata.rname)  # type: ignore[attr-defined]
                self._octets += wire[-20:]
            case _:
                self._octets += rdata.to_wire()  # type: ignore[arg-type]

    def _name(self, name: dns.name.Name) -> None:
        wire: bytes = name.to_wire()  # type: ignore[assignment]
        key = lower(name)
        for at in _labels(wire):
            target = self._seen.get(key[at:])
            if target is not None:
                self._patches.append((len(self._octets), target))
                self._octets += b"\0\0"
                return
            here = len(self._octets) + _HEADER + _FIXED
            if here < _FARTHEST:
                self._seen[key[at:]] = here
            self._octets += wire[at : at + wire[at] + 1]
        self._octets += b"\0"

    def answer(self, answers: int, authority: int = 0, *, flags: int = 0x0400) -> Answer:
        """What was collected: so many records in the answer section, then the authority's, then the additional's."""
        additional = self._count - answers - authority
        return Answer(bytes(self._octets), answers, authority, flags, tuple(self._patches), additional=additional)


def _labels(wire: bytes) -> Iterable[int]:
    """Where each label begins but the root's."""
    at = 0
    while wire[at]:
        yield at
        at += wire[at] + 1
