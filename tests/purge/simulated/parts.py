"""What the simulated fleet is made of beside its machines: an origin, requests, disks, and WebSockets' ends."""

import asyncio
import random
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp

from edgecache.http.errors import OriginError
from edgecache.http.headers import Headers
from edgecache.http.message import BodyStream, EmptyBody, Request, Response
from edgecache.store.memory import Record
from edgecache.store.volume import Patterns
from tests.purge.simulated.world import Machine, VirtualLoop, Wire

PATHS = ("/a/1", "/a/2", "/b/1")
Versions = dict[str, int]
"""By path: nothing older may be served. By "!" and the path: not even where the origin fails, which lets what is
soft-purged be used."""


def wall() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.wall()


# --- the origin ---


class SimBody:
    trailers = None

    def __init__(self, data: bytes, pauses: list[float]) -> None:
        self.length: int | None = len(data)
        self._data = data
        self._pauses = pauses

    async def read(self) -> bytes:
        if self._pauses:
            await asyncio.sleep(self._pauses.pop())
            piece, self._data = self._data[:9], self._data[9:]
            return piece
        piece, self._data = self._data, b""
        return piece

    def close(self) -> None:
        self._data = b""


class SimOrigin:
    """Each path has a version, which is read when the answer begins; the rest may come much later."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.versions: Versions = dict.fromkeys(PATHS, 1)
        self.down = False
        self.asked = 0

    async def send(
        self, request: Request, body: BodyStream, *, on_interim: Callable[[Response], None] | None = None
    ) -> Any:
        self.asked += 1
        chance = self._chance
        await asyncio.sleep(chance.random() ** 4)
        if self.down:
            raise OriginError("refused", code="connect")
        version = self.versions[request.target]
        await asyncio.sleep(chance.random() ** 4 * 3)
        if chance.random() < 0.05:
            return _answer(Response(503, "Busy", Headers([])), SimBody(b"", []))
        fields = [
            ("Cache-Control", chance.choice(("max-age=600", "max-age=600", "max-age=3", "max-age=0"))),
            ("Surrogate-Key", f"page {request.target.replace('/', '-')}"),
            ("ETag", f'"{version}"'),
        ]
        if chance.random() < 0.3:
            fields.append(("Vary", "Accept-Language"))
        if request.headers.get("if-none-match") == f'"{version}"':
            return _answer(Response(304, "", Headers(fields)), SimBody(b"", []))
        text = f"{version}:{request.target}".encode()
        pauses = [chance.random() ** 2 * 2 for _ in range(chance.randrange(3))] if chance.random() < 0.3 else []
        fields.append(("Content-Length", str(len(text))))
        return _answer(Response(200, "OK", Headers(fields)), SimBody(text, pauses))

    async def close(self) -> None:
        pass


def _answer(head: Response, body: SimBody) -> SimpleNamespace:
    return SimpleNamespace(head=head, body=body, upgraded=None, sent_at=0.0)


# --- a client's request ---


class SimExchange:
    hsts = None
    upgrade = None
    bytes_in = 0
    started_at = 0.0

    def __init__(self, request: Request) -> None:
        self.request = request
        self.body = EmptyBody()
        self.received_at = wall()
        self.response: Response | None = None
        self.data = b""
        self.whole = False

    @property
    def started(self) -> bool:
        return self.response is not None

    def interim(self, response: Response) -> None:
        pass

    def start(self, response: Response, length: int | None) -> None:
        self.response = response

    async def write(self, data: bytes) -> None:
        self.data += data

    def finish(self, trailers: Headers | None = None) -> None:
        self.whole = True

    def abort(self) -> None:
        self.whole = False


# --- what is on an edge's disk ---


class SimDisk:
    """The disk tier as `TieredStore` sees it: written behind, so that what is queued is lost with the machine."""

    path = Path("/simulated")
    on = True

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.content: dict[bytes, tuple[int, Record, bytes]] = {}
        self._generation = 0
        self.found = 0
        self.purged: Callable[[int, Iterable[int], int], int] = lambda _seq, _tags, _proved: 0
        self.proved: Callable[[], int] = lambda: 0
        self.clean_through = -1
        self.machine: Machine | None = None
        self.patterns: Patterns | None = None

    def heed(self, patterns: Patterns) -> None:
        self.patterns = patterns

    def _overtaken(self, record: Record) -> bool:
        if self.patterns is not None and record.tags:
            if self.patterns.late(record.fill_seq):
                return True
            self.patterns.settle(record.meta, record.tags, record.fill_seq)
        return bool(self.purged(record.fill_seq, record.tags, 0))

    def _later(self, work: Callable[[], object]) -> bool:
        machine = self.machine
        delay = self._chance.random() ** 3 * 2
        asyncio.get_running_loop().call_later(delay, lambda: work() if machine is not None and machine.alive else None)
        return True

    def put(
        self, key: bytes, record: Record, body: Iterable[bytes], stored: Callable[[int], None] | None = None
    ) -> bool:
        data = b"".join(body)

        def work() -> None:
            if not self._overtaken(record):
                self._generation += 1
                self.content[key] = (self._generation, record, data)
                if stored is not None:
                    stored(self._generation)

        return self._later(work)

    def freshen(self, key: bytes, generation: int, record: Record) -> bool:
        return False

    def remove(self, key: bytes, generation: int = 0) -> None:
        def work() -> None:
            if not generation or self.content.get(key, (0,))[0] == generation:
                self.content.pop(key, None)

        self._later(work)

    def removing(self, key: bytes) -> bool:
        return False

    def used(self, key: bytes, times: int = 1) -> None:
        pass

    async def get(self, key: bytes) -> Any:
        await asyncio.sleep(self._chance.random() ** 6 * 0.5)
        found = self.content.get(key)
        if found is None:
            return None
        generation, record, data = found
        proved = self.proved()
        state = self.purged(record.fill_seq, record.tags, proved)
        if state == 2:
            return None
        self.found += 1
        return SimpleNamespace(
            record=record,
            soft_purged=state == 1,
            proved=proved,
            body_size=len(data),
            generation=generation,
            in_file=False,
            filename=None,
            read=lambda offset, size: data[offset : offset + size],
            close=lambda: None,
        )

    def sweep(self, sequence: int) -> None:
        """Drop what hard purges up to this number cover, and have the rest compared with the patterns in force."""
        for key, (_, record, _) in list(self.content.items()):
            if record.tags and self.patterns is not None:
                self.patterns.settle(record.meta, record.tags, record.fill_seq)
            if self.purged(record.fill_seq, record.tags, self.proved()) == 2:
                del self.content[key]
        self.clean_through = sequence

    def forget_all(self) -> None:
        self.content.clear()


# --- wires ---


class SimSocket:
    """Either end of a WebSocket."""

    def __init__(self, out: Wire, into: Wire) -> None:
        self._out = out
        self._into = into

    async def send_str(self, text: str) -> None:
        if self._out.cut:
            raise ConnectionResetError("cut")
        self._out.send(aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, text, None))

    async def receive(self, timeout: float | None = None) -> aiohttp.WSMessage:  # noqa: ASYNC109 - as aiohttp's
        async with asyncio.timeout(timeout):
            return await self._into.arrived.get()  # type: ignore[no-any-return]

    async def close(self, *, code: int = 0, message: bytes = b"") -> None:
        closed = aiohttp.WSMessage(aiohttp.WSMsgType.CLOSED, None, None)
        self._out.send(closed)
        self._into.arrived.put_nowait(closed)


class SimConnection:
    """The coordinator's end, as its hub writes to it."""

    address = "10.0.0.1"

    def __init__(self, socket: SimSocket, out: Wire) -> None:
        self._socket = socket
        self._out = out

    def write(self, frame: bytes) -> None:
        size, at = frame[1] & 127, 2
        if size == 126:
            (size,), at = struct.unpack_from(">H", frame, 2), 4
        elif size == 127:
            (size,), at = struct.unpack_from(">Q", frame, 2), 10
        assert len(frame) == at + size
        self._out.send(aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, frame[at:].decode(), None))

    def backlog(self) -> int:
        return 0

    async def send(self, text: str) -> None:
        await self._socket.send_str(text)

    def cut(self, reason: str) -> None:
        self._out.send(aiohttp.WSMessage(aiohttp.WSMsgType.CLOSED, None, None))
