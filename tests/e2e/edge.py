"""A real edge: `python -m edgecache serve` in a process of its own, in front of a given origin."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

TOKEN = "a-token-for-the-end-to-end-tests"
START_S = 60
STOP_S = 60
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


class Process:
    """An `edgecache` process whose standard error is read until it ends, and shown when a test fails."""

    def __init__(self, *args: str, signs: tuple[str, ...], stdout: Path | None = None) -> None:
        """`signs`: words of the lines that name its addresses. `stdout`: a file for it; else it is read as well."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGECACHE_")}
        self._signs = signs
        self._found: dict[str, int] = {}
        self._seen = threading.Event()
        self.lines: list[str] = []
        with contextlib.ExitStack() as files:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "edgecache", *args],
                stdin=subprocess.DEVNULL,
                stdout=files.enter_context(stdout.open("wb")) if stdout is not None else subprocess.PIPE,
                stderr=subprocess.PIPE if stdout is not None else subprocess.STDOUT,
                text=True,
                env={**inherited, "EDGECACHE_TOKEN": TOKEN},
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self.process.stderr or self.process.stdout
        assert stream is not None
        with stream:
            for line in stream:
                self.lines.append(line.rstrip())
                for sign in self._signs:
                    if sign in line and (match := ADDRESS.search(line)):
                        self._found[sign] = int(match[1])
                if len(self._found) == len(self._signs):
                    self._seen.set()
        self._seen.set()

    def ports(self) -> list[int]:
        """The port named on the line of each sign, once all have been printed."""
        assert self._seen.wait(START_S), f"not ready within {START_S} s: {self.lines}"
        assert len(self._found) == len(self._signs), f"ended before it was ready: {self.lines}"
        return [self._found[sign] for sign in self._signs]

    def stop(self) -> int:
        """SIGTERM, if it still runs; its exit code. The process is gone in any case."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()

    def show(self) -> None:
        print("\n".join(line[:1000] for line in self.lines[-20:]))

    def complaints(self) -> list[str]:
        """What it logged as an error, and tracebacks."""
        found = []
        for line in self.lines:
            try:
                bad = json.loads(line)["level"] in ("error", "critical")
            except ValueError:
                bad = "Traceback" in line or " error: " in line or " critical: " in line
            if bad:
                found.append(line)
        return found


class Edge:
    def __init__(self, running: Process) -> None:
        self._running = running
        self.process = running.process
        self.port, self.admin_port = running.ports()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"

    async def purge(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{self.admin}/v1/purge", json=body) as answer,
        ):
            assert answer.status == 200, await answer.text()
            receipt: dict[str, Any] = await answer.json()
            return receipt

    async def stats(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin}/v1/stats") as answer:
            assert answer.status == 200
            figures: dict[str, Any] = await answer.json()
            return figures

    async def ended(self) -> int:
        """The exit code, once it has ended by itself."""
        return await asyncio.to_thread(self.process.wait, STOP_S)


def _start(directory: Path, origin_url: str, config: str) -> Process:
    file = directory / "edge.yaml"
    file.write_text(
        'listen: ["127.0.0.1:0"]\nadmin: {address: "127.0.0.1:0"}\nmemory: {size: 64MiB}\n'
        f"origin: {origin_url}\n{config}\n"
    )
    signs = ("listening on", "admin API on")
    return Process("serve", "-c", str(file), signs=signs, stdout=directory / "access.log")


def _check(running: Process, code: int) -> None:
    assert code == 0, running.lines
    assert running.complaints() == []


@contextlib.contextmanager
def edge_process(origin_url: str, config: str = "") -> Iterator[Edge]:
    """An edge on ports of its own; it must end with 0 and have logged no error. `config`: more YAML."""
    with tempfile.TemporaryDirectory() as name:
        running = _start(Path(name), origin_url, config)
        try:
            yield Edge(running)
        except BaseException:
            running.stop()
            running.show()
            raise
        _check(running, running.stop())


@contextlib.asynccontextmanager
async def edge(origin_url: str, config: str = "") -> AsyncIterator[Edge]:
    """The same beside an origin in this process, whose loop goes on while the edge starts and stops."""
    with tempfile.TemporaryDirectory() as name:
        running = _start(Path(name), origin_url, config)
        try:
            await asyncio.to_thread(running.ports)
            yield Edge(running)
        except BaseException:
            running.stop()
            running.show()
            raise
        _check(running, await asyncio.to_thread(running.stop))
