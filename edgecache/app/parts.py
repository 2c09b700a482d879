"""Parts that workers and the control process make of the configuration alike."""

import ipaddress
import secrets
from collections.abc import Awaitable

from edgecache._native.http1 import Limits
from edgecache.app.shared import Shared, StartError
from edgecache.config.logs import AccessLogConfig
from edgecache.config.model import Config, LimitsConfig, SiteConfig
from edgecache.config.origin import OriginConfig
from edgecache.config.site import site_policy
from edgecache.edge.connection import ClientLimits
from edgecache.edge.forwarding import Hop
from edgecache.edge.sites import Site, Sites
from edgecache.http.clock import wall_clock
from edgecache.observe.accesslog import (
    AccessLog,
    Redactor,
    combined_formatter,
    json_formatter,
)
from edgecache.observe.metrics import Recorder
from edgecache.observe.slots import (
    NodeSlot,
)
from edgecache.origin.api import Timeouts
from edgecache.origin.client import HttpOrigin
from edgecache.purge.keeper import PurgeKeeper
from edgecache.purge.log import LocalLog


async def bind(binding: Awaitable[None], what: str) -> None:
    try:
        await binding
    except OSError as error:
        raise StartError(f"{what}: {error.strerror or error}") from error


def make_sites(config: Config) -> Sites:
    return Sites(_site(site, config) for site in config.sites)


def make_purge_log(config: Config, shared: Shared, sites: Sites, keeper: PurgeKeeper | None) -> LocalLog:
    return LocalLog(
        shared.arena,
        edge=config.name,
        sites=shared.sites_ever,
        cache_keys=sites.cache_keys,
        clock=wall_clock,
        book=shared.orders.book(keeper),
        keeper=keeper if shared.disk is not None else None,
        match=matches_patterns(config),
    )


def matches_patterns(config: Config) -> bool:
    """Are stored URLs compared with patterns here?"""
    return config.purge.dialects.patterns == "match"


def make_hop(config: Config) -> Hop:
    forwarding = config.forwarding
    return Hop(
        node_id=secrets.token_hex(4),
        pseudonym=forwarding.via,
        trusted=tuple(ipaddress.ip_network(network) for network in forwarding.trusted_proxies),
        untold=forwarding.untold,
    )


def client_limits(limits: LimitsConfig) -> ClientLimits:
    return ClientLimits(
        head_s=limits.header_timeout_s,
        idle_s=limits.idle_timeout_s,
        body_s=limits.between_bytes_timeout_s,
        stall_s=limits.write_timeout_s,
    )


def decoder_limits(limits: LimitsConfig) -> Limits:
    return Limits(
        request_line=limits.request_line_bytes,
        field_line=limits.field_line_bytes,
        head=limits.head_bytes,
        fields=limits.fields,
        trailer_fields=limits.trailer_fields,
    )


def make_access_log(access: AccessLogConfig, recorder: Recorder, lock: int) -> AccessLog | None:
    if access.format == "off":
        return None
    formatter = json_formatter if access.format == "json" else combined_formatter
    return AccessLog(
        formatter(Redactor(access.redact)),
        access.path,
        flush_interval_s=access.flush_interval_s,
        buffer_lines=access.buffer_lines,
        on_drop=lambda lines: recorder.count(NodeSlot.LOG_DROPPED, lines),
        lock=lock,
    )


def _site(site: SiteConfig, config: Config) -> Site:
    port = next((listen.address.port for listen in config.listen if listen.tls is not None), 443)
    return Site(
        policy=site_policy(site, config.memory, disk=config.disk.path is not None),
        origin=_origin(site.origin),
        hosts=site.hosts,
        hsts=site.hsts.value if site.hsts is not None else None,
        https_port=port if site.redirect_to_https else None,
    )


def _origin(origin: OriginConfig) -> HttpOrigin:
    return HttpOrigin(
        origin.url,
        timeouts=Timeouts(
            connect_s=origin.connect_timeout_s,
            first_byte_s=origin.first_byte_timeout_s,
            between_bytes_s=origin.between_bytes_timeout_s,
            idle_s=origin.idle_timeout_s,
        ),
        max_connections=origin.connections,
        max_waiters=origin.waiting,
        host=origin.host,
        verify=origin.tls.verify,
        ca_file=origin.tls.ca_file,
        server_name=origin.tls.server_name,
    )
