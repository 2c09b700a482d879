"""Several processes on one disk tier: a restart, orderly or not, asks the origin for nothing that is fresh."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.kit import Node, alive, body_of, exchange, node, origin, until

COUNT = int(os.environ.get("EDGECACHE_WARM_OBJECTS", "1000"))
"""10,000 takes half a minute on two cores."""
CONNECTIONS = 8


def settings(origin_url: str, folder: Path, **disk: object) -> dict[str, Any]:
    return {
        "origin": origin_url,
        "disk": {"path": str(folder / "cache"), "size": "1GiB", **disk},
    }


async def ask_all(port: int, paths: list[str]) -> int:
    """How many answers were whole."""

    async def some(mine: list[str]) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        whole = 0
        for path in mine:
            status, _, body = await exchange(reader, writer, path)
            whole += status == 200 and body == body_of(path)
        writer.close()
        return whole

    return sum(await asyncio.gather(*(some(paths[i::CONNECTIONS]) for i in range(CONNECTIONS))))


def stop(running: Node) -> None:
    children = [process.pid for process in running.processes()]
    assert running.end() == 0
    until(lambda: not any(map(alive, children)))


def kill(running: Node) -> None:
    children = [process.pid for process in running.processes()]
    for pid in (*children, running.process.pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, children)))


@pytest.mark.timeout(300)
def test_a_restart_asks_the_origin_for_nothing_fresh(tmp_path: Path) -> None:
    """Asked for once or more often, stored by workers that are there or by those of the configuration before."""
    paths = [f"/small/{i}" for i in range(COUNT)]
    with origin() as source:
        with node(tmp_path, settings(source.url, tmp_path, queue="1MiB")) as running:
            assert asyncio.run(ask_all(running.port, paths[: COUNT // 2])) == COUNT // 2
            before = running.workers()
            running.process.send_signal(signal.SIGHUP)
            until(lambda: not any(map(alive, before)))
            assert asyncio.run(ask_all(running.port, paths[COUNT // 3 :])) == COUNT - COUNT // 3
            stop(running)
        del source.asked[:]
        with node(tmp_path, settings(source.url, tmp_path)) as running:
            assert asyncio.run(ask_all(running.port, paths)) == COUNT
            assert source.asked == []
            stop(running)


@pytest.mark.fault
def test_after_a_kill_what_was_written_is_served_and_what_was_purged_is_not(tmp_path: Path) -> None:
    paths = [f"/{i}" for i in range(200)]
    with origin() as source:
        with node(tmp_path, settings(source.url, tmp_path, admit="always", queue="256MiB")) as running:
            assert asyncio.run(ask_all(running.port, paths)) == len(paths)
            until(lambda: running.stats()["disk"]["records"] == len(paths))
            purged = [f"http://site{path}" for path in paths[:50]]
            assert running.ask("/v1/purge", {"urls": purged})["sequence"]
            kill(running)
        del source.asked[:]
        with node(tmp_path, settings(source.url, tmp_path)) as running:
            assert asyncio.run(ask_all(running.port, paths)) == len(paths)
            assert sorted(source.asked) == sorted(paths[:50])
            stop(running)
