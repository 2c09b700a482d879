"""The access log: a line per finished request, written in batches so that a request never waits for a disk or a pipe.

`add` formats the line and puts it into a bounded buffer: a few microseconds, no system call. The loop hands what has
gathered to a writer thread every `flush_interval_s`; while that thread is stuck in a write, lines gather, and beyond
the bound they are dropped and counted. Nothing a client sends can end a line or look like another field. The values
of query parameters on the redact list are never written, nor are Authorization and Cookie, which no record holds.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import select
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from urllib.parse import unquote_plus

from edgecache._native.accessline import json_line
from edgecache.observe.events import ExchangeFinished

_log = logging.getLogger("edgecache.accesslog")

REDACTED = "REDACTED"
_BATCH_BYTES = 1 << 18

Formatter = Callable[[ExchangeFinished], str]
Source = Callable[[], tuple[bytes, int, int]]
"""Gives up (whole lines, their number, how many were lost since the last call)."""


class Redactor:
    """Takes out of URLs what may not be logged."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names` without case; a trailing "*" stands for any ending."""
        self._exact = frozenset(name.lower() for name in names if not name.endswith("*"))
        self._starts = tuple(name[:-1].lower() for name in names if name.endswith("*"))

    def _secret(self, name: str) -> bool:
        decoded = unquote_plus(name).strip().lower()
        return decoded in self._exact or (bool(self._starts) and decoded.startswith(self._starts))

    def __call__(self, url: str) -> str:
        """`url` may be a target or a whole URL."""
        path, mark, query = url.partition("?")
        if not mark:
            return url
        query, hash_mark, fragment = query.partition("#")
        parts = query.split("&")
        for index, part in enumerate(parts):
            name, equals, _ = part.partition("=")
            if equals and self._secret(name):
                parts[index] = f"{name}={REDACTED}"
        return f"{path}?{'&'.join(parts)}{hash_mark}{fragment}"


def json_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def combined_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


def json_formatter(redact: Redactor) -> Formatter:
    """One JSON object per line, ASCII only; times are UTC, durations seconds."""
    clock = _Clock(json_second)
    in_words = json_in_words(redact)

    def line(event: ExchangeFinished) -> str:
        target, referer = event.target, event.referer
        text = json_line(
            event,
            clock(event.time),
            redact(target) if "?" in target else target,
            redact(referer) if "?" in referer else referer,
        )
        return in_words(event) if text is None else text

    return line


def json_in_words(redact: Redactor) -> Formatter:
    """What `json_formatter` writes, in plain Python: for texts beyond Latin-1, and to compare with."""
    clock = _Clock(json_second)

    def line(event: ExchangeFinished) -> str:
        text = (
            f'{{"time":"{clock(event.time)}.{int(event.time % 1 * 1000):03d}Z","site":{quoted(event.site)},'
            f'"client":{quoted(event.client_ip)},"method":{quoted(event.method)},"scheme":{quoted(event.scheme)},'
            f'"host":{quoted(event.host)},"target":{quoted(redact(event.target))},'
            f'"protocol":{quoted(event.protocol)},"status":{event.status},"bytes_in":{event.bytes_in},'
            f'"bytes_out":{event.bytes_out},"outcome":"{event.outcome.value}","reason":{quoted(event.reason)},'
            f'"duration":{event.duration_s:.6f}'
        )
        if event.ttfb_s is not None:
            text += f',"ttfb":{event.ttfb_s:.6f}'
        if event.origin_s is not None:
            text += f',"origin":{event.origin_s:.6f}'
        text += (
            f',"cache_status":{quoted(event.cache_status)},"user_agent":{quoted(event.user_agent)},'
            f'"referer":{quoted(redact(event.referer))}'
        )
        if event.request_id:
            text += f',"request_id":{quoted(event.request_id)}'
        if event.aborted:
            text += ',"aborted":true'
        return text + "}\n"

    return line


def combined_formatter(redact: Redactor) -> Formatter:
    """The Combined Log Format of Apache and nginx; times are UTC."""
    clock = _Clock(combined_second)

    def line(event: ExchangeFinished) -> str:
        return (
            f"{_bare(event.client_ip)} - - [{clock(event.time)}] "
            f'"{_safe(event.method)} {_safe(redact(event.target))} {_safe(event.protocol)}" '
            f"{event.status} {event.bytes_out} "
            f'"{_safe(redact(event.referer)) or "-"}" "{_safe(event.user_agent) or "-"}"\n'
        )

    return line


class _Clock:
    """Formats a second once."""

    def __init__(self, form: Callable[[int], str]) -> None:
        self._form = form
        self._second = -1
        self._text = ""

    def __call__(self, time: float) -> str:
        second = int(time)
        if second != self._second:
            self._second, self._text = second, self._form(second)
        return self._text


_ESCAPES = {c: f"\\x{c:02x}" for c in (*range(32), ord('"'), ord("\\"), *range(127, 256))}


def _safe(text: str) -> str:
    """As nginx escapes: quotes, backslashes, controls and what is not ASCII become \\xHH."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.translate(_ESCAPES).encode("ascii", "backslashreplace").decode("ascii")


def _bare(text: str) -> str:
    """A value outside quotes: no space may split it."""
    return _safe(text).replace(" ", "") or "-"


class AccessLog:
    """Collects lines and writes them. Made once; `start` in the running loop, `close` before it ends."""

    def __init__(
        self,
        formatter: Formatter,
        path: str,
        *,
        flush_interval_s: float = 0.2,
        buffer_lines: int = 65_536,
        on_drop: Callable[[int], None] | None = None,
        lock: int | None = None,
    ) -> None:
        """`path` "-" is standard output. `on_drop` is told how many lines were lost, in the loop's thread. `lock`: a
        file that all who write to one pipe have open, so that they take turns."""
        self._format = formatter
        self._flush_interval_s = flush_interval_s
        self._buffer_lines = buffer_lines
        self._on_drop = on_drop
        self._lines: list[str] = []
        self._bytes = 0
        self._sources: list[Source] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = _Writer(path, lock)
        self._dropped_seen = 0
        self.dropped = 0
        """Lines lost so far."""

    def start(self) -> None:
        """Opens the file. Raises OSError."""
        self._writer.start()
        self._loop = asyncio.get_running_loop()
        self._tick()

    def add_source(self, source: Source) -> None:
        """Lines that are made elsewhere, taken in whenever a batch is handed over."""
        self._sources.append(source)

    def add(self, event: ExchangeFinished) -> None:
        """Never waits and never raises for what an event holds."""
        if len(self._lines) >= self._buffer_lines:
            self._drop(1)
            return
        line = self._format(event)
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= _BATCH_BYTES:
            self._hand_over()

    def flush(self) -> None:
        """Hand over what has gathered, unless the writer is still busy with the last batch."""
        self._hand_over()

    def reopen(self) -> None:
        """After the file was moved away: what is added from now on goes into a new one of the same name."""
        self._hand_over(even_if_busy=True)
        self._writer.reopen()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Write everything that is waiting; after `timeout_s` what the disk or pipe did not take is dropped."""
        if self._timer is not None:
            self._timer.cancel()
        self._hand_over(even_if_busy=True)
        await asyncio.to_thread(self._writer.stop, timeout_s)
        self._collect_lost()

    def _tick(self) -> None:
        self._hand_over()
        assert self._loop is not None
        self._timer = self._loop.call_later(self._flush_interval_s, self._tick)

    def _hand_over(self, *, even_if_busy: bool = False) -> None:
        self._collect_lost()
        if not even_if_busy and self._writer.busy:
            return
        if self._lines:
            self._writer.put("".join(self._lines).encode("ascii"), len(self._lines))
            self._lines = []
            self._bytes = 0
        for source in self._sources:
            data, lines, lost = source()
            if data:
                self._writer.put(data, lines)
            if lost:
                self._drop(lost)

    def _collect_lost(self) -> None:
        lost = self._writer.lost - self._dropped_seen
        if lost:
            self._dropped_seen += lost
            self._drop(lost)

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        if self._on_drop is not None:
            self._on_drop(lines)


class _Writer:
    """A thread that appends batches to a file: the only place where writing may block."""

    _REOPEN = (b"", 0)

    def __init__(self, path: str, lock: int | None) -> None:
        self._path = path
        self._lock = lock
        self._turn = -1
        """Our own opening of the lock's file, where turns are taken."""
        self._fd = -1
        self._batches: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="edgecache-accesslog", daemon=True)
        self._pending = 0
        self._written = 0
        self._failing = False
        self.lost = 0

    @property
    def busy(self) -> bool:
        return self._pending != self._written

    def start(self) -> None:
        self._fd = self._open()
        # Appending to a file is one step whatever its length; a pipe takes longer writes in parts (pipe(7)).
        if self._lock is not None and not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self._turn = os.open(f"/proc/self/fd/{self._lock}", os.O_RDWR | os.O_CLOEXEC)
        self._thread.start()

    def put(self, data: bytes, lines: int) -> None:
        self._pending += 1
        self._batches.put((data, lines))

    def reopen(self) -> None:
        self._batches.put(self._REOPEN)

    def stop(self, timeout_s: float) -> None:
        self._batches.put(None)
        self._thread.join(timeout_s)

    def _open(self) -> int:
        if self._path == "-":
            return os.dup(1)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            if batch is self._REOPEN:
                self._reopen()
                continue
            data, lines = batch
            try:
                with self._our_turn():
                    self._write(data)
                self._failing = False
            except OSError as error:
                self.lost += lines
                self._complain(error)
            self._written += 1
        for fd in (self._fd, self._turn):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)

    @contextlib.contextmanager
    def _our_turn(self) -> Iterator[None]:
        if self._turn < 0:
            yield
            return
        fcntl.flock(self._turn, fcntl.LOCK_EX)  # given back by the system if we die
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _reopen(self) -> None:
        try:
            fresh = self._open()
        except OSError as error:
            self._complain(error)
            return
        os.close(self._fd)
        self._fd = fresh

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # a pipe that somebody set non-blocking
                room = select.poll()  # unlike select(2), it takes a descriptor of any number
                room.register(self._fd, select.POLLOUT)
                room.poll()

    def _complain(self, error: OSError) -> None:
        """Once per outage."""
        if not self._failing:
            self._failing = True
            _log.error(
                "cannot write the access log %s: %s; lines are dropped and counted until it works again",
                "to standard output" if self._path == "-" else self._path,
                error.strerror,
                extra={"remedy": "free space, or mend the path and restart"},
            )
