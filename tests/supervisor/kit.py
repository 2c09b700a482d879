"""`edgecache serve` as a user runs it, with several processes: an origin, a running node, and clients that keep asking.

Bodies are made from the path, so that every response can be checked octet for octet.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

TOKEN = "test-token-of-some-length"
PATIENCE_S = 20.0


def body_of(path: str) -> bytes:
    """What the origin answers: up to 60 kB, another for each path."""
    digest = hashlib.sha256(path.encode()).digest()
    return digest * (1 + (digest[0] << 3))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin: "Origin"

    def do_GET(self) -> None:
        self.origin.asked.append(self.path)
        body = body_of(self.path)
        if self.path.startswith("/slow"):
            self.origin.slow_under_way.set()
            assert self.origin.go_on.wait(PATIENCE_S)
        self.send_response(200)
        self.send_header("Cache-Control", "no-store" if self.path.startswith("/pass") else "max-age=600")
        self.send_header("Surrogate-Key", "all-of-it")
        if self.path.startswith("/hsts"):
            self.send_header("Strict-Transport-Security", "max-age=1")
        self.send_header("Connection", "close")  # nothing of it may be open when a test ends
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(204)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@dataclass
class Origin:
    url: str
    asked: list[str] = field(default_factory=list)
    slow_under_way: threading.Event = field(default_factory=threading.Event)
    """Somebody has asked for something below /slow."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """Lets what is below /slow be answered."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a worker was killed and its connections with it


@contextlib.contextmanager
def origin() -> Iterator[Origin]:
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        made = Origin(f"http://127.0.0.1:{server.server_port}")
        handler.origin = made  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.go_on.set()
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Process:
    pid: int
    name: str


def alive(pid: int) -> bool:
    """It runs; what has ended and is not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Node:
    """A running `edgecache serve`."""

    def __init__(self, folder: Path, config: dict[str, Any], module: str = "edgecache") -> None:
        """`module`: what is run with `serve -c FILE`."""
        self.file = folder / "edge.yaml"
        self.log = folder / "access.log"
        self.configure(config)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGECACHE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "serve", "-c", str(self.file)],
            stderr=subprocess.PIPE,
            text=True,
            env=environ | {"EDGECACHE_TOKEN": TOKEN},
        )
        self.messages: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def configure(self, config: dict[str, Any]) -> None:
        """Write the file that the next start or reload reads."""
        whole = {
            "name": "node-under-test",
            "listen": ["127.0.0.1:0"],
            "admin": "127.0.0.1:0",
            "workers": 2,
            "memory": {"size": "32MiB", "max_object": "256KiB"},
            "log": {"access": {"path": str(self.log), "flush_interval": "10ms"}},
            **config,
        }
        whole["admin"] = {"address": whole["admin"]}
        self.file.write_text(yaml.safe_dump(whole))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            message = json.loads(line) if line.startswith("{") else {"message": line.rstrip()}
            with self._news:
                self.messages.append(message)
                self._news.notify_all()
        with self._news:
            self.messages.append({"message": "(the end)"})
            self._news.notify_all()

    def close(self) -> None:
        """After its end: what it said last is read."""
        self.process.wait()
        self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()

    # --- what it says ---
    def said(self, pattern: str, after: int = 0) -> "re.Match[str]":
        """Wait for a message that matches, from number `after` on."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            texts = [message["message"] for message in self.messages[after:]]
            found[:] = [match for text in texts if (match := re.search(pattern, text))]
            return bool(found) or texts[-1:] == ["(the end)"]

        with self._news:
            self._news.wait_for(look, PATIENCE_S)
        assert found, f"never said {pattern!r}: {self.texts()}"
        return found[-1]

    def texts(self) -> list[str]:
        return [str(message["message"]) for message in self.messages]

    @property
    def port(self) -> int:
        return int(self.said(r"listening on http://\S+:(\d+)$")[1])

    @property
    def admin_url(self) -> str:
        return self.said(r"admin API on (http://\S+)$")[1]

    def ready(self) -> "Node":
        self.said("admin API on")
        return self

    # --- its processes ---
    def processes(self) -> list[Process]:
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit():
                    name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                    state, parent = rest.split()[:2]
                    if int(parent) == self.process.pid and state != "Z":
                        found.append(Process(int(entry.name), name))
        return found

    def workers(self) -> list[int]:
        return [process.pid for process in self.processes() if process.name.startswith("edgecache-w")]

    def signal(self, number: signal.Signals) -> int:
        """Returns how many messages there were before it."""
        before = len(self.messages)
        self.process.send_signal(number)
        return before

    def reload(self) -> None:
        before = self.signal(signal.SIGHUP)
        self.said("the new configuration is in use", before)

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    # --- what it answers to the operator ---
    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(self.admin_url + path, json.dumps(body).encode() if body else None)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                text = response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
        return json.loads(text) if text.startswith("{") else text

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("/v1/stats")
        return found


@contextlib.contextmanager
def node(folder: Path, config: dict[str, Any], module: str = "edgecache") -> Iterator[Node]:
    made = Node(folder, config, module)
    try:
        yield made.ready()
    finally:
        children = [process.pid for process in made.processes()]
        if made.process.poll() is None:
            made.process.kill()
            until(lambda: not any(map(alive, children)))
        made.close()


def until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> float:
    """Wait for something that another process does and tells nobody. Returns how long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not happen"
        time.sleep(0.005)
    return time.monotonic() - begun


@dataclass
class Tally:
    """What the clients saw."""

    whole: int = 0
    wrong: int = 0
    """Answers with another body than the origin's, or another status than 200."""
    cut: int = 0
    """Answers that ended before their end."""
    lost: int = 0
    """Requests sent on an open connection that was closed without a word of an answer."""
    refused: int = 0
    """Connections that were refused, or reset before a request was sent."""


async def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return await exchange(reader, writer, path)
    finally:
        writer.close()


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, method: str = "GET", host: str = "site"
) -> tuple[int, dict[str, str], bytes]:
    length = "Content-Length: 0\r\n" if method == "POST" else ""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    return int(head[0].split()[1]), fields, body


async def client(port: int, paths: list[str], tally: Tally, stop: asyncio.Event, *, requests: int = 50) -> None:
    """Ask on kept-alive connections, up to `requests` on each, until told to stop."""
    number = 0
    while not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            tally.refused += 1
            await asyncio.sleep(0.01)
            continue
        try:
            for _ in range(requests):
                number += 1
                path = paths[number * 7919 % len(paths)]
                try:
                    status, fields, body = await exchange(reader, writer, path)
                except asyncio.IncompleteReadError as error:
                    if error.partial:
                        tally.cut += 1
                    else:
                        tally.lost += 1
                    break
                except OSError:
                    tally.lost += 1
                    break
                if status == 200 and body == body_of(path):
                    tally.whole += 1
                else:
                    tally.wrong += 1
                if fields.get("connection", "").lower() == "close" or stop.is_set():
                    break
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def load(port: int, paths: list[str], clients: int = 8) -> Any:
    """Clients that ask until the block ends. Yields their tally."""
    tally, stop = Tally(), asyncio.Event()
    asking = [asyncio.ensure_future(client(port, paths, tally, stop)) for _ in range(clients)]
    try:
        yield tally
    finally:
        stop.set()
        await asyncio.gather(*asking)


async def warm(tally: Tally, more: int = 200) -> None:
    """Return when so many more answers have come."""
    wanted = tally.whole + more
    async with asyncio.timeout(PATIENCE_S):
        while tally.whole < wanted:  # noqa: ASYNC110 - thousands of answers, one look now and then
            await asyncio.sleep(0.005)
