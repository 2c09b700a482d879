"""A raw origin that a test drives byte by byte: it sends what it is told, when it is told, and counts requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name; the last of repeated ones."""


class Answer:
    """The way back to the edge."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def head(self, fields: str, status: str = "200 OK") -> None:
        lines = [f"HTTP/1.1 {status}", *(line.strip() for line in fields.split("|")), "", ""]
        await self.send("\r\n".join(lines).encode())

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def whole(self, body: bytes, fields: str, status: str = "200 OK") -> None:
        await self.head(f"{fields}|Content-Length: {len(body)}", status)
        await self.send(body)


Handler = Callable[[Asked, Answer], Awaitable[None]]


class Origin:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen: list[Asked] = []
        self._grew = asyncio.Condition()

    async def note(self, asked: Asked) -> None:
        async with self._grew:
            self.seen.append(asked)
            self._grew.notify_all()

    def count(self, target: str) -> int:
        return sum(asked.target == target for asked in self.seen)

    async def asked(self, target: str, times: int, within_s: float = 60) -> None:
        """Returns once `target` has been asked for so often."""
        async with asyncio.timeout(within_s), self._grew:
            await self._grew.wait_for(lambda: self.count(target) >= times)


@contextlib.asynccontextmanager
async def origin(handler: Handler) -> AsyncIterator[Origin]:
    """Requests here have no body."""
    connections: set[asyncio.Task[None]] = set()
    failures: list[Exception] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                pairs = (line.partition(":") for line in head[1:] if line)
                asked = Asked(method, target, {name.lower(): value.strip() for name, _, value in pairs})
                await it.note(asked)
                await handler(asked, Answer(writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:
            failures.append(error)
        finally:
            connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    it = Origin(server.sockets[0].getsockname()[1])
    try:
        yield it
    finally:
        server.close()
        for task in tuple(connections):
            task.cancel()
        if connections:
            await asyncio.wait(tuple(connections))
        await server.wait_closed()
    assert not failures, failures
