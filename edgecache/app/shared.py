"""What all processes of a node have in common."""

import logging
import os
import weakref
from collections.abc import Iterable

from pydantic import BaseModel

from edgecache._native.arena import Arena
from edgecache._native.inflight import Leases
from edgecache.app.orders import OrderPlace
from edgecache.config.fields import key_of
from edgecache.config.model import Config
from edgecache.edge.leases import FillLeases, make_bells, ring
from edgecache.http.clock import wall_clock
from edgecache.observe.slots import (
    MAX_PROCESSES,
    ArenaCounters,
    Layout,
    gauges_clear,
)
from edgecache.purge import former
from edgecache.purge.following import Turn, trust_at_start
from edgecache.purge.message import PurgeKind, PurgeMessage
from edgecache.store.disksweep import DirectoryInUse
from edgecache.store.memory import MemoryStore
from edgecache.store.node import NodeDisk

_log = logging.getLogger("edgecache")


SPARE_SITES = 8
"""Sites with figures of their own that a reload may add, beyond those there are at start."""


_FIXED = {
    "memory": ("size_bytes", "max_object_bytes", "eviction"),
    "disk": ("path", "size_bytes", "admit", "large_bytes", "queue_bytes", "keep_stale_s"),
    "purge": ("table_slots", "log"),
}
"""What the arena was made with, the disk tier, and the log of orders."""


_RESTART = {"remedy": "restart edgecache"}


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
        try:
            self.orders = OrderPlace(config, self.arena, self.disk)
        except OSError as error:
            raise StartError(f"purge.log.path: {error.strerror}: {error.filename}") from error
        self._sites: frozenset[str] = frozenset()
        self._sites_seen: dict[str, float] = {}
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
        """`config` is in force from now on. Sites that have been gone for long are purged whole, and forgotten."""
        now = wall_clock()
        before, self._sites = self._sites, frozenset(site.title for site in config.sites)
        there = before | self._sites
        seen = self.disk.note_sites(there, now) if self.disk is not None else dict.fromkeys(there, now)
        self._sites_seen |= seen
        gone = former.to_forget(self._sites_seen, self._sites, now)
        if not gone:
            return
        tags = former.whole(gone)
        number = self.arena.append_purge(tags, soft=False)
        message = PurgeMessage(number, now, PurgeKind.HARD, tags, False, "former sites")
        if self.disk is None or self.disk.forget_sites(gone, message):
            for name in gone:
                del self._sites_seen[name]
            _log.info("%d former sites are forgotten; what was stored of them is purged", len(gone))

    def sites_ever(self) -> Iterable[str]:
        """The sites there have been: what is stored may be of one that is not configured now, and will be again."""
        return self._sites_seen.keys()

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
