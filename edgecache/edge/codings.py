"""Making the other forms of a stored response: its body compressed once, after it is stored (RFC 9110 §8.4).

Nobody waits for it: whoever asks meanwhile gets identity. One thread a process does it, at a lower priority than
serving, and what waits for it is bounded: a response too many stays as it is.
"""

import asyncio
import logging
import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import brotli
import zstandard

from edgecache.edge.lookup import Place, Shelf
from edgecache.edge.sites import Site
from edgecache.http.stored import StoredResponse
from edgecache.http.tasks import spawn
from edgecache.policy import coding, rules

_log = logging.getLogger("edgecache.edge")

# 60 files of HTML, CSS and JavaScript, 2 MB, one core: br 5 leaves 21.3% at 72 MB/s (6: 21.2% at 66, 9: 20.9% at 5),
# zstd 6 leaves 22.8% at 121 MB/s (3: 24.6% at 353, 9: 22.4% at 75), gzip 6 leaves 22.8% at 63 MB/s (9: 22.7% at 38).
_BROTLI_QUALITY = 5
_ZSTD_LEVEL = 6
_GZIP_LEVEL = 6
_NICENESS = 10

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "br": lambda body: bytes(brotli.compress(body, mode=brotli.MODE_TEXT, quality=_BROTLI_QUALITY)),
    "zstd": lambda body: zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body),
    "gzip": lambda body: zlib.compress(body, level=_GZIP_LEVEL, wbits=31),
}
"""Content codings by the names they have in Content-Encoding."""

WAITING_BYTES = 32 << 20
"""Octets of bodies that wait to be compressed, at most."""
_GAIN = 0.95
"""A form larger than this part of identity is not worth its memory."""


@dataclass(frozen=True, slots=True)
class Job:
    """A response that is stored as it came."""

    site: Site
    place: Place
    stored: StoredResponse
    cache_key: str
    fill_seq: int
    chunks: list[bytes]


class Codings:
    """The forms made by this process."""

    def __init__(self, shelf: Shelf, clock: Callable[[], float], *, waiting_bytes: int = WAITING_BYTES) -> None:
        self._shelf = shelf
        self._clock = clock
        self.limit = waiting_bytes
        self._waiting = 0
        self._pool: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.turn = asyncio.Lock()
        self.made = 0
        self.skipped = 0
        """Responses left as they are, since too much was waiting."""

    def make(self, job: Job) -> None:
        """Make what the site wants of a response that has just been stored; returns at once."""
        if not coding.awaits_forms(job.stored, job.site.policy):
            return
        size = job.stored.body_size
        if self._waiting + size > self.limit:
            self.skipped += 1
            return
        entry = self._shelf.store.peek(self._shelf.keys(job.place)[0])
        if entry is None:
            return
        generation = entry.generation
        entry.close()
        self._waiting += size
        task = spawn(self._run(job, generation), f"codings of {job.cache_key}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, size))

    @property
    def busy(self) -> bool:
        """Is anything being made, or waiting to be?"""
        return bool(self._tasks)

    def _done(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.discard(task)
        self._waiting -= size

    def close(self) -> None:
        """Stop; what is not made yet is not made."""
        for task in self._tasks:
            task.cancel()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, job: Job, generation: int) -> None:
        async with self.turn:
            if not self._current(job, generation):
                return
            run, pool = asyncio.get_running_loop().run_in_executor, self._threads()
            body = await run(pool, b"".join, job.chunks)
            forms = []
            for name in job.site.policy.compress_codings:
                data = await run(pool, COMPRESS[name], body)
                if len(data) <= len(body) * _GAIN:
                    forms.append((name, data))
            # From here to the end nothing else runs in this process; another one may replace the response meanwhile.
            if self._current(job, generation):
                self._shelve(job, forms, generation)

    def _shelve(self, job: Job, forms: list[tuple[str, bytes]], generation: int) -> None:
        shelf, stored_forms = self._shelf, []
        for name, data in forms:
            form = rules.completed(coding.encoded(job.stored, name), len(data))
            assert form is not None  # it is no part
            record = shelf.record(form, site=job.site, cache_key=job.cache_key, fill_seq=job.fill_seq)
            if shelf.put_form(job.place, name, record, [data]):
                stored_forms.append(name)
        self.made += len(stored_forms)
        if self._current(job, generation):
            shelf.remember_codings(job.place, tuple(stored_forms), self._clock(), job.fill_seq)
        else:
            shelf.remove_forms(job.place, stored_forms)

    def _current(self, job: Job, generation: int) -> bool:
        """Is what is stored still the response that the forms are made of?"""
        entry = self._shelf.store.peek(self._shelf.keys(job.place)[0])
        if entry is None:
            return False
        entry.close()
        return entry.generation == generation

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "codings", initializer=_yield_to_serving)
        return self._pool


def _yield_to_serving() -> None:
    """Linux keeps a priority for each thread."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    except OSError as error:
        _log.debug("the compressing thread keeps its priority: %s", error)
