# One family's address ranges, for the compiled responder: `look_up` is safe without the GIL, since nothing of a
# `Ranges` changes once it is made.

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t


@cython.final
cdef class Ranges:
    cdef readonly int bits
    cdef size_t count
    cdef void *starts                # count numbers of 32 or 128 bits, native; then every 64th of them again
    cdef void *tops
    cdef uint32_t *ids
    cdef readonly uint32_t largest   # of the ids
    cdef uint32_t look_up(self, const uint8_t *address, int *prefix) noexcept nogil
    cdef int _room(self, size_t width) except -1
    cdef size_t _tops(self) noexcept
    cdef int _take4(self, const uint32_t[::1] hi) except -1
    cdef int _take6(self, const uint64_t[::1] hi, const uint64_t[::1] lo) except -1
