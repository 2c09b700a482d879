"""NATS servers for tests: alone, as a cluster, and with a leaf node, each with JetStream in a folder of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import require
from tests.ports import free_ports

START_S = 20.0
DOMAIN = "hub"
"""Of JetStream. A leaf node without a store of its own reaches it by this name."""


@dataclass
class Server:
    """One `nats-server` on loopback."""

    folder: Path
    name: str
    port: int
    more: str = ""
    """Of its configuration."""
    jetstream: bool = True
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Returns when it accepts connections."""
        program = require("nats-server")
        store = f'jetstream {{ store_dir: "{self.folder / self.name}", domain: {DOMAIN} }}' if self.jetstream else ""
        config = self.folder / f"{self.name}.conf"
        config.write_text(f'server_name: {self.name}\nlisten: "127.0.0.1:{self.port}"\n{store}\n{self.more}\n')
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while True:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None:
            os.kill(self.process.pid, how)
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)


@dataclass
class Cluster:
    servers: list[Server] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)
    """Where each takes leaf nodes."""

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.url for server in self.servers)


@contextlib.contextmanager
def alone(folder: Path, more: str = "") -> Iterator[Server]:
    (port,) = free_ports(1)
    server = Server(folder, "one", port, more)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def cluster(folder: Path, count: int = 3) -> Iterator[Cluster]:
    """With a port for leaf nodes each."""
    ports, routes, leaves = (free_ports(3 * count)[i::3] for i in range(3))
    peers = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    made = Cluster(leaves=leaves)
    try:
        for i in range(count):
            more = f'cluster {{ name: purges, listen: "127.0.0.1:{routes[i]}", routes: [{peers}] }}\n'
            more += f'leafnodes {{ listen: "127.0.0.1:{leaves[i]}" }}'
            server = Server(folder, f"n{i}", ports[i], more)
            server.start()
            made.servers.append(server)
        yield made
    finally:
        for server in made.servers:
            server.kill()


@contextlib.contextmanager
def leaf(folder: Path, to: Cluster) -> Iterator[Server]:
    """A leaf node without a store of its own."""
    (port,) = free_ports(1)
    urls = ", ".join(f'"nats-leaf://127.0.0.1:{remote}"' for remote in to.leaves)
    server = Server(
        folder, "leaf", port, f"leafnodes {{ reconnect: 1, remotes: [{{ urls: [{urls}] }}] }}", jetstream=False
    )
    server.start()
    try:
        yield server
    finally:
        server.kill()
