"""Victims, and S3-FIFO's memory of what it let go. The policies are described in the .pxd.

A search for a victim under the policies that give second chances is long once in a while, as a hand that finds every
bit set goes round the whole shard, and short on average: each step it takes was paid for by a use.

Ghosts lie in lines of eight beside the index, a key's line being that of its bucket, so S3-FIFO's memory of n objects is
a bounded table that costs 64 octets for 8 KiB of memory. It is the paper's queue but for two things: a line that has eight
ghosts loses its oldest before its time, and two keys of one line with the same 32 bits are one ghost.
"""

from libc.stdint cimport uint32_t, uint64_t
from edgecache._native.extents cimport crash_point
from edgecache._native.layout cimport (
    GHOST_WAYS, LRU, SIEVE, BodyHeader, Ghost, GhostLine, ObjectHeader, Queue, Shard, ShardView, body_at,
    bucket_number, ghost_line, object_at, units_for,
)
from edgecache._native.sync cimport prefetch


# --- ghosts ---

cdef inline GhostLine *ghosts_of(ShardView *s, const ObjectHeader *o) noexcept nogil:
    return ghost_line(s, bucket_number(s, o.key_low))


cdef void ghost_note(ShardView *s, const ObjectHeader *o) noexcept nogil:
    """Remember an object that leaves the small queue, in place of its own ghost, an empty one or the line's oldest."""
    cdef Shard *shard = s.shard
    cdef GhostLine *line = ghosts_of(s, o)
    cdef Ghost *worst = &line.ways[0]
    cdef Ghost *way
    cdef int i
    for i in range(GHOST_WAYS):
        way = &line.ways[i]
        if way.stamp and way.mark == <uint32_t> o.key_high:
            worst = way
            break
        if worst.stamp and (way.stamp == 0 or shard.ghosts - way.stamp > shard.ghosts - worst.stamp):
            worst = way
    shard.ghosts += 1
    if shard.ghosts == 0:
        shard.ghosts = 1  # it went round: 0 says empty
    worst.mark = <uint32_t> o.key_high
    worst.stamp = shard.ghosts


cdef bint ghost_take(ShardView *s, const ObjectHeader *o) noexcept nogil:
    """Whether that key is remembered; then no longer. As many are as nine tenths of the objects in the shard."""
    cdef GhostLine *line = ghosts_of(s, o)
    cdef uint32_t lasting = s.shard.objects - s.shard.objects // SMALL_SHARE
    cdef bint lasts
    cdef int i
    for i in range(GHOST_WAYS):
        if line.ways[i].stamp and line.ways[i].mark == <uint32_t> o.key_high:
            lasts = s.shard.ghosts - line.ways[i].stamp < lasting
            line.ways[i].stamp = 0
            return lasts
    return False


# --- places ---

cdef uint64_t weight_of(ShardView *s, const ObjectHeader *o) noexcept nogil:
    """What an object takes of what is bound."""
    cdef uint64_t front = sizeof(ObjectHeader) + <uint64_t> o.tag_count * 8 + o.meta_size + o.head_size
    if s.shard.body_bound:
        return o.body_size
    if o.body:
        return units_for(front) + units_for(sizeof(BodyHeader) + <uint64_t> o.body_size)
    return units_for(front + o.body_size)


cdef void eviction_replace(ShardView *s, uint32_t old, uint32_t new) noexcept nogil:
    """`new` stands for `old` from now on: the same object with another front."""
    cdef ObjectHeader *a = object_at(s, old)
    cdef ObjectHeader *b = object_at(s, new)
    cdef Queue *q = queue_of(s, a)
    b.uses = a.uses
    b.small = a.small
    if s.eviction == LRU:
        queue_cut(s, q, old)
        crash_point()
        queue_push(s, q, new)
        return
    if s.shard.hand == old:
        s.shard.hand = new
    if a.small:
        s.shard.small_weight += weight_of(s, b) - weight_of(s, a)
    b.previous = a.previous
    b.next = a.next
    if a.previous:
        object_at(s, a.previous).next = new
    else:
        q.first = new
    crash_point()
    if a.next:
        object_at(s, a.next).previous = new
    else:
        q.last = new


# --- victims ---

cdef inline bint held(ShardView *s, uint32_t unit, uint32_t spared) noexcept nogil:
    cdef ObjectHeader *o = object_at(s, unit)
    return unit == spared or (o.body != 0 and body_at(s, o.body).pins != 0)


cdef uint64_t eviction_tries(ShardView *s) noexcept nogil:
    """How many places to look at for one object's room: enough to have met each object as often as it can survive."""
    cdef uint64_t objects = s.shard.objects
    if s.eviction == LRU:
        return objects
    return 2 * objects if s.eviction == SIEVE else (MOST_USES + 3) * objects


cdef uint32_t eviction_search(ShardView *s, uint32_t spared, uint64_t *tries) noexcept nogil:
    if s.eviction == LRU:
        return victim_lru(s, spared, tries)
    if s.eviction == SIEVE:
        return victim_sieve(s, spared, tries)
    return victim_s3fifo(s, spared, tries)


cdef uint32_t victim_lru(ShardView *s, uint32_t spared, uint64_t *tries) noexcept nogil:
    cdef Queue *q = &s.shard.queue
    cdef uint32_t unit
    while tries[0]:
        tries[0] -= 1
        unit = q.last
        if not held(s, unit, spared):
            if object_at(s, unit).previous:
                prefetch(object_at(s, object_at(s, unit).previous))
            return unit
        if q.first != unit:
            queue_cut(s, q, unit)
            queue_push(s, q, unit)
    return 0


cdef uint32_t victim_sieve(ShardView *s, uint32_t spared, uint64_t *tries) noexcept nogil:
    cdef Shard *shard = s.shard
    cdef uint32_t unit = shard.hand if shard.hand else shard.queue.last
    cdef ObjectHeader *o
    while tries[0]:
        tries[0] -= 1
        o = object_at(s, unit)
        if o.previous:
            prefetch(object_at(s, o.previous))
        if o.uses == 0 and not held(s, unit, spared):
            shard.hand = o.previous
            return unit
        o.uses = 0
        unit = o.previous if o.previous else shard.queue.last
    shard.hand = unit
    return 0


cdef uint32_t victim_s3fifo(ShardView *s, uint32_t spared, uint64_t *tries) noexcept nogil:
    cdef Shard *shard = s.shard
    cdef uint64_t bound = shard.body_bound if shard.body_bound else s.unit_count - 1 - s.reserve
    cdef uint32_t unit
    cdef ObjectHeader *o
    while tries[0]:
        tries[0] -= 1
        if shard.small.last and (shard.queue.last == 0 or shard.small_weight * SMALL_SHARE >= bound):
            unit = shard.small.last
            o = object_at(s, unit)
            if o.uses < PROMOTED_FROM and not held(s, unit, spared):
                ghost_note(s, o)
                return unit
            shard.small_weight -= weight_of(s, o)
            queue_cut(s, &shard.small, unit)
            crash_point()
            o.small = 0
            o.uses = 0
        else:
            unit = shard.queue.last
            o = object_at(s, unit)
            if o.uses == 0 and not held(s, unit, spared):
                return unit
            if o.uses:
                o.uses -= 1
            queue_cut(s, &shard.queue, unit)
            crash_point()
        queue_push(s, &shard.queue, unit)
        if shard.queue.last:
            prefetch(object_at(s, shard.queue.last))
    # All of the main queue is held, and the small one is within its share.
    return last_resort(s, shard.small.last, spared)


cdef uint32_t last_resort(ShardView *s, uint32_t unit, uint32_t spared) noexcept nogil:
    while unit and held(s, unit, spared):
        unit = object_at(s, unit).previous
    return unit
