"""Zone data: records of the configuration and of zone files become sets of records by name, or findings of what is
wrong with them. What a zone may hold is DNS's affair and dnspython knows it; nothing here answers anything.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.zone
from dns.rdatatype import RdataType

from edgecache.config.geodns import GeoDnsConfig, GeoNameConfig, RecordConfig, ZoneConfig
from edgecache.config.options import Path
from edgecache.config.salvage import is_unread

IN = dns.rdataclass.IN
_NOT_HERE = frozenset({"SOA", "OPT", "ANY", "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DNSKEY", "CDS", "CDNSKEY"})
"""What is made from other keys, is no data, or belongs to signed zones."""
_TEXT_OCTETS = 255
_REFRESH_S, _RETRY_S, _EXPIRE_S = 86_400, 7200, 1_209_600
"""For secondaries, of which we have none: what RIPE-203 recommends for small zones, with a shorter expiry."""

Records = dict[RdataType, dns.rdataset.Rdataset]


@dataclass(frozen=True, slots=True)
class ZoneData:
    """A zone as it is served."""

    origin: dns.name.Name
    nodes: dict[dns.name.Name, Records]
    """By absolute name."""
    geo: dict[dns.name.Name, GeoNameConfig]
    index: int
    """Its place in the configuration."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong."""

    path: Path
    expected: str


def read_zones(config: GeoDnsConfig) -> tuple[tuple[ZoneData, ...], list[Finding]]:
    """Every zone, and everything that is wrong. Reads zone files. `config` may be what was salvaged of one."""
    found: list[Finding] = []
    zones: dict[dns.name.Name, ZoneData] = {}
    for index, zone in enumerate(config.zones):
        if is_unread(zone.name):
            continue
        path: Path = ("zones", index)
        origin = _name(zone.name, dns.name.root)
        if origin is None or origin == dns.name.root:
            found.append(Finding((*path, "name"), "a domain name such as example.com"))
        elif origin in zones:
            found.append(Finding((*path, "name"), f"each zone once; zones[{zones[origin].index}] is the same"))
        else:
            zones[origin] = _Reader(zone, origin, path, found).read(index)
    return tuple(zones.values()), found


def _name(text: str, origin: dns.name.Name) -> dns.name.Name | None:
    """Absolute, or None for what is no name."""
    try:
        name = dns.name.from_text(text, origin)
    except (dns.exception.DNSException, UnicodeError):
        return None
    return name if all(label.isascii() for label in name.labels) else None


class _Reader:
    def __init__(self, zone: ZoneConfig, origin: dns.name.Name, path: Path, found: list[Finding]) -> None:
        self._zone = zone
        self._origin = origin
        self._path = path
        self._found = found
        self._nodes: dict[dns.name.Name, Records] = {}

    def read(self, index: int) -> ZoneData:
        zone = self._zone
        if zone.file is not None and not is_unread(zone.file):
            self._read_file(zone.file)
        self._apex()
        for number, record in enumerate(zone.records):
            self._record(record, (*self._path, "records", number))
        geo = dict(self._geo())
        self._cnames_alone()
        return ZoneData(self._origin, self._nodes, geo, index)

    def _wrong(self, path: Path, expected: str) -> None:
        self._found.append(Finding(path, expected))

    def _read_file(self, file: str) -> None:
        path = (*self._path, "file")
        try:
            zone = dns.zone.from_file(file, self._origin, relativize=False, allow_include=False, check_origin=False)
        except OSError as error:
            self._wrong(path, f"a readable file ({error.strerror})")
            return
        except (dns.exception.DNSException, UnicodeError, ValueError) as error:
            self._wrong(path, f"a zone file ({error})")
            return
        for name, node in zone.nodes.items():
            if not name.is_subdomain(self._origin):
                self._wrong(path, f"names within the zone; {name} is not")
                continue
            for rdataset in node.rdatasets:
                self._nodes.setdefault(name, {})[rdataset.rdtype] = rdataset

    def _apex(self) -> None:
        zone, nodes = self._zone, self._nodes.setdefault(self._origin, {})
        servers = [self._target(text, ("nameservers", k)) for k, text in enumerate(zone.nameservers)]
        if servers:
            texts = [server.to_text() for server in servers if server is not None]
            self._put(self._origin, RdataType.NS, texts, int(zone.ttl_s), (*self._path, "nameservers"))
        if RdataType.NS not in nodes:
            if not any(map(is_unread, (*zone.nameservers, zone.file))):
                self._wrong(self._path, "nameservers: at least one, unless they are in `file`")
            return
        if RdataType.SOA in nodes:
            return
        contact = (zone.contact or f"hostmaster.{self._origin}").replace("@", ".", 1)
        mailbox = _name(contact, dns.name.root)
        if mailbox is None:
            self._wrong((*self._path, "contact"), "a mailbox such as hostmaster@example.com")
            return
        first = nodes[RdataType.NS][0].to_text()
        timing = f"{zone.serial} {_REFRESH_S} {_RETRY_S} {_EXPIRE_S} {int(zone.negative_ttl_s)}"
        self._put(self._origin, RdataType.SOA, [f"{first} {mailbox} {timing}"], int(zone.ttl_s), self._path)

    def _target(self, text: str, key: Path) -> dns.name.Name | None:
        """A name somebody else may own: without a dot in it, one of the zone's."""
        if is_unread(text):
            return None
        name = _name(text, self._origin if "." not in text else dns.name.root)
        if name is None:
            self._wrong((*self._path, *key), "a host name such as ns1.example.com")
        return name

    def _owner(self, text: str, path: Path) -> dns.name.Name | None:
        if is_unread(text):
            return None
        name = _name(text, self._origin)
        if name is None or not name.is_subdomain(self._origin):
            self._wrong(path, f'a name within {self._origin}, such as www or "@"')
            return None
        if any(label == b"*" for label in name.labels[1:]):
            self._wrong(path, "a * as the first label only")
            return None
        return name

    def _record(self, record: RecordConfig, path: Path) -> None:
        name = self._owner(record.name, (*path, "name"))
        if is_unread(record.type):
            return
        try:
            rdtype = dns.rdatatype.from_text(record.type)
        except (dns.rdatatype.UnknownRdatatype, ValueError):
            self._wrong((*path, "type"), "a type of record such as A, AAAA, CNAME, TXT or CAA")
            return
        if record.type in _NOT_HERE or dns.rdatatype.is_metatype(rdtype):
            self._wrong((*path, "type"), "a type that zones hold; SOA is made from other keys, DNSSEC is not spoken")
            return
        ttl_s = int(self._zone.ttl_s if record.ttl_s is None else record.ttl_s)
        if name is not None:
            self._put(name, rdtype, record.data, ttl_s, (*path, "data"))

    def _put(self, name: dns.name.Name, rdtype: RdataType, texts: Iterable[str], ttl_s: int, path: Path) -> None:
        rdatasets = self._nodes.setdefault(name, {})
        for number, text in enumerate(texts):
            if is_unread(text):
                continue
            try:
                rdata = dns.rdata.from_text(IN, rdtype, _quoted(text, rdtype), self._origin, relativize=False)
            except (dns.exception.DNSException, ValueError, UnicodeError) as error:
                kind = dns.rdatatype.to_text(rdtype)
                self._wrong((*path, number), f"data of a record of type {kind} ({error or type(error).__name__})")
                continue
            if rdtype not in rdatasets:
                rdatasets[rdtype] = dns.rdataset.Rdataset(IN, rdtype, ttl=ttl_s)
            if rdtype == RdataType.CNAME and len(rdatasets[rdtype]):
                self._wrong(path, f"one CNAME for {name}")
                continue
            rdatasets[rdtype].add(rdata, ttl_s)

    def _geo(self) -> Iterator[tuple[dns.name.Name, GeoNameConfig]]:
        seen = set()
        for number, geo in enumerate(self._zone.geo):
            path = (*self._path, "geo", number, "name")
            name = self._owner(geo.name, path)
            if name is None:
                continue
            held = self._nodes.get(name, {}).keys() & {RdataType.A, RdataType.AAAA, RdataType.CNAME}
            if name in seen:
                self._wrong(path, f"each name once; {name} is there twice")
            elif held:
                kinds = ", ".join(sorted(dns.rdatatype.to_text(kind) for kind in held))
                self._wrong(path, f"a name without addresses of its own; {name} has {kinds} records")
            elif self._delegated(name):
                self._wrong(path, f"a name of this zone; {name} is delegated by NS records")
            seen.add(name)
            self._nodes.setdefault(name, {})
            yield name, geo

    def _delegated(self, name: dns.name.Name) -> bool:
        while name != self._origin:
            if RdataType.NS in self._nodes.get(name, {}):
                return True
            name = name.parent()
        return False

    def _cnames_alone(self) -> None:
        """RFC 1034 §3.6.2, RFC 2181 §10.1."""
        for name, records in self._nodes.items():
            if RdataType.CNAME in records and len(records) > 1:
                self._wrong(self._path, f"no other record beside a CNAME; {name} has some")
            if RdataType.CNAME in records and name == self._origin:
                self._wrong(self._path, f"no CNAME at the top of a zone; {name} has one")


def _quoted(text: str, rdtype: RdataType) -> str:
    """Text without quotation marks is one text, and cut where it is too long for one string."""
    if rdtype not in (RdataType.TXT, RdataType.SPF) or text.startswith('"'):
        return text
    raw = text.encode()
    parts = [raw[at : at + _TEXT_OCTETS] for at in range(0, max(len(raw), 1), _TEXT_OCTETS)]
    return " ".join('"' + "".join(_escaped(octet) for octet in part) + '"' for part in parts)


def _escaped(octet: int) -> str:
    if octet in b'"\\':
        return "\\" + chr(octet)
    return chr(octet) if 32 <= octet < 127 else f"\\{octet:03d}"
