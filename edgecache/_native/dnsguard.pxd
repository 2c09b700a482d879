# Who a query is really from, and how many answers it is given. No Python on the way.

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef struct Line:
    uint64_t due_ns                  # when its next answer would be due at the allowed rate
    uint32_t mark                    # of whom it is about
    uint32_t refused                 # in a row, for slipping


@cython.final
cdef class Limiter:
    cdef Line *lines
    cdef size_t mask
    cdef uint64_t key                # drawn per boot: nobody can choose lines
    cdef uint64_t step_ns            # 0: no limit
    cdef uint64_t burst_ns
    cdef readonly uint32_t slip
    cdef int judge(self, const uint8_t *address, int version, uint32_t subject, uint64_t now_ns) noexcept nogil


@cython.final
cdef class Cookies:
    cdef uint8_t secrets[4][16]
    cdef int count
    cdef bint judge(
        self, const uint8_t *option, size_t n, const uint8_t *address, int version, uint32_t now, uint8_t *out
    ) noexcept nogil
    cdef void _make(self, uint8_t *text, size_t address_n, uint32_t now, uint8_t *out) noexcept nogil
