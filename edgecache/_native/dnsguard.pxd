# Who a query is really from, and how many answers it is given.

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from edgecache._native.dnsranges cimport Ranges


cdef struct Line:
    uint64_t due_ns                  # when its next answer would be due at the allowed rate
    uint32_t mark                    # of whom it is about
    uint32_t refused                 # in a row, for slipping


@cython.final
cdef class Limiter:
    cdef Line *lines
    cdef size_t mask
    cdef uint64_t key                # drawn per boot: nobody can choose lines
    cdef uint64_t step_ns[2]         # between answers, and between errors; 0: no limit
    cdef uint64_t window_ns
    cdef readonly uint32_t slip
    cdef Ranges exempt_4             # list 1: not limited
    cdef Ranges exempt_6
    cdef int judge(
        self, const uint8_t *address, int version, uint32_t subject, bint error, uint64_t now_ns
    ) noexcept


@cython.final
cdef class Cookies:
    cdef uint8_t secrets[4][16]
    cdef int count
    cdef bint judge(
        self, const uint8_t *option, size_t n, const uint8_t *address, int version, uint32_t now, uint8_t *out
    ) noexcept nogil
    cdef void _make(self, uint8_t *text, size_t address_n, uint32_t now, uint8_t *out) noexcept nogil
