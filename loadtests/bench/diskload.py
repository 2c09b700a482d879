"""What the disk benchmark does to a directory and to an edge: writers, look-ups, requests at a steady rate."""

import asyncio
import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from edgecache.http.clock import wall_clock
from edgecache.store.disk import BATCH_BYTES, DiskStore, disk_key
from edgecache.store.disksweep import sweep_before_start
from edgecache.store.memory import Record
from edgecache.store.volume import Put, Volume

from .generators import percentile
from .rows import KIB, MIB

FAR = 4e9
_SIZES = (2 * KIB, 12 * KIB, 30 * KIB, 50 * KIB, 200 * KIB, MIB)
_NOISE = os.urandom(MIB)


def never_purged(_fill_seq: int, _tags: Sequence[int]) -> int:
    """A node without purges."""
    return 0


def job(number: int, size_bytes: int) -> Put:
    """A record to be stored."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
    record = Record(head, b"", wall_clock(), FAR, 0.0, 0, 200, 0, (number + 1,))
    return Put(disk_key(str(number)), record, (_NOISE[:size_bytes],), size_bytes)


# --- writing ---


@dataclass(slots=True)
class Written:
    """What one writer did. Calls and checkpoints (the log into the database, with its syncs) are in seconds."""

    calls: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    """Of each call, how long it waited for a core that other programs had."""
    checkpoints: list[float] = field(default_factory=list)
    bytes: int = 0
    evicted: int = 0


def _queued_s() -> float:
    """How long this thread has been ready to run and did not; 0 where the kernel does not count it."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _batch(chance: random.Random) -> list[Put]:
    """As `DiskStore` puts them together: few records, or one large one."""
    jobs: list[Put] = []
    room = BATCH_BYTES
    for _ in range(chance.randrange(1, 9)):
        size_bytes = chance.choice(_SIZES)
        room -= size_bytes
        if room < 0:
            break
        jobs.append(job(chance.randrange(10**9), size_bytes))
    return jobs


def _write(path: str, limit: int, owner: int, seconds: float, bytes_per_s: float, out: Connection) -> None:
    volume = Volume(Path(path), limit, owner=owner, purged=never_purged)
    volume.open()
    chance, written = random.Random(owner), Written()
    begun = time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        jobs, queued = _batch(chance), _queued_s()
        volume.put(jobs, wall_clock(), settle=False)
        put = time.monotonic()
        written.queued.append(_queued_s() - queued)
        volume.settle()
        written.calls.append(put - now)
        written.checkpoints.append(time.monotonic() - put)
        written.bytes += sum(each.size for each in jobs)
        if bytes_per_s:
            time.sleep(max(0.0, begun + written.bytes / bytes_per_s - time.monotonic()))
    written.evicted = volume.counters.evicted
    volume.close()
    out.send(written)


@contextmanager
def writers(path: Path, limit: int, count: int, seconds: float, bytes_per_s: float = 0.0) -> Iterator[list[Written]]:
    """Processes that store until the time is up; the list is filled when the context ends. `bytes_per_s` of each."""
    context = multiprocessing.get_context("spawn")
    written: list[Written] = []
    running = []
    for owner in range(1, count + 1):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_write, args=(str(path), limit, owner, seconds, bytes_per_s, send))
        process.start()
        running.append((process, receive))
    try:
        yield written
        written.extend(receive.recv() for _, receive in running)
    finally:
        for process, _ in running:
            process.join(30)
            if process.is_alive():
                process.kill()


def bytes_on_disk(path: Path) -> int:
    """What the directory takes, as the file system counts it: bodies, database, its log, the spool."""
    total = 0
    for folder in (path, *(Path(entry.path) for entry in os.scandir(path) if entry.is_dir())):
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def fill(path: Path, limit: int, records: int, size_bytes: int) -> None:
    """So many records with bodies of that size."""
    volume = Volume(path, limit, owner=1000, purged=never_purged)
    volume.open()
    for begin in range(0, records, 200):
        volume.put([job(number, size_bytes) for number in range(begin, begin + 200)], wall_clock())
    volume.close()


def _start(path: str, limit: int, out: Connection) -> None:
    before, begun = _resident_bytes(), time.monotonic()
    sweep_before_start(Path(path), limit, purged=never_purged)
    volume = Volume(Path(path), limit, owner=1, purged=never_purged)
    volume.open()
    there = volume.get(disk_key("1")) is not None
    out.send((time.monotonic() - begun, _resident_bytes() - before, there))
    volume.close()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def started(path: Path, limit: int) -> dict[str, float]:
    """A start in a process of its own: seconds, and the memory it has more than before."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_start, args=(str(path), limit, send))
    process.start()
    took, grown, there = receive.recv()
    process.join()
    return {"start_s": took, "grown_mib": grown / MIB, "found": float(there)}


# --- looking up ---


async def absent(store: DiskStore, per_second: int, seconds: float) -> list[float]:
    """Look-ups of what is not there, at a steady rate whatever they take. Seconds each, from when each was due."""
    took: list[float] = []

    async def look(due: float, number: int) -> None:
        await store.get(disk_key(f"absent {number}"))
        took.append(time.perf_counter() - due)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            due = begun + number / per_second
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(look(due, number))
    return took


# --- asking ---


@dataclass(slots=True)
class Asked:
    """What clients saw; seconds, from when each request was due."""

    took: list[float] = field(default_factory=list)
    failed: int = 0

    def at(self, share: float) -> float:
        return percentile(sorted(self.took), share)


async def ask(port: int, paths: Iterator[str], per_second: float, until: Callable[[], bool], connections: int) -> Asked:
    """Requests at a steady rate over kept-alive connections; who finds none free waits, and the wait counts."""
    asked = Asked()
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port, limit=4 * MIB))
    begun = time.perf_counter()

    async def one(path: str, due: float) -> None:
        pair = await free.get()
        reader, writer = pair
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200 "):
                asked.failed += 1
            asked.took.append(time.perf_counter() - due)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            asked.failed += 1
        finally:
            free.put_nowait(pair)

    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            if until():
                break
            due = begun + number / per_second
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(next(paths), due))
    while not free.empty():
        free.get_nowait()[1].close()
    return asked
