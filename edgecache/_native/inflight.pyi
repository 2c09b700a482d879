"""The in-flight table in the arena: who fetches what, across the processes of a node (DESIGN §8).

A lease says that one process fetches a key. Others note that they wait; whoever ends the lease is told whom to wake.
A lease ends by itself: when its time is over, or when its process died (`release_process`).
"""

from typing import final

from edgecache._native.arena import Arena

@final
class Leases:
    """The table as one process uses it. The process must have attached to its slot (`Arena.attach`)."""

    def __init__(self, arena: Arena) -> None: ...
    def acquire(self, key: bytes, fill_seq: int, sequence: int, now: float, lease_s: float) -> int:
        """A token (> 0): fetch, and `release` it. 0: another process fetches, and will have this one woken.
        -1: no room in the table; fetch without a lease.

        `fill_seq`: the last purge applied when the fetch begins; `sequence`: the last one when the request arrived. A
        lease begun before a purge that the request came after is not waited for but taken over, as is one whose time
        is over.
        """

    def waits(self, key: bytes, now: float) -> bool:
        """Does another process fetch it still? Then this one will be woken; nothing is taken from anybody."""

    def release(self, key: bytes, token: int) -> int:
        """End a lease. The processes to wake, a bit for each slot; 0 where the lease is another's by now."""

    def release_process(self, process: int) -> int:
        """End all leases of a process that is no more. The processes to wake."""

    def held(self, key: bytes, now: float) -> bool:
        """Is anybody fetching it?"""

    def __len__(self) -> int:
        """Leases in force."""
