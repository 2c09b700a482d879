"""The composition root: the one place that builds objects and wires them together.

`Shared` is made before anything else and, with several processes, before any fork. A `Worker` is what serves clients,
a `Control` what serves the operator; they meet in the arena only, so that they may stand in different processes. `Edge`
is both in one.
"""

import asyncio
import ipaddress
import logging
import os
import secrets
import socket
import ssl
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import ClassVar

from pydantic import BaseModel

from edgecache import __version__
from edgecache._native.arena import Arena
from edgecache._native.fastlane import Lane, LaneSite
from edgecache._native.http1 import Limits
from edgecache._native.inflight import Leases
from edgecache.admin.dialects.build import admin_desk, public_desk
from edgecache.admin.node import Explanation
from edgecache.admin.server import AdminServer
from edgecache.admin.tokens import TokenCheck
from edgecache.config import certificates
from edgecache.config.fields import key_of
from edgecache.config.logs import AccessLogConfig
from edgecache.config.model import Config, LimitsConfig, SiteConfig
from edgecache.config.origin import OriginConfig
from edgecache.config.site import site_policy
from edgecache.edge.buffer import Budget
from edgecache.edge.connection import ClientLimits, Counters
from edgecache.edge.doors import Doors
from edgecache.edge.explain import Explainer
from edgecache.edge.forwarding import Hop
from edgecache.edge.leases import FillLeases, make_bells, ring
from edgecache.edge.listener import Listener
from edgecache.edge.lookup import Shelf, only_secondary_key
from edgecache.edge.pipeline import Pipeline
from edgecache.edge.sites import Site, Sites
from edgecache.edge.teller import Teller
from edgecache.edge.tls import TlsError, server_contexts
from edgecache.http.cachekey import QueryMode
from edgecache.http.clock import wall_clock
from edgecache.http.dates import parse_date
from edgecache.http.headers import Headers
from edgecache.http.tasks import spawn
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
    MAX_PROCESSES,
    OUTCOMES,
    ArenaCounters,
    Gauge,
    Layout,
    NodeSlot,
    ProcessGauges,
    cell,
    gauge_total,
    gauges_clear,
    put,
)
from edgecache.origin.api import Timeouts
from edgecache.origin.client import HttpOrigin
from edgecache.purge.following import Following, Turn, coordinator_client, trust_at_start
from edgecache.purge.keeper import PurgeKeeper
from edgecache.purge.log import LocalLog
from edgecache.purge.message import PurgeError, PurgeOrder, PurgeReceipt
from edgecache.store.disk import DiskStore
from edgecache.store.disksweep import DirectoryInUse
from edgecache.store.memory import MemoryStore
from edgecache.store.node import NodeDisk, disk_figures
from edgecache.store.tiers import TieredStore

_log = logging.getLogger("edgecache")


_MEMORY_COUNTS = frozenset({"evictions", "inserts", "hits", "misses", "purged", "recovered", "folds"})
"""Figures of the arena that only grow."""

_DISK_STATES = frozenset({"on", "records", "bytes_used"})

_DAY_S = 86_400.0
_PRUNE_S = 60.0

SPARE_SITES = 8
"""Sites with figures of their own that a reload may add, beyond those there are at start."""


class StartError(Exception):
    """It cannot start; the message says what is in the way and what to do. Exit code 2."""


class Shared:
    """What all processes of a node have in common, made before any of them: the arena, and the secret that its keys are
    hashed with. Outlives configurations: a reload changes nothing here but the names of sites."""

    def __init__(self, config: Config) -> None:
        self.started_at = wall_clock()
        self._config = config
        self.layout = Layout(tuple(site.title for site in config.sites), SPARE_SITES)
        try:
            self.arena = Arena(
                config.memory.size_bytes,
                max_object=config.memory.max_object_bytes,
                eviction=config.memory.eviction,
                purge_slots=config.purge.table_slots,
                counters=self.layout.slots,
                processes=MAX_PROCESSES,
            )
        except (ValueError, MemoryError, OSError) as error:
            raise StartError(f"memory: {error}") from error
        self.store = MemoryStore(self.arena)
        self.counters = ArenaCounters(self.arena)
        self.disk: NodeDisk | None = None
        if config.disk.path is not None:
            try:
                self.disk = NodeDisk(config.disk, self.arena, self.counters)
            except DirectoryInUse as error:
                raise StartError(f"disk.path: {error.strerror}: {error.filename}") from error
            self.store.directory = str(self.disk.path)
        self._sites_ever: frozenset[str] = frozenset()
        self._note_sites(config)
        trust_at_start(self.arena, config.purge)
        self.turn = Turn()
        self.bells = make_bells(MAX_PROCESSES)
        self.log_lock = os.memfd_create("edgecache-log-lock")
        """What all who write to one pipe lock, to take turns."""
        weakref.finalize(self, _close, (*self.bells, self.log_lock))

    def leases(self, process: int) -> FillLeases:
        """The fetches of all workers, as the process in this slot sees them."""
        return FillLeases(Leases(self.arena), self.bells, process, wall_clock)

    def bury(self, process: int) -> None:
        """The process in this slot is no more: give back what it held, and wake who waits for what it fetched."""
        self.arena.release_slot(process)
        Leases(self.arena).release_process(process)
        ring(self.bells, (1 << MAX_PROCESSES) - 1)  # all: if it died in the table, nobody knows any more who waits
        gauges_clear(self.counters, process)

    def _note_sites(self, config: Config) -> None:
        names = frozenset(site.title for site in config.sites)
        self._sites_ever |= self.disk.sites_ever(names) if self.disk is not None else names

    def sites_ever(self) -> frozenset[str]:
        """Every site there has been: what is stored may be of one that is not configured now, and will be again."""
        return self._sites_ever

    def adopt(self, config: Config) -> Config:
        """`config` with what cannot change while the arena lives as it is now; each such key is warned about."""
        sections: dict[str, BaseModel] = {"memory": config.memory, "disk": config.disk, "purge": config.purge}
        for name, attributes in _FIXED.items():
            given, have = sections[name], getattr(self._config, name)
            kept = {attribute: getattr(have, attribute) for attribute in attributes}
            for attribute, old in kept.items():
                if (new := getattr(given, attribute)) != old:
                    key = f"{name}.{key_of(attribute)}"
                    _log.warning("%s stays %s until a restart: it cannot change to %s", key, old, new, extra=_RESTART)
            sections[name] = given.model_copy(update=kept)
        self._note_sites(config)
        crowd = self.layout.extend(site.title for site in config.sites)
        if crowd:
            _log.warning("no figures of their own for the sites %s until a restart", ", ".join(crowd), extra=_RESTART)
        return config.model_copy(update=sections)


def _close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


_FIXED = {
    "memory": ("size_bytes", "max_object_bytes", "eviction"),
    "disk": ("path", "size_bytes", "admit", "large_bytes", "queue_bytes", "keep_stale_s"),
    "purge": ("table_slots",),
}
"""What the arena was made with, and the disk tier."""
_RESTART = {"remedy": "restart edgecache"}


class _ListenerCounters(Counters):
    """A listener's counters, each change counted in the arena too."""

    _SLOTS: ClassVar[dict[str, NodeSlot]] = {
        "accepted": NodeSlot.CLIENT_ACCEPTED,
        "over_limit": NodeSlot.CLIENT_OVER_LIMIT,
        "malformed": NodeSlot.CLIENT_MALFORMED,
        "timed_out": NodeSlot.CLIENT_TIMED_OUT,
        "stalled": NodeSlot.CLIENT_STALLED,
    }

    def __init__(self, recorder: Recorder) -> None:
        object.__setattr__(self, "_recorder", recorder)
        super().__init__()

    def __setattr__(self, name: str, value: int) -> None:
        slot = self._SLOTS.get(name)
        if slot is not None and (by := value - getattr(self, name, 0)):
            self._recorder.count(slot, by)
        object.__setattr__(self, name, value)

    _recorder: Recorder


class Worker:
    """What serves clients: sites, pipeline, listeners, access log. One per process, or the only one."""

    def __init__(
        self,
        config: Config,
        shared: Shared,
        *,
        process: int = 0,
        workers: int = 1,
        leases: FillLeases | None = None,
        token: TokenCheck | None = None,
    ) -> None:
        """`process`: this process's slot in the arena. `workers`: how many share the work; with several there are
        `leases` for what they fetch. `token`: knows the admin token, where purges may come by the public listeners."""
        self.config = config
        gauges = ProcessGauges(shared.counters, process)
        recorder = Recorder(shared.counters, shared.layout)
        self._access_log = _access_log(config.log.access, recorder, shared.log_lock)
        hop = _hop(config)
        self.sites = _sites(config)
        self._keeper = shared.disk.keeper() if shared.disk is not None else None
        self.purge_log = _purge_log(config, shared, self.sites, self._keeper)
        self._coordinator = coordinator_client(config.purge)
        self.tiers = (
            shared.disk.tiers(shared.store, process, sweeps=leases is None) if shared.disk is not None else None
        )
        self._leases = leases
        sinks = (recorder.record, *((self._access_log.add,) if self._access_log is not None else ()))
        self.pipeline = Pipeline(
            sites=self.sites,
            shelf=Shelf(self.tiers or shared.store),
            clock=wall_clock,
            hop=hop,
            purge=self.purge_log.append,
            kept=self._keeper.kept if self._keeper is not None else None,
            told=Teller(sinks, wall_clock, hop.client_ip),
            cache_name=config.cache.cache_status_name,
            max_request_body=config.limits.request_body_bytes,
            pass_when_silent=config.purge.when_silent == "pass",
            leases=self._leases,
            budget=Budget(config.memory.fills_bytes),
            fills_under_way=partial(gauges.set, Gauge.FILLS),
            side_door=public_desk(config.purge, self.sites.names, hop.client_ip, self.purge, token),
        )
        self._layout = shared.layout
        lane = self._lane(shared, hop)
        self.listeners = [
            Listener(
                self.pipeline.handle,
                limits=_client_limits(config.limits),
                decoder_limits=_decoder_limits(config.limits),
                max_connections=-(-config.limits.connections // workers),
                counters=_ListenerCounters(recorder),
                changed=partial(gauges.change, Gauge.CONNECTIONS),
                lane=lane,
            )
            for _ in config.listen
        ]

    async def purge(self, order: PurgeOrder) -> PurgeReceipt:
        """One that came by a public listener. Raises `PurgeError`."""
        if self._coordinator is not None:
            return await self._coordinator.purge(order, wait=True)
        receipt = self.purge_log.append(order)
        if self._keeper is not None:
            await self._keeper.kept()
        return receipt

    def _lane(self, shared: Shared, hop: Hop) -> Lane:
        limits, access = self.config.limits, self.config.log.access
        lane = Lane(
            shared.arena,
            shared.store.secret,
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
            files=shared.store.directory,
        )
        if self.tiers is not None:
            self.tiers.uses = lane.take_uses
        if self._access_log is not None:
            self._access_log.add_source(lane.drain_log)
        return lane

    def _lane_site(self, authority: str) -> LaneSite | None:
        """What the fast lane needs of a site; None where every answer takes judgement."""
        site = self.sites.find(authority)
        if site is None or site.policy.cache_status_key:
            return None
        query = site.policy.query
        return LaneSite(
            site.name,
            site.policy.cache_status_name,
            plain_query=query.mode is QueryMode.ALL and not query.sort and not site.policy.no_vary_search,
            block=self._layout.block(site.name),
            hsts=site.hsts or "",
            only_tls=site.https_port is not None,
        )

    async def start(
        self,
        doors: Sequence[socket.socket] | None = None,
        contexts: Sequence[ssl.SSLContext | None] | None = None,
    ) -> None:
        """Accept on these sockets, with these contexts for TLS, or bind and make them. Raises `StartError`, with
        nothing left open."""
        if self._access_log is not None:
            try:
                self._access_log.start()
            except OSError as error:
                raise StartError(
                    f"log.access.path: cannot open {self.config.log.access.path}: {error.strerror}"
                ) from error
        if self._leases is not None:
            self._leases.start()
        if self._keeper is not None:
            self._keeper.start()
        if self.tiers is not None:
            await self.tiers.start()
        try:
            if contexts is None:
                contexts = server_contexts(self.config)
            for i, (listener, listen) in enumerate(zip(self.listeners, self.config.listen, strict=True)):
                door = (listen.address.host, listen.address.port) if doors is None else doors[i]
                await _bind(listener.start(door, contexts[i]), f"listen {listen.address}")
        except (StartError, TlsError) as error:
            await self.close(0.0)
            raise StartError(str(error)) from error

    async def shut(self) -> None:
        """Accept no more connections."""
        await asyncio.gather(*(listener.shut() for listener in self.listeners))

    async def close(self, drain_s: float, idle_s: float = 0.0) -> bool:
        """Finish what is under way, up to `drain_s` seconds, then stop. True when nothing had to be cut.

        `idle_s`: how long connections without a request may stay.
        """
        whole = all(await asyncio.gather(*(listener.drain(drain_s, idle_s) for listener in self.listeners)))
        if self._leases is not None:
            self._leases.stop()
        self.pipeline.codings.close()
        if self.pipeline.slicer is not None:
            await self.pipeline.slicer.close()
        await asyncio.gather(*(site.origin.close() for site in self.sites.all))
        if self.tiers is not None:
            await self.tiers.close()
        if self._keeper is not None:
            await self._keeper.close()
        if self._access_log is not None:
            await self._access_log.close()
        return whole

    def reopen_logs(self) -> None:
        if self._access_log is not None:
            self._access_log.reopen()


class Control:
    """What serves the operator: the admin API, the node's figures, the purge log (`admin.node.Node`).

    It stands beside the workers and sees them only through the arena.
    """

    def __init__(
        self,
        config: Config,
        shared: Shared,
        token: str,
        *,
        sites: Sites | None = None,
        purge_log: LocalLog | None = None,
        tiers: TieredStore | None = None,
        in_flight: Callable[[bytes], bool] | None = None,
        process: int = 0,
    ) -> None:
        """`sites`, `purge_log`, `tiers` and `in_flight` are the worker's, where there is one in the same process; else
        `process` is this process's slot in the arena."""
        self.config = config
        self.name = config.name
        self._shared = shared
        self._own_sites = sites is None
        self._sites = sites if sites is not None else _sites(config)
        apart = purge_log is None and shared.disk is not None
        self._keeper = shared.disk.keeper() if shared.disk is not None and apart else None
        self._tiers = (
            shared.disk.tiers(shared.store, process, sweeps=True) if shared.disk is not None and apart else None
        )
        self._log = purge_log if purge_log is not None else _purge_log(config, shared, self._sites, self._keeper)
        self._coordinator = coordinator_client(config.purge)
        self._following = Following(
            config.purge,
            edge=config.name,
            arena=shared.arena,
            turn=shared.turn,
            sites=shared.sites_ever,
            cache_keys=self._sites.cache_keys,
            keeper=self._log.keeper,
        )
        self._reader = Reader(shared.counters, shared.layout, (self._figures,))
        self._explainer = Explainer(
            self._sites,
            Shelf(self._tiers or tiers or shared.store),
            in_flight or shared.leases(0).held,
            wall_clock,
            pass_when_silent=config.purge.when_silent == "pass",
        )
        desk = admin_desk(config.purge, self._sites.names)
        self.admin = AdminServer(self, config.admin, config.purge, token, desk=desk)
        swept = self._tiers or tiers
        self._swept = swept.disk if swept is not None else None
        self._pruning: asyncio.Task[None] | None = None
        self._first_end: float | None = None
        """When the first certificate ends."""
        self._daily: asyncio.TimerHandle | None = None

    async def start(self, door: socket.socket | None = None) -> None:
        """Raises `StartError`."""
        if self._keeper is not None:
            self._keeper.start()
        if self._tiers is not None:
            await self._tiers.disk.start()
        await self._following.start()
        if self._swept is not None and self._log.keeper is not None:
            self._pruning = spawn(self._prune(self._swept, self._log.keeper), "purge-prune")
        await _bind(self.admin.start(door), f"admin {self.config.admin.address}")
        self._first_end, _ = certificates.watched(self.config, wall_clock())  # loading has warned already
        self._daily = asyncio.get_running_loop().call_later(_DAY_S, self._look_at_certificates)

    async def _prune(self, disk: DiskStore, keeper: PurgeKeeper) -> None:
        """What nothing on disk needs any more is not kept beside it."""
        done = 0
        while True:
            await asyncio.sleep(_PRUNE_S)
            if (through := disk.clean_through) > done:
                await keeper.prune(through)
                done = through

    def _look_at_certificates(self) -> None:
        """Once a day, for who never reloads. What has been renewed and not loaded is not served yet: no all-clear."""
        _, warnings = certificates.watched(self.config, wall_clock())
        for warning in warnings:
            _log.warning("%s", warning)
        self._daily = asyncio.get_running_loop().call_later(_DAY_S, self._look_at_certificates)

    async def close(self) -> None:
        if self._daily is not None:
            self._daily.cancel()
        if self._pruning is not None:
            self._pruning.cancel()
            await asyncio.wait([self._pruning])
        await self.admin.close()
        await self._following.close()
        if self._tiers is not None:
            await self._tiers.disk.close()
        if self._keeper is not None:
            await self._keeper.close()
        if self._own_sites:
            await asyncio.gather(*(site.origin.close() for site in self._sites.all))

    # --- what the admin API asks (admin.node.Node) ---

    def ready(self) -> tuple[bool, str]:
        read = self._shared.counters.read
        if read(NodeSlot.DRAINING):
            return False, "shutting down"
        if not read(NodeSlot.GENERATION):
            return False, "starting"
        if not read(NodeSlot.WORKERS_READY):
            return False, "no worker is running"
        return self._following.ready()

    async def purge(
        self, order: PurgeOrder, *, wait: bool, timeout_s: float | None = None, key: str | None = None
    ) -> PurgeReceipt:
        if self._coordinator is not None:
            return await self._coordinator.purge(order, wait=wait, timeout_s=timeout_s, key=key)
        receipt = self._log.append(order)
        if self._log.keeper is not None:
            await self._log.keeper.kept()  # whoever has asked for it may rely on it, also after a crash
        return receipt

    async def purged(self, sequence: int) -> dict[str, object]:
        if self._coordinator is not None:
            return await self._coordinator.purged(sequence)
        if not 0 < sequence <= self._shared.arena.sequence():
            raise PurgeError(f"there was no purge {sequence} here", status=404)
        return {"sequence": sequence, "edges": [{"edge": self.name, "applied": True}], "away": []}

    async def edges(self) -> dict[str, object]:
        if self._coordinator is not None:
            return await self._coordinator.edges()
        head = self._shared.arena.sequence()
        here = {"edge": self.name, "connected": True, "position": head, "lag": 0, "version": __version__}
        return {"head": head, "edges": [{**here, "since": self._shared.started_at}]}

    async def explain(self, method: str, url: str, headers: Headers) -> Explanation:
        return await self._explainer.explain(method, url, headers)

    def metrics(self) -> bytes:
        return self._reader.exposition()

    def stats(self) -> dict[str, object]:
        shared, read = self._shared, self._shared.counters.read
        return {
            "edge": self.name,
            "version": __version__,
            "uptime_s": round(wall_clock() - shared.started_at, 1),
            **self._reader.summary(),
            "memory": shared.arena.stats(),
            **({"disk": disk_figures(shared.counters)} if shared.disk is not None else {}),
            "connections": gauge_total(shared.counters, Gauge.CONNECTIONS),
            "fills": gauge_total(shared.counters, Gauge.FILLS),
            "purges": {"sequence": shared.arena.sequence(), **self._following.stats()},
            "processes": {
                "workers": read(NodeSlot.WORKERS),
                "ready": read(NodeSlot.WORKERS_READY),
                "died": read(NodeSlot.PROCESSES_DIED),
                "configuration": read(NodeSlot.GENERATION),
                "reloads_refused": read(NodeSlot.RELOADS_REFUSED),
            },
        }

    def _figures(self) -> Iterable[Figure]:
        shared, read = self._shared, self._shared.counters.read
        for name, value in shared.arena.stats().items():
            text = f"Memory tier: {name.replace('_', ' ')}."
            yield Figure(f"memory_{name}", text, float(value), counter=name in _MEMORY_COUNTS)
        if shared.disk is not None:
            for name, value in disk_figures(shared.counters).items():
                counts = name not in _DISK_STATES
                yield Figure(f"disk_{name}", f"Disk tier: {name.replace('_', ' ')}.", float(value), counter=counts)
        connections, fills = (gauge_total(shared.counters, gauge) for gauge in (Gauge.CONNECTIONS, Gauge.FILLS))
        yield Figure("connections", "Client connections open.", float(connections))
        yield Figure("fills_under_way", "Fetches under way that others may join.", float(fills))
        yield Figure("purge_sequence", "Number of the last purge applied.", float(shared.arena.sequence()))
        yield from self._fleet_figures()
        yield Figure("workers", "Workers there should be.", float(read(NodeSlot.WORKERS)))
        yield Figure("workers_ready", "Workers that serve.", float(read(NodeSlot.WORKERS_READY)))
        if self._first_end is not None:
            yield Figure("certificate_not_after_seconds", "When the first certificate ends.", self._first_end)

    def _fleet_figures(self) -> Iterable[Figure]:
        fleet = self._following.stats()
        if not fleet:
            return
        yield Figure("purge_silent", "1 while purges may be missing: see purge.when_silent.", float(fleet["silent"]))
        yield Figure("purge_connected", "1 while connected to the purge coordinator.", float(fleet["connected"]))
        yield Figure("purge_caught_up", "1 while nothing of its log is missing.", float(fleet["caught_up"]))
        yield Figure("purge_position", "Number up to which its log is applied and kept.", float(fleet["position"]))
        yield Figure("purge_lag", "Purges known to be missing.", float(fleet["lag"]))
        yield Figure("purge_applied", "Purges applied from it.", float(fleet["applied"]), counter=True)
        yield Figure("purge_resets", "Times everything was purged for a gap.", float(fleet["resets"]), counter=True)
        if fleet["heard_ago_s"] is not None:
            text = "Seconds since it was last known that nothing is missing."
            yield Figure("purge_heard_ago_seconds", text, fleet["heard_ago_s"])


class Edge:
    """A worker and the control part in one process."""

    def __init__(self, config: Config, shared: Shared, token: str) -> None:
        self.config = config
        self._shared = shared
        self.worker = Worker(config, shared, token=TokenCheck(token))
        self.control = Control(
            config,
            shared,
            token,
            sites=self.worker.sites,
            purge_log=self.worker.purge_log,
            tiers=self.worker.tiers,
            in_flight=self.worker.pipeline.collapse.fills.__contains__,
        )

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def pipeline(self) -> Pipeline:
        return self.worker.pipeline

    @property
    def listeners(self) -> list[Listener]:
        return self.worker.listeners

    @property
    def admin(self) -> AdminServer:
        return self.control.admin

    async def start(self, doors: Doors | None = None, contexts: Sequence[ssl.SSLContext | None] | None = None) -> None:
        """Accept on these sockets, which are then the edge's to close, or bind. Raises `StartError`, with nothing left
        open."""
        await self.worker.start(doors.public[0] if doors is not None else None, contexts)
        try:
            await self.control.start(doors.admin if doors is not None else None)
        except StartError:
            await self.close(0.0)
            raise
        counters = self._shared.counters
        for slot in (NodeSlot.WORKERS, NodeSlot.WORKERS_READY):
            put(counters, slot, 1)
        counters.add(NodeSlot.GENERATION)

    async def close(self, drain_s: float, idle_s: float = 0.0) -> bool:
        """Finish what is under way, up to `drain_s` seconds, then stop. True when nothing had to be cut."""
        whole = await self.worker.close(drain_s, idle_s)
        await self.control.close()
        return whole

    def reopen_logs(self) -> None:
        self.worker.reopen_logs()

    async def purge(self, order: PurgeOrder, *, wait: bool) -> PurgeReceipt:
        return await self.control.purge(order, wait=wait)

    async def explain(self, method: str, url: str, headers: Headers) -> Explanation:
        return await self.control.explain(method, url, headers)

    def metrics(self) -> bytes:
        return self.control.metrics()

    def stats(self) -> dict[str, object]:
        return self.control.stats()


async def _bind(binding: Awaitable[None], what: str) -> None:
    try:
        await binding
    except OSError as error:
        raise StartError(f"{what}: {error.strerror or error}") from error


def _sites(config: Config) -> Sites:
    return Sites(_site(site, config) for site in config.sites)


def _purge_log(config: Config, shared: Shared, sites: Sites, keeper: PurgeKeeper | None) -> LocalLog:
    return LocalLog(
        shared.arena,
        edge=config.name,
        sites=shared.sites_ever,
        cache_keys=sites.cache_keys,
        clock=wall_clock,
        keeper=keeper,
    )


def _hop(config: Config) -> Hop:
    forwarding = config.forwarding
    return Hop(
        node_id=secrets.token_hex(4),
        pseudonym=forwarding.via,
        trusted=tuple(ipaddress.ip_network(network) for network in forwarding.trusted_proxies),
        untold=forwarding.untold,
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


def _access_log(access: AccessLogConfig, recorder: Recorder, lock: int) -> AccessLog | None:
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
