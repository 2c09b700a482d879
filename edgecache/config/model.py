"""What an operator can set: one typed, frozen model per part of the house, every key with its meaning and bounds.

A key is an attribute's name less its unit: `memory.size_bytes` here is `memory: {size: 256MiB}` in the file and
EDGECACHE_MEMORY_SIZE in the environment. A key is added together with the feature it steers, never before.
No file, environment variable or clock is read here (`load` does).
"""

import ipaddress
import re
import socket
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from edgecache.config.units import (
    GIB,
    KIB,
    MIB,
    Address,
    format_size,
    parse_address,
    parse_duration,
    parse_size,
)


def key_of(attribute: str) -> str:
    """The file's key for an attribute: the attribute less its unit."""
    return attribute.removesuffix("_bytes").removesuffix("_s")


def _unlimited(value: object) -> object:
    return None if value in (None, "unlimited") else parse_size(value)


def _auto(value: object) -> object:
    return None if value in (None, "auto") else value


def _optional_duration(value: object) -> object:
    return None if value is None else parse_duration(value)


def _optional_size(value: object) -> object:
    return None if value is None else parse_size(value)


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?)*")

_AUTHORITY = re.compile(r"(?:[A-Za-z0-9.\-_]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


_MEDIA = re.compile(r"[!#$&^_.+\-0-9A-Za-z]{1,64}/(?:\*|[!#$&^_.+\-0-9A-Za-z]{1,64})")


def _field_name(value: object) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("a header field's name, such as CDN-Cache-Control")
    return value.lower()


def _token(value: object) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("a word of letters, digits and -._ without spaces")
    return value


def _host_pattern(value: object) -> str:
    expected = 'a host name such as www.example.com, or "*.example.com" for every name below it; no port'
    if not isinstance(value, str):
        raise ValueError(expected)
    host = value.lower().removesuffix(".")
    if not host.isascii():
        raise ValueError(expected + "; write international names in their xn-- form")
    if host.startswith("[") and host.endswith("]"):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            raise ValueError(expected) from None
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise ValueError(expected)
    return host


def _origin_url(value: object) -> str:
    expected = "an http:// or https:// URL with a host and no path, such as http://127.0.0.1:8000"
    if not isinstance(value, str):
        raise ValueError(expected)
    try:
        parts = urlsplit(value.strip())
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(expected + "; no user or password in it")
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or port == 0 or not host.isascii():
        raise ValueError(expected)
    if re.search(r"[\x00-\x20\x7f\\]", value.strip()):
        raise ValueError(expected)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(expected)
    bracketed = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{bracketed}" + (f":{port}" if port is not None else "")


def _authority(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _AUTHORITY.fullmatch(value):
        raise ValueError("a host with an optional port, such as www.example.com")
    return value


def _network(value: object) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ValueError("an address or a network such as 10.0.0.0/8 or 2001:db8::/32") from None


def _parameter(value: object) -> str:
    if not isinstance(value, str) or not value or "*" in value[:-1] or value == "*" or re.search(r"[\s&=#]", value):
        raise ValueError("a query parameter's name, or the start of one with a trailing *, such as utm_*")
    return value


def _version(value: object) -> object:
    return str(value) if isinstance(value, float) else value  # YAML reads a bare 1.3 as a number


def _media_range(value: object) -> str:
    if not isinstance(value, str) or not _MEDIA.fullmatch(value):
        raise ValueError("a media type such as text/html, or text/* for all of a kind; no parameters")
    return value.lower()


def _log_format(value: object) -> object:
    return "off" if value is False else value  # YAML 1.1 reads a bare `off` as false


Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
AddressField = Annotated[Address, BeforeValidator(parse_address)]
FieldName = Annotated[str, BeforeValidator(_field_name)]
Token = Annotated[str, BeforeValidator(_token)]
HostPattern = Annotated[str, BeforeValidator(_host_pattern)]
Network = Annotated[str, BeforeValidator(_network)]
MediaRange = Annotated[str, BeforeValidator(_media_range)]
Parameter = Annotated[str, BeforeValidator(_parameter)]

MAX_WORKERS = 30
"""Two generations of workers with their control processes have room among the arena's 63 process slots."""

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S


class Section(BaseModel):
    """Unknown keys are refused; nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=key_of,
        validate_by_name=False,
        validate_by_alias=True,
    )


def _from_word(model_key: str) -> BeforeValidator:
    """Lets a section be written as the value of its one important key: `origin: http://…`."""

    def expand(value: object) -> object:
        return {model_key: value} if isinstance(value, str) else value

    return BeforeValidator(expand)


class CertificateConfig(Section):
    """A certificate with its chain, and its key."""

    cert: str = Field(min_length=1, description="PEM file: the certificate, then the intermediate ones.")
    key: str | None = Field(
        None, min_length=1, description="PEM file of its private key, without a pass phrase. Default: in `cert` too."
    )


class TlsServerConfig(Section):
    """TLS towards clients. The files are read at start and at each reload (SIGHUP)."""

    certificates: tuple[CertificateConfig, ...] = Field(
        min_length=1,
        max_length=1000,
        description="The first that covers the name the client asks for is shown; the first of all where none does, "
        "or the client names none.",
    )
    min_version: Annotated[Literal["1.2", "1.3"], BeforeValidator(_version)] = Field(
        "1.2", description="The oldest version of TLS to speak."
    )
    ciphers: str | None = Field(
        None,
        min_length=1,
        description="Ciphers for TLS 1.2, as OpenSSL writes lists of them. Default: those with forward secrecy and "
        "authenticated encryption.",
    )


class ListenConfig(Section):
    """A public address. `listen: [":80"]` is short for `listen: [{address: ":80"}]`."""

    address: AddressField = Field(description="Address and port to accept clients on.")
    tls: TlsServerConfig | None = Field(None, description="Speak TLS here. Default: plain HTTP.")


class HstsConfig(Section):
    """Strict-Transport-Security (RFC 6797): browsers use https:// only from then on. `hsts: 180d` is short for
    `hsts: {max_age: 180d}`."""

    max_age_s: Duration = Field(
        180 * 86_400.0, ge=0, le=10 * 365 * 86_400.0, description="How long browsers keep to it; 0 takes it back."
    )
    include_subdomains: bool = Field(False, description="For every name below the host's, too.")
    preload: bool = Field(False, description="Consent to the browsers' built-in lists. Hard to take back.")

    @property
    def value(self) -> str:
        """The field's value."""
        return (
            f"max-age={self.max_age_s:.0f}"
            + "; includeSubDomains" * self.include_subdomains
            + "; preload" * self.preload
        )


class AdminConfig(Section):
    """The operator's own listener: health, metrics, statistics, explain and purge. Never put it on a public address."""

    address: AddressField = Field(
        Address("127.0.0.1", 8081),
        description="Address and port of the admin API. On any other than a loopback address reads need the token too.",
    )
    token_file: str | None = Field(
        None,
        min_length=1,
        description="File that holds the token for whatever changes state. Made at first start if it is not there. "
        "Default: the token file in the state directory.",
    )
    hosts: tuple[HostPattern, ...] = Field(
        (),
        description="Names by which clients reach the admin API. IP addresses and localhost always work; any other "
        "Host is refused, so that a web page cannot reach it through DNS rebinding.",
    )


class MemoryConfig(Section):
    """Where responses are kept."""

    size_bytes: Size = Field(
        256 * MIB,
        ge=4 * MIB,
        le=1024 * GIB,
        description="A hard bound on the memory tier: objects, index, shared counters and slack.",
    )
    max_object_bytes: Size = Field(
        MIB, ge=KIB, le=GIB, description="Responses with a larger body are not kept in memory."
    )
    eviction: Literal["lru", "s3fifo", "sieve"] = Field(
        "lru",
        description="What goes when room is needed: the least recently used, or by S3-FIFO or SIEVE, which keep what "
        "is popular through scans and floods of objects asked for once. See docs/eviction.md.",
    )

    fills_bytes: Size = Field(
        64 * MIB,
        ge=MIB,
        le=64 * GIB,
        description="What the responses on their way into memory may hold beside it, in each worker. Where that is "
        "spent, responses go to their clients at the clients' pace and are not stored.",
    )

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.size_bytes < 8 * self.max_object_bytes:
            raise PydanticCustomError(
                "room",
                "a size of at least eight of the largest objects (8 × max_object = {least})",
                {"least": format_size(8 * self.max_object_bytes)},
            )
        return self


class DiskConfig(Section):
    """Where responses are kept beyond memory, and over restarts."""

    path: str | None = Field(
        None,
        min_length=1,
        description="A directory of the disk tier's own, made if it is not there; all workers of a node share it. "
        "Without it there is no disk tier.",
    )
    size_bytes: Size = Field(
        10 * GIB,
        ge=32 * MIB,
        le=1 << 50,
        description="A bound on the directory: bodies, database, its log, and what is being written.",
    )
    admit: Literal["second-request", "always"] = Field(
        "second-request",
        description="What is written to disk: what is asked for again, and what is large; or everything stored.",
    )
    large_bytes: Size = Field(
        256 * KIB, ge=0, le=GIB, description="Bodies from here on are written at the first request."
    )
    queue_bytes: Size = Field(
        32 * MIB,
        ge=MIB,
        le=64 * GIB,
        description="What may wait to be written, in each worker. What comes beyond that is not written.",
    )
    keep_stale_s: Duration = Field(
        DAY_S,
        ge=0,
        le=YEAR_S,
        description="How long a response stays on disk after it can no longer be used, for the origin to confirm.",
    )


class LimitsConfig(Section):
    """What a client may send, how slowly, and how many of them there may be."""

    request_line_bytes: Size = Field(16 * KIB, ge=KIB, le=MIB, description="Longest request line; longer ones get 414.")
    field_line_bytes: Size = Field(16 * KIB, ge=KIB, le=MIB, description="Longest header field line; else 431.")
    head_bytes: Size = Field(64 * KIB, ge=2 * KIB, le=4 * MIB, description="Largest request head in all; else 431.")
    fields: int = Field(128, ge=8, le=10_000, description="Most header fields in a request; else 431.")
    trailer_fields: int = Field(32, ge=0, le=1000, description="Most trailer fields after a chunked request body.")
    request_body_bytes: Annotated[int | None, BeforeValidator(_unlimited)] = Field(
        None,
        ge=0,
        description="Largest body of a request; larger ones get 413. Default: unlimited; it is streamed, not kept.",
    )
    connections: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Client connections open at once on each public address, in even parts for each worker; more are "
        "answered 503.",
    )
    header_timeout_s: Duration = Field(
        10.0, ge=0.1, le=3600, description="From the first octet of a request to the end of its head."
    )
    idle_timeout_s: Duration = Field(
        75.0, ge=0.1, le=86_400, description="How long a kept-alive connection may wait for its next request."
    )
    between_bytes_timeout_s: Duration = Field(
        30.0, ge=0.1, le=3600, description="Longest pause between two reads of a request body."
    )
    write_timeout_s: Duration = Field(
        60.0, ge=0.1, le=3600, description="How long a client may take no octet of a response before it is cut off."
    )
    drain_timeout_s: Duration = Field(
        30.0, ge=0, le=3600, description="After SIGTERM: how long requests under way may take to finish."
    )


class TlsClientConfig(Section):
    """How an https:// origin is verified."""

    verify: bool = Field(True, description="Verify the origin's certificate and name.")
    ca_file: str | None = Field(
        None, min_length=1, description="PEM file of the authorities to trust instead of the system's."
    )
    server_name: Annotated[str | None, BeforeValidator(_authority)] = Field(
        None, description="Name to ask for (SNI) and to verify. Default: the host of `url`."
    )


class OriginConfig(Section):
    """Where a site's responses come from. `origin: URL` is short for `origin: {url: URL}`."""

    url: Annotated[str, BeforeValidator(_origin_url)] = Field(
        description="Scheme, host and port of the origin, such as http://10.0.0.5:8000."
    )
    host: Annotated[str | None, BeforeValidator(_authority)] = Field(
        None, description="Host to send to the origin instead of the one the client asked for."
    )
    tls: TlsClientConfig = Field(TlsClientConfig(), description="Verification of an https:// origin.")
    connect_timeout_s: Duration = Field(5.0, ge=0.05, le=300, description="Longest time to connect, TLS included.")
    first_byte_timeout_s: Duration = Field(
        60.0, ge=0.05, le=3600, description="Longest wait for the response head once the request is sent."
    )
    between_bytes_timeout_s: Duration = Field(
        30.0, ge=0.05, le=3600, description="Longest pause between two reads of a response body."
    )
    idle_timeout_s: Duration = Field(
        55.0, ge=0.1, le=3600, description="How long an unused connection is kept; less than the origin's own limit."
    )
    connections: int = Field(256, ge=1, le=100_000, description="Connections to this origin at once.")
    waiting: int = Field(
        1024, ge=0, le=1_000_000, description="Requests that may wait for a connection; more get 503 at once."
    )


class QueryConfig(Section):
    """What of the query is part of the cache key. At most one of `drop` and `keep`."""

    drop: tuple[Parameter, ...] = Field(
        (), description="Parameters left out of the cache key: names, or beginnings with a trailing *, such as utm_*."
    )
    keep: tuple[Parameter, ...] | None = Field(
        None, description="The only parameters in the cache key; an empty list ignores the query."
    )
    sort: bool = Field(False, description="Order parameters by name in the cache key.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.drop and self.keep is not None:
            raise PydanticCustomError("drop_and_keep", "either drop or keep, not both")
        return self


class CompressConfig(Section):
    """Content codings that edgecache makes of stored responses, once, after they are stored, as variants beside the
    response as it came. Responses that the origin has encoded, lets vary by Accept-Encoding or marks no-transform stay
    as they are."""

    codings: tuple[Literal["br", "zstd", "gzip"], ...] = Field(
        (),
        max_length=3,
        description="Which to make: br, zstd, gzip; the first that a client prefers is sent. Empty: none.",
    )
    types: tuple[MediaRange, ...] = Field(
        (
            "text/*",
            "application/atom+xml",
            "application/javascript",
            "application/json",
            "application/ld+json",
            "application/manifest+json",
            "application/rss+xml",
            "application/xhtml+xml",
            "application/xml",
            "image/svg+xml",
        ),
        description="Media types to compress; text/* means all of a kind.",
    )
    min_size_bytes: Size = Field(KIB, ge=1, le=GIB, description="Smaller bodies stay as they are.")
    max_size_bytes: Size = Field(MIB, ge=1, le=64 * MIB, description="Larger bodies stay as they are.")


class CacheConfig(Section):
    """What is stored, and for how long it is used. At the top level: the defaults of every site."""

    target_fields: tuple[FieldName, ...] = Field(
        ("cdn-cache-control",),
        max_length=8,
        description="Targeted Cache-Control fields obeyed, most specific first (RFC 9213).",
    )
    surrogate_name: Token = Field(
        "edgecache", description="Name of this cache in the targets of Surrogate-Control, and in Surrogate-Capability."
    )
    surrogate_capability: bool = Field(
        True, description="Tell the origin, in Surrogate-Capability, that Surrogate-Control is understood here."
    )
    override_ttl_s: Annotated[float | None, BeforeValidator(_optional_duration)] = Field(
        None,
        ge=0,
        le=10 * YEAR_S,
        description="A freshness lifetime for everything stored, whatever the origin says.",
    )
    heuristics: bool = Field(
        True, description="Guess a lifetime where the origin gives none but Last-Modified (RFC 9111 §4.2.2)."
    )
    heuristic_fraction: float = Field(
        0.1, gt=0, le=1, description="The guess as a part of the time since Last-Modified."
    )
    heuristic_cap_s: Duration = Field(DAY_S, ge=0, le=YEAR_S, description="The longest guess.")
    stale_while_revalidate_s: Duration = Field(
        0.0,
        ge=0,
        le=YEAR_S,
        description="How long a stale response may be used while it is revalidated, where the "
        "response does not say (RFC 5861 §3).",
    )
    stale_if_error_s: Duration = Field(
        0.0,
        ge=0,
        le=YEAR_S,
        description="How long a stale response may be used when the origin fails, where the "
        "response does not say (RFC 5861 §4).",
    )
    stale_when_unreachable_s: Duration = Field(
        DAY_S,
        ge=0,
        le=YEAR_S,
        description="How long after it went stale a response may be used when the origin gives no answer at all "
        "(RFC 9111 §4.2.4). Never where the response forbids it.",
    )
    stale_despite_s_maxage: bool = Field(
        False,
        description="Let stale-while-revalidate and stale-if-error of a response count beside its s-maxage, which by "
        "the letter forbids stale answers (RFC 9111 §5.2.2.10).",
    )
    store_set_cookie: bool = Field(
        False,
        description="Store responses that set cookies as if they did not. Off: only those explicitly allowed "
        "for shared caches.",
    )
    honour_request_directives: bool = Field(
        True, description="Obey Cache-Control and Pragma of requests (RFC 9111 §5.2.1)."
    )
    hit_for_pass_s: Duration = Field(
        120.0,
        ge=0,
        le=DAY_S,
        description="How long to remember that a URL's responses cannot be stored, so that nobody queues for them.",
    )
    query: QueryConfig = Field(QueryConfig(), description="What of the query is part of the cache key.")
    no_vary_search: bool = Field(
        False,
        description="Honour No-Vary-Search: a stored response answers for every URL whose query differs only in what "
        "the response says makes no difference.",
    )
    compress: CompressConfig = Field(CompressConfig(), description="Content codings made by edgecache.")
    early_hints: bool = Field(
        False,
        description="While a page whose stored copy is stale waits for the origin, send its preload and preconnect "
        "links as 103 Early Hints (RFC 8297). What the origin sends itself is passed on always.",
    )
    max_object_bytes: Annotated[int | None, BeforeValidator(_optional_size)] = Field(
        None, ge=0, le=GIB, description="Largest body stored. Default: memory.max_object, which is also the most."
    )
    max_vary_fields: int = Field(16, ge=0, le=64, description="Responses that vary on more fields are not stored.")
    max_ranges: int = Field(16, ge=1, le=256, description="Ranges answered in one response; with more: the whole.")
    surrogate_keys_limit_bytes: Size = Field(
        16 * KIB, ge=0, le=MIB, description="Octets of surrogate keys a response may have; with more it is not stored."
    )
    cache_status_name: Token = Field(
        "edgecache", max_length=100, description="Name of this cache in the Cache-Status field (RFC 9211)."
    )
    cache_status_key: bool = Field(False, description="Show the cache key in Cache-Status.")


class SiteConfig(Section):
    """A set of hosts with their origin and their caching."""

    name: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9*._:\[\]\-]{1,100}$")] = Field(
        None, description='Name in logs, metrics and purges. Default: the first host, or "default".'
    )
    hosts: tuple[HostPattern, ...] = Field(
        (),
        description='Hosts it answers for, such as www.example.com or "*.example.com". The one site without hosts '
        "answers for every other host.",
    )
    origin: Annotated[OriginConfig, _from_word("url")] = Field(description="Where its responses come from.")
    cache: CacheConfig = Field(
        CacheConfig(), description="Its caching. A key not given here is taken from the top-level `cache`."
    )
    hsts: Annotated[HstsConfig | None, _from_word("max_age")] = Field(
        None, description="Strict-Transport-Security on answers over TLS. Default: the top-level `hsts`."
    )
    redirect_to_https: bool = Field(
        False,
        description="Send requests over plain HTTP to the same URL with https://, at the port of the first TLS "
        "listener. A trusted proxy's X-Forwarded-Proto is believed. Default: the top-level `redirect_to_https`.",
    )
    expose_surrogate_keys: bool = Field(
        False, description="Pass Surrogate-Key and its like on to clients. Off: they are removed."
    )

    @property
    def title(self) -> str:
        """The name it goes by."""
        return self.name or (self.hosts[0] if self.hosts else "default")


class PurgeConfig(Section):
    """Invalidation."""

    max_targets: int = Field(
        10_000, ge=1, le=10_000, description="URLs, keys, hosts and prefixes one purge may name; with more: 413."
    )
    table_slots: int = Field(
        0,
        ge=0,
        le=1 << 26,
        description="Tags whose last purge is remembered one by one; beyond that older purges are widened, never "
        "lost. 0: chosen from memory.size.",
    )


class AccessLogConfig(Section):
    """One line per finished request, written in batches off the hot path."""

    format: Annotated[Literal["json", "combined", "off"], BeforeValidator(_log_format)] = Field(
        "json", description="json (one object per line), combined (as Apache and nginx write it) or off."
    )
    path: str = Field("-", min_length=1, description='File to append to, or "-" for standard output.')
    flush_interval_s: Duration = Field(0.2, ge=0.01, le=60, description="How often lines are written.")
    buffer_lines: int = Field(
        65_536,
        ge=100,
        le=10_000_000,
        description="Lines that may wait to be written. More are dropped and counted; requests never wait.",
    )
    redact: tuple[Parameter, ...] = Field(
        (
            "access_token",
            "api_key",
            "apikey",
            "auth",
            "code",
            "id_token",
            "key",
            "password",
            "secret",
            "sig",
            "signature",
            "token",
            "x-amz-credential",
            "x-amz-security-token",
            "x-amz-signature",
        ),
        description="Query parameters whose values are never logged, compared without case; beginnings with a "
        "trailing * too. Authorization and Cookie fields are never logged.",
    )


class LogConfig(Section):
    """What edgecache says of itself (to standard error), and of each request."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least important message shown.")
    format: Literal["auto", "human", "json"] = Field(
        "auto", description="Form of messages. auto: human on a terminal, JSON elsewhere."
    )
    access: AccessLogConfig = Field(AccessLogConfig(), description="The access log.")


class ForwardingConfig(Section):
    """What the origin is told of the client, and whom to believe about it."""

    trusted_proxies: tuple[Network, ...] = Field(
        (),
        description="Networks of proxies in front of edgecache whose X-Forwarded-* and Forwarded fields are believed "
        "and extended. From anybody else they are replaced.",
    )
    via: Token = Field("edgecache", description="Name in the Via field (RFC 9110 §7.6.3); it also detects loops.")
    x_forwarded: bool = Field(True, description="Send X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host.")
    forwarded: bool = Field(True, description="Send Forwarded (RFC 7239).")

    @property
    def untold(self) -> frozenset[str]:
        """The fields that are not sent, in lower case. What clients claim in them is removed all the same."""
        silent = set() if self.x_forwarded else {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
        return frozenset(silent if self.forwarded else silent | {"forwarded"})


_COMMON = {"hsts", "redirect_to_https"}
"""Keys of a site that have a default of their own at the top level."""


class Config(Section):
    """Everything. Every key is optional except an origin: `origin`, or `sites` with one each."""

    name: Token = Field(
        default_factory=socket.gethostname,
        description="Name of this edge in statistics and purge receipts. Default: the machine's host name.",
    )
    workers: Annotated[int | None, BeforeValidator(_auto)] = Field(
        None,
        ge=0,
        le=MAX_WORKERS,
        description="Processes that serve clients, beside the supervisor and the control process. `auto`: one for each "
        "CPU edgecache may use. 0: everything in one process. Default: auto.",
    )
    origin: Annotated[OriginConfig | None, _from_word("url")] = Field(
        None, description="Origin of a single site that answers for every host: short for `sites` with one entry."
    )
    listen: tuple[Annotated[ListenConfig, _from_word("address")], ...] = Field(
        (ListenConfig(address=Address("127.0.0.1", 8080)),), min_length=1, description="Public addresses."
    )
    admin: AdminConfig = Field(AdminConfig(), description="The admin API.")
    memory: MemoryConfig = Field(MemoryConfig(), description="The memory tier.")
    disk: DiskConfig = Field(DiskConfig(), description="The disk tier.")
    limits: LimitsConfig = Field(LimitsConfig(), description="Limits on clients.")
    forwarding: ForwardingConfig = Field(ForwardingConfig(), description="What the origin is told of the client.")
    purge: PurgeConfig = Field(PurgeConfig(), description="Invalidation.")
    log: LogConfig = Field(LogConfig(), description="Messages and the access log.")
    cache: CacheConfig = Field(CacheConfig(), description="Caching, for every site that does not say otherwise.")
    hsts: Annotated[HstsConfig | None, _from_word("max_age")] = Field(
        None, description="Strict-Transport-Security, for every site that does not say otherwise. Default: none."
    )
    redirect_to_https: bool = Field(
        False, description="Redirect plain HTTP to https://, for every site that does not say otherwise."
    )
    sites: tuple[SiteConfig, ...] = Field((), max_length=10_000, description="Sites, each with hosts and an origin.")

    @model_validator(mode="after")
    def _resolve_sites(self) -> Self:
        """Make `sites` complete: the short form written out, the defaults of `cache` filled in, names unique."""
        sites = self.sites
        if self.origin is not None:
            if sites:
                raise PydanticCustomError("origin_and_sites", "either origin or sites, not both")
            sites = (SiteConfig(origin=self.origin),)
        if not sites:
            raise PydanticCustomError("no_origin", "an origin: `origin: http://127.0.0.1:8000`, or --origin URL")
        owner: dict[str, str] = {}
        names: set[str] = set()
        resolved = []
        for site in sites:
            if site.title in names:
                raise PydanticCustomError(
                    "site_name", 'a name of its own for each site; two are called "{name}"', {"name": site.title}
                )
            names.add(site.title)
            for host in site.hosts or ("",):
                if host in owner:
                    what = f'the host "{host}"' if host else "every other host (no `hosts`)"
                    raise PydanticCustomError(
                        "site_host",
                        'one site for each host; "{a}" and "{b}" both answer for {what}',
                        {"a": owner[host], "b": site.title, "what": what},
                    )
                owner[host] = site.title
            given = site.cache.model_fields_set
            inherited = {name: getattr(self.cache, name) for name in self.cache.model_fields_set - given}
            cache = site.cache.model_copy(update=inherited)
            common = {key: getattr(self, key) for key in _COMMON - site.model_fields_set}
            resolved.append(site.model_copy(update={"name": site.title, "cache": cache, **common}))
        object.__setattr__(self, "sites", tuple(resolved))  # frozen from here on, for everybody else
        return self
