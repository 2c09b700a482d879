"""Reloads and deaths leave nothing behind: every process has the descriptors that it had before, kind by kind."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

from loadtests.kit.rest import kinds_of, targets
from tests.supervisor import kit

ROUNDS = 3
PATHS = [f"/{i}" for i in range(20)]


def held(node: kit.Node) -> dict[str, Counter[str]]:
    """By process. Each thread may have connections to databases beside, which it opens when it first needs them."""
    supervisor = kit.Process(node.process.pid, "edgecache")
    return {process.name: kinds_of(targets(process.pid))[0] for process in (supervisor, *node.processes())}


async def used(node: kit.Node) -> dict[str, Counter[str]]:
    """What is held at rest, by processes that have served and purged something."""
    await asyncio.to_thread(node.ask, "/v1/purge", {"keys": ["all-of-it"], "wait": True})
    for path in PATHS:
        assert (await kit.get(node.port, path))[0] == 200
    figures = (lambda: node.stats()["connections"], lambda: node.stats()["fills"])
    await asyncio.to_thread(kit.until, lambda: not any(figure() for figure in figures))
    return held(node)


async def settled(node: kit.Node, before: dict[str, Counter[str]]) -> None:
    """The last ones are gone, the new ones serve."""

    def whole() -> bool:
        return len(node.processes()) == len(before) - 1 and node.stats()["processes"]["ready"] == 2

    await asyncio.to_thread(kit.until, whole)


async def test_reloads_and_deaths_leave_no_descriptor(tmp_path: Path) -> None:
    with kit.origin() as origin:
        config = {
            "origin": origin.url,
            "disk": {"path": str(tmp_path / "disk"), "size": "64MiB"},
            "limits": {"drain_timeout": "1s"},
        }
        with kit.node(tmp_path, config) as node:
            before = await used(node)
            assert len(before) == 4
            for _ in range(ROUNDS):
                await asyncio.to_thread(node.reload)
                await settled(node, before)
            assert await used(node) == before
            for number in range(ROUNDS):
                old = node.workers()
                os.kill(old[number % len(old)], signal.SIGKILL)
                await asyncio.to_thread(kit.until, lambda old=old: set(node.workers()) != set(old))  # type: ignore[misc]
                await settled(node, before)
            assert await used(node) == before
            assert (await asyncio.to_thread(node.stats))["processes"]["died"] == ROUNDS
