"""How often each may: a bucket of allowances per token, filled steadily. Pure."""

from dataclasses import dataclass
from typing import Final

from edgecache.admin.wire import MAX_TARGETS

TARGETS_AT_ONE: Final = 100
"""What a purge names counts too: one allowance for each so many targets."""

LARGEST: Final = 1 + MAX_TARGETS // TARGETS_AT_ONE
"""What the largest call counts."""


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class RateLimiter:
    """`rate`: allowances per second; 0: no limit. `burst`: how many may be saved up at that rate."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, _Bucket] = {}

    def configure(self, rate: float, burst: float) -> None:
        """Others from now on. What has been used stays used."""
        self._rate = rate
        self._burst = burst

    def take(self, name: str, amount: float, now: float, rate: float | None = None) -> float:
        """0 where it may, and then it is counted; else how many seconds to wait. `now`: of a clock that never goes
        back. `rate`: this one's own."""
        burst = self._burst if rate is None else self._burst_at(rate)
        rate = self._rate if rate is None else rate
        if rate <= 0:
            return 0.0
        burst = max(burst, rate)
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(burst, now)
        bucket.level = min(burst, bucket.level + (now - bucket.at) * rate)
        bucket.at = now
        amount = min(amount, burst)
        if bucket.level >= amount:
            bucket.level -= amount
            return 0.0
        return (amount - bucket.level) / rate

    def _burst_at(self, rate: float) -> float:
        """As many seconds' worth as at the common rate, so that one who may little cannot do much at once; but one call
        as large as calls can be, which would count for less otherwise."""
        if self._rate <= 0:
            return self._burst
        return max(self._burst * rate / self._rate, min(self._burst, LARGEST))

    def keep(self, names: frozenset[str]) -> None:
        """Forget all others."""
        for name in self._buckets.keys() - names:
            del self._buckets[name]


def cost(targets: int) -> int:
    """Of a purge call."""
    return 1 + targets // TARGETS_AT_ONE
