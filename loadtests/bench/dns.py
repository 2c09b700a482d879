"""``python -m loadtests.bench.dns``: edgecache's GeoDNS beside gdnsd, Knot and PowerDNS, from one database.

Each server is pinned to one core, dnsperf to the other. dnsperf reads its queries as packets (``-B``), so that each
carries another client's subnet. Servers take turns; docs/benchmark.md says what every figure means.

Exit codes: 0 measured; 1 something that should have been measured was not; 2 it cannot be run as asked.
"""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from loadtests.ending import end_when_told

from . import dnsdata, procfs
from .__main__ import _cpu_model, _directory, _split
from .dnspeers import DATABASE, DnsServer, Edgecache, Gdnsd, Knot, PowerDns, path_with_sbin
from .dnsreport import ROWS, DnsLoad, Turn, cells, judge, parse_dnsperf, show
from .generators import BadTable
from .process import CannotStart, Running, free_ports, may_be_nice, pinned
from .report import size_text
from .server import Setup

_PEERS: dict[str, DnsServer] = {server.name: server for server in (Gdnsd(), Knot(), PowerDns())}
_QUERIES = 200_000
_SEED = 20_261_122
_READY_S = 60.0
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Started:
    """A server that answers, and what it took."""

    running: Running
    load_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run is made."""

    servers: tuple[DnsServer, ...]
    rows: tuple[str, ...]
    runs: int
    seconds: int
    networks: int
    server_core: int
    load_core: int
    nice: int
    outstanding: int


Tell = Callable[[str], None]


def exchange(port: int, packet: bytes, wait_s: float) -> bytes | None:
    """One query over UDP, and its answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(wait_s)
        try:
            client.connect(("127.0.0.1", port))
            client.send(packet)
            return client.recv(4096)
        except OSError:
            return None


def first_address(answer: bytes) -> str | None:
    """The first A record's address; None when there is no answer of that kind."""
    import dns.exception
    import dns.message

    try:
        message = dns.message.from_wire(answer)
    except dns.exception.DNSException:
        return None
    for rrset in message.answer:
        for item in rrset:
            return str(getattr(item, "address", None))
    return None


class Bench:
    """Carries out a plan in `directory`."""

    def __init__(self, plan: Plan, directory: Path, tell: Tell) -> None:
        self.plan = plan
        self.turns: list[Turn] = []
        self.started: dict[str, Started] = {}
        self.left_out: list[tuple[str, str]] = []
        self.networks = 0
        self.database_bytes = 0
        self._directory = directory
        self._tell = tell
        self._places: list[dnsdata.Place] = []

    def run(self) -> None:
        """The database, the queries, every server, every row."""
        self._tell(f"making a database of about {self.plan.networks:,} networks")
        data, self.networks = dnsdata.database(_SEED, self.plan.networks)
        self.database_bytes = len(data)
        (self._directory / DATABASE).write_bytes(data)
        for row in self.plan.rows:
            (self._directory / f"{row}.queries").write_bytes(dnsdata.queries(row, _QUERIES, _SEED))
        with ExitStack() as stack:
            for server in self.plan.servers:
                self._tell(f"starting {server.name}")
                try:
                    started = self._start(server)
                except CannotStart as error:
                    self._leave_out(server.name, str(error))
                    continue
                stack.enter_context(started.running)
                wrong = self._wrong(server, started.running.setup.port)
                if wrong:
                    self._leave_out(server.name, wrong)
                    continue
                self.started[server.name] = started
                self._tell(f"{server.name}: loaded in {started.load_s:.2f} s, {size_text(started.memory_bytes)}")
            for row in self.plan.rows:
                self._run_row(row)

    def _leave_out(self, name: str, why: str) -> None:
        self.left_out.append((name, why))
        self._tell(f"left out: {name}: {why}")

    def _start(self, server: DnsServer) -> Started:
        """From its start to its first right answer over UDP."""
        directory = self._directory / server.name
        directory.mkdir()
        port, *spare = free_ports(4)
        setup = Setup(
            directory=directory,
            port=port,
            tls_port=0,
            spare_ports=tuple(spare),
            origin_port=0,
            certificate=directory,
            key=directory,
            tools=self._directory,
        )
        began = time.monotonic()
        running = Running(server, setup, (self.plan.server_core,), self.plan.nice)  # type: ignore[arg-type]
        packet = dnsdata.query(dnsdata.NAME, 1, bytes((8, 8, 8)), 24)
        while not (answer := exchange(port, packet, 0.2)) or first_address(answer) is None:
            if time.monotonic() - began > _READY_S:
                running.stop()
                raise CannotStart(f"{server.name} answers nothing after {_READY_S:.0f} s")
        return Started(running, time.monotonic() - began, running.memory_bytes())

    def _wrong(self, server: DnsServer, port: int) -> str | None:
        """Before anything is measured: some clients' answers compared with the database."""
        import maxminddb

        addresses = {pop.address: pop for pop in dnsdata.POPS}
        with maxminddb.open_database(str(self._directory / DATABASE)) as reader:
            for number in range(200):
                octets = bytes((1 + number, number * 7 % 256, number * 31 % 256))
                if octets[0] in (10, 127):
                    continue
                record: Any = reader.get(".".join(map(str, (*octets, 1))))
                answer = exchange(port, dnsdata.query(dnsdata.NAME, 1, octets, 24), 2.0)
                found = first_address(answer) if answer else None
                if found not in addresses:
                    return f"{'.'.join(map(str, octets))}.0/24 was answered {found}"
                if record is None:
                    continue
                place = dnsdata.Place(
                    record["country"]["iso_code"],
                    record["continent"]["code"],
                    record["location"]["latitude"],
                    record["location"]["longitude"],
                )
                pop = addresses[found]
                nearest = min(dnsdata.distance(place, other) for other in dnsdata.POPS)
                if server.by_distance and dnsdata.distance(place, pop) > nearest + 0.01:
                    return f"{place} was sent to {pop.name}, which is not the nearest"
                if not server.by_distance and place.continent not in (pop.continent, "AN"):
                    return f"{place} was sent to {pop.name}, on another continent"
        return None

    def _run_row(self, row: str) -> None:
        for name, started in self.started.items():
            self._load(started, row, 1)
            self._tell(f"{row}: {name} is warm")
        for run in range(1, self.plan.runs + 1):
            for name, started in self.started.items():
                try:
                    turn = self._turn(name, started, row)
                except BadTable as error:
                    self._leave_out(name, f"{row}: {error}")
                    continue
                self.turns.append(turn)
                self._tell(
                    f"{row} {run}/{self.plan.runs} {name}: {turn.load.per_second:,.0f} answers/s, "
                    f"{turn.cpu_us:.2f} µs CPU"
                )

    def _load(self, started: Started, row: str, seconds: int) -> DnsLoad:
        command = ["dnsperf", "-B", "-d", str(self._directory / f"{row}.queries"), "-s", "127.0.0.1"]
        command += ["-p", str(started.running.setup.port), "-l", str(seconds), "-q", str(self.plan.outstanding)]
        done = subprocess.run(
            [*command, "-c", "8", "-t", "1", "-b", "4096"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds + 60,
            check=False,
            start_new_session=True,
            preexec_fn=pinned((self.plan.load_core,), self.plan.nice),
        )
        return parse_dnsperf(done.stdout)

    def _turn(self, name: str, started: Started, row: str) -> Turn:
        running, core = started.running, self.plan.server_core
        cores_before, stats_before, began = procfs.read_cores(), running.stats(), time.monotonic()
        load_before = _children_s()
        load = self._load(started, row, self.plan.seconds)
        load_s, wall_s = _children_s() - load_before, time.monotonic() - began
        stats_after, cores_after = running.stats(), procfs.read_cores()
        ticks = procfs.spent_ticks(stats_before, stats_after)
        busy = cores_after[core].busy_since(cores_before[core])
        own = ticks / procfs.TICKS_PER_S / wall_s
        return Turn(
            row=row,
            server=name,
            load=load,
            cpu_us=procfs.cpu_us_per_request(ticks, load.completed),
            memory_bytes=running.memory_bytes(),
            server_own=own,
            load_own=load_s / wall_s,
            others=max(0.0, busy - own),
        )


def _children_s() -> float:
    """CPU time of the processes this one has waited for: between two calls, of dnsperf alone."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def environment(plan: Plan, bench: Bench) -> dict[str, str]:
    """What a reader needs to judge or repeat the figures."""
    kernel = os.uname().release
    said = {
        "measured": f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, load average {os.getloadavg()[0]:.2f}",
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, Linux {kernel}",
        "cores": f"servers on core {plan.server_core}, dnsperf on core {plan.load_core}",
        "turns": f"{plan.runs} of {plan.seconds} s each, interleaved; medians; {plan.outstanding} queries outstanding"
        + (f"; at nice {plan.nice}" if plan.nice else ""),
        "database": f"{bench.networks:,} networks, {size_text(bench.database_bytes)}; {len(dnsdata.POPS)} PoPs",
    }
    for server in plan.servers:
        said[server.name] = f"{server.version()}: {server.settings}"
    return said


@click.command(context_settings={"show_default": True})
@click.option("--only", multiple=True, metavar="NAMES", help="Rows to measure, by comma; see --list.")
@click.option("--peers", multiple=True, metavar="NAMES", help="By comma, or none. [default: gdnsd,knot,powerdns]")
@click.option("--without", is_flag=True, help="Leave edgecache itself out: the peers alone.")
@click.option("--runs", default=5, type=click.IntRange(1), help="Turns of each server in each row.")
@click.option("--seconds", default=3, type=click.IntRange(1), help="Seconds of each turn.")
@click.option("--quick", is_flag=True, help="One turn of one second, 20,000 networks: shows that it works.")
@click.option("--networks", default=900_000, type=click.IntRange(1000), help="Networks in the database, about.")
@click.option("--outstanding", default=500, type=click.IntRange(1), help="Queries on their way at once.")
@click.option("--server-core", default=0, type=click.IntRange(0), help="The core of the server under test.")
@click.option("--load-core", default=1, type=click.IntRange(0), help="The core of dnsperf.")
@click.option("--nice", default=0, type=click.IntRange(-20, 19), help="Priority of all that is measured.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write everything to it too."
)
@click.option("--list", "list_rows", is_flag=True, help="List the rows.")
def main(
    only: tuple[str, ...],
    peers: tuple[str, ...],
    without: bool,
    runs: int,
    seconds: int,
    quick: bool,
    networks: int,
    outstanding: int,
    server_core: int,
    load_core: int,
    nice: int,
    json_file: Path | None,
    list_rows: bool,
) -> None:
    """Measure edgecache's GeoDNS beside gdnsd, Knot and PowerDNS on this machine."""
    if list_rows:
        for row, says in ROWS.items():
            print(f"{row:10} {says}")
        return
    path_with_sbin()
    rows = _split(only) or tuple(ROWS)
    for row in rows:
        if row not in ROWS:
            raise click.UsageError(f"no row is called {row!r}; there are: {', '.join(ROWS)}")
    names = _split(peers) or tuple(_PEERS)
    for name in names:
        if name not in _PEERS and names != ("none",):
            raise click.UsageError(f"no peer is called {name!r}; there are: {', '.join(_PEERS)}, or none")
    if not shutil.which("dnsperf"):
        raise click.UsageError("the load generator dnsperf is not installed: apt-get install dnsperf")
    allowed = os.sched_getaffinity(0)
    if server_core == load_core or not {server_core, load_core} <= allowed:
        raise click.UsageError(f"the server and dnsperf need two different cores of {sorted(allowed)}")
    if not may_be_nice(nice):
        raise click.UsageError(f"--nice {nice}: this user may not raise the priority of its processes")
    present: list[DnsServer] = [] if without else [Edgecache()]
    missing: list[tuple[str, str]] = []
    for name in () if names == ("none",) else dict.fromkeys(names):
        why = _PEERS[name].missing()
        if why:
            missing.append((name, why))
            click.echo(f"left out: {name}: {why}", err=True)
        else:
            present.append(_PEERS[name])
    plan = Plan(
        servers=tuple(present),
        rows=rows,
        runs=1 if quick else runs,
        seconds=1 if quick else seconds,
        networks=20_000 if quick else networks,
        server_core=server_core,
        load_core=load_core,
        nice=nice,
        outstanding=outstanding,
    )
    sys.exit(_run(plan, missing, json_file))


def _run(plan: Plan, missing: list[tuple[str, str]], json_file: Path | None) -> int:
    os.sched_setaffinity(0, {plan.load_core})
    with _directory() as directory:
        bench = Bench(plan, directory, lambda line: click.echo(line, err=True))
        try:
            bench.run()
        except KeyboardInterrupt:
            click.echo("stopped; what was measured so far:", err=True)
    measured = cells(bench.turns)
    started = {name: (one.load_s, one.memory_bytes) for name, one in bench.started.items()}
    outcomes = judge(measured, bench.turns, started)
    said = environment(plan, bench)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    show(console, said, measured, outcomes, started, [*missing, *bench.left_out])
    if json_file:
        everything = {
            "environment": said,
            "started": {name: {"load_s": load_s, "memory_bytes": size} for name, (load_s, size) in started.items()},
            "cells": [asdict(cell) for cell in measured],
            "turns": [asdict(turn) for turn in bench.turns],
            "targets": [asdict(outcome) for outcome in outcomes],
            "left_out": [*missing, *bench.left_out],
        }
        json_file.write_text(json.dumps(everything, indent=1) + "\n")
    return 1 if bench.left_out or not measured else 0


if __name__ == "__main__":
    end_when_told()
    main()
