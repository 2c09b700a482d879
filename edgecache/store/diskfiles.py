"""The disk tier's directory: where its files lie, and diskcache's view of them.

    cache.db, cache.db-wal, -shm   rows (diskcache's schema, and our `Journal`)
    00 … ff                        256 kept directories of body files, named after their record's key
    spool                          bodies being written; renamed into place when whole
    purges.db, -wal, -shm          the purges that the rows are checked against (`purge/durable.py`)
    boot                           the last start that had to begin with an empty directory
    lock.write, lock.node          empty; locked by whoever writes, and by the node that owns the directory

`RecordDisk` is all that diskcache may do with a value: octets in, octets and an open file out. Whatever else a row says
of itself (text, numbers, pickles) is refused, so a stranger's row can at worst be a miss.
"""

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import diskcache

from edgecache.store.diskrecord import KEY_SIZE

MODE_INLINE = 1
MODE_FILE = 2
"""diskcache's numbers for plain octets in the row and for a file of octets; 3 is text, 4 a pickle."""
BLOCK = 4096
SPOOL = "spool"
DATABASE = "cache.db"
_NAME = re.compile(r"([0-9a-f]{2})/([0-9a-f]{30})-[0-9a-f]{8}\Z")


@dataclass(frozen=True, slots=True)
class Columns:
    """A value on its way into a row."""

    value: bytes
    filename: str | None
    file_size: int
    """As counted: whole blocks."""


@dataclass(slots=True)
class Fetched:
    """A row's content as found."""

    value: object
    filename: object
    """As the row has it: a string that names one of our files, unless `error` is set."""
    fd: int
    """-1: no file, or it is gone."""
    error: str = ""
    """Why the row cannot be one of ours."""


class DiskFault(Exception):
    """The disk, not the record, is at fault. Not an `OSError`: diskcache takes those for a miss."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class RecordDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Octets only. Nothing here or called from here loads a pickle."""

    def put(self, key: object) -> tuple[bytes, bool]:
        if type(key) is not bytes or len(key) != KEY_SIZE:
            raise TypeError("a key is 16 octets")
        return key, True

    def get(self, key: object, raw: object) -> bytes:
        if type(key) is not bytes or not raw:
            raise TypeError("a key is octets")
        return key

    def hash(self, key: bytes) -> int:
        return int.from_bytes(key[:4], "big")

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, str | None, bytes]:  # noqa: ARG002
        if not isinstance(value, Columns):
            raise TypeError("only records are stored")
        mode = MODE_INLINE if value.filename is None else MODE_FILE
        return value.file_size, mode, value.filename, value.value

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> Fetched:  # noqa: ARG002
        if type(value) is not bytes:
            return Fetched(None, filename, -1, "not octets")
        if mode == MODE_INLINE and filename is None:
            return Fetched(value, None, -1)
        if mode != MODE_FILE or not isinstance(filename, str) or not _NAME.match(filename):
            return Fetched(None, filename, -1, "not one of our modes")
        try:
            fd = os.open(f"{self._directory}/{filename}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return Fetched(value, filename, -1)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return Fetched(None, filename, -1, "a link in the place of a file")
            raise DiskFault(error) from error
        return Fetched(value, filename, fd)

    def filename(self, key: object = None, value: object = None) -> tuple[str, str]:  # noqa: ARG002
        if not isinstance(key, bytes):
            raise TypeError("a file belongs to a key")
        name = file_name(key)
        return name, f"{self._directory}/{name}"

    def remove(self, file_path: str) -> None:
        """Nothing: files go after the transaction that journals their names (`Volume`), not in the middle of it."""


def file_name(key: bytes) -> str:
    """A fresh name for a body of `key`."""
    text = key.hex()
    return f"{text[:2]}/{text[2:]}-{secrets.token_hex(4)}"


def key_of(name: object) -> bytes | None:
    """The key a file's name speaks of; None for what is not ours."""
    match = _NAME.match(name) if isinstance(name, str) else None
    return bytes.fromhex(match[1] + match[2]) if match else None


def blocks(size: int) -> int:
    """What a file of `size` octets takes."""
    return -(-size // BLOCK) * BLOCK


def prepare(path: Path) -> None:
    """Make the directory and those in it, for nobody else's eyes. Raises `OSError`."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    for name in (SPOOL, *(f"{i:02x}" for i in range(256))):
        (path / name).mkdir(mode=0o700, exist_ok=True)


def spool_path(path: Path, name: str) -> str:
    return f"{path}/{SPOOL}/{name.replace('/', '-')}"


def unlink(path: Path, name: str) -> bool:
    """Remove a body, in its place or still in the spool. An open descriptor keeps its octets. True if it was there."""
    there = False
    if key_of(name) is not None:
        for file in (spool_path(path, name), f"{path}/{name}"):
            with suppress(FileNotFoundError):
                os.unlink(file)
                there = True
    return there


@contextmanager
def locked(fd: int) -> Iterator[None]:
    """Hold the lock of `fd`: waits in the kernel, in turn, and ends with the process."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
