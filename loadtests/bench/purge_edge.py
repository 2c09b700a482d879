"""What purging costs an edge: `python -m loadtests.bench.purge_edge [--quick] [--alone]`.

- Applying one key that a million stored objects carry, through the applier, and seeing that none is served.
- CPU of a worker per hit: of an edge on its own, of one that follows a coordinator, and of that while 1,000 purges a
  second arrive. Each of 2,000 objects with ten tags is asked for in turn, so that nearly every hit meets an object that
  has to be compared with the purge table again. Turns alternate; the medians are shown.
- From a purge call to its last acknowledgement, one edge, with and without a disk tier.
- Purges a second that an edge on its own answers, asked by one caller and by fifty, with and without a disk tier.
- Octets of purge state for each key that is remembered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from edgecache._native import probe
from edgecache._native.arena import Arena, hash_tag
from edgecache.config.units import Address
from edgecache.http.clock import wall_clock
from edgecache.http.sockets import bind
from edgecache.purge.applier import Applier
from edgecache.purge.bus import LogEntry, LogPosition, Purges, Welcome
from edgecache.purge.coordinator import tokens
from edgecache.purge.coordinator.hub import Hub
from edgecache.purge.coordinator.server import CoordinatorServer
from edgecache.purge.coordinator.service import Coordinator
from edgecache.purge.coordinator.tokens import Grant, Scope, TokenBook
from edgecache.purge.durable import DurablePurges
from edgecache.purge.forgetting import BUCKETS, Forgetting
from edgecache.purge.message import PurgeKind, PurgeMessage, PurgeOrder
from edgecache.purge.sqlite_log import SqliteLog
from edgecache.purge.tags import object_tags
from loadtests.ending import end_when_told

from .arena import random_keys, row
from .generators import parse_wrk
from .procfs import TICKS_PER_S, parse_stat

OBJECTS = 2000
RATE = 1000
TOKEN = "token-of-the-benchmark"
GRANT = Grant("bench", b"", frozenset({Scope.ADMIN}))
NUMBERS = {"born_at": 0.0, "fresh_until": 9e9, "stale_until": 9e9, "flags": 0, "status": 200, "fill_seq": 0}


# --- applying ---


def applying(count: int) -> None:
    arena = Arena(max(64 << 20, count * 560), max_object=64 << 10)
    applier = Applier(
        arena,
        sites=lambda: ("default",),
        cache_keys=lambda url: (url,),
        trust=lambda: None,
        position=LogPosition("log", 0, 0.0),
    )
    applier.handle(Welcome(LogPosition("log", 0, 0.0), 0, False, 5.0))
    common = object_tags(cache_key="http://h/", site="default", surrogate_keys=["all"])
    keys_of_objects = random_keys(count)
    for number in range(count):
        arena.put(keys_of_objects[16 * number : 16 * number + 16], b"h", b"m", [b"body"], tags=common, **NUMBERS)
    stored = len(arena)
    arena.append_purge([hash_tag(b"something else")], soft=False)
    pieces = sorted(proved(arena))
    row("compare all that is stored with all purges", f"{sum(pieces) * 1e3:.0f} ms", "")
    typical = f"{pieces[len(pieces) // 2] * 1e6:.0f}, {pieces[len(pieces) * 99 // 100] * 1e6:.0f} us"
    row("  a shard is locked meanwhile for, median and p99", typical, "")
    order = PurgeOrder(keys=("all",))
    begun = time.perf_counter()
    applier.handle(Purges((LogEntry(1, 1.0, order),)))
    took = time.perf_counter() - begun
    assert not any(arena.peek(keys_of_objects[16 * n : 16 * n + 16]) for n in range(0, count, 97))
    row(f"apply one key of {stored:,} stored objects", f"{took * 1e6:.0f} us", "1000 us")
    keys = tuple(f"product-{number}" for number in range(10_000))
    begun = time.perf_counter()
    applier.handle(Purges((LogEntry(2, 1.0, PurgeOrder(keys=keys)),)))
    row("apply one order of 10,000 keys", f"{(time.perf_counter() - begun) * 1e3:.1f} ms", "")
    tags = [hash_tag(key.encode()) for key in keys]
    begun = time.perf_counter()
    arena.append_purge(tags, soft=False)
    row("  of that, with the table locked", f"{(time.perf_counter() - begun) * 1e3:.2f} ms", "")
    entries = tuple(LogEntry(3 + n, 1.0, PurgeOrder(keys=(f"k{n}",))) for n in range(20_000))
    begun = time.perf_counter()
    applier.handle(Purges(entries))
    row("entries applied", f"{len(entries) / (time.perf_counter() - begun):,.0f}/s", "")


def proved(arena: Arena) -> Iterator[float]:
    """What each piece took."""
    through = arena.sequence()
    for shard in range(arena.shards):
        bucket, first = 0, True
        while bucket or first:
            begun = time.perf_counter()
            bucket, first = arena.prove(shard, bucket, BUCKETS, through), False
            yield time.perf_counter() - begun


def state(count: int) -> None:
    arena = Arena(64 << 20, max_object=64 << 10, purge_slots=1 << 16)
    slots = probe.layout(arena)["purge_slots"]
    filled = slots * 3 // 4
    row("purge table: octets a key, as full as it gets", f"{slots * 24 / filled:.0f}", "64")
    for number in range(4 * filled):
        arena.append_purge([hash_tag(b"%d" % number)], soft=False)
    row("  folded into the floor while 4 times as many came", f"{arena.stats()['folds']} times", "bounded")
    arena = Arena(64 << 20, max_object=64 << 10, purge_slots=1 << 16)
    forgetting = Forgetting(arena, clock=time.monotonic)
    with asyncio.Runner() as runner:
        for number in range(4 * filled):
            arena.append_purge([hash_tag(b"%d" % number)], soft=False)
            if number % 1000 == 0:
                runner.run(forgetting.look())
    row("  the same, forgetting what nothing needs", f"{arena.stats()['folds']} times", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "purges.db"
        durable = DurablePurges(path, max_tags=count)
        for begin in range(0, count, 1000):
            numbers = range(begin + 1, begin + 1001)
            durable.append(
                [PurgeMessage(n, 0.0, PurgeKind.HARD, (hash_tag(b"%d" % n),), False, "bench") for n in numbers]
            )
        durable.close()
        row("purges on disk: octets a key", f"{path.stat().st_size / count:.0f}", "64")


# --- a fleet of one ---


@contextlib.asynccontextmanager
async def origin(asked: list[int]) -> AsyncIterator[str]:
    """Its URL. `asked[0]` counts."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked[0] += 1
        keys = " ".join(f"key-{part}{request.path}" for part in range(5))
        return web.Response(body=bytes(1024), headers={"Cache-Control": "max-age=3600", "Surrogate-Key": keys})

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def coordinator(folder: Path) -> AsyncIterator[tuple[Coordinator, str]]:
    """One in this process, and its URL."""
    token = tokens.add(folder / "tokens.json", "edge", [Scope.EDGE], now=0)
    (folder / "edge.token").write_text(token)
    log = SqliteLog(folder / "log")
    await log.start()
    clock = asyncio.get_running_loop().time
    hub = Hub(log, wall=wall_clock, heartbeat_s=1.0)
    made = Coordinator(log, TokenBook(folder / "tokens.json", clock), hub, wall=wall_clock, rate=0, burst=1)
    await made.start()
    server = CoordinatorServer(made, Address("127.0.0.1", 0))
    await server.start()
    try:
        yield made, f"http://127.0.0.1:{server.address.port}"
    finally:
        await server.close()
        await log.close()


class Edge:
    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        ports = []
        for _ in range(2):
            with bind("127.0.0.1", 0) as door:
                ports.append(door.getsockname()[1])
        self.url, self.admin = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        folder.mkdir()
        config = {
            "name": folder.name,
            "listen": [f"127.0.0.1:{ports[0]}"],
            "admin": {"address": f"127.0.0.1:{ports[1]}"},
            "workers": 1,
            "log": {"access": {"format": "off"}},
            **settings,
        }
        (folder / "edge.yaml").write_text(json.dumps(config))
        command = [sys.executable, "-m", "edgecache", "serve", "-c", str(folder / "edge.yaml")]
        with (folder / "output").open("wb") as out:
            environ = os.environ | {"EDGECACHE_TOKEN": TOKEN}
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environ)

    async def ready(self) -> None:
        for _ in range(400):
            with contextlib.suppress(OSError):
                await asyncio.to_thread(urllib.request.urlopen, self.admin + "/readyz", None, 5)
                return
            await asyncio.sleep(0.05)
        raise SystemExit(f"the edge did not start: {self.process.args}")

    def worker(self) -> Path:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    text = (entry / "stat").read_text()
                    if "(edgecache-w0)" in text and parse_stat(text).parent == self.process.pid:
                        return entry / "stat"
        raise SystemExit("there is no worker")


@contextlib.contextmanager
def edge(folder: Path, settings: dict[str, Any]) -> Iterator[Edge]:
    made = Edge(folder, settings)
    try:
        yield made
    finally:
        made.process.send_signal(signal.SIGTERM)
        made.process.wait(40)


async def turn(made: Edge, script: Path, seconds: int) -> float:
    """Microseconds of the worker's CPU for a hit."""
    stat = made.worker()
    before = parse_stat(stat.read_text()).cpu_ticks
    wrk = await asyncio.create_subprocess_exec(
        *("wrk", "--latency", "-t1", "-c32", f"-d{seconds}s", "-s", str(script), made.url),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await wrk.communicate()
    ticks = parse_stat(stat.read_text()).cpu_ticks - before
    return ticks / TICKS_PER_S * 1e6 / parse_wrk(output.decode()).requests


async def purges(made: Coordinator) -> None:
    """So many a second, of keys that nothing carries."""
    clock = asyncio.get_running_loop().time
    begun, done = clock(), 0
    while True:
        due = int((clock() - begun) * RATE) - done
        orders = [PurgeOrder(keys=(f"nothing-{(done + n) % 50_000}",)) for n in range(due)]
        await asyncio.gather(*(made.purge(order, GRANT, "127.0.0.1", wait=False) for order in orders))
        done += due
        await asyncio.sleep(0.01)


async def waits(made: Coordinator, count: int) -> list[float]:
    clock = asyncio.get_running_loop().time
    found = []
    for number in range(count):
        begun = clock()
        purged = await made.purge(PurgeOrder(keys=(f"k{number}",)), GRANT, "127.0.0.1", wait=True)
        assert purged.waited is not None
        assert all(each.applied for each in purged.waited.edges)
        found.append((clock() - begun) * 1e3)
        await asyncio.sleep(0.005)
    return sorted(found)


async def fleet(folder: Path, rounds: int, seconds: int, calls: int) -> None:
    script = folder / "turn.lua"
    script.write_text(
        f'local n = 0\nrequest = function() n = (n + 1) % {OBJECTS}; return wrk.format("GET", "/" .. n) end\n'
    )
    asked = [0]
    async with origin(asked) as source, coordinator(folder) as (made, url):
        purge = {"coordinator": url, "token_file": str(folder / "edge.token")}
        disk = {"path": str(folder / "cache"), "size": "64MiB"}
        with edge(folder / "follows", {"origin": source, "purge": purge, "disk": disk}) as follows:
            await follows.ready()
            await show_waits(made, calls, "with a disk tier")
        with (
            edge(folder / "alone", {"origin": source}) as alone,
            edge(folder / "follower", {"origin": source, "purge": purge}) as follower,
        ):
            await alone.ready()
            await follower.ready()
            await show_waits(made, calls, "without a disk tier")
            for each in (alone, follower):
                before = -1
                while asked[0] != before:  # until everything is stored
                    before = asked[0]
                    await turn(each, script, 2)
            found: dict[str, list[float]] = {"on its own": [], "that follows": [], "while purges arrive": []}
            rates = []
            for _ in range(rounds):
                found["on its own"].append(await turn(alone, script, seconds))
                found["that follows"].append(await turn(follower, script, seconds))
                storm = asyncio.ensure_future(purges(made))
                head, begun = made.bus.state().head, time.perf_counter()
                found["while purges arrive"].append(await turn(follower, script, seconds))
                rates.append((made.bus.state().head - head) / (time.perf_counter() - begun))
                storm.cancel()
                await asyncio.wait([storm])
            row("purges that arrived meanwhile", f"{statistics.median(rates):,.0f}/s", f"{RATE:,}/s")
            base = statistics.median(found["on its own"])
            for name, values in found.items():
                middle = statistics.median(values)
                target = {"that follows": "+1 %", "while purges arrive": "+5 %"}.get(name, "")
                row(f"CPU a hit: an edge {name}", f"{middle:.2f} us {middle / base - 1:+.1%}", target)


async def show_waits(made: Coordinator, calls: int, what: str) -> None:
    times = await waits(made, calls)
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    row(f"call to acknowledgement, {what}", f"p50 {p50:.1f}, p99 {p99:.1f} ms", "20, 100 ms")


async def alone(folder: Path, calls: int) -> None:
    disk = {"path": str(folder / "own"), "size": "64MiB"}
    for name, settings in (("in-memory", {}), ("on-disk", {"disk": disk})):
        with edge(folder / name, {"origin": "http://127.0.0.1:1", **settings}) as made:
            await made.ready()
            for callers in (1, 50):
                await asked_by(made, callers, calls)  # to warm up
                begun = time.perf_counter()
                times = await asked_by(made, callers, calls)
                rate = len(times) / (time.perf_counter() - begun)
                p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
                row(f"on its own, {name}, callers: {callers}", f"{rate:,.0f}/s, p50 {p50:.1f}, p99 {p99:.1f} ms", "")


async def asked_by(made: Edge, callers: int, calls: int) -> list[float]:
    """Milliseconds of each call, sorted."""
    found = []
    headers = {"Authorization": f"Bearer {TOKEN}"}

    async def ask(session: aiohttp.ClientSession, which: int) -> None:
        for number in range(calls):
            begun = time.perf_counter()
            body = {"keys": [f"product-{which}-{number}"]}
            async with session.post(made.admin + "/v1/purge", json=body, headers=headers) as response:
                assert response.status == 200, await response.text()
            found.append((time.perf_counter() - begun) * 1e3)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(session, which) for which in range(callers)))
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller number of everything")
    parser.add_argument("--alone", action="store_true", help="only an edge on its own")
    options = parser.parse_args()
    quick = options.quick
    if not options.alone:
        of_a_fleet(quick)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(alone(Path(folder), 20 if quick else 200))


def of_a_fleet(quick: bool) -> None:
    applying(50_000 if quick else 1_000_000)
    state(10_000 if quick else 200_000)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(fleet(Path(folder), 1 if quick else 5, 1 if quick else 4, 20 if quick else 300))


if __name__ == "__main__":
    end_when_told()
    main()
