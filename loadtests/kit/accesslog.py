"""An access log in common or combined log format, read as a trace: which object, in which order, how large it is.

GET requests that were answered 200 or 304 count; an object is a URL as it stands in the log, with the size of its
largest answer. What has no size anywhere (only 304), and lines of another form, are left out and counted.
"""

from __future__ import annotations

import gzip
import re
from array import array
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.tracefile import BadTrace, Trace

_LINE = re.compile(rb'\S+ \S+ .*?\[[^\]]*\] "([A-Z]+) (\S+)[^"]*" (\d{3}) (\d+|-)')


@dataclass(frozen=True, slots=True)
class Read:
    trace: Trace
    left_out: int


def read(path: Path) -> Read:
    """Raises `BadTrace`. A name ending in .gz is unpacked."""
    numbers: dict[bytes, int] = {}
    sizes: list[int] = []
    asked: list[int] = []
    left_out = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for line in lines:
                found = _LINE.match(line)
                if found is None or found[1] != b"GET" or found[3] not in (b"200", b"304"):
                    left_out += 1
                    continue
                number = numbers.setdefault(found[2], len(numbers))
                if number == len(sizes):
                    sizes.append(0)
                if found[3] == b"200" and found[4] != b"-":
                    sizes[number] = max(sizes[number], min(int(found[4]), (1 << 32) - 1))
                asked.append(number)
    except (OSError, EOFError) as error:
        raise BadTrace(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    known = [number for number in asked if sizes[number]]
    left_out += len(asked) - len(known)
    if not known:
        raise BadTrace(f"{path}: no line is a GET in common log format that was answered 200 with a size")
    return Read(Trace(path.name, array("I", known), array("I", sizes)), left_out)
