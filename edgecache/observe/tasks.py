"""How many tasks a process's event loop has, in the arena, where the control process reads it: a task that nobody ends
shows as a figure that grows.
"""

import asyncio

from edgecache.observe.slots import Counters, Gauge, ProcessGauges

PERIOD_S = 5.0
"""Counting walks over all tasks: rare enough to cost nothing with ten thousand connections."""


class TaskGauge:
    """Keeps `Gauge.TASKS` of one process current. One per process, used within its loop."""

    def __init__(self, counters: Counters, process: int) -> None:
        self._gauges = ProcessGauges(counters, process)
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self.look()
        self._handle = asyncio.get_running_loop().call_later(PERIOD_S, self.start)

    def look(self) -> None:
        self._gauges.set(Gauge.TASKS, len(asyncio.all_tasks()))

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._gauges.set(Gauge.TASKS, 0)
