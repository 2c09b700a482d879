"""``python -m loadtests.bench``: arguments, the surroundings of a run, and its exit code.

Exit codes: 0 measured; 1 something that should have been measured was not; 2 it cannot be run as asked.
"""

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from loadtests.ending import end_when_told

from . import generators
from .measure import Bench, LeftOut, Plan, default_worker_cores
from .own import Aiohttp, Edgecache, Floor, Origin
from .peers import Haproxy, Nginx, NginxSendfile, Varnish
from .process import CannotStart, compile_tools, make_certificate, may_be_nice, raise_file_limit
from .report import as_json, cells, show
from .rows import GROUPS, ROWS, UnknownRow, Work, select
from .server import Kind, Server

_OWN: tuple[Server, ...] = (Edgecache(), Floor(), Origin())
_PEERS: dict[str, Server] = {
    server.name: server for server in (Haproxy(), Nginx(), NginxSendfile(), Varnish(), Aiohttp())
}
_DEFAULT_PEERS = "haproxy,nginx,nginx-sf,varnish"
_WIDTH = 100


def _split(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _chosen_peers(names: tuple[str, ...]) -> tuple[Server, ...]:
    if names == ("none",):
        return ()
    for name in names:
        if name not in _PEERS:
            raise click.UsageError(f"no peer is called {name!r}; there are: {', '.join(_PEERS)}, or none")
    return tuple(_PEERS[name] for name in dict.fromkeys(names))


@contextmanager
def _directory(parent: Path | None = None) -> Iterator[Path]:
    """A directory on tmpfs where there is one, or in `parent`."""
    path = Path(tempfile.mkdtemp(prefix="edgecache-bench-", dir=parent or _in_memory()))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _in_memory() -> Path | None:
    """tmpfs where there is one: what is not a row of the disk measures none."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else None


def _cpu_model() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def environment(plan: Plan) -> dict[str, str]:
    """What a reader needs to judge or repeat the figures."""
    workers = ", ".join(str(core) for core in plan.worker_cores)
    two = any(row.workers > 1 for row in plan.rows)
    placing = f"servers on core {plan.server_core}, {plan.generator.name} and the origin on core {plan.load_core}"
    if two:
        placing += f", 2 workers on {workers}"
        if len(plan.worker_cores) == 1:
            placing += " (no third core: they take turns)"
    if any(row.path.startswith("/pass") for row in plan.rows):
        placing += "; in pass-through the origin takes time from the generator"
    said = {
        "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load average {os.getloadavg()[0]:.2f} at the start",
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}",
        "cores": placing,
        "turns": f"{plan.runs} of {plan.seconds} s each, interleaved; medians; {plan.memory_mib} MiB for each cache"
        + (f"; at nice {plan.nice}" if plan.nice else ""),
        "generator": f"{plan.generator.name} {plan.generator.version()}, one thread",
    }
    if plan.conditional is not plan.generator and any(row.work is Work.NOT_MODIFIED for row in plan.rows):
        said["generator"] += f"; 304s by {plan.conditional.name} {plan.conditional.version()}"
    for server in plan.servers:
        version = server.version()
        said[server.name] = f"{'' if version == '-' else version + ': '}{server.settings}"
    said["figures"] = (
        "CPU µs is user and system time of all the server's processes over requests completed; /name is that ratio. "
        "Memory is the sum of their PSS, +files on tmpfs."
    )
    return said


def _list_rows() -> None:
    for group, says in GROUPS.items():
        print(f"{group}: {says}")
        for row in ROWS:
            if row.group == group:
                print(f"  {row.name:14} {row.says}")


@click.command(context_settings={"show_default": True})
@click.option("--only", multiple=True, metavar="NAMES", help="Rows or groups to measure, by comma; see --list.")
@click.option("--peers", multiple=True, metavar="NAMES", help=f"Or none. [default: {_DEFAULT_PEERS}; also: aiohttp]")
@click.option("--runs", default=5, type=click.IntRange(1), help="Turns of each server in each row.")
@click.option("--seconds", default=3, type=click.IntRange(1), help="Seconds of each turn.")
@click.option("--quick", is_flag=True, help="One turn of one second: shows that it works, measures nothing.")
@click.option("--generator", default="wrk", type=click.Choice(list(generators.GENERATORS)), help="What makes the load.")
@click.option("--server-core", default=0, type=click.IntRange(0), help="The core of the server under test.")
@click.option("--load-core", default=1, type=click.IntRange(0), help="The core of the load generator and the origin.")
@click.option("--worker-cores", default="", metavar="CORES", help="Cores for 2 workers. [default: as there are]")
@click.option("--memory", default=512, type=click.IntRange(64), metavar="MIB", help="MiB for each cache.")
@click.option(
    "--disk",
    default="/var/tmp",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the disk rows keep their files.",
)
@click.option("--nice", default=0, type=click.IntRange(-20, 19), help="Priority of all that is measured.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write everything to it too."
)
@click.option("--list", "list_rows", is_flag=True, help="List the rows and groups.")
def main(
    only: tuple[str, ...],
    peers: tuple[str, ...],
    runs: int,
    seconds: int,
    quick: bool,
    generator: str,
    server_core: int,
    load_core: int,
    worker_cores: str,
    memory: int,
    disk: Path,
    nice: int,
    json_file: Path | None,
    list_rows: bool,
) -> None:
    """Measure edgecache beside nginx, Varnish and HAProxy as caches of one origin on this machine."""
    if list_rows:
        _list_rows()
        return
    try:
        rows = select(_split(only))
    except UnknownRow as error:
        raise click.UsageError(str(error)) from None
    chosen = generators.GENERATORS[generator]
    lacking = generators.missing(chosen)
    if lacking:
        raise click.UsageError(lacking)
    allowed = os.sched_getaffinity(0)
    if server_core == load_core or not {server_core, load_core} <= allowed:
        raise click.UsageError(
            f"the server and the load generator need two different cores of {sorted(allowed)}: "
            f"--server-core {server_core} --load-core {load_core}"
        )
    try:
        two = tuple(int(core) for core in worker_cores.split(",")) if worker_cores else ()
    except ValueError:
        raise click.UsageError(f"--worker-cores wants numbers by comma, not {worker_cores!r}") from None
    if not set(two) <= allowed:
        raise click.UsageError(f"--worker-cores {worker_cores}: this process may use {sorted(allowed)}")
    if not may_be_nice(nice):
        raise click.UsageError(f"--nice {nice}: this user may not raise the priority of its processes")
    left_out: list[LeftOut] = []
    present: list[Server] = []
    for server in (*_OWN, *_chosen_peers(_split(peers) or _split([_DEFAULT_PEERS]))):
        why = server.missing()
        if why:
            left_out.append(LeftOut(server.name, None, why, failed=False))
            click.echo(f"left out: {server.name}: {why}", err=True)
        else:
            present.append(server)
    plan = Plan(
        servers=tuple(present),
        rows=rows,
        generator=chosen,
        conditional=generators.for_conditional(chosen),
        runs=1 if quick else runs,
        seconds=1 if quick else seconds,
        server_core=server_core,
        load_core=load_core,
        worker_cores=two or default_worker_cores(server_core, load_core),
        memory_mib=memory,
        nice=nice,
    )
    sys.exit(_run(plan, left_out, disk, json_file))


def _run(plan: Plan, left_out: list[LeftOut], disk: Path, json_file: Path | None) -> int:
    raise_file_limit()
    surroundings = environment(plan)
    os.sched_setaffinity(0, {plan.load_core})
    with _directory() as directory, _directory(disk) as on_disk:
        try:
            compile_tools(directory)
            tell = partial(click.echo, err=True)
            bench = Bench(plan, directory, on_disk, make_certificate(directory), tell)
        except CannotStart as error:
            click.echo(f"Error: {error}", err=True)
            return 2
        try:
            bench.run()
        except KeyboardInterrupt:
            click.echo("stopped; what was measured so far:", err=True)
    if bench.ciphers:
        surroundings["TLS"] = ", ".join(f"{server} {cipher}" for server, cipher in bench.ciphers.items())
    measured = cells(plan.rows, bench.samples)
    everything = [*left_out, *bench.left_out]
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    bases = [server.name for server in plan.servers if server.kind is not Kind.ORIGIN and server.name != "edgecache"]
    bases += ["origin"]
    show(console, surroundings, measured, everything, bases)
    if json_file:
        json_file.write_text(json.dumps(as_json(surroundings, measured, everything), indent=1, allow_nan=False) + "\n")
    return 1 if any(left.failed for left in bench.left_out) or not measured else 0


if __name__ == "__main__":
    end_when_told()
    main()
