"""Address ranges of one family as the compiled responder searches them: "this client gets that list of PoPs".

Ranges cover the whole space of their family: range `i` runs from its start to the address before the next one's. What
is found with an address is the number of its range's list and the shortest prefix of it that lies wholly inside the
range, which is the scope an answer from that list may carry (RFC 7871 §7.2.1).
"""

from array import array
from typing import final

@final
class Ranges:
    """Immutable; looked up by any thread."""

    bits: int
    """32 or 128."""
    largest: int
    """The largest list number."""
    size_bytes: int
    """Memory of the tables."""

    def __init__(self, hi: array[int], lo: array[int] | None, ids: array[int]) -> None:
        """From `edgecache.geodns.mapping.Ranges`: `hi` are IPv4 addresses (type code I), or the upper halves of IPv6
        addresses (Q) whose lower halves are in `lo` (Q); `ids` the lists' numbers (I). Everything is copied.
        ValueError when starts do not ascend from 0 or numbers are missing."""

    def __len__(self) -> int: ...
    def find(self, address: bytes) -> tuple[int, int]:
        """(list, prefix length) of an address of 4 or 16 octets."""
