"""One fetch per key among the workers of a node (DESIGN §8): leases in the arena, and bells to wake those who wait.

A bell is an eventfd of each process, made before the fork: whoever ends a lease rings those who noted that they
wait. Nothing polls; a wait that nobody ends is over with the lease's time, or when its holder is buried.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence

from edgecache._native.inflight import Leases

LEASE_S = 30.0
"""Longest that others wait for one fetch. A fetch that takes longer goes on, without others waiting for it."""
WAIT = 0


def make_bells(processes: int) -> tuple[int, ...]:
    """An eventfd for each process slot: before the first fork."""
    return tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(processes))


def ring(bells: Sequence[int], processes: int) -> None:
    """Wake the processes whose bits are set."""
    while processes:
        slot = (processes & -processes).bit_length() - 1
        processes &= processes - 1
        os.eventfd_write(bells[slot], 1)


class FillLeases:
    """The leases of one worker."""

    def __init__(self, table: Leases, bells: Sequence[int], slot: int, clock: Callable[[], float]) -> None:
        self._table = table
        self._bells = bells
        self._bell = bells[slot]
        self._clock = clock
        self._waiting: dict[bytes, list[asyncio.Future[None]]] = {}

    def start(self) -> None:
        """Listen for the bell, in the running loop."""
        asyncio.get_running_loop().add_reader(self._bell, self._rung)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._bell)
        for key in list(self._waiting):
            self._wake(key)

    def acquire(self, key: bytes, *, fill_seq: int, sequence: int) -> int:
        """A token to fetch with, `WAIT`, or -1 where the table has no room (fetch all the same)."""
        return self._table.acquire(key, fill_seq, sequence, self._clock(), LEASE_S)

    def release(self, key: bytes, token: int) -> None:
        if token > 0:
            ring(self._bells, self._table.release(key, token))

    async def wait(self, key: bytes) -> None:
        """Return when the other's lease on this key has ended: whoever waits looks again.

        Call it in the same step of the loop as the `acquire` that said `WAIT`: a bell rung since then is not lost.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(waiter)
        try:
            with contextlib.suppress(TimeoutError):  # the lease is over: the next to ask takes it
                async with asyncio.timeout(LEASE_S):
                    await waiter
        finally:
            left = self._waiting.get(key, [])
            if waiter in left:
                left.remove(waiter)
                if not left:
                    del self._waiting[key]

    def held(self, key: bytes) -> bool:
        """Does any worker fetch this?"""
        return self._table.held(key, self._clock())

    def _rung(self) -> None:
        """Some lease has ended: one of those waited for here, though not all."""
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return
        for key in list(self._waiting):
            if not self._table.waits(key, self._clock()):
                self._wake(key)

    def _wake(self, key: bytes) -> None:
        for waiter in self._waiting.pop(key, []):
            if not waiter.done():
                waiter.set_result(None)
