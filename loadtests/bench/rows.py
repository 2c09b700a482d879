"""What is measured, as a table. A row is data: nothing here starts, connects or prints."""

from dataclasses import dataclass
from enum import StrEnum

KIB = 1024
MIB = 1024 * KIB

ZIPF_OBJECTS = 100_000
ZIPF_EXPONENT = 0.9


class Work(StrEnum):
    """What the server has to do for each request of a row."""

    HIT = "hit"
    ZIPF = "zipf"
    NOT_MODIFIED = "not-modified"
    PASS = "pass"
    DISK = "disk"
    """A hit whose body is on disk and not in the server's memory; in the page cache, it has been read before."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `size_bytes` of each body, `connections` kept alive, `workers` of the server."""

    name: str
    group: str
    says: str
    size_bytes: int
    work: Work = Work.HIT
    connections: int = 64
    tls: bool = False
    workers: int = 1

    @property
    def path(self) -> str:
        """The one path asked for; for Zipf the first of the many."""
        match self.work:
            case Work.PASS:
                return f"/pass/{self.size_bytes}"
            case Work.ZIPF:
                return "/o/0"
            case _:
                return f"/s/{self.size_bytes}"


GROUPS: dict[str, str] = {
    "hits": "Hits, plain HTTP/1.1, one object, 64 connections",
    "tls": "Hits over TLS 1.3, kept alive, one object, 64 connections",
    "connections": "1 KiB hits by number of connections",
    "objects": "1 KiB hits: one object and 100,000 by Zipf(0.9), 64 connections",
    "conditional": "If-None-Match answered 304, 64 connections",
    "disk": "Hits from disk, page cache warm, on a real file system",
    "pass": "Uncacheable 1 KiB passed through, 64 connections",
    "workers": "1 KiB hits by number of workers, 64 connections",
}

ROWS: tuple[Row, ...] = (
    Row("hit-1k", "hits", "1 KiB hit", KIB),
    Row("hit-16k", "hits", "16 KiB hit", 16 * KIB),
    Row("hit-256k", "hits", "256 KiB hit", 256 * KIB),
    Row("hit-1m", "hits", "1 MiB hit", MIB),
    Row("tls-1k", "tls", "1 KiB hit over TLS 1.3", KIB, tls=True),
    Row("tls-16k", "tls", "16 KiB hit over TLS 1.3", 16 * KIB, tls=True),
    Row("tls-1m", "tls", "1 MiB hit over TLS 1.3", MIB, tls=True),
    Row("conns-1", "connections", "1 connection", KIB, connections=1),
    Row("conns-64", "connections", "64 connections", KIB),
    Row("conns-1000", "connections", "1,000 connections", KIB, connections=1000),
    Row("objects-1", "objects", "one hot object", KIB),
    Row("objects-zipf", "objects", "100,000 objects, Zipf(0.9)", KIB, work=Work.ZIPF),
    Row("not-modified", "conditional", "304 to If-None-Match", KIB, work=Work.NOT_MODIFIED),
    Row("disk-64k", "disk", "64 KiB hit from disk", 64 * KIB, work=Work.DISK),
    Row("disk-100m", "disk", "100 MiB hit from disk, 8 connections", 100 * MIB, work=Work.DISK, connections=8),
    Row("pass-1k", "pass", "1 KiB no-store, passed through", KIB, work=Work.PASS),
    Row("workers-1", "workers", "1 worker", KIB),
    Row("workers-2", "workers", "2 workers", KIB, workers=2),
)


class UnknownRow(ValueError):
    """A name that is neither a row's nor a group's."""


def select(names: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows named, by row or by group, in the table's order; all of them when nothing is named."""
    if not names:
        return ROWS
    known = {row.name for row in ROWS} | set(GROUPS)
    for name in names:
        if name not in known:
            raise UnknownRow(f"no row or group is called {name!r}; there are: {', '.join(sorted(known))}")
    return tuple(row for row in ROWS if row.name in names or row.group in names)
