"""What an operator can set: one typed, frozen model per part of the house, every key with its meaning and bounds.

A key is an attribute's name less its unit: `memory.size_bytes` here is `memory: {size: 256MiB}` in the file and
EDGECACHE_MEMORY_SIZE in the environment. A key is added together with the feature it steers, never before.
No file, environment variable or clock is read here (`load` does).
"""

import socket
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgecache.config.cache import CacheConfig
from edgecache.config.fields import Duration, HostPattern, Network, Section, Size, Token, auto, from_word, unlimited
from edgecache.config.listeners import AdminConfig, HstsConfig, ListenConfig
from edgecache.config.logs import LogConfig
from edgecache.config.origin import OriginConfig
from edgecache.config.purge import PurgeConfig
from edgecache.config.tiers import DiskConfig, MemoryConfig
from edgecache.config.units import KIB, MIB, Address

MAX_WORKERS = 30

"""Two generations of workers with their control processes have room among the arena's 63 process slots."""


class LimitsConfig(Section):
    """What a client may send, how slowly, and how many of them there may be."""

    request_line_bytes: Size = Field(16 * KIB, ge=KIB, le=MIB, description="Longest request line; longer ones get 414.")
    field_line_bytes: Size = Field(16 * KIB, ge=KIB, le=MIB, description="Longest header field line; else 431.")
    head_bytes: Size = Field(64 * KIB, ge=2 * KIB, le=4 * MIB, description="Largest request head in all; else 431.")
    fields: int = Field(128, ge=8, le=10_000, description="Most header fields in a request; else 431.")
    trailer_fields: int = Field(32, ge=0, le=1000, description="Most trailer fields after a chunked request body.")
    request_body_bytes: Annotated[int | None, BeforeValidator(unlimited)] = Field(
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
    origin: Annotated[OriginConfig, from_word("url")] = Field(description="Where its responses come from.")
    cache: CacheConfig = Field(
        CacheConfig(), description="Its caching. A key not given here is taken from the top-level `cache`."
    )
    hsts: Annotated[HstsConfig | None, from_word("max_age")] = Field(
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
    workers: Annotated[int | None, BeforeValidator(auto)] = Field(
        None,
        ge=0,
        le=MAX_WORKERS,
        description="Processes that serve clients, beside the supervisor and the control process. `auto`: one for each "
        "CPU edgecache may use. 0: everything in one process. Default: auto.",
    )
    origin: Annotated[OriginConfig | None, from_word("url")] = Field(
        None, description="Origin of a single site that answers for every host: short for `sites` with one entry."
    )
    listen: tuple[Annotated[ListenConfig, from_word("address")], ...] = Field(
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
    hsts: Annotated[HstsConfig | None, from_word("max_age")] = Field(
        None, description="Strict-Transport-Security, for every site that does not say otherwise. Default: none."
    )
    redirect_to_https: bool = Field(
        False, description="Redirect plain HTTP to https://, for every site that does not say otherwise."
    )
    sites: tuple[SiteConfig, ...] = Field((), max_length=10_000, description="Sites, each with hosts and an origin.")

    @model_validator(mode="after")
    def _one_purge_log(self) -> Self:
        if self.disk.path is not None and self.purge.log.path is not None:
            raise PydanticCustomError(
                "two_logs", "no purge.log.path beside disk.path: with a disk tier the log lies in its directory"
            )
        return self

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
