"""Two coordinators on one replicated log, one of them killed in a storm of purges; edges at both, and one far away.

Three real NATS servers hold the stream three times, a fourth is the leaf node of a PoP with a real edge. Callers purge
with an idempotency key each, at whichever coordinator answers, and ask again at the other where they were not answered:
so every purge that was accepted is in the log once, and all edges have seen the one order.

With EDGECACHE_LONG_TESTS=1, as `make test-faults` runs it, the storm is fifty times as long, each coordinator dies
several times, and so does the server that leads the stream.
"""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgecache.config.nats import NatsConfig
from edgecache.purge.bus import BusError
from edgecache.purge.coordinator import tokens
from edgecache.purge.coordinator.tokens import Scope
from tests.ports import free_ports
from tests.purge.bus_contract import everything, keys
from tests.purge.coordinator.kit import LightEdge
from tests.purge.natskit import DOMAIN, Cluster, Server, cluster, leaf
from tests.supervisor.kit import Node, exchange, node, origin

nats = pytest.importorskip("nats", reason="nats-py is not installed: pip install edgecache[nats]")

from edgecache.purge.transport.nats_bus import NatsBus  # noqa: E402 - where there is nats-py
from edgecache.purge.transport.nats_settings import nats_settings  # noqa: E402

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

WHOLE = "EDGECACHE_LONG_TESTS" in os.environ
PURGES = 20_000 if WHOLE else 400
DEATHS = 8 if WHOLE else 1
CALLERS = 16
PAGES = 20
"""URLs that the storm purges too, each once."""
KEPT = [f"/stay/{i}" for i in range(5)]
PATIENCE_S = 60.0
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("EDGECACHE_")}


class Coordinator:
    """`edgecache coordinator` on NATS, as often as it is killed."""

    def __init__(self, folder: Path, name: str, servers: Cluster) -> None:
        (self._port,) = free_ports(1)
        self._folder = folder
        self._out = folder / f"{name}.out"
        self._servers = servers
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "edgecache", "coordinator", "--listen", f"127.0.0.1:{self._port}"]
        command += ["--data", str(self._folder / "data"), *(f"--bus={url}" for url in self._servers.urls)]
        settings = {"NATS_REPLICAS": "3", "NATS_DOMAIN": DOMAIN, "RATE": "0", "HEARTBEAT": "1s"}
        more = {f"EDGECACHE_COORDINATOR_{name}": value for name, value in settings.items()}
        with self._out.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, env=ENVIRON | more)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def said(self) -> str:
        return self._out.read_text()


@contextmanager
def coordinators(folder: Path, servers: Cluster) -> Iterator[list[Coordinator]]:
    made = [Coordinator(folder, name, servers) for name in ("a", "b")]
    try:
        for each in made:
            each.start()
        yield made
    finally:
        for each in made:
            each.kill()


@dataclass
class Storm:
    """Callers that purge until each of their purges was accepted."""

    session: aiohttp.ClientSession
    urls: list[str]
    chance: random.Random
    accepted: dict[str, int] = field(default_factory=dict)
    asked_again: int = 0
    again: int = 0
    """Answers for a call that was logged, and whose answer got lost."""
    watched: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    async def reached(self, count: int) -> None:
        """When so many are accepted."""
        event = asyncio.Event()
        self.watched.append((count, event))
        async with asyncio.timeout(PATIENCE_S * 5):
            await event.wait()

    async def caller(self, number: int) -> None:
        for i in range(number, PURGES, CALLERS):
            body: dict[str, Any] = {"keys": [f"k{i}"], "wait": i % 20 == 0, "timeout_s": 1}
            if i % (PURGES // PAGES) == 0:
                body["urls"] = [f"http://site/page/{i * PAGES // PURGES}"]
            answer = await self.purge(body, f"call-{i}")
            self.accepted[f"k{i}"] = answer["sequence"]
            for count, event in self.watched:
                if len(self.accepted) >= count:
                    event.set()

    async def purge(self, body: dict[str, Any], key: str) -> Any:
        """As a careful client does it: the same key, wherever there is an answer."""
        urls = self.chance.sample(self.urls, len(self.urls))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    sending = self.session.post(f"{urls[0]}/v1/purge", json=body, headers={"Idempotency-Key": key})
                    async with sending as response:
                        if response.status == 200:
                            answer = await response.json()
                            self.again += answer["again"]
                            return answer
                        assert response.status == 503, await response.text()
                except aiohttp.ClientError:
                    pass
                self.asked_again += 1
                urls.reverse()
                await asyncio.sleep(0.02)


@asynccontextmanager
async def _session(token: str) -> Any:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        yield session


async def eventually(condition: Callable[[], Any], why: Callable[[], str] = str) -> None:
    """What another process does and tells nobody."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"it did not happen: {why()}") from None


async def statuses(port: int, paths: list[str]) -> list[str]:
    """The edge's Cache-Status of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = [(await exchange(reader, writer, path))[1]["cache-status"] for path in paths]
    writer.close()
    return found


async def leader_of(bus: NatsBus, servers: Cluster) -> Server:
    client = await nats.connect(list(servers.urls))
    info = await client.jetstream(domain=DOMAIN).stream_info(bus.settings.stream)
    await client.close()
    assert info.cluster is not None
    return next(server for server in servers.servers if server.name == info.cluster.leader)


async def fell(storm: Storm, fleet: list[Coordinator], servers: Cluster, bus: NatsBus) -> None:
    """One coordinator after the other is killed, and comes back; in the long run so is the stream's leader."""
    for death in range(DEATHS):
        await storm.reached(PURGES * (3 * death + 1) // (3 * DEATHS))
        victim = fleet[death % 2]
        victim.kill()
        leader = await leader_of(bus, servers) if WHOLE and death % 3 == 1 else None
        if leader is not None:
            leader.kill()
        await storm.reached(PURGES * (3 * death + 2) // (3 * DEATHS))
        victim.start()
        if leader is not None:
            leader.start()


async def storms(fleet: list[Coordinator], servers: Cluster, bus: NatsBus, edge: Node, token: str) -> None:
    pages = [f"/page/{i}" for i in range(PAGES)]
    edges = [LightEdge(fleet[i % 2].url, f"light-{i}", token) for i in range(4)]
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(_session(token))
        for each in edges:
            await stack.enter_async_context(each)
        for each in edges:
            await each.until(lambda e: e.welcomes, PATIENCE_S)

        async def known() -> bool:
            found = []
            for one in fleet:
                try:
                    async with session.get(f"{one.url}/v1/edges") as response:
                        found.append({row["edge"] for row in (await response.json())["edges"] if row["connected"]})
                except aiohttp.ClientError:
                    return False  # it is not back yet
            return all(len(names) == len(edges) + 1 for names in found)

        await eventually(known, lambda: "".join(one.said() for one in fleet))
        await statuses(edge.port, pages + KEPT)
        assert all("; hit" in status for status in await statuses(edge.port, pages + KEPT))
        storm = Storm(session, [one.url for one in fleet], random.Random(6))
        await asyncio.gather(*map(storm.caller, range(CALLERS)), fell(storm, fleet, servers, bus))
        # Everybody is back, and what waits for all of them is confirmed by all.
        await eventually(known, lambda: "".join(one.said() for one in fleet))
        last = await storm.purge({"keys": ["last"], "timeout_s": 30}, "the-last-one")
        assert {each["edge"]: each["applied"] for each in last["edges"]} == {
            "far": True,
            **{each.name: True for each in edges},
        }
        log = keys(await everything(bus, 0))
        assert last["sequence"] == len(log), "nothing came after the last one"
        # None lost and none twice: each that was accepted has its number, and there is nothing else.
        assert {name: log[number - 1] for name, number in storm.accepted.items()} == {
            f"k{i}": f"k{i}" for i in range(PURGES)
        }
        assert sorted(log) == sorted([*storm.accepted, "last"])
        # None reordered: every edge has seen the whole log, in its order, however often its coordinator died.
        for each in edges:
            await each.at(len(log))
            assert each.keys == log
            assert each.resets == 1, "only when it came for the first time"
        assert any(each.lost for each in edges), "no coordinator died under its edges"
        assert storm.asked_again, "no call was ever asked again"
        # And the edge in the PoP has applied it: what was purged is asked for again, what was not is not.
        figures = edge.stats()["purges"]
        assert (figures["position"], figures["resets"], figures["caught_up"]) == (len(log), 1, True)
        found = await statuses(edge.port, pages)
        assert not [status for status in found if "; hit" in status]
        assert all("; hit" in status for status in await statuses(edge.port, KEPT))


async def opened(servers: Cluster) -> NatsBus:
    """The log itself, for the test to read; three times, as soon as the servers have found each other."""
    config = NatsConfig.model_validate({"servers": list(servers.urls), "domain": DOMAIN, "replicas": 3})
    async with asyncio.timeout(PATIENCE_S):
        while True:
            bus = NatsBus(nats_settings(config))
            try:
                await bus.start()
            except BusError:
                await asyncio.sleep(0.1)
            else:
                return bus


def test_a_coordinator_killed_in_a_storm_of_purges(tmp_path: Path) -> None:
    token = tokens.add(tmp_path / "data" / "tokens.json", "all", [Scope.ADMIN], now=0)
    (tmp_path / "token").write_text(token)
    (tmp_path / "edge").mkdir()
    with ExitStack() as stack:
        servers = stack.enter_context(cluster(tmp_path))
        near = stack.enter_context(leaf(tmp_path, servers))
        source = stack.enter_context(origin())

        async def run() -> None:
            bus = await opened(servers)
            try:
                fleet = stack.enter_context(coordinators(tmp_path, servers))
                purge = {
                    "coordinator": fleet[1].url,
                    "token_file": str(tmp_path / "token"),
                    "nats": {"servers": [near.url], "domain": DOMAIN},
                    "max_silence": "60s",
                    "table_slots": 65_536,  # so that none of them is folded
                }
                settings = {"origin": source.url, "name": "far", "workers": 1, "purge": purge}
                edge = stack.enter_context(node(tmp_path / "edge", settings))
                await storms(fleet, servers, bus, edge, token)
            finally:
                await bus.close()

        asyncio.run(run())
