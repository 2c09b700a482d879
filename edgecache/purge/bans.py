"""The patterns in force on a node, and comparing with them what was stored before (docs/purging.md).

A pattern is compared with a stored response's URL when that response is next asked for. What it matches is then purged
by the tag of its URL under the pattern's number, as if the order had named the URL; what it does not counts as filled
at that number. `MAX_WORK` bounds the time for one pattern, `BUDGET_S` for all of them; what is not decided within the
two counts as matching, and so does a response whose URL was not kept.

In the arena a pattern is a text, and beside it the tag of what surely covers it: its host, or everything (0).

    text   host or nothing | NUL | pattern
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from edgecache._native.arena import Arena, hash_tag
from edgecache.purge.message import PurgeError, PurgeKind, PurgeMessage, PurgeOrder, UrlPattern
from edgecache.purge.patterns import Matcher, compiled, installed
from edgecache.purge.tags import host_of, host_text

MAX_WORK: Final = 400_000
"""Size of the compiled pattern times octets of the URL: at most 14 ns each, so some 5 ms."""
BUDGET_S: Final = 0.01
"""Of the thread's own time: a machine that has no core for us makes nothing match. Compiling on the way counts."""
_EVERY: Final = 8
"""Patterns between two looks at the clock."""
_MEMO: Final = 4096

ANY_QUERY: Final = "#"
"""Ends the URL of a response that also answers for other queries. No URL has a fragment here."""


def cover(pattern: UrlPattern) -> int:
    """The tag of the smallest thing that surely covers it; 0: only everything does."""
    return hash_tag(host_text(pattern.host).encode("latin-1")) if pattern.host is not None else 0


def pack(pattern: UrlPattern) -> tuple[int, bytes]:
    """As the arena takes it."""
    host = host_of(pattern.host.lower()) if pattern.host is not None else ""
    return cover(pattern), f"{host}\0{pattern.url}".encode("latin-1")


def unpack(text: bytes) -> UrlPattern:
    host, _, url = text.decode("latin-1").partition("\0")
    return UrlPattern(url, host or None)


def carry_out(arena: Arena, order: PurgeOrder, tags: Sequence[int], *, now: float, match: bool) -> PurgeMessage:
    """Give an order the next number and apply it, in one step. `tags`: what `order_tags` made of it. `match`: patterns
    are compared here; else what surely covers them is purged."""
    everything = order.everything and order.site is None
    patterns = order.patterns
    if patterns and not (match and installed()):
        covers = dict.fromkeys(map(cover, patterns))
        everything = everything or 0 in covers
        tags = tuple(dict.fromkeys((*tags, *(tag for tag in covers if tag))))
        patterns = ()
    if everything:
        patterns = ()
    soft = order.kind is PurgeKind.SOFT
    packed = tuple(map(pack, patterns))
    number = arena.append_purge(tags, soft=soft, everything=everything, patterns=packed)
    return PurgeMessage(number, now, order.kind, tuple(tags), everything, order.source, patterns)


# --- comparing ---


@dataclass(slots=True)
class _Ban:
    number: int
    soft: bool
    host: bytes
    text: str
    _matcher: Matcher | None = None
    _read: bool = False

    def matcher(self) -> Matcher | None:
        """Compiled when it is first needed. None: it cannot be read here, and matches all of its host."""
        if not self._read:
            self._read = True
            with suppress(PurgeError):
                self._matcher = compiled(self.text) if installed() else None
        return self._matcher


Tell = Callable[[bool, int], None]
"""Told of each comparison: did anything match, and how many patterns were not decided."""


class Bans:
    """The patterns in force on this node, as one process sees them."""

    def __init__(
        self,
        arena: Arena,
        *,
        tell: Tell = lambda _matched, _undecided: None,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._arena = arena
        self._tell = tell
        self._clock = clock
        self._version = 0
        self._newest = 0
        self._numbers: list[int] = []
        self._bans: list[_Ban] = []
        self._memo: dict[tuple[str, int], tuple[int, int]] = {}
        self._lock = threading.Lock()
        self.keeps_softened = False
        """Remember the tags by which soft purges are noted here, for `take_softened`."""
        self._softened: dict[int, int] = {}

    def settle(self, url: str | None, tags: Sequence[int], fill_seq: int) -> int:
        """Compare what was filled at `fill_seq` and note a purge of its own tag, the first, for what matches. Returns
        the number up to which its tags now say all that patterns do. `url`: scheme, host, path and query; None: not
        known, and everything matches. May be called from several threads."""
        with self._lock:
            self._refresh()
            hard, soft = self._verdict(url, fill_seq)
            if hard:
                self._arena.apply_purge(hard, tags[:1], soft=False)
            if soft > hard:
                self._arena.apply_purge(soft, tags[:1], soft=True)
                if self.keeps_softened:
                    self._softened[tags[0]] = max(soft, self._softened.get(tags[0], 0))
            return self._newest

    def take_softened(self) -> dict[int, list[int]]:
        """Tags by the numbers of the soft purges that were noted for them."""
        with self._lock:
            taken, self._softened = self._softened, {}
        found: dict[int, list[int]] = {}
        for tag, number in taken.items():
            found.setdefault(number, []).append(tag)
        return found

    def give_back(self, softened: Mapping[int, Iterable[int]]) -> None:
        """What was taken could not be kept."""
        with self._lock:
            for number, tags in softened.items():
                for tag in tags:
                    self._softened[tag] = max(number, self._softened.get(tag, 0))

    def _refresh(self) -> None:
        now = self._arena.patterns(self._version)
        if now is None:
            return
        self._version, self._newest, listed = now
        self._bans = [_ban(number, text, soft=soft) for number, _, soft, text in listed]
        self._numbers = [ban.number for ban in self._bans]
        self._memo.clear()

    def _verdict(self, url: str | None, fill_seq: int) -> tuple[int, int]:
        """The newest hard and the newest soft pattern that match, of those newer; 0: none."""
        first = bisect_right(self._numbers, fill_seq)
        if first == len(self._bans):
            return 0, 0
        memo = (url or "", first)
        known = self._memo.get(memo)
        if known is None:
            if len(self._memo) >= _MEMO:
                self._memo.clear()
            known = self._memo[memo] = self._compare(url, self._bans[first:])
        return known

    def _compare(self, url: str | None, bans: Sequence[_Ban]) -> tuple[int, int]:
        hard = soft = undecided = 0
        until = self._clock() + BUDGET_S
        host, target, vague = _parts(url)
        late = False
        for place, ban in enumerate(reversed(bans)):
            if ban.host and host and ban.host != host:
                continue
            late = late or (place % _EVERY == _EVERY - 1 and self._clock() > until)
            matcher = None if late or vague else ban.matcher()
            if late or (matcher is not None and matcher.programsize * len(target) > MAX_WORK):
                undecided += 1
                found = True
            else:
                found = matcher is None or matcher.search(target) is not None
            if found and ban.soft:
                soft = soft or ban.number
            elif found:
                hard = ban.number
                break
        self._tell(bool(hard or soft), undecided)
        return hard, soft


def _ban(number: int, text: bytes, *, soft: bool) -> _Ban:
    pattern = unpack(text)
    return _Ban(number, soft, (pattern.host or "").encode("latin-1"), pattern.url)


def _parts(url: str | None) -> tuple[bytes, bytes, bool]:
    """Host, path with query, and whether every pattern of its host is to match."""
    if url is None:
        return b"", b"", True
    authority, slash, rest = url.partition("://")[2].partition("/")
    return host_of(authority).encode("latin-1"), (slash + rest).encode("latin-1"), url.endswith(ANY_QUERY)


def newest_first(patterns: Iterable[tuple[int, int, bool, bytes]]) -> list[dict[str, object]]:
    """As shown to operators."""
    shown: list[dict[str, object]] = []
    for number, _, soft, text in patterns:
        pattern = unpack(text)
        shown.append({"sequence": number, "host": pattern.host, "url": pattern.url, "soft": soft})
    return shown[::-1]
