"""Request traces: what was asked for, in order, and how large it is. Reads NAME.req.xz, or makes one by Zipf's law.

The format: an xz stream of one JSON line `{"name", "requests", "objects"}`, then three columns of little-endian uint32,
one after the other: time[requests] in seconds, obj[requests], size[objects] in octets. What is read is checked, since
the arena's trace player trusts it.
"""

from __future__ import annotations

import json
import lzma
import random
import sys
from array import array
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

MOST = 1 << 28
"""Requests, and objects: a gigabyte a column."""
HEAD = 64 << 10


class BadTrace(Exception):
    """The file is no trace; the message says what is wrong with it."""


@dataclass(frozen=True)
class Trace:
    """Objects have numbers below len(sizes)."""

    name: str
    asked: array[int]
    sizes: array[int]

    @property
    def footprint(self) -> int:
        """Octets of all objects."""
        return sum(self.sizes)

    @property
    def octets(self) -> int:
        """Octets of all that is asked for."""
        sizes = self.sizes
        return sum(sizes[number] for number in self.asked)


def read(path: Path) -> Trace:
    """The trace in a file; BadTrace if there is none."""
    try:
        with lzma.open(path) as stream:
            return _parse(stream, path.name.removesuffix(".xz").removesuffix(".req"))
    except (OSError, lzma.LZMAError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadTrace(f"{path}: {reason}") from error
    except BadTrace as error:
        raise BadTrace(f"{path}: {error}") from error


def _parse(stream: IO[bytes], name: str) -> Trace:
    line = stream.readline(HEAD)
    try:
        head = json.loads(line)
    except ValueError:
        head = None
    if not isinstance(head, dict):
        raise BadTrace("the first line is not a JSON object")
    requests, objects = _count(head, "requests"), _count(head, "objects")
    _column(stream, "time", requests)
    asked = _column(stream, "obj", requests)
    sizes = _column(stream, "size", objects)
    if stream.read(1):
        raise BadTrace("there is more after the last column")
    if max(asked) >= objects:
        raise BadTrace(f"object {max(asked)} is asked for, of {objects} (counted from 0)")
    if not any(sizes):
        raise BadTrace("no object has a size")
    return Trace(str(head.get("name", name)), asked, sizes)


def _count(head: dict[str, Any], key: str) -> int:
    value = head.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise BadTrace(f'"{key}" in the first line must be a number from 1 to {MOST}, not {value!r}')
    return value


def _column(stream: IO[bytes], name: str, length: int) -> array[int]:
    octets = stream.read(4 * length)
    if len(octets) < 4 * length:
        raise BadTrace(f"column {name} has {len(octets)} octets where {4 * length} are due")
    column = array("I", octets)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def zipf(*, objects: int = 100_000, requests: int = 1_000_000, exponent: float = 0.9, seed: int = 1) -> Trace:
    """Requests drawn one by one, with no memory: popularity by Zipf's law, sizes log-normal about a median of 10 KiB,
    the one not knowing of the other. Objects that nobody asks for are left out."""
    draw = random.Random(seed)
    weights = list(accumulate(rank**-exponent for rank in range(1, objects + 1)))
    numbers: dict[int, int] = {}
    asked = array("I")
    for rank in draw.choices(range(objects), cum_weights=weights, k=requests):
        asked.append(numbers.setdefault(rank, len(numbers)))
    sizes = array("I", (min(round(draw.lognormvariate(9.2, 1.3)), 16 << 20) for _ in numbers))
    return Trace(f"zipf-{exponent:g}", asked, sizes)
