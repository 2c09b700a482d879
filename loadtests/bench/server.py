"""What a server under test is: a name, a version, and what to write and start for a given `Setup`.

Nothing here starts anything: a server describes its `Launch`, `process.Running` carries it out.
"""

import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from .rows import Row, Work

MIB = 1024 * 1024


class Kind(StrEnum):
    """What is expected of a server's answers."""

    CACHE = "cache"  # hits do not reach the origin
    ORIGIN = "origin"  # answers by itself, the same objects
    FLOOR = "floor"  # answers by itself, canned


@dataclass(frozen=True, slots=True)
class Setup:
    """Where and how one instance of a server is to run. Addresses are on loopback.

    `tls` is whether a row asks for it; a server may listen on `tls_port` all the same.
    """

    directory: Path
    port: int
    tls_port: int
    spare_ports: tuple[int, ...]
    origin_port: int
    certificate: Path
    key: Path
    tools: Path
    workers: int = 1
    tls: bool = False
    memory_bytes: int = 512 * MIB
    disk: Path | None = None
    """Where the cache is to lie on a disk; None where it is to lie in memory."""
    disk_bytes: int = 4096 * MIB

    @property
    def log(self) -> Path:
        """The access log, one line per request."""
        return self.directory / "access.log"


@dataclass(frozen=True, slots=True)
class Command:
    """A process to start. Its output goes to `output`, opened for appending."""

    arguments: tuple[str, ...]
    output: Path
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start, in order; each is started once the one before answers or, without a port, at once.

    `log` is None for a server that logs nothing. `on_disk` is a directory whose bytes are part of the cache but not of
    any process's memory. `ports` are the plain ports by body size for a server that cannot tell paths apart.
    """

    commands: tuple[Command, ...]
    log: Path | None
    on_disk: Path | None = None
    ports: dict[int, int] = field(default_factory=dict)


class Server(Protocol):
    """A server that can be measured."""

    name: str
    kind: Kind
    settings: str
    forgets_memory: bool
    """Started anew it has on disk what it had, and nothing in memory: how it is brought to hits from disk."""

    def missing(self) -> str | None:
        """Why it cannot run here and what would change that, or None."""
        ...

    def version(self) -> str:
        """The version it reports."""
        ...

    def leaves_out(self, row: Row) -> str | None:
        """Why a row is not for this server, or None."""
        ...

    def prepare(self, setup: Setup) -> Launch:
        """Writes its configuration into `setup.directory` and says what to start."""
        ...


def not_installed(program: str, package: str) -> str | None:
    """What to say when a program is missing."""
    return None if shutil.which(program) else f"{program} is not installed: apt-get install {package}"


def floor_row(row: Row) -> str | None:
    """The rows a canned answer can stand beside."""
    if row.tls:
        return "the floor speaks no TLS"
    if row.work is Work.DISK:
        return "the floor has no disk"
    if row.work is Work.PASS:
        return "the floor passes nothing through; the origin alone stands beside this row"
    if row.workers > 1:
        return "the floor is one thread"
    return None
