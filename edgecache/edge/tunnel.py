"""What happens after HTTP has been given up: octets both ways until both sides have finished (RFC 9110 §7.8).

Knows two `Duplex` and nothing of what flows between them. Each direction reads only when the other side has taken
what came before; the end of one direction is passed on as a half-close, and the other direction goes on.
"""

import asyncio

from edgecache.http.message import Duplex
from edgecache.http.tasks import spawn


class _Activity:
    """When the tunnel last carried an octet, and the timer that ends a silent one."""

    def __init__(self, ends: tuple[Duplex, Duplex], idle_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends = ends
        self._idle_s = idle_s
        self.last = self._loop.time()
        self._timer = self._loop.call_later(idle_s, self._look)

    def _look(self) -> None:
        left = self.last + self._idle_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            for end in self._ends:
                end.close()

    def mark(self) -> None:
        self.last = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()


async def tunnel(client: Duplex, origin: Duplex, *, idle_s: float = 3600.0) -> tuple[int, int]:
    """Pump both ways until both have ended, then close both; octets (from the client, from the origin).

    A reset of either side ends both at once. A tunnel that carries nothing for `idle_s` is closed.
    """
    activity = _Activity((client, origin), idle_s)
    upward = spawn(_pump(client, origin, activity), "tunnel-up")
    try:
        down = await _pump(origin, client, activity)
        up = await upward
    finally:
        activity.stop()
        client.close()
        origin.close()
        upward.cancel()
    return up, down


async def _pump(source: Duplex, sink: Duplex, activity: _Activity) -> int:
    moved = 0
    try:
        while data := await source.read():
            await sink.write(data)
            moved += len(data)
            activity.mark()
    except ConnectionError:
        source.close()
        sink.close()
    else:
        sink.write_eof()
    return moved
