"""One turn of one server, and the order of turns: A B C D, A B C D, … so that a slow minute hits all alike."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from . import procfs
from .content import zipf_sequence
from .generators import BadTable, Generator, Load, Shot
from .process import CannotStart, Running, free_ports, pinned
from .rows import MIB, ZIPF_EXPONENT, ZIPF_OBJECTS, Row, Work
from .server import Kind, Server, Setup
from .verify import Proof, Unproved, asked, prove

ZIPF_LENGTH = 400_000
_LOG_WAIT_S = 1.5
LARGE_BYTES = 16 * MIB
_SPARE_PORTS = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn: what the generator saw and what it cost.

    `origin_requests` counts those that came during the turn; `log_lines` is None for a server without a log.
    `server_busy` and `load_busy` are shares of their cores, `others` the share of the server's cores that neither its
    processes nor the idle loop used, `stolen` what the hypervisor took.
    """

    row: str
    server: str
    load: Load
    cpu_us: float
    memory_bytes: int
    disk_bytes: int
    origin_requests: int
    log_lines: int | None
    server_busy: float
    load_busy: float
    others: float
    stolen: float
    same_processes: bool


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A server, or a server in a row, that was not measured. `failed` when it should have been."""

    server: str
    row: str | None
    why: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run is made. Cores are numbers; the origin shares the generator's."""

    servers: tuple[Server, ...]
    rows: tuple[Row, ...]
    generator: Generator
    conditional: Generator
    runs: int
    seconds: int
    server_core: int
    load_core: int
    worker_cores: tuple[int, ...]
    memory_mib: int
    nice: int = 0

    def generator_for(self, row: Row) -> Generator:
        """The generator of a row: 304s want one that can read any of them, where it is installed."""
        return self.conditional if row.work is Work.NOT_MODIFIED else self.generator

    def cores(self, row: Row) -> tuple[int, ...]:
        """The cores of a server in a row."""
        return (self.server_core,) if row.workers == 1 else self.worker_cores


Tell = Callable[[str], None]


class Bench:
    """Carries out a plan in `directory`, which holds the tools, the certificate and the Zipf paths; what has to be on
    a disk lies in `on_disk`."""

    def __init__(self, plan: Plan, directory: Path, on_disk: Path, certificate: tuple[Path, Path], tell: Tell) -> None:
        self.plan = plan
        self._on_disk = on_disk
        self.samples: list[Sample] = []
        self.left_out: list[LeftOut] = []
        self.ciphers: dict[str, str] = {}
        self._directory = directory
        self._certificate, self._key = certificate
        self._tell = tell
        self._origin_port = 0
        self._instances = 0

    def run(self) -> None:
        """Every group of rows, with servers started afresh for each group."""
        if any(row.work is Work.ZIPF for row in self.plan.rows):
            numbers = zipf_sequence(ZIPF_OBJECTS, ZIPF_EXPONENT, ZIPF_LENGTH)
            (self._directory / "zipf.paths").write_text("".join(f"/o/{number}\n" for number in numbers))
        for group in dict.fromkeys(row.group for row in self.plan.rows):
            self._run_group([row for row in self.plan.rows if row.group == group])

    def _run_group(self, rows: Sequence[Row]) -> None:
        with ExitStack() as stack:
            (self._origin_port,) = free_ports(1)
            origin = self._start(_common_origin(), 1, (self.plan.load_core,), self._origin_port)
            stack.enter_context(origin)
            running: dict[tuple[str, int], Running] = {}
            for server in self.plan.servers:
                for workers in dict.fromkeys(row.workers for row in rows if self._wanted(server, row)):
                    cores = self.plan.cores(next(row for row in rows if row.workers == workers))
                    self._tell(f"starting {server.name}, {workers} worker{'s' * (workers > 1)}")
                    try:
                        tls, disk = any(row.tls for row in rows), any(row.work is Work.DISK for row in rows)
                        one = self._start(server, workers, cores, tls=tls, disk=disk)
                    except CannotStart as error:
                        self._leave_out(server.name, None, str(error))
                        break
                    running[server.name, workers] = stack.enter_context(one)
            for row in rows:
                self._run_row(row, [one for (_, workers), one in running.items() if workers == row.workers])

    def _wanted(self, server: Server, row: Row) -> bool:
        why = server.leaves_out(row)
        said = any(left.server == server.name and left.row == row.name for left in self.left_out)
        if why is not None and not said and server.kind is not Kind.ORIGIN:  # these are beside one row only
            self.left_out.append(LeftOut(server.name, row.name, why, failed=False))
        return why is None

    def _leave_out(self, server: str, row: str | None, why: str) -> None:
        self.left_out.append(LeftOut(server, row, why, failed=True))
        self._tell(f"left out: {server}{f' in {row}' if row else ''}: {why}")

    def _start(
        self,
        server: Server,
        workers: int,
        cores: Iterable[int],
        port: int | None = None,
        *,
        tls: bool = False,
        disk: bool = False,
    ) -> Running:
        self._instances += 1
        directory = self._directory / f"{self._instances}-{server.name}"
        directory.mkdir()
        on_disk = self._on_disk / directory.name
        if disk:
            on_disk.mkdir(mode=0o700)
        plain, encrypted, *spare = free_ports(2 + _SPARE_PORTS)
        setup = Setup(
            directory=directory,
            port=port or plain,
            tls_port=encrypted,
            spare_ports=tuple(spare),
            origin_port=self._origin_port,
            certificate=self._certificate,
            key=self._key,
            tools=self._directory,
            workers=workers,
            tls=tls,
            memory_bytes=self.plan.memory_mib * MIB,
            disk=on_disk if disk else None,
        )
        return Running(server, setup, cores, self.plan.nice)

    def _run_row(self, row: Row, running: Sequence[Running]) -> None:
        ready: list[tuple[Running, Proof]] = []
        for one in running:
            name = one.server.name
            if one.server.leaves_out(row) is not None:
                continue
            try:
                proof = prove(one, row, self._origin_port)
                if row.work is Work.DISK and one.server.forgets_memory:
                    one.restart()
                    proof = prove(one, row, self._origin_port)
                if proof.cipher:
                    self.ciphers[name] = proof.cipher
                self._load(one, row, proof, 1)  # one second to warm up; not counted
            except (Unproved, BadTable, CannotStart) as error:
                self._leave_out(name, row.name, str(error))
                continue
            ready.append((one, proof))
        for run in range(1, self.plan.runs + 1):
            for one, proof in ready:
                try:
                    sample = self._turn(one, row, proof)
                except BadTable as error:
                    self._leave_out(one.server.name, row.name, str(error))
                    continue
                self.samples.append(sample)
                self._tell(
                    f"{row.name} {run}/{self.plan.runs} {one.server.name}: {sample.load.per_second:,.0f} req/s, "
                    f"{sample.cpu_us:.2f} µs CPU, p99 {sample.load.p99_us:,.0f} µs"
                )

    def _load(self, one: Running, row: Row, proof: Proof, seconds: int) -> Load:
        if one.launch.ports:
            url = f"http://127.0.0.1:{one.port(0 if row.work is Work.NOT_MODIFIED else row.size_bytes)}"
        elif row.tls:
            url = f"https://127.0.0.1:{one.setup.tls_port}"
        else:
            url = f"http://127.0.0.1:{one.port()}"
        shot = Shot(row, url, seconds, proof.etag, self._directory)
        generator = self.plan.generator_for(row)
        done = subprocess.run(
            generator.command(shot),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds + 60,
            check=False,
            start_new_session=True,  # a group of its own, so that its priority counts
            preexec_fn=pinned((self.plan.load_core,), self.plan.nice),
        )
        return generator.read(done.stdout, shot)

    def _turn(self, one: Running, row: Row, proof: Proof) -> Sample:
        one.empty_log()
        asked_before = asked(self._origin_port)
        cores_before, stats_before, started = procfs.read_cores(), one.stats(), time.monotonic()
        load = self._load(one, row, proof, self.plan.seconds)
        wall_s = time.monotonic() - started
        stats_after, cores_after = one.stats(), procfs.read_cores()
        ticks = procfs.spent_ticks(stats_before, stats_after)
        asked_between = asked(self._origin_port) - asked_before
        memory, disk = one.memory_bytes(), one.disk_bytes()
        cores = one.cores
        busy = sum(cores_after[core].busy_since(cores_before[core]) for core in cores) / len(cores)
        own = ticks / procfs.TICKS_PER_S / wall_s / len(cores)
        alone = self.plan.load_core not in cores
        return Sample(
            row=row.name,
            server=one.server.name,
            load=load,
            cpu_us=procfs.cpu_us_per_request(ticks, _answers(row, load)),
            memory_bytes=memory,
            disk_bytes=disk,
            origin_requests=asked_between,
            log_lines=_count_lines(one, load.requests) if one.launch.log else None,
            server_busy=busy,
            load_busy=cores_after[self.plan.load_core].busy_since(cores_before[self.plan.load_core]),
            others=max(0.0, busy - own) if alone else 0.0,
            stolen=max(cores_after[core].stolen_since(cores_before[core]) for core in (*cores, self.plan.load_core)),
            same_processes=stats_before.keys() == stats_after.keys(),
        )


def _answers(row: Row, load: Load) -> float:
    """How many answers were sent: of large bodies not only those that came to their end within the turn."""
    return load.bytes_read / row.size_bytes if row.size_bytes >= LARGE_BYTES else load.requests


def _count_lines(one: Running, expected: int) -> int:
    """Log writers flush up to a second late: counts until the lines are all there or the wait is over."""
    until = time.monotonic() + _LOG_WAIT_S
    lines = one.log_lines()
    while lines < expected and time.monotonic() < until:
        time.sleep(0.1)
        lines = one.log_lines()
    return lines


def _common_origin() -> Server:
    from .own import Origin

    return Origin()


def default_worker_cores(server_core: int, load_core: int) -> tuple[int, ...]:
    """Two cores for two workers: the server's and another free one, or the server's alone when there is none."""
    free = sorted(os.sched_getaffinity(0) - {server_core, load_core})
    return (server_core, *free[:1])
