"""The Python face of the arena: makes the mapping, turns objects into `Entry` snapshots.

No lock is held while Python code can run: under a shard's lock only plain bytes objects are allocated, which the cycle
collector does not track, and nothing is released. The GIL is kept throughout, since sections are short: so one process
is in at most one section at a time, its pin records have one writer, and a fork never copies a held lock.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from edgecache._native.eviction cimport touch
from edgecache._native.guard cimport pin_drop, pin_take, shard_lock, shard_unlock, slot_release
from edgecache._native.layout cimport (
    BUCKET_SLOTS, BUCKET_SPAN, UNIT, Bucket, ObjectHeader, PatternRecord, PurgeTable, Root, Shard, ShardView, View,
    object_at, shard_of,
)
from edgecache._native.mapping cimport mapping_create, view_close, view_open
from edgecache._native.purgetable cimport (
    Pattern, pattern_first, pattern_next, purges_append, purges_apply, purges_forget, purges_lock, purges_newer,
    purges_raise, purges_retire, purges_silent, purges_verdict_stored,
)
from edgecache._native.shard cimport (
    UNRESOLVED, Found, Record, copy_body, copy_front, describe, drop, judge, object_freshen, object_put, object_remove,
    prove_bucket, search,
)
from edgecache._native.sync cimport add, getpid, iovec, load, munmap, pthread_mutex_unlock, store

from edgecache._native.hashing import hash_key, hash_tag  # the contract has them here
from edgecache._native.mapping import plan_mapping

FLAG_VARY_MARKER = 1
FLAG_HIT_FOR_PASS = 2
FLAG_HAS_VARY = 4
FLAG_MUST_REVALIDATE = 8
FLAG_NO_CACHE = 16
FLAG_PARTIAL = 32
FLAG_BODY_IN_FILE = 32768

# --- arguments ---

cdef int take_key(bytes key, uint64_t *low, uint64_t *high) except -1:
    if key is None or PyBytes_GET_SIZE(key) != 16:
        raise ValueError("a key has 16 octets")
    memcpy(low, PyBytes_AS_STRING(key), 8)
    memcpy(high, PyBytes_AS_STRING(key) + 8, 8)
    return 0


cdef class _Tags:
    """A sequence of tags as a C array."""

    cdef uint64_t *items
    cdef uint32_t count

    def __cinit__(self, tags):
        cdef list listed = list(tags)
        cdef uint32_t i
        self.count = len(listed)
        self.items = <uint64_t *> malloc((self.count + 1) * sizeof(uint64_t))
        if self.items == NULL:
            raise MemoryError
        for i in range(self.count):
            self.items[i] = listed[i]
            if self.items[i] == 0:
                raise ValueError("0 is no tag")

    def __dealloc__(self):
        free(self.items)


cdef class _Patterns:
    """Pairs of a tag and a text as a C array; keeps the texts alive."""

    cdef list listed
    cdef Pattern *items
    cdef uint32_t count

    def __cinit__(self, patterns):
        cdef uint32_t i
        cdef bytes text
        self.listed = list(patterns)
        self.count = len(self.listed)
        self.items = <Pattern *> malloc((self.count + 1) * sizeof(Pattern))
        if self.items == NULL:
            raise MemoryError
        for i in range(self.count):
            tag, text = self.listed[i]
            if PyBytes_GET_SIZE(text) > 0xFFFF:
                raise ValueError("a pattern's text has at most 65535 octets")
            self.items[i].tag = tag
            self.items[i].text = PyBytes_AS_STRING(text)
            self.items[i].length = <uint32_t> PyBytes_GET_SIZE(text)

    def __dealloc__(self):
        free(self.items)


cdef class _Parts:
    """A body's parts as iovecs; keeps them alive."""

    cdef list parts
    cdef iovec *items
    cdef uint32_t count
    cdef uint64_t size

    def __cinit__(self, body):
        cdef uint32_t i
        cdef bytes part
        self.parts = list(body)
        self.count = len(self.parts)
        self.items = <iovec *> malloc((self.count + 1) * sizeof(iovec))
        if self.items == NULL:
            raise MemoryError
        for i in range(self.count):
            part = <bytes?> self.parts[i]
            self.items[i].iov_base = PyBytes_AS_STRING(part)
            self.items[i].iov_len = PyBytes_GET_SIZE(part)
            self.size += PyBytes_GET_SIZE(part)

    def __dealloc__(self):
        free(self.items)


cdef int fits(bytes head, bytes meta) except -1:
    return PyBytes_GET_SIZE(head) <= 0xFFFFFFFF and PyBytes_GET_SIZE(meta) <= 0xFFFFFFFF


# --- what `get` returns ---

cdef class Entry:
    def __init__(self):
        raise TypeError("entries come from Arena.get")

    @property
    def head(self):
        cdef Py_ssize_t at
        if self._head is None:
            at = self.found.tag_count * 8 + self.found.meta_size
            self._head = self.data[at : at + self.found.head_size]
        return self._head

    @property
    def meta(self):
        cdef Py_ssize_t at
        if self._meta is None:
            at = self.found.tag_count * 8
            self._meta = self.data[at : at + self.found.meta_size]
        return self._meta

    @property
    def body_size(self):
        return self.found.body_size

    @property
    def born_at(self):
        return self.found.born_at

    @property
    def fresh_until(self):
        return self.found.fresh_until

    @property
    def stale_until(self):
        return self.found.stale_until

    @property
    def flags(self):
        return self.found.flags

    @property
    def status(self):
        return self.found.status

    @property
    def fill_seq(self):
        return self.found.fill_seq

    @property
    def soft_purged(self):
        return self.found.soft_purged != 0

    @property
    def used(self):
        return self.found.uses != 0

    @property
    def generation(self):
        return self.found.generation

    def tags(self):
        cdef const uint64_t *items = <const uint64_t *> PyBytes_AS_STRING(self.data)
        cdef uint64_t tag
        cdef int i
        out = []
        for i in range(self.found.tag_count):
            memcpy(&tag, items + i, 8)
            out.append(tag)
        return out

    def read(self, uint64_t offset, uint64_t size):
        cdef uint64_t front
        cdef bytes out
        if offset >= self.found.body_size:
            return b""
        if size > self.found.body_size - offset:
            size = self.found.body_size - offset
        if self.copied:
            front = <uint64_t> self.found.tag_count * 8 + self.found.meta_size + self.found.head_size + offset
            return self.data[front : front + size]
        if not self.pinned:
            raise ValueError("the entry is closed")
        # No lock: a pinned chain does not change.
        out = PyBytes_FromStringAndSize(NULL, size)
        copy_body(&self.arena.view.shards[self.found.shard], self.found.body, offset, PyBytes_AS_STRING(out), size)
        return out

    def close(self):
        cdef ShardView *s
        if not self.pinned:
            return
        self.pinned = False
        if self.pid != getpid():
            return  # inherited by a fork: the pin is the parent's
        s = &self.arena.view.shards[self.found.shard]
        shard_lock(s)
        pin_drop(s, self.found.body, self.found.slot)
        shard_unlock(s)

    def __dealloc__(self):
        if self.pinned and self.arena is not None:
            self.close()


cdef void copy_out(ShardView *s, uint32_t unit, char *target, size_t front, bint with_body) noexcept nogil:
    cdef ObjectHeader *o = object_at(s, unit)
    cdef size_t tags = <size_t> o.tag_count * 8
    if with_body and o.body == 0:
        copy_front(s, unit, target, target + tags, front - tags + o.body_size)
        return
    copy_front(s, unit, target, target + tags, front - tags)
    if with_body:
        copy_body(s, o.body, 0, target + front, o.body_size)


cdef enum How:
    GET
    PEEK
    ONLY_UNRESOLVED


cdef uint32_t find_valid(ShardView *s, uint64_t low, uint64_t high, How how, uint64_t through) noexcept nogil:
    """The first unit of what may be handed out; else 0. Counts nothing where only patterns stand between."""
    cdef uint32_t unit = search(s, low, high)
    cdef int verdict = judge(s, unit, through) if unit else 0
    if how == ONLY_UNRESOLVED:
        return unit if verdict == UNRESOLVED else 0
    if verdict == UNRESOLVED:
        return 0
    if verdict == 2:
        if how == GET:
            s.shard.purged += 1
            drop(s, unit)
        unit = 0
    if unit == 0 and how == GET:
        s.shard.misses += 1
    return unit


cdef Entry find_entry(Arena arena, bytes key, How how, uint64_t through):
    cdef uint64_t low = 0, high = 0
    cdef ShardView *s
    cdef ObjectHeader *o
    cdef Entry entry
    cdef uint32_t unit
    cdef size_t front, size
    cdef object data = None
    take_key(key, &low, &high)
    s = shard_of(&arena.view, high)
    entry = Entry.__new__(Entry)
    entry.arena = arena
    entry.key = key
    shard_lock(s)
    unit = find_valid(s, low, high, how, through)
    if unit == 0:
        shard_unlock(s)
        return None
    describe(s, unit, &entry.found)
    o = object_at(s, unit)
    front = <size_t> o.tag_count * 8 + o.meta_size + o.head_size
    if o.body == 0:
        size = front + o.body_size
    else:
        entry.pinned = pin_take(s, o.body)
        entry.found.slot = arena.view.slot
        entry.pid = arena.view.pid
        size = front if entry.pinned else front + o.body_size
    entry.copied = not entry.pinned
    try:
        data = PyBytes_FromStringAndSize(NULL, size)
    except MemoryError:
        if entry.pinned:
            pin_drop(s, o.body, entry.found.slot)
            entry.pinned = False
        shard_unlock(s)
        raise
    entry.data = data
    copy_out(s, unit, PyBytes_AS_STRING(data), front, entry.copied)
    if how == GET:
        touch(s, unit)
        s.shard.hits += 1
    shard_unlock(s)
    return entry


cdef int64_t *counter_at(Arena arena, Py_ssize_t number) except NULL:
    if not 0 <= number < arena.view.root.counters:
        raise IndexError(f"counters are 0 to {arena.view.root.counters - 1}")
    return &arena.view.counters[number]


# --- the arena ---

cdef class Arena:
    def __cinit__(
        self,
        size,
        *,
        max_object=1 << 20,
        shards=0,
        purge_slots=0,
        counters=1024,
        processes=64,
        pin_above=32768,
        eviction="lru",
    ):
        plan = plan_mapping(
            size=size,
            max_object=max_object,
            shards=shards,
            purge_slots=purge_slots,
            counters=counters,
            processes=processes,
            pin_above=pin_above,
            eviction=eviction,
        )
        self.base = mapping_create(plan)
        self.size = size
        self.shards = plan["shards"]
        self.max_object = max_object
        self.pin_above = pin_above
        self.eviction = eviction
        view_open(&self.view, self.base)

    def __dealloc__(self):
        view_close(&self.view)
        if self.base != NULL:
            munmap(self.base, self.size)

    def attach(self, slot):
        if not 0 <= slot < self.view.root.processes:
            raise ValueError(f"process slots are 0 to {self.view.root.processes - 1}")
        self.view.slot = slot
        self.view.pid = getpid()

    def release_slot(self, slot):
        if not 0 <= slot < self.view.root.processes:
            raise ValueError(f"process slots are 0 to {self.view.root.processes - 1}")
        slot_release(&self.view, slot)

    # --- objects ---

    def get(self, bytes key not None, uint64_t through=0):
        return find_entry(self, key, GET, through)

    def peek(self, bytes key not None, uint64_t through=0):
        return find_entry(self, key, PEEK, through)

    def unresolved(self, bytes key not None):
        return find_entry(self, key, ONLY_UNRESOLVED, 0)

    def put(
        self,
        bytes key not None,
        bytes head not None,
        bytes meta not None,
        body,
        *,
        double born_at,
        double fresh_until,
        double stale_until,
        uint32_t flags,
        uint16_t status,
        uint64_t fill_seq,
        tags,
    ):
        cdef Record r
        cdef _Tags hashes = _Tags(tags)
        cdef _Parts parts = _Parts(body)
        take_key(key, &r.key_low, &r.key_high)
        if not fits(head, meta):
            return False
        r.tags = hashes.items
        r.tag_count = hashes.count
        r.meta = meta
        r.meta_size = <uint32_t> PyBytes_GET_SIZE(meta)
        r.head = head
        r.head_size = <uint32_t> PyBytes_GET_SIZE(head)
        r.body = parts.items
        r.body_parts = parts.count
        r.body_size = parts.size
        r.fill_seq = fill_seq
        r.born_at = born_at
        r.fresh_until = fresh_until
        r.stale_until = stale_until
        r.flags = flags
        r.status = status
        return object_put(&self.view, &r)

    def freshen(
        self,
        bytes key not None,
        uint64_t generation,
        bytes head not None,
        bytes meta not None,
        *,
        double born_at,
        double fresh_until,
        double stale_until,
        uint32_t flags,
        uint16_t status,
        uint64_t fill_seq,
        tags,
    ):
        cdef Record r
        cdef _Tags hashes = _Tags(tags)
        take_key(key, &r.key_low, &r.key_high)
        if not fits(head, meta):
            return False
        r.tags = hashes.items
        r.tag_count = hashes.count
        r.meta = meta
        r.meta_size = <uint32_t> PyBytes_GET_SIZE(meta)
        r.head = head
        r.head_size = <uint32_t> PyBytes_GET_SIZE(head)
        r.body = NULL
        r.body_parts = 0
        r.body_size = 0
        r.fill_seq = fill_seq
        r.born_at = born_at
        r.fresh_until = fresh_until
        r.stale_until = stale_until
        r.flags = flags
        r.status = status
        return object_freshen(&self.view, &r, generation)

    def remove(self, bytes key not None, uint64_t generation=0):
        cdef uint64_t low = 0, high = 0
        take_key(key, &low, &high)
        return object_remove(&self.view, low, high, generation)

    def __len__(self):
        cdef uint32_t i
        cdef Py_ssize_t total = 0
        for i in range(self.view.shard_count):
            total += self.view.shards[i].shard.objects
        return total

    # --- purges ---

    def sequence(self):
        return load(&self.view.purges.sequence)

    def apply_purge(self, uint64_t sequence, tags, *, bint soft, patterns=()):
        cdef _Tags hashes = _Tags(tags)
        cdef _Patterns texts = _Patterns(patterns)
        purges_apply(self.view.purges, sequence, hashes.items, hashes.count, soft, texts.items, texts.count)

    def raise_floor(self, uint64_t sequence, *, bint soft):
        purges_raise(self.view.purges, sequence, soft)

    def append_purge(self, tags, *, bint soft, bint everything=False, patterns=()):
        cdef _Tags hashes = _Tags(tags)
        cdef _Patterns texts = _Patterns(patterns)
        return purges_append(
            self.view.purges, hashes.items, hashes.count, soft, everything, texts.items, texts.count
        )

    def newest_pattern(self):
        return load(&self.view.purges.patterns)

    def patterns(self, uint64_t known=0):
        cdef PurgeTable *t = self.view.purges
        cdef PatternRecord *record
        cdef uint64_t changes, newest
        cdef uint32_t i
        cdef bytes region
        cdef size_t at = 0
        cdef const char *octets
        purges_lock(t)
        changes = t.pattern_changes + 1
        newest = t.patterns
        if changes == known:
            pthread_mutex_unlock(&t.mutex)
            return None
        try:
            region = PyBytes_FromStringAndSize(<char *> pattern_first(t), t.pattern_used)
        finally:
            i = t.pattern_count
            pthread_mutex_unlock(&t.mutex)
        octets = PyBytes_AS_STRING(region)
        listed = []
        for i in range(i):
            record = <PatternRecord *> (octets + at)
            listed.append((record.number, record.tag, record.soft != 0, (<char *> (record + 1))[: record.length]))
            at = <char *> pattern_next(record) - octets
        return changes, newest, listed

    def retired(self):
        return load(&self.view.purges.retired)

    def retire_patterns(self, uint64_t through, *, bint forgotten):
        purges_retire(self.view.purges, through, forgotten)

    def unresolved_keys(self, uint32_t shard, uint32_t bucket, uint32_t buckets):
        cdef ShardView *s
        cdef ObjectHeader *o
        cdef uint64_t newest = load(&self.view.purges.patterns)
        cdef uint32_t i, unit, end
        cdef int slot
        cdef list found = []
        if shard >= self.view.shard_count:
            raise IndexError(shard)
        s = &self.view.shards[shard]
        end = min(<uint64_t> bucket + buckets, s.bucket_count)
        for i in range(bucket, end):
            shard_lock(s)
            try:
                for slot in range(BUCKET_SLOTS):
                    unit = s.buckets[i].slots[slot]
                    if unit:
                        o = object_at(s, unit)
                        if o.fill_seq < newest and o.tag_count:
                            found.append((<char *> &o.key_low)[:16])
                unit = s.buckets[i].overflow
                while unit:
                    o = object_at(s, unit)
                    if o.fill_seq < newest and o.tag_count:
                        found.append((<char *> &o.key_low)[:16])
                    unit = o.hash_next
            finally:
                shard_unlock(s)
        return found, end if end < s.bucket_count else 0

    def purged(self, uint64_t fill_seq, tags, uint64_t proved=0):
        cdef _Tags hashes = _Tags(tags)
        return purges_verdict_stored(self.view.purges, fill_seq, proved, hashes.items, hashes.count)

    def purge_slots(self):
        return self.view.purges.used, self.view.purges.capacity

    def purges_newer(self, uint64_t sequence):
        return purges_newer(self.view.purges, sequence)

    def prove(self, uint32_t shard, uint32_t bucket, uint32_t buckets, uint64_t through):
        cdef ShardView *s
        cdef uint32_t i, end
        if shard >= self.view.shard_count:
            raise IndexError(f"shards are 0 to {self.view.shard_count - 1}")
        if through > load(&self.view.purges.sequence):
            raise ValueError("purges up to that number are not all known")
        s = &self.view.shards[shard]
        end = <uint32_t> min(<uint64_t> bucket + buckets, s.bucket_count)
        shard_lock(s)
        for i in range(bucket, end):
            prove_bucket(s, i, through)
        shard_unlock(s)
        return end if end < s.bucket_count else 0

    def forget_purges(self, uint64_t through, *, bint soft):
        return purges_forget(self.view.purges, through, soft)

    def proved(self):
        return load(&self.view.purges.proved)

    def trust(self, double until):
        if not until >= 0.0:
            raise ValueError("a moment of time.monotonic()")
        # Longer than a century is for good: a number that no clock will show.
        store(&self.view.purges.trusted_until, <uint64_t> -1 if until > 4e9 else <uint64_t> (until * 1e9))

    def silent(self):
        return bool(purges_silent(self.view.purges))

    def trusted_until(self):
        cdef uint64_t until = load(&self.view.purges.trusted_until)
        return float("inf") if until == <uint64_t> -1 else until * 1e-9

    # --- counters ---

    def add(self, Py_ssize_t counter, int64_t amount=1):
        add(counter_at(self, counter), amount)

    def counter(self, Py_ssize_t counter):
        return <int64_t> load(<uint64_t *> counter_at(self, counter))

    # --- figures ---

    def stats(self):
        cdef Shard *shard
        cdef Root *root = self.view.root
        cdef uint32_t i
        cdef uint64_t used = 0, data = 0, pinned = 0, body = 0
        cdef int64_t objects = 0, evictions = 0, inserts = 0, hits = 0, misses = 0, purged = 0, pins = 0
        for i in range(self.view.shard_count):
            shard = self.view.shards[i].shard
            objects += shard.objects
            used += <uint64_t> (root.unit_count - 1 - shard.free_units) * UNIT
            pinned += <uint64_t> shard.pinned_units * UNIT
            body += shard.bytes_body
            data += shard.bytes_data
            evictions += shard.evictions
            inserts += shard.inserts
            hits += shard.hits
            misses += shard.misses
            purged += shard.purged
            pins += shard.pins
        return {
            "objects": objects,
            "bytes_used": used,
            "bytes_body": body,
            "bytes_data": data,
            "bytes_slack": max(used - data, 0),
            "bytes_pinned": pinned,
            "bytes_units": <uint64_t> (root.unit_count - 1) * UNIT * self.view.shard_count,
            "size": self.size,
            "evictions": evictions,
            "inserts": inserts,
            "hits": hits,
            "misses": misses,
            "purged": purged,
            "recovered": root.recovered,
            "pins": pins,
            "folds": self.view.purges.folds,
            "purge_slots": self.view.purges.capacity,
            "purge_slots_used": self.view.purges.used,
            "purges_forgotten": self.view.purges.forgotten,
        }

    def check(self):
        from edgecache._native.probe import check

        check(self)


# Of an object of 1 KiB with a head of some 200 octets: header, share of the index, links of its seven units.
OVERHEAD = sizeof(ObjectHeader) + 7 * UNIT * sizeof(Bucket) // BUCKET_SPAN + 7 * sizeof(uint32_t)
