"""How an arena's mapping is shared out among its regions (`layout.pxd` draws it)."""

from typing import Final

EVICTIONS: Final[dict[str, int]]
"""Names of the eviction policies."""

def plan_mapping(
    *,
    size: int,
    max_object: int,
    shards: int,
    purge_slots: int,
    counters: int,
    processes: int,
    pin_above: int,
    eviction: str,
) -> dict[str, int]:
    """Offsets and counts of the layout; ValueError for arguments out of range or a size that cannot hold its index and
    eight of the largest objects a shard."""
