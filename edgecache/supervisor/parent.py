"""What supervisors have in common: processes are forked, heard, reaped and replaced. One thread, no event loop.

A *generation* is one setting and its processes. The next one starts on the same sockets beside the current one, and
when all of it is ready the last one is told to finish: connections that wait in a socket's queue are taken by whoever
accepts next, so none is lost on the way. A process that dies is replaced.

What a setting is, what a process does with it, and what is told of all this, say those who stand on it (`watch`,
`geodns`).
"""

import logging
import os
import selectors
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from edgecache.supervisor import machine
from edgecache.supervisor.child import BROKEN, CUT, OK, Channel, Role, leave
from edgecache.supervisor.setting import SetupError

_log = logging.getLogger("edgecache")

KILL_GRACE_S = 5.0
"""Beyond a drain's own limit, before a process that does not end is killed."""
BACKOFF_S, BACKOFF_MOST_S = 0.1, 30.0
"""Who dies before it is ready, twice in a row, is started again more and more slowly. Who was ready: at once."""
HOPELESS = 5
"""Deaths at the first start after which it is given up."""

NEVER = float("inf")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class Sized(Protocol):
    @property
    def workers(self) -> int: ...


S = TypeVar("S", bound=Sized)
"""What a generation is started with."""


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
    killed: bool = False
    complaint: str | None = None
    """Why it cannot start, in its own words."""


@dataclass(eq=False, slots=True)
class Generation(Generic[S]):
    """One setting and its processes."""

    setting: S
    children: set[Child] = field(default_factory=set)

    @property
    def ready(self) -> bool:
        return sum(child.ready for child in self.children) == self.setting.workers + 1

    @property
    def workers_ready(self) -> int:
        return sum(child.ready and not child.leaving and child.role.name == "worker" for child in self.children)


class Parent(ABC, Generic[S]):
    """Runs once."""

    start_limit_s: float
    """How long a process may take to say that it is ready."""

    def __init__(self, first: S, slots: range) -> None:
        """`slots`: what each process gets a number of, nobody else's as long as it lives."""
        self._now: Generation[S] | None = None
        """The one that serves."""
        self._next: Generation[S] | None = Generation(first)
        """The one that starts."""
        self._last: list[Generation[S]] = []
        """Those that finish, or were given up."""
        self._free = set(slots)
        self._due: list[tuple[float, Generation[S], Literal["worker", "control"], int]] = []
        """Processes to start: when, for whom."""
        self._deaths: Counter[tuple[str, int]] = Counter()
        """In a row, by role, of those that were not ready yet."""
        self._stopping = False
        self._reload_asked = False
        self._failed = 0
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # --- what differs ---

    @abstractmethod
    def _live(self, role: Role, setting: S, channel: Channel) -> int:
        """In a forked process: its whole life. Returns its exit code."""

    @abstractmethod
    def _let_go(self, role: Role, setting: S) -> None:
        """In a forked process, at first: close the sockets that are others'."""

    @abstractmethod
    def _renew(self) -> S:
        """What the next generation is to be started with. Raises `SetupError`, after which nothing has changed."""

    @abstractmethod
    def _keep(self, setting: S | None) -> None:
        """Close the sockets that this setting does not have. None: all."""

    @abstractmethod
    def _in_use(self, before: Generation[S] | None) -> None:
        """The current generation serves; `before` has been told to finish."""

    @abstractmethod
    def _time(self, setting: S, *, stopping: bool) -> tuple[float, float]:
        """Seconds that a worker has to finish what is under way, and for which it keeps connections without."""

    def _closing(self) -> None:
        """Everything is about to be told to finish."""

    def _buried(self, child: Child) -> None:
        """It has ended."""

    def _died(self) -> None:
        """A process has ended without having been told to."""

    def _changed(self) -> None:
        """Of a process, or of which there are, something is known that was not."""

    def _settled(self) -> None:
        """After each turn in which it is not about to stop."""
        if self._reload_asked and self._next is None:
            self._reload_asked = False
            self._reload()

    # --- the loop ---

    def run(self) -> int:
        """Until every process has ended. Returns the exit code."""
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
        self._settled()

    def _patience(self) -> float | None:
        """Seconds until something is due by the clock."""
        moment = min([child.kill_at for child in self._everybody()] + [one[0] for one in self._due], default=NEVER)
        return max(0.0, moment - time.monotonic()) if moment < NEVER else None

    def _everybody(self) -> list[Child]:
        return [child for generation in self._generations() for child in generation.children]

    def _generations(self) -> list[Generation[S]]:
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

    def _populate(self, generation: Generation[S]) -> None:
        self._fork(generation, "control", 0)
        for index in range(generation.setting.workers):
            self._fork(generation, "worker", index)

    def _fork(self, generation: Generation[S], name: Literal["worker", "control"], index: int) -> None:
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
        child = Child(pid, role, mine, kill_at=time.monotonic() + self.start_limit_s)
        generation.children.add(child)
        self._selector.register(mine.socket, selectors.EVENT_READ, (child, generation))

    def _become(self, role: Role, setting: S, channel: Channel, other_end: Channel, parent: int) -> None:
        """In the child, for good: let go of what is not its own, and live. Signals are the supervisor's affair."""
        code = BROKEN
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
            self._selector.close()
            os.close(self._wake_r)
            os.close(self._wake_w)
            other_end.close()
            for child in self._everybody():
                child.channel.close()
            self._let_go(role, setting)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            machine.die_with(parent)
            code = self._live(role, setting, channel)
        except BaseException:  # noqa: BLE001 - the end of the line: it is logged and becomes the exit code
            _log.exception("the %s failed", role)
        finally:
            leave(code)

    def _hear(self, child: Child, generation: Generation[S]) -> None:
        messages = child.channel.receive()
        if messages is None:
            self._selector.unregister(child.channel.socket)  # it is ending; `_reap` does the rest
            return
        for message in messages:
            self._heed(child, generation, message)

    def _heed(self, child: Child, generation: Generation[S], message: dict[str, Any]) -> None:
        if "failed" in message:
            child.complaint = message["failed"]
        elif "shut" in message:
            child.shut = True
        elif "ready" in message and not child.leaving:
            child.ready = True
            child.kill_at = NEVER
            if generation is self._next and generation.ready:
                self._switch()
        self._changed()

    def _reap(self) -> None:
        for generation in self._generations():
            for child in list(generation.children):
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    self._ended(child, generation, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, generation: Generation[S], code: int) -> None:
        if child.channel.socket in self._selector.get_map():
            self._hear(child, generation)  # its last words
            if child.channel.socket in self._selector.get_map():
                self._selector.unregister(child.channel.socket)
        child.channel.close()
        generation.children.discard(child)
        self._buried(child)
        self._free.add(child.role.slot)
        self._changed()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if child.leaving:
            if code == CUT:
                _log.warning("some requests were cut off at the end of limits.drain_timeout")
            elif code != OK and not child.killed:
                _log.error("the %s (process %d) ended: %s", child.role, child.pid, how)
            if generation in self._last and not generation.children:
                self._last.remove(generation)
            return
        self._died()
        if child.complaint is None:
            _log.error("the %s (process %d) ended: %s", child.role, child.pid, how)
        self._replace(child, generation)

    def _replace(self, child: Child, generation: Generation[S]) -> None:
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
        child.kill_at, child.killed = NEVER, True
        os.kill(child.pid, signal.SIGKILL)

    def _dismiss(self, child: Child, drain_s: float, idle_s: float) -> None:
        if not child.leaving:
            child.leaving = True
            child.kill_at = time.monotonic() + drain_s + KILL_GRACE_S
            child.channel.send({"drain": drain_s, "idle": idle_s})

    # --- generations ---

    def _reload(self) -> None:
        try:
            setting = self._renew()
        except SetupError as error:
            self._refuse(str(error))
            return
        self._next = Generation(setting)
        self._populate(self._next)

    def _refuse(self, why: str) -> None:
        _log.error("the configuration was not taken over, nothing has changed: %s", why)

    def _switch(self) -> None:
        """All of the next generation serves: it is the current one now, and the last one finishes."""
        assert self._next is not None
        before, self._now, self._next = self._now, self._next, None
        self._keep(self._now.setting)
        if before is not None:
            self._retire(before)
        self._in_use(before)

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
        self._keep(self._now.setting)
        self._refuse(why)
        self._retire(failed)

    def _retire(self, generation: Generation[S]) -> None:
        """Let a generation finish: requests under way, and one more on each connection that is kept open."""
        self._due = [one for one in self._due if one[1] is not generation]
        if generation not in self._last:
            self._last.append(generation)
        for child in generation.children:
            self._dismiss(child, *self._time(generation.setting, stopping=False))
        if not generation.children:
            self._last.remove(generation)

    # --- the end ---

    def _stop(self) -> None:
        if self._stopping:
            for child in self._everybody():
                child.leaving, child.kill_at = True, 0.0  # asked again: no more patience
            return
        self._stopping = True
        self._due.clear()
        self._closing()
        self._stop_on()

    def _stop_on(self) -> None:
        """Workers first; whoever asks the control process learns until the end how it goes."""
        for generation in self._generations():
            for child in generation.children:
                if child.role.name == "worker":
                    self._dismiss(child, *self._time(generation.setting, stopping=True))
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
        self._keep(None)
