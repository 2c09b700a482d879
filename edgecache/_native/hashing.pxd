from libc.stdint cimport uint8_t, uint64_t


cdef void siphash(
    int c_rounds, int d_rounds, const uint8_t *key, const uint8_t *data, size_t size, uint64_t *low, uint64_t *high
) noexcept nogil
