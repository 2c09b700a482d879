"""Everything in one process: for debugging, for tests, and where memory for more is not to be had.

The same signals as with several processes, and the same way to change configurations: the next edge starts on the same
sockets before the last one stops.
"""

import asyncio
import logging
import signal
from collections.abc import Callable

import uvloop

from edgecache.app import Edge, Shared, StartError
from edgecache.config.load import Loaded
from edgecache.config.model import Config
from edgecache.edge.doors import DoorKeeper, Doors
from edgecache.http.tasks import spawn
from edgecache.observe import log
from edgecache.observe.slots import NodeSlot, put
from edgecache.observe.tasks import TaskGauge
from edgecache.supervisor.setting import Setting, SetupError, refresh, say_where, set_up

_log = logging.getLogger("edgecache")

STOP_IDLE_S = 1.0
"""When everything stops: how long connections without a request stay open, for one that is on its way."""
RELOAD_IDLE = 0.9
"""When the next configuration takes over: the part of the drain's time for which connections without a request stay."""


def run(config: Config, shared: Shared, load: Callable[[], Loaded]) -> int:
    """Until SIGTERM or SIGINT. Returns the exit code; raises `SetupError` and `StartError` where it cannot start."""
    keeper = DoorKeeper(share=False)
    setting = set_up(config, keeper, 1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Alone(setting, shared, load, keeper).run())


class _Alone:
    def __init__(self, setting: Setting, shared: Shared, load: Callable[[], Loaded], keeper: DoorKeeper) -> None:
        self._setting = setting
        self._shared = shared
        self._load = load
        self._keeper = keeper
        self._edge = Edge(setting.config, shared, setting.token)
        self._last: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        tasks = TaskGauge(self._shared.counters, 0)
        tasks.start()
        try:
            await self._edge.start(_copies(self._setting.doors), self._setting.contexts)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
            loop.add_signal_handler(signal.SIGUSR1, self._reopen)
            loop.add_signal_handler(signal.SIGHUP, lambda: spawn(self._reload(), "reload"))
            say_where(self._setting)
            await stop.wait()
            return await self._stop()
        finally:
            tasks.stop()
            self._keeper.close()

    async def _stop(self) -> int:
        self._keeper.close_public()
        put(self._shared.counters, NodeSlot.DRAINING, 1)
        drain_s = self._setting.config.limits.drain_timeout_s
        _log.info("stopping: requests under way have %g s to finish", drain_s)
        async with self._changing:
            whole = await self._edge.close(drain_s, STOP_IDLE_S)
        if self._last:
            await asyncio.wait(self._last)
        if not whole:
            _log.warning("some requests were cut off at the end of limits.drain_timeout")
        return 0

    def _reopen(self) -> None:
        self._edge.reopen_logs()  # of the edge that serves by then

    async def _reload(self) -> None:
        counters = self._shared.counters
        async with self._changing:
            if counters.read(NodeSlot.DRAINING):
                return
            config = refresh(self._shared, self._load)
            try:
                if config is None:
                    raise SetupError("see above")
                if config.workers not in (0, None):
                    _log.warning("workers stays 0", extra={"remedy": "restart edgecache for workers of their own"})
                setting = set_up(config, self._keeper, 1)
                edge = Edge(config, self._shared, setting.token)
                try:
                    await edge.start(_copies(setting.doors), setting.contexts)
                except StartError:
                    self._keeper.keep_only(self._setting.doors)
                    raise
            except (SetupError, StartError) as error:
                counters.add(NodeSlot.RELOADS_REFUSED)
                _log.error("the configuration was not taken over, nothing has changed: %s", error)
                return
            before, self._edge, self._setting = self._edge, edge, setting
            log.set_up(config.log.level, config.log.format)
            self._keeper.keep_only(setting.doors)
            counters.add(NodeSlot.RELOADS)
            await before.shut()
            _log.info("the new configuration is in use")
            say_where(setting)
            last = spawn(self._leave(before), "drain of the last configuration")
            self._last.add(last)
            last.add_done_callback(self._last.discard)

    async def _leave(self, edge: Edge) -> None:
        drain_s = edge.config.limits.drain_timeout_s
        if not await edge.close(drain_s, drain_s * RELOAD_IDLE):
            _log.warning("some requests of the last configuration were cut off at the end of limits.drain_timeout")


def _copies(doors: Doors) -> Doors:
    return Doors(tuple(tuple(door.dup() for door in row) for row in doors.public), doors.admin.dup())
