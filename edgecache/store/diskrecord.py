"""The stored form of a record on disk: what a row of the disk tier holds, and how it shows that it is whole. Pure.

Version 1. A record is two columns and, where the body is larger than `INLINE_MAX`, a file. Numbers are big-endian.

value:  u8 version=1 | u32 crc | u64 generation | f64 born_at | f64 fresh_until | f64 stale_until
        | u32 flags | u16 status | u64 body_size | u32 head_size | u32 meta_size
        | u32 count, u32 crc of each `CHUNK` octets of the file (count 0: the body is here)
        | head | meta | body, where it has no file
tag:    u64 fill_seq | u64 tag*

crc: CRC-32 of the key, the tag column and all of `value` behind the crc itself. It finds rows that were torn, swapped
or have rotted; it is no defence against somebody who can write to the directory.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgecache.store.memory import Record

INLINE_MAX = 32 * 1024
"""Bodies up to here lie in the row: a file costs an inode, a block on average half empty, and an open at each hit."""
CHUNK = 1 << 20
"""Octets of a body file under one checksum: what is read before the first octet of a large body can be sent."""
KEY_SIZE = 16

_VERSION = 1
_LEAD = struct.Struct(">BI")
_FIXED = struct.Struct(">QdddIHQIII")
_U32 = struct.Struct(">I")
_FILL_SEQ = struct.Struct(">Q")


class DiskRecordError(ValueError):
    """A row that is no whole record of a known version: a miss, removed and counted."""


@dataclass(frozen=True, slots=True)
class DiskRecord:
    """A row, read."""

    record: Record
    generation: int
    body_size: int
    body: bytes | None
    """None: it is in a file."""
    checksums: tuple[int, ...]
    """Of the file's chunks."""


def encode(
    key: bytes, record: Record, *, generation: int, body_size: int, body: bytes | None, checksums: Sequence[int] = ()
) -> tuple[bytes, bytes]:
    """The two columns: (value, tag). `body` None: it is in a file with these `checksums`."""
    tag = encode_tag(record.fill_seq, record.tags)
    rest = b"".join(
        (
            _FIXED.pack(
                generation,
                record.born_at,
                record.fresh_until,
                record.stale_until,
                record.flags,
                record.status,
                body_size,
                len(record.head),
                len(record.meta),
                len(checksums),
            ),
            struct.pack(f">{len(checksums)}I", *checksums),
            record.head,
            record.meta,
            body or b"",
        )
    )
    return _LEAD.pack(_VERSION, _crc(key, tag, rest)) + rest, tag


def encode_tag(fill_seq: int, tags: Iterable[int]) -> bytes:
    numbers = tuple(tags)
    return _FILL_SEQ.pack(fill_seq) + struct.pack(f">{len(numbers)}Q", *numbers)


def decode_tag(tag: object) -> tuple[int, tuple[int, ...]]:
    """(fill_seq, tags). Raises `DiskRecordError`."""
    if not isinstance(tag, bytes) or len(tag) < 8 or len(tag) % 8:
        raise DiskRecordError("the tags are not numbers")
    fill_seq, *tags = struct.unpack(f">{len(tag) // 8}Q", tag)
    return fill_seq, tuple(tags)


def decode(key: bytes, value: object, tag: object, *, in_file: bool) -> DiskRecord:
    """Raises `DiskRecordError`."""
    if not isinstance(value, bytes) or not isinstance(tag, bytes):
        raise DiskRecordError("not octets")
    try:
        version, crc = _LEAD.unpack_from(value)
        if version != _VERSION:
            raise DiskRecordError(f"record version {version} is not known")
        if _crc(key, tag, memoryview(value)[_LEAD.size :]) != crc:
            raise DiskRecordError("the checksum does not fit")
        (generation, born_at, fresh_until, stale_until, flags, status, body_size, head_size, meta_size, count) = (
            _FIXED.unpack_from(value, _LEAD.size)
        )
        at = _LEAD.size + _FIXED.size
        checksums = struct.unpack_from(f">{count}I", value, at)
    except struct.error as error:
        raise DiskRecordError(str(error)) from error
    head_at = at + count * _U32.size
    meta_at = head_at + head_size
    body_at = meta_at + meta_size
    chunks = -(-body_size // CHUNK) if in_file else 0
    if count != chunks or len(value) != body_at + (0 if in_file else body_size):
        raise DiskRecordError("the sizes do not add up")
    fill_seq, tags = decode_tag(tag)
    return DiskRecord(
        record=Record(
            head=value[head_at:meta_at],
            meta=value[meta_at:body_at],
            born_at=born_at,
            fresh_until=fresh_until,
            stale_until=stale_until,
            flags=flags,
            status=status,
            fill_seq=fill_seq,
            tags=tags,
        ),
        generation=generation,
        body_size=body_size,
        body=None if in_file else value[body_at:],
        checksums=checksums,
    )


def meta_of(value: object) -> bytes:
    """The meta alone, without comparing checksums; b"" where there is none to be read."""
    try:
        if not isinstance(value, bytes) or value[0] != _VERSION:
            return b""
        *_, head_size, meta_size, count = _FIXED.unpack_from(value, _LEAD.size)
    except (struct.error, IndexError):
        return b""
    at = _LEAD.size + _FIXED.size + count * _U32.size + head_size
    return value[at : at + meta_size]


class Checksums:
    """The checksums of a body that comes in pieces of any size."""

    def __init__(self) -> None:
        self._done: list[int] = []
        self._crc = 0
        self._room = CHUNK

    def add(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            part = view[: self._room]
            self._crc = zlib.crc32(part, self._crc)
            self._room -= len(part)
            if not self._room:
                self._done.append(self._crc)
                self._crc, self._room = 0, CHUNK
            view = view[len(part) :]

    def all(self) -> tuple[int, ...]:
        return (*self._done, self._crc) if self._room < CHUNK else tuple(self._done)


def _crc(key: bytes, tag: bytes, rest: bytes | memoryview) -> int:
    return zlib.crc32(rest, zlib.crc32(tag, zlib.crc32(key)))
