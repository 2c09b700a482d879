"""Workers that are killed under load: only their own connections end, and nothing else is lost, leaked or wrong."""

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.supervisor import kit

pytestmark = pytest.mark.fault

PATHS = [f"/object/{i}" for i in range(300)] + [f"/pass/{i}" for i in range(4)]


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def killing(node: kit.Node, seconds: float, workers: int) -> list[float]:
    """Kill a worker again and again. How long each was missed."""
    missed = []
    chance = random.Random(7)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        victim = chance.choice(node.workers())
        kill(victim)

        def replaced(victim: int = victim) -> bool:
            now = node.workers()
            return len(now) == workers and victim not in now

        missed.append(await asyncio.to_thread(kit.until, replaced))
        await asyncio.sleep(chance.random() * 0.3)
    return missed


async def died(seconds: float, tmp_path: Path) -> None:
    with kit.origin() as origin:
        # Small, so that objects are evicted and pinned while processes die; large bodies are sent from where they lie.
        config = {"origin": origin.url, "workers": 3, "memory": {"size": "8MiB", "max_object": "100KiB"}}
        with kit.node(tmp_path, config, "tests.fault.checked") as node:
            async with kit.load(node.port, PATHS, clients=12) as tally:
                await kit.warm(tally, 100)
                missed = await killing(node, seconds, 3)
                await kit.warm(tally, 100)
            figures = await asyncio.to_thread(node.stats)
            assert max(missed) < 1.0
            assert tally.wrong == 0
            assert tally.refused == 0, "a connection that waited for the dead worker was taken by the next"
            assert tally.cut + tally.lost <= 12 * len(missed), "only connections of the dead end"
            assert figures["processes"]["died"] == len(missed)
            assert figures["processes"]["ready"] == 3
            await asyncio.to_thread(kit.until, lambda: node.stats()["memory"]["pins"] == 0)
            await asyncio.to_thread(kit.until, lambda: node.stats()["connections"] == 0)
            assert (await asyncio.to_thread(node.stats))["fills"] == 0
            await every_object_is_whole(node)
            assert await asyncio.to_thread(node.end) == 0
            await asyncio.to_thread(node.said, "examined")
            (examined,) = (message for message in node.messages if message["message"] == "examined")
            assert set(examined["left"].values()) == {0}, examined


async def every_object_is_whole(node: kit.Node) -> None:
    """The arena still takes and gives everything."""
    for path in PATHS:
        for _ in range(2):
            status, _, body = await kit.get(node.port, path)
            assert (status, body) == (200, kit.body_of(path))


async def test_killed_workers_are_replaced_and_nothing_leaks(tmp_path: Path) -> None:
    await died(2.5, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif("EDGECACHE_LONG_TESTS" not in os.environ, reason="a minute; set EDGECACHE_LONG_TESTS=1")
async def test_a_minute_of_killing(tmp_path: Path) -> None:
    await died(60.0, tmp_path)


async def test_a_fetch_whose_worker_dies_is_taken_over(tmp_path: Path) -> None:
    """Whoever waits in another worker is woken by the burial, not by the lease's end."""
    with kit.origin() as origin, kit.node(tmp_path, {"origin": origin.url, "workers": 4}) as node:
        asking = [asyncio.ensure_future(kit.get(node.port, "/slow")) for _ in range(24)]
        await asyncio.to_thread(origin.slow_under_way.wait, kit.PATIENCE_S)
        await asyncio.to_thread(kit.until, lambda: node.stats()["connections"] == 24)
        assert origin.asked.count("/slow") == 1
        # Which worker fetches is not to be seen from outside: one after the other, but for the last.
        for pid in node.workers()[:3]:
            kill(pid)
            await asyncio.to_thread(kit.until, lambda pid=pid: pid not in node.workers() and len(node.workers()) == 4)
        origin.go_on.set()
        begun = time.monotonic()
        done = await asyncio.gather(*asking, return_exceptions=True)
        assert time.monotonic() - begun < 10
        whole = [answer for answer in done if not isinstance(answer, BaseException)]
        assert all(answer[2] == kit.body_of("/slow") for answer in whole)
        assert (await kit.get(node.port, "/slow"))[0] == 200


async def test_a_control_process_that_dies_is_replaced(tmp_path: Path) -> None:
    with kit.origin() as origin, kit.node(tmp_path, {"origin": origin.url}) as node:
        before = node.stats()["requests"]["total"]
        assert (await kit.get(node.port, "/a"))[0] == 200
        (control,) = (process.pid for process in node.processes() if process.name == "edgecache-ctl")
        kill(control)
        # Whoever asks now waits in the queue of the socket that the supervisor holds.
        figures = await asyncio.to_thread(node.stats)
        assert figures["requests"]["total"] == before + 1
        assert figures["processes"]["died"] == 1


def test_a_worker_that_dies_at_start_is_tried_less_and_less_often(tmp_path: Path) -> None:
    """A worker cannot start without its access log; once it runs the supervisor does not give up."""
    folder = tmp_path / "logs"
    folder.mkdir()
    log = {"access": {"path": str(folder / "access.log")}}
    with kit.node(tmp_path, {"origin": "http://127.0.0.1:1", "workers": 1, "log": log}) as node:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        kill(node.workers()[0])
        node.said("could not start 2 times in a row: again in 0.2 s")
        assert node.ask("/readyz")["status"] == "not ready"
        folder.mkdir()
        kit.until(lambda: node.ask("/readyz")["status"] == "ready")
