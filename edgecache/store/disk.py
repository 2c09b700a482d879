"""The disk tier as the event loop sees it: look-ups in a small pool of threads, writes behind the response.

Nothing here blocks the loop. What is to be stored waits in a queue bounded in octets; what does not fit is dropped and
counted. A failing disk turns the tier off: every look-up is then a miss at once, the log says why and what to do, and a
try every few seconds turns it on again. So does whatever else goes wrong in one of its threads, which is a defect here:
nobody may wait for what a thread has given up.
"""

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar, assert_never

from edgecache.http.clock import wall_clock
from edgecache.http.tasks import spawn
from edgecache.store.database import DatabaseLost
from edgecache.store.diskentry import BodyCorrupt, DiskEntry, Known
from edgecache.store.diskfiles import DiskFault
from edgecache.store.diskrecord import INLINE_MAX, KEY_SIZE
from edgecache.store.disksweep import Sweep
from edgecache.store.memory import Record
from edgecache.store.spool import Spool
from edgecache.store.volume import FAULTS, DiskCounters, Purged, Put, Volume, damaged

_log = logging.getLogger("edgecache.store")
_T = TypeVar("_T")

READERS = 2
QUEUE_BYTES = 32 << 20
PRESENT_STEP = 500
"""Keys looked up in one go."""
BATCH = 32
BATCH_INLINE_BYTES = 512 << 10
BATCH_BYTES = 1 << 20
"""What is stored in one go: bounds how long a writer has the lock, and how far the log grows at once."""
FIXED_MAX = 4_096
"""Records of slices found lately: about 4 MiB when full."""
TOUCHED_MAX = 16_384
"""Uses not yet written back; more are forgotten, and age a little faster than they should."""
REPORT_INTERVAL_S = 1.0
TOUCH_EVERY = 5
"""Uses are written back at every so manieth report."""
SWEEP_INTERVAL_S = 0.25
"""Between two steps of the sweep that found something to do; ten times that where none did."""
SWEEP_URGENT_S = 0.01
START_PATIENCE_S = 5.0
"""How long a start waits for the directory: one that has to be emptied first may take longer."""
RETRY_S = 2.0
RETRY_MAX_S = 60.0
_QUEUED_OVERHEAD = 512
_WRITER_NICENESS = 10
OWED_MAX = 65_536
"""Removals remembered while the tier is off; where there are more, it begins empty."""

_REMEDIES: dict[int, str] = {
    errno.ENOSPC: "make room on its file system, or lower disk.size",
    errno.EDQUOT: "raise the quota of the edge's user, or lower disk.size",
    errno.EROFS: "mount its file system read-write",
    errno.ENOENT: "create its parent directory, owned by the edge's user",
    errno.EACCES: "give the directory to the edge's user, mode 0700",
    errno.EPERM: "give the directory to the edge's user, mode 0700",
    errno.EIO: "check the device: the kernel's log says more",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
}
_SQLITE_ERRNO: dict[int, int] = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


@dataclass(frozen=True, slots=True)
class _Freshen:
    key: bytes
    generation: int
    record: Record
    size: int


@dataclass(frozen=True, slots=True)
class _Remove:
    key: bytes
    generation: int
    size: int = 64


_Job = Put | _Freshen | _Remove


def disk_key(text: str) -> bytes:
    """The 128-bit key of a cache key's text, the same after every boot. Nobody can choose two texts with one key."""
    return hashlib.blake2b(text.encode("latin-1"), digest_size=KEY_SIZE, person=b"edgecache key").digest()


def disk_variant_key(primary: bytes, secondary: bytes) -> bytes:
    return hashlib.blake2b(primary + secondary, digest_size=KEY_SIZE, person=b"edgecache vary").digest()


class DiskStore:
    """One process's disk tier. All its methods belong to one event loop."""

    def __init__(
        self,
        path: Path,
        size: int,
        *,
        owner: int,
        purged: Purged,
        proved: Callable[[], int] = lambda: 0,
        sequence: Callable[[], int] | None = None,
        clock: Callable[[], float] = wall_clock,
        queue_bytes: int = QUEUE_BYTES,
        retry_s: float = RETRY_S,
        keep_s: float = 86_400.0,
        boot: str = "",
        report: Callable[[DiskCounters, dict[str, int]], None] | None = None,
    ) -> None:
        """`owner`: which of the node's processes this is; no two at once. `proved`: as `Volume`'s. `sequence`: given to
        the one process that sweeps, the number of the last purge applied. `report` is told every second what this
        process has counted, and by the one that sweeps what the directory holds (`Volume.usage`; nothing while off)."""
        self._report = report
        self._volume = Volume(path, size, owner=owner, purged=purged, proved=proved, keep_s=keep_s, boot=boot)
        self.heed = self._volume.heed
        self._sequence = sequence
        self._clock = clock
        self._queue_bytes = queue_bytes
        self._retry_s = retry_s
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="disk-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="disk-write", initializer=_yield_to_serving)
        self._spooling = ThreadPoolExecutor(READERS, thread_name_prefix="disk-spool")
        self._jobs: deque[_Job] = deque()
        self._queued = 0
        self._removing: dict[bytes, int] = {}
        """Keys whose removal is queued, and how often: as good as removed."""
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._busy = 0
        """Calls under way in the pools."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._touched: dict[bytes, float] = {}
        self._fixed: dict[bytes, Known] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._mending: asyncio.Task[None] | None = None
        self._closing = False
        self._on = False
        self._sweep: Sweep | None = None
        self._wanted = -1
        """How far the sweep is to come, soon."""
        self._urged = asyncio.Event()
        self._owed: set[bytes] = set()
        """Keys of records that are to go when the tier is on again."""
        self._owes_all = False
        self.why_off = "not started"

    # --- life ---

    async def start(self) -> None:
        """Open the directory, or begin to try. Never fails, and waits for a slow disk only so long."""
        opening = spawn(self._begin(), "disk-open")
        await asyncio.wait([opening], timeout=START_PATIENCE_S)
        self._tasks = [opening, spawn(self._write_loop(), "disk-write"), spawn(self._tidy_loop(), "disk-recency")]
        if self._sequence is not None:
            self._tasks.append(spawn(self._sweep_loop(self._sequence), "disk-sweep"))

    async def _begin(self) -> None:
        try:
            await self._call(self._writer, self._open)
        except Exception as error:  # noqa: BLE001 - the tier's boundary: whatever it is turns it off
            self._turn_off(error)
        else:
            self._turn_on()

    async def close(self) -> None:
        """Write what is queued, then close."""
        await self.flush()
        self._closing = True
        for task in (*self._tasks, *((self._mending,) if self._mending is not None else ())):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._on:
            await self._guarded(self._writer, partial(self._write_back, self._take_touched()))
            await self.tell()
            self._on = False
        await self._idle.wait()
        self._volume.close()
        self._readers.shutdown()
        self._writer.shutdown()
        self._spooling.shutdown()

    @property
    def on(self) -> bool:
        return self._on

    @property
    def path(self) -> Path:
        return self._volume.path

    async def flush(self) -> None:
        """Until everything queued is stored or dropped."""
        await self._drained.wait()

    # --- look-ups ---

    async def get(self, key: bytes) -> DiskEntry | None:
        """The whole, valid record; becomes the most recently used. The caller closes it."""
        if not self._on or key in self._removing:
            return None
        entry = await self._guarded(self._readers, partial(self._volume.get, key))
        if entry is not None:
            self._touch(key)
        return entry

    async def get_fixed(self, key: bytes) -> DiskEntry | None:
        """As `get`, for what never changes under its key (a slice): found once, it is found again without a look-up for
        as long as its file is there."""
        fixed = self._fixed.get(key)
        if fixed is not None and self._on and key not in self._removing:
            entry = self._volume.reopen(fixed)
            if entry is not None:
                self._touch(key)
                return entry
        self._fixed.pop(key, None)
        entry = await self.get(key)
        if entry is not None and entry.in_file:
            if len(self._fixed) >= FIXED_MAX:
                for old in list(islice(self._fixed, FIXED_MAX // 4)):
                    del self._fixed[old]
            self._fixed[key] = entry.known
        return entry

    def used(self, key: bytes, times: int = 1) -> None:
        """A body was sent from its file without a look-up here: its record becomes the most recently used."""
        self._volume.counters.sent += times
        self._touch(key)

    def _touch(self, key: bytes) -> None:
        if len(self._touched) < TOUCHED_MAX or key in self._touched:
            self._touched[key] = self._clock()

    async def read(self, entry: DiskEntry, offset: int, size: int) -> bytes:
        """A piece of its body. Raises `BodyCorrupt`, and `DiskFault` where the disk fails."""
        return await self._reading(partial(entry.read, offset, size))

    async def verify(self, entry: DiskEntry) -> None:
        """Compare all of its body's checksums that have not been. Raises as `read`."""
        while (at := entry.unknown()) is not None:
            await self._reading(partial(entry.verify, at, 1))

    async def span(self, entry: DiskEntry, offset: int, size: int) -> tuple[int, int, int] | None:
        """(fd, offset, size) of verified octets for sendfile; None where the body is in the row."""
        known = entry.known_span(offset, size)
        if known is not None:
            return known
        return await self._reading(partial(entry.span, offset, size))

    async def present(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these are stored, as far as the index says; recency does not change."""
        found: set[bytes] = set()
        keys = [key for key in keys if key not in self._removing] if self._on else []
        for at in range(0, len(keys), PRESENT_STEP):
            found |= (
                await self._guarded(self._readers, partial(self._volume.present, keys[at : at + PRESENT_STEP])) or set()
            )
        return found

    # --- stores as they come ---

    async def spool(self, key: bytes, size: int) -> Spool | None:
        """Begin to store a body of that size, in a file; None where there is no room, or the tier is off."""
        if not self._on:
            return None
        made = await self._guarded(self._writer, partial(self._volume.spool, key, size))
        if made is None:
            return None
        writing, storing = partial(self._while_on, self._spooling), partial(self._while_on, self._writer)
        return Spool(self._volume, key, size, *made, writing=writing, storing=storing)

    async def _reading(self, work: Callable[[], _T]) -> _T:
        try:
            return await self._call(self._readers, work)
        except BodyCorrupt:
            raise
        except Exception as error:
            self._turn_off(error)
            raise DiskFault(error) from error

    # --- stores: queued, done in order ---

    def put(
        self, key: bytes, record: Record, body: Sequence[bytes], stored: Callable[[int], None] | None = None
    ) -> bool:
        """Queue. False, and counted, where the tier is off or the queue full; what was stored before then stays.
        `stored` is told the record's generation once it lies there."""
        size = sum(map(len, body))
        return self._queue(Put(key, record, body, size, stored=stored), size + len(record.head) + len(record.meta))

    async def put_patiently(
        self, key: bytes, record: Record, body: Sequence[bytes], stored: Callable[[int], None] | None = None
    ) -> bool:
        """As `put`, once there is room in the queue."""
        cost = sum(map(len, body)) + len(record.head) + len(record.meta) + _QUEUED_OVERHEAD
        while self._on and not self._drained.is_set() and self._queued + cost > self._queue_bytes:
            await self.flush()
        return self.put(key, record, body, stored)

    def freshen(self, key: bytes, generation: int, record: Record) -> bool:
        size = len(record.head) + len(record.meta)
        return self._queue(_Freshen(key, generation, record, size), size)

    def remove(self, key: bytes, generation: int = 0) -> None:
        """Queue. Not forgotten, unlike a store: what the tier owes while it is off is done when it is on again."""
        if self._on and self._queue(_Remove(key, generation), 0):
            self._removing[key] = self._removing.get(key, 0) + 1
        else:
            self._owe([key])

    def removing(self, key: bytes) -> bool:
        """Is a removal queued? What is not found then may lie there: another generation."""
        return key in self._removing

    def _owe(self, keys: Iterable[bytes]) -> None:
        self._owed.update(keys)
        if len(self._owed) > OWED_MAX:
            self._owed.clear()
            self._owes_all = True

    def _queue(self, job: _Job, size: int) -> bool:
        cost = size + _QUEUED_OVERHEAD
        room = self._queue_bytes * (2 if isinstance(job, _Remove) else 1)
        if not self._on or self._queued + cost > room:
            self._volume.counters.dropped += 1
            return False
        self._jobs.append(job)
        self._queued += cost
        self._drained.clear()
        self._wake.set()
        return True

    async def _write_loop(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._jobs and self._on:
                jobs, cost = self._batch()
                await self._guarded(self._writer, partial(self._write, jobs))
                if not self.on:
                    # Nobody knows how far it came: what these replace or remove may not come back.
                    self._owe(job.key for job in jobs)
                self._forget_removals(jobs)
                for job in jobs if self.on else ():
                    if isinstance(job, Put) and job.outcome and job.stored is not None:
                        job.stored(job.generation)
                await self._guarded(self._writer, self._volume.settle)
                self._queued -= cost
            if not self._on:
                self._drop_queue()
            if not self._jobs:
                self._drained.set()

    def _batch(self) -> tuple[list[_Job], int]:
        """The next jobs, few and small enough for one turn at the lock."""
        jobs: list[_Job] = []
        cost = in_rows = total = 0
        while self._jobs and len(jobs) < BATCH:
            job = self._jobs[0]
            size = _size(job)
            body = job.size if isinstance(job, Put) else 0
            in_row = size if body <= INLINE_MAX else size - body
            if jobs and (in_rows + in_row > BATCH_INLINE_BYTES or total + size > BATCH_BYTES):
                break
            jobs.append(self._jobs.popleft())
            in_rows += in_row
            total += size
            cost += size + _QUEUED_OVERHEAD
        return jobs, cost

    def _write(self, jobs: Sequence[_Job]) -> None:
        puts: list[Put] = []
        for job in jobs:
            if isinstance(job, Put):
                puts.append(job)
                continue
            if puts:
                self._volume.put(puts, self._clock(), settle=False)
                puts = []
            match job:
                case _Freshen(key, generation, record):
                    self._volume.freshen(key, generation, record)
                case _Remove(key, generation):
                    self._volume.remove(key, generation)
                case _:
                    assert_never(job)
        if puts:
            self._volume.put(puts, self._clock(), settle=False)

    def _forget_removals(self, jobs: Iterable[_Job]) -> None:
        for job in jobs:
            if isinstance(job, _Remove) and (left := self._removing.pop(job.key, 0) - 1) > 0:
                self._removing[job.key] = left

    def _drop_queue(self) -> None:
        self._removing.clear()
        self._owe(job.key for job in self._jobs)
        self._volume.counters.dropped += len(self._jobs)
        self._jobs.clear()
        self._queued = 0

    # --- tidying ---

    def _take_touched(self) -> list[tuple[float, bytes]]:
        touched, self._touched = self._touched, {}
        return [(at, key) for key, at in touched.items()]

    async def _tidy_loop(self) -> None:
        turn = 0
        while True:
            await self.tell()
            await asyncio.sleep(REPORT_INTERVAL_S)
            turn += 1
            if self._on and turn % TOUCH_EVERY == 0:
                await self._guarded(self._writer, partial(self._write_back, self._take_touched()))

    async def tell(self) -> None:
        """Report now."""
        if self._report is None:
            return
        usage: dict[str, int] = {}
        if self._on and self._sequence is not None:
            usage = await self._guarded(self._readers, self._volume.usage) or {}
        self._report(self._volume.counters, usage)

    def _write_back(self, touched: list[tuple[float, bytes]]) -> None:
        self._volume.database.check_in_place()
        self._volume.touch(touched)
        self._volume.settle()

    async def _sweep_loop(self, sequence: Callable[[], int]) -> None:
        while True:
            found = 0
            if self._on:
                if self._sweep is None:
                    self._sweep = Sweep(self._volume, sequence=sequence)
                found = await self._guarded(self._writer, partial(self._sweep.step, self._clock())) or 0
            if self._on and self.clean_through < self._wanted:
                pause = SWEEP_URGENT_S
            else:
                pause = SWEEP_INTERVAL_S if found else SWEEP_INTERVAL_S * 10
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._urged.wait()
            self._urged.clear()

    def sweep_soon(self, through: int) -> None:
        """Somebody waits for `clean_through` to get there."""
        if through > self._wanted:
            self._wanted = through
            self._urged.set()

    @property
    def clean_through(self) -> int:
        """No record is left that a hard purge up to this number covers (-1: not known)."""
        return self._sweep.clean_through if self._sweep is not None else -1

    async def synced(self) -> bool:
        """Have what was removed stay removed, whatever happens to the machine. False where that is not sure."""
        return self._on and bool(await self._guarded(self._writer, self._volume.database.sync))

    # --- off and on ---

    async def _call(self, pool: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        future = asyncio.get_running_loop().run_in_executor(pool, work)  # raises where no thread can be had
        self._busy += 1
        self._idle.clear()
        future.add_done_callback(self._called)
        # Who is cancelled leaves the thread to finish: what it opened is closed when it is collected.
        return await asyncio.shield(future)

    def _called(self, future: "asyncio.Future[_T]") -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()
        if not future.cancelled():
            future.exception()

    async def _guarded(self, pool: ThreadPoolExecutor, work: Callable[[], _T]) -> _T | None:
        """None where the disk failed, or anything else did: that turns the tier off."""
        try:
            return await self._call(pool, work)
        except Exception as error:  # noqa: BLE001 - the tier's boundary: whatever it is turns it off
            self._turn_off(error)
            return None

    async def _while_on(self, pool: ThreadPoolExecutor, work: Callable[[], _T]) -> _T | None:
        """None where the tier is off, too: what is journalled goes when it is on again."""
        return await self._guarded(pool, work) if self._on else None

    def _turn_on(self) -> None:
        self._on = True
        self.why_off = ""

    def _turn_off(self, error: Exception) -> None:
        if self._mending is not None:
            return
        self._on = False
        self._volume.counters.failures += 1
        self._wake.set()
        self.why_off, remedy = explain(error)
        _log.warning(
            "disk tier %s is off: %s",
            self._volume.path,
            self.why_off,
            exc_info=None if isinstance(error, FAULTS) else error,
            extra={"remedy": f"{remedy}; serving goes on without it, and it comes back by itself"},
        )
        if not self._closing:
            self._mending = spawn(self._mend(), "disk-mend")

    async def _mend(self) -> None:
        began = self._clock()
        pause = self._retry_s
        while True:
            while self._busy:  # another call may have begun since the last one ended
                await self._idle.wait()
            with contextlib.suppress(Exception):  # what cannot be closed is given up
                self._volume.close()
            self._sweep = None
            await asyncio.sleep(pause)
            try:
                await self._call(self._writer, self._open)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                if not isinstance(error, FAULTS):
                    _log.warning("disk tier %s stays off", self._volume.path, exc_info=error)
                pause = min(pause * 1.5, max(RETRY_MAX_S, self._retry_s))
                continue
            break
        self._mending = None
        self._turn_on()
        owed, self._owed = self._owed, set()
        for key in owed:
            self.remove(key)
        _log.info("disk tier %s is on again after %.0f s", self._volume.path, self._clock() - began)

    def _open(self) -> None:
        if self._owes_all:
            self._volume.forget_all()
            self._owes_all = False
        self._volume.open()
        try:
            self._volume.check_writable()
        except BaseException:
            self._volume.close()
            raise

    # --- figures ---

    @property
    def counters(self) -> DiskCounters:
        return self._volume.counters

    async def stats(self) -> dict[str, int]:
        """`DiskCounters` of this process, `Volume.usage` of the directory, on (0 or 1), bytes_queued, touched."""
        usage = await self._guarded(self._readers, self._volume.usage) if self._on else None
        return {
            **asdict(self._volume.counters),
            **(usage or {}),
            "on": int(self._on),
            "bytes_queued": self._queued,
            "touched": len(self._touched),
        }


def _yield_to_serving() -> None:
    """Writing can wait; Linux keeps a priority for each thread."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _WRITER_NICENESS)


def _size(job: _Job) -> int:
    match job:
        case Put():
            return job.size + len(job.record.head) + len(job.record.meta)
        case _Freshen():
            return job.size
        case _Remove():
            return 0
        case _:
            assert_never(job)


def explain(error: Exception) -> tuple[str, str]:
    """(what is wrong, what to do about it)."""
    if isinstance(error, DiskFault):
        error = error.error
    if not isinstance(error, FAULTS):
        return f"a defect: {type(error).__name__}: {error}".rstrip(": "), "report it, with what the log says here"
    if isinstance(error, DatabaseLost):
        return f"its database: {error}", "leave the directory to the edge while it runs"
    if isinstance(error, sqlite3.Error):
        if damaged(error):
            return f"its database is damaged ({error})", "nothing: it is emptied and begun anew"
        number = _SQLITE_ERRNO.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, errno.EIO)
        return str(error), _REMEDIES[number]
    number = error.errno or 0 if isinstance(error, OSError) else 0
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return what, _REMEDIES.get(number, "look at the directory and its file system")
