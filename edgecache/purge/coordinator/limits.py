"""How often each may: a bucket of allowances per token, filled steadily. Pure."""

from dataclasses import dataclass
from typing import Final

TARGETS_AT_ONE: Final = 100
"""What a purge names counts too: one allowance for each so many targets."""


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class RateLimiter:
    """`rate`: allowances per second; 0: no limit. `burst`: how many may be saved up."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, _Bucket] = {}

    def take(self, name: str, amount: float, now: float, rate: float | None = None) -> float:
        """0 where it may, and then it is counted; else how many seconds to wait. `now`: of a clock that never goes
        back. `rate`: this one's own."""
        rate = self._rate if rate is None else rate
        if rate <= 0:
            return 0.0
        burst = max(self._burst, rate)
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

    def keep(self, names: frozenset[str]) -> None:
        """Forget all others."""
        for name in self._buckets.keys() - names:
            del self._buckets[name]


def cost(targets: int) -> int:
    """Of a purge call."""
    return 1 + targets // TARGETS_AT_ONE
