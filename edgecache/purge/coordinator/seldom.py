"""Lines about who is turned away: whoever reaches the port could fill the log with them."""

import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0
MOST: Final = 100
"""Different lines in that time."""


class Seldom:
    """Says which lines may be written: each once in a while, and not too many."""

    def __init__(self, *, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._said: dict[str, float] = {}

    def may(self, line: str) -> bool:
        now = self._clock()
        while self._said and next(iter(self._said.values())) <= now - self._every_s:
            del self._said[next(iter(self._said))]
        if line in self._said or len(self._said) >= MOST:
            return False
        self._said[line] = now
        return True
