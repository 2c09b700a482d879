"""How near this process is to its limit of open files, as a new connection's own descriptor tells.

A system gives out the lowest number that is free (POSIX.1-2017, 2.14 "File Descriptor Allocation"): a descriptor with
the number n says that n others are open, whatever they are. So clients are turned away, with an answer and counted,
while there are still some left for connections to origins and for files: were none left, the event loop could only
close what comes without telling anybody.
"""

import logging
import os
import resource

_log = logging.getLogger("edgecache.listener")

SHARE = 4
LEAST = 8
"""One in so many descriptors that are free at the start, but that many at least, is not for clients: a miss takes one
for the origin, a body on disk one for its file."""
TELL_EVERY_S = 60.0


class Descriptors:
    """The limit of this process, and what is said of it."""

    def __init__(self, limit: int, in_use: int) -> None:
        """`limit`: descriptors that this process may have. `in_use`: those it has now, before its first client."""
        self.limit = limit
        kept = max(LEAST, (limit - in_use) // SHARE)
        self._clients = limit - kept
        self._last = limit - kept // 2
        self._tell_at = 0.0

    @classmethod
    def of_this_process(cls) -> "Descriptors":
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        next_one = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.close(next_one)
        return cls(limit if limit != resource.RLIM_INFINITY else 1 << 62, next_one)

    def short(self, descriptor: int) -> bool:
        """Is a client's connection with this descriptor one too many?"""
        return descriptor >= self._clients

    def very_short(self, descriptor: int) -> bool:
        """Is there no room for it even as long as it takes a client to read that it is turned away?"""
        return descriptor >= self._last

    def tell(self, now: float) -> None:
        """A client has been turned away: say so, though not each time. `now`: of the loop's clock."""
        if now >= self._tell_at:
            self._tell_at = now + TELL_EVERY_S
            _log.warning(
                "file descriptors run out (%d for this process): clients are turned away",
                self.limit,
                extra={"remedy": "raise the limit of open files (ulimit -n), or lower limits.connections"},
            )
