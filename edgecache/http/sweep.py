"""Coarse time limits: one timer for many connections instead of one timer for each.

A member carries `deadline`, a plain float it may change at any moment at no cost; the sweep calls `expire` on those
whose moment has passed. A limit therefore ends between `limit` and `limit` + 2 periods after it was set: never early.
"""

import asyncio
import math
from typing import Protocol

NEVER = math.inf


class Timed(Protocol):
    """What a sweeper looks after."""

    deadline: float
    """In the loop's time; `NEVER` for none."""

    def expire(self) -> None:
        """The deadline has passed. Must move `deadline` or leave the sweeper, else it is called again."""
        ...


class Sweeper:
    """Looks at its members once a period, while it has any."""

    __slots__ = ("_handle", "_loop", "_members", "base", "period_s", "tick")

    def __init__(self, loop: asyncio.AbstractEventLoop, period_s: float) -> None:
        self._loop = loop
        self._members: set[Timed] = set()
        self._handle: asyncio.TimerHandle | None = None
        self.period_s = period_s
        self.tick = loop.time()
        """The loop's time at the last sweep: at most a period old while there are members."""
        self.base = self.tick + period_s
        """What limits are counted from: `base` plus a limit is never early."""

    @staticmethod
    def period_for(*limits_s: float) -> float:
        """A period that makes the shortest of these limits late by a quarter of itself at most."""
        return min(1.0, max(0.02, min(limits_s) / 8))

    def add(self, member: Timed) -> None:
        self._members.add(member)
        if self._handle is None:
            self._look()
            self._handle = self._loop.call_later(self.period_s, self._sweep)

    def discard(self, member: Timed) -> None:
        self._members.discard(member)
        if not self._members and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def after(self, limit_s: float) -> float:
        """The deadline of a limit that starts now."""
        return self.base + limit_s

    def _look(self) -> None:
        self.tick = self._loop.time()
        self.base = self.tick + self.period_s

    def _sweep(self) -> None:
        self._look()
        self._handle = self._loop.call_later(self.period_s, self._sweep)
        for member in [member for member in self._members if member.deadline <= self.tick]:
            member.expire()
