from libc.stdint cimport uint32_t, uint64_t
from edgecache._native.layout cimport PatternRecord, PurgeTable


cdef struct Pattern:
    # What a purge brings beside its tags.
    uint64_t tag
    const char *text
    uint32_t length


cdef void purges_create(PurgeTable *t, uint32_t capacity, uint32_t pattern_room) noexcept nogil
cdef void purges_apply(
    PurgeTable *t, uint64_t sequence, const uint64_t *tags, size_t count, bint soft, const Pattern *patterns, size_t many
) noexcept nogil
cdef void purges_raise(PurgeTable *t, uint64_t sequence, bint soft) noexcept nogil
cdef uint64_t purges_append(
    PurgeTable *t, const uint64_t *tags, size_t count, bint soft, bint floor, const Pattern *patterns, size_t many
) noexcept nogil
cdef void purges_retire(PurgeTable *t, uint64_t through, bint forgotten) noexcept nogil
cdef PatternRecord *pattern_first(PurgeTable *t) noexcept nogil
cdef PatternRecord *pattern_next(const PatternRecord *record) noexcept nogil
cdef int purges_verdict(PurgeTable *t, uint64_t fill_seq, const uint64_t *tags, size_t count) noexcept nogil
cdef int purges_verdict_stored(
    PurgeTable *t, uint64_t fill_seq, uint64_t proved, const uint64_t *tags, size_t count
) noexcept nogil
cdef uint32_t purges_newer(PurgeTable *t, uint64_t number) noexcept nogil
cdef uint32_t purges_forget(PurgeTable *t, uint64_t through, bint soft) noexcept nogil
cdef bint purges_silent(PurgeTable *t) noexcept nogil
cdef void purges_lock(PurgeTable *t) noexcept nogil
