"""What `edgecache geodns` can be told: PoPs, zones, where clients are, health checks. The file has no other purpose and
is a `GeoDnsConfig` from the top; `edgecache check` knows it by its `zones`.

What DNS itself says of the records is checked in `zones`, which reads them.
"""

import ipaddress
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgecache.config.fields import AddressField, Duration, HostPattern, Network, Section, Token, auto, from_word
from edgecache.config.listeners import AdminConfig
from edgecache.config.units import Address

MAX_GEO_WORKERS = 30
MOST_POPS = 1000

_COUNTRY = re.compile(r"[A-Z]{2}")
_SUBDIVISION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")
_STATUSES = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")


def _ip(value: object) -> str:
    try:
        return str(ipaddress.ip_address(value))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ValueError("an IPv4 or IPv6 address, without a port") from None


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | int) else value


def _country(value: object) -> str:
    value = "NO" if value is False else value  # YAML 1.1 reads a bare NO as false
    if not isinstance(value, str) or not _COUNTRY.fullmatch(value.upper()):
        raise ValueError("a country as ISO 3166-1 writes it, such as DE")
    return value.upper()


def _subdivision(value: object) -> str:
    if not isinstance(value, str) or not _SUBDIVISION.fullmatch(value.upper()):
        raise ValueError("a subdivision as ISO 3166-2 writes it, with its country: US-CA")
    return value.upper()


def _statuses(value: object) -> str:
    match = _STATUSES.fullmatch(str(value)) if not isinstance(value, bool) else None
    if match is None or (match[2] and match[2] < match[1]):
        raise ValueError("a status such as 200, or a range such as 200-299")
    return str(value)


def _path(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value):
        raise ValueError("a path such as /healthz")
    return value


def _url(value: object) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("an http:// or https:// URL, such as http://10.0.0.5:8090")
    return str(value).rstrip("/")


def _pattern(value: object) -> str:
    try:
        return re.compile(value).pattern  # type: ignore[call-overload,no-any-return]
    except (re.error, TypeError) as error:
        raise ValueError(f"a regular expression ({error})") from None


Ip = Annotated[str, BeforeValidator(_ip)]
Country = Annotated[str, BeforeValidator(_country)]
Continent = Literal["AF", "AN", "AS", "EU", "NA", "OC", "SA"]
Statuses = Annotated[str, BeforeValidator(_statuses)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class CheckConfig(Section):
    """How PoPs are checked. A PoP's own `check` is taken as a whole in place of this."""

    type: Literal["http", "https", "tcp", "none"] = Field(
        "http", description="A GET, or whether a connection can be made. none: usable unless somebody says otherwise."
    )
    port: int | None = Field(None, ge=1, le=65_535, description="Default: 80, or 443 for https and tcp.")
    path: Annotated[str, BeforeValidator(_path)] = Field("/", description="What to GET.")
    host: HostPattern | None = Field(
        None, description="The Host field, and the name in the certificate. Default: the address itself, unverified."
    )
    statuses: Annotated[tuple[Statuses, ...], BeforeValidator(_listed)] = Field(
        ("200-399",), min_length=1, description="Statuses that are good."
    )
    body: Annotated[str | None, BeforeValidator(lambda value: None if value is None else _pattern(value))] = Field(
        None, description="A regular expression that must be found in the first 64 KiB of the body."
    )
    addresses: tuple[Ip, ...] = Field(
        (), description="What to check instead of the PoP's addresses. All that are checked must be good."
    )
    interval_s: Duration = Field(10.0, ge=0.05, le=3600, description="From one check to the next, at most.")
    timeout_s: Duration = Field(2.0, ge=0.01, le=60, description="For the whole of a check.")
    fall: int = Field(3, ge=1, le=100, description="Failures in a row until a PoP is out of answers.")
    rise: int = Field(2, ge=1, le=100, description="Successes in a row until it is back.")
    jitter: float = Field(
        0.1, ge=0, le=0.5, description="By what part of it an interval may be shorter, so that checkers spread out."
    )

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if self.timeout_s > self.interval_s:
            raise PydanticCustomError("timeout", "a timeout of at most the interval")
        return self


class PopConfig(Section):
    """A point of presence: where it is, and the addresses clients are given."""

    name: Token = Field(description="Its name in this file, in metrics and for the admin API.")
    latitude: float = Field(ge=-90, le=90, description="Degrees, north positive.")
    longitude: float = Field(ge=-180, le=180, description="Degrees, east positive.")
    addresses: Annotated[tuple[Ip, ...], BeforeValidator(_listed)] = Field(
        min_length=1, max_length=32, description="IPv4 and IPv6, in the order they are given out."
    )
    weight: float = Field(
        1.0, gt=0, le=1000, description="Its part of the clients for whom it and others are equally near."
    )
    capacity_share: float = Field(
        1.0, ge=0, le=1, description="The part of the clients nearest to it that it takes; the others go to the next."
    )
    standby: bool = Field(False, description="Answers only where an override or `all_down` names it.")
    drained: bool = Field(False, description="Out of answers. See `drain_file` and the admin API for other ways.")
    edges: tuple[Token, ...] = Field(
        (), description="Edges of the coordinator's list that make this PoP. Default: those with its name."
    )
    check: CheckConfig | None = Field(None, description="How it is checked. Default: the top-level `check`.")


class NetworkConfig(Section):
    """A network whose clients are known: where they are, or which PoPs they get. It comes before the database."""

    network: Network = Field(description="Such as 10.0.0.0/8 or 2001:db8::/32; the longer prefix wins.")
    country: Country | None = Field(None, description="Where it is.")
    latitude: float | None = Field(None, ge=-90, le=90, description="Where it is, more exactly.")
    longitude: float | None = Field(None, ge=-180, le=180, description="With `latitude`.")
    pops: tuple[Token, ...] = Field((), description="PoPs in order of preference.")
    only: bool = Field(False, description="No other PoP than those.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.latitude is None) != (self.longitude is None):
            raise PydanticCustomError("half", "latitude and longitude together")
        if self.country is None and self.latitude is None and not self.pops:
            raise PydanticCustomError("nothing", "a country, a latitude and longitude, or pops")
        if self.only and not self.pops:
            raise PydanticCustomError("only", "pops, where there is `only`")
        return self


class OverrideConfig(Section):
    """Clients of a country, a subdivision of one, or a continent that get these PoPs first. The narrowest counts."""

    country: Country | None = Field(None, description="ISO 3166-1, such as DE.")
    subdivision: Annotated[str | None, BeforeValidator(lambda v: None if v is None else _subdivision(v))] = Field(
        None, description="ISO 3166-2, such as US-CA."
    )
    continent: Continent | None = Field(None, description="AF, AN, AS, EU, NA, OC or SA.")
    pops: tuple[Token, ...] = Field(min_length=1, description="PoPs in order of preference.")
    only: bool = Field(False, description="No other PoP than those.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(one is not None for one in (self.country, self.subdivision, self.continent)) != 1:
            raise PydanticCustomError("one", "one of country, subdivision and continent")
        return self

    @property
    def key(self) -> str:
        if self.subdivision is not None:
            return f"subdivision:{self.subdivision}"
        return f"country:{self.country}" if self.country is not None else f"continent:{self.continent}"


class LocationConfig(Section):
    """Where clients are."""

    files: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (),
        max_length=2,
        description="A MaxMind-format database, or one for IPv4 and one for IPv6. Read again on change.",
    )
    networks: tuple[NetworkConfig, ...] = Field((), max_length=100_000, description="Networks that are known.")
    overrides: tuple[OverrideConfig, ...] = Field((), description="Countries that get other PoPs than the nearest.")
    default: tuple[Token, ...] = Field(
        (), description="PoPs for clients nobody knows anything of, in order. Default: all, by weight."
    )
    spread_km: float = Field(
        0.0, ge=0, le=20_000, description="PoPs that are farther than the nearest by at most this are equally near."
    )


class GeoNameConfig(Section):
    """A name whose addresses depend on the client. `geo: [www]` is short for `geo: [{name: www}]`."""

    name: str = Field(min_length=1, description='Within the zone: www, "@" for the zone itself, "*" for all others.')
    pops: tuple[Token, ...] = Field((), description="PoPs that serve it. Default: all.")
    answers: int = Field(1, ge=1, le=16, description="Addresses to return, at most.")
    ttl_s: Duration = Field(60.0, ge=0, le=86_400, description="The longest time to live.")
    min_ttl_s: Duration = Field(
        5.0, ge=0, le=3600, description="The shortest, however soon a check may change the answer."
    )
    all_down: str = Field(
        "every", description="If no PoP is usable: `every` one, the `nearest`, or the name of a PoP, such as a standby."
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.min_ttl_s > self.ttl_s:
            raise PydanticCustomError("ttls", "a min_ttl of at most the ttl")
        return self


class RecordConfig(Section):
    """Records of one name and type."""

    name: str = Field(min_length=1, description='Within the zone: www, "@" for the zone itself, "*" for all others.')
    type: Annotated[str, BeforeValidator(lambda v: v.upper() if isinstance(v, str) else v)] = Field(
        description="A, AAAA, CNAME, TXT, CAA, MX, NS, SRV and others that zones hold."
    )
    data: Texts = Field(min_length=1, description="One or several, as zone files write them.")
    ttl_s: Duration | None = Field(None, ge=0, le=604_800, description="Default: the zone's.")


class ZoneConfig(Section):
    """A zone to be authoritative for."""

    name: str = Field(min_length=1, description="Such as example.com.")
    file: str | None = Field(
        None, min_length=1, description="A zone file (RFC 1035 §5) with its records, SOA and NS among them."
    )
    nameservers: Texts = Field((), description="Names for its NS records. Needed unless they are in `file`.")
    contact: str | None = Field(
        None, min_length=1, description="Mailbox for its SOA record, as a name or an address. Default: hostmaster."
    )
    serial: int = Field(1, ge=0, le=0xFFFFFFFF, description="For its SOA record.")
    ttl_s: Duration = Field(3600.0, ge=0, le=604_800, description="Time to live of records that say none.")
    negative_ttl_s: Duration = Field(
        60.0, ge=0, le=86_400, description="How long others remember that a name is not there."
    )
    records: tuple[RecordConfig, ...] = Field((), description="Records, beside those of `file`.")
    geo: tuple[Annotated[GeoNameConfig, from_word("name")], ...] = Field(
        (), description="Names whose addresses depend on the client."
    )


class CoordinatorConfig(Section):
    """The purge coordinator's list of edges, as a second opinion: an edge that is not connected and current is out."""

    url: Annotated[str, BeforeValidator(_url)] = Field(description="Of its API.")
    token_file: str | None = Field(None, min_length=1, description="File with its token, if it asks for one.")
    interval_s: Duration = Field(5.0, ge=0.05, le=3600, description="How often it is asked.")
    fall: int = Field(2, ge=1, le=100, description="Answers in a row without an edge until it is out.")
    max_lag: int = Field(100, ge=0, description="Purges an edge may be behind and still count as current.")


class RateLimitConfig(Section):
    """Response-rate limiting: what a network may be sent over UDP without having proved, by a cookie, that it asked."""

    responses: int = Field(
        200,
        ge=0,
        le=1_000_000,
        description="Responses a second about one name to one network (a /24 or a /56), in each worker; 0: no limit.",
    )
    slip: int = Field(
        2, ge=0, le=10, description="Every so many limited responses are sent cut, so that who is real comes by TCP."
    )


class GeoLimitsConfig(Section):
    """Limits on clients."""

    tcp_connections: int = Field(1000, ge=1, le=100_000, description="TCP connections open at once, in each worker.")
    tcp_per_client: int = Field(20, ge=1, le=10_000, description="And of one address.")
    tcp_idle_timeout_s: Duration = Field(10.0, ge=0.1, le=600, description="How long one may wait for its next query.")
    tcp_write_timeout_s: Duration = Field(5.0, ge=0.1, le=60, description="How long a client may take no octet.")
    udp_size: int = Field(
        1232, ge=512, le=4096, description="The longest response over UDP (RFC 6891), in octets. See RFC 9715."
    )


class MessagesConfig(Section):
    """What edgecache says of itself, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least important message shown.")
    format: Literal["auto", "human", "json"] = Field("auto", description="auto: human on a terminal, JSON elsewhere.")


class GeoAdminConfig(AdminConfig):
    """The operator's own listener: health, metrics, PoPs. Never put it on a public address."""

    address: AddressField = Field(
        Address("127.0.0.1", 8082),
        description="Address and port of the admin API. On any other than a loopback address reads need the token too.",
    )


class GeoDnsConfig(Section):
    """Everything `edgecache geodns` can be told. Needed: PoPs and zones."""

    listen: tuple[AddressField, ...] = Field(
        (Address("127.0.0.1", 5300),), min_length=1, max_length=64, description="Addresses to answer on, UDP and TCP."
    )
    admin: GeoAdminConfig = Field(GeoAdminConfig(), description="The admin API.")
    workers: Annotated[int | None, BeforeValidator(auto)] = Field(
        None,
        ge=0,
        le=MAX_GEO_WORKERS,
        description="Processes that answer. auto: one for each CPU. 0: all in one process.",
    )
    log: MessagesConfig = Field(MessagesConfig(), description="Messages.")
    pops: tuple[PopConfig, ...] = Field(min_length=1, max_length=MOST_POPS, description="Points of presence.")
    check: CheckConfig = Field(CheckConfig(), description="How PoPs are checked that do not say otherwise.")
    coordinator: Annotated[CoordinatorConfig | None, from_word("url")] = Field(
        None, description="The purge coordinator, whose list of edges is a second opinion. Default: none."
    )
    drain_file: str | None = Field(
        None, min_length=1, description="File with names of drained PoPs, one a line. Looked at every second."
    )
    location: LocationConfig = Field(LocationConfig(), description="Where clients are.")
    zones: tuple[ZoneConfig, ...] = Field(min_length=1, max_length=10_000, description="Zones to answer for.")
    limits: GeoLimitsConfig = Field(GeoLimitsConfig(), description="Limits on clients.")
    rate_limit: RateLimitConfig = Field(RateLimitConfig(), description="Response-rate limiting.")
    cookie_secret_file: str | None = Field(
        None,
        min_length=1,
        description="File with secrets for DNS cookies, 32 hexadecimal digits a line: the first makes them, all are "
        "accepted. The same on every server of the zones. Default: one that is forgotten at the end.",
    )
