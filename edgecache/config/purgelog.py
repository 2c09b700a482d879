"""What an edge on its own remembers of the purges it was asked for: `purge.log`."""

from pydantic import Field

from edgecache.config.fields import DAY_S, Duration, Section


class PurgeLogConfig(Section):
    """Who purged what, and the idempotency keys, of an edge on its own; in a fleet the coordinator has them."""

    path: str | None = Field(
        None,
        min_length=1,
        description="A directory of its own for the log of an edge without a disk tier; with one it lies there. "
        "Default: without a disk tier, in memory, where it is short and ends with the edge.",
    )
    keep_s: Duration = Field(7 * DAY_S, ge=1, le=3650 * DAY_S, description="How long orders are kept.")
    keep_entries: int = Field(100_000, ge=1, le=1_000_000_000, description="Orders that are kept.")
    keep_keys_s: Duration = Field(DAY_S, ge=1, le=30 * DAY_S, description="How long idempotency keys are known.")
    keep_audit_s: Duration = Field(90 * DAY_S, ge=1, le=3650 * DAY_S, description="How long is kept who purged what.")
