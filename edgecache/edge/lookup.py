"""Finding what is stored for a request, and putting responses where they will be found (RFC 9111 §4.1).

A response without Vary lies under its primary key. Where responses vary, the primary key holds a *vary marker*: the
lists of field names seen, newest first, and each variant lies under the hash of the primary key and the request's
normalised values of one list. A *hit-for-pass* entry under a key remembers that its responses are not stored.
"""

import math
from dataclasses import dataclass

from edgecache._native.arena import Entry
from edgecache.edge import record
from edgecache.edge.secure import HSTS
from edgecache.edge.sites import Site
from edgecache.http.headers import Headers
from edgecache.http.message import Request
from edgecache.http.stored import StoredFlag, StoredResponse
from edgecache.policy import respond, surrogate, vary
from edgecache.purge.tags import object_tags
from edgecache.store.memory import MemoryStore, Record

_MARKER = int(StoredFlag.VARY_MARKER)  # plain numbers: the operators of IntFlag are written in Python
_PASS = int(StoredFlag.HIT_FOR_PASS)
_NO_RESPONSE = _MARKER | _PASS
MAX_VARY_LISTS = 8
"""Different Vary lists remembered for one primary key; an origin that shows more has its oldest forgotten."""


@dataclass(slots=True)
class Candidate:
    """A stored response that matches a request, with the entry that holds its body."""

    key: bytes
    entry: Entry
    stored: StoredResponse


@dataclass(slots=True)
class Found:
    primary: bytes
    fill_key: bytes
    """What requests that want the same answer have in common, as far as one can know beforehand."""
    candidates: list[Candidate]
    vary_miss: bool = False
    """Other variants are stored, none for this request."""
    pass_until: float = 0.0
    """Until when it is remembered that these responses are not stored; 0: it is not."""

    @property
    def hit_for_pass(self) -> bool:
        return self.pass_until > 0.0

    def of(self, stored: StoredResponse) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.stored is stored)


class Shelf:
    """Look-ups and puts over the memory tier, in the policy's terms."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def find(self, primary: bytes, request: Request, now: float, *, touch: bool = True) -> Found:
        """What is stored for this request. `touch` False leaves recency alone (for `explain`)."""
        get = self.store.get if touch else self.store.peek
        entry = get(primary)
        if entry is None:
            return Found(primary, primary, [])
        if not entry.flags & _NO_RESPONSE:
            return Found(primary, primary, self._candidates((primary, entry)))
        if entry.flags & _PASS:
            return Found(primary, primary, [], pass_until=entry.fresh_until if now < entry.fresh_until else 0.0)
        keys = [
            self.store.variant_key(primary, vary.secondary_key(selecting))
            for names in marker_lists(entry.meta)
            for selecting in vary.lookup(names, request.headers)
        ]
        found = Found(primary, keys[0] if keys else primary, [])
        for key in keys:
            variant = get(key)
            if variant is None:
                continue
            if variant.flags & _PASS:
                if now < variant.fresh_until:
                    found.pass_until = max(found.pass_until, variant.fresh_until)
            else:
                found.candidates.extend(self._candidates((key, variant)))
        found.vary_miss = not found.candidates
        return found

    def again(self, candidate: Candidate) -> Candidate | None:
        """The same entry, looked up anew: None if it was purged, evicted or replaced meanwhile."""
        entry = self.store.get(candidate.key)
        if entry is None or entry.flags & _NO_RESPONSE:
            return None
        return next(iter(self._candidates((candidate.key, entry))), None)

    def _candidates(self, *found: tuple[bytes, Entry]) -> list[Candidate]:
        candidates = []
        for key, entry in found:
            try:
                candidates.append(Candidate(key, entry, stored_response(entry)))
            except record.RecordError:
                self.store.remove(key, entry.generation)
        return candidates

    # --- puts ---

    def places(
        self, primary: bytes, stored: StoredResponse, request: Request, now: float, fill_seq: int
    ) -> tuple[bytes, ...]:
        """The keys for a response about to be stored; writes or extends the vary marker where it varies."""
        if not stored.selecting:
            return (primary,)
        names = tuple(name for name, _ in stored.selecting)
        entry = self.store.peek(primary)
        lists = marker_lists(entry.meta) if entry is not None and entry.flags & _MARKER else ()
        if not lists or lists[0] != names:
            lists = (names, *(known for known in lists if known != names))[:MAX_VARY_LISTS]
            self.store.put(primary, _marker(lists, now, fill_seq), [])
        return tuple(
            self.store.variant_key(primary, vary.secondary_key(selecting))
            for selecting in vary.storage(names, request.headers, stored.response.headers)
        )

    def put(self, keys: tuple[bytes, ...], record: Record, body: list[bytes]) -> bool:
        """Store under each key. True where the first took it."""
        stored = self.store.put(keys[0], record, body)
        for key in keys[1:]:
            self.store.put(key, record, body)
        return stored

    def record(self, stored: StoredResponse, *, site: Site, cache_key: str, fill_seq: int) -> Record:
        return record.encode(
            stored,
            hidden=respond.hidden(site.policy) | ({HSTS} if site.hsts is not None else set()),
            fill_seq=fill_seq,
            tags=self.tags(stored, site=site, cache_key=cache_key),
        )

    @staticmethod
    def tags(stored: StoredResponse, *, site: Site, cache_key: str) -> tuple[int, ...]:
        keys = surrogate.keys(stored.response.headers, site.policy.max_tag_bytes)
        return object_tags(cache_key=cache_key, site=site.name, surrogate_keys=keys or ())

    def remember_pass(self, key: bytes, *, now: float, seconds: float, fill_seq: int, known_until: float = 0.0) -> None:
        """Hit-for-pass for `key`, unless a response lies there, or it is known for half that time anyway."""
        if seconds <= 0 or known_until - now > seconds / 2:
            return
        entry = self.store.peek(key)
        if entry is None or entry.flags & _PASS:
            marker = Record(b"", b"", now, now + seconds, 0.0, int(_PASS), 0, fill_seq, ())
            self.store.put(key, marker, [])

    def forget_pass(self, key: bytes) -> None:
        entry = self.store.peek(key)
        if entry is not None and entry.flags & _PASS:
            self.store.remove(key, entry.generation)


def only_secondary_key(meta: bytes, lines: list[tuple[str, str]]) -> bytes | None:
    """The secondary key of a request under a vary marker; None where it may be one of several."""
    lists = marker_lists(meta)
    found = vary.lookup(lists[0], Headers(lines))
    return vary.secondary_key(found[0]) if len(lists) == 1 and len(found) == 1 else None


def stored_response(entry: Entry) -> StoredResponse:
    """Raises `RecordError`."""
    return record.decode(
        entry.head,
        entry.meta,
        born_at=entry.born_at,
        fresh_until=entry.fresh_until,
        flags=entry.flags,
        body_size=entry.body_size,
        soft_purged=entry.soft_purged,
    )


def marker_lists(meta: bytes) -> tuple[tuple[str, ...], ...]:
    """The field-name lists of a vary marker: one list a line, names separated by commas."""
    return tuple(tuple(line.split(",")) for line in meta.decode("latin-1").split("\n"))


def _marker(lists: tuple[tuple[str, ...], ...], now: float, fill_seq: int) -> Record:
    meta = "\n".join(",".join(names) for names in lists).encode("latin-1")
    return Record(b"", meta, now, math.inf, 0.0, int(_MARKER), 0, fill_seq, ())
