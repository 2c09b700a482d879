"""The objects of the benchmark and the order they are asked for in. Pure; origin.c makes the same bytes."""

import random
from itertools import accumulate

_ALPHABET = bytes(range(ord("a"), ord("z") + 1))


def sized_body(size_bytes: int) -> bytes:
    """The body of ``/s/BYTES`` and ``/pass/BYTES``."""
    return (_ALPHABET * (size_bytes // len(_ALPHABET) + 1))[:size_bytes]


def numbered_body(number: int, size_bytes: int = 1024) -> bytes:
    """The body of ``/o/N``."""
    named = f"object {number}\n".encode()
    return named + sized_body(size_bytes - len(named))


def expected_body(path: str) -> bytes:
    """The body the origin gives for a path."""
    _, kind, number = path.split("/")
    return numbered_body(int(number)) if kind == "o" else sized_body(int(number))


def zipf_sequence(objects: int, exponent: float, length: int, seed: int = 20) -> list[int]:
    """`length` object numbers below `objects`, the k-th most popular drawn with weight ``k ** -exponent``.

    Which number is how popular is shuffled, so that popularity does not follow the order objects were stored in.
    The same arguments give the same sequence: every server is asked for the same objects in the same order.
    """
    chance = random.Random(seed)
    numbers = list(range(objects))
    chance.shuffle(numbers)
    weights = list(accumulate(rank**-exponent for rank in range(1, objects + 1)))
    return chance.choices(numbers, cum_weights=weights, k=length)
