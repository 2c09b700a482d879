"""The disk tier of a node: claimed and tidied before any process is forked, opened by each of them.

What lies in the directory may be used only together with the purges applied since it was stored. Where those cannot be
read at the start, every process begins with an empty directory, whenever it becomes usable.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from edgecache._native.arena import Arena
from edgecache.config.tiers import DiskConfig
from edgecache.observe.slots import Counters, NodeSlot, put
from edgecache.purge.durable import DurablePurges, PurgesLost
from edgecache.purge.keeper import PurgeKeeper, restore
from edgecache.purge.ledger import Retention
from edgecache.purge.message import PurgeMessage
from edgecache.store.disk import DiskStore, explain
from edgecache.store.diskfiles import DATABASE
from edgecache.store.disksweep import DirectoryInUse, NodeLock, sweep_before_start
from edgecache.store.memory import MemoryStore
from edgecache.store.tiers import TieredStore
from edgecache.store.volume import FAULTS, DiskCounters

_log = logging.getLogger("edgecache.store")
T = TypeVar("T")

PURGES = "purges.db"
LOCK_PATIENCE_S = 3.0
_FIRST_OWNER = 1000
"""Owners beyond the slots of processes: for several edges after another in one process."""


def claim(path: Path, *, prepared: bool = False) -> NodeLock:
    """Raises `DirectoryInUse`, after a while: the processes of a node that was killed take a moment to end."""
    until = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            return NodeLock(path, prepared=prepared)
        except DirectoryInUse:
            if time.monotonic() > until:
                raise
        time.sleep(0.05)


class Reporter:
    """Adds what one process counts to the node's figures."""

    def __init__(self, counters: Counters, *, states: bool) -> None:
        """`states`: also says what the directory holds."""
        self._counters = counters
        self._states = states
        self._told = DiskCounters()

    def __call__(self, counted: DiskCounters, usage: dict[str, int]) -> None:
        for name, value in asdict(counted).items():
            if grown := value - getattr(self._told, name):
                self._counters.add(NodeSlot[f"DISK_{name.upper()}"], grown)
        self._told = replace(counted)
        if self._states:
            put(self._counters, NodeSlot.DISK_ON, int(bool(usage)))
            for slot, name in ((NodeSlot.DISK_RECORDS, "records"), (NodeSlot.DISK_BYTES_USED, "bytes_used")):
                put(self._counters, slot, usage.get(name, 0))


def disk_figures(counters: Counters) -> dict[str, int]:
    """The node's figures by name: on, records, bytes_used, and what `DiskCounters` counts."""
    slots = [slot for slot in NodeSlot if slot.name.startswith("DISK_")]
    return {slot.name[5:].lower(): counters.read(slot) for slot in slots}


class NodeDisk:
    """Made once a node, with an arena that is still empty."""

    def __init__(self, config: DiskConfig, arena: Arena, counters: Counters) -> None:
        """Raises `DirectoryInUse`. Every other trouble is logged, and the tier begins empty once it is over."""
        assert config.path is not None
        self.path = Path(config.path).absolute()
        self._config = config
        self._arena = arena
        self._counters = counters
        self._owners = itertools.count(_FIRST_OWNER)
        self._lock: NodeLock | None = None
        self._boot = ""
        """Where the directory's content may not be used: what it must be marked with."""
        try:
            self._lock = claim(self.path)
            if not restore(self.path / PURGES, arena):
                self.forget_all()
            swept = sweep_before_start(self.path, config.size_bytes, purged=arena.purged)
            if swept:
                _log.info("disk tier %s: removed %d files that were being written when it stopped", self.path, swept)
        except DirectoryInUse:
            raise
        except FAULTS as error:
            self._boot = secrets.token_hex(8)
            why, remedy = explain(error)
            _log.warning("disk tier %s: what it holds cannot be used: %s", self.path, why, extra={"remedy": remedy})

    def close(self) -> None:
        """Let others have the directory, once no process uses it."""
        if self._lock is not None:
            self._lock.close()

    def forget_all(self) -> None:
        """Make sure that nothing in the directory is used any more. Raises `OSError`."""
        (self.path / DATABASE).unlink(missing_ok=True)

    def store(self, process: int, *, sweeps: bool) -> DiskStore:
        """This process's disk tier. `process`: its slot in the arena, 0 in a node of one process."""
        config, arena = self._config, self._arena
        return DiskStore(
            self.path,
            config.size_bytes,
            owner=process or next(self._owners),
            purged=arena.purged,
            proved=arena.proved,
            sequence=arena.sequence if sweeps else None,
            queue_bytes=config.queue_bytes,
            keep_s=config.keep_stale_s,
            boot=self._boot,
            report=Reporter(self._counters, states=sweeps),
        )

    def tiers(self, memory: MemoryStore, process: int, *, sweeps: bool) -> TieredStore:
        disk = self.store(process, sweeps=sweeps)
        return TieredStore(memory, disk, always=self._config.admit == "always", large=self._config.large_bytes)

    def note_sites(self, names: Iterable[str], now: float) -> dict[str, float]:
        """Note these as configured. Returns what stored things may be of, and when each was configured last. Blocks."""
        given = dict.fromkeys(names, now)
        return self._sites(lambda durable: durable.note_sites(given, now), "are not known") or given

    def forget_sites(self, names: Sequence[str], purge: PurgeMessage) -> bool:
        """Forget them, who have been purged by this. False where it cannot be written down. Blocks."""

        def forget(durable: DurablePurges) -> bool:
            durable.append([purge])
            durable.forget_sites(names)
            return True

        return bool(self._sites(forget, "cannot be forgotten"))

    def _sites(self, work: Callable[[DurablePurges], T], what: str) -> T | None:
        try:
            durable = DurablePurges(self.path / PURGES)
            try:
                return work(durable)
            finally:
                durable.close()
        except (PurgesLost, *FAULTS) as error:
            _log.warning("%s: the sites of before %s: %s", self.path / PURGES, what, error)
            return None

    def keeper(self, retention: Retention) -> PurgeKeeper:
        """This process's writer of purges and, for so long, of orders."""
        return PurgeKeeper(self.path / PURGES, self.forget_all, sequence=self._arena.sequence, retention=retention)
