"""What the tests of the disk tier share: records, a purge table, a volume."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from edgecache.store.memory import Record
from edgecache.store.volume import Put, Volume

NOW = 1_800_000_000.25
FAR = 4_000_000_000.0


def key(text: object) -> bytes:
    return hashlib.blake2b(str(text).encode(), digest_size=16).digest()


def record(
    text: object = "", *, fill_seq: int = 0, tags: tuple[int, ...] = (), until: float = FAR, status: int = 200
) -> Record:
    head = f"HTTP/1.1 200 OK\r\nx-name: {text}\r\n".encode()
    return Record(head, b"meta", NOW, until, 0.0, 5, status, fill_seq, tags)


def body(text: object, size: int) -> bytes:
    """Octets that say whose they are, all along."""
    seed = hashlib.blake2b(str(text).encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


class Purges:
    """The rule of DESIGN §7, plainly."""

    def __init__(self) -> None:
        self.hard: dict[int, int] = {}
        self.soft: dict[int, int] = {}
        self.floor = 0
        self.sequence = 0

    def purge(self, *tags: int, soft: bool = False) -> None:
        self.sequence += 1
        for tag in tags:
            (self.soft if soft else self.hard)[tag] = self.sequence

    def purge_all(self) -> None:
        self.sequence += 1
        self.floor = self.sequence

    def __call__(self, fill_seq: int, tags: Sequence[int], proved: int = 0) -> int:
        hard_seq = max(fill_seq, proved)
        if self.floor > hard_seq or any(self.hard.get(tag, 0) > hard_seq for tag in tags):
            return 2
        return int(any(self.soft.get(tag, 0) > fill_seq for tag in tags))


def put(volume: Volume, name: object, data: bytes, stored: Record | None = None, *, now: float = NOW) -> bool:
    job = Put(key(name), stored or record(name), [data], len(data))
    volume.put([job], now)
    return job.outcome


def body_files(path: Path) -> set[str]:
    return {
        f"{file.parent.name}/{file.name}" for folder in path.iterdir() if folder.is_dir() for file in folder.iterdir()
    }


def disk_usage(path: Path) -> int:
    """What the directory takes on its file system."""
    return sum(file.stat().st_blocks * 512 for file in [path, *path.rglob("*")])
