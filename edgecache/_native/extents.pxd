from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy
from edgecache._native.layout cimport MAX_UNITS, UNIT, ShardView
from edgecache._native.sync cimport iovec

cdef enum:
    SINGLE = 0x40000000


cdef struct Cursor:
    # A place in a chain: read or written from there on, and it stays where that ended.
    ShardView *s
    char *at
    size_t left                  # octets to the end of this extent
    uint32_t unit                # first of this extent


cdef int crash_countdown


cdef void extents_reset(ShardView *s) noexcept nogil
cdef void extents_reset_keeping(ShardView *s, const uint64_t *kept) noexcept nogil
cdef uint32_t extents_take(ShardView *s, uint32_t count) noexcept nogil
cdef void extents_free(ShardView *s, uint32_t first) noexcept nogil
cdef uint32_t extents_units(ShardView *s, uint32_t first) noexcept nogil
cdef int bin_of(uint32_t length) noexcept nogil
cdef void cursor_write(Cursor *c, const char *source, size_t size) noexcept nogil
cdef void cursor_read(Cursor *c, char *target, size_t size) noexcept nogil
cdef void cursor_skip(Cursor *c, size_t size) noexcept nogil
cdef void cursor_copy(Cursor *source, Cursor *target, size_t size) noexcept nogil
cdef int cursor_iovecs(Cursor *c, size_t size, iovec *out, int room) noexcept nogil
cdef void crash_tick() noexcept nogil


cdef inline uint32_t extent_next(ShardView *s, uint32_t first) noexcept nogil:
    return s.links[first] & MAX_UNITS


cdef inline uint32_t extent_length(ShardView *s, uint32_t first) noexcept nogil:
    return 1 if s.links[first] & SINGLE else s.links[first + 1]


cdef inline void cursor_open(Cursor *c, ShardView *s, uint32_t first, size_t offset) noexcept nogil:
    c.s = s
    c.unit = first
    c.at = s.units + <size_t> first * UNIT
    c.left = <size_t> extent_length(s, first) * UNIT
    if offset < c.left:
        c.at += offset
        c.left -= offset
    else:
        cursor_skip(c, offset)


cdef inline void crash_point() noexcept nogil:
    # For tests: dies here at the n-th call, holding whatever lock is held.
    if crash_countdown:
        crash_tick()
