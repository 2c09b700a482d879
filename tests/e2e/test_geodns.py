"""The chain: a resolver that sends client subnets (unbound) -> geodns -> the edge it chose -> origin.

One edge is killed under load: its clients are at the next one within the time to live, and no request fails that was
resolved anew.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import dns.asyncquery
import dns.message
import pytest

from edgecache.demo.fleet import RESOLVER
from tests.conftest import require
from tests.e2e.edge import Process
from tests.e2e.origin import Answer, Asked, origin
from tests.geodns.serving import beside
from tests.geodns.world import addresses
from tests.ports import free_port

EUROPE, AMERICA = "127.0.1.1", "127.0.1.2"
"""Where the edges are."""
EUROPEAN, AMERICAN = "127.1.0.9", "127.2.0.9"
"""Where clients ask from: the resolver tells geodns their networks."""
INTERVAL_S, FALL, TTL_S = 1.0, 3, 1

GEODNS = """
workers: 1
rate_limit: {{responses: 0}}
check: {{port: {port}, path: /, host: z.example, interval: {interval}, timeout: 1, fall: {fall}}}
location:
  networks:
    - {{network: 127.1.0.0/16, country: DE}}
    - {{network: 127.2.0.0/16, country: US}}
pops:
  - {{name: europe, latitude: 50, longitude: 8, addresses: [{europe}]}}
  - {{name: america, latitude: 40, longitude: -74, addresses: [{america}]}}
zones:
  - {{name: z.example, nameservers: [ns.z.example], geo: [{{name: www, ttl: 30s, min_ttl: {ttl}s}}]}}
"""


@contextlib.contextmanager
def edge(folder: Path, address: str, port: int, origin_url: str) -> Iterator[Process]:
    file = folder / f"{address}.yaml"
    file.write_text(
        f'name: edge-{address}\nlisten: ["{address}:{port}"]\nadmin: {{address: "127.0.0.1:0"}}\nworkers: 0\n'
        f"memory: {{size: 16MiB}}\norigin: {origin_url}\nlog: {{access: {{format: off}}}}\n"
    )
    running = Process("serve", "-c", str(file), signs=("admin API on",))
    try:
        running.ports()
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def unbound(folder: Path, geodns: int) -> Iterator[int]:
    port = free_port("127.0.0.1")
    file = folder / "unbound.conf"
    file.write_text(RESOLVER.format(folder=folder, port=port, zone="z.example", geodns=geodns))
    process = subprocess.Popen([require("unbound"), "-d", "-c", str(file)], stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < until, "unbound does not start"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)
        if process.stderr is not None:
            process.stderr.close()


@dataclass
class Request:
    at: float
    resolved_at: float
    """When the answer came that its address is from."""
    address: str
    good: bool


class Client:
    """Asks the resolver from its own address, keeps the answer for its time to live, and requests all the time."""

    def __init__(self, source: str, resolver: int, port: int) -> None:
        self._source = source
        self._resolver = resolver
        self._port = port
        self.requests: list[Request] = []
        self.ended = False
        """Set to end it. Cancelled it would leave the socket open that it is about to ask with."""

    async def resolve(self) -> tuple[str, int]:
        query = dns.message.make_query("www.z.example", "A")
        answer = await dns.asyncquery.udp(query, "127.0.0.1", 10, self._resolver, source=self._source)
        (rrset,) = answer.answer
        return rrset[0].address, rrset.ttl

    async def run(self, session: aiohttp.ClientSession) -> None:
        while not self.ended:
            asked = time.monotonic()
            address, ttl_s = await self.resolve()
            while time.monotonic() <= asked + ttl_s and not self.ended:
                at = time.monotonic()
                url = f"http://{address}:{self._port}/hello"
                try:
                    async with session.get(url, headers={"Host": "www.z.example"}) as response:
                        good = response.status == 200 and await response.read() != b""
                except (aiohttp.ClientError, OSError, TimeoutError):
                    good = False
                self.requests.append(Request(at, asked, address, good))
                await asyncio.sleep(0.02)


async def until(client: Client, address: str) -> None:
    async with asyncio.timeout(20):
        while not (client.requests and client.requests[-1].address == address and client.requests[-1].good):  # noqa: ASYNC110 - a real clock
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def chain(folder: Path) -> AsyncIterator[tuple[int, int, Process]]:
    """(the resolver's port, the edges' port, the European edge)"""
    port = free_port(EUROPE, AMERICA)

    async def answer(_: Asked, reply: Answer) -> None:
        await reply.whole(b"hello", "Cache-Control: max-age=600")

    async with origin(answer) as source:
        with edge(folder, EUROPE, port, source.url) as europe, edge(folder, AMERICA, port, source.url):
            text = GEODNS.format(port=port, interval=INTERVAL_S, fall=FALL, ttl=TTL_S, europe=EUROPE, america=AMERICA)
            async with beside(text) as geodns:
                with unbound(folder, geodns.port) as resolver:
                    yield resolver, port, europe


@pytest.mark.e2e
async def test_an_edge_dies_under_load() -> None:
    require("unbound")
    with tempfile.TemporaryDirectory() as name:
        async with chain(Path(name)) as (resolver, port, europe), aiohttp.ClientSession() as session:
            european, american = Client(EUROPEAN, resolver, port), Client(AMERICAN, resolver, port)
            tasks = [asyncio.get_running_loop().create_task(one.run(session)) for one in (european, american)]
            try:
                await until(european, EUROPE)
                await until(american, AMERICA)
                europe.process.kill()
                died = time.monotonic()
                await until(european, AMERICA)
                moved_s = european.requests[-1].at - died
                await asyncio.sleep(2 * TTL_S)
            finally:
                european.ended = american.ended = True
                await asyncio.wait(tasks)
            for task in tasks:
                task.result()
    failed = [one for one in european.requests if not one.good]
    print(f"at the next edge after {moved_s:.2f} s; {len(failed)} of {len(european.requests)} requests failed")
    assert moved_s <= INTERVAL_S * FALL + 1 + TTL_S + 1, "a second for the resolver's clock, which counts whole ones"
    assert failed, "it was in use when it died"
    assert all(one.address == EUROPE for one in failed)
    anew = next(one for one in european.requests if one.address == AMERICA)
    assert all(one.good for one in european.requests if one.resolved_at >= anew.resolved_at)
    assert all(one.good and one.address == AMERICA for one in american.requests)


FLEET = """
workers: 0
check: {{type: none}}
coordinator: {{url: "http://127.0.0.1:{port}", interval: 200ms, fall: 2}}
location: {{default: [europe, america]}}
pops:
  - {{name: europe, latitude: 50, longitude: 8, addresses: [192.0.2.1]}}
  - {{name: america, latitude: 40, longitude: -74, addresses: [192.0.2.2]}}
zones: [{{name: z.example, nameservers: [ns.z.example], geo: [www]}}]
"""


@contextlib.contextmanager
def running(*args: str, sign: str) -> Iterator[Process]:
    process = Process(*args, signs=(sign,))
    try:
        process.ports()
        yield process
    finally:
        process.stop()


@pytest.mark.e2e
async def test_an_edge_that_leaves_the_coordinator_leaves_the_answers(tmp_path: Path) -> None:
    """No check looks at it: the real coordinator's list is all there is."""
    data, token, file = tmp_path / "data", tmp_path / "token", tmp_path / "edge.yaml"
    add = ["coordinator", "--data", str(data), "token", "add", "edges", "--scope", "edge"]
    made = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "edgecache", *add], capture_output=True, check=True, timeout=60
    )
    token.write_bytes(made.stdout)
    with running("coordinator", "--listen", "127.0.0.1:0", "--data", str(data), sign="coordinator on") as coordinator:
        (port,) = coordinator.ports()
        file.write_text(
            'name: europe\nlisten: ["127.0.0.1:0"]\nadmin: {address: "127.0.0.1:0"}\nworkers: 0\n'
            "memory: {size: 16MiB}\norigin: http://127.0.0.1:1\nlog: {access: {format: off}}\n"
            f'purge: {{coordinator: "http://127.0.0.1:{port}", token_file: {token}}}\n'
        )
        with running("serve", "-c", str(file), sign="admin API on") as edge_of_europe:
            async with asyncio.timeout(20), aiohttp.ClientSession() as session:
                while True:  # until the coordinator has seen the edge: geodns asks it before its first answer
                    async with session.get(f"http://127.0.0.1:{port}/v1/edges") as got:
                        if [edge["connected"] for edge in (await got.json())["edges"]] == [True]:
                            break
                    await asyncio.sleep(0.05)
            async with beside(FLEET.format(port=port)) as geodns:

                async def answered(address: str) -> None:
                    async with asyncio.timeout(20):
                        while True:
                            answer = await asyncio.to_thread(geodns.ask, "www.z.example")
                            if addresses(answer) == [address]:
                                return
                            await asyncio.sleep(0.05)

                await answered("192.0.2.1")
                edge_of_europe.process.kill()
                await answered("192.0.2.2")
