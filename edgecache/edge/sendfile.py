"""Octets of an open file to a client, without a copy where the connection is plain, and never waiting for a disk.

`send_file` hands the socket to the kernel only while the transport holds nothing of its own. The event loop watches the
transport's socket for the transport alone; so where the socket is full, a small piece goes through the transport, which
pauses us and says when it is through. All limits on slow clients hold as for any other octets.

Pages that are not in memory are read in a thread first. Where the file system cannot say whether they are (tmpfs), they
are sent as they come, a bounded piece at a time.
"""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgecache.http.errors import ClientGone

if TYPE_CHECKING:
    from edgecache.edge.connection import ClientConnection

STEP = 1 << 20
"""Octets sent before other connections have their turn."""
WINDOW = 4 << 20
"""Octets looked at, and where they are cold read, at once."""
POLL = 16 * 1024
"""Octets that go through the transport when the socket is full."""
PIECE = 128 * 1024
"""Octets read at once where they cannot be sent from the file."""
PROBE_EVERY = 1 << 20
"""Of a range, every so manieth octet is asked for. What has been thrown out between them costs a short wait."""
_READ = 256 * 1024

_byte = bytearray(1)


async def send_file(
    connection: "ClientConnection", fd: int, offset: int, size: int, sent: Callable[[int], None]
) -> int:
    """Send `size` octets of `fd` from `offset`, after all that was sent before. Plain connections only.

    `sent` hears of octets as they leave. Returns how many did: fewer where the file ends or cannot be read. Raises
    `ClientGone`.
    """
    transport = connection.transport
    socket = transport.get_extra_info("socket").fileno()
    start, end, known = offset, offset + size, offset
    connection.watermark(0)
    try:
        connection.flush()
        while offset < end:
            if connection.write_paused:
                await connection.drain()
            if connection.lost or transport.is_closing():
                raise ClientGone("the client closed or stalled within the answer")
            if offset == known:
                window = min(WINDOW, end - offset)
                known += window
                if not resident(fd, offset, window):
                    await asyncio.to_thread(warm, fd, offset, window)
                    continue
            step = min(STEP, known - offset)
            count = -1 if transport.get_write_buffer_size() else _sendfile(socket, fd, offset, step)
            if count < 0:
                piece = _read_at(fd, min(POLL, step), offset)
                transport.write(piece)
                count = len(piece)
            if count == 0:
                break
            offset += count
            sent(count)
            if count == STEP:
                await asyncio.sleep(0)
    finally:
        connection.watermark()
    return offset - start


def _sendfile(socket: int, fd: int, offset: int, size: int) -> int:
    """0 where the file ends or cannot be read, -1 where the socket takes nothing: the transport finds out why."""
    try:
        return os.sendfile(socket, fd, offset, size)
    except (BlockingIOError, InterruptedError, ConnectionError):
        return -1
    except OSError:
        return 0


def _read_at(fd: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(fd, size, offset)
    except OSError:
        return b""


async def read_file(fd: int, offset: int, size: int) -> bytes:
    """At most `size` octets; b"" where the file ends or cannot be read. Waits for a disk in a thread."""
    buffer = bytearray(min(size, PIECE))
    try:
        return bytes(memoryview(buffer)[: os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)])
    except OSError:
        return await asyncio.to_thread(_read_at, fd, min(size, PIECE), offset)


def resident(fd: int, offset: int, size: int) -> bool:
    """Can these octets be read without waiting for a disk? Looks at some of them. True where nobody can say."""
    at, last = offset, offset + size - 1
    try:
        while at < last:
            os.preadv(fd, [_byte], at, os.RWF_NOWAIT)
            at += PROBE_EVERY
        os.preadv(fd, [_byte], last, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def warm(fd: int, offset: int, size: int) -> None:
    """Bring octets into memory, and begin with as many behind them. Blocks."""
    try:
        os.posix_fadvise(fd, offset, 2 * size, os.POSIX_FADV_WILLNEED)
        buffer, end = bytearray(min(size, _READ)), offset + size
        while offset < end and (count := os.preadv(fd, [buffer], offset)):
            offset += count
    except OSError:
        pass  # whoever sends them finds out
