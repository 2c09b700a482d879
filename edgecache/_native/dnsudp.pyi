"""The UDP side of the DNS server: packets are read and answered by the batch, the plain ones without Python.

What the table cannot answer goes to `slow` as it came. Whoever answers, an address that has not proven itself by a
server cookie (RFC 7873) is sent no more than so many times what it sent, and responses, packets too short for a header
and such as are longer than any query get silence.
"""

from collections.abc import Callable
from typing import Final, TypeAlias, final

from edgecache._native.dnsguard import Cookies, Limiter
from edgecache._native.dnstable import Table

COUNTERS: Final[tuple[str, ...]]
"""What `Responder.counts` counts: "received" packets; "answered" by the table; "slow": by `slow`; "silent": not to be
answered; "cut": sent with TC for their size; "limited" and "slipped" by response rate; "cookies" that proved an address
and "bad_cookies" that did not; "subnets": queries with a client subnet; "errors" of Python code; "unsent" for want of
room."""

Slow: TypeAlias = Callable[[bytes, bytes], bytes | None]
"""(packet, address of 4 or 16 octets) -> the answer, or None for silence."""

@final
class Responder:
    """Answers on one bound, non-blocking UDP socket. Not for use by several threads."""

    def __init__(
        self,
        fileno: int,
        slow: Slow,
        failed: Callable[[Exception], None],
        *,
        cookies: Cookies | None = None,
        limiter: Limiter | None = None,
        from_any: bool = False,
        most: int = 1232,
        amplification: float = 3.0,
    ) -> None:
        """`failed` is told of exceptions: of a table's `ready` and `fill`, whose packets go to `slow`, and of `slow`,
        whose packets are not answered. `from_any`:
        the socket is bound to no certain address, and answers must leave from the one that was asked. `most`: octets
        of an answer, whatever a client offers, 512 to 4096."""

    def use(self, table: Table | None, cookies: Cookies | None = None) -> None:
        """From the next batch on. Without a table all is for `slow`."""

    def read(self) -> int:
        """Answers what is waiting, up to some batches; for the event loop when the socket is readable. Returns the
        number of packets."""

    def counts(self) -> dict[str, int]:
        """Since it was made; see `COUNTERS`."""
