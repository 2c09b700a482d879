"""The proof, before a row is measured, that a server answers it rightly: status, body, and who answered.

A hit is proved by the origin's own count of requests: it does not grow. A pass is proved by the same count growing by
one each time. Every fetch uses a connection of its own, so that with several workers all of them come to answer.
"""

import http.client
import random
import re
import socket
import ssl
import time
from dataclasses import dataclass

from .content import expected_body
from .process import Running
from .rows import ZIPF_OBJECTS, Row, Work
from .server import Kind

_FETCHES = 8
_FILL_TRIES = 40
_FILL_PAUSE_S = 0.05
_FILL_CONNECTIONS = 64
_SAMPLED = 200


class Unproved(RuntimeError):
    """The server does not do what the row measures; the message says what was seen."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What the measuring needs to know from the proving."""

    etag: str
    cipher: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One answer."""

    status: int
    body: bytes
    etag: str
    cipher: str


def fetch(port: int, path: str, *, tls: bool = False, etag: str = "") -> Fetched:
    """One GET on a connection of its own. Certificates are not checked: the benchmark made its own."""
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=10, context=context
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest("GET", path, skip_accept_encoding=True)
        if etag:
            connection.putheader("If-None-Match", etag)
        connection.endheaders()
        cipher = connection.sock.cipher() if isinstance(connection.sock, ssl.SSLSocket) else None
        answer = connection.getresponse()
        return Fetched(answer.status, answer.read(), answer.getheader("ETag", ""), cipher[0] if cipher else "")
    except (OSError, http.client.HTTPException) as error:
        raise Unproved(f"GET {path} failed: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


def asked(origin_port: int) -> int:
    """How many requests the origin has answered so far."""
    return int(fetch(origin_port, "/count").body)


def prove(running: Running, row: Row, origin_port: int) -> Proof:
    """Fills what the row needs and proves it; raises `Unproved`."""
    match running.server.kind:
        case Kind.FLOOR:
            size = 0 if row.work is Work.NOT_MODIFIED else row.size_bytes
            got = fetch(running.port(size), row.path)
            if len(got.body) != size:
                raise Unproved(f"a canned answer of {len(got.body)} bytes instead of {size}")
            return Proof('"canned"')
        case Kind.ORIGIN:
            _right(fetch(running.port(), row.path), row.path)
            return Proof("")
        case Kind.CACHE if row.work is Work.PASS:
            return _prove_pass(running, row, origin_port)
        case Kind.CACHE:
            return _prove_hit(running, row, origin_port)


def _right(got: Fetched, path: str) -> Fetched:
    if got.status != 200:
        raise Unproved(f"GET {path} was answered {got.status}")
    if got.body != expected_body(path):
        raise Unproved(f"GET {path} was answered with a wrong body ({len(got.body)} bytes)")
    return got


def _prove_pass(running: Running, row: Row, origin_port: int) -> Proof:
    for _ in range(_FETCHES):
        before = asked(origin_port)
        _right(fetch(running.port(), row.path, tls=row.tls), row.path)
        grown = asked(origin_port) - before
        if grown != 1:
            raise Unproved(f"one request for an uncacheable object became {grown} at the origin")
    return Proof("")


def _prove_hit(running: Running, row: Row, origin_port: int) -> Proof:
    port = running.setup.tls_port if row.tls else running.port()
    if row.work is Work.ZIPF:
        fill(port, ZIPF_OBJECTS)
        _sample_many(port, origin_port)
    _await_stored(port, row, origin_port)
    before = asked(origin_port)
    for _ in range(_FETCHES):
        got = _right(fetch(port, row.path, tls=row.tls), row.path)
    if row.work is Work.NOT_MODIFIED:
        for _ in range(_FETCHES):
            answer = fetch(port, row.path, etag=got.etag)
            if answer.status != 304 or answer.body:
                raise Unproved(f"If-None-Match: {got.etag} was answered {answer.status}, {len(answer.body)} bytes")
    grown = asked(origin_port) - before
    if grown:
        raise Unproved(f"{grown} of {_FETCHES} requests for a stored object reached the origin")
    return Proof(got.etag, got.cipher)


def _await_stored(port: int, row: Row, origin_port: int) -> None:
    """A cache may store a moment after it has answered: fetches until one does not reach the origin."""
    for _ in range(_FILL_TRIES):
        before = asked(origin_port)
        _right(fetch(port, row.path, tls=row.tls), row.path)
        if asked(origin_port) == before:
            return
        time.sleep(_FILL_PAUSE_S)
    raise Unproved(f"{row.path} reached the origin {_FILL_TRIES} times running: it is not stored")


def _sample_many(port: int, origin_port: int) -> None:
    before = asked(origin_port)
    chance = random.Random(1)
    for _ in range(_SAMPLED):
        path = f"/o/{chance.randrange(ZIPF_OBJECTS)}"
        _right(fetch(port, path), path)
    grown = asked(origin_port) - before
    if grown > _SAMPLED // 100:
        raise Unproved(f"{grown} of {_SAMPLED} objects drawn from {ZIPF_OBJECTS} stored ones reached the origin")


def fill(port: int, objects: int) -> None:
    """Asks once for each of ``/o/0`` … over a few connections; the bodies are checked by sample afterwards."""
    sockets = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(_FILL_CONNECTIONS)]
    try:
        for first in range(0, objects, _FILL_CONNECTIONS):
            used = sockets[: objects - first]
            for number, one in enumerate(used, first):
                one.sendall(b"GET /o/%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (number, port))
            for one in used:
                _read_answer(one)
    except OSError as error:
        raise Unproved(f"filling {objects} objects failed: {error}") from error
    finally:
        for one in sockets:
            one.close()


def _read_answer(one: socket.socket) -> None:
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        more = one.recv(65536)
        if not more:
            raise Unproved("the server closed a kept-alive connection while it was being filled")
        data += more
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", data[: end + 2])
    if length is None or not data.startswith(b"HTTP/1.1 200"):
        raise Unproved(f"an object was answered {data[:40]!r} while filling")
    left = int(length[1]) - (len(data) - end - 4)
    while left > 0:
        more = one.recv(left)
        if not more:
            raise Unproved("the server cut a body short while it was being filled")
        left -= len(more)
