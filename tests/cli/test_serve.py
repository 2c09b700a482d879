"""`edgecache serve` as a process: an origin behind it, a token made, a purge, the access log, SIGTERM."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.admin.fake import TOKEN
from tests.cli.test_process import edgecache


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = f"page {len(self.asked)}".encode()
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=600")
        self.send_header("Surrogate-Key", "pages")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Origin,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@dataclass
class Served:
    process: subprocess.Popen[str]
    port: int
    admin: str
    messages: list[str] = field(default_factory=list)

    def get(self, path: str) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers["Cache-Status"]


@contextlib.contextmanager
def served(*args: str, **env: str) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecache", "serve", *args, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    )
    assert process.stderr is not None
    try:
        found: dict[str, str] = {}
        messages = []
        while len(found) < 2:
            line = process.stderr.readline()
            assert line, f"it ended: {messages}"
            message = json.loads(line)["message"]
            messages.append(message)
            if match := re.fullmatch(r"(listening on|admin API on) http://(\S+)", message):
                found[match[1]] = match[2]
        yield Served(
            process, int(found["listening on"].rpartition(":")[2]), f"http://{found['admin API on']}", messages
        )
    finally:
        process.kill()
        process.communicate()


def test_an_edge_from_start_to_end(origin: tuple[str, list[str]], tmp_path: Path) -> None:
    url, asked = origin
    state = {"XDG_STATE_HOME": str(tmp_path)}
    token_file = tmp_path / "made" / "token"
    arguments = ("--origin", url, "--memory", "16MiB")
    with served(*arguments, EDGECACHE_ADMIN_TOKEN_FILE=str(token_file), **state) as edge:
        assert edge.get("/a?token=s3cret")[:2] == (200, "page 1")
        status, body, why = edge.get("/a?token=s3cret")
        assert (status, body) == (200, "page 1")
        assert "; hit" in why
        to = ("--to", edge.admin, "--token-file", str(token_file))
        assert token_file.stat().st_mode & 0o777 == 0o600
        assert "serve" in edgecache("explain", f"http://127.0.0.1:{edge.port}/a?token=s3cret", *to).stdout
        done = edgecache("purge", "--key", "pages", "--wait", *to)
        assert (done.returncode, done.stdout.splitlines()[-1].split()[1]) == (0, "yes")
        assert edge.get("/a?token=s3cret")[1] == "page 2"
        figures = json.loads(edgecache("stats", "--json", *to).stdout)
        assert figures["requests"]["by_outcome"]["hit"] == 1
        metrics = urllib.request.urlopen(edge.admin + "/metrics", timeout=30).read().decode()
        assert 'edgecache_requests_total{outcome="hit",site="default",status="2xx"} 1.0' in metrics
        assert "edgecache_memory_inserts_total 2.0" in metrics
        assert "edgecache_client_accepted_total 3.0" in metrics
        edge.process.send_signal(signal.SIGTERM)
        out, err = edge.process.communicate(timeout=30)
        assert edge.process.returncode == 0
    assert len(asked) == 2
    lines = sorted((json.loads(line) for line in out.splitlines()), key=lambda line: line["time"])  # of two workers
    assert [line["outcome"] for line in lines] == ["miss", "hit", "miss"]
    assert lines[0]["target"] == "/a?token=REDACTED"
    token = token_file.read_text().strip()
    assert token not in out + err + "".join(edge.messages)


def test_an_address_that_is_taken(origin: tuple[str, list[str]]) -> None:
    taken = origin[0].removeprefix("http://")
    done = edgecache("serve", "--origin", origin[0], "--listen", taken, "--admin", "127.0.0.1:0", EDGECACHE_TOKEN=TOKEN)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert taken in json.loads(line)["message"]


def test_an_access_log_that_cannot_be_opened(origin: tuple[str, list[str]]) -> None:
    free = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    no_log = {"EDGECACHE_LOG_ACCESS_PATH": "/nowhere/access.log", "EDGECACHE_TOKEN": TOKEN}
    done = edgecache("serve", "--origin", origin[0], *free, **no_log)
    assert done.returncode == 2
    assert "/nowhere/access.log" in done.stderr


def test_a_memory_the_arena_cannot_be_built_in(origin: tuple[str, list[str]]) -> None:
    done = edgecache("serve", "--origin", origin[0], "--memory", "8MiB", EDGECACHE_TOKEN=TOKEN)
    assert done.returncode == 2
    assert "memory" in done.stderr
