"""What an edge on its own remembers of the orders it was given: each with its number, who gave it, and the idempotency
key it came with. The same as a coordinator's log, and read by the same calls.

An order is logged once it is applied, and answered once it is logged. `KeptOrders` is the log of an edge with a durable
place, where it is written together with what was purged; `SharedOrders` that of one without, where it lives in memory
that all processes of the node share and is as long as that allows.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from edgecache.purge import ledger
from edgecache.purge.audit import summary
from edgecache.purge.bus import Appended, AuditRecord, BusError, KeyReused, Record
from edgecache.purge.keeper import PurgeKeeper
from edgecache.purge.ledger import KEEP, Entry, Retention
from edgecache.purge.message import PurgeMessage

SHARED_BYTES: Final = 4 << 20
"""How much is remembered in memory: some ten thousand short orders."""
LONGEST_SHARE: Final = 8
"""An order whose text takes more than this part of it is remembered without its text."""
_MOST: Final = 1 << 62

Apply = Callable[[], PurgeMessage]
"""Puts the order in force, and says by which number."""


class OrderBook(Protocol):
    async def log(self, entry: Entry, apply: Apply) -> Appended:
        """Apply it and log it, in whatever order; once, where it has a key. Raises `KeyReused` and, where nothing was
        applied, `BusError`; `NotKept` where it was."""
        ...

    async def find(self, sequence: int) -> Record | None:
        """None where it is not known any more. Raises `BusError`."""
        ...

    async def audit(self, *, before: int | None, limit: int) -> Sequence[AuditRecord]:
        """Newest first, of those numbered less than `before`. Raises `BusError`."""
        ...

    async def compact(self, now: float) -> None:
        """Forget what need not be kept any longer. Raises `BusError`."""
        ...


class NotKept(BusError):
    """It is in force, and a restart may undo it."""


class KeptOrders:
    """In the file that the keeper writes."""

    def __init__(self, keeper: PurgeKeeper, *, bare: bool = False) -> None:
        """`bare`: nothing is on disk that was purged, so that orders are all there is to keep."""
        self._keeper = keeper
        self._bare = bare

    async def log(self, entry: Entry, apply: Apply) -> Appended:
        if self._bare:
            in_force = apply

            def apply() -> PurgeMessage:
                return replace(in_force(), tags=(), everything=False, patterns=())

        if entry.key is not None:
            appended = await self._keeper.keep_once(entry, apply)
            safe = self._keeper.safe
        else:
            message = apply()
            self._keeper.keep(message, entry=entry)
            appended = Appended(Record(message.sequence, entry.now, entry.text), again=False)
            safe = await self._keeper.kept()
        if not safe:
            raise NotKept(f"purge {appended.record.sequence} is in force, but cannot be written down")
        return appended

    async def find(self, sequence: int) -> Record | None:
        return await self._keeper.ask(lambda con: ledger.find(con, sequence))

    async def audit(self, *, before: int | None, limit: int) -> Sequence[AuditRecord]:
        return await self._keeper.ask(lambda con: ledger.audit(con, _MOST if before is None else before, limit))

    async def compact(self, now: float) -> None:
        await self._keeper.compact(now)


# --- in memory ---


@dataclass(frozen=True, slots=True)
class _Line:
    """An order as it is remembered."""

    record: Record
    digest: str
    key: str | None
    audit: AuditRecord

    def text(self) -> bytes:
        told, audit = self.record, self.audit
        who = (audit.token, audit.address, audit.kind, audit.targets, audit.summary)
        values = [told.sequence, told.time, told.text, self.digest, self.key, *who]
        return json.dumps(values).encode() + b"\n"


def _line(text: bytes) -> _Line:
    sequence, time, order, digest, key, *who = json.loads(text)
    return _Line(Record(sequence, time, order), digest, key, AuditRecord(sequence, time, *who))


class SharedOrders:
    """In memory. Made before any fork; each process has what it has read of it, in `_lines`.

    A header says where the lines lie: (generation, begin, end). Lines are written behind the end, and count once the
    header says so, so that whoever is killed in the middle leaves nothing by halves. Where there is no more room, the
    newest half is copied into the other one of two areas, under the next generation. Whoever reads or writes has the
    lock, which the kernel takes back from the dead.
    """

    _HEADER: Final = struct.Struct("<QQQ")
    _BEGIN: Final = 4096

    def __init__(self, retention: Retention = KEEP, size: int = SHARED_BYTES) -> None:
        self._retention = retention
        self._size = size
        self._file = os.memfd_create("edgecache-orders")
        weakref.finalize(self, os.close, self._file)
        self._commit(0, self._BEGIN, self._BEGIN)
        self._now = 0.0
        """By the last compaction."""
        self._lines: dict[int, _Line] = {}
        self._keys: dict[str, _Line] = {}
        self._generation = 0
        self._read_to = self._BEGIN

    async def log(self, entry: Entry, apply: Apply) -> Appended:
        digest = hashlib.sha256(entry.text.encode()).hexdigest()
        with self._locked():
            if entry.key is not None and (known := self._known(entry, digest)) is not None:
                return known
            message = apply()
            who = (entry.caller.token, entry.caller.address, *summary(entry.order))
            record = Record(message.sequence, entry.now, entry.text)
            line = _Line(record, digest, entry.key, AuditRecord(record.sequence, entry.now, *who)).text()
            if len(line) > self._size // LONGEST_SHARE:
                short = Record(message.sequence, entry.now, "")
                line = _Line(short, digest, entry.key, AuditRecord(record.sequence, entry.now, *who)).text()
            self._append(line)
        return Appended(record, again=False)

    async def find(self, sequence: int) -> Record | None:
        with self._locked():
            self._read()
        line = self._lines.get(sequence)
        return None if line is None or line.record.time < self._now - self._retention.age_s else line.record

    async def audit(self, *, before: int | None, limit: int) -> Sequence[AuditRecord]:
        with self._locked():
            self._read()
        oldest = self._now - self._retention.audit_s
        found: list[AuditRecord] = []
        for sequence in reversed(self._lines):
            if len(found) == limit:
                break
            line = self._lines[sequence]
            if (before is None or sequence < before) and line.record.time >= oldest:
                found.append(line.audit)
        return found

    async def compact(self, now: float) -> None:
        """It forgets by itself where it needs room; what is too old is not told any more."""
        self._now = now

    def _known(self, entry: Entry, digest: str) -> Appended | None:
        """Raises `KeyReused`."""
        assert entry.key is not None
        self._read()
        line = self._keys.get(entry.key)
        if line is None or line.record.time < entry.now - self._retention.keys_s:
            return None
        if line.digest != digest:
            raise KeyReused("this idempotency key was used for another purge")
        return Appended(Record(line.record.sequence, line.record.time, entry.text), again=True)

    # --- the lines ---

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _header(self) -> tuple[int, int, int]:
        generation, begin, end = self._HEADER.unpack(os.pread(self._file, self._HEADER.size, 0))
        return generation, begin, end

    def _commit(self, generation: int, begin: int, end: int) -> None:
        os.pwrite(self._file, self._HEADER.pack(generation, begin, end), 0)

    def _append(self, line: bytes) -> None:
        generation, begin, end = self._header()
        if end + len(line) > begin + self._size:
            kept = os.pread(self._file, end - begin, begin)[-self._size // 2 :]
            kept = kept[kept.index(b"\n") + 1 :]
            generation += 1
            begin = self._BEGIN + (generation % 2) * self._size
            end = begin + os.pwrite(self._file, kept, begin)
        os.pwrite(self._file, line, end)
        self._commit(generation, begin, end + len(line))

    def _read(self) -> None:
        """What has been written since."""
        generation, begin, end = self._header()
        if generation != self._generation:
            self._lines.clear()
            self._keys.clear()
            self._generation, self._read_to = generation, begin
        for text in os.pread(self._file, end - self._read_to, self._read_to).splitlines():
            line = _line(text)
            self._lines[line.record.sequence] = line
            if line.key is not None:
                self._keys[line.key] = line
        self._read_to = end
        while len(self._lines) > self._retention.entries:
            del self._lines[next(iter(self._lines))]
