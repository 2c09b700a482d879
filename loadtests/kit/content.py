"""What is asked for: sizes, popularity, and bodies that anybody can compute, so that every octet can be checked.

Sizes are those of the objects of a CDN's image class as published with Tragen (Sabnis and Sitaraman, IMC 2021; traffic
class tc-1, recorded at Akamai): quantiles, with straight lines between them on a logarithmic axis. Popularity is Zipf's
law over some objects, and one request in four goes to an object that nobody asks for again: about 70 % of objects are
asked for once, as in published traces of CDNs. An object's size and popularity do not know of each other here.
"""

from __future__ import annotations

import bisect
import math
import random
from array import array
from functools import lru_cache
from itertools import accumulate

QUANTILES = (
    (0.0, 64),
    (0.01, 1_032),
    (0.05, 1_415),
    (0.1, 1_892),
    (0.2, 3_534),
    (0.3, 4_858),
    (0.4, 6_705),
    (0.5, 9_231),
    (0.6, 13_404),
    (0.7, 19_187),
    (0.8, 29_314),
    (0.9, 50_144),
    (0.95, 73_818),
    (0.98, 111_581),
    (0.99, 148_592),
    (0.995, 205_426),
    (0.999, 557_788),
    (1.0, 8_273_491),
)
"""Share of objects, and the size in octets that so many do not exceed."""
_SHARES = [share for share, _ in QUANTILES]

EXPONENT = 0.9
TAIL = 0.25
"""Share of requests for objects that are asked for once."""
BLOCK = 10_000
TAIL_FROM = 1 << 30
"""Numbers from here on are of objects asked for once."""

PERIOD = 1_048_583
"""Octets after which a body repeats: a prime, so that bodies of different objects differ everywhere."""
_PATTERN = random.Random("edgecache").randbytes(PERIOD)
_TWICE = memoryview(_PATTERN * 2)
VERSION_OCTETS = 16


def size_at(share: float) -> int:
    """The size that this share of objects does not exceed."""
    at = min(max(bisect.bisect_right(_SHARES, share), 1), len(QUANTILES) - 1)
    (low, small), (high, large) = QUANTILES[at - 1], QUANTILES[at]
    return round(math.exp(math.log(small) + (math.log(large) - math.log(small)) * (share - low) / (high - low)))


@lru_cache(maxsize=65_536)
def size_of(number: int) -> int:
    """An object's size: chance that always falls the same way."""
    return size_at(random.Random(number * 2_654_435_761 + 1).random())


def octets(number: int, begin: int, end: int) -> bytes:
    """The octets from `begin` to before `end` of an object's body."""
    at = (number * 7_919 + begin) % PERIOD
    length = end - begin
    if length <= PERIOD:
        return bytes(_TWICE[at : at + length])
    pieces = [bytes(_TWICE[at:PERIOD])]
    left = length - len(pieces[0])
    pieces += [_PATTERN] * (left // PERIOD) + [_PATTERN[: left % PERIOD]]
    return b"".join(pieces)


def versioned(number: int, version: int, size: int) -> bytes:
    """A body that begins with its version."""
    return b"v%015d" % version + octets(number, VERSION_OCTETS, max(size, VERSION_OCTETS))


def version_in(body: bytes) -> int | None:
    """The version a body says it has; None if it says nothing of the kind."""
    digits = body[1:VERSION_OCTETS]
    return int(digits) if body[:1] == b"v" and len(digits) == VERSION_OCTETS - 1 and digits.isdigit() else None


class Sequence:
    """Which object is asked for at which position: the same in every process that knows `objects` and `seed`."""

    def __init__(self, objects: int, seed: int) -> None:
        self.objects = objects
        self.seed = seed
        self._weights = list(accumulate(rank**-EXPONENT for rank in range(1, objects + 1)))
        self._blocks: dict[int, array[int]] = {}

    def __getitem__(self, position: int) -> int:
        block, at = divmod(position, BLOCK)
        numbers = self._blocks.get(block)
        if numbers is None:
            if len(self._blocks) > 8:
                self._blocks.clear()
            numbers = self._blocks[block] = self._draw(block)
        return numbers[at]

    def _draw(self, block: int) -> array[int]:
        chance = random.Random(f"{self.seed} {block}")
        popular = chance.choices(range(self.objects), cum_weights=self._weights, k=BLOCK)
        return array(
            "Q",
            (TAIL_FROM + block * BLOCK + at if chance.random() < TAIL else number for at, number in enumerate(popular)),
        )
