"""The supervisor: forks, watches, replaces, reloads, drains. One thread, no event loop; it touches no request.

A *generation* is one configuration and its processes. The next one starts on the same sockets beside the current one,
and when all of it is ready the last one is told to finish: connections that wait in a socket's queue are taken by
whoever accepts next, so none is lost on the way. A process that dies is replaced; its pins, its leases and what it had
open are given back first.
"""

import gc
import logging
import os
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

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
from edgecache.supervisor.setting import Setting, SetupError, refresh, say_where, set_up

_log = logging.getLogger("edgecache")

START_LIMIT_S = 30.0
"""How long a process may take to say that it is ready."""
KILL_GRACE_S = 5.0
"""Beyond a drain's own limit, before a process that does not end is killed."""
BACKOFF_S, BACKOFF_MOST_S = 0.1, 30.0
"""Who dies before it is ready, twice in a row, is started again more and more slowly. Who was ready: at once."""
HOPELESS = 5
"""Deaths at the first start after which it is given up."""

_NEVER = float("inf")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


@dataclass(eq=False, slots=True)
class Child:
    """A forked process."""

    pid: int
    role: Role
    channel: Channel
    kill_at: float
    ready: bool = False
    leaving: bool = False
    """It was told to finish."""
    shut: bool = False
    """It accepts no more."""
    complaint: str | None = None
    """Why it cannot start, in its own words."""


@dataclass(eq=False, slots=True)
class Generation:
    """One configuration and its processes."""

    setting: Setting
    children: set[Child] = field(default_factory=set)

    @property
    def ready(self) -> bool:
        return sum(child.ready for child in self.children) == self.setting.workers + 1

    @property
    def workers_ready(self) -> int:
        return sum(child.ready and not child.leaving and child.role.name == "worker" for child in self.children)


class Supervisor:
    """Runs once."""

    def __init__(self, config: Config, shared: Shared, load: Callable[[], Loaded]) -> None:
        """Binds every address. Raises `SetupError`."""
        self._shared = shared
        self._load = load
        self._keeper = DoorKeeper(share=True)
        first = set_up(config, self._keeper, machine.workers(config.workers))
        self._now: Generation | None = None
        """The one that serves."""
        self._next: Generation | None = Generation(first)
        """The one that starts."""
        self._before: Generation | None = None
        """The one that is not known yet to accept no more."""
        self._last: list[Generation] = []
        """Those that finish, or were given up."""
        self._free = set(range(1, MAX_PROCESSES))
        self._due: list[tuple[float, Generation, Literal["worker", "control"], int]] = []
        """Processes to start: when, for whom."""
        self._deaths: Counter[tuple[str, int]] = Counter()
        """In a row, by role, of those that were not ready yet."""
        self._stopping = False
        self._reload_asked = False
        self._failed = 0
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # --- the loop ---

    def run(self) -> int:
        """Until every process has ended. Returns the exit code."""
        machine.set_name("edgecache")
        # What is made until now is everybody's: not looked at by the collector again, its pages stay shared.
        gc.collect()
        gc.freeze()
        # A round of the loop makes thousands of objects that are no garbage, only not done with yet.
        gc.set_threshold(20_000, 20, 20)
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
            self._abandon()
        return self._failed

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.fd == self._wake_r:
                self._signals()
            else:
                self._hear(*key.data)
        self._reap()
        now = time.monotonic()
        for child in self._everybody():
            if child.kill_at <= now:
                self._kill(child)
        if self._stopping:
            self._stop_on()
            return
        for one in [one for one in self._due if one[0] <= now]:
            self._due.remove(one)
            self._fork(*one[1:])
        if self._reload_asked and self._next is None and self._room():
            self._reload_asked = False
            self._reload()

    def _patience(self) -> float | None:
        """Seconds until something is due by the clock."""
        moment = min([child.kill_at for child in self._everybody()] + [one[0] for one in self._due], default=_NEVER)
        return max(0.0, moment - time.monotonic()) if moment < _NEVER else None

    def _everybody(self) -> list[Child]:
        return [child for generation in self._generations() for child in generation.children]

    def _generations(self) -> list[Generation]:
        return [*filter(None, (self._now, self._next)), *self._last]

    def _signals(self) -> None:
        try:
            numbers = os.read(self._wake_r, 4096)
        except BlockingIOError:
            return
        for number in numbers:
            match number:
                case signal.SIGTERM | signal.SIGINT:
                    self._stop()
                case signal.SIGHUP:
                    self._reload_asked = True
                case signal.SIGUSR1:
                    for child in self._everybody():
                        child.channel.send({"reopen": True})
                case _:  # SIGCHLD: `_reap` looks after every wake-up
                    pass

    # --- processes ---

    def _populate(self, generation: Generation) -> None:
        self._fork(generation, "control", 0)
        for index in range(generation.setting.workers):
            self._fork(generation, "worker", index)

    def _fork(self, generation: Generation, name: Literal["worker", "control"], index: int) -> None:
        role = Role(name, index, min(self._free))
        mine, its = Channel.pair()
        parent = os.getpid()
        # A signal that comes before the child has handlers of its own must wait for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._become(role, generation.setting, its, mine, parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        its.close()
        self._free.remove(role.slot)
        now = time.monotonic()
        child = Child(pid, role, mine, kill_at=now + START_LIMIT_S)
        generation.children.add(child)
        self._selector.register(mine.socket, selectors.EVENT_READ, (child, generation))

    def _become(self, role: Role, setting: Setting, channel: Channel, other_end: Channel, parent: int) -> None:
        """In the child, for good: let go of what is not its own, and live."""
        code = child_side.BROKEN
        try:
            signal.set_wakeup_fd(-1)
            self._selector.close()
            os.close(self._wake_r)
            os.close(self._wake_w)
            other_end.close()
            for child in self._everybody():
                child.channel.close()
            own = set(setting.doors.public[role.index]) if role.name == "worker" else {setting.doors.admin}
            self._keeper.forget(but=own)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            code = child_side.live(role, setting, self._shared, channel, parent)
        except BaseException:  # noqa: BLE001 - the end of the line: it is logged and becomes the exit code
            _log.exception("the %s failed", role)
        finally:
            child_side.leave(code)

    def _hear(self, child: Child, generation: Generation) -> None:
        messages = child.channel.receive()
        if messages is None:
            self._selector.unregister(child.channel.socket)  # it is ending; `_reap` does the rest
            return
        for message in messages:
            self._heed(child, generation, message)

    def _heed(self, child: Child, generation: Generation, message: dict[str, Any]) -> None:
        if "failed" in message:
            child.complaint = message["failed"]
        elif "shut" in message:
            child.shut = True
            self._announce()
        elif "ready" in message and not child.leaving:
            child.ready = True
            child.kill_at = _NEVER
            if generation is self._next and generation.ready:
                self._switch()
            self._show()

    def _reap(self) -> None:
        for generation in self._generations():
            for child in list(generation.children):
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    self._ended(child, generation, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, generation: Generation, code: int) -> None:
        if child.channel.socket in self._selector.get_map():
            self._hear(child, generation)  # its last words
            if child.channel.socket in self._selector.get_map():
                self._selector.unregister(child.channel.socket)
        child.channel.close()
        generation.children.discard(child)
        self._shared.bury(child.role.slot)
        self._free.add(child.role.slot)
        self._show()
        self._announce()
        if child.leaving:
            if code == child_side.CUT:
                _log.warning("some requests were cut off at the end of limits.drain_timeout")
            if generation in self._last and not generation.children:
                self._last.remove(generation)
            return
        self._shared.counters.add(NodeSlot.PROCESSES_DIED)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if child.complaint is None:
            _log.error("the %s (process %d) ended: %s", child.role, child.pid, how)
        self._replace(child, generation)

    def _replace(self, child: Child, generation: Generation) -> None:
        if self._stopping or generation in self._last:
            return
        role = child.role
        if generation is self._next and (self._now is not None or child.complaint is not None):
            self._give_up(child.complaint or f"the {role} of the new configuration died")
            return
        self._deaths[role.name, role.index] = deaths = 0 if child.ready else self._deaths[role.name, role.index] + 1
        if generation is self._next and deaths >= HOPELESS:
            self._give_up(f"the {role} died {deaths} times in a row")
            return
        delay = 0.0 if deaths <= 1 else min(BACKOFF_MOST_S, BACKOFF_S * 2 ** (deaths - 1))
        if delay:
            extra = {"remedy": "look at its messages above"}
            _log.error("the %s could not start %d times in a row: again in %g s", role, deaths, delay, extra=extra)
        self._due.append(
            (time.monotonic() + delay, generation, "worker" if role.name == "worker" else "control", role.index)
        )

    def _kill(self, child: Child) -> None:
        what = "did not finish in time" if child.leaving else "did not become ready"
        _log.error("the %s (process %d) %s: it is killed", child.role, child.pid, what)
        child.kill_at = _NEVER
        os.kill(child.pid, signal.SIGKILL)

    def _dismiss(self, child: Child, drain_s: float, idle_s: float) -> None:
        if not child.leaving:
            child.leaving = True
            child.kill_at = time.monotonic() + drain_s + KILL_GRACE_S
            child.channel.send({"drain": drain_s, "idle": idle_s})

    # --- configurations ---

    def _room(self) -> bool:
        """Is there room for another generation in the arena's slots? Else those that finish are waited for."""
        assert self._now is not None
        return len(self._free) > self._now.setting.workers or not self._last

    def _reload(self) -> None:
        assert self._now is not None
        before = self._now.setting
        config = refresh(self._shared, self._load)
        try:
            if config is None:
                raise SetupError("see above")
            workers = machine.workers(config.workers)
            if workers == 0:
                _log.warning("workers stays %d: edgecache cannot become one process", before.workers)
                workers = before.workers
            if workers + 1 > len(self._free):
                raise SetupError("the last configuration's processes have not finished; try again later")
            setting = set_up(config, self._keeper, workers)
        except SetupError as error:
            self._refuse(str(error))
            return
        self._next = Generation(setting)
        self._populate(self._next)

    def _refuse(self, why: str) -> None:
        self._shared.counters.add(NodeSlot.RELOADS_REFUSED)
        _log.error("the configuration was not taken over, nothing has changed: %s", why)

    def _switch(self) -> None:
        """All of the next generation serves: it is the current one now, and the last one finishes."""
        assert self._next is not None
        before, self._now, self._next = self._now, self._next, None
        setting, counters = self._now.setting, self._shared.counters
        put(counters, NodeSlot.WORKERS, setting.workers)
        counters.add(NodeSlot.GENERATION)
        log.set_up(setting.config.log.level, setting.config.log.format)
        self._keeper.keep_only(setting.doors)
        if before is None:
            say_where(setting)
        else:
            counters.add(NodeSlot.RELOADS)
            self._retire(before)
            self._before = before
            self._announce()

    def _announce(self) -> None:
        """Say that the new configuration is in use: when nobody accepts a connection by the last one any more."""
        if self._before is None or self._now is None:
            return
        if all(child.shut or child.role.name == "control" for child in self._before.children):
            self._before = None
            _log.info("the new configuration is in use")
            say_where(self._now.setting)

    def _give_up(self, why: str) -> None:
        """The next generation cannot start."""
        assert self._next is not None
        failed, self._next = self._next, None
        self._due = [one for one in self._due if one[1] is not failed]
        self._last.append(failed)
        if self._now is None:
            _log.error("%s", why)
            self._failed = 2
            self._stop()
            return
        self._keeper.keep_only(self._now.setting.doors)
        self._refuse(why)
        self._retire(failed)

    def _retire(self, generation: Generation) -> None:
        """Let a generation finish: requests under way, and one more on each connection that is kept open."""
        self._due = [one for one in self._due if one[1] is not generation]
        if generation not in self._last:
            self._last.append(generation)
        drain_s = generation.setting.config.limits.drain_timeout_s
        for child in generation.children:
            self._dismiss(child, drain_s, drain_s * RELOAD_IDLE)
        if not generation.children:
            self._last.remove(generation)

    def _show(self) -> None:
        put(self._shared.counters, NodeSlot.WORKERS_READY, self._now.workers_ready if self._now is not None else 0)

    # --- the end ---

    def _stop(self) -> None:
        if self._stopping:
            for child in self._everybody():
                child.leaving, child.kill_at = True, 0.0  # asked again: no more patience
            return
        self._stopping = True
        self._due.clear()
        put(self._shared.counters, NodeSlot.DRAINING, 1)
        self._keeper.close_public()
        if self._now is not None:
            drain_s = self._now.setting.config.limits.drain_timeout_s
            _log.info("stopping: requests under way have %g s to finish", drain_s)
        self._stop_on()

    def _stop_on(self) -> None:
        """Workers first; whoever asks the control process learns until the end how it goes."""
        for generation in self._generations():
            drain_s = generation.setting.config.limits.drain_timeout_s
            for child in generation.children:
                if child.role.name == "worker":
                    self._dismiss(child, drain_s, STOP_IDLE_S)
        if all(child.role.name == "control" for child in self._everybody()):
            for child in self._everybody():
                self._dismiss(child, 0.0, 0.0)

    def _abandon(self) -> None:
        """Nobody is left, or the supervisor itself failed."""
        for child in self._everybody():
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        os.close(self._wake_r)
        os.close(self._wake_w)
        self._keeper.close()
