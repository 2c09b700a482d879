"""The count of a process's tasks: there while it runs, gone with it."""

import asyncio

from edgecache.http.tasks import spawn
from edgecache.observe.slots import Gauge, Layout, LocalCounters, gauge_total
from edgecache.observe.tasks import TaskGauge


async def test_tasks_are_counted_again_and_again() -> None:
    counters = LocalCounters(Layout(("shop",)).slots)
    gauge = TaskGauge(counters, 3)
    done = asyncio.Event()
    here = len(asyncio.all_tasks())
    gauge.start()
    assert gauge_total(counters, Gauge.TASKS) == here
    others = [spawn(done.wait(), "other") for _ in range(5)]
    gauge.look()
    assert gauge_total(counters, Gauge.TASKS) == here + 5
    done.set()
    await asyncio.gather(*others)
    gauge.look()
    assert gauge_total(counters, Gauge.TASKS) == here
    gauge.stop()
    assert gauge_total(counters, Gauge.TASKS) == 0
