"""Invalidation: `purge`."""

from pydantic import Field

from edgecache.config.fields import Section


class PurgeConfig(Section):
    """Invalidation."""

    max_targets: int = Field(
        10_000, ge=1, le=10_000, description="URLs, keys, hosts and prefixes one purge may name; with more: 413."
    )
    table_slots: int = Field(
        0,
        ge=0,
        le=1 << 26,
        description="Tags whose last purge is remembered one by one; beyond that older purges are widened, never "
        "lost. 0: chosen from memory.size.",
    )
