"""One edge whose fast lane can be shut, an origin of raw octets behind it, and a client that compares both ways.

Everything runs in one loop that outlives a test's examples. The origin answers a path with what `Bench.origin` says.
"""

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgecache._native.arena import FLAG_PARTIAL
from edgecache._native.lane import Lane
from edgecache.app import Edge, Shared
from edgecache.config.model import Config
from edgecache.edge.listener import Listener
from edgecache.http.dates import parse_date
from edgecache.observe.slots import BUCKETS, CELL, CLASSES, MAX_OUTCOMES, ORIGIN, SITE_SLOTS, SITES_AT
from edgecache.store.diskrecord import INLINE_MAX
from edgecache.store.filebody import FileBody
from edgecache.store.memory import Record
from edgecache.store.tiers import TieredStore
from edgecache.store.volume import Put
from tests.edge.world import until

PATIENCE_S = 2.0
KIB = 1024
MAX_OBJECT = 1024 * KIB

Origin = Callable[[bytes], bytes]
"""The origin: a request's head in, the octets of the answer out."""


@dataclass(repr=False, eq=False)
class Bench:
    """An edge, its lane and its origin."""

    edge: Edge
    lane: Lane
    port: int
    origin: dict[bytes, Origin]
    """By path (without query)."""
    asked: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    tls_listener: Listener | None = None
    more: list[Listener] = field(default_factory=list)
    """Listeners beside those of the edge, which the test ends itself."""

    @property
    def arena(self) -> object:
        return self.edge._shared.arena

    @property
    def listener(self) -> Listener:
        return self.edge.listeners[0]

    def objects(self, path: str, body: bytes, *lines: str, status: str = "200 OK") -> None:
        """From now on the origin answers `path` with this."""
        head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}"))
        answer = head.encode("latin-1") + b"\r\n" + body
        self.origin[path.encode("latin-1")] = lambda _: answer

    def log(self) -> list[str]:
        """The access log lines made since the last call."""
        log = self.edge.worker._access_log
        assert log is not None
        lines, log._lines, log._bytes = list(log._lines), [], 0
        return lines + self.lane.drain_log()[0].decode("ascii").splitlines(keepends=True)

    def counts(self) -> Counter[str]:
        """The counters of the first site that do not depend on time; where they do, the number of counts."""
        arena = self.edge._shared.arena
        found: Counter[str] = Counter()
        for outcome in range(MAX_OUTCOMES):
            for kind in range(CLASSES):
                at = SITES_AT + (outcome * CLASSES + kind) * CELL
                found[f"{outcome}/{kind}"] = sum(arena.counter(at + i) for i in range(BUCKETS))
        for at in range(ORIGIN + CELL, SITE_SLOTS):
            found[f"+{at}"] = arena.counter(SITES_AT + at)
        return +found

    async def exchange(self, data: bytes, *, pieces: int = 1, tls: ssl.SSLContext | None = None) -> bytes:
        """Send `data` on a connection that has been used once, end our side, and read what comes until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        try:
            await self._warm(reader, writer)
            size = -(-len(data) // pieces) or 1
            for at in range(0, len(data), size):
                if writer.transport.is_closing():
                    break  # it has closed after an answer, as it may
                writer.write(data[at : at + size])
                if pieces > 1:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
            if not writer.transport.is_closing():
                writer.write_eof()
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            writer.transport.abort()

    async def _warm(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HEAD /warm HTTP/1.1\r\nHost: warm.example\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head

    async def both(self, data: bytes, *, pieces: int = 1) -> tuple["Told", "Told", int]:
        """What the ordinary path and the lane say to the same octets, and how many requests the lane answered.

        The ordinary path is asked once before, so that the store is as both find it.
        """
        self.lane.open = False
        if data.startswith(b"HEAD "):  # what answers it is a stored answer to GET
            await self.exchange(b"GET" + data[4:])
            await self._settled()
        await self.exchange(data)
        await self._settled()
        ordinary = await self.told(data, pieces)
        await self._settled()
        self.lane.open = True
        served = self.lane.served
        fast = await self.told(data, pieces)
        return ordinary, fast, self.lane.served - served - 1  # the lane has answered the first, HEAD /warm, too

    async def _settled(self) -> None:
        """What is written beside its way to a client is found once it is whole, and on disk."""
        slicer, store = self.edge.pipeline.slicer, self.edge.pipeline.shelf.store
        if slicer is not None and isinstance(store, TieredStore):
            await until(lambda: not slicer.tees and not slicer._tasks)
            await store.disk.flush()

    async def told(self, data: bytes, pieces: int = 1) -> "Told":
        self.log()
        before = self.counts()
        answer = await self.exchange(data, pieces=pieces)
        counts = self.counts()
        counts.subtract(before)
        lines = [line for line in self.log() if "warm" not in line]
        return Told(answer, lines, {name: count for name, count in counts.items() if count})


@dataclass(frozen=True)
class Told:
    """What one exchange came to."""

    answer: bytes
    log: list[str]
    counts: dict[str, int]


_NOW = re.compile(rb"(?<=\r\nAge: )(?P<age>\d+)|(?<=; ttl=)(?P<ttl>-?\d+)|(?<=\r\nDate: )(?P<date>[^\r]*)")
_TIMES = re.compile(r'"time":"[^"]*"|"(?:duration|ttfb|origin)":[0-9.]+|\[[^\]]*\]|(?<=; ttl=)-?\d+')
_BOUNDARY = re.compile(rb"[0-9a-f]{24}")


def keep_bodies_on_disk(bench: Bench) -> None:
    """From now on what is stored with a body too large for a row lies on disk, and memory has a reference to it, as
    after a restart; at once, so that both ways find the same."""
    store = bench.edge.pipeline.shelf.store
    assert isinstance(store, TieredStore)
    volume, in_memory = store.disk._volume, store.put

    def put(key: bytes, record: Record, body: Sequence[bytes]) -> bool:
        size = sum(map(len, body))
        below = store._keys.get(key)
        too_large = size + len(record.head) + len(record.meta) + 8 * len(record.tags) > MAX_OBJECT
        if too_large or size <= INLINE_MAX or record.flags & FLAG_PARTIAL or below is None:
            return in_memory(key, record, body)
        volume.put([Put(below, record, body, size)], 0.0)
        found = volume.get(below)
        assert found is not None
        assert found.filename is not None
        found.close()
        return store.put_file(key, record, FileBody(size, 0, found.generation, found.filename))

    store.put = put  # type: ignore[method-assign]


def assert_same(ordinary: Told, fast: Told) -> None:
    """The same octets, but for Age and ttl (by a second); the same log lines, but for times; the same counts."""
    moments, fast_moments = (
        [(match.lastgroup, _seconds(match[0])) for match in _NOW.finditer(told.answer)] for told in (ordinary, fast)
    )
    for (name, value), (fast_name, fast_value) in zip(moments, fast_moments, strict=True):
        assert name == fast_name
        assert abs(value - fast_value) <= 1, name
    # Behind the first answer there may be another's head.
    head, gap, body = _NOW.sub(b"", ordinary.answer).partition(b"\r\n\r\n")
    fast_head, fast_gap, fast_body = _NOW.sub(b"", fast.answer).partition(b"\r\n\r\n")
    assert _BOUNDARY.sub(b"", fast_head) == _BOUNDARY.sub(b"", head)
    assert fast_gap == gap
    if b"\r\nTransfer-Encoding: chunked" in head:  # passed on as it comes: in whatever pieces
        assert _unchunked(fast_body) == _unchunked(body)
    elif _BOUNDARY.search(head) is None:
        assert fast_body == body
    # The lane's lines are gathered apart from the others: two requests' may change places in the log.
    assert sorted(_TIMES.sub("T", line) for line in fast.log) == sorted(_TIMES.sub("T", line) for line in ordinary.log)
    assert fast.counts == ordinary.counts


def _unchunked(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        found += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return found


def _seconds(text: bytes) -> int:
    if text.removeprefix(b"-").isdigit():
        return int(text)
    moment = parse_date(text.decode("latin-1"), 0.0)
    assert moment is not None
    return moment


async def start(log_file: Path, /, **settings: object) -> Bench:
    """`settings`: configuration sections by name."""
    origin: dict[bytes, Origin] = {}
    made: list[Bench] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made[0].writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                made[0].asked += 1
                path = head.split(b" ", 2)[1].partition(b"?")[0]
                answer = origin.get(path, _nothing)(head)
                writer.write(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.startswith(b"HEAD ") else answer)
                if b"\r\nConnection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            made[0].writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    access = {"format": "json", "path": str(log_file), "flush_interval": "60s"}
    config = Config.model_validate(
        {
            "name": "edge-under-test",
            "origin": f"http://127.0.0.1:{port}",
            "listen": ["127.0.0.1:0"],
            "admin": {"address": "127.0.0.1:0"},
            "memory": {"size": "48MiB", "max_object": "1MiB"},
            **settings,
            "log": {"access": access | settings.get("log", {})},  # type: ignore[operator]
        }
    )
    edge = Edge(config, Shared(config), "test-token-of-some-length")
    await edge.start()
    assert edge.worker._access_log is not None
    assert edge.worker._access_log._timer is not None
    edge.worker._access_log._timer.cancel()  # the lines are taken by the tests, not written
    lane = edge.listeners[0].lane
    assert lane is not None
    bench = Bench(edge, lane, edge.listeners[0].port, origin)
    made.append(bench)
    bench.server = server  # type: ignore[attr-defined]
    bench.objects("/warm", b"warm", "Cache-Control: max-age=100000")
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    writer.write(b"GET /warm HTTP/1.1\r\nHost: warm.example\r\n\r\n")
    await reader.readuntil(b"warm")
    writer.close()
    return bench


async def stop(bench: Bench) -> None:
    if bench.tls_listener is not None:
        await bench.tls_listener.drain(1.0)
    await bench.edge.close(1.0)
    if bench.edge._shared.disk is not None:
        bench.edge._shared.disk.close()
    bench.server.close()  # type: ignore[attr-defined]
    for writer in list(bench.writers):
        writer.transport.abort()
    await bench.server.wait_closed()  # type: ignore[attr-defined]


def _nothing(_: bytes) -> bytes:
    return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nCache-Control: no-store\r\n\r\n"
