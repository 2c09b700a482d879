"""The processes of a run: an origin that can be killed, frozen and started again, and `edgecache serve` in front."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadtests.bench.procfs import read_tree

TOKEN = "token-of-a-load-test"
PATIENCE_S = 30.0
ROOT = Path(__file__).resolve().parents[2]


class CannotRun(Exception):
    """The run cannot be made as asked; the message is one line. Exit code 2."""


def until(condition: Callable[[], bool], seconds: float = PATIENCE_S, what: str = "it") -> float:
    """Wait for something another process does and tells nobody. Returns how long it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise CannotRun(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.02)
    return time.monotonic() - begun


def free_port() -> int:
    """One that nobody has now: what is started on it can be started there again."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


class Origin:
    """The origin's process."""

    def __init__(self, folder: Path, board: Path) -> None:
        self.log = folder / "origin.log"
        self._board = board
        self._folder = folder
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """On the same port as before, if there was one."""
        command = [sys.executable, "-m", "loadtests.kit.origin", "--port", str(self.port)]
        command += ["--board", str(self._board), "--log", str(self.log)]
        with (self._folder / "origin.err").open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise CannotRun(f"the origin did not start: {(self._folder / 'origin.err').read_text()[-300:]}")
        self.port = int(line)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(number)
                self.process.wait(PATIENCE_S)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def asked(self) -> list[tuple[float, str]]:
        """When what was asked for, in order; monotonic seconds."""
        found = []
        for line in self.log.read_text().splitlines() if self.log.exists() else ():
            parts = line.split(" ")
            if len(parts) == 4:
                found.append((float(parts[0]), parts[1]))
        return found


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    name: str
    rss_bytes: int
    files: int
    threads: int


class Edge:
    """A running `edgecache serve`, which can be started again on the same ports."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._folder = folder
        self.file = folder / "edge.yaml"
        self.config = {
            "name": "edge",
            "listen": [f"127.0.0.1:{free_port()}"],
            "admin": {"address": f"127.0.0.1:{free_port()}"},
            "log": {"access": {"format": "off"}},
            **config,
        }
        self.messages: list[str] = []
        self._news = threading.Condition()
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def configure(self) -> None:
        """Write the file that the next start or reload reads."""
        self.file.write_text(yaml.safe_dump(self.config))

    def start(self) -> None:
        self.configure()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGECACHE_")}
        self.messages.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgecache", "serve", "-c", str(self.file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment | {"EDGECACHE_TOKEN": TOKEN},
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        self.port = int(self.said(r"listening on http://\S+:(\d+)$")[1])
        self.admin_url = self.said(r"admin API on (http://\S+)$")[1]
        until(self.ready, what="the edge's start")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with (self._folder / "edge.log").open("a", buffering=1) as log:
            for line in process.stderr:
                log.write(line)
                text = str(json.loads(line)["message"]) if line.startswith("{") else line.rstrip()
                with self._news:
                    self.messages.append(text)
                    self._news.notify_all()
        with self._news:
            self.messages.append("(the end)")
            self._news.notify_all()
        process.stderr.close()

    def said(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait for a message that matches, from number `after` on."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            texts = self.messages[after:]
            found[:] = [match for text in texts if (match := re.search(pattern, text))]
            return bool(found) or texts[-1:] == ["(the end)"]

        with self._news:
            self._news.wait_for(look, PATIENCE_S)
        if not found and self.messages[-1:] == ["(the end)"]:
            raise CannotRun(f"the edge ended: {' | '.join(self.messages[-3:-1])}")
        if not found:
            raise CannotRun(f"the edge never said {pattern!r}; last: {' | '.join(self.messages[-3:])}")
        return found[-1]

    def reload(self) -> None:
        assert self.process is not None
        before = len(self.messages)
        self.process.send_signal(signal.SIGHUP)
        self.said("the new configuration is in use", before)

    def stop(self) -> int:
        """SIGTERM, and the exit code. One that does not end is killed."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if self._reader is not None:
            self._reader.join(PATIENCE_S)
        self.process = None
        return code

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.admin_url + "/readyz", timeout=2):
                return True
        except OSError:
            return False

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The admin API. Raises `OSError`."""
        return ask(self.admin_url + path, body)

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("/v1/stats")
        return found

    def purge(self, **targets: Any) -> dict[str, Any]:
        """Returns when it is applied."""
        receipt: dict[str, Any] = self.ask("/v1/purge", {**targets, "wait": True})
        return receipt

    def pids(self) -> list[int]:
        """The supervisor first."""
        if self.process is None:
            return []
        return sorted(read_tree([self.process.pid]), key=lambda pid: pid != self.process.pid)  # type: ignore[union-attr]

    def processes(self) -> list[Process]:
        """All of them, as they are now."""
        return [found for pid in self.pids() if (found := look_at(pid)) is not None]

    def workers(self) -> list[int]:
        return [process.pid for process in self.processes() if process.name.startswith("edgecache-w")]


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    request.add_header("Authorization", f"Bearer {TOKEN}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return json.loads(response.read())


def look_at(pid: int) -> Process | None:
    """A process's figures from /proc; None if it is no more. Shared memory is not counted as its own."""
    folder = Path("/proc", str(pid))
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        own = sum(int(status[name].split()[0]) for name in ("RssAnon", "RssFile") if name in status) * 1024
        return Process(pid, status["Name"].strip(), own, len(os.listdir(folder / "fd")), int(status["Threads"]))
    except (OSError, KeyError, ValueError):
        return None


@contextlib.contextmanager
def running(origin: Origin, edge: Edge | None) -> Iterator[None]:
    """Both end with the block, whatever happens."""
    try:
        yield
    finally:
        if edge is not None:
            edge.stop()
        if origin.process is not None:
            with contextlib.suppress(ProcessLookupError):
                origin.thaw()
        origin.kill()
