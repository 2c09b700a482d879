"""Where the orders that a node on its own is given are logged: with the disk tier, in a directory of the log's own, or
in memory. Chosen before any process is forked.
"""

import sqlite3
from pathlib import Path

from edgecache._native.arena import Arena
from edgecache.config.model import Config
from edgecache.config.purgelog import PurgeLogConfig
from edgecache.purge.keeper import PurgeKeeper, restore
from edgecache.purge.ledger import Retention
from edgecache.purge.orderbook import KeptOrders, OrderBook, SharedOrders
from edgecache.store.disksweep import NodeLock
from edgecache.store.node import PURGES, NodeDisk, claim


class OrderPlace:
    """Raises `DirectoryInUse`, and OSError where `purge.log.path` cannot be used."""

    def __init__(self, config: Config, arena: Arena, disk: NodeDisk | None) -> None:
        self._retention = retention(config.purge.log)
        self._arena = arena
        self._disk = disk
        self._path: Path | None = None
        self._lock: NodeLock | None = None
        self._memory: SharedOrders | None = None
        if disk is not None:
            return
        if config.purge.log.path is None or config.purge.coordinator is not None:
            self._memory = SharedOrders(self._retention)
            return
        folder = Path(config.purge.log.path).absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = claim(folder, prepared=True)
        self._path = folder / PURGES
        try:
            restore(self._path, arena)  # no purge is there, but the number of the last
        except sqlite3.Error as error:
            raise OSError(0, str(error), str(self._path)) from None

    def keeper(self) -> PurgeKeeper | None:
        """This process's writer of orders and, with a disk tier, of purges. None: nothing is written."""
        if self._disk is not None:
            return self._disk.keeper(self._retention)
        if self._path is None:
            return None
        return PurgeKeeper(self._path, _nothing_stored, sequence=self._arena.sequence, retention=self._retention)

    def book(self, keeper: PurgeKeeper | None) -> OrderBook:
        """What this process logs orders by. `keeper`: this process's."""
        if keeper is None:
            assert self._memory is not None
            return self._memory
        return KeptOrders(keeper, bare=self._disk is None)

    def close(self) -> None:
        """Let others have the directory, once no process uses it."""
        if self._lock is not None:
            self._lock.close()


def retention(config: PurgeLogConfig) -> Retention:
    return Retention(config.keep_s, config.keep_entries, config.keep_keys_s, config.keep_audit_s)


def _nothing_stored() -> None:
    """There is nothing on disk that could be used after a restart."""
