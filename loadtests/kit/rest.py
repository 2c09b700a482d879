"""What an edge's processes hold while nobody asks for anything: the moments that a long run compares.

Descriptors are told apart by what they are open on. Sockets, files, pipes, eventfds are to be as many as before, one by
one. A connection to a database is another matter: each thread opens its own when it first needs one, and keeps it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecache.observe.tasks import PERIOD_S
from loadtests.kit.processes import Edge, Process

_DATABASE = re.compile(r"/(\w+\.db)(-wal|-shm)?$")
_UNNAMED = re.compile(r"(socket|pipe):\[\d+\]")
_ESTABLISHED = "01"
"""In the column `st` of proc(5) /proc/PID/net/tcp."""
REST_S = 40.0
"""For idle connections to end, generations that finish, and for tasks to be counted again."""


def role(name: str) -> str:
    """What a process is, whichever of its kind."""
    return {"edgecache": "supervisor", "edgecache-ctl": "control process"}.get(name, "worker")


def is_worker(name: str) -> bool:
    return role(name) == "worker"


@dataclass(frozen=True, slots=True)
class Held:
    """One process's descriptors at a moment."""

    process: Process
    kinds: Counter[str]
    """By what they are open on, without those on databases."""
    databases: Counter[str]
    """Connections, by the database's name."""
    database_files: int

    @property
    def files(self) -> int:
        return self.kinds.total() + self.database_files


def kinds_of(targets: Iterable[str]) -> tuple[Counter[str], Counter[str], int]:
    """The links of a /proc/PID/fd: by kind, connections by database, and how many descriptors the latter have."""
    kinds: Counter[str] = Counter()
    databases: Counter[str] = Counter()
    files = 0
    for target in targets:
        if found := _DATABASE.search(target):
            files += 1
            databases[found[1]] += found[2] is None
        else:
            kinds[_UNNAMED.sub(r"\1", target)] += 1
    return kinds, databases, files


def targets(pid: int) -> list[str]:
    folder, found = f"/proc/{pid}/fd", []
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"{folder}/{name}"))
    return found


def clients_of(pid: int, port: int) -> int:
    """The connections of clients that a process has now, on this port."""
    own = {target[8:-1] for target in targets(pid) if target.startswith("socket:[")}
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        return sum(row[1].endswith(f":{port:04X}") and row[3] == _ESTABLISHED and row[9] in own for row in rows)
    return 0


@dataclass(frozen=True, slots=True)
class Rest:
    """A moment at which nothing is under way."""

    stats: dict[str, Any]
    held: tuple[Held, ...]

    def of(self, which: str) -> list[Held]:
        return [held for held in self.held if role(held.process.name) == which]


def look(edge: Edge) -> Rest:
    stats = edge.stats()
    time.sleep(0.05)  # the connection over which that was asked is gone
    return Rest(stats, tuple(Held(process, *kinds_of(targets(process.pid))) for process in edge.processes()))


def come_to_rest(edge: Edge, like: Rest | None, seconds: float = REST_S) -> Rest:
    """Wait until nothing is under way, and, with `like`, until no more is held than then; or until time is up."""
    until = time.monotonic() + seconds
    time.sleep(2 * PERIOD_S)  # tasks are counted now and then
    # The control process opens what it keeps purges in with the first one.
    edge.purge(keys=["nobody-has-this-key"])
    while True:
        now = look(edge)
        if (_still(now) and (like is None or not more_than(now, like))) or time.monotonic() > until:
            return now
        time.sleep(1.0)


def _still(now: Rest) -> bool:
    return now.stats["connections"] == 0 and now.stats["fills"] == 0


def more_than(now: Rest, before: Rest) -> list[str]:
    """What is held beyond what was held before, as phrases; none: nothing has grown."""
    found = []
    if len(now.held) != len(before.held):
        found.append(f"{len(now.held)} processes instead of {len(before.held)}")
    if now.stats["tasks"] > before.stats["tasks"]:
        found.append(f"{now.stats['tasks']} tasks instead of {before.stats['tasks']}")
    for which in sorted({role(held.process.name) for held in now.held}):
        usual: Counter[str] = Counter()
        for held in before.of(which):
            usual |= held.kinds
        for held in now.of(which):
            name = held.process.name
            found += [
                f"{name} has {count} of {kind} instead of {usual[kind]}"
                for kind, count in sorted(held.kinds.items())
                if count > usual[kind]
            ]
            found += [
                f"{name} has {count} connections to {database} for {held.process.threads} threads"
                for database, count in sorted(held.databases.items())
                if count > held.process.threads
            ]
    return found
