"""`edgecache geodns`: processes that answer, one that checks PoPs, and a supervisor that replaces and reloads them.

The supervisor has one thread and no event loop. It reads configuration and databases, so that what is large is made
once and shared by all it forks; a new configuration or database is a new generation of processes on the same sockets,
and the last one goes when the new one answers.
"""

import asyncio
import gc
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import uvloop

from edgecache.admin.geodns import GeoAdminServer
from edgecache.config.load_geodns import LoadedGeo
from edgecache.geodns.control import GeoControl
from edgecache.geodns.server import GeoServer
from edgecache.http.tasks import spawn
from edgecache.observe import log
from edgecache.supervisor import machine
from edgecache.supervisor.child import BROKEN, OK, Channel, leave, obey
from edgecache.supervisor.geosetting import GeoSetting, GeoShared, Load, SetupError

_log = logging.getLogger("edgecache")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_TICK_S = 1.0
_PATIENCE_S = 90.0
"""How long a process may take to be ready; each PoP is looked at once before, for `check.timeout` at most."""
_LEAVE_S = 5.0
_BACKOFF_S = 0.5
_HOPELESS = 5
_PROCESSES = 64

Kind = Literal["worker", "control"]


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


@dataclass(eq=False, slots=True)
class _Child:
    pid: int
    kind: Kind
    index: int
    slot: int
    channel: Channel
    kill_at: float
    ready: bool = False
    leaving: bool = False


@dataclass(eq=False, slots=True)
class _Generation:
    setting: GeoSetting
    children: list[_Child] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return sum(child.ready for child in self.children) == self.setting.workers + 1


class GeoSupervisor:
    """Forks, listens, replaces."""

    def __init__(self, shared: GeoShared, setting: GeoSetting, load: Load) -> None:
        self._shared = shared
        self._load = load
        self._now: _Generation | None = None
        self._next: _Generation | None = _Generation(setting)
        self._last: list[_Generation] = []
        self._watched = setting.watched
        self._free = set(range(_PROCESSES))
        self._due: list[tuple[float, _Generation, Kind, int]] = []
        self._deaths = 0
        """In a row, of processes that never became ready."""
        self._stopping = False
        self._failed = 0
        self._reload_by: Callable[[], LoadedGeo] | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Until every process has ended. Returns the exit code."""
        machine.set_name("edgecache-dns")
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        assert self._next is not None
        self._populate(self._next)
        try:
            while self._everybody() or self._due:
                self._turn()
        finally:
            for child in self._everybody():
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
            signal.set_wakeup_fd(-1)
            self._selector.close()
            os.close(self._wake_r)
            os.close(self._wake_w)
            self._shared.keeper.close()
        return self._failed

    def _turn(self) -> None:
        for key, _ in self._selector.select(_TICK_S if not self._due else 0.1):
            if key.fd == self._wake_r:
                self._signals()
            else:
                self._hear(*key.data)
        self._reap()
        now = time.monotonic()
        for child in self._everybody():
            if child.kill_at <= now:
                _log.error("the %s (process %d) does not react: it is killed", child.kind, child.pid)
                child.kill_at = now + _LEAVE_S
                os.kill(child.pid, signal.SIGKILL)
        if self._stopping:
            return
        for one in [one for one in self._due if one[0] <= now]:
            self._due.remove(one)
            self._fork(*one[1:])
        if self._now is None or self._next is not None:
            return
        if self._reload_by is None and self._watched.changed(now):
            _log.info("a database has changed")
            self._reload_by = partial(_same, self._now.setting)
        if self._reload_by is not None:
            load, self._reload_by = self._reload_by, None
            self._reload(load)

    def _everybody(self) -> list[_Child]:
        return [child for one in (self._now, self._next, *self._last) if one is not None for child in one.children]

    def _signals(self) -> None:
        try:
            numbers = os.read(self._wake_r, 4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGHUP:
                self._reload_by = self._load

    # --- processes ---

    def _populate(self, generation: _Generation) -> None:
        # What is made until now is everybody's: not looked at by the collector again, its pages stay shared.
        gc.collect()
        gc.freeze()
        self._fork(generation, "control", 0)
        for index in range(generation.setting.workers):
            self._fork(generation, "worker", index)

    def _fork(self, generation: _Generation, kind: Kind, index: int) -> None:
        slot = min(self._free)
        mine, its = Channel.pair()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._become(kind, index, slot, generation.setting, its, parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        its.close()
        self._free.remove(slot)
        child = _Child(pid, kind, index, slot, mine, time.monotonic() + _PATIENCE_S)
        generation.children.append(child)
        self._selector.register(mine.socket, selectors.EVENT_READ, (child, generation))

    def _become(self, kind: Kind, index: int, slot: int, setting: GeoSetting, channel: Channel, parent: int) -> None:
        """In the child, for good."""
        code = BROKEN
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # the supervisor says when
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            os.close(self._wake_r)
            os.close(self._wake_w)
            for child in self._everybody():
                child.channel.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            machine.die_with(parent)
            machine.set_name(f"edgecache-dns-{index}" if kind == "worker" else "edgecache-dnsct")
            log.set_up(setting.config.log.level, setting.config.log.format)
            work = self._work(index, slot, setting, channel) if kind == "worker" else self._control(setting, channel)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                code = runner.run(work)
        except BaseException:  # noqa: BLE001 - the end of the line: it is logged and becomes the exit code
            _log.exception("the %s failed", kind)
        finally:
            leave(code)

    async def _work(self, index: int, slot: int, setting: GeoSetting, channel: Channel) -> int:
        server = GeoServer(setting.world, setting.health, self._shared.rows, slot)

        async def start() -> None:
            await server.ready()
            await server.start(setting.doors[index].udp, setting.doors[index].tcp)

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

    def _hear(self, child: _Child, generation: _Generation) -> None:
        messages = child.channel.receive()
        if messages is None:
            self._selector.unregister(child.channel.socket)  # it is ending; `_reap` does the rest
            return
        for message in messages:
            if "ready" in message and not child.leaving:
                child.ready, child.kill_at, self._deaths = True, float("inf"), 0
                if generation is self._next and generation.ready:
                    self._switch()

    def _reap(self) -> None:
        for generation in [one for one in (self._now, self._next, *self._last) if one is not None]:
            for child in list(generation.children):
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    self._ended(child, generation, os.waitstatus_to_exitcode(status))
            if generation in self._last and not generation.children:
                self._last.remove(generation)

    def _ended(self, child: _Child, generation: _Generation, code: int) -> None:
        if child.channel.socket in self._selector.get_map():
            self._selector.unregister(child.channel.socket)
        child.channel.close()
        generation.children.remove(child)
        self._free.add(child.slot)
        if child.leaving and code == OK:
            return
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        _log.error("the %s (process %d) ended: %s", child.kind, child.pid, how)
        if self._stopping or child.leaving or generation in self._last:
            return
        self._deaths = 0 if child.ready else self._deaths + 1
        if generation is self._next and self._deaths >= (1 if self._now is not None else _HOPELESS):
            self._give_up()
            return
        delay_s = 0.0 if self._deaths < 2 else _BACKOFF_S * self._deaths
        self._due.append((time.monotonic() + delay_s, generation, child.kind, child.index))

    # --- configurations ---

    def _reload(self, load: Load) -> None:
        try:
            setting = self._shared.refresh(load)
            if setting.workers == 0:
                raise SetupError("workers: 0 needs a restart")
            if setting.workers + 1 > len(self._free):
                raise SetupError("the last configuration's processes have not ended; try again later")
        except SetupError as error:
            _log.error("the configuration was not taken over, nothing has changed: %s", error)
            return
        self._next = _Generation(setting)
        self._populate(self._next)

    def _switch(self) -> None:
        """All of the next generation answers: the last one goes."""
        assert self._next is not None
        before, self._now, self._next = self._now, self._next, None
        setting = self._now.setting
        log.set_up(setting.config.log.level, setting.config.log.format)
        if before is None:
            self._shared.say_where(setting.config, setting.admin)
            return
        self._retire(before)
        self._shared.keeper.keep_only(setting.config, setting.workers)
        self._watched = setting.watched
        _log.info("the new configuration is in use")

    def _give_up(self) -> None:
        """The next generation cannot start."""
        assert self._next is not None
        failed, self._next = self._next, None
        self._retire(failed)
        if self._now is None:
            self._failed = 2
            self._stop()
            return
        setting = self._now.setting
        self._shared.keeper.keep_only(setting.config, setting.workers)
        _log.error("the configuration was not taken over, nothing has changed: its processes cannot start")

    def _retire(self, generation: _Generation) -> None:
        self._due = [one for one in self._due if one[1] is not generation]
        if generation.children:
            self._last.append(generation)
        for child in generation.children:
            self._dismiss(child)

    def _dismiss(self, child: _Child) -> None:
        if not child.leaving:
            child.leaving, child.kill_at = True, time.monotonic() + _LEAVE_S
            child.channel.send({"drain": _LEAVE_S, "idle": 0.0})

    def _stop(self) -> None:
        self._stopping = True
        self._due.clear()
        for child in self._everybody():
            self._dismiss(child)
