# The objects of a shard, for whoever serves them: C only, no GIL needed.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from edgecache._native.layout cimport ObjectHeader, ShardView, View
from edgecache._native.sync cimport iovec


cdef enum Lookup:
    MISS = 0         # not there, or hard-purged
    DECLINED = 1     # there, but stale, soft-purged or with a flag that was denied; nothing counted or moved
    COPIED = 2       # meta, head, gap and body are in the buffer
    PINNED = 3       # meta and head are in the buffer; the body is pinned: lookup_iovecs, then lookup_unpin
    TOO_LARGE = 4    # there and good, but the buffer is too small; nothing counted or moved


cdef struct Found:
    # What is known of an object; a snapshot.
    uint64_t generation
    uint64_t fill_seq
    double born_at
    double fresh_until
    double stale_until
    uint32_t flags
    uint16_t status
    uint16_t tag_count
    uint32_t meta_size
    uint32_t head_size
    uint32_t body_size
    uint32_t body                # first unit of the body's own chain; 0: none
    uint32_t shard
    uint32_t slot                # whose pin it is, where it is pinned
    int soft_purged
    int uses


cdef struct Record:
    # What is to be stored.
    uint64_t key_low
    uint64_t key_high
    const uint64_t *tags
    const char *meta
    const char *head
    const iovec *body
    uint32_t tag_count
    uint32_t meta_size
    uint32_t head_size
    uint32_t body_parts
    uint64_t body_size
    uint64_t fill_seq
    double born_at
    double fresh_until
    double stale_until
    uint32_t flags
    uint16_t status


# For the fast lane. Copies meta, head, `gap` octets left free, and the body into `buffer`, in that order; without
# `want_body` (HEAD, 304) meta and head only. A large body is pinned instead of copied.
cdef Lookup lookup(
    View *view, uint64_t key_low, uint64_t key_high, double now, uint32_t denied_flags, bint want_body,
    char *buffer, size_t room, size_t gap, Found *found,
) noexcept nogil
cdef int lookup_iovecs(View *view, const Found *found, uint64_t offset, iovec *out, int room) noexcept nogil
cdef void lookup_unpin(View *view, const Found *found) noexcept nogil

# The parts of it, under the shard's lock. `judge`: 0 valid, 1 soft-purged, 2 hard-purged, 3 (UNRESOLVED) to be compared
# with patterns first; `through`: the caller has compared it with those up to this number.
cdef enum:
    UNRESOLVED = 3
cdef int judge(ShardView *s, uint32_t unit, uint64_t through) noexcept nogil
cdef uint32_t search(ShardView *s, uint64_t key_low, uint64_t key_high) noexcept nogil
cdef uint32_t search_valid(ShardView *s, uint64_t key_low, uint64_t key_high, bint peek) noexcept nogil
cdef void prove_bucket(ShardView *s, uint32_t number, uint64_t through) noexcept nogil
cdef void drop(ShardView *s, uint32_t unit) noexcept nogil
cdef void describe(ShardView *s, uint32_t unit, Found *found) noexcept nogil
cdef void copy_front(ShardView *s, uint32_t unit, char *tags, char *rest, size_t size) noexcept nogil
cdef void copy_body(ShardView *s, uint32_t body, uint64_t offset, char *target, size_t size) noexcept nogil

# These take the lock themselves.
cdef bint object_put(View *view, const Record *record) noexcept nogil
cdef bint object_freshen(View *view, Record *record, uint64_t generation) noexcept nogil
cdef bint object_remove(View *view, uint64_t key_low, uint64_t key_high, uint64_t generation) noexcept nogil
