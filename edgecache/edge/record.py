"""The stored form of a response: `StoredResponse` <-> the two blobs and the numbers of a store's record.

The head blob is the response head as clients get it, less what depends on the moment (Age, Cache-Status, framing):
a hit copies it to the socket. The meta blob holds what only the policy needs.

Head:   status line CRLF (name ": " value CRLF)*                 no empty line at the end
Meta 1: u8 version=1 | f64 request_time | f64 response_time | f64 swr_until | f64 sie_until
        | u8 held? [u64 first | u64 last | u64 complete, 2^64-1 = unknown]
        | u16 count, selecting: (u16 length, name, u8 present, u16 length, value)*
        | hidden field lines in the head's form
Meta 2: a manifest. As 1, with version=2 and in the place of held:
        u64 size of the body | u32 size of a slice | u8 validated? | 16 octets, the slices' key
Meta 3, 4: as 1 and 2, with what patterns are compared with before held (or before the size): u16 length, its URL
Meta 5: of a slice: u8 version=5 | u16 length, its URL
Numbers are big-endian; text is Latin-1.
"""

import struct
from collections.abc import Container

from edgecache.http.headers import Headers
from edgecache.http.message import Response
from edgecache.http.stored import Held, Sliced, StoredFlag, StoredResponse
from edgecache.store.memory import Record

_VERSION = 1
_MANIFEST = 2
_WITH_URL = 2
"""Added to the version."""
_SLICE = 5
_FIXED = struct.Struct(">Bdddd")
_HELD = struct.Struct(">QQQ")
_SLICED = struct.Struct(">QIB16s")
_U16 = struct.Struct(">H")
_UNKNOWN = 2**64 - 1
MAX_URL = 2**16 - 1


class RecordError(ValueError):
    """A record that this version cannot read: treated as absent."""


def encode(
    stored: StoredResponse,
    *,
    hidden: Container[str],
    fill_seq: int,
    tags: tuple[int, ...],
    url: str = "",
    keep_url: bool = False,
) -> Record:
    """`hidden`: lower-case names of fields that clients do not get (Surrogate-Control and the like). `keep_url`: with
    what is stored, unless it is too long."""
    response = stored.response
    shown = [f"HTTP/1.1 {response.status} {response.reason}"]
    kept: list[str] = []
    for name, value in response.headers:
        (kept if name.lower() in hidden else shown).append(f"{name}: {value}")
    sliced = stored.sliced
    version = _VERSION if sliced is None else _MANIFEST
    keep = keep_url and 0 < len(url) <= MAX_URL
    version += _WITH_URL if keep else 0
    meta = [_FIXED.pack(version, stored.request_time, stored.response_time, stored.swr_until, stored.sie_until)]
    if keep:
        meta.append(_text(url))
    if sliced is not None:
        meta.append(_SLICED.pack(stored.body_size, sliced.size, sliced.validated, sliced.key))
    elif stored.held is None:
        meta.append(b"\0")
    else:
        complete = _UNKNOWN if stored.held.complete is None else stored.held.complete
        meta.append(b"\1" + _HELD.pack(stored.held.first, stored.held.last, complete))
    meta.append(_U16.pack(len(stored.selecting)))
    for name, selected in stored.selecting:
        meta.append(_text(name))
        meta.append(b"\0" if selected is None else b"\1")
        meta.append(_text(selected or ""))
    meta.append("".join(f"{line}\r\n" for line in kept).encode("latin-1"))
    return Record(
        head="".join(f"{line}\r\n" for line in shown).encode("latin-1"),
        meta=b"".join(meta),
        born_at=stored.born_at,
        fresh_until=stored.fresh_until,
        stale_until=stored.stale_until,
        flags=int(stored.flags),
        status=response.status,
        fill_seq=fill_seq,
        tags=tags,
        url=url,
    )


def slice_meta(url: str) -> bytes:
    """Of a slice, which has no head of its own."""
    return bytes([_SLICE]) + _text(url) if 0 < len(url) <= MAX_URL else b""


def stored_url(meta: bytes) -> str | None:
    """The URL that was kept, if one was."""
    version = meta[0] if meta else 0
    at = {_VERSION + _WITH_URL: _FIXED.size, _MANIFEST + _WITH_URL: _FIXED.size, _SLICE: 1}.get(version)
    try:
        return None if at is None else _read_text(meta, at)[0]
    except (RecordError, struct.error):
        return None


def decode(
    head: bytes,
    meta: bytes,
    *,
    born_at: float,
    fresh_until: float,
    flags: int,
    body_size: int,
    soft_purged: bool,
    unconfirmed: bool = False,
) -> StoredResponse:
    """The response behind an entry. Raises `RecordError`."""
    try:
        version, request_time, response_time, swr_until, sie_until = _FIXED.unpack_from(meta)
        at = _FIXED.size
        if version in {_VERSION + _WITH_URL, _MANIFEST + _WITH_URL}:
            version -= _WITH_URL
            at = _read_text(meta, at)[1]
        if version not in {_VERSION, _MANIFEST}:
            raise RecordError(f"record version {version} is not known")
        held = sliced = None
        if version == _MANIFEST:
            body_size, size, validated, key = _SLICED.unpack_from(meta, at)
            if not size:
                raise RecordError("slices of no size")
            sliced = Sliced(key, size, bool(validated))
            at += _SLICED.size
        else:
            if meta[at]:
                first, last, complete = _HELD.unpack_from(meta, at + 1)
                held = Held(first, last, None if complete == _UNKNOWN else complete)
                at += _HELD.size
            at += 1
        (count,) = _U16.unpack_from(meta, at)
        at += _U16.size
        selecting: list[tuple[str, str | None]] = []
        for _ in range(count):
            name, at = _read_text(meta, at)
            present = meta[at]
            value, at = _read_text(meta, at + 1)
            selecting.append((name, value if present else None))
        status_line, *lines = (head + meta[at:]).decode("latin-1").split("\r\n")
        _, status, reason = status_line.split(" ", 2)
        headers = Headers((name, value) for name, _, value in (line.partition(": ") for line in lines if line))
        return StoredResponse(
            response=Response(int(status), reason, headers),
            selecting=tuple(selecting),
            request_time=request_time,
            response_time=response_time,
            born_at=born_at,
            fresh_until=fresh_until,
            swr_until=swr_until,
            sie_until=sie_until,
            flags=StoredFlag(flags),
            body_size=body_size,
            held=held,
            soft_purged=soft_purged,
            unconfirmed=unconfirmed,
            sliced=sliced,
        )
    except (struct.error, IndexError, ValueError) as error:
        raise RecordError(str(error)) from error


def _text(value: str) -> bytes:
    data = value.encode("latin-1")
    return _U16.pack(len(data)) + data


def _read_text(meta: bytes, at: int) -> tuple[str, int]:
    (length,) = _U16.unpack_from(meta, at)
    start = at + _U16.size
    if start + length > len(meta):
        raise RecordError("text runs past the end of the record")
    return meta[start : start + length].decode("latin-1"), start + length
