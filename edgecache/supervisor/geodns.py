"""`edgecache geodns`: processes that answer, one that checks PoPs, and a supervisor that replaces and reloads them.

The supervisor reads configuration and databases, so that what is large is made once and shared by all it forks; a new
configuration or database is a new generation of processes.
"""

import asyncio
import gc
import logging
import signal
import time
from functools import partial
from typing import Any

import uvloop

from edgecache.admin.geodns import GeoAdminServer
from edgecache.config.load_geodns import LoadedGeo
from edgecache.geodns.control import GeoControl
from edgecache.geodns.server import GeoServer
from edgecache.http.tasks import spawn
from edgecache.observe import log
from edgecache.supervisor import machine
from edgecache.supervisor.child import Channel, Role, obey
from edgecache.supervisor.geosetting import GeoSetting, GeoShared, Load
from edgecache.supervisor.parent import Generation, Parent
from edgecache.supervisor.setting import SetupError

_log = logging.getLogger("edgecache")

_TICK_S = 1.0
_PROCESSES = 64


def serve(loaded: LoadedGeo, load: Load) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code. `load` reads the configuration again, for SIGHUP."""
    log.set_up(loaded.config.log.level, loaded.config.log.format)
    machine.raise_file_limit()
    shared = GeoShared()
    try:
        setting = shared.set_up(loaded)
    except SetupError as error:
        _log.error("%s", error)
        shared.keeper.close()
        return 2
    if setting.workers == 0:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_Alone(shared, setting, load).run())
    return GeoSupervisor(shared, setting, load).run()


def _same(setting: GeoSetting) -> LoadedGeo:
    """The configuration as it is: only the databases are read again."""
    return setting.world.loaded


class _Part:
    """A generation of the one-process form."""

    def __init__(self, shared: GeoShared, setting: GeoSetting) -> None:
        self.setting = setting
        world = setting.world
        self.control = GeoControl(setting.config, world.mapping, setting.health, shared.orders, shared.rows)
        self.server = GeoServer(world, setting.health, shared.rows, 0)
        self.admin = GeoAdminServer(self.control, setting.config.admin, setting.token)

    async def start(self) -> None:
        await self.control.start()
        await self.server.ready()
        await self.server.start(self.setting.doors[0].udp, self.setting.doors[0].tcp)
        await self.admin.start(self.setting.admin.dup())

    async def stop(self) -> None:
        await self.server.shut()
        await self.server.close()
        await self.admin.close()
        await self.control.close()


class _Alone:
    """Everything in one process."""

    def __init__(self, shared: GeoShared, setting: GeoSetting, load: Load) -> None:
        self._shared = shared
        self._load = load
        self._part = _Part(shared, setting)
        self._watched = setting.watched
        self._changing = asyncio.Lock()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: spawn(self._reload(self._load), "reload"))
        await self._part.start()
        self._shared.say_where(self._part.setting.config, self._part.setting.admin)
        watch = spawn(self._watch(), "database files")
        await stop.wait()
        watch.cancel()
        async with self._changing:
            await self._part.stop()
        self._shared.keeper.close()
        return 0

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if self._watched.changed(time.monotonic()):
                await self._reload(partial(_same, self._part.setting))

    async def _reload(self, load: Load) -> None:
        async with self._changing:
            try:
                setting = await asyncio.to_thread(self._shared.refresh, load)
            except SetupError as error:
                _log.error("the configuration was not taken over, nothing has changed: %s", error)
                return
            before, self._part = self._part, _Part(self._shared, setting)
            await self._part.start()
            await before.stop()
            self._shared.keeper.keep_only(setting.config, 1)
            self._watched = setting.watched
            _log.info("the new configuration is in use")


class GeoSupervisor(Parent[GeoSetting]):
    """Runs once."""

    start_limit_s = 90.0  # each PoP is looked at once before, for `check.timeout` at most

    def __init__(self, shared: GeoShared, setting: GeoSetting, load: Load) -> None:
        super().__init__(setting, range(_PROCESSES))
        self._shared = shared
        self._load = load
        self._watched = setting.watched
        self._only_databases = False
        """What is to be read again."""

    def run(self) -> int:
        machine.set_name("edgecache-dns")
        return super().run()

    # --- processes ---

    def _populate(self, generation: Generation[GeoSetting]) -> None:
        # What is made until now is everybody's: not looked at by the collector again, its pages stay shared.
        gc.collect()
        gc.freeze()
        super()._populate(generation)

    def _let_go(self, role: Role, setting: GeoSetting) -> None:
        """They are few, and a worker that is replaced needs those of its generation: all stay open in all."""

    def _live(self, role: Role, setting: GeoSetting, channel: Channel) -> int:
        machine.set_name(f"edgecache-dns-{role.index}" if role.name == "worker" else "edgecache-dnsct")
        log.set_up(setting.config.log.level, setting.config.log.format)
        work = self._work(role, setting, channel) if role.name == "worker" else self._control(setting, channel)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)

    async def _work(self, role: Role, setting: GeoSetting, channel: Channel) -> int:
        server = GeoServer(setting.world, setting.health, self._shared.rows, role.slot)

        async def start() -> None:
            await server.ready()
            await server.start(setting.doors[role.index].udp, setting.doors[role.index].tcp)

        async def end(_: dict[str, Any]) -> bool:
            await server.shut()
            await server.close()
            return True

        return await obey(channel, start(), end, lambda: None)

    async def _control(self, setting: GeoSetting, channel: Channel) -> int:
        shared = self._shared
        control = GeoControl(setting.config, setting.world.mapping, setting.health, shared.orders, shared.rows)
        admin = GeoAdminServer(control, setting.config.admin, setting.token)

        async def start() -> None:
            await control.start()
            await admin.start(setting.admin.dup())

        async def end(_: dict[str, Any]) -> bool:
            await admin.close()
            await control.close()
            return True

        return await obey(channel, start(), end, lambda: None)

    # --- configurations and databases ---

    def _patience(self) -> float | None:
        patience_s = super()._patience()
        return _TICK_S if patience_s is None else min(_TICK_S, patience_s)

    def _settled(self) -> None:
        if self._now is None or self._next is not None:
            return
        self._only_databases = not self._reload_asked
        if self._only_databases and self._watched.changed(time.monotonic()):
            _log.info("a database has changed")
            self._reload_asked = True
        super()._settled()

    def _renew(self) -> GeoSetting:
        assert self._now is not None
        setting = self._shared.refresh(partial(_same, self._now.setting) if self._only_databases else self._load)
        try:
            if setting.workers == 0:
                raise SetupError("workers: 0 needs a restart")
            if setting.workers + 1 > len(self._free):
                raise SetupError("the last configuration's processes have not ended; try again later")
        except SetupError:
            self._keep(self._now.setting)
            raise
        return setting

    def _keep(self, setting: GeoSetting | None) -> None:
        if setting is None:
            self._shared.keeper.close()
        else:
            self._shared.keeper.keep_only(setting.config, setting.workers)

    def _in_use(self, before: Generation[GeoSetting] | None) -> None:
        assert self._now is not None
        setting = self._now.setting
        log.set_up(setting.config.log.level, setting.config.log.format)
        if before is None:
            self._shared.say_where(setting.config, setting.admin)
            return
        self._watched = setting.watched
        _log.info("the new configuration is in use")

    def _time(self, setting: GeoSetting, *, stopping: bool) -> tuple[float, float]:  # noqa: ARG002 - an answer takes no time
        return 0.0, 0.0
