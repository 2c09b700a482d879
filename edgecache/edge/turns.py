"""Turns at something of which only so much may go on at once, given in the order of asking, never waited for in vain.

The bound is there for memory, and memory gathers only where things move. So whoever waits while no turn comes free for
a while goes ahead without one.
"""

import asyncio
import contextlib
from collections import deque


class Turns:
    """Belongs to one event loop."""

    def __init__(self, at_once: int, patience_s: float) -> None:
        """`patience_s`: how long no turn may have come free before a waiter goes ahead without."""
        self._free = at_once
        self._patience_s = patience_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._given = 0.0
        """The loop's time when a turn last came free."""

    @property
    def none_left(self) -> bool:
        return self._free <= 0

    async def take(self) -> bool:
        """True with a turn, to be given back; False without one."""
        if self._free > 0:
            self._free -= 1
            return True
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        since = loop.time()
        try:
            while loop.time() < (until := max(since, self._given) + self._patience_s):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        await asyncio.shield(turn)
                if turn.done():
                    return True
        except asyncio.CancelledError:
            if turn.done():
                self.give_back()
            raise
        finally:
            if not turn.done():
                self._waiting.remove(turn)
        return False

    def give_back(self) -> None:
        self._given = asyncio.get_running_loop().time()
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1
