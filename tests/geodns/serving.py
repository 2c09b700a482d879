"""A real `edgecache geodns`, PoPs that answer its checks, and a client."""

import asyncio
import contextlib
import re
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import dns.message
import dns.query

from tests.e2e.edge import Process
from tests.geodns.world import make

ANSWERING = re.compile(r"dns://127\.0\.0\.1:(\d+)")


class PopServer:
    """A PoP as a health check sees it: HTTP on an address of its own, alive or dead at once."""

    def __init__(self, host: str, port: int = 0) -> None:
        self.host = host
        self.port = port
        self.status = 200
        self.body = b"fine"
        self.agents: list[str] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.agents += re.findall(r"(?im)^user-agent: (.*)\r$", head)
            head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + self.body)
            await writer.drain()
        writer.close()


class Running:
    def __init__(self, process: Process, file: Path) -> None:
        self.process = process
        self.file = file
        (self.admin_port,) = process.ports()
        match = next(found for line in process.lines if (found := ANSWERING.search(line)))
        self.port = int(match[1])
        self.admin = f"http://127.0.0.1:{self.admin_port}"

    def ask(self, name: str, kind: str = "A", *, client: str | None = None, tcp: bool = False) -> dns.message.Message:
        query = make(name, kind, client=client)
        by = dns.query.tcp if tcp else dns.query.udp
        return by(query, "127.0.0.1", port=self.port, timeout=10)

    def until(self, text: str, timeout_s: float = 30.0) -> None:
        """Until its log says so."""
        done = threading.Event()
        for _ in range(int(timeout_s / 0.05)):
            if any(text in line for line in self.process.lines):
                return
            done.wait(0.05)
        raise AssertionError(f"{text!r} was not logged: {self.process.lines[-10:]}")


def start(folder: Path, text: str) -> Running:
    file = folder / "geodns.yaml"
    file.write_text(f'listen: ["127.0.0.1:0"]\nadmin: {{address: "127.0.0.1:0"}}\n{text}', encoding="utf-8")
    return Running(Process("geodns", "-c", str(file), signs=("admin API on",)), file)


@contextlib.contextmanager
def geodns(text: str) -> Iterator[Running]:
    """On ports of its own; it must end with 0."""
    with tempfile.TemporaryDirectory() as name:
        running = start(Path(name), text)
        try:
            yield running
        except BaseException:
            running.process.stop()
            running.process.show()
            raise
        assert running.process.stop() == 0, running.process.lines


@contextlib.asynccontextmanager
async def beside(text: str) -> AsyncIterator[Running]:
    """The same beside PoPs in this loop."""
    with tempfile.TemporaryDirectory() as name:
        running = await asyncio.to_thread(start, Path(name), text)
        try:
            yield running
        except BaseException:
            await asyncio.to_thread(running.process.stop)
            running.process.show()
            raise
        assert await asyncio.to_thread(running.process.stop) == 0, running.process.lines
