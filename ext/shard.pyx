"""The objects of a shard: hash index, validity, storing, finding, evicting what the policy names (eviction.pxd).

What is stored and what is free is decided under the shard's lock, in one process at a time. The octets of a body that
can be pinned are copied in without it: such a body belongs to the process that makes it, by a pin, until it is linked.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from edgecache._native.eviction cimport (
    Past, eviction_join, eviction_leave, eviction_replace, eviction_tries, eviction_victim, touch,
)
from edgecache._native.extents cimport (
    Cursor, crash_point, cursor_copy, cursor_iovecs, cursor_open, cursor_read, cursor_skip, cursor_write, extents_free,
    extents_take,
)
from edgecache._native.guard cimport pin_drop, pin_take, shard_lock, shard_unlock
from edgecache._native.layout cimport (
    BUCKET_SLOTS, MAX_TAGS, SOFT_PURGED, BodyHeader, Bucket, ObjectHeader, Shard, ShardView, View, body_at,
    bucket_number, object_at, shard_of, units_for,
)
from edgecache._native.purgetable cimport purges_verdict
from edgecache._native.sync cimport iovec, likely, load, prefetch


# --- hash index ---

cdef inline Bucket *bucket_of(ShardView *s, uint64_t key_low) noexcept nogil:
    return &s.buckets[bucket_number(s, key_low)]


cdef uint32_t search(ShardView *s, uint64_t key_low, uint64_t key_high) noexcept nogil:
    """The object's first unit; 0: none."""
    cdef Bucket *bucket = bucket_of(s, key_low)
    cdef uint16_t mark = <uint16_t> (key_low >> 32)
    cdef uint32_t unit
    cdef ObjectHeader *o
    cdef int i
    for i in range(BUCKET_SLOTS):
        if bucket.marks[i] == mark and bucket.slots[i]:
            unit = bucket.slots[i]
            o = object_at(s, unit)
            if likely(o.key_low == key_low and o.key_high == key_high):
                return unit
    unit = bucket.overflow
    while unit:
        o = object_at(s, unit)
        if o.key_low == key_low and o.key_high == key_high:
            return unit
        unit = o.hash_next
    return 0


cdef void index_add(ShardView *s, uint32_t unit) noexcept nogil:
    cdef ObjectHeader *o = object_at(s, unit)
    cdef Bucket *bucket = bucket_of(s, o.key_low)
    cdef int i
    for i in range(BUCKET_SLOTS):
        if bucket.slots[i] == 0:
            bucket.marks[i] = <uint16_t> (o.key_low >> 32)
            bucket.slots[i] = unit
            return
    o.hash_next = bucket.overflow
    bucket.overflow = unit


cdef void index_drop(ShardView *s, uint32_t unit) noexcept nogil:
    cdef ObjectHeader *o = object_at(s, unit)
    cdef Bucket *bucket = bucket_of(s, o.key_low)
    cdef uint32_t *link
    cdef uint32_t next
    cdef int i
    for i in range(BUCKET_SLOTS):
        if bucket.slots[i] == unit:
            next = bucket.overflow
            bucket.slots[i] = next
            if next:
                bucket.overflow = object_at(s, next).hash_next
                bucket.marks[i] = <uint16_t> (object_at(s, next).key_low >> 32)
                object_at(s, next).hash_next = 0
            return
    link = &bucket.overflow
    while link[0] != unit:
        link = &object_at(s, link[0]).hash_next
    link[0] = o.hash_next


# --- validity (DESIGN §7) ---

cdef int judge(ShardView *s, uint32_t unit, uint64_t through) noexcept nogil:
    """One comparison if nothing was purged since it was last judged.

    What no pattern up to `newest` matches counts as filled at that number from then on.
    """
    cdef ObjectHeader *o = object_at(s, unit)
    cdef uint64_t epoch = load(&s.view.purges.epoch)
    cdef iovec pieces[4]
    cdef Cursor c
    cdef size_t left
    cdef uint64_t newest
    cdef int verdict, worst, count, i
    if likely(o.checked == epoch):
        return o.state
    newest = load(&s.view.purges.patterns)
    worst = purges_verdict(s.view.purges, o.fill_seq, NULL, 0)
    left = <size_t> o.tag_count * 8
    cursor_open(&c, s, unit, sizeof(ObjectHeader))
    while left and worst < 2:
        count = cursor_iovecs(&c, left, pieces, 4)
        for i in range(count):
            left -= pieces[i].iov_len
            verdict = purges_verdict(
                s.view.purges, o.fill_seq, <const uint64_t *> pieces[i].iov_base, pieces[i].iov_len // 8
            )
            worst = verdict if verdict > worst else worst
    if worst == 2:
        return worst
    if o.fill_seq < newest and o.tag_count:  # without tags it is a mark, and no response
        if through < newest:
            return UNRESOLVED
        o.fill_seq = newest
    o.state = <uint16_t> worst | (o.state & SOFT_PURGED)  # that purge may be forgotten by now
    o.checked = epoch
    return o.state


# --- finding ---

cdef uint32_t search_valid(ShardView *s, uint64_t key_low, uint64_t key_high, bint peek) noexcept nogil:
    """The object's first unit if it is there and valid or soft-purged; else 0. One that is hard-purged goes, unless
    peeked at; one that has to be compared with patterns stays."""
    cdef uint32_t unit = search(s, key_low, key_high)
    cdef int verdict = judge(s, unit, 0) if unit else 0
    if verdict < 2:
        return unit
    if verdict == 2 and not peek:
        s.shard.purged += 1
        drop(s, unit)
    return 0


cdef double CLOCK_SLACK_S = 1.0  # policy/stale.py has the same, and says why


cdef void describe(ShardView *s, uint32_t unit, Found *found) noexcept nogil:
    cdef ObjectHeader *o = object_at(s, unit)
    found.generation = o.generation
    found.fill_seq = o.fill_seq
    found.born_at = o.born_at
    found.fresh_until = o.fresh_until
    found.stale_until = o.stale_until
    found.flags = o.flags
    found.status = o.status
    found.tag_count = o.tag_count
    found.meta_size = o.meta_size
    found.head_size = o.head_size
    found.body_size = o.body_size
    found.body = o.body
    found.shard = s.number
    found.slot = 0
    found.soft_purged = o.state & SOFT_PURGED
    found.uses = o.uses


cdef void copy_front(ShardView *s, uint32_t unit, char *tags, char *rest, size_t size) noexcept nogil:
    """Copy what follows the header: the tags (skipped if NULL), then `size` octets of meta, head and inline body."""
    cdef ObjectHeader *o = object_at(s, unit)
    cdef Cursor c
    cursor_open(&c, s, unit, sizeof(ObjectHeader))
    if tags == NULL:
        cursor_skip(&c, <size_t> o.tag_count * 8)
    else:
        cursor_read(&c, tags, <size_t> o.tag_count * 8)
    cursor_read(&c, rest, size)


cdef void copy_body(ShardView *s, uint32_t body, uint64_t offset, char *target, size_t size) noexcept nogil:
    """Copy from a body with its own chain: under the lock, or pinned."""
    cdef Cursor c
    cursor_open(&c, s, body, sizeof(BodyHeader) + offset)
    cursor_read(&c, target, size)


cdef Lookup lookup(
    View *view, uint64_t key_low, uint64_t key_high, double now, uint32_t denied_flags, bint want_body,
    char *buffer, size_t room, size_t gap, Found *found,
) noexcept nogil:
    cdef ShardView *s = shard_of(view, key_high)
    cdef ObjectHeader *o
    cdef uint32_t unit
    cdef size_t front, body
    cdef Lookup outcome
    shard_lock(s)
    unit = search_valid(s, key_low, key_high, False)
    if unit == 0:
        shard_unlock(s)
        return MISS  # counted by `get`, which whoever is turned away here tries next
    o = object_at(s, unit)
    describe(s, unit, found)
    front = <size_t> o.meta_size + o.head_size
    body = o.body_size if want_body else 0
    if o.state or o.flags & denied_flags or now >= o.fresh_until or o.born_at > now + CLOCK_SLACK_S:
        outcome = DECLINED
    elif o.body and body:
        found.slot = view.slot
        if front + gap <= room and pin_take(s, o.body):
            outcome = PINNED
        elif front + gap + body <= room:
            copy_body(s, o.body, 0, buffer + front + gap, body)
            outcome = COPIED
        else:
            outcome = TOO_LARGE
        if outcome != TOO_LARGE:
            copy_front(s, unit, NULL, buffer, front)
    elif front + gap + body > room:
        outcome = TOO_LARGE
    elif gap == 0 or body == 0:
        copy_front(s, unit, NULL, buffer, front + body)
        outcome = COPIED
    else:
        copy_gapped(s, unit, buffer, front, gap, body)
        outcome = COPIED
    if outcome == COPIED or outcome == PINNED:
        touch(s, unit)
        s.shard.hits += 1
    shard_unlock(s)
    return outcome


cdef void copy_gapped(
    ShardView *s, uint32_t unit, char *buffer, size_t front, size_t gap, size_t body
) noexcept nogil:
    cdef Cursor c
    cursor_open(&c, s, unit, sizeof(ObjectHeader) + <size_t> object_at(s, unit).tag_count * 8)
    cursor_read(&c, buffer, front)
    cursor_read(&c, buffer + front + gap, body)


cdef int lookup_iovecs(View *view, const Found *found, uint64_t offset, iovec *out, int room) noexcept nogil:
    """Where the pinned body lies from `offset` on. No lock: a pinned chain does not change."""
    cdef Cursor c
    if offset >= found.body_size:
        return 0
    cursor_open(&c, &view.shards[found.shard], found.body, sizeof(BodyHeader) + offset)
    return cursor_iovecs(&c, found.body_size - offset, out, room)


cdef void lookup_unpin(View *view, const Found *found) noexcept nogil:
    cdef ShardView *s = &view.shards[found.shard]
    shard_lock(s)
    pin_drop(s, found.body, found.slot)
    shard_unlock(s)


# --- removing and evicting ---

cdef inline uint64_t data_size(const ObjectHeader *o) noexcept nogil:
    cdef uint64_t size = sizeof(ObjectHeader) + <uint64_t> o.tag_count * 8 + o.meta_size + o.head_size + o.body_size
    return size + sizeof(BodyHeader) if o.body else size


cdef inline void count_out(ShardView *s, const ObjectHeader *o) noexcept nogil:
    s.shard.objects -= 1
    s.shard.bytes_body -= o.body_size
    s.shard.bytes_data -= data_size(o)


cdef void drop(ShardView *s, uint32_t unit) noexcept nogil:
    """Remove an object. A pinned body stays until its last pin goes."""
    cdef ObjectHeader *o = object_at(s, unit)
    index_drop(s, unit)
    crash_point()
    eviction_leave(s, unit)
    count_out(s, o)
    if o.body:
        if body_at(s, o.body).pins:
            body_at(s, o.body).orphan = 1
        else:
            extents_free(s, o.body)
    crash_point()
    extents_free(s, unit)


cdef inline bint lacks_room(ShardView *s, uint32_t need, uint64_t body) noexcept nogil:
    if s.shard.free_units < need + s.reserve:
        return True
    return s.shard.body_bound != 0 and s.shard.bytes_body + body > s.shard.body_bound


cdef bint make_room(ShardView *s, uint32_t need, uint64_t body, uint32_t spared) noexcept nogil:
    """Evict until `need` units and the reserve are free; True if `need` are.

    What cannot be freed stays: `spared`, and what has its body pinned, which is in use this very moment. `body` octets
    are for where those are bound too.
    """
    cdef Shard *shard = s.shard
    cdef uint64_t tries
    cdef uint32_t unit
    if not lacks_room(s, need, body):
        return True
    if need > s.unit_count - 1 - shard.pinned_units or (shard.body_bound and body > shard.body_bound):
        return False
    tries = eviction_tries(s)
    while lacks_room(s, need, body):
        unit = eviction_victim(s, spared, &tries)
        if unit == 0:
            break
        shard.evictions += 1
        drop(s, unit)
    return shard.free_units >= need


# --- comparing all of it, so that purges may be forgotten ---

cdef bint prove(ShardView *s, uint32_t unit, uint64_t through) noexcept nogil:
    """True where a hard purge covered it: then it is gone."""
    cdef ObjectHeader *o = object_at(s, unit)
    cdef int verdict = judge(s, unit, 0)
    if verdict == 2:
        s.shard.purged += 1
        drop(s, unit)
        return True
    if verdict < 2 and o.fill_seq < through:
        o.fill_seq = through
    return False


cdef void prove_bucket(ShardView *s, uint32_t number, uint64_t through) noexcept nogil:
    """Compare the objects of a bucket with the purges there are, none of them with a number up to `through` still to
    come. Those that are valid count as filled at that number; one that is soft-purged says so itself."""
    cdef Bucket *bucket = &s.buckets[number]
    cdef uint32_t unit, next
    cdef int i = 0
    while i < BUCKET_SLOTS:
        # Where an object goes, one from the overflow takes its slot.
        if bucket.slots[i] == 0 or not prove(s, bucket.slots[i], through):
            i += 1
    unit = bucket.overflow
    while unit:
        next = object_at(s, unit).hash_next
        prove(s, unit, through)
        unit = next


# --- storing ---

cdef void fill_header(ShardView *s, uint32_t unit, const Record *r, uint64_t epoch, uint32_t body) noexcept nogil:
    cdef ObjectHeader *o = object_at(s, unit)
    o.key_low = r.key_low
    o.key_high = r.key_high
    o.hash_next = 0
    o.body = body
    o.fresh_until = r.fresh_until
    o.checked = judged_under(s.view, r, epoch)
    o.flags = r.flags
    o.status = r.status
    o.tag_count = <uint16_t> r.tag_count
    o.meta_size = r.meta_size
    o.head_size = r.head_size
    o.body_size = <uint32_t> r.body_size
    o.state = 0
    o.born_at = r.born_at
    o.stale_until = r.stale_until
    o.fill_seq = r.fill_seq


cdef void write_front(Cursor *c, ShardView *s, uint32_t unit, const Record *r) noexcept nogil:
    """Tags, meta and head, and leave the cursor where an inline body goes."""
    cursor_open(c, s, unit, sizeof(ObjectHeader))
    cursor_write(c, <const char *> r.tags, <size_t> r.tag_count * 8)
    cursor_write(c, r.meta, r.meta_size)
    cursor_write(c, r.head, r.head_size)


cdef void write_body(Cursor *c, const Record *r) noexcept nogil:
    cdef uint32_t i
    for i in range(r.body_parts):
        if likely(r.body[i].iov_base != NULL):
            cursor_write(c, <const char *> r.body[i].iov_base, r.body[i].iov_len)


cdef inline void count_in(ShardView *s, const ObjectHeader *o) noexcept nogil:
    s.shard.objects += 1
    s.shard.bytes_body += o.body_size
    s.shard.bytes_data += data_size(o)


cdef inline bint purged(View *view, const Record *r) noexcept nogil:
    if r.fill_seq < load(&view.purges.retired) and r.tag_count:
        return True
    return purges_verdict(view.purges, r.fill_seq, r.tags, r.tag_count) != 0


cdef inline uint64_t judged_under(View *view, const Record *r, uint64_t epoch) noexcept nogil:
    """The epoch that something new counts as compared under: an older one where patterns are still to be compared."""
    return epoch - 1 if r.fill_seq < load(&view.purges.patterns) and r.tag_count else epoch


cdef bint object_put(View *view, const Record *r) noexcept nogil:
    cdef ShardView *s = shard_of(view, r.key_high)
    cdef uint64_t front = <uint64_t> r.tag_count * 8 + r.meta_size + r.head_size, epoch
    cdef uint64_t inline = 0 if r.body_size > view.pin_above else r.body_size
    cdef uint32_t unit, body = 0, need
    cdef bint mine = False
    cdef Cursor c
    cdef Past past = Past(False, 0, 0)
    if front + r.body_size > view.max_object or r.tag_count > MAX_TAGS:
        return False
    prefetch(bucket_of(s, r.key_low))
    shard_lock(s)
    epoch = load(&view.purges.epoch)
    if purged(view, r):
        shard_unlock(s)
        return False
    if inline != r.body_size:
        need = units_for(sizeof(BodyHeader) + r.body_size)
        if not make_room(s, need, r.body_size, 0):
            shard_unlock(s)
            return False
        body = extents_take(s, need)
        body_at(s, body).pins = 0
        body_at(s, body).orphan = 1
        body_at(s, body).units = need
        # A large copy is made without the lock, the body kept by a pin. Without a pin it is made under it.
        mine = pin_take(s, body)
        if mine:
            shard_unlock(s)
        cursor_open(&c, s, body, sizeof(BodyHeader))
        write_body(&c, r)
        if mine:
            shard_lock(s)
            epoch = load(&view.purges.epoch)
            if purged(view, r):
                pin_drop(s, body, view.slot)
                shard_unlock(s)
                return False
    unit = search(s, r.key_low, r.key_high)
    if unit:
        past = Past(True, object_at(s, unit).uses, object_at(s, unit).small)
        drop(s, unit)
    need = units_for(sizeof(ObjectHeader) + front + inline)
    if not make_room(s, need, r.body_size, 0):
        if mine:
            pin_drop(s, body, view.slot)
        elif body:
            extents_free(s, body)
        shard_unlock(s)
        return False
    unit = extents_take(s, need)
    fill_header(s, unit, r, epoch, body)
    s.shard.generation += 1
    object_at(s, unit).generation = s.shard.generation
    write_front(&c, s, unit, r)
    if body:
        body_at(s, body).orphan = 0
    else:
        write_body(&c, r)
    index_add(s, unit)
    crash_point()
    eviction_join(s, unit, &past)
    count_in(s, object_at(s, unit))
    s.shard.inserts += 1
    if s.shard.free_units < 2 * s.reserve and s.shard.queue.last:
        # The next insert is likely to evict: what it will look at first is then on its way.
        prefetch(bucket_of(s, object_at(s, s.shard.queue.last).key_low))
    if mine:
        pin_drop(s, body, view.slot)
    shard_unlock(s)
    return True


cdef bint object_freshen(View *view, Record *r, uint64_t generation) noexcept nogil:
    """New front, same body. The body is moved or copied; `r.body_size` is set from it."""
    cdef ShardView *s = shard_of(view, r.key_high)
    cdef bint done
    if r.tag_count > MAX_TAGS:
        return False
    shard_lock(s)
    done = freshen_locked(s, r, generation)
    shard_unlock(s)
    return done


cdef bint freshen_locked(ShardView *s, Record *r, uint64_t generation) noexcept nogil:
    cdef uint64_t front = <uint64_t> r.tag_count * 8 + r.meta_size + r.head_size, epoch, inline
    cdef uint32_t old = search_valid(s, r.key_low, r.key_high, False), unit, need, body
    cdef ObjectHeader *o
    cdef Cursor source, target
    if old == 0 or object_at(s, old).generation != generation:
        return False
    epoch = load(&s.view.purges.epoch)
    o = object_at(s, old)
    r.body_size = o.body_size
    if purged(s.view, r) or front + r.body_size > s.view.max_object:
        return False
    inline = 0 if o.body else r.body_size
    need = units_for(sizeof(ObjectHeader) + front + inline)
    if not make_room(s, need, 0, old):
        return False
    unit = extents_take(s, need)
    body = o.body
    fill_header(s, unit, r, epoch, body)
    object_at(s, unit).generation = generation
    write_front(&target, s, unit, r)
    cursor_open(
        &source, s, old, sizeof(ObjectHeader) + <size_t> o.tag_count * 8 + o.meta_size + o.head_size
    )
    cursor_copy(&source, &target, inline)
    index_drop(s, old)
    crash_point()
    eviction_replace(s, old, unit)
    count_out(s, o)
    extents_free(s, old)
    index_add(s, unit)
    count_in(s, object_at(s, unit))
    return True


cdef bint object_remove(View *view, uint64_t key_low, uint64_t key_high, uint64_t generation) noexcept nogil:
    """True if it was there, not hard-purged, and (unless 0) of that generation."""
    cdef ShardView *s = shard_of(view, key_high)
    cdef uint32_t unit
    cdef bint there
    shard_lock(s)
    unit = search(s, key_low, key_high)
    there = unit != 0 and judge(s, unit, 0) != 2
    if there and generation and object_at(s, unit).generation != generation:
        unit = 0
    if unit:
        drop(s, unit)
        s.shard.purged += not there
    shard_unlock(s)
    return there and unit != 0
