"""What serves the operator."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict

from edgecache import __version__
from edgecache.admin.dialects.build import admin_desk
from edgecache.admin.node import Explanation
from edgecache.admin.server import AdminServer
from edgecache.app.parts import bind, make_purge_log, make_sites
from edgecache.app.shared import Shared
from edgecache.config import certificates
from edgecache.config.model import Config
from edgecache.edge.explain import Explainer
from edgecache.edge.lookup import Shelf
from edgecache.edge.sites import Sites
from edgecache.http.clock import wall_clock
from edgecache.http.headers import Headers
from edgecache.http.tasks import spawn
from edgecache.observe.metrics import Figure, Reader
from edgecache.observe.slots import (
    Gauge,
    NodeSlot,
    gauge_total,
)
from edgecache.purge.bans import newest_first
from edgecache.purge.bus import BusError, Caller
from edgecache.purge.following import Following, coordinator_client
from edgecache.purge.forgetting import Forgetting
from edgecache.purge.keeper import PurgeKeeper
from edgecache.purge.log import LocalLog
from edgecache.purge.message import PurgeError, PurgeOrder, PurgeReceipt
from edgecache.store.disk import DiskStore
from edgecache.store.lurker import Lurker
from edgecache.store.node import disk_figures
from edgecache.store.tiers import TieredStore

_log = logging.getLogger("edgecache")


_MEMORY_COUNTS = frozenset(
    {"evictions", "inserts", "hits", "misses", "purged", "recovered", "folds", "purges_forgotten"}
)
"""Figures of the arena that only grow."""


_DISK_STATES = frozenset({"on", "records", "bytes_used"})


_DAY_S = 86_400.0


_PRUNE_S = 60.0


_PATTERNS_SHOWN = 20


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
        self._sites = sites if sites is not None else make_sites(config)
        apart = purge_log is None
        self._keeper = shared.orders.keeper() if apart else None
        self._tiers = (
            shared.disk.tiers(shared.store, process, sweeps=True) if shared.disk is not None and apart else None
        )
        self._log = purge_log if purge_log is not None else make_purge_log(config, shared, self._sites, self._keeper)
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
        self._tasks: list[asyncio.Task[None]] = []
        self._lurker = Lurker(
            swept or shared.store,
            scanned=(lambda: swept.disk.clean_through) if swept is not None else None,
            synced=swept.disk.synced if swept is not None else None,
            keeper=self._log.keeper,
        )
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
            self._tasks.append(spawn(self._prune(self._swept, self._log.keeper), "purge-prune"))
        self._tasks.append(spawn(self._lurker.run(), "purge-patterns"))
        if self._coordinator is None:
            self._tasks.append(spawn(self._compact(), "purge-compaction"))
        self._tasks.append(spawn(self._forget(), "purge-forgetting"))
        await bind(self.admin.start(door), f"admin {self.config.admin.address}")
        self._first_end, _ = certificates.watched(self.config, wall_clock())  # loading has warned already
        self._daily = asyncio.get_running_loop().call_later(_DAY_S, self._look_at_certificates)

    async def _prune(self, disk: DiskStore, keeper: PurgeKeeper) -> None:
        """What nothing on disk needs any more is not kept beside it."""
        done = 0
        while True:
            await asyncio.sleep(_PRUNE_S)
            if (through := disk.clean_through) > done and await disk.synced():
                await keeper.prune(through)
                done = through

    async def _compact(self) -> None:
        while True:
            try:
                await self._log.compact()
            except BusError as error:
                _log.warning("the log of purges is not compacted: %s", error, extra={"remedy": error.remedy})
            await asyncio.sleep(_PRUNE_S)

    async def _forget(self) -> None:
        """In the arena's table, what nothing stored needs any more."""
        arena, clock, disk = self._shared.arena, time.monotonic, self._swept
        compare = self._lurker.round
        if disk is None:
            await Forgetting(arena, clock=clock, compare=compare).run()
        else:
            await Forgetting(
                arena,
                clock=clock,
                disk_clean=lambda: disk.clean_through,
                sweep_soon=disk.sweep_soon,
                compare=compare,
            ).run()

    def _patterns(self) -> dict[str, object]:
        read = self._shared.counters.read
        listed = self._shared.arena.patterns()
        active = listed[2] if listed is not None else []
        return {
            "active": len(active),
            "compared": read(NodeSlot.PATTERN_CHECKS),
            "matched": read(NodeSlot.PATTERN_MATCHES),
            "undecided": read(NodeSlot.PATTERN_UNDECIDED),
            "newest": newest_first(active[-_PATTERNS_SHOWN:]),
        }

    def _look_at_certificates(self) -> None:
        """Once a day, for who never reloads. What has been renewed and not loaded is not served yet: no all-clear."""
        _, warnings = certificates.watched(self.config, wall_clock())
        for warning in warnings:
            _log.warning("%s", warning)
        self._daily = asyncio.get_running_loop().call_later(_DAY_S, self._look_at_certificates)

    def shut(self) -> None:
        """Accept no more connections: what is asked from now on is another's to answer."""
        self.admin.shut()

    async def close(self) -> None:
        if self._daily is not None:
            self._daily.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
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
        self,
        order: PurgeOrder,
        *,
        caller: Caller,
        wait: bool,
        timeout_s: float | None = None,
        key: str | None = None,
    ) -> PurgeReceipt:
        if self._coordinator is not None:
            return await self._coordinator.purge(order, wait=wait, timeout_s=timeout_s, key=key)
        return await self._log.purge(order, caller, key)

    async def purged(self, sequence: int) -> dict[str, object]:
        if self._coordinator is not None:
            return await self._coordinator.purged(sequence)
        if not 0 < sequence <= self._shared.arena.sequence():
            raise PurgeError(f"there was no purge {sequence} here", status=404)
        known = await self._log.find(sequence)
        order = {} if known is None else {"time": known.time, "order": json.loads(known.text or "null")}
        return {"sequence": sequence, **order, "edges": [{"edge": self.name, "applied": True}], "away": []}

    async def audit(self, before: int | None, limit: int) -> dict[str, object]:
        if self._coordinator is not None:
            raise PurgeError("who purged what is recorded by the coordinator: ask it", status=404)
        return {"records": [asdict(record) for record in await self._log.audit(before=before, limit=limit)]}

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
            "tasks": gauge_total(shared.counters, Gauge.TASKS),
            "purges": {
                "sequence": shared.arena.sequence(),
                "patterns": self._patterns(),
                **self._following.stats(),
            },
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
        tasks = gauge_total(shared.counters, Gauge.TASKS)
        yield Figure("tasks", "Tasks of all event loops, as counted every few seconds.", float(tasks))
        yield Figure("purge_sequence", "Number of the last purge applied.", float(shared.arena.sequence()))
        if self._keeper is not None:
            failing = float(self._keeper.failing)
            yield Figure("purge_log_failing", "1 while purges cannot be written down.", failing)
        patterns = self._patterns()
        yield Figure("purge_patterns", "Patterns in force.", float(str(patterns["active"])))
        for name, text in (
            ("compared", "Stored URLs compared with patterns."),
            ("matched", "Of these, those that a pattern matched."),
            ("undecided", "Comparisons given up for their time, that counted as matching."),
        ):
            yield Figure(f"purge_patterns_{name}", text, float(str(patterns[name])), counter=True)
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
