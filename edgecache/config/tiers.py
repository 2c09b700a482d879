"""Where responses are kept: `memory`, `disk`."""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from edgecache.config.fields import DAY_S, YEAR_S, Duration, Section, Size
from edgecache.config.units import GIB, KIB, MIB, format_size


class MemoryConfig(Section):
    """Where responses are kept."""

    size_bytes: Size = Field(
        256 * MIB,
        ge=4 * MIB,
        le=1024 * GIB,
        description="A hard bound on the memory tier: objects, index, shared counters and slack.",
    )
    max_object_bytes: Size = Field(
        MIB,
        ge=KIB,
        le=GIB,
        description="Responses with a larger body are not kept in memory, but on disk in slices (cache.slice).",
    )
    eviction: Literal["lru", "s3fifo", "sieve"] = Field(
        "lru",
        description="What goes when room is needed: the least recently used, or by S3-FIFO or SIEVE, which keep what "
        "is popular through scans and floods of objects asked for once. See docs/eviction.md.",
    )

    fills_bytes: Size = Field(
        64 * MIB,
        ge=MIB,
        le=64 * GIB,
        description="What the responses on their way into memory may hold beside it, in each worker. Where that is "
        "spent, responses go to their clients at the clients' pace and are not stored.",
    )

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.size_bytes < 8 * self.max_object_bytes:
            raise PydanticCustomError(
                "room",
                "a size of at least eight of the largest objects (8 × max_object = {least})",
                {"least": format_size(8 * self.max_object_bytes)},
            )
        return self


class DiskConfig(Section):
    """Where responses are kept beyond memory, and over restarts."""

    path: str | None = Field(
        None,
        min_length=1,
        description="A directory of the disk tier's own, made if it is not there; all workers of a node share it. "
        "Without it there is no disk tier.",
    )
    size_bytes: Size = Field(
        10 * GIB,
        ge=32 * MIB,
        le=1 << 50,
        description="A bound on the directory: bodies, database, its log, and what is being written.",
    )
    admit: Literal["second-request", "always"] = Field(
        "second-request",
        description="What is written to disk: what is asked for again, and what is large; or everything stored. When "
        "the edge stops, what only memory has is written in any case.",
    )
    large_bytes: Size = Field(
        256 * KIB, ge=0, le=GIB, description="Bodies from here on are written at the first request."
    )
    queue_bytes: Size = Field(
        32 * MIB,
        ge=MIB,
        le=64 * GIB,
        description="What may wait to be written, in each worker. What comes beyond that is not written.",
    )
    keep_stale_s: Duration = Field(
        DAY_S,
        ge=0,
        le=YEAR_S,
        description="How long a response stays on disk after it can no longer be used, for the origin to confirm.",
    )
