"""``python -m loadtests.bench.purge``: what the purge coordinator promises of itself, measured on one machine.

The coordinator runs as users run it, on a core of its own; edges and callers share another. Edges are light: they
acknowledge and apply nothing, so what is measured is the coordinator, its disk and the loopback. Three works:

    durable     callers purge as fast as they are answered, nobody subscribes: purges per second, and what one costs
    edges       200 edges, 100 purges/s, each waits for all: from the call to the last acknowledgement
    fleet       5,000 edges: connecting, catching up after an absence, 10 purges/s that wait for all, memory for each

The log's disk decides how long a call takes: the time of one sync there is measured and printed beside the figures. So
does whoever else uses the cores: how long coordinator and clients were ready to run and did not is printed too.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import uvloop

from edgecache.purge.coordinator import tokens
from loadtests.ending import end_when_told

from .lightedge import Caller, LightEdge
from .process import pinned, raise_file_limit
from .procfs import TICKS_PER_S, parse_stat, waited_s

CALLERS = 64
SETTLE_S = 0.5
TOGETHER = 100
"""Edges that connect at the same time."""


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    port: int
    token: str


def quantile(values: list[float], q: float) -> float:
    """Of values in any order; the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def cpu_s(pid: int) -> float:
    return parse_stat(Path(f"/proc/{pid}/stat").read_text()).cpu_ticks / TICKS_PER_S


def rss_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def sync_ms(folder: Path, count: int = 50) -> float:
    """The median time of a write and its sync there."""
    took = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(b"x" * 4096)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return quantile(took, 0.5) * 1000


@contextmanager
def coordinator(folder: Path, core: int) -> Iterator[Running]:
    """Started as a user starts it, without limits on rate."""
    environ = os.environ | {"EDGECACHE_COORDINATOR_RATE": "0", "EDGECACHE_COORDINATOR_HEARTBEAT": "5s"}
    base = [sys.executable, "-m", "edgecache", "coordinator", "--listen", "127.0.0.1:0", "--data", str(folder)]
    shutil.rmtree(folder, ignore_errors=True)
    token = tokens.add(folder / "tokens.json", "bench", [tokens.Scope.ADMIN], now=0)
    process = subprocess.Popen(  # there are no threads yet
        base,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        preexec_fn=pinned([core], os.getpriority(os.PRIO_PROCESS, 0)),  # noqa: PLW1509
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if found is None:
            raise click.ClickException(f"the coordinator did not start: {line}")
        with (folder / "said").open("w") as said:
            sink = subprocess.Popen(["cat"], stdin=process.stderr, stdout=said)
        yield Running(process.pid, int(found[1]), token)
    finally:
        process.terminate()
        process.wait(30)
        assert process.stderr is not None
        process.stderr.close()
        sink.wait(10)


def body(name: str, *, wait: bool) -> bytes:
    return json.dumps({"keys": [name], "wait": wait, "timeout_s": 30}).encode()


@dataclass(slots=True)
class Durable:
    purges_per_s: float
    cpu_us_per_purge: float
    p50_ms: float
    p99_ms: float


async def durable(running: Running, seconds: float, callers: int) -> Durable:
    clients = [Caller(running.token) for _ in range(callers)]
    for client in clients:
        await client.connect(running.port)
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def call(client: Caller, number: int) -> None:
        i = 0
        while time.perf_counter() < until:
            took.append((await client.purge(body(f"product-{number}-{i}", wait=False)))[0])
            i += 1

    used, begun = cpu_s(running.pid), time.perf_counter()
    await asyncio.gather(*(call(client, number) for number, client in enumerate(clients)))
    elapsed, used = time.perf_counter() - begun, cpu_s(running.pid) - used
    for client in clients:
        client.close()
    return Durable(len(took) / elapsed, used / len(took) * 1e6, quantile(took, 0.5) * 1000, quantile(took, 0.99) * 1000)


@dataclass(slots=True)
class Waited:
    edges: int
    purges_per_s: float
    p50_ms: float
    p99_ms: float
    most_ms: float
    core_percent: float
    waited_percent: float
    """Of the time: how long the coordinator was ready to run and had no core."""
    clients_waited_percent: float
    """The same of callers and edges, whose share of a call's time that is."""
    connect_s: float
    catch_up_s: float = 0.0
    catch_up_entries: int = 0
    kib_per_edge: float = 0.0


async def connect_all(edges: list[LightEdge], port: int) -> float:
    begun = time.perf_counter()
    gate = asyncio.Semaphore(TOGETHER)

    async def connect(edge: LightEdge) -> None:
        async with gate:
            await edge.connect(port)

    await asyncio.gather(*map(connect, edges))
    return time.perf_counter() - begun


async def at(edges: list[LightEdge], position: int, within_s: float = 120.0) -> None:
    async with asyncio.timeout(within_s):
        while any(edge.position < position for edge in edges):  # noqa: ASYNC110 - an event each would be measured too
            await asyncio.sleep(0.01)


async def waited(running: Running, count: int, rate: float, seconds: float, *, absence: int = 0) -> Waited:
    """`absence`: purges that all edges miss before they connect again."""
    before = rss_bytes(running.pid)
    edges = [LightEdge(f"edge-{i}", running.token) for i in range(count)]
    connect_s = await connect_all(edges, running.port)
    await asyncio.sleep(SETTLE_S)
    kib = (rss_bytes(running.pid) - before) / count / 1024
    catch_up_s = 0.0
    caller = Caller(running.token)
    await caller.connect(running.port)
    if absence:
        for edge in edges:
            edge.close()
        await asyncio.sleep(SETTLE_S)
        for i in range(absence):
            _, answer = await caller.purge(body(f"missed-{i}", wait=False))
        begun = time.perf_counter()
        await connect_all(edges, running.port)
        await at(edges, json.loads(answer)["sequence"])
        catch_up_s = time.perf_counter() - begun
    took = []
    free: list[Caller] = [caller]
    clock = time.perf_counter
    calls: list[asyncio.Task[None]] = []

    async def call(i: int, due: float) -> None:
        client = free.pop() if free else Caller(running.token)
        if client.transport is None:
            await client.connect(running.port)
        _, answer = await client.purge(body(f"product-{i}", wait=True))
        took.append(clock() - due)  # from when it was due: a queue of calls is time too
        found = json.loads(answer)
        if not found["complete"] or len(found["edges"]) != count:
            raise click.ClickException(f"a purge was not confirmed by all: {answer[:200]!r}")
        free.append(client)

    lacked, own_lacked = waited_s(running.pid), waited_s(os.getpid())
    used, begun = cpu_s(running.pid), clock()
    for i in range(int(seconds * rate)):
        due = begun + i / rate
        await asyncio.sleep(max(0.0, due - clock()))
        calls.append(asyncio.ensure_future(call(i, due)))
    await asyncio.gather(*calls)
    elapsed, used = clock() - begun, cpu_s(running.pid) - used
    lacked, own_lacked = waited_s(running.pid) - lacked, waited_s(os.getpid()) - own_lacked
    if any(edge.lost for edge in edges):
        raise click.ClickException("an edge lost its connection")
    for edge in edges:
        edge.close()
    for client in free:
        client.close()
    await asyncio.sleep(0)
    return Waited(
        edges=count,
        purges_per_s=len(took) / elapsed,
        p50_ms=quantile(took, 0.5) * 1000,
        p99_ms=quantile(took, 0.99) * 1000,
        most_ms=max(took) * 1000,
        core_percent=used / elapsed * 100,
        waited_percent=lacked / elapsed * 100,
        clients_waited_percent=own_lacked / elapsed * 100,
        connect_s=connect_s,
        catch_up_s=catch_up_s,
        catch_up_entries=absence,
        kib_per_edge=kib,
    )


def shown(name: str, figures: object) -> str:
    pairs = (f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in _items(figures))
    return f"{name:8} {', '.join(pairs)}"


def _items(figures: object) -> Iterator[tuple[str, object]]:
    yield from asdict(figures).items()  # type: ignore[call-overload]


@click.command(context_settings={"show_default": True})
@click.option("--data", type=click.Path(path_type=Path), help="Where the log lies; default: a temporary directory.")
@click.option("--only", type=click.Choice(["durable", "edges", "fleet"]), multiple=True, help="Only these; repeatable.")
@click.option("--seconds", default=10.0, help="How long each work lasts.")
@click.option("--callers", default=CALLERS, help="Connections that purge at once, in `durable`.")
@click.option("--edges", "few", default=200, help="Edges in `edges`.")
@click.option("--edges-rate", default=100.0, help="Purges per second in `edges`.")
@click.option("--fleet", "many", default=5000, help="Edges in `fleet`.")
@click.option("--fleet-rate", default=10.0, help="Purges per second in `fleet`.")
@click.option("--missed", default=1000, help="Purges that the fleet misses before it connects again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    *,
    data: Path | None,
    only: tuple[str, ...],
    seconds: float,
    callers: int,
    few: int,
    edges_rate: float,
    many: int,
    fleet_rate: float,
    missed: int,
    as_json: bool,
) -> None:
    """What the purge coordinator promises of itself: throughput, latency and size."""
    raise_file_limit()
    cores = sorted(os.sched_getaffinity(0))
    own, theirs = cores[0], cores[-1]
    os.sched_setaffinity(0, {theirs})
    works = only or ("durable", "edges", "fleet")
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=data) as name:
        folder = Path(name)
        figures["sync_ms"] = sync_ms(folder)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for work in works:
                with coordinator(folder / work, own) as running:
                    if work == "durable":
                        figures[work] = runner.run(durable(running, seconds, callers))
                    elif work == "edges":
                        figures[work] = runner.run(waited(running, few, edges_rate, seconds))
                    else:
                        figures[work] = runner.run(waited(running, many, fleet_rate, seconds, absence=missed))
    if as_json:
        plain = {key: value if isinstance(value, float) else dict(_items(value)) for key, value in figures.items()}
        click.echo(json.dumps(plain, indent=2))
        return
    click.echo(f"one sync of the log's disk: {figures.pop('sync_ms'):.2f} ms (median)")
    for key, value in figures.items():
        click.echo(shown(key, value))


if __name__ == "__main__":
    end_when_told()
    main()
