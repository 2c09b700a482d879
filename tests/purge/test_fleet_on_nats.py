"""The ready configuration of a fleet on NATS, run as it stands: three servers, a leaf node, two coordinators, an edge.

What differs from machine to machine comes from the environment, here as there.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from edgecache.config.load import load
from edgecache.config.load_coordinator import load_coordinator
from edgecache.purge.bus import LogPosition, Purges, Welcome
from tests.conftest import require
from tests.ports import free_ports

nats = pytest.importorskip("nats", reason="nats-py is not installed: pip install edgecache[nats]")

from edgecache.purge.transport.nats_feed import NatsFeed  # noqa: E402 - where there is nats-py
from edgecache.purge.transport.nats_log import NatsSettings  # noqa: E402

CONFIG = Path(__file__).parents[2] / "config/nats"
COORDINATOR_PASSWORD, EDGE_PASSWORD = "coordinators-only", "edges-read"
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("EDGECACHE_", "NATS_"))}
TOKEN = "a-token-for-this-edge-alone"

pytestmark = pytest.mark.fault


@dataclass
class Process:
    """A program that says where it listens."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._heard = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.said.append(line)
                self._heard.notify_all()
        with self._heard:
            self._over = True
            self._heard.notify_all()

    def until(self, pattern: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            return next((match for line in self.said if (match := re.search(pattern, line))), None)

        with self._heard:
            self._heard.wait_for(lambda: found() or self._over, 40)
            match = found()
        assert match is not None, "".join(self.said)
        return match

    def end(self, how: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(30)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(*command: str, **environ: str) -> Iterator[Process]:
    made = Process(
        subprocess.Popen(
            list(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRON | environ
        )
    )
    try:
        yield made
    finally:
        made.end(signal.SIGKILL)


def edgecache(*args: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "edgecache", *args)


def ask(url: str, token: str | None, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token is not None else {})
    request = Request(url, json.dumps(body).encode() if body is not None else None, headers)
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """URLs for clients, ports for leaf nodes."""
    program = require("nats-server")
    clients, routes, leaves = (free_ports(9)[i::3] for i in range(3))
    listed = json.dumps([f"nats://127.0.0.1:{port}" for port in routes])
    with ExitStack() as stack:
        for i in range(3):
            server = running(
                program,
                "-c",
                str(CONFIG / "hub.conf"),
                NATS_NAME=f"nats-{i}",
                NATS_STORE=f'"{tmp_path / str(i)}"',
                NATS_CLIENTS=f'"127.0.0.1:{clients[i]}"',
                NATS_CLUSTER=f'"127.0.0.1:{routes[i]}"',
                NATS_LEAVES=f'"127.0.0.1:{leaves[i]}"',
                NATS_ROUTES=listed,
                NATS_COORDINATOR_PASSWORD=COORDINATOR_PASSWORD,
                NATS_EDGE_PASSWORD=EDGE_PASSWORD,
            )
            stack.enter_context(server).until("Server is ready")
        yield tuple(f"nats://127.0.0.1:{port}" for port in clients), leaves


def test_the_files_are_valid() -> None:
    assert load_coordinator(CONFIG / "coordinator.yaml").config.coordinator.nats.replicas == 3
    assert load(CONFIG / "edge.yaml").config.purge.nats.servers == ("nats://127.0.0.1:4222",)


def test_a_fleet(hub: tuple[tuple[str, ...], list[int]], tmp_path: Path) -> None:
    """A purge through either coordinator waits for the edge; one killed, the other goes on; an edge cannot write."""
    urls, leaves = hub
    data = tmp_path / "data"
    tokens = {}
    for scope in ("purge", "edge"):
        made = subprocess.run(
            edgecache("coordinator", "--data", str(data), "token", "add", scope, "--scope", scope),
            capture_output=True,
            text=True,
            check=True,
            env=ENVIRON,
            timeout=60,
        )
        tokens[scope] = re.search(r"ecp_\S+", made.stdout)[0]  # type: ignore[index]
    password, edge_token = tmp_path / "password", tmp_path / "edge-token"
    password.write_text(COORDINATOR_PASSWORD)
    edge_token.write_text(tokens["edge"])
    (near,) = free_ports(1)
    remotes = json.dumps([f"nats-leaf://edge:{EDGE_PASSWORD}@127.0.0.1:{port}" for port in leaves])
    with ExitStack() as stack:
        leaf = running(
            require("nats-server"),
            "-c",
            str(CONFIG / "leaf.conf"),
            NATS_NAME="leaf",
            NATS_CLIENTS=f'"127.0.0.1:{near}"',
            NATS_HUB=remotes,
        )
        stack.enter_context(leaf).until("Leafnode connection created")
        coordinators = []
        for _ in range(2):
            one = running(
                *edgecache("coordinator", "-c", str(CONFIG / "coordinator.yaml")),
                EDGECACHE_COORDINATOR_LISTEN="127.0.0.1:0",
                EDGECACHE_COORDINATOR_DATA=str(data),
                EDGECACHE_COORDINATOR_HEARTBEAT="1s",
                EDGECACHE_COORDINATOR_NATS_SERVERS=",".join(urls),
                EDGECACHE_COORDINATOR_NATS_PASSWORD_FILE=str(password),
            )
            coordinators.append(started(stack, one))
        addresses = [one.until(r"coordinator on (http://127\.0\.0\.1:\d+)")[1] for one in coordinators]
        edge = running(
            *edgecache("serve", "-c", str(CONFIG / "edge.yaml"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
            EDGECACHE_WORKERS="1",
            EDGECACHE_MEMORY_SIZE="16MiB",
            EDGECACHE_NAME="edge-far",
            EDGECACHE_TOKEN=TOKEN,
            EDGECACHE_PURGE_COORDINATOR=addresses[1],
            EDGECACHE_PURGE_TOKEN_FILE=str(edge_token),
            EDGECACHE_PURGE_NATS_SERVERS=f"nats://127.0.0.1:{near}",
        )
        admin = stack.enter_context(edge).until(r"[aA]dmin\D*(http://127\.0\.0\.1:\d+)")[1]
        end = time.monotonic() + 40
        while True:  # until both coordinators have heard of it
            known = [ask(f"{url}/v1/edges", None)[1]["edges"] for url in addresses]
            if all(known):
                break
            assert time.monotonic() < end, "".join(coordinators[0].said)
            time.sleep(0.05)
        for number, url in enumerate(addresses, 1):
            status, answer = ask(f"{url}/v1/purge", tokens["purge"], {"keys": [f"k{number}"]})
            assert (status, answer["sequence"], answer["complete"]) == (200, number, True), answer
            assert [(each["edge"], each["applied"]) for each in answer["edges"]] == [("edge-far", True)]
        coordinators[0].end(signal.SIGKILL)
        status, answer = ask(f"{addresses[1]}/v1/purge", tokens["purge"], {"keys": ["k3"]})
        assert (status, answer["sequence"], answer["complete"]) == (200, 3, True), answer
        figures = ask(f"{admin}/v1/stats", TOKEN)[1]["purges"]
        assert (figures["position"], figures["connected"], figures["caught_up"], figures["resets"]) == (
            3,
            True,
            True,
            1,
        )
        asyncio.run(cannot_write(f"nats://127.0.0.1:{near}"))
        asyncio.run(cannot_write(urls[0], user="edge", password=EDGE_PASSWORD))
        assert ask(f"{addresses[1]}/v1/edges", None)[1]["head"] == 3
        body = {"keys": ["k4"], "wait": False}
        heard = asyncio.run(read_near(urls, lambda: ask(f"{addresses[1]}/v1/purge", tokens["purge"], body)))
        assert heard == (3, True, [4])


def started(stack: ExitStack, one: Any) -> Process:
    process: Process = stack.enter_context(one)
    return process


async def read_near(urls: tuple[str, ...], purge: Callable[[], object]) -> tuple[int, bool, list[int]]:
    """What an edge without a leaf node hears: the log's head, whether it is covered on its return, what comes then."""
    settings = NatsSettings(urls, domain="hub", user="edge", password=lambda: EDGE_PASSWORD)
    feed = NatsFeed(settings, edge="edge-near", clock=lambda: 0.0)
    known: LogPosition | None = None
    async with asyncio.timeout(30):
        async with aclosing(feed.events(lambda: known)) as events:
            first = await anext(events)
        assert isinstance(first, Welcome), first
        known = first.position
        async with aclosing(feed.events(lambda: known)) as events:
            again = await anext(events)
            assert isinstance(again, Welcome), again
            await asyncio.to_thread(purge)
            async for event in events:
                if isinstance(event, Purges):
                    return first.head, not again.reset, [entry.sequence for entry in event.entries]
    raise AssertionError("the feed ended")


async def cannot_write(url: str, **who: str) -> None:
    """Nothing gets into the log by an edge's name, or from behind the leaf node."""
    client = await nats.connect(url, allow_reconnect=False, **who)
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await client.jetstream(domain="hub", timeout=0.5).publish("edgecache.purges.log", b"{}")
    await client.close()
