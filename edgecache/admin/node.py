"""What the admin API and the command line may ask of a running edge."""

from dataclasses import dataclass, field
from typing import Protocol

from edgecache.http.headers import Headers
from edgecache.purge.bus import Caller
from edgecache.purge.message import PurgeOrder, PurgeReceipt


@dataclass(frozen=True, slots=True)
class ExplainedEntry:
    """One stored response, as far as a person wants to know."""

    key: str
    status: int
    age_s: float
    fresh_for_s: float
    """Negative: stale for so long."""
    stale_for_s: float
    """How much longer it may be used stale; 0 or negative: not."""
    body_bytes: int
    tier: str
    """Where the body lies: "memory", "disk", or in how many slices, and how many of them are there."""
    flags: tuple[str, ...]
    vary: tuple[tuple[str, str | None], ...]
    surrogate_keys: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the edge would do with a request, and why. Nothing was fetched and nothing changed."""

    url: str
    site: str
    cache_key: str
    verdict: str
    """"serve", "revalidate", "fetch", "pass" or "reject"."""
    reason: str
    detail: str
    cache_status: str
    """The field the answer would carry."""
    stored: tuple[ExplainedEntry, ...]
    in_flight: bool = False
    notes: tuple[str, ...] = field(default=())
    """Sentences: what made it so, and what would change it."""


class Node(Protocol):
    """A running edge."""

    name: str

    def ready(self) -> tuple[bool, str]:
        """May it take traffic? And if not, why."""
        ...

    async def purge(
        self,
        order: PurgeOrder,
        *,
        caller: Caller,
        wait: bool,
        timeout_s: float | None = None,
        key: str | None = None,
    ) -> PurgeReceipt:
        """Raises `PurgeError`. `timeout_s`: how long to wait for other edges. `key`: an idempotency key."""
        ...

    async def purged(self, sequence: int) -> dict[str, object]:
        """What became of a purge: `sequence`, and `edges` with `edge` and `applied`. Raises `PurgeError`."""
        ...

    async def audit(self, before: int | None, limit: int) -> dict[str, object]:
        """Who purged what, newest first, of those numbered less than `before`: `records`. Raises `PurgeError`."""
        ...

    async def edges(self) -> dict[str, object]:
        """The edges of the fleet, or this one: `head` of the log, and `edges` with what is known of each. Raises
        `PurgeError`."""
        ...

    async def explain(self, method: str, url: str, headers: Headers) -> Explanation:
        """Raises `ValueError` for a URL that is not absolute http(s)."""
        ...

    def stats(self) -> dict[str, object]:
        """Plain figures, nested by subject, ready for JSON: see docs/operations.md."""
        ...

    def metrics(self) -> bytes:
        """Prometheus text exposition."""
        ...
