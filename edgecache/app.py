"""The composition root: the one place that builds objects and wires them together.

`Shared` is made before anything else (and, with several processes, before any fork); an `Edge` is what one process
serves with; `serve` runs one until it is told to stop.
"""

import asyncio
import ipaddress
import logging
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterable

import uvloop

from edgecache import __version__
from edgecache._native.arena import Arena
from edgecache._native.fastlane import Lane, LaneSite
from edgecache._native.http1 import Limits
from edgecache.admin import tokens
from edgecache.admin.node import Explanation
from edgecache.admin.server import AdminServer
from edgecache.config.model import AccessLogConfig, Config, LimitsConfig, OriginConfig, SiteConfig
from edgecache.config.site import site_policy
from edgecache.edge.buffer import Budget
from edgecache.edge.connection import ClientLimits
from edgecache.edge.explain import Explainer
from edgecache.edge.forwarding import Hop
from edgecache.edge.listener import Listener
from edgecache.edge.lookup import Shelf, only_secondary_key
from edgecache.edge.pipeline import Pipeline
from edgecache.edge.sites import Site, Sites
from edgecache.edge.teller import Teller
from edgecache.http.cachekey import QueryMode
from edgecache.http.clock import wall_clock
from edgecache.http.dates import parse_date
from edgecache.http.headers import Headers
from edgecache.observe import log
from edgecache.observe.accesslog import (
    AccessLog,
    Redactor,
    combined_formatter,
    combined_second,
    json_formatter,
    json_second,
)
from edgecache.observe.events import Outcome
from edgecache.observe.metrics import Figure, Reader, Recorder
from edgecache.observe.slots import (
    ABORTED,
    BUCKETS,
    BYTES_OUT,
    OUTCOMES,
    ArenaCounters,
    Layout,
    NodeSlot,
    cell,
)
from edgecache.origin.api import Timeouts
from edgecache.origin.client import HttpOrigin
from edgecache.purge.log import LocalLog
from edgecache.purge.message import PurgeOrder, PurgeReceipt
from edgecache.store.memory import MemoryStore

_log = logging.getLogger("edgecache")


_MEMORY_COUNTS = frozenset({"evictions", "inserts", "hits", "misses", "purged", "recovered", "folds"})
"""Figures of the arena that only grow."""

_LISTENER_FIGURES = {
    "accepted": "Client connections accepted.",
    "over_limit": "Client connections answered 503, beyond limits.connections.",
    "malformed": "Requests whose framing could not be trusted.",
    "timed_out": "Clients cut off for being slow to ask.",
    "stalled": "Clients cut off for not taking their answer.",
}


class StartError(Exception):
    """It cannot start; the message says what is in the way and what to do. Exit code 2."""


class Shared:
    """What all processes of a node have in common: the arena, and the secret that its keys are hashed with."""

    def __init__(self, config: Config) -> None:
        self.layout = Layout(tuple(site.title for site in config.sites))
        try:
            self.arena = Arena(
                config.memory.size_bytes,
                max_object=config.memory.max_object_bytes,
                purge_slots=config.purge.table_slots,
                counters=self.layout.slots,
            )
        except (ValueError, MemoryError, OSError) as error:
            raise StartError(f"memory: {error}") from error
        self.store = MemoryStore(self.arena)


class Edge:
    """A running edge in one process. Answers the admin API's questions (`admin.node.Node`)."""

    def __init__(self, config: Config, shared: Shared, token: str) -> None:
        self.config = config
        self.name = config.name
        self._shared = shared
        self._started_at = wall_clock()
        self._draining = False
        store = shared.store
        counters = ArenaCounters(shared.arena)
        self._recorder = Recorder(counters, shared.layout)
        self._access_log = _access_log(config.log.access, self._recorder)
        self._reader = Reader(counters, shared.layout, (self._figures,))
        hop = _hop(config)
        self.sites = Sites(_site(site, config) for site in config.sites)
        self._log = LocalLog(
            shared.arena,
            edge=config.name,
            sites=self.sites.names,
            cache_keys=self.sites.cache_keys,
            clock=wall_clock,
        )
        sinks = (self._recorder.record, *((self._access_log.add,) if self._access_log is not None else ()))
        self.pipeline = Pipeline(
            sites=self.sites,
            shelf=Shelf(store),
            clock=wall_clock,
            hop=hop,
            purge=self._log.append,
            told=Teller(sinks, wall_clock, hop.client_ip),
            cache_name=config.cache.cache_status_name,
            max_request_body=config.limits.request_body_bytes,
            budget=Budget(config.memory.fills_bytes),
        )
        self._explainer = Explainer(self.sites, self.pipeline.shelf, self.pipeline.collapse, wall_clock)
        lane = self._lane(hop)
        self.listeners = [
            Listener(
                self.pipeline.handle,
                limits=_client_limits(config.limits),
                decoder_limits=_decoder_limits(config.limits),
                max_connections=config.limits.connections,
                lane=lane,
            )
            for _ in config.listen
        ]
        self.admin = AdminServer(self, config.admin, config.purge, token)

    def _lane(self, hop: Hop) -> Lane:
        limits, access = self.config.limits, self.config.log.access
        lane = Lane(
            self._shared.arena,
            self._shared.store.secret,
            find_site=self._lane_site,
            secondary_key=only_secondary_key,
            readable_date=lambda text: parse_date(text, wall_clock()) is not None,
            redact=Redactor(access.redact),
            trusts=hop.trusts,
            received_by=hop.received_by,
            request_line=limits.request_line_bytes,
            field_line=limits.field_line_bytes,
            head=limits.head_bytes,
            fields=limits.fields,
            slots=(BUCKETS, cell(OUTCOMES.index(Outcome.HIT), 0), BYTES_OUT, ABORTED),
            log_form=access.format,
            log_full=self._access_log.flush if self._access_log is not None else None,
            stamp=json_second if access.format == "json" else combined_second,
        )
        if self._access_log is not None:
            self._access_log.add_source(lane.drain_log)
        return lane

    def _lane_site(self, authority: str) -> LaneSite | None:
        """What the fast lane needs of a site; None where every answer takes judgement."""
        site = self.sites.find(authority)
        if site is None or site.policy.cache_status_key or site.policy.early_hints:
            return None
        query = site.policy.query
        return LaneSite(
            site.name,
            site.policy.cache_status_name,
            plain_query=query.mode is QueryMode.ALL and not query.sort and not site.policy.no_vary_search,
            block=self._shared.layout.block(site.name),
        )

    # --- life ---

    async def start(self) -> None:
        """Bind everything. Raises `StartError`, with nothing left open."""
        if self._access_log is not None:
            try:
                self._access_log.start()
            except OSError as error:
                raise StartError(
                    f"log.access.path: cannot open {self.config.log.access.path}: {error.strerror}"
                ) from error
        try:
            for listener, listen in zip(self.listeners, self.config.listen, strict=True):
                await _bind(listener.start((listen.address.host, listen.address.port)), f"listen {listen.address}")
            await _bind(self.admin.start(), f"admin {self.config.admin.address}")
        except StartError:
            await self.close(0.0)
            raise

    async def close(self, drain_s: float) -> bool:
        """Finish what is under way, up to `drain_s` seconds, then stop. True when nothing had to be cut."""
        self._draining = True
        whole = all(await asyncio.gather(*(listener.drain(drain_s) for listener in self.listeners)))
        await self.admin.close()
        await asyncio.gather(*(site.origin.close() for site in self.sites.all))
        if self._access_log is not None:
            await self._access_log.close()
        return whole

    def reopen_logs(self) -> None:
        if self._access_log is not None:
            self._access_log.reopen()

    # --- what the admin API asks (admin.node.Node) ---

    def ready(self) -> tuple[bool, str]:
        return (False, "shutting down") if self._draining else (True, "serving")

    async def purge(self, order: PurgeOrder, *, wait: bool) -> PurgeReceipt:  # noqa: ARG002 - applied at once here
        return self._log.append(order)

    def explain(self, method: str, url: str, headers: Headers) -> Explanation:
        return self._explainer.explain(method, url, headers)

    def metrics(self) -> bytes:
        return self._reader.exposition()

    def stats(self) -> dict[str, object]:
        arena = self._shared.arena.stats()
        return {
            "edge": self.name,
            "version": __version__,
            "uptime_s": round(wall_clock() - self._started_at, 1),
            **self._reader.summary(),
            "memory": arena,
            "connections": self._connections(),
            "fills": len(self.pipeline.collapse.fills),
            "purges": {"sequence": self._shared.arena.sequence(), "recent": len(self._log.recent)},
        }

    def _connections(self) -> int:
        return sum(listener.connections for listener in self.listeners)

    def _figures(self) -> Iterable[Figure]:
        for name, value in self._shared.arena.stats().items():
            text = f"Memory tier: {name.replace('_', ' ')}."
            yield Figure(f"memory_{name}", text, float(value), counter=name in _MEMORY_COUNTS)
        yield Figure("connections", "Client connections open.", float(self._connections()))
        for name, text in _LISTENER_FIGURES.items():
            seen = sum(getattr(listener.counters, name) for listener in self.listeners)
            yield Figure(f"client_{name}", text, float(seen), counter=True)
        yield Figure(
            "fills_under_way", "Fetches under way that others may join.", float(len(self.pipeline.collapse.fills))
        )
        yield Figure("purge_sequence", "Number of the last purge applied.", float(self._shared.arena.sequence()))


def serve(config: Config, *, ready: Callable[[Edge], None] | None = None) -> int:
    """Run an edge until SIGTERM or SIGINT. Returns the process's exit code."""
    log.set_up(config.log.level, config.log.format)
    try:
        token = tokens.for_server(config.admin.token_file, os.environ, root=os.geteuid() == 0)
        shared = Shared(config)
    except (StartError, tokens.TokenError) as error:
        _log.error("%s", error)
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, shared, token, ready))


async def _serve(config: Config, shared: Shared, token: str, ready: Callable[[Edge], None] | None) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    edge = Edge(config, shared, token)
    loop.add_signal_handler(signal.SIGUSR1, edge.reopen_logs)
    try:
        await edge.start()
    except StartError as error:
        _log.error("%s", error)
        return 2
    for listener, listen in zip(edge.listeners, config.listen, strict=True):
        _log.info("listening on http://%s:%d", listen.address.host or "*", listener.port)
    _log.info("admin API on http://%s", edge.admin.address)
    if ready is not None:
        ready(edge)
    await stop.wait()
    _log.info("stopping: requests under way have %g s to finish", config.limits.drain_timeout_s)
    whole = await edge.close(config.limits.drain_timeout_s)
    if not whole:
        _log.warning("some requests were cut off at the end of limits.drain_timeout")
    return 0


async def _bind(binding: Awaitable[None], what: str) -> None:
    try:
        await binding
    except OSError as error:
        raise StartError(f"{what}: {error.strerror or error}") from error


def _hop(config: Config) -> Hop:
    forwarding = config.forwarding
    return Hop(
        node_id=secrets.token_hex(4),
        pseudonym=forwarding.via,
        trusted=tuple(ipaddress.ip_network(network) for network in forwarding.trusted_proxies),
        untold=forwarding.untold,
    )


def _site(site: SiteConfig, config: Config) -> Site:
    return Site(policy=site_policy(site, config.memory), origin=_origin(site.origin), hosts=site.hosts)


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


def _client_limits(limits: LimitsConfig) -> ClientLimits:
    return ClientLimits(
        head_s=limits.header_timeout_s,
        idle_s=limits.idle_timeout_s,
        body_s=limits.between_bytes_timeout_s,
        stall_s=limits.write_timeout_s,
    )


def _decoder_limits(limits: LimitsConfig) -> Limits:
    return Limits(
        request_line=limits.request_line_bytes,
        field_line=limits.field_line_bytes,
        head=limits.head_bytes,
        fields=limits.fields,
        trailer_fields=limits.trailer_fields,
    )


def _access_log(access: AccessLogConfig, recorder: Recorder) -> AccessLog | None:
    if access.format == "off":
        return None
    formatter = json_formatter if access.format == "json" else combined_formatter
    return AccessLog(
        formatter(Redactor(access.redact)),
        access.path,
        flush_interval_s=access.flush_interval_s,
        buffer_lines=access.buffer_lines,
        on_drop=lambda lines: recorder.count(NodeSlot.LOG_DROPPED, lines),
    )
