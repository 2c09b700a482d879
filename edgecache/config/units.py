"""Sizes, durations and addresses as people write them. Each parser raises `ValueError` saying what it expects."""

import ipaddress
import math
import re
from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*([A-Za-z]*)", re.ASCII)
_DURATION_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d|w)", re.ASCII)
_BARE_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,6})?", re.ASCII)

SIZE_EXPECTED = "a size such as 256MiB, 1GB or 65536 (octets)"
DURATION_EXPECTED = "a duration such as 500ms, 30s, 1h30m, 1d or 30 (seconds)"
ADDRESS_EXPECTED = 'an address and port such as "127.0.0.1:8080", "[::1]:8080" or ":80" (all addresses)'


def parse_size(value: object) -> int:
    """Octets. "MiB" is 1024², "MB" 1000²; a bare "M" is refused because people mean either."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(SIZE_EXPECTED)
    whole, _, fraction = match[1].partition(".")
    size = int(whole) * unit
    if fraction:
        size += round(int(fraction) * unit / 10 ** len(fraction))
    return size


def parse_duration(value: object) -> float:
    """Seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise ValueError(DURATION_EXPECTED)
        return float(value)
    if not isinstance(value, str):
        raise ValueError(DURATION_EXPECTED)
    text = value.strip()
    if _BARE_NUMBER.fullmatch(text):
        return float(text)
    parts = list(_DURATION_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(DURATION_EXPECTED)
    return math.fsum(float(part[1]) * _DURATION_UNITS[part[2]] for part in parts)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `host` is an IP literal without brackets, or "" for every address of the machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        return self.host != "" and ipaddress.ip_address(self.host.partition("%")[0]).is_loopback


def parse_address(value: object) -> Address:
    """`ADDR:PORT`, IPv6 in brackets; "localhost" is 127.0.0.1. Port 0 lets the system choose."""
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError(ADDRESS_EXPECTED)
    host, colon, port = value.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(ADDRESS_EXPECTED)
    if host in ("", "*"):
        return Address("", int(port))
    if host == "localhost":
        return Address("127.0.0.1", int(port))
    bracketed = host.startswith("[") and host.endswith("]")
    literal = host[1:-1] if bracketed else host
    try:
        version = ipaddress.ip_address(literal.partition("%")[0]).version
    except ValueError:
        raise ValueError(ADDRESS_EXPECTED) from None
    if bracketed != (version == 6):
        raise ValueError(ADDRESS_EXPECTED)
    return Address(literal, int(port))


def format_size(size: int) -> str:
    """The shortest exact spelling: 268435456 is "256MiB"."""
    for unit in ("tib", "gib", "mib", "kib", "tb", "gb", "mb"):
        factor = _SIZE_UNITS[unit]
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit[0].upper()}{unit[1:-1]}B"
    return str(size)


def format_duration(seconds: float) -> str:
    """The shortest exact spelling in one unit: 86400.0 is "1d"."""
    if seconds == 0:
        return "0s"
    milliseconds = round(seconds * 1000)
    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return f"{milliseconds}ms"
