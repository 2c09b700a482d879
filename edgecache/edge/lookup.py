"""Finding what is stored for a request, and putting responses where they will be found (RFC 9111 §4.1).

A response without Vary lies under its primary key. Where responses vary, the primary key holds a *vary marker*: the
lists of field names seen, newest first, and each variant lies under the hash of the primary key and the request's
normalised values of one list. Of a response that the edge compresses, the list names the codings there are, and each
form is a variant. A *hit-for-pass* entry under a key remembers that its responses are not stored.

Where a site honours No-Vary-Search, a *search marker* of the path remembers the field's values seen; what came with
one lies under the simplified form of its URI (`policy.search_variance`).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from edgecache.edge import record
from edgecache.edge.secure import HSTS
from edgecache.edge.sites import Site, any_query
from edgecache.http.headers import Headers
from edgecache.http.message import Request
from edgecache.http.stored import StoredFlag, StoredResponse
from edgecache.policy import coding, respond, surrogate, vary
from edgecache.policy.search_variance import SearchVariance, parse_variance, search_variance
from edgecache.purge.bans import ANY_QUERY
from edgecache.purge.tags import object_tags
from edgecache.store.memory import AnyEntry, MemoryStore, Record
from edgecache.store.tiers import TieredStore

_MARKER = int(StoredFlag.VARY_MARKER)  # plain numbers: the operators of IntFlag are written in Python
_PASS = int(StoredFlag.HIT_FOR_PASS)
_NO_RESPONSE = _MARKER | _PASS
_FAILED = b"origin failed..."
"""Where the mark lies that the origin has failed: as under a secondary key that no Vary makes."""
MAX_VARY_LISTS = 8
"""Different Vary lists remembered for one primary key; an origin that shows more has its oldest forgotten."""
MAX_SEARCH_VARIANCES = 4
"""The same for No-Vary-Search and a path. Each costs every request for the path a look-up."""


@dataclass(slots=True)
class Candidate:
    """A stored response that matches a request, with the entry that holds its body."""

    key: bytes
    entry: AnyEntry
    stored: StoredResponse
    primary: bytes
    """The key that it was found by, whose vary marker names its other forms."""


@dataclass
class Found:
    primary: bytes
    fill_key: bytes
    """What requests that want the same answer have in common, as far as one can know beforehand."""
    candidates: list[Candidate]
    missing: list[bytes]
    """Keys that were looked up and not found in memory."""
    vary_miss: bool = False
    """Other variants are stored, none for this request."""
    pass_until: float = 0.0
    """Until when it is remembered that these responses are not stored; 0: it is not."""

    @property
    def hit_for_pass(self) -> bool:
        return self.pass_until > 0.0

    def of(self, stored: StoredResponse) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.stored is stored)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a response is to be put."""

    primary: bytes
    selections: tuple[vary.Selecting, ...] = ()
    """None where it does not vary."""
    supersedes: tuple[bytes, ...] = ()
    """Keys of what it takes the place of."""

    @property
    def selected(self) -> vary.Selecting:
        return self.selections[0] if self.selections else ()


@dataclass(frozen=True, slots=True)
class VaryList:
    """One list of a vary marker."""

    names: tuple[str, ...]
    codings: tuple[str, ...] | None = None
    """The codings that the edge keeps beside identity; None where it makes none of these responses."""

    def same(self, other: "VaryList") -> bool:
        """Do both find the same responses, whatever codings there are?"""
        return self.names == other.names and (self.codings is None) is (other.codings is None)

    def forms(self, headers: Headers) -> tuple[str | None, ...]:
        """The forms that can answer a request, best first."""
        if self.codings is None:
            return (None,)
        return tuple(dict.fromkeys((coding.choose(headers, self.codings), coding.IDENTITY)))


class Shelf:
    """Look-ups and puts over the tiers, in the policy's terms."""

    def __init__(self, store: MemoryStore, *, keep_urls: bool = False) -> None:
        """`keep_urls`: with what is stored, for patterns to be compared with."""
        self.store = store
        self._keep_urls = keep_urls
        store.stored_url = record.stored_url
        self.tiered = isinstance(store, TieredStore)

    def find(
        self, site: Site, cache_key: str, primary: bytes, request: Request, now: float, *, touch: bool = True
    ) -> Found:
        """What is stored for this request. `touch` False leaves recency alone (for `explain`)."""
        found = self._find(primary, request, now, touch=touch)
        if not site.policy.no_vary_search:
            return found
        if self.store.peek(self._search_marker(cache_key)) is None:
            found.missing.append(self._search_marker(cache_key))
        for variance in self._variances(cache_key):
            other = self._find(self._search_key(variance, cache_key), request, now, touch=touch)
            if other.candidates and not found.candidates:
                found.fill_key = other.fill_key
            found.candidates.extend(other.candidates)
            found.missing.extend(other.missing)
            found.vary_miss = found.vary_miss or other.vary_miss
        if found.candidates:
            found.vary_miss = False
        return found

    async def bring(self, found: Found) -> bool:
        """Bring up from disk what was not found in memory. True where something came: look again."""
        return isinstance(self.store, TieredStore) and await self.store.load(found.missing)

    def _find(self, primary: bytes, request: Request, now: float, *, touch: bool) -> Found:
        get = self.store.get if touch else self.store.peek
        entry = get(primary)
        if entry is None:
            return Found(primary, primary, [], [primary])
        if not entry.flags & _NO_RESPONSE:
            return Found(primary, primary, self._candidates(primary, (primary, entry)), [])
        if entry.flags & _PASS:
            return Found(primary, primary, [], [], pass_until=entry.fresh_until if now < entry.fresh_until else 0.0)
        lists = marker_lists(entry.meta)
        shared = vary.lookup(lists[0].names, request.headers, None if lists[0].codings is None else coding.IDENTITY)
        found = Found(primary, self._key(primary, shared[0]), [], [])
        for each in lists:
            for form in each.forms(request.headers):
                before = len(found.candidates)
                for selected in vary.lookup(each.names, request.headers, form):
                    key = self._key(primary, selected)
                    variant = get(key)
                    if variant is None:
                        found.missing.append(key)
                        continue
                    if variant.flags & _PASS:
                        if now < variant.fresh_until:
                            found.pass_until = max(found.pass_until, variant.fresh_until)
                    else:
                        found.candidates.extend(self._candidates(primary, (key, variant)))
                if len(found.candidates) > before:
                    break
        found.vary_miss = not found.candidates
        return found

    def fill_key(self, primary: bytes, stored: StoredResponse, request: Request) -> bytes:
        """What look-ups will give as `Found.fill_key` once `place` was called for this response."""
        if not stored.selecting:
            return primary
        names = [name for name, _ in stored.selecting]
        return self._key(primary, vary.lookup(names, request.headers, vary.made_of(stored.selecting))[0])

    def _key(self, primary: bytes, selected: vary.Selecting) -> bytes:
        return self.store.variant_key(primary, vary.secondary_key(selected))

    def renewed(self, candidate: Candidate) -> bool:
        """Is something else stored there by now, or the same with other times?"""
        entry = self.store.peek(candidate.key)
        return entry is not None and (
            entry.generation != candidate.entry.generation or entry.fresh_until != candidate.entry.fresh_until
        )

    def again(self, candidate: Candidate) -> Candidate | None:
        """The same entry, looked up anew: None if it was purged, evicted or replaced meanwhile."""
        return self._at(candidate.primary, candidate.key)

    def _at(self, primary: bytes, key: bytes) -> Candidate | None:
        entry = self.store.get(key)
        if entry is None or entry.flags & _NO_RESPONSE:
            return None
        return next(iter(self._candidates(primary, (key, entry))), None)

    def _candidates(self, primary: bytes, *found: tuple[bytes, AnyEntry]) -> list[Candidate]:
        candidates = []
        unconfirmed = self.store.silent()
        for key, entry in found:
            try:
                stored = stored_response(entry, unconfirmed=unconfirmed)
                candidates.append(Candidate(key, entry, stored, primary))
            except record.RecordError:
                self.store.remove(key, entry.generation)
        return candidates

    # --- the forms of one response ---

    def plain(self, candidate: Candidate) -> Candidate:
        """What to ask the origin about: the identity form where it is there, whose validators are the origin's own."""
        if StoredFlag.ENCODED not in candidate.stored.flags:
            return candidate
        return self._form(candidate, coding.IDENTITY) or candidate

    def best(self, candidate: Candidate, request: Request) -> Candidate:
        """The form of this response that the request is to have."""
        mine = vary.made_of(candidate.stored.selecting)
        if mine is not None:
            for each in self._lists(candidate.primary):
                for form in each.forms(request.headers) if each.codings else ():
                    other = candidate if form == mine else self._form(candidate, str(form))
                    if other is not None:
                        return other
        return candidate

    def others(self, candidate: Candidate) -> Iterator[Candidate]:
        """The other forms of the same response that are stored."""
        mine = vary.made_of(candidate.stored.selecting)
        if mine is not None:
            forms = dict.fromkeys(form for each in self._lists(candidate.primary) for form in each.codings or ())
            for form in (*forms, coding.IDENTITY):
                other = self._form(candidate, form) if form != mine else None
                if other is not None:
                    yield other

    def _form(self, candidate: Candidate, form: str) -> Candidate | None:
        """A form of the same response, not of an older or newer one."""
        stored = candidate.stored
        for selected in vary.homes(vary.with_made(stored.selecting, form), stored.response.headers):
            other = self._at(candidate.primary, self._key(candidate.primary, selected))
            if other is not None and other.stored.response_time == stored.response_time:
                return other
        return None

    @staticmethod
    def stays(site: Site, before: StoredResponse, fresh: StoredResponse) -> bool:
        """Is what a 304 has freshened still found where it lies? Not under another No-Vary-Search."""
        if not site.policy.no_vary_search:
            return True
        return search_variance(before.response.headers) == search_variance(fresh.response.headers)

    def remove(self, candidate: Candidate) -> None:
        """This entry, and the other forms of the same response."""
        for other in self.others(candidate):
            self.store.remove(other.key, other.entry.generation)
        self.store.remove(candidate.key, candidate.entry.generation)

    def _lists(self, primary: bytes) -> tuple[VaryList, ...]:
        entry = self.store.peek(primary)
        return marker_lists(entry.meta) if entry is not None and entry.flags & _MARKER else ()

    # --- puts ---

    def place(
        self,
        site: Site,
        cache_key: str,
        primary: bytes,
        stored: StoredResponse,
        request: Request,
        now: float,
        fill_seq: int,
    ) -> Place:
        """Where a response about to be stored goes; writes or extends the markers that lead there."""
        variance = search_variance(stored.response.headers) if site.policy.no_vary_search else None
        supersedes: tuple[bytes, ...] = ()
        if variance is not None and not variance.default:
            # The fast lane, which knows nothing of variances, finds what lies under a URI without a query.
            supersedes = (primary,)
            path = cache_key.partition("?")[0]
            if variance.simplified(cache_key) == variance.simplified(path):
                supersedes = (primary, self.store.key(path))
            self._remember_variance(variance, cache_key, now, fill_seq)
            primary = self._search_key(variance, cache_key)
        if not stored.selecting:
            return Place(primary, (), supersedes)
        names = tuple(name for name, _ in stored.selecting)
        made = vary.made_of(stored.selecting)
        self._remember_list(primary, VaryList(names, None if made is None else ()), now, fill_seq)
        return Place(primary, vary.storage(names, request.headers, stored.response.headers, made), supersedes)

    def _remember_list(self, primary: bytes, seen: VaryList, now: float, fill_seq: int) -> None:
        """`seen` is the newest list; the codings known of it stay."""
        lists = self._lists(primary)
        if not lists or not lists[0].same(seen):
            known = next((each for each in lists if each.same(seen)), seen)
            self._mark(primary, (known, *(each for each in lists if not each.same(seen))), now, fill_seq)

    def remember_codings(self, place: Place, made: tuple[str, ...], now: float, fill_seq: int) -> None:
        """These codings of a response are stored now. Of others that share its list, what is there stays known."""
        names = tuple(name for name, _ in place.selected)
        seen = VaryList(names, ())
        lists = self._lists(place.primary)
        known = next((each.codings or () for each in lists if each.same(seen)), ()) if len(names) > 1 else ()
        new = VaryList(names, made + tuple(each for each in known if each not in made))
        if lists[:1] != (new,):
            self._mark(place.primary, (new, *(each for each in lists if not each.same(seen))), now, fill_seq)

    def _mark(self, primary: bytes, lists: tuple[VaryList, ...], now: float, fill_seq: int) -> None:
        meta = "\n".join(map(_line, lists[:MAX_VARY_LISTS])).encode("latin-1")
        self.store.put(primary, _marker(meta, now, fill_seq), [])

    def keys(self, place: Place, made: str | None = None) -> tuple[bytes, ...]:
        """Where it is put, or where its form in the coding `made` is."""
        if not place.selections:
            return (place.primary,)
        return tuple(
            self._key(place.primary, selected if made is None else vary.with_made(selected, made))
            for selected in place.selections
        )

    def put(self, place: Place, record: Record, body: list[bytes]) -> bool:
        """Store in place of what is there and of its other forms. True where it was taken."""
        if vary.made_of(place.selected) is not None:
            self.remove_forms(place, (form for each in self._lists(place.primary) for form in each.codings or ()))
        for key in place.supersedes:
            self.store.remove(key)
        return self._put(self.keys(place), record, body)

    def remove_forms(self, place: Place, forms: Iterable[str]) -> None:
        """Remove what is stored in these codings."""
        for form in dict.fromkeys(forms):
            for key in self.keys(place, form):
                self.store.remove(key)

    def put_form(self, place: Place, form: str, record: Record, body: list[bytes]) -> bool:
        """Store another form beside what `put` has stored."""
        return self._put(self.keys(place, form), record, body)

    def _put(self, keys: tuple[bytes, ...], record: Record, body: list[bytes]) -> bool:
        taken = self.store.put(keys[0], record, body)
        for key in keys[1:]:
            self.store.put(key, record, body)
        return taken

    def record(self, stored: StoredResponse, *, site: Site, cache_key: str, fill_seq: int) -> Record:
        if stored.response.headers.get_all("content-length") != [str(stored.body_size)]:
            # A 304 may have taken the field away; the fast lane, which sends the head as it is, must know.
            stored = replace(stored, flags=stored.flags | StoredFlag.UNSIZED)
        return record.encode(
            stored,
            hidden=respond.hidden(site.policy) | ({HSTS} if site.hsts is not None else set()),
            fill_seq=fill_seq,
            tags=self.tags(stored, site=site, cache_key=cache_key),
            url=self.url(stored, site=site, cache_key=cache_key),
            keep_url=self._keep_urls,
        )

    @staticmethod
    def url(stored: StoredResponse, *, site: Site, cache_key: str) -> str:
        """What patterns are compared with."""
        answers_more = site.policy.no_vary_search and "no-vary-search" in stored.response.headers
        return cache_key + ANY_QUERY if answers_more else cache_key

    def slice_meta(self, url: str) -> bytes:
        return record.slice_meta(url) if self._keep_urls else b""

    @staticmethod
    def tags(stored: StoredResponse, *, site: Site, cache_key: str) -> tuple[int, ...]:
        headers = stored.response.headers
        keys = surrogate.keys(headers, site.policy.max_tag_bytes)
        also = (any_query(cache_key),) if site.policy.no_vary_search and "no-vary-search" in headers else ()
        return object_tags(cache_key=cache_key, site=site.name, surrogate_keys=keys or (), also=also)

    # --- No-Vary-Search ---

    def _variances(self, cache_key: str) -> list[SearchVariance]:
        entry = self.store.peek(self._search_marker(cache_key))
        return [] if entry is None else [parse_variance(line) for line in entry.meta.decode("latin-1").split("\n")]

    def _remember_variance(self, variance: SearchVariance, cache_key: str, now: float, fill_seq: int) -> None:
        known = self._variances(cache_key)
        if known[:1] != [variance]:
            kept = [variance, *(each for each in known if each != variance)][:MAX_SEARCH_VARIANCES]
            meta = "\n".join(map(str, kept)).encode("latin-1")
            self.store.put(self._search_marker(cache_key), _marker(meta, now, fill_seq), [])

    def _search_marker(self, cache_key: str) -> bytes:
        return self.store.key(f"search {cache_key.partition('?')[0]}")

    def _search_key(self, variance: SearchVariance, cache_key: str) -> bytes:
        return self.store.key(f"search {variance} {variance.simplified(cache_key)}")

    # --- hit-for-pass ---

    def remember_pass(self, key: bytes, *, now: float, seconds: float, fill_seq: int, known_until: float = 0.0) -> None:
        """Hit-for-pass for `key`, unless a response lies there, or it is known for half that time anyway."""
        if seconds <= 0 or known_until - now > seconds / 2:
            return
        entry = self.store.peek(key)
        if entry is None or entry.flags & _PASS:
            marker = Record(b"", b"", now, now + seconds, 0.0, int(_PASS), 0, fill_seq, ())
            self.store.put(key, marker, [])

    def remember_failure(self, key: bytes, *, now: float, seconds: float, fill_seq: int) -> None:
        """The origin failed to renew what lies under `key`: in all workers it is not asked again for so long."""
        if seconds > 0:
            marker = Record(b"", b"", now, now + seconds, 0.0, int(_PASS), 0, fill_seq, ())
            self.store.put(self.store.variant_key(key, _FAILED), marker, [])

    def failed_lately(self, key: bytes, now: float) -> bool:
        marker = self.store.peek(self.store.variant_key(key, _FAILED))
        return marker is not None and now < marker.fresh_until

    def forget_pass(self, key: bytes) -> None:
        entry = self.store.peek(key)
        if entry is not None and entry.flags & _PASS:
            self.store.remove(key, entry.generation)


def only_secondary_key(meta: bytes, lines: list[tuple[str, str]]) -> bytes | None:
    """The secondary key of a request under a vary marker; None where it may be one of several.

    Of several forms it is that of the best: where that one is not stored, another is for the ordinary path to find.
    """
    only, *more = marker_lists(meta)
    headers = Headers(lines)
    found = vary.lookup(only.names, headers, only.forms(headers)[0])
    return vary.secondary_key(found[0]) if not more and len(found) == 1 else None


def stored_response(entry: AnyEntry, *, unconfirmed: bool = False) -> StoredResponse:
    """Raises `RecordError`."""
    return record.decode(
        entry.head,
        entry.meta,
        born_at=entry.born_at,
        fresh_until=entry.fresh_until,
        flags=entry.flags,
        body_size=entry.body_size,
        soft_purged=entry.soft_purged,
        unconfirmed=unconfirmed,
    )


def marker_lists(meta: bytes) -> tuple[VaryList, ...]:
    """The lists of a vary marker, one a line: names separated by commas; then, where the edge makes codings, those that
    there are and identity, each with "=" before it, which is in no field's name."""
    return tuple(_list(line.split(",")) for line in meta.decode("latin-1").split("\n"))


def _list(words: list[str]) -> VaryList:
    names = tuple(word for word in words if not word.startswith("="))
    forms = tuple(word[1:] for word in words if word.startswith("="))
    return VaryList(names, forms[:-1] if forms else None)


def _line(each: VaryList) -> str:
    forms = () if each.codings is None else (*each.codings, coding.IDENTITY)
    return ",".join((*each.names, *(f"={form}" for form in forms)))


def _marker(meta: bytes, now: float, fill_seq: int) -> Record:
    return Record(b"", meta, now, math.inf, 0.0, int(_MARKER), 0, fill_seq, ())
