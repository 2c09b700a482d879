"""Numbers that the origin, the director and the clients of a run see at the same moment: a file that all have mapped.

    cell 0 … SWITCHES-1            `Cell`: what the origin shall do, which round it is
    VERSIONS_AT + key              the version of a key's content at the origin
    FLOORS_AT + key                the version below which nothing may be seen any more: its purge has returned

One process writes a cell. An aligned 64-bit number is written and read in one piece.
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

KEYS = 4096
SWITCHES = 64
VERSIONS_AT = SWITCHES
FLOORS_AT = VERSIONS_AT + KEYS
CELLS = FLOORS_AT + KEYS


class Cell(IntEnum):
    MODE = 0
    """What the origin does: 0 answers, 1 answers 503."""
    DELAY_MS = 1
    """How long it takes over every answer."""
    ROUND = 2
    ORIGIN_REQUESTS = 3
    """Requests the origin has seen, over its restarts."""
    ORIGIN_OCTETS = 4
    """Octets of bodies it has been asked to send."""
    STOP = 5
    """1: clients stop asking."""


class Board:
    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        if create:
            path.write_bytes(bytes(8 * CELLS))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * CELLS)
        self._cells = memoryview(self._map).cast("Q")

    def __getitem__(self, cell: int) -> int:
        return self._cells[cell]

    def __setitem__(self, cell: int, value: int) -> None:
        self._cells[cell] = value

    def version(self, key: int) -> int:
        return self._cells[VERSIONS_AT + key]

    def floor(self, key: int) -> int:
        return self._cells[FLOORS_AT + key]

    def publish(self, key: int) -> int:
        """The next version of a key is what the origin has from now on."""
        self._cells[VERSIONS_AT + key] += 1
        return self._cells[VERSIONS_AT + key]

    def purged(self, key: int, version: int) -> None:
        """The purge that came after this version was published has returned."""
        self._cells[FLOORS_AT + key] = version

    def close(self) -> None:
        self._cells.release()
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
