"""An origin that does what it is told to, in threads, octet by octet; and clients that count what they get."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.supervisor.kit import body_of

BOUND_S = 5.0
"""Longest that a connection thread does one thing; a test that ends does not wait for it."""


@dataclass
class Wild:
    port: int
    mode: str = "well"
    max_age: int = 1
    """Of what it answers when it is well, seconds."""
    asked: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _head(length: int, extra: str = "", max_age: int = 1) -> bytes:
    fields = f"Cache-Control: max-age={max_age}, stale-if-error=600\r\nSurrogate-Key: all\r\nConnection: keep-alive\r\n"
    return f"HTTP/1.1 200 OK\r\n{fields}{extra}Content-Length: {length}\r\n\r\n".encode()


def _reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


GARBAGE = bytes(range(256)) * 40
SMUGGLED = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nCache-Control: max-age=600\r\n\r\nsmuggled"


def _answer(origin: Wild, connection: socket.socket, path: str) -> bool:
    """True: the connection may be used again."""
    body, mode = body_of(path), origin.mode
    half = len(body) // 2
    match mode:
        case "well":
            connection.sendall(_head(len(body), max_age=origin.max_age) + body)
            return True
        case "error":
            connection.sendall(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 3\r\n\r\nno\n")
            return True
        case "reset":
            _reset(connection)
        case "reset-in-the-middle":
            connection.sendall(_head(len(body)) + body[:half])
            time.sleep(0.05)
            _reset(connection)
        case "less-than-it-says":
            connection.sendall(_head(len(body)) + body[:half])
        case "more-than-it-says":
            connection.sendall(_head(len(body)) + body + SMUGGLED)
            return True
        case "two-lengths":
            connection.sendall(_head(len(body), f"Content-Length: {half}\r\n") + body)
        case "length-and-chunked":
            connection.sendall(_head(len(body), "Transfer-Encoding: chunked\r\n") + b"5\r\nwrong\r\n0\r\n\r\n")
        case "bad-chunk":
            head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head + b"zz\r\n" + body)
        case "garbage":
            connection.sendall(GARBAGE)
        case "endless-head":
            with contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * (8 << 20))
        case "silent":
            origin.over.wait(BOUND_S)
        case "slow-head":
            for octet in _head(len(body)):
                if origin.mode != "slow-head" or origin.over.wait(0.05):
                    break
                connection.sendall(bytes([octet]))
        case "slow-body":
            connection.sendall(_head(len(body)) + body[:10])
            origin.over.wait(BOUND_S)
        case _:
            raise AssertionError(mode)
    return False


def _serve(origin: Wild, connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(BOUND_S)
        data = b""
        while not origin.over.is_set():
            while b"\r\n\r\n" not in data:
                more = connection.recv(65_536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            origin.asked.append(path)
            if not _answer(origin, connection, path):
                return


@contextlib.contextmanager
def wild() -> Iterator[Wild]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as door:
        origin = Wild(door.getsockname()[1])
        threads: list[threading.Thread] = []

        def accept() -> None:
            while not origin.over.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = door.accept()
                    thread = threading.Thread(target=_serve, args=(origin, connection), daemon=True)
                    thread.start()
                    threads.append(thread)

        door.settimeout(0.1)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield origin
        finally:
            origin.over.set()
            accepting.join()
            for thread in threads:
                thread.join(BOUND_S)


@dataclass(frozen=True)
class Got:
    status: int
    """0: no whole head came."""
    fields: dict[str, str]
    body: bytes
    whole: bool
    """As long as it said."""


def get(port: int, path: str, *, seconds: float = 10.0) -> Got:
    """One request on a connection of its own; whatever comes back."""
    data = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n".encode())
        while more := connection.recv(1 << 20):
            data += more
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return Got(0, {}, b"", whole=False)
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = fields.get("content-length")
    return Got(int(first.split()[1]), fields, body, whole=length is not None and len(body) == int(length))
