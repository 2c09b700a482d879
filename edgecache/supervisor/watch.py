"""The supervisor of an edge: what its processes share, what outlives them, and what is told of them.

Before a process that died is replaced, its pins, its leases and what it had open are given back.
"""

import gc
import logging
from collections.abc import Callable

from edgecache.app import Shared
from edgecache.config.load import Loaded
from edgecache.config.model import Config
from edgecache.edge.doors import DoorKeeper
from edgecache.observe import log
from edgecache.observe.slots import MAX_PROCESSES, NodeSlot, put
from edgecache.supervisor import child as child_side
from edgecache.supervisor import machine
from edgecache.supervisor.alone import RELOAD_IDLE, STOP_IDLE_S
from edgecache.supervisor.child import Channel, Role
from edgecache.supervisor.parent import Child, Generation, Parent
from edgecache.supervisor.setting import Setting, SetupError, refresh, say_where, set_up

_log = logging.getLogger("edgecache")


class Supervisor(Parent[Setting]):
    """Runs once."""

    start_limit_s = 30.0

    def __init__(self, config: Config, shared: Shared, load: Callable[[], Loaded]) -> None:
        """Binds every address. Raises `SetupError`."""
        self._shared = shared
        self._load = load
        self._keeper = DoorKeeper(share=True)
        self._before: Generation[Setting] | None = None
        """The one that is not known yet to accept no more."""
        super().__init__(set_up(config, self._keeper, machine.workers(config.workers)), range(1, MAX_PROCESSES))

    def run(self) -> int:
        machine.set_name("edgecache")
        # What is made until now is everybody's: not looked at by the collector again, its pages stay shared.
        gc.collect()
        gc.freeze()
        # A round of the loop makes thousands of objects that are no garbage, only not done with yet.
        gc.set_threshold(20_000, 20, 20)
        return super().run()

    # --- processes ---

    def _let_go(self, role: Role, setting: Setting) -> None:
        own = set(setting.doors.public[role.index]) if role.name == "worker" else {setting.doors.admin}
        self._keeper.forget(but=own)

    def _live(self, role: Role, setting: Setting, channel: Channel) -> int:
        return child_side.live(role, setting, self._shared, channel)

    def _buried(self, child: Child) -> None:
        self._shared.bury(child.role.slot)

    def _died(self) -> None:
        self._shared.counters.add(NodeSlot.PROCESSES_DIED)

    def _changed(self) -> None:
        put(self._shared.counters, NodeSlot.WORKERS_READY, self._now.workers_ready if self._now is not None else 0)
        self._announce()

    # --- configurations ---

    def _settled(self) -> None:
        if self._room():
            super()._settled()

    def _room(self) -> bool:
        """Is there room for another generation in the arena's slots? Else those that finish are waited for."""
        return self._now is None or len(self._free) > self._now.setting.workers or not self._last

    def _renew(self) -> Setting:
        assert self._now is not None
        config = refresh(self._shared, self._load)
        if config is None:
            raise SetupError("see above")
        workers, before = machine.workers(config.workers), self._now.setting.workers
        if workers == 0:
            _log.warning("workers stays %d: edgecache cannot become one process", before)
            workers = before
        if workers + 1 > len(self._free):
            raise SetupError("the last configuration's processes have not finished; try again later")
        return set_up(config, self._keeper, workers)

    def _refuse(self, why: str) -> None:
        self._shared.counters.add(NodeSlot.RELOADS_REFUSED)
        super()._refuse(why)

    def _keep(self, setting: Setting | None) -> None:
        if setting is None:
            self._keeper.close()
        else:
            self._keeper.keep_only(setting.doors)

    def _in_use(self, before: Generation[Setting] | None) -> None:
        assert self._now is not None
        setting, counters = self._now.setting, self._shared.counters
        put(counters, NodeSlot.WORKERS, setting.workers)
        counters.add(NodeSlot.GENERATION)
        log.set_up(setting.config.log.level, setting.config.log.format)
        if before is None:
            say_where(setting)
        else:
            counters.add(NodeSlot.RELOADS)
            self._before = before

    def _announce(self) -> None:
        """Say that the new configuration is in use: when nobody accepts a connection by the last one any more."""
        if self._before is None or self._now is None:
            return
        if all(child.shut for child in self._before.children):
            self._before = None
            _log.info("the new configuration is in use")
            say_where(self._now.setting)

    # --- the end ---

    def _time(self, setting: Setting, *, stopping: bool) -> tuple[float, float]:
        drain_s = setting.config.limits.drain_timeout_s
        return drain_s, STOP_IDLE_S if stopping else drain_s * RELOAD_IDLE

    def _closing(self) -> None:
        put(self._shared.counters, NodeSlot.DRAINING, 1)
        self._keeper.close_public()
        if self._now is not None:
            drain_s, _ = self._time(self._now.setting, stopping=True)
            _log.info("stopping: requests under way have %g s to finish", drain_s)
