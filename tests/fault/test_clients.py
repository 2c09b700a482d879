"""Clients by the thousand that do nothing, or little, or too much: others are served as ever, and all is given back.

The full numbers (10,000 idle and 2,000 trickling connections, 100 MB of headers) with EDGECACHE_LONG_TESTS=1, as
`make test-faults` sets it; a fifth of them else.
"""

import contextlib
import http.client
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.kit.processes import look_at
from tests.fault.wild import get, wild
from tests.supervisor import kit
from tests.supervisor.kit import body_of

pytestmark = pytest.mark.fault

WHOLE = "EDGECACHE_LONG_TESTS" in os.environ
IDLE, TRICKLING = (10_000, 2_000) if WHOLE else (2_000, 400)
HEADER_OCTETS = 100_000_000 if WHOLE else 20_000_000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[kit.Node]:
    limits = {
        "connections": 30_000,
        "header_timeout": "3s",
        "idle_timeout": "60s",
        "write_timeout": "1s",
        "drain_timeout": "1s",
    }
    memory = {"size": "32MiB", "max_object": "1MiB"}
    with wild() as origin, kit.node(tmp_path, {"origin": origin.url, "limits": limits, "memory": memory}) as made:
        yield made


def counter(node: kit.Node, name: str) -> int:
    lines = [line for line in node.ask("/metrics").splitlines() if line.startswith(f"edgecache_{name}_total ")]
    return round(float(lines[0].split()[1]))


def memory_of(node: kit.Node) -> int:
    """The largest worker, without what is shared."""
    return max(found.rss_bytes for pid in node.workers() if (found := look_at(pid)) is not None)


def need_files(number: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < number:
        pytest.skip(f"needs {number} file descriptors, and the system grants {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def connected(port: int, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", port)
        yield [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(number)]


def asks_well(node: kit.Node, paths: int = 30) -> None:
    for number in range(paths):
        got = get(node.port, f"/normal/{number}")
        assert (got.status, got.body) == (200, body_of(f"/normal/{number}"))


@pytest.mark.timeout(300)
def test_idle_and_trickling_connections_cost_the_others_nothing(node: kit.Node) -> None:
    need_files(IDLE + TRICKLING + 500)
    asks_well(node)
    small = memory_of(node)
    slow_before = counter(node, "client_timed_out")
    with connected(node.port, IDLE), connected(node.port, TRICKLING) as trickling:
        for octet in b"GET /t":
            for connection in trickling:
                connection.send(bytes([octet]))
        kit.until(lambda: node.stats()["connections"] >= IDLE)
        begun = time.monotonic()
        asks_well(node)
        assert time.monotonic() - begun < 5
        each = (memory_of(node) - small) / (IDLE + TRICKLING) * 2
        assert each < 16_384, "octets a connection that does nothing"
        # Who takes longer than header_timeout over a request's head is cut off, and counted; who asks nothing is not.
        kit.until(lambda: counter(node, "client_timed_out") - slow_before == TRICKLING, 60)
        assert node.stats()["connections"] >= IDLE
        asks_well(node)
    kit.until(lambda: node.stats()["connections"] == 0, 60)
    asks_well(node)
    assert node.stats()["processes"]["died"] == 0


def test_headers_without_end(node: kit.Node) -> None:
    """The answer is 431 at limits.head, not at the end; and nothing of them is kept."""
    asks_well(node, 3)
    small, malformed = memory_of(node), counter(node, "client_malformed")
    line = b"X-Filler: " + b"a" * 1000 + b"\r\n"
    for _ in range(4):
        sent, begun = 0, time.monotonic()
        answer = b""
        with socket.create_connection(("127.0.0.1", node.port), timeout=20) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
                while sent < HEADER_OCTETS // 4:
                    connection.sendall(line * 100)
                    sent += len(line) * 100
            with contextlib.suppress(OSError):
                while more := connection.recv(65_536):
                    answer += more
        assert time.monotonic() - begun < 12, "what comes after the answer is dropped for a while, then the end"
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    assert memory_of(node) - small < 4 << 20
    assert counter(node, "client_malformed") - malformed == 4
    asks_well(node, 3)


def test_one_head_as_large_as_allowed_and_no_larger(node: kit.Node) -> None:
    line = b"X-Filler: " + b"a" * 1000 + b"\r\n"
    for lines, status in ((60, b"200"), (70, b"431")):
        with socket.create_connection(("127.0.0.1", node.port), timeout=20) as connection:
            connection.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + line * lines + b"\r\n")
            assert connection.recv(12) == b"HTTP/1.1 " + status


def test_clients_that_never_read(node: kit.Node) -> None:
    """Each is cut off after limits.write_timeout and counted; nothing stays pinned; nobody else notices."""
    path = next(f"/large/{n}" for n in range(1000) if len(body_of(f"/large/{n}")) > 60_000)
    asks_well(node, 5)
    assert get(node.port, path).body == body_of(path)
    request = f"GET {path} HTTP/1.1\r\nHost: site\r\n\r\n".encode()
    before = counter(node, "client_stalled")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            connection = stack.enter_context(contextlib.closing(socket.socket()))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", node.port))
            connection.sendall(request * 60)
        asks_well(node)
        kit.until(lambda: counter(node, "client_stalled") - before == 100, 30)
        kit.until(lambda: node.stats()["memory"]["pins"] == 0)
        kit.until(lambda: node.stats()["connections"] == 0)
    asks_well(node)


def test_descriptors_exhausted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More clients than there are descriptors: who is in is served, who is not is turned away at once rather than left
    to wait, and counted; and when the idle ones have gone all is as before."""
    monkeypatch.setenv("EDGE_FILES", "96")
    with wild() as origin:
        config = {"origin": origin.url, "workers": 1, "limits": {"idle_timeout": "6s"}}
        with kit.node(tmp_path, config, "tests.fault.limited") as node:
            port = node.port
            asks_well(node, 3)
            inside = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            inside.request("GET", "/normal/0")
            assert inside.getresponse().read() == body_of("/normal/0")
            before = counter(node, "client_accepted")
            with connected(port, 300) as clients, contextlib.closing(inside):
                (worker,) = node.workers()
                kit.until(lambda: counter(node, "client_accepted") - before == 300)
                away = counter(node, "client_no_descriptors")
                assert 200 < away < 300
                assert node.stats()["connections"] >= 300 - away
                told = [_told(client) for client in clients]
                assert told.count(b"") == 300 - away
                assert set(told) <= {b"", b"HTTP/1.1 503 ", CLOSED}
                assert sum("file descriptors run out" in text for text in node.texts()) == 1
                ticks = _cpu(worker)
                for number in range(20):
                    path = f"/normal/{number % 3}"
                    inside.request("GET", path)
                    assert inside.getresponse().read() == body_of(path)
                    time.sleep(0.05)
                assert _cpu(worker) - ticks < 0.6, "it does not turn in circles"
                kit.until(lambda: get(port, "/normal/0").body == body_of("/normal/0"))
            kit.until(lambda: node.stats()["connections"] == 0)
            asks_well(node, 10)
            assert node.stats()["processes"]["died"] == 0
            assert node.workers() == [worker]


CLOSED = b"closed"


def _told(client: socket.socket) -> bytes:
    """What a client has been told without asking: nothing while it is in."""
    client.setblocking(False)
    try:
        return client.recv(13) or CLOSED
    except BlockingIOError:
        return b""
    except ConnectionError:
        return CLOSED


def _cpu(pid: int) -> float:
    """Seconds of CPU."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
