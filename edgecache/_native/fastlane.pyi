"""The fast lane (DESIGN §10): answers plain hits before the ordinary path hears of them.

A request is the lane's only if it is one complete, canonical GET or HEAD over HTTP/1.1 in one piece, with nothing in
it that needs judgement, and its answer is fresh, whole and unpurged in the arena. The answer, the counters and the
access log line are then octet for octet those of the ordinary path; everything else goes there untouched.
"""

import asyncio
from typing import Protocol, final

from edgecache._native.lane import Lane
from edgecache._native.lanebody import BodySender

class _Slow(Protocol):
    """The connection behind: `edge.connection.ClientConnection`."""

    lane: FastConnection | None
    write_paused: bool
    lost: bool
    @property
    def unsent(self) -> bool: ...
    def lane_done(self) -> None: ...

@final
class FastConnection(BodySender):
    """The protocol of one accepted connection, in front of the ordinary one."""

    def __init__(self, lane: Lane, slow: _Slow) -> None: ...
    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool: ...
    def connection_lost(self, error: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def arm(self) -> None:
        """The ordinary path waits for a new request and holds nothing of it."""

    def disarm(self) -> None:
        """The ordinary path is closing the connection."""
