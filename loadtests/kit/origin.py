"""The origin of load tests, as a process: `python -m loadtests.kit.origin --port P --board FILE --log FILE`.

What a path says is what it answers: `/KIND/NUMBER-SIZE`. Every request is a line of the log, `monotonic seconds of its
arrival, path, status, octets`, so that promises about the origin can be checked afterwards, over restarts too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import uvloop
from aiohttp import web

from loadtests.kit.board import KEYS, Board, Cell
from loadtests.kit.content import octets, versioned

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of path is answered."""

    cache_control: str
    delay_s: float = 0.0
    """Before the head."""
    pause_s: float = 0.0
    """Between the halves of the body."""
    versioned: bool = False
    vary: str = ""


KINDS = {
    "o": Kind("max-age=3600"),
    "v": Kind("max-age=3600", versioned=True),
    "api": Kind("max-age=1, stale-while-revalidate=60", delay_s=0.2, versioned=True),
    "stale": Kind("max-age=1, stale-if-error=3600"),
    "cold": Kind("max-age=3600", delay_s=0.3, pause_s=0.4, vary="Accept-Encoding"),
    "film": Kind("max-age=3600"),
    "private": Kind("no-store"),
}
"""Cache-Control of each, and what else is special about it."""

_PATH = re.compile(r"/([a-z]+)/(\d{1,18})-(\d{1,12})")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


_SINCE_RECEIVED = struct.Struct("52xI")
"""Of Linux's struct tcp_info: tcpi_last_data_recv, milliseconds."""


def _lying(request: web.Request) -> float:
    """Seconds since the request came to this machine's kernel, and lay there until this process had its turn."""
    assert request.transport is not None
    information = request.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56)
    return float(_SINCE_RECEIVED.unpack(information)[0]) / 1000


class Origin:
    def __init__(self, board: Board, log: TextIO) -> None:
        self._board = board
        self._log = log

    async def answer(self, request: web.Request) -> web.StreamResponse:
        arrived = time.monotonic() - _lying(request)
        found = _PATH.fullmatch(request.path)
        kind = KINDS.get(found[1]) if found else None
        if found is None or kind is None:
            raise web.HTTPNotFound(text="paths are /KIND/NUMBER-SIZE\n")
        number, size = int(found[2]), int(found[3])
        board = self._board
        board[Cell.ORIGIN_REQUESTS] += 1
        failing = board[Cell.MODE] == 1
        self._log.write(f"{arrived:.6f} {request.path} {503 if failing else 200} {size}\n")
        if delay := kind.delay_s + board[Cell.DELAY_MS] / 1000:
            await asyncio.sleep(delay)
        if failing:
            return web.Response(status=503, text="out of order\n")
        key = number % KEYS
        version = board.version(key) if kind.versioned else 0
        etag = f'"{number}-{size}-{version}"'
        headers = {
            "Cache-Control": kind.cache_control,
            "ETag": etag,
            "Surrogate-Key": f"key-{key} kind-{found[1]}",
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if kind.vary:
            headers["Vary"] = kind.vary
        if kind.cache_control != "no-store" and etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        begin, end, status = 0, size, 200
        wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
        if wanted and int(wanted[1]) < size and request.headers.get("If-Range", etag) == etag:
            begin, end, status = int(wanted[1]), min(int(wanted[2] or size - 1) + 1, size), 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        board[Cell.ORIGIN_OCTETS] += end - begin
        if kind.versioned:
            return web.Response(body=versioned(number, version, size), headers=headers)
        if end - begin <= PIECE and not kind.pause_s:
            return web.Response(status=status, body=octets(number, begin, end), headers=headers)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - begin
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # whoever asked may go
            if kind.pause_s:
                half = min((end - begin) // 2, PIECE)
                await response.write(octets(number, begin, begin + half))
                begin += half
                await asyncio.sleep(kind.pause_s)
            for at in range(begin, end, PIECE):
                await response.write(octets(number, at, min(at + PIECE, end)))
        return response


async def serve(port: int, board: Path, log: Path) -> None:
    """Until SIGTERM. Says its port on standard output."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with Board(board) as shared, log.open("a", buffering=1) as lines:
        app = web.Application()
        app.router.add_get("/{path:.*}", Origin(shared, lines).answer)
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        door = socket.create_server(("127.0.0.1", port), backlog=4096)
        await web.SockSite(runner, door).start()
        print(door.getsockname()[1], flush=True)
        await stop.wait()
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--board", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    if not options.board.exists():
        Board(options.board, create=True).close()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.port, options.board, options.log))


if __name__ == "__main__":
    main()
