"""Sending: a stored entry, an arriving body, an origin's stream or an error, each to one exchange.

Memory per request is bounded whatever the size: bodies go out in pieces, and the next piece is taken when the
transport has room for it.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from edgecache.edge.exchange import Exchange
from edgecache.edge.framing import error_answer
from edgecache.edge.lookup import Candidate
from edgecache.edge.visit import Story, Visit
from edgecache.http.errors import ClientGone, HttpError
from edgecache.http.message import BodyStream, Response
from edgecache.policy import rules
from edgecache.policy.ranges import multipart_end, multipart_type, part_head
from edgecache.policy.verdicts import Form, Outgoing, Ranges, Whole
from edgecache.store.filebody import FileEntry
from edgecache.store.memory import AnyEntry

PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Span:
    """Octets that lie in an open file, verified."""

    fd: int
    offset: int
    size: int


Read = Callable[[int, int], Awaitable[bytes | Span]]
"""(offset, size) -> at most that many octets of the stored body, b"" at its end, or where they lie. A file stays open
until the next call, or until everything is sent."""


async def send_candidate(visit: Visit, candidate: Candidate, form: Form, now: float) -> None:
    """What is stored, in the form this request asks for; `visit.story.cache_status` says how it came to that."""
    stored, entry, story = candidate.stored, candidate.entry, visit.story
    out = rules.respond(stored, form, visit.request, now, visit.site.policy, story.cache_status)
    story.status = out.response.status
    # Ranges count octets of the whole representation; a partial body begins somewhere inside it.
    base = stored.held.first if stored.held is not None and isinstance(form, Ranges) else 0
    try:
        await send_stored(visit.exchange, story, out, form, stored.body_size, partial(_read, entry, base))
    finally:
        entry.close()


async def _read(entry: AnyEntry, base: int, offset: int, size: int) -> bytes | Span:
    # Not within: compiled, a coroutine and the functions in it hold each other until the cycle collector comes.
    if isinstance(entry, FileEntry):
        return Span(entry.fd, entry.body.offset + offset - base, size) if entry.open() else b""
    return entry.read(offset - base, min(size, PIECE))


async def send_stored(exchange: Exchange, story: Story, out: Outgoing, form: Form, size: int, read: Read) -> None:
    """A stored response of `size` octets, whole or in ranges."""
    response = out.response
    if not out.body:
        exchange.start(response, 0)
        exchange.finish()
        return
    match form:
        case Ranges(parts=parts, complete=complete) if len(parts) > 1:
            boundary = secrets.token_hex(12)
            part_type = response.headers.get("content-type")
            heads = [part_head(boundary, part_type, part, complete) for part in parts]
            closing = multipart_end(boundary)
            length = sum(map(len, heads)) + sum(last + 1 - first for first, last in parts) + len(closing)
            headers = response.headers.replaced("content-type", multipart_type(boundary))
            exchange.start(response.with_headers(headers), length)
            for head, (first, last) in zip(heads, parts, strict=True):
                await _write(exchange, story, head)
                await _copy(exchange, story, read, first, last + 1)
            await _write(exchange, story, closing)
        case Ranges(parts=((first, last),)):
            exchange.start(response, last + 1 - first)
            await _copy(exchange, story, read, first, last + 1)
        case Whole():
            exchange.start(response, size)
            await _copy(exchange, story, read, 0, size)
        case _:
            exchange.start(response, 0)
    exchange.finish()


async def _copy(exchange: Exchange, story: Story, read: Read, at: int, end: int) -> None:
    while at < end:
        data = await read(at, end - at)
        if isinstance(data, Span):
            went = await exchange.write_file(data.fd, data.offset, data.size, story.sent)
            if went < data.size:
                break
            at += went
        elif data:
            at += len(data)
            await _write(exchange, story, data)
        else:
            break


async def _write(exchange: Exchange, story: Story, data: bytes) -> None:
    await exchange.write(data)
    story.body_bytes += len(data)


async def send_stream(
    exchange: Exchange,
    story: Story,
    response: Response,
    body: BodyStream,
    *,
    keep: Callable[[bytes], None] | None = None,
) -> bool:
    """A body as it comes. An upstream failure in the middle cuts the transfer: it must not look complete.

    `keep` sees every piece (for storing on the way). True when it came whole.
    """
    length, sent = body.length, 0
    try:
        exchange.start(response, length)
        while sent != length and (data := await body.read()):
            if keep is not None:
                keep(data)
            await exchange.write(data)
            sent += len(data)
            story.body_bytes += len(data)
    except ClientGone:
        raise
    except HttpError as error:
        story.error, story.aborted = error.code, True
        exchange.abort()
        return False
    finally:
        body.close()
    exchange.finish(body.trailers)
    return True


async def send_error(exchange: Exchange, story: Story, status: int, detail: str, cache_status: str) -> None:
    """An error where nothing has been sent yet; a cut connection where it has."""
    if exchange.started:
        exchange.abort()
        return
    response, body = error_answer(status, detail, cache_status)
    exchange.start(response, len(body))
    await _write(exchange, story, body)
    exchange.finish()
