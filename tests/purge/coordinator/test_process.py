"""The coordinator as it is run: its command, its signals, its files; killed at any moment, it keeps what it took."""

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgecache.admin.client import AdminClient, ClientError
from edgecache.purge.coordinator import tokens
from edgecache.purge.transport.websocket import client_context
from tests.purge.bus_contract import append, everything, keys
from tests.purge.coordinator.kit import LightEdge, memory_folder
from tests.purge.test_sqlite_log import SqliteStore

pytestmark = pytest.mark.fault
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("EDGECACHE_")}


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as name:
        yield Path(name, "data")


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "edgecache", "coordinator", *map(str, args)]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=60, check=False, env=ENVIRON)


class Process:
    """A coordinator that runs; what it says is kept."""

    def __init__(self, *args: object) -> None:
        self.said: list[str] = []
        self._heard = threading.Condition()
        self.process = subprocess.Popen(command(*args), stderr=subprocess.PIPE, text=True, env=ENVIRON)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        line = self.until(r"coordinator on")
        found = re.search(r"on (https?)://127\.0\.0\.1:(\d+)", line)
        assert found is not None, line
        self.url = f"{found[1]}://127.0.0.1:{found[2]}"
        self.port = int(found[2])

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.said.append(line)
                self._heard.notify_all()

    def until(self, pattern: str) -> str:
        def found() -> str | None:
            return next((line for line in self.said if re.search(pattern, line)), None)

        with self._heard:
            assert self._heard.wait_for(found, 30), "".join(self.said)
            return found() or ""

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def __enter__(self) -> "Process":  # noqa: PYI034 - there is no class below it
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)


def admin_token(folder: Path) -> str:
    return tokens.add(folder / "tokens.json", "all", [tokens.Scope.ADMIN], now=0)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def lose(folder: Path) -> None:
    for path in folder.glob("purges.db*"):
        path.unlink()


async def purge(session: aiohttp.ClientSession, url: str, token: str, name: str, **body: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    body = {"keys": [name], "wait": False} | body
    async with session.post(url + "/v1/purge", headers=headers, json=body) as response:
        return response.status, await response.json()


async def test_a_day_in_its_life(folder: Path, tmp_path: Path) -> None:
    """Tokens by the command, a purge, a reload, the end."""
    config = tmp_path / "coordinator.yaml"
    text = f'coordinator: {{listen: "127.0.0.1:0", data: "{folder}", rate: 1, burst: 1}}\n'
    config.write_text(text)
    with Process("-c", config) as process:
        process.until("no tokens yet")
        done = run("-c", config, "token", "add", "deploy", "--scope", "purge")
        assert done.returncode == 0, done.stderr
        token = done.stdout.strip()
        listed = json.loads(run("-c", config, "token", "list", "--json").stdout)["tokens"]
        assert [(row["name"], row["scopes"]) for row in listed] == [("deploy", ["purge"])]
        assert "deploy" in run("-c", config, "token", "list").stdout
        process.process.send_signal(signal.SIGHUP)
        process.until("read again, with 1 tokens")
        async with aiohttp.ClientSession() as session:
            assert (await purge(session, process.url, token, "a"))[0] == 200
            assert (await purge(session, process.url, token, "b"))[0] == 429
            config.write_text(text.replace("rate: 1", "rate: 0").replace(":0", ":1"))
            process.process.send_signal(signal.SIGHUP)
            process.until("not taken over: listen")
            assert (await purge(session, process.url, token, "b"))[0] == 200
            config.write_text("coordinator: [\n")
            process.process.send_signal(signal.SIGHUP)
            process.until("nothing has changed")
            assert (await purge(session, process.url, token, "c"))[0] == 200
        assert mode(folder) == 0o700
        assert run("-c", config, "token", "remove", "deploy").returncode == 2  # the file is broken now
        config.write_text(text)
        assert run("-c", config, "token", "remove", "deploy").returncode == 0
        assert run("-c", config, "token", "remove", "deploy").returncode == 1
        assert process.end(signal.SIGTERM) == 0


def test_what_it_cannot_start_with(folder: Path) -> None:
    with Process("--listen", "127.0.0.1:0", "--data", folder) as process:
        done = run("--listen", "127.0.0.1:0", "--data", folder)
        assert done.returncode == 2
        assert "another coordinator" in done.stderr
        done = run("--listen", f"127.0.0.1:{process.port}", "--data", folder.with_name("other"))
        assert done.returncode == 2
        assert "cannot listen" in done.stderr
        assert run("--listen", "nowhere").returncode == 2
    lose(folder)
    (folder / "purges.db").write_bytes(b"no database at all" * 500)
    done = run("--data", folder)
    assert done.returncode == 2
    assert "damaged" in done.stderr
    assert "backup" in done.stderr
    assert "Traceback" not in done.stderr


async def test_what_it_has_accepted_survives_kill_9(folder: Path) -> None:
    """Killed in the middle of purges, again and again: nothing that was answered is missing, and an edge that
    reconnects hears each entry once and in order."""
    token = admin_token(folder)
    accepted: dict[int, str] = {}
    port = 0
    edge: LightEdge | None = None
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for life in range(4):
            with Process("--listen", f"127.0.0.1:{port}", "--data", folder) as process:
                port = process.port
                if edge is None:
                    edge = await stack.enter_async_context(LightEdge(process.url, "a", token))
                welcomes = life + 1
                await edge.until(lambda e, welcomes=welcomes: e.welcomes >= welcomes, 30)

                async def purges(caller: int, life: int = life, url: str = process.url) -> None:
                    for i in range(1000):
                        name = f"{life}-{caller}-{i}"
                        status, answer = await purge(session, url, token, name)
                        assert status == 200
                        accepted[answer["sequence"]] = name

                callers = [asyncio.ensure_future(purges(caller)) for caller in range(8)]
                before = len(accepted)
                await edge.until(lambda e, before=before: len(e.entries) > before + 100, 30)
                process.end(signal.SIGKILL)
                for error in await asyncio.gather(*callers, return_exceptions=True):
                    assert isinstance(error, aiohttp.ClientError | OSError), error
        assert edge is not None
        with Process("--listen", f"127.0.0.1:{port}", "--data", folder) as process:
            await edge.until(lambda e: e.welcomes >= 5, 30)
            _, answer = await purge(session, process.url, token, "last", wait=True)
            assert answer["complete"]
            accepted[answer["sequence"]] = "last"
            assert process.end(signal.SIGTERM) == 0
    assert len(accepted) > 300  # each life may end with several logged and not answered
    heard = {entry.sequence: entry.order.keys[0] for entry in edge.entries}
    assert [entry.sequence for entry in edge.entries] == list(range(1, len(edge.entries) + 1))
    assert accepted.items() <= heard.items()
    assert edge.resets == 1


async def test_it_knows_after_kill_9_who_was_there(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "coordinator.yaml"
    config.write_text(f'coordinator: {{listen: "127.0.0.1:0", data: "{folder}", heartbeat: 0.1s}}\n')
    token = admin_token(folder)
    async with aiohttp.ClientSession() as session:
        with Process("-c", config) as process:
            async with LightEdge(process.url, "a", token) as edge:
                await edge.until(lambda e: e.welcomes)
                async with asyncio.timeout(20):
                    while not known(folder):  # noqa: ASYNC110 - another process writes it
                        await asyncio.sleep(0.02)
                process.end(signal.SIGKILL)
        with Process("-c", config) as process:
            async with session.get(process.url + "/v1/edges") as response:
                edges = (await response.json())["edges"]
            assert [(row["edge"], row["connected"], row["since"]) for row in edges] == [
                ("a", False, known(folder)["a"])
            ]
            assert (await purge(session, process.url, token, "k", wait=True))[1]["away"] == ["a"]


def known(folder: Path) -> dict[str, float]:
    """When each edge was last there, as the coordinator keeps it."""
    with contextlib.suppress(FileNotFoundError):
        return {row["edge"]: row["seen"] for row in json.loads((folder / "edges.json").read_text())["edges"]}
    return {}


async def test_a_lost_log_resets_edges(folder: Path) -> None:
    token = admin_token(folder)
    async with aiohttp.ClientSession() as session:
        with Process("--listen", "127.0.0.1:0", "--data", folder) as process:
            port = process.port
            edge = LightEdge(process.url, "a", token)
            await edge.__aenter__()
            await edge.until(lambda e: e.welcomes)
            assert (await purge(session, process.url, token, "a", wait=True))[1]["complete"]
            process.end(signal.SIGKILL)
        lose(folder)
        async with SqliteStore(folder).open() as log:
            for i in range(3):
                await append(log, f"new{i}")
            assert keys(await everything(log)) == ["new0", "new1", "new2"]
        with Process("--listen", f"127.0.0.1:{port}", "--data", folder) as process:
            await edge.until(lambda e: e.resets == 2, 30)
            assert edge.position is not None
            assert edge.position.sequence == 3
            assert (await purge(session, process.url, token, "b", wait=True))[1]["complete"]
            assert edge.keys == ["a", "b"]
            await edge.__aexit__()


# --- TLS ---


def openssl(*args: object) -> None:
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca), a coordinator's certificate (server), an edge's (edge), and one that nobody has
    signed (stranger)."""
    at = tmp_path_factory.mktemp("authority")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-days", 2, "-subj", "/CN=ca", "-out", at / "ca.pem", "-keyout", at / "ca.key")
    for name in ("server", "edge"):
        openssl("req", *new, "-subj", f"/CN={name}", "-out", at / f"{name}.csr", "-keyout", at / f"{name}.key")
        (at / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        signed = ("-CA", at / "ca.pem", "-CAkey", at / "ca.key", "-CAcreateserial", "-extfile", at / "names")
        openssl("x509", "-req", "-days", 2, "-in", at / f"{name}.csr", *signed, "-out", at / f"{name}.pem")
    own = ("-subj", "/CN=stranger", "-out", at / "stranger.pem", "-keyout", at / "stranger.key")
    openssl("req", "-x509", *new, "-days", 2, *own)
    return at


async def test_tls_both_ways(folder: Path, authority: Path, tmp_path: Path) -> None:
    config = tmp_path / "coordinator.yaml"
    tls = f"{{cert: {authority}/server.pem, key: {authority}/server.key, client_ca: {authority}/ca.pem}}"
    config.write_text(f'coordinator: {{listen: "127.0.0.1:0", data: "{folder}", tls: {tls}}}\n')
    token = admin_token(folder)
    ca = str(authority / "ca.pem")
    trusting = client_context(ca)
    showing = client_context(ca, str(authority / "edge.pem"), str(authority / "edge.key"))
    strange = client_context(ca, str(authority / "stranger.pem"), str(authority / "stranger.key"))
    with Process("-c", config) as process:
        assert process.url.startswith("https://")
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
            LightEdge(process.url, "good", token, tls=showing) as good,
            LightEdge(process.url, "bare", token, tls=trusting) as bare,
            LightEdge(process.url, "wary", token, tls=ssl.create_default_context()) as wary,
        ):
            await good.until(lambda e: e.welcomes)
            _, answer = await purge(session, process.url, token, "k", wait=True)
            assert answer["complete"]
            assert [edge["edge"] for edge in answer["edges"]] == ["good"]
            await bare.until(lambda e: e.lost)
            assert "certificate" in bare.lost[0]
            await wary.until(lambda e: e.lost)
            assert "secure connection" in wary.lost[0]
            assert not bare.welcomes
            assert not wary.welcomes
            process.until("an edge at 127.0.0.1 is turned away: an edge must show a certificate")
            async with LightEdge(process.url, "stranger", token, tls=strange) as stranger:
                await stranger.until(lambda e: e.lost)
                process.until("its certificate is not trusted: .*client_ca")
                assert not stranger.welcomes
            process.process.send_signal(signal.SIGHUP)
            process.until("read again")
            assert (await purge(session, process.url, token, "l", wait=True))[1]["complete"]
        assert process.end(signal.SIGTERM) == 0


def test_the_command_line_trusts_an_authority_that_the_environment_names(
    folder: Path, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "coordinator.yaml"
    tls = f"{{cert: {authority}/server.pem, key: {authority}/server.key}}"
    config.write_text(f'coordinator: {{listen: "127.0.0.1:0", data: "{folder}", tls: {tls}}}\n')
    token = admin_token(folder)
    with Process("-c", config) as process:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(ClientError, match=r"is not trusted: .* SSL_CERT_FILE"):
            AdminClient(process.url, token).stats()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
        assert AdminClient(process.url, token).stats()["coordinator"]["log"]["head"] == 0
        assert process.end(signal.SIGTERM) == 0
