"""Tidying the disk tier's directory, away from requests: before the workers start, and in small steps while they run.

What a killed process left is named by the journal and goes before anything is served. What only a power cut or a
stranger can leave (files that neither a record nor the journal knows) is found by walking the 256 directories one by
one. Expired and purged records go in bounded steps. Every call blocks.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from edgecache.store import diskfiles
from edgecache.store.diskrecord import DiskRecordError, decode_tag, meta_of
from edgecache.store.volume import Purged, Volume

STEP = 64
"""Records dropped in one step."""
SCAN = 512
"""Records whose tags are compared in one step."""


class DirectoryInUse(OSError):
    """Another node has this directory."""


class NodeLock:
    """A node's claim on its directory. Forked processes share it; it ends with the last of them."""

    def __init__(self, path: Path, *, prepared: bool = False) -> None:
        """`prepared`: it is no directory of a disk tier, and is there. Raises `OSError`; `DirectoryInUse` where another
        node runs on it."""
        if not prepared:
            diskfiles.prepare(path)
        self._fd = os.open(path / "lock.node", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                raise DirectoryInUse(error.errno, "another edge uses this directory", str(path)) from None
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def sweep_before_start(path: Path, size: int, *, purged: Purged) -> int:
    """Remove what killed processes left. Before any worker opens the directory. How many files there were.

    Costs the number of those files, not of the records.
    """
    volume = Volume(path, size, owner=0, purged=purged)
    volume.open()
    try:
        found = volume.release(None)
        with os.scandir(path / diskfiles.SPOOL) as left:
            for file in left:
                os.unlink(file.path)
                found += 1
        volume.settle()
    finally:
        volume.close()
    return found


class Sweep:
    """A walk over records and files that never ends; `step` does a bounded piece of it."""

    def __init__(self, volume: Volume, *, sequence: Callable[[], int]) -> None:
        """`sequence`: the last purge applied on this node."""
        self.volume = volume
        self._sequence = sequence
        self._row = 0
        self._scanned_for = -1
        """The purge up to which every record has been compared."""
        self._scanning_for = -1
        self._compared_for = 0
        """The pattern up to which every record's URL has been compared."""
        self._comparing_for = 0
        self._folder = 0

    @property
    def clean_through(self) -> int:
        """No record is left that a hard purge up to this number covers, and none that is not compared with the patterns
        up to it."""
        return self._scanned_for

    def step(self, now: float) -> int:
        """Returns how many records and files went; 0 when, for now, there was nothing to do."""
        return self._expired(now) + self._purged() + self._files()

    def _expired(self, now: float) -> int:
        volume = self.volume
        if not volume.database.expired(now, 1):
            return 0
        with volume.writing():
            rows = volume.database.expired(now, STEP)
            volume.drop(rows)
        volume.counters.expired += len(rows)
        volume.settle()
        return len(rows)

    def _purged(self) -> int:
        """Compare the next records with the purge table. Rests when all have been, until there is a new purge."""
        volume = self.volume
        if self._row == 0:
            sequence = self._sequence()
            if sequence == self._scanned_for:
                return 0
            with volume.writing():
                # Whoever compared a record with an older table has stored it when this turn comes.
                self._scanning_for = sequence
                self._comparing_for = volume.patterns.newest_pattern() if volume.patterns is not None else 0
        proved = volume.proved()
        rows = volume.database.after(self._row, SCAN)
        if self._comparing_for > self._compared_for:
            self._compare(rows)
        bad = [(rowid, name, size) for rowid, tag, name, size in rows if volume.is_purged(tag, proved)]
        if bad:
            with volume.writing():
                still = [row for row in bad if self._still_purged(row[0], row[1])]
                volume.drop(still)
            volume.counters.purged += len(still)
            volume.settle()
        if len(rows) < SCAN:
            self._scanned_for, self._row = self._scanning_for, 0
            self._compared_for = max(self._compared_for, self._comparing_for)
        else:
            self._row = rows[-1][0]
        return len(bad)

    def _compare(self, rows: Sequence[tuple[int, object, str | None, int]]) -> None:
        """Have the tags of these records say what patterns do."""
        patterns = self.volume.patterns
        assert patterns is not None
        for rowid, tag, _, _ in rows:
            with suppress(DiskRecordError):
                fill_seq, tags = decode_tag(tag)
                if tags and fill_seq < self._comparing_for:
                    patterns.settle(meta_of(self.volume.database.value(rowid)), tags, fill_seq)

    def _still_purged(self, rowid: int, name: str | None) -> bool:
        """Not replaced since it was read."""
        proved = self.volume.proved()
        rows = self.volume.database.after(rowid - 1, 1)
        return bool(rows) and rows[0][0] == rowid and rows[0][2] == name and self.volume.is_purged(rows[0][1], proved)

    def _files(self) -> int:
        """One directory: remove body files that nothing knows. Files of other names are not ours to touch."""
        volume = self.volume
        folder, self._folder = f"{self._folder:02x}", (self._folder + 1) % 256
        with os.scandir(volume.path / folder) as found:
            names = [f"{folder}/{file.name}" for file in found]
        orphans = 0
        for name in names:
            key = diskfiles.key_of(name)
            # A file is journalled before it is made, and until a record has it or it is gone: what was listed and is
            # now unknown to both has no owner, or is being removed already.
            if key is not None and not volume.database.is_known(key, name):
                with suppress(FileNotFoundError):
                    os.unlink(volume.path / name)
                    orphans += 1
        volume.counters.orphans += orphans
        return orphans
