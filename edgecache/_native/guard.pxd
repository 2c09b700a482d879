from libc.stdint cimport uint32_t, uint64_t
from edgecache._native.layout cimport ShardView, View
from edgecache._native.sync cimport likely, pthread_mutex_lock, pthread_mutex_unlock


cdef enum:
    PIN_COUNT_SHIFT = 44
    PIN_SHARD_SHIFT = 32


cdef void shard_create(ShardView *s) noexcept nogil
cdef void shard_recover(ShardView *s, int failed) noexcept nogil
cdef bint pin_take(ShardView *s, uint32_t body) noexcept nogil
cdef void pin_drop(ShardView *s, uint32_t body, uint32_t slot) noexcept nogil
cdef void slot_release(View *view, uint32_t slot) noexcept nogil


# A pin record (see layout.pxd).

cdef inline uint64_t pin_name(ShardView *s, uint32_t body) noexcept nogil:
    return <uint64_t> s.number << PIN_SHARD_SHIFT | body


cdef inline uint64_t pin_subject(uint64_t record) noexcept nogil:
    return record & ((<uint64_t> 1 << PIN_COUNT_SHIFT) - 1)


cdef inline uint32_t pin_shard(uint64_t record) noexcept nogil:
    return <uint32_t> (record >> PIN_SHARD_SHIFT) & 0xFFF


cdef inline uint32_t pin_count(uint64_t record) noexcept nogil:
    return <uint32_t> (record >> PIN_COUNT_SHIFT)


cdef inline void shard_lock(ShardView *s) noexcept nogil:
    # Safe with or without the GIL: a section is short, takes no other lock but the purge table's (never the other way
    # round), allocates no Python object that could run code, and so never waits for the GIL.
    cdef int failed = pthread_mutex_lock(&s.shard.mutex)
    if not likely(failed == 0):
        shard_recover(s, failed)


cdef inline void shard_unlock(ShardView *s) noexcept nogil:
    pthread_mutex_unlock(&s.shard.mutex)
