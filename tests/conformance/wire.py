"""A whole edge between a client's socket and an origin that answers octet by octet: what is on the wire, both ways."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from edgecache.http.dates import format_date
from tests.edge.world import World, world
from tests.wirekit import Answer, RawClient

Lines = list[tuple[str, str]]


@dataclass
class Asked:
    """A request as it reached the origin."""

    method: str
    target: str
    version: str
    fields: Lines
    body: bytes = b""
    trailers: Lines = field(default_factory=list)

    def get(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    def names(self) -> list[str]:
        return [key.lower() for key, _ in self.fields]


Replies = Callable[[Asked], bytes]


@dataclass
class Wire:
    """`replies` is what the origin says, a whole message with its interim ones in front; tests put their own here."""

    world: World
    client: RawClient
    asked: list[Asked]
    replies: Replies

    async def send(self, method: str = "GET", target: str = "/", *lines: tuple[str, str], body: bytes = b"") -> None:
        text = "".join(f"{name}: {value}\r\n" for name, value in lines)
        host = f"127.0.0.1:{self.world.edge.listeners[0].port}"
        await self.client.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{text}\r\n".encode("latin-1") + body)

    async def ask(self, method: str = "GET", target: str = "/", *lines: tuple[str, str], body: bytes = b"") -> Answer:
        """One request, and its answer: the first, where there are interim ones."""
        await self.send(method, target, *lines, body=body)
        return await self.client.answer(method)

    async def fill(self, target: str = "/", *lines: tuple[str, str]) -> Answer:
        """Ask for what is not stored yet, and see that it is now."""
        first = await self.ask("GET", target, *lines)
        assert "; stored" in (first.get("cache-status") or "")
        return first


def message(*lines: tuple[str, str], status: str = "200 OK", body: bytes = b"hello", interim: bytes = b"") -> bytes:
    """A response with Content-Length, except where its status has no content."""
    fields = list(lines)
    if status[:3] not in ("204", "304"):
        fields.append(("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return interim + f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


def date(delta_s: float, now: float) -> str:
    return format_date(now + delta_s)


async def _request(reader: asyncio.StreamReader) -> Asked:
    block = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = block.removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = first.split(" ")
    asked = Asked(
        method, target, version, [(name, text.strip()) for name, _, text in (x.partition(":") for x in lines)]
    )
    if (length := asked.get("content-length")) is not None:
        asked.body = await reader.readexactly(int(length))
    elif asked.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            asked.body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            asked.trailers.append((name, value.strip()))
    return asked


@contextlib.asynccontextmanager
async def wire(replies: Replies, *, hang_up_after: bool = False, **settings: object) -> AsyncIterator[Wire]:
    """`settings`: configuration sections, as for `world`. `hang_up_after`: each answer, cut off or not."""
    made: list[Wire] = []
    running: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running[task] = writer
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    asked = await _request(reader)
                    made[0].asked.append(asked)
                    said = made[0].replies(asked)
                    if not said:
                        break  # hangs up
                    writer.write(said)
                    await writer.drain()
                    if hang_up_after:
                        break
        finally:
            running.pop(task, None)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with (
            world(origin=url, **settings) as here,
            await RawClient.connect(here.edge.listeners[0].port) as client,
        ):
            made.append(Wire(here, client, [], replies))
            yield made[0]
    finally:
        server.close()
        for task, writer in list(running.items()):
            task.cancel()
            writer.transport.abort()
        await server.wait_closed()
