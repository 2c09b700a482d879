"""When a feed that has lost its connection tries again, and the loop that does so; whatever the connection is."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from edgecache.purge.bus import BusError, FeedEvent, Lost


@dataclass(frozen=True, slots=True)
class Pace:
    """When to try again: from `first_s` doubling to `most_s`, each time a random part of it, so that a thousand edges
    do not come back in the same instant."""

    first_s: float = 0.5
    most_s: float = 30.0
    steady_s: float = 10.0
    """A connection that lasted so long was good: after it the pace begins anew."""
    connect_s: float = 10.0

    def delay(self, failures: int, part: float) -> float:
        """`part`: 0 to 1, by chance."""
        return float(min(self.most_s, self.first_s * 2 ** min(failures, 16)) * (0.1 + 0.9 * part))


PACE: Final = Pace()


class FeedError(Exception):
    """Why there is no connection; one line."""


async def reconnecting(
    connect: Callable[[], AsyncGenerator[FeedEvent, None]],
    closing: asyncio.Event,
    pace: Pace,
    chance: Callable[[], float],
) -> AsyncGenerator[FeedEvent, None]:
    """The events of one connection after another, `Lost` between them, until `closing` is set.

    `connect` gives one connection's events, and ends by `FeedError` or `BusError`. `chance`: 0 to 1.
    """
    failures = 0
    clock = asyncio.get_running_loop().time
    while not closing.is_set():
        begun = clock()
        connection = connect()
        try:
            async for event in connection:
                yield event
            reason = "the edge stops"
        except FeedError as error:
            reason = str(error)
        except BusError as error:
            reason = error.detail
        finally:
            await connection.aclose()
        if closing.is_set():
            return
        failures = 0 if clock() - begun >= pace.steady_s else failures + 1
        retry_s = pace.delay(failures, chance())
        yield Lost(reason, retry_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closing.wait(), retry_s)
