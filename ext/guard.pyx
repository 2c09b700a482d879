"""What keeps a shard whole when a process dies: robust lock, recovery, pins held in records by process.

A pinned body is read without the lock while its shard goes on, so its units must stay its own whatever happens:

- The links and octets of a body are not written from the moment it is pinned until its last pin goes.
- A pin is a count in the body, for those who would free it, and a record of the process that holds it, for those who
  must undo it. Records are changed under the shard's lock, each in one store.
- Recovery believes no index, list or free run: it keeps the units that records name, pins counted anew from the records,
  and empties everything else. The dying process can not have been writing links of a body that some record names.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from edgecache._native.extents cimport (
    crash_point, extent_length, extent_next, extents_free, extents_reset, extents_reset_keeping, extents_units,
)
from edgecache._native.layout cimport (
    MAX_UNITS, PIN_WAYS, S3FIFO, BodyHeader, Bucket, GhostLine, Shard, ShardView, View, body_at, ghost_line,
)
from edgecache._native.sync cimport (
    EOWNERDEAD, add, getpid, load, mutex_create, pthread_mutex_consistent, pthread_mutex_unlock, store,
)
from libc.stdlib cimport abort

# --- lock and recovery ---

cdef void shard_create(ShardView *s) noexcept nogil:
    mutex_create(&s.shard.mutex)
    extents_reset(s)


cdef bint keep(ShardView *s, uint32_t first, uint64_t *kept) noexcept nogil:
    """Mark the units of a chain; False, and nothing marked that was not, if it is no chain."""
    cdef uint32_t unit = first, length, i, total = 0
    while unit:
        if unit >= s.unit_count:
            return False
        length = extent_length(s, unit)
        total += length
        if length == 0 or length > s.unit_count - unit or total >= s.unit_count:
            return False
        unit = extent_next(s, unit)
    unit = first
    while unit:
        for i in range(unit, unit + extent_length(s, unit)):
            kept[i >> 6] |= <uint64_t> 1 << (i & 63)
        unit = extent_next(s, unit)
    return True


cdef void rebuild(ShardView *s) noexcept nogil:
    """Empty the shard but for what is pinned. May itself be cut off and begun again."""
    cdef Shard *shard = s.shard
    cdef uint64_t *kept = <uint64_t *> s.buckets  # the index is being emptied anyway: room for the bitmap
    cdef uint64_t *records = s.view.pins
    cdef uint64_t record
    cdef uint32_t body, pins
    cdef size_t i, total = <size_t> s.view.root.processes * s.view.pin_slots
    cdef BodyHeader *header
    memset(s.buckets, 0, <size_t> s.bucket_count * sizeof(Bucket))
    memset(&shard.queue, 0, sizeof(shard.queue))
    memset(&shard.small, 0, sizeof(shard.small))
    shard.hand = shard.ghosts = 0
    shard.small_weight = 0
    if s.eviction == S3FIFO:
        memset(ghost_line(s, 0), 0, <size_t> s.bucket_count * sizeof(GhostLine))
    shard.objects = 0
    shard.bytes_body = shard.bytes_data = 0
    shard.pins = shard.pinned_units = 0
    for i in range(total):
        record = load(&records[i])
        body = <uint32_t> record
        if record and pin_shard(record) == s.number and 0 < body < s.unit_count:
            body_at(s, body).pins = 0
    for i in range(total):
        record = load(&records[i])
        body = <uint32_t> record
        if record == 0 or pin_shard(record) != s.number or not 0 < body < s.unit_count:
            continue
        if not keep(s, body, kept):
            store(&records[i], 0)
            continue
        pins = pin_count(record)
        header = body_at(s, body)
        if header.pins == 0:
            header.units = extents_units(s, body)
            shard.pinned_units += header.units
        header.orphan = 1
        header.pins += pins
        shard.pins += pins
    extents_reset_keeping(s, kept)
    memset(s.buckets, 0, <size_t> s.bucket_count * sizeof(Bucket))


cdef void shard_recover(ShardView *s, int failed) noexcept nogil:
    """Locking said something else than 0. The lock is held afterwards."""
    if failed != EOWNERDEAD:
        abort()  # a lock of ours that can not be taken: nothing that is done after this would be right
    rebuild(s)
    add(&s.view.root.recovered, 1)
    pthread_mutex_consistent(&s.shard.mutex)


# --- pins; the shard's lock is held by the caller, but in slot_release ---

cdef bint pin_take(ShardView *s, uint32_t body) noexcept nogil:
    """Pin a body for this process. False where it has no record free for it, or none at all: copy then."""
    cdef View *view = s.view
    cdef uint64_t name = pin_name(s, body), record
    cdef uint64_t *ways
    cdef uint64_t *empty = NULL
    cdef int i
    cdef BodyHeader *header = body_at(s, body)
    if view.pid != getpid():
        return False  # forked, and not attached to a slot of its own
    ways = view.pins + <size_t> view.slot * view.pin_slots
    ways += ((name * <uint64_t> 0x9E3779B97F4A7C15) >> 40) % (view.pin_slots // PIN_WAYS) * PIN_WAYS
    for i in range(PIN_WAYS):
        record = ways[i]
        if pin_subject(record) == name:
            if pin_count(record) == 0xFFFFF:
                return False
            empty = &ways[i]
            break
        if record == 0 and empty == NULL:
            empty = &ways[i]
    if empty == NULL:
        return False
    record = empty[0] if empty[0] else name
    if header.pins == 0:
        s.shard.pinned_units += header.units
    header.pins += 1
    s.shard.pins += 1
    crash_point()
    store(empty, record + (<uint64_t> 1 << PIN_COUNT_SHIFT))
    return True


cdef void unpin(ShardView *s, uint32_t body, uint32_t count) noexcept nogil:
    cdef BodyHeader *header = body_at(s, body)
    header.pins -= count
    s.shard.pins -= count
    crash_point()
    if header.pins == 0:
        s.shard.pinned_units -= header.units
        if header.orphan:
            extents_free(s, body)


cdef void pin_drop(ShardView *s, uint32_t body, uint32_t slot) noexcept nogil:
    """Undo one `pin_take` of the process that holds `slot`."""
    cdef View *view = s.view
    cdef uint64_t name = pin_name(s, body), record
    cdef uint64_t *ways = view.pins + <size_t> slot * view.pin_slots
    cdef int i
    ways += ((name * <uint64_t> 0x9E3779B97F4A7C15) >> 40) % (view.pin_slots // PIN_WAYS) * PIN_WAYS
    for i in range(PIN_WAYS):
        record = ways[i]
        if record and pin_subject(record) == name:
            record -= <uint64_t> 1 << PIN_COUNT_SHIFT
            # The record goes first: if we die before the rest, recovery counts from the records.
            store(&ways[i], record if pin_count(record) else 0)
            crash_point()
            unpin(s, body, 1)
            return


cdef void slot_release(View *view, uint32_t slot) noexcept nogil:
    """Undo every pin of a process that is no more."""
    cdef uint64_t *records = view.pins + <size_t> slot * view.pin_slots
    cdef uint64_t record
    cdef ShardView *s
    cdef uint32_t i
    for i in range(view.pin_slots):
        record = load(&records[i])
        if record == 0:
            continue
        s = &view.shards[pin_shard(record)]
        shard_lock(s)
        record = load(&records[i])  # recovery may have dropped it
        if record:
            store(&records[i], 0)
            crash_point()
            unpin(s, <uint32_t> record, pin_count(record))
        shard_unlock(s)
