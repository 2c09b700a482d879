"""Starting, pinning and stopping what is measured. Everything started here is stopped here, by its own PID."""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from .procfs import ProcessStat, read_pss_bytes, read_tree
from .server import Launch, Server, Setup

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
_POLL_S = 0.02
_AUTOGROUP = Path("/proc/self/autogroup")


class CannotStart(RuntimeError):
    """A server that did not start; the message names it and ends with the last lines it printed."""


def first_line(command: list[str]) -> str:
    """The first line a command prints on either stream, whatever its exit code; empty when it prints none."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False)
    return next((line.strip() for line in done.stdout.splitlines() if line.strip()), "")


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def raise_file_limit() -> int:
    """Lets this process and its children open as many files as they may, at most 2**20; returns that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (1 << 20, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        except (ValueError, OSError):  # only a privileged process raises its hard limit
            continue
        break
    return open_files()


def open_files() -> int:
    """How many files this process and its children may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def pinned(cores: Iterable[int], nice: int) -> Callable[[], None]:
    """What a child runs before exec: from then on it and its children stay on `cores`, at that priority."""
    chosen = set(cores)

    def pin() -> None:
        os.sched_setaffinity(0, chosen)
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        if nice and _AUTOGROUP.exists():  # sched(7): where sessions are grouped, nice counts within a session only
            _AUTOGROUP.write_text(str(nice))

    return pin


def may_be_nice(nice: int) -> bool:
    """Whether a child may run at that priority: asked of a child, since it cannot be taken back."""
    try:
        pin = pinned(os.sched_getaffinity(0), nice)
        return subprocess.run(["true"], preexec_fn=pin, start_new_session=True, check=False).returncode == 0
    except subprocess.SubprocessError:
        return False


def await_port(port: int, alive: Callable[[], bool]) -> bool:
    """Whether something accepts on the port before the time is up and while `alive` says so."""
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and alive():
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(_POLL_S)
    return False


def compile_tools(directory: Path) -> None:
    """Compiles the origin and the floor into `directory`."""
    here = Path(__file__).parent
    for name in ("origin", "floor"):
        command = ["cc", "-O2", "-std=gnu11", "-o", str(directory / name), str(here / f"{name}.c")]
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        except FileNotFoundError:
            raise CannotStart("there is no C compiler for the origin and the floor: apt-get install gcc") from None
        if done.returncode:
            raise CannotStart(f"cannot compile {name}.c:\n{done.stderr}")


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed P-256 certificate for localhost, made by the openssl command. Returns (certificate, key)."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command, "-out", str(certificate), "-keyout", str(key)], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        raise CannotStart("the openssl command makes the certificate: apt-get install openssl") from None
    except subprocess.CalledProcessError as error:
        raise CannotStart(f"openssl made no certificate:\n{error.stderr}") from None
    (directory / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    return certificate, key


class Running:
    """One started instance of a server; a context manager that stops it."""

    def __init__(self, server: Server, setup: Setup, cores: Iterable[int], nice: int = 0) -> None:
        self.server = server
        self.setup = setup
        self.cores = tuple(cores)
        self._nice = nice
        self.launch: Launch = server.prepare(setup)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._outputs: list[Path] = []
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        for command in self.launch.commands:
            with command.output.open("ab") as output:
                self._outputs.append(command.output)
                process = subprocess.Popen(
                    command.arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.setup.directory,
                    env=os.environ | command.environment,
                    start_new_session=True,
                    preexec_fn=pinned(self.cores, self._nice),  # noqa: PLW1509 - no threads run here
                )
            self._processes.append(process)
            if not await_port(self.port(), lambda process=process: process.poll() is None):  # type: ignore[misc]
                raise CannotStart(f"{self.server.name} did not start; it printed:\n{self._tail()}")

    def _tail(self) -> str:
        text = "".join(path.read_text("utf-8", "replace") for path in dict.fromkeys(self._outputs))
        lines = text.split("\n")
        return "\n".join(line for line in lines[-12:] if line)

    def port(self, size_bytes: int | None = None) -> int:
        """The plain port; for a server that cannot tell paths apart, the one for this size."""
        ports = self.launch.ports
        if not ports:
            return self.setup.port
        return ports[size_bytes] if size_bytes is not None else next(iter(ports.values()))

    def stats(self) -> dict[int, ProcessStat]:
        """All its processes as they are now."""
        return read_tree(process.pid for process in self._processes)

    def memory_bytes(self) -> int:
        """The proportional set size of all its processes."""
        return read_pss_bytes(self.stats())

    def disk_bytes(self) -> int:
        """Bytes of cached objects that lie in files."""
        directory = self.launch.on_disk
        return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) if directory else 0

    def log_lines(self) -> int:
        """Lines in the access log now."""
        if self.launch.log is None or not self.launch.log.exists():
            return 0
        with self.launch.log.open("rb") as log:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))

    def empty_log(self) -> None:
        """Cuts the access log to nothing: all of them are opened for appending."""
        if self.launch.log is not None and self.launch.log.exists():
            os.truncate(self.launch.log, 0)

    def restart(self) -> None:
        """Stop and start it with the same configuration and files."""
        self.stop()
        self._processes = []
        self._start()

    def stop(self) -> None:
        """Ends its processes, politely and then not, the last started first."""
        everyone = self.stats() if self._processes else {}
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid, stat in read_tree(everyone).items():
            if pid in everyone and everyone[pid].start_ticks == stat.start_ticks:
                os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
