"""For tests and benchmarks of the arena; see the stub."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from edgecache._native cimport extents as memory
from edgecache._native.arena cimport Arena
from edgecache._native.eviction cimport touch, weight_of
from edgecache._native.extents cimport SINGLE, bin_of, extent_length, extent_next, extents_units
from edgecache._native.guard cimport pin_count, pin_shard, pin_subject, shard_lock, shard_unlock
from edgecache._native.layout cimport (
    BINS, BUCKET_SLOTS, LRU, MAX_UNITS, S3FIFO, SIEVE, UNIT, BodyHeader, Bucket, GhostLine, ObjectHeader, Queue, Shard,
    ShardView, View, body_at, bucket_number, object_at, shard_of, units_for,
)
from edgecache._native.purgetable cimport purges_lock
from edgecache._native.shard cimport (
    COPIED, PINNED, Found, Lookup, Record, describe, lookup as shard_lookup, lookup_iovecs,
    lookup_unpin, object_put, search_valid,
)
from edgecache._native.sync cimport iovec, load


# --- check: a message, or NULL. Python sees it once the lock is gone ---

cdef const char *check_chain(ShardView *s, uint32_t first, uint32_t expected, uint8_t *seen) noexcept nogil:
    cdef uint32_t unit = first, i, total = 0, length
    while unit:
        if unit >= s.unit_count:
            return b"a chain leaves the shard"
        length = extent_length(s, unit)
        if length == 0 or length > s.unit_count - unit:
            return b"an extent has no length"
        for i in range(unit, unit + length):
            if seen[i]:
                return b"a unit is used twice"
            seen[i] = 1
        if s.links[unit + length - 1] >> 31:
            return b"the end of an extent says it is free"
        total += length
        unit = extent_next(s, unit)
    if total != expected:
        return b"a chain is longer or shorter than its content"
    return NULL


cdef const char *check_object(ShardView *s, uint32_t unit, uint8_t *seen) noexcept nogil:
    cdef ObjectHeader *o = object_at(s, unit)
    cdef uint64_t front = sizeof(ObjectHeader) + <uint64_t> o.tag_count * 8 + o.meta_size + o.head_size
    cdef const char *wrong
    cdef Bucket *bucket = &s.buckets[bucket_number(s, o.key_low)]
    cdef uint32_t other, found = 0
    cdef int i
    if shard_of(s.view, o.key_high) != s:
        return b"an object is in the wrong shard"
    for i in range(BUCKET_SLOTS):
        if bucket.slots[i] == unit:
            found += 1
            if bucket.marks[i] != <uint16_t> (o.key_low >> 32):
                return b"a mark is not its key's"
    other = bucket.overflow
    while other:
        found += other == unit
        other = object_at(s, other).hash_next
    if found != 1:
        return b"an object is not in the index exactly once"
    if o.body == 0:
        return check_chain(s, unit, units_for(front + o.body_size), seen)
    wrong = check_chain(s, unit, units_for(front), seen)
    if wrong == NULL:
        wrong = check_chain(s, o.body, units_for(sizeof(BodyHeader) + <uint64_t> o.body_size), seen)
    if wrong == NULL and body_at(s, o.body).orphan:
        wrong = b"an object's body is an orphan"
    return wrong


cdef const char *check_free(ShardView *s, uint8_t *seen) noexcept nogil:
    cdef Shard *shard = s.shard
    cdef uint32_t unit, length, i, total = 0, previous
    cdef int number
    for number in range(BINS):
        unit = shard.bins[number]
        if (unit != 0) != ((shard.bin_map[number >> 6] >> (number & 63)) & 1):
            return b"the map of bins is wrong"
        previous = 0
        while unit:
            if unit >= s.unit_count:
                return b"a free run leaves the shard"
            length = s.links[unit] & MAX_UNITS
            if not s.links[unit] >> 31 or length == 0 or length > s.unit_count - unit:
                return b"a free run has no length"
            if s.links[unit + length - 1] != s.links[unit]:
                return b"the ends of a free run differ"
            if bin_of(length) != number:
                return b"a free run is in the wrong bin"
            if s.links[unit - 1] >> 31 or s.links[unit + length] >> 31:
                return b"free runs lie side by side"
            if (<uint32_t *> body_at(s, unit))[0] != previous:
                return b"a free run does not know the one before"
            for i in range(unit, unit + length):
                if seen[i]:
                    return b"a free unit is used"
                seen[i] = 2
            total += length
            previous = unit
            unit = (<uint32_t *> body_at(s, unit))[1]
    if total != shard.free_units:
        return b"the sum of free units is wrong"
    return NULL


cdef const char *check_pins(ShardView *s, uint8_t *seen) noexcept nogil:
    """Pins in bodies equal the records; bodies without an object are in records."""
    cdef View *view = s.view
    cdef uint64_t record
    cdef size_t i, j, total = <size_t> view.root.processes * view.pin_slots
    cdef uint32_t body, sum, pins = 0, units = 0
    cdef bint first
    cdef const char *wrong
    for i in range(total):
        record = load(&view.pins[i])
        if record == 0 or pin_shard(record) != s.number:
            continue
        body = <uint32_t> record
        if not 0 < body < s.unit_count or pin_count(record) == 0:
            return b"a pin record names nothing"
        sum = 0
        first = True
        for j in range(total):
            if pin_subject(load(&view.pins[j])) == pin_subject(record):
                sum += pin_count(load(&view.pins[j]))
                first = first and j >= i
        if body_at(s, body).pins != sum:
            return b"a body's pins are not those of the records"
        pins += pin_count(record)
        if not first:
            continue
        units += extents_units(s, body)
        if extents_units(s, body) != body_at(s, body).units:
            return b"a pinned body's units are wrong"
        if body_at(s, body).orphan:
            wrong = check_chain(s, body, body_at(s, body).units, seen)
            if wrong != NULL:
                return wrong
        elif not seen[body]:
            return b"a pinned body belongs to nobody"
    if pins != s.shard.pins or units != s.shard.pinned_units:
        return b"the sums of pins are wrong"
    return NULL


cdef struct Sums:
    uint32_t objects
    uint64_t body
    uint64_t data
    uint64_t weight
    bint hand                    # the hand is at one of them


cdef const char *check_queue(ShardView *s, Queue *q, bint small, Sums *sums, uint8_t *seen) noexcept nogil:
    cdef Shard *shard = s.shard
    cdef ObjectHeader *o
    cdef uint32_t unit = q.first, previous = 0
    cdef int most = 3 if s.eviction == S3FIFO else 1
    cdef const char *wrong
    sums.weight = 0
    while unit:
        if unit >= s.unit_count or sums.objects > shard.objects:
            return b"a queue does not end"
        o = object_at(s, unit)
        if o.previous != previous:
            return b"a queue does not lead back"
        if o.small != small or o.uses > most:
            return b"an object is in another queue than it says, or was used more than is counted"
        wrong = check_object(s, unit, seen)
        if wrong != NULL:
            return wrong
        sums.objects += 1
        sums.weight += weight_of(s, o)
        sums.hand = sums.hand or unit == shard.hand
        sums.body += o.body_size
        sums.data += sizeof(ObjectHeader) + <uint64_t> o.tag_count * 8 + o.meta_size + o.head_size + o.body_size
        if o.body:
            sums.data += sizeof(BodyHeader)
        if o.generation == 0 or o.generation > shard.generation:
            return b"a generation that was not yet given out"
        previous = unit
        unit = o.next
    if previous != q.last:
        return b"a queue does not end where it says"
    return NULL


cdef const char *check_shard(ShardView *s, uint8_t *seen) noexcept nogil:
    cdef Shard *shard = s.shard
    cdef Sums sums = Sums(0, 0, 0, 0, shard.hand == 0)
    cdef uint32_t unit, i, indexed = 0
    cdef const char *wrong
    cdef int slot
    wrong = check_queue(s, &shard.queue, False, &sums, seen)
    if wrong == NULL and not sums.hand:
        wrong = b"the hand is at no object"
    if wrong == NULL:
        wrong = check_queue(s, &shard.small, True, &sums, seen)
    if wrong != NULL:
        return wrong
    if sums.weight != shard.small_weight:
        return b"the small queue's weight is wrong"
    if sums.objects != shard.objects or sums.body != shard.bytes_body or sums.data != shard.bytes_data:
        return b"the sums of objects are wrong"
    for i in range(s.bucket_count):
        for slot in range(BUCKET_SLOTS):
            indexed += s.buckets[i].slots[slot] != 0
        unit = s.buckets[i].overflow
        while unit:
            indexed += 1
            unit = object_at(s, unit).hash_next
    if indexed != sums.objects:
        return b"the index holds what the list does not"
    wrong = check_pins(s, seen)
    if wrong == NULL:
        wrong = check_free(s, seen)
    if wrong != NULL:
        return wrong
    for i in range(1, s.unit_count):
        if not seen[i]:
            return b"a unit is lost"
    return NULL


def check(Arena arena not None):
    cdef ShardView *s
    cdef uint8_t *seen = <uint8_t *> malloc(arena.view.root.unit_count + 1)
    cdef const char *wrong = NULL
    cdef uint32_t i
    if seen == NULL:
        raise MemoryError
    for i in range(arena.view.shard_count):
        s = &arena.view.shards[i]
        memset(seen, 0, s.unit_count + 1)
        shard_lock(s)
        wrong = check_shard(s, seen)
        shard_unlock(s)
        if wrong != NULL:
            break
    free(seen)
    if wrong != NULL:
        raise AssertionError(f"shard {i}: {wrong.decode()}")


# --- ways to die ---

def crash_after(int points):
    memory.crash_countdown = points


def lock_shard(Arena arena not None, uint32_t shard):
    if shard >= arena.view.shard_count:
        raise IndexError(shard)
    shard_lock(&arena.view.shards[shard])


def lock_purges(Arena arena not None):
    purges_lock(arena.view.purges)


# --- figures ---

def pinned_units(Arena arena not None):
    return [arena.view.shards[i].shard.pinned_units for i in range(arena.view.shard_count)]


def layout(Arena arena not None):
    return {
        "unit": UNIT,
        "units": arena.view.root.unit_count - 1,
        "reserve": arena.view.root.reserve,
        "buckets": arena.view.root.bucket_count,
        "purge_slots": arena.view.purges.capacity,
        "pin_slots": arena.view.pin_slots,
        "object_header": sizeof(ObjectHeader),
        "body_header": sizeof(BodyHeader),
        "bucket": sizeof(Bucket) + (sizeof(GhostLine) if arena.view.root.eviction == S3FIFO else 0),
        "fixed": arena.view.root.shards_at,
    }


cdef uint64_t count_extents(ShardView *s, uint32_t first) noexcept nogil:
    cdef uint64_t count = 0
    while first:
        count += 1
        first = extent_next(s, first)
    return count


def extents(Arena arena not None):
    cdef ShardView *s
    cdef uint64_t objects = 0, chains = 0, pieces = 0, runs = 0, free_units = 0, overflow = 0
    cdef uint32_t unit, i
    cdef int number
    for i in range(arena.view.shard_count):
        s = &arena.view.shards[i]
        shard_lock(s)
        for unit in (s.shard.queue.first, s.shard.small.first):
            while unit:
                objects += 1
                chains += 1
                pieces += count_extents(s, unit)
                if object_at(s, unit).body:
                    chains += 1
                    pieces += count_extents(s, object_at(s, unit).body)
                unit = object_at(s, unit).next
        for number in range(BINS):
            unit = s.shard.bins[number]
            while unit:
                runs += 1
                unit = (<uint32_t *> body_at(s, unit))[1]
        free_units += s.shard.free_units
        for number in range(s.bucket_count):
            unit = s.buckets[number].overflow
            while unit:
                overflow += 1
                unit = object_at(s, unit).hash_next
        shard_unlock(s)
    return {
        "objects": objects, "chains": chains, "extents": pieces, "free_runs": runs, "free_units": free_units,
        "overflow": overflow,
    }


def lookup(Arena arena not None, bytes key not None, double now, uint32_t denied, bint want_body, size_t room, size_t gap):
    cdef uint64_t low, high
    cdef Found found
    cdef iovec pieces[3]
    cdef uint64_t offset
    cdef int count, i
    cdef Lookup outcome
    cdef char *buffer = <char *> calloc(room + 1, 1)
    if buffer == NULL:
        raise MemoryError
    memcpy(&low, PyBytes_AS_STRING(key), 8)
    memcpy(&high, PyBytes_AS_STRING(key) + 8, 8)
    outcome = shard_lookup(&arena.view, low, high, now, denied, want_body, buffer, room, gap, &found)
    out = b""
    if outcome == COPIED or outcome == PINNED:
        out = buffer[: found.meta_size + found.head_size + gap]
    if outcome == COPIED and want_body:
        i = found.meta_size + found.head_size + gap
        out += buffer[i : i + found.body_size]
    if outcome == PINNED:
        offset = 0
        while True:
            count = lookup_iovecs(&arena.view, &found, offset, pieces, 3)
            if count == 0:
                break
            for i in range(count):
                out += (<char *> pieces[i].iov_base)[: pieces[i].iov_len]
                offset += pieces[i].iov_len
        lookup_unpin(&arena.view, &found)
    free(buffer)
    return <int> outcome, out


cdef list queue_listed(ShardView *s, uint32_t unit):
    cdef ObjectHeader *o
    listed = []
    while unit:
        o = object_at(s, unit)
        listed.append(((<char *> &o.key_low)[:16], o.uses, unit == s.shard.hand))
        unit = o.next
    return listed


def queues(Arena arena not None, uint32_t shard):
    cdef ShardView *s
    if shard >= arena.view.shard_count:
        raise IndexError(shard)
    s = &arena.view.shards[shard]
    return queue_listed(s, s.shard.queue.first), queue_listed(s, s.shard.small.first)


# --- traces ---

def bind_bodies(Arena arena not None, uint64_t size):
    if arena.view.shard_count != 1 or arena.view.shards[0].shard.objects:
        raise ValueError("only an empty arena of one shard")
    arena.view.shards[0].shard.body_bound = size


def play(Arena arena not None, bytes keys not None, const uint32_t[::1] asked, const uint32_t[::1] sizes):
    cdef const uint64_t *all_keys = <const uint64_t *> PyBytes_AS_STRING(keys)
    cdef ShardView *s
    cdef iovec part
    cdef Record r
    cdef Py_ssize_t i
    cdef uint32_t number, unit
    cdef uint64_t hits = 0, octets = 0
    if PyBytes_GET_SIZE(keys) != 16 * sizes.shape[0]:
        raise ValueError("a key of 16 octets for each object")
    memset(&r, 0, sizeof(r))
    part.iov_base = NULL  # memory is taken and left as it is
    r.body = &part
    r.body_parts = 1
    r.fresh_until = 1e18
    with nogil:
        for i in range(asked.shape[0]):
            number = asked[i]
            r.key_low = all_keys[2 * number]
            r.key_high = all_keys[2 * number + 1]
            s = shard_of(&arena.view, r.key_high)
            shard_lock(s)
            unit = search_valid(s, r.key_low, r.key_high, False)
            if unit:
                touch(s, unit)
                hits += 1
                octets += sizes[number]
                s.shard.hits += 1
            else:
                s.shard.misses += 1
            shard_unlock(s)
            if unit == 0:
                part.iov_len = sizes[number]
                r.body_size = sizes[number]
                object_put(&arena.view, &r)
    return hits, octets


# --- timed loops ---

cdef double now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * 1e9 + t.tv_nsec


def bench_find(Arena arena not None, bytes keys not None, int rounds):
    cdef const uint64_t *all_keys = <const uint64_t *> PyBytes_AS_STRING(keys)
    cdef Py_ssize_t count = PyBytes_GET_SIZE(keys) // 16, i
    cdef Found found
    cdef ShardView *s
    cdef uint32_t unit
    cdef double begin = now_ns()
    cdef uint64_t missed = 0
    cdef int r
    with nogil:
        for r in range(rounds):
            for i in range(count):
                s = shard_of(&arena.view, all_keys[2 * i + 1])
                shard_lock(s)
                unit = search_valid(s, all_keys[2 * i], all_keys[2 * i + 1], False)
                if unit:
                    describe(s, unit, &found)
                    touch(s, unit)
                    s.shard.hits += 1
                else:
                    missed += 1
                shard_unlock(s)
    begin = (now_ns() - begin) / (<double> rounds * count)
    if missed:
        raise AssertionError(f"{missed} look-ups missed")
    return begin


def bench_put(Arena arena not None, bytes keys not None, uint32_t head, uint32_t body, int rounds):
    cdef const uint64_t *all_keys = <const uint64_t *> PyBytes_AS_STRING(keys)
    cdef Py_ssize_t count = PyBytes_GET_SIZE(keys) // 16, i
    cdef char *octets = <char *> calloc(head + body + 1, 1)
    cdef iovec part
    cdef Record r
    cdef double begin
    cdef uint64_t refused = 0
    cdef int k
    memset(&r, 0, sizeof(r))
    part.iov_base = octets + head
    part.iov_len = body
    r.head = octets
    r.head_size = head
    r.body = &part
    r.body_parts = 1
    r.body_size = body
    r.fresh_until = 1e18
    begin = now_ns()
    with nogil:
        for k in range(rounds):
            for i in range(count):
                r.key_low = all_keys[2 * i]
                r.key_high = all_keys[2 * i + 1]
                refused += not object_put(&arena.view, &r)
    begin = (now_ns() - begin) / (<double> rounds * count)
    free(octets)
    if refused:
        raise AssertionError(f"{refused} inserts refused")
    return begin


def bench_copy(size_t size, int rounds):
    cdef size_t span = <size_t> 256 << 20
    cdef char *target = <char *> malloc(span)
    cdef char *source = <char *> calloc(size, 1)
    cdef size_t at = 0
    cdef double begin
    cdef int k
    memset(target, 1, span)
    begin = now_ns()
    with nogil:
        for k in range(rounds):
            memcpy(target + at, source, size)
            at += (size + 191) // 192 * 192
            if at + size > span:
                at = 0
    begin = (now_ns() - begin) / rounds
    free(target)
    free(source)
    return begin
