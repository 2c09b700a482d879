"""Memory and disk as one store: a look-up finds what is in memory; what is only on disk is brought up first.

`TieredStore` has the memory tier's face, so whoever stores and looks up knows of one store, and none of its calls
blocks. The disk is written behind: `put` and `freshen` queue what is worth it, `load` is the one call that waits.

What is worth it: with `admit="always"` everything; else what is large, what is stored anew after it was asked for, and
what somebody has asked for some time after it was stored, whichever process answered: the arena notes each use, and the
entries not yet written are looked at now and then (`LOOK_AFTER_S`).

The disk never holds an older version than memory: what replaces something is written, or what it replaces removed.
Each process has a queue of its own for that, and one may come to it later than another: so what is written is compared
with memory once more, when it lies there. Whoever changes memory from then on has yet to tell the disk.

When a process ends as it was told to, what it stored and is not on disk yet is written (`save`), asked for or not: a
node that is stopped and started has on disk what it had in memory.

A body that has a file of its own stays there. What comes into memory is a reference (`store/filebody.py`), once every
checksum of the file has been compared; the page cache keeps what is asked for often, and nothing is kept twice.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from edgecache._native.arena import FLAG_HIT_FOR_PASS, FLAG_PARTIAL
from edgecache.http.clock import wall_clock
from edgecache.http.stored import StoredFlag
from edgecache.http.tasks import spawn
from edgecache.observe.slots import CHANGES_AT, REMOVALS_AT, WRITES_AT
from edgecache.store.disk import DiskStore, disk_key, disk_variant_key
from edgecache.store.diskentry import BodyCorrupt, DiskEntry
from edgecache.store.diskfiles import DiskFault, key_of
from edgecache.store.filebody import FileBody, FileEntry
from edgecache.store.memory import AnyEntry, MemoryStore, Record

KEYS_MAX = 65_536
"""Keys whose disk key is known: those computed last. For others the disk is left alone. About 12 MiB when full."""
PENDING_MAX = 65_536
"""Entries stored lately and not yet written: about 12 MiB when full; the oldest are forgotten."""
LOOK_AFTER_S = (2.0, 20.0, 200.0)
"""When an entry is looked at, after it was stored or looked at last; from then on as often as the last says, for as
long as it is in memory."""
_LOOK_AT_ONCE = 256
_SLICED = int(StoredFlag.SLICED)
"""A manifest is worth as much as its slices, which are on disk already."""


class TieredStore(MemoryStore):
    """Belongs to one event loop. The arena below is shared by all processes, the directory too."""

    def __init__(self, memory: MemoryStore, disk: DiskStore, *, always: bool, large: int) -> None:
        super().__init__(memory.arena, memory.secret)
        self.directory = str(disk.path)
        self.disk = disk
        self.uses: Callable[[], dict[bytes, int]] = dict
        """How often bodies in files were sent by the fast lane since the last call, by the file's name."""
        disk.heed(self)
        self._always = always
        self._large = large
        self._keys: dict[bytes, bytes] = {}
        self._absent: dict[bytes, int] = {}
        """Keys found absent on disk, of those above, and how many had been written before (`_writes`). So it is while
        memory has nothing there, either, and no process has written since: what came into memory, any may write."""
        self._loading: dict[bytes, asyncio.Future[bool]] = {}
        self._pending: tuple[deque[tuple[float, bytes]], ...] = tuple(deque() for _ in LOOK_AFTER_S)
        self._looking: asyncio.Task[None] | None = None
        self._unwritten: dict[bytes, bytes] = {}
        """What was stored here and is in memory only, as far as is known: key and disk key, oldest first."""

    async def start(self) -> None:
        await self.disk.start()
        self._looking = spawn(self._look(), "disk-admission")

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await self.disk.close()

    def get(self, key: bytes) -> AnyEntry | None:
        entry = super().get(key)
        if isinstance(entry, FileEntry):
            self._used_file(entry.body.name)
        return entry

    def _used_file(self, name: str, times: int = 1) -> None:
        below = key_of(name)
        if below is not None:
            self.disk.used(below, times)

    # --- keys ---

    def key(self, text: str) -> bytes:
        key = super().key(text)
        if key not in self._keys:
            self._know(key, disk_key(text))
        return key

    def variant_key(self, primary: bytes, secondary: bytes) -> bytes:
        key = super().variant_key(primary, secondary)
        if key not in self._keys and (below := self._keys.get(primary)) is not None:
            self._know(key, disk_variant_key(below, secondary))
        return key

    def _know(self, key: bytes, below: bytes) -> None:
        if len(self._keys) >= KEYS_MAX:
            for old in list(islice(self._keys, KEYS_MAX // 8)):
                del self._keys[old]
                self._absent.pop(old, None)
        self._keys[key] = below

    # --- from disk ---

    async def load(self, keys: Sequence[bytes]) -> bool:
        """Bring these up from disk, where memory has none. True where one came."""
        if not self.disk.on:
            return False
        came = [await self._load(key) for key in keys]
        return any(came)

    async def _load(self, key: bytes) -> bool:
        below = self._keys.get(key)
        if below is None:
            return False
        under_way = self._loading.get(key)
        if under_way is not None:
            return await asyncio.shield(under_way)
        done = self._loading[key] = asyncio.get_running_loop().create_future()
        came = False
        try:
            came = await self._promote(key, below)
        finally:
            del self._loading[key]
            done.set_result(came)
        return came

    async def _promote(self, key: bytes, below: bytes) -> bool:
        removals, writes = self._removals(key), self._writes(key)
        removing = self.disk.removing(below)
        entry = await self.disk.get(below)
        if entry is None:
            if self.disk.on and not removing:
                self._absent[key] = writes
            return False
        self._absent.pop(key, None)
        if entry.soft_purged:  # memory would not take it
            entry.close()
            return False
        record = replace(entry.record, fill_seq=max(entry.record.fill_seq, entry.proved))
        stays = entry.filename is not None and not entry.record.flags & FLAG_PARTIAL
        chunks: list[bytes] = []
        try:
            if stays:
                await self.disk.verify(entry)
            else:
                chunks = await self._body(entry)
        except (BodyCorrupt, DiskFault):
            self.disk.remove(below, entry.generation)
            return False
        finally:
            entry.close()
        # No await from here on. Whatever came into memory meanwhile is newer.
        if super().peek(key) is not None:
            return True
        if self._removals(key) != removals:
            return False
        known = self._compared_record(record)
        if stays and entry.filename is not None:
            return self.put_file(key, known, FileBody(entry.body_size, 0, entry.generation, entry.filename))
        return super().put(key, known, chunks)

    def _compared_record(self, record: Record) -> Record:
        """What is on disk has been compared with the patterns that are forgotten: it counts as filled then."""
        if not record.tags or not self.late(record.fill_seq) or self.arena.purged(record.fill_seq, record.tags):
            return record
        return replace(record, fill_seq=self.arena.retired())

    async def _body(self, entry: DiskEntry) -> list[bytes]:
        """All of it: what is in a row, or a part that another part may be joined to."""
        if not entry.in_file:
            return [entry.read(0, entry.body_size)]
        chunks: list[bytes] = []
        size = 0
        while size < entry.body_size and (data := await self.disk.read(entry, size, 1 << 20)):
            chunks.append(data)
            size += len(data)
        return chunks

    # --- to disk ---

    def _removals(self, key: bytes) -> int:
        """How often a process has removed this key from memory, or one of those that share its count."""
        return self.arena.counter(REMOVALS_AT + key[0])

    def _changes(self, key: bytes) -> int:
        """The same, and how often one has replaced or freshened it, or would have removed it."""
        return self._removals(key) + self.arena.counter(CHANGES_AT + (key[0] >> 1))

    def _changed(self, key: bytes) -> None:
        """After it was, and before the disk is told."""
        self.arena.add(CHANGES_AT + (key[0] >> 1))

    def _writes(self, key: bytes) -> int:
        return self.arena.counter(WRITES_AT + (key[0] >> 2))

    def put(self, key: bytes, record: Record, body: Sequence[bytes]) -> bool:
        replaces = super().peek(key) is not None
        if replaces:
            self._absent.pop(key, None)
        changes = self._changes(key)
        if not super().put(key, record, body):
            return False
        if replaces:
            self._changed(key)
            changes += 1
        below = self._keys.get(key)
        if below is None:
            return True
        if record.flags & FLAG_HIT_FOR_PASS:
            self._unwritten.pop(key, None)
            self._take_back(key, below)
            return True
        if self._always or record.flags & _SLICED or sum(map(len, body)) >= self._large or self._used(key):
            entry = super().peek(key)
            mine = entry is not None and (entry.born_at, entry.head) == (record.born_at, record.head)
            self._write(key, below, record, body, entry.generation if entry is not None and mine else 0, changes)
            return True
        self._take_back(key, below)
        self._only_in_memory(key, below)
        self._later(0, key)
        return True

    def freshen(self, key: bytes, generation: int, record: Record) -> bool:
        if not super().freshen(key, generation, record):
            return False
        self._changed(key)
        entry, below = super().peek(key), self._keys.get(key)
        if not isinstance(entry, FileEntry):
            if below is not None and not self._consider(key):
                self._only_in_memory(key, below)
        elif below is not None and not self.disk.freshen(below, entry.body.generation, record):
            self.disk.remove(below, entry.body.generation)
        return True

    def remove(self, key: bytes, generation: int = 0) -> bool:
        removed = super().remove(key, generation)
        if removed:
            self._absent.pop(key, None)
            self.arena.add(REMOVALS_AT + key[0])
        elif not generation:  # one that was evicted may be on its way to the disk
            self._changed(key)
        below = self._keys.get(key)
        if below is not None and (removed or not generation):
            self._unwritten.pop(key, None)
            self._take_back(key, below)
        return removed

    def _write(
        self, key: bytes, below: bytes, record: Record, body: Sequence[bytes], generation: int, changes: int
    ) -> None:
        """`generation` and `changes`: as they were while this was what memory has."""
        stored = self._compare_later(key, below, record.fresh_until, generation, changes)
        self._absent.pop(key, None)
        if self.disk.put(below, record, body, stored):
            self._unwritten.pop(key, None)
        else:
            self.disk.remove(below)
            self._only_in_memory(key, below)

    def _compare_later(
        self, key: bytes, below: bytes, fresh_until: float, generation: int, changes: int
    ) -> Callable[[int], None]:
        """What is to be done once it lies on disk."""

        def stored(written: int) -> None:
            self.arena.add(WRITES_AT + (key[0] >> 2))
            entry = MemoryStore.peek(self, key)
            if entry is None:
                stands = generation != 0 and self._changes(key) == changes  # it was evicted
            else:
                stands = (entry.generation, entry.fresh_until) == (generation, fresh_until)
                entry.close()
            if stands:
                self._unwritten.pop(key, None)
                return
            self.disk.remove(below, written)
            if entry is not None and not entry.flags & FLAG_HIT_FOR_PASS:
                # If it lay there, this has taken its place.
                self._only_in_memory(key, below)
                self._later(0, key)

        return stored

    def _only_in_memory(self, key: bytes, below: bytes) -> None:
        self._unwritten.pop(key, None)
        if len(self._unwritten) >= KEYS_MAX:
            del self._unwritten[next(iter(self._unwritten))]
        self._unwritten[key] = below

    async def save(self, seconds: float) -> int:
        """Write what is in memory and not on disk, before this process ends: first what was asked for, and what was
        stored last. No longer than so many seconds. Returns how many entries were written."""
        written: dict[bytes, _Saved] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for used in (True, False):
                    for key in reversed(list(self._unwritten)):
                        if (
                            self.disk.on
                            and key in self._unwritten
                            and await self._save(key, used=used, written=written)
                        ):
                            self._unwritten.pop(key, None)
                await self.disk.flush()
        # Other processes go on: what one of them has replaced or removed meanwhile may not lie on disk as it was.
        for key, saved in written.items():
            entry = super().peek(key)
            if saved.lies and (entry is None or (entry.generation, entry.fresh_until) != saved.before):
                self.disk.remove(saved.below, saved.lies)  # what comes to lie there later is compared then
            if entry is not None:
                entry.close()
        return len(written)

    async def _save(self, key: bytes, *, used: bool, written: dict[bytes, "_Saved"]) -> bool:
        """True where nothing is left to do."""
        changes = self._changes(key)
        entry = super().peek(key)
        if entry is None or isinstance(entry, FileEntry):
            return True
        try:
            if used and not entry.used:
                return False
            below = self._unwritten[key]
            if entry.soft_purged:
                self.disk.remove(below)
                return True
            saved = _Saved(below, (entry.generation, entry.fresh_until))
            compare = self._compare_later(key, below, entry.fresh_until, entry.generation, changes)

            def stored(generation: int) -> None:
                saved.lies = generation
                compare(generation)

            if await self.disk.put_patiently(below, _record(entry), [entry.read(0, entry.body_size)], stored):
                written[key] = saved
            return True
        finally:
            entry.close()

    def _take_back(self, key: bytes, below: bytes) -> None:
        """What is on disk, if anything, is no longer what is stored."""
        if self._absent.get(key) != self._writes(key):
            self.disk.remove(below)

    def _used(self, key: bytes) -> bool:
        entry = super().peek(key)
        if entry is None:
            return False
        entry.close()
        return entry.used

    def _consider(self, key: bytes) -> bool:
        """Write the entry, if it has been asked for. False where it has not been."""
        below = self._keys.get(key)
        changes = self._changes(key)
        entry = super().peek(key) if below is not None else None
        if entry is None or below is None:
            return True
        try:
            if isinstance(entry, FileEntry):
                return True  # it lies there
            if entry.soft_purged:
                self._take_back(key, below)
                return True
            if not (self._always or entry.used or entry.flags & _SLICED):
                return False
            record, body = _record(entry), [entry.read(0, entry.body_size)]
            self._write(key, below, record, body, entry.generation, changes)
            return True
        finally:
            entry.close()

    def _later(self, times: int, key: bytes) -> None:
        pending = self._pending[times]
        if len(pending) >= PENDING_MAX // len(LOOK_AFTER_S):
            pending.popleft()
        pending.append((wall_clock() + LOOK_AFTER_S[times], key))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AFTER_S[0] / 4)
            self.look(wall_clock())
            for name, times in self.uses().items():
                self._used_file(name.decode("ascii"), times)

    def look(self, now: float) -> None:
        """Look at the entries that it is time for, a bounded number of them."""
        for times, pending in enumerate(self._pending):
            for _ in range(_LOOK_AT_ONCE):
                if not pending or pending[0][0] > now:
                    break
                _, key = pending.popleft()
                if key in self._unwritten and not self._consider(key):
                    self._later(min(times + 1, len(LOOK_AFTER_S) - 1), key)


@dataclass(slots=True)
class _Saved:
    below: bytes
    before: tuple[int, float]
    """Generation and freshness in memory."""
    lies: int = 0
    """The record's generation, once it lies on disk."""


def _record(entry: AnyEntry) -> Record:
    return Record(
        head=entry.head,
        meta=entry.meta,
        born_at=entry.born_at,
        fresh_until=entry.fresh_until,
        stale_until=entry.stale_until,
        flags=entry.flags,
        status=entry.status,
        fill_seq=entry.fill_seq,
        tags=tuple(entry.tags()),
    )
