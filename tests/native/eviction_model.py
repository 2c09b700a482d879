"""The eviction policies in plain Python: lists of keys, the newest first.

What SIEVE (NSDI'24) and S3-FIFO (SOSP'23) say, with what the arena adds: objects that are held, replaced or freshened,
weights, and ghosts that lie in lines of eight.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

Held = Callable[[bytes], bool]
Listed = list[tuple[bytes, int, bool]]


@dataclass
class Past:
    uses: int
    small: bool


class Lru:
    def __init__(self) -> None:
        self.queue: list[bytes] = []
        self.used: set[bytes] = set()
        """Not for eviction: asked for since it was stored (`Entry.used`)."""
        self.tries = 0

    def begin(self) -> None:
        self.tries = len(self.queue)

    def use(self, key: bytes) -> None:
        self.freshen(key, 0)
        self.used.add(key)

    def past(self, key: bytes) -> Past | None:
        return Past(key in self.used, False)

    def join(self, key: bytes, weight: int, past: Past | None) -> None:
        del weight
        self.queue.insert(0, key)
        if past and past.uses:
            self.used.add(key)

    def leave(self, key: bytes) -> None:
        self.queue.remove(key)
        self.used.discard(key)

    def freshen(self, key: bytes, weight: int) -> None:
        del weight
        self.queue.remove(key)
        self.queue.insert(0, key)

    def victim(self, held: Held) -> bytes | None:
        while self.tries:
            self.tries -= 1
            if not held(self.queue[-1]):
                return self.queue[-1]
            self.queue.insert(0, self.queue.pop())
        return None

    def listed(self) -> tuple[Listed, Listed]:
        return [(key, int(key in self.used), False) for key in self.queue], []


class Sieve:
    def __init__(self) -> None:
        self.queue: list[bytes] = []
        self.visited: set[bytes] = set()
        self.hand: bytes | None = None
        self.tries = 0

    def begin(self) -> None:
        self.tries = 2 * len(self.queue)

    def use(self, key: bytes) -> None:
        self.visited.add(key)

    def past(self, key: bytes) -> Past | None:
        return Past(key in self.visited, False)

    def join(self, key: bytes, weight: int, past: Past | None) -> None:
        del weight
        self.queue.insert(0, key)
        if past and past.uses:
            self.visited.add(key)

    def leave(self, key: bytes) -> None:
        if self.hand == key:
            self.hand = self.newer(key)
        self.queue.remove(key)
        self.visited.discard(key)

    def freshen(self, key: bytes, weight: int) -> None:
        """Stays where it is."""

    def newer(self, key: bytes) -> bytes | None:
        place = self.queue.index(key)
        return self.queue[place - 1] if place else None

    def victim(self, held: Held) -> bytes | None:
        at = self.hand or self.queue[-1]
        while self.tries:
            self.tries -= 1
            if at not in self.visited and not held(at):
                self.hand = self.newer(at)
                return at
            self.visited.discard(at)
            at = self.newer(at) or self.queue[-1]
        self.hand = at
        return None

    def listed(self) -> tuple[Listed, Listed]:
        return [(key, int(key in self.visited), key == self.hand) for key in self.queue], []


@dataclass
class S3Fifo:
    bound: int
    """What the weights of all objects may come to."""
    lines: int
    small: list[bytes] = field(default_factory=list)
    main: list[bytes] = field(default_factory=list)
    uses: dict[bytes, int] = field(default_factory=dict)
    weights: dict[bytes, int] = field(default_factory=dict)
    ghosts: dict[int, dict[int, int]] = field(default_factory=dict)
    noted: int = 0
    tries: int = 0

    def begin(self) -> None:
        self.tries = 6 * len(self.uses)

    def use(self, key: bytes) -> None:
        self.uses[key] = min(self.uses[key] + 1, 3)

    def past(self, key: bytes) -> Past | None:
        return Past(self.uses[key], key in self.small)

    def join(self, key: bytes, weight: int, past: Past | None) -> None:
        small = past.small if past else not self._remembered(key)
        (self.small if small else self.main).insert(0, key)
        self.uses[key] = past.uses if past else 0
        self.weights[key] = weight

    def leave(self, key: bytes) -> None:
        (self.small if key in self.small else self.main).remove(key)
        del self.uses[key], self.weights[key]

    def freshen(self, key: bytes, weight: int) -> None:
        self.weights[key] = weight

    def _line(self, key: bytes) -> tuple[dict[int, int], int]:
        number = int.from_bytes(key[:4], "little") * self.lines >> 32
        return self.ghosts.setdefault(number, {}), int.from_bytes(key[8:12], "little")

    def _note(self, key: bytes) -> None:
        line, mark = self._line(key)
        if mark not in line and len(line) == 8:
            del line[min(line, key=line.__getitem__)]
        self.noted += 1
        line[mark] = self.noted

    def _remembered(self, key: bytes) -> bool:
        line, mark = self._line(key)
        objects = len(self.uses)
        return self.noted - line.pop(mark, -(1 << 40)) < objects - objects // 10

    def victim(self, held: Held) -> bytes | None:
        while self.tries:
            self.tries -= 1
            if self.small and (not self.main or 10 * sum(self.weights[key] for key in self.small) >= self.bound):
                key = self.small[-1]
                if self.uses[key] < 2 and not held(key):
                    self._note(key)
                    return key
                self.small.pop()
                self.uses[key] = 0
            else:
                key = self.main[-1]
                if self.uses[key] == 0 and not held(key):
                    return key
                self.main.pop()
                self.uses[key] = max(self.uses[key] - 1, 0)
            self.main.insert(0, key)
        return next((key for key in reversed(self.small) if not held(key)), None)

    def listed(self) -> tuple[Listed, Listed]:
        return tuple([(key, self.uses[key], False) for key in queue] for queue in (self.main, self.small))  # type: ignore[return-value]


Policy = Lru | Sieve | S3Fifo


def policy(name: str, bound: int, lines: int) -> Policy:
    match name:
        case "lru":
            return Lru()
        case "sieve":
            return Sieve()
        case _:
            return S3Fifo(bound, lines)
