# Which object goes when a shard needs room: three policies behind the same five functions, one for an arena's life. They
# order objects and name victims; removing is shard.pyx's. The shard's lock is held by the caller.
#
#   LRU     one queue; a use moves to the first place; the last goes.
#   SIEVE   one queue; a use sets a bit. A hand goes from the last place to the first and round again: it clears bits that
#           are set and evicts what has none, and stays there. What survives keeps its place (NSDI'24).
#   S3-FIFO two queues; a use counts, up to 3. What is new joins the small one, a tenth of the memory, and at its end goes
#           on to the main one if it was used twice, else out, and is remembered for as many more as the main queue holds:
#           if it comes again by then it joins the main queue. There, what was used since takes another turn for each use
#           (SOSP'23).
#
# All say: what replaces an object (put over it) keeps what was known of that and joins as the newest; what freshens it
# stands in its place too, but for LRU, where that counts as a use. What has its body pinned is in use and is passed over.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from edgecache._native.extents cimport crash_point
from edgecache._native.layout cimport LRU, S3FIFO, SIEVE, ObjectHeader, Queue, ShardView, object_at
from edgecache._native.sync cimport likely, prefetch


cdef enum:
    MOST_USES = 3     # S3-FIFO counts in two bits
    PROMOTED_FROM = 2 # uses that take an object from the small queue to the main one
    SMALL_SHARE = 10  # the small queue has one part in so many


cdef struct Past:
    # What is known of an object that is about to be replaced.
    bint known
    uint8_t uses
    uint8_t small


cdef uint64_t eviction_tries(ShardView *s) noexcept nogil
cdef uint32_t eviction_search(ShardView *s, uint32_t spared, uint64_t *tries) noexcept nogil
cdef void eviction_replace(ShardView *s, uint32_t old, uint32_t new) noexcept nogil
cdef uint64_t weight_of(ShardView *s, const ObjectHeader *o) noexcept nogil
cdef bint ghost_take(ShardView *s, const ObjectHeader *o) noexcept nogil


cdef inline void queue_push(ShardView *s, Queue *q, uint32_t unit) noexcept nogil:
    cdef ObjectHeader *o = object_at(s, unit)
    cdef uint32_t next = q.first
    o.previous = 0
    o.next = next
    if next:
        object_at(s, next).previous = unit
    else:
        q.last = unit
    q.first = unit


cdef inline void queue_cut(ShardView *s, Queue *q, uint32_t unit) noexcept nogil:
    cdef ObjectHeader *o = object_at(s, unit)
    if o.previous:
        object_at(s, o.previous).next = o.next
    else:
        q.first = o.next
    if o.next:
        object_at(s, o.next).previous = o.previous
    else:
        q.last = o.previous


cdef inline Queue *queue_of(ShardView *s, const ObjectHeader *o) noexcept nogil:
    return &s.shard.small if o.small else &s.shard.queue


cdef inline void touch(ShardView *s, uint32_t unit) noexcept nogil:
    """Note a use."""
    cdef ObjectHeader *o
    o = object_at(s, unit)
    if likely(s.eviction == LRU):
        if s.shard.queue.first != unit:
            queue_cut(s, &s.shard.queue, unit)
            queue_push(s, &s.shard.queue, unit)
        if o.uses == 0:
            o.uses = 1
        return
    if o.uses < (1 if s.eviction == SIEVE else MOST_USES):
        o.uses += 1


cdef inline uint32_t eviction_victim(ShardView *s, uint32_t spared, uint64_t *tries) noexcept nogil:
    """Who goes next; 0: nobody can. The caller removes it."""
    cdef uint32_t unit
    cdef ObjectHeader *o
    if likely(s.eviction == LRU and tries[0] != 0):
        unit = s.shard.queue.last
        o = object_at(s, unit)
        if likely(unit != spared and o.body == 0):
            tries[0] -= 1
            if o.previous:
                prefetch(object_at(s, o.previous))
            return unit
    return eviction_search(s, spared, tries)


cdef inline void eviction_join(ShardView *s, uint32_t unit, const Past *past) noexcept nogil:
    """A new object, in the index already."""
    cdef ObjectHeader *o = object_at(s, unit)
    o.uses = past.uses
    o.small = 0
    if likely(s.eviction == LRU):
        queue_push(s, &s.shard.queue, unit)
        return
    if s.eviction == S3FIFO:
        o.small = past.small if past.known else not ghost_take(s, o)
        if o.small:
            s.shard.small_weight += weight_of(s, o)
        crash_point()
    queue_push(s, queue_of(s, o), unit)


cdef inline void eviction_leave(ShardView *s, uint32_t unit) noexcept nogil:
    """An object goes, for whatever reason."""
    cdef ObjectHeader *o = object_at(s, unit)
    if likely(s.eviction == LRU):
        queue_cut(s, &s.shard.queue, unit)
        return
    if s.shard.hand == unit:
        s.shard.hand = o.previous
    if o.small:
        s.shard.small_weight -= weight_of(s, o)
    queue_cut(s, queue_of(s, o), unit)
