"""Sorted address ranges; see the stub. The search itself is in dns_ranges.h."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "dns_ranges.h" nogil:
    ctypedef int dr_u128  # of 128 bits: only the C compiler sees its values
    enum:
        DR_STEP
    dr_u128 dr_join(uint64_t high, uint64_t low)
    size_t dr_search4_in_two(const uint32_t *starts, size_t count, const uint32_t *tops, uint32_t address)
    size_t dr_search6_in_two(const dr_u128 *starts, size_t count, const dr_u128 *tops, dr_u128 address)
    int dr_prefix4(const uint32_t *starts, size_t count, size_t at, uint32_t address)
    int dr_prefix6(const dr_u128 *starts, size_t count, size_t at, dr_u128 address)
    uint32_t dr_load4(const uint8_t *octets)
    dr_u128 dr_load6(const uint8_t *octets)


@cython.final
cdef class Ranges:
    def __cinit__(self, hi not None, lo, ids not None):
        cdef const uint32_t[::1] numbers = ids
        cdef const uint32_t[::1] narrow
        cdef const uint64_t[::1] upper, lower
        cdef size_t i
        self.count = len(ids)
        if not self.count or len(hi) != self.count or (lo is not None and len(lo) != self.count):
            raise ValueError(f"{len(hi)} starts do not go with {len(ids)} numbers")
        self.bits = 32 if lo is None else 128
        if lo is None:
            narrow = hi
            self._take4(narrow)
        else:
            upper = hi
            lower = lo
            self._take6(upper, lower)
        self.ids = <uint32_t *> malloc(self.count * sizeof(uint32_t))
        if self.ids == NULL:
            raise MemoryError
        memcpy(self.ids, &numbers[0], self.count * sizeof(uint32_t))
        for i in range(self.count):
            self.largest = max(self.largest, self.ids[i])

    cdef int _room(self, size_t width) except -1:
        self.starts = malloc((self.count + self._tops()) * width)
        if self.starts == NULL:
            raise MemoryError
        self.tops = <char *> self.starts + self.count * width
        return 0

    cdef size_t _tops(self) noexcept:
        return (self.count + DR_STEP - 1) // DR_STEP

    cdef int _take4(self, const uint32_t[::1] hi) except -1:
        cdef uint32_t *starts
        cdef size_t i
        self._room(sizeof(uint32_t))
        starts = <uint32_t *> self.starts
        for i in range(self.count):
            starts[i] = hi[i]
            if starts[i] <= starts[i - 1] if i else starts[i] != 0:
                raise ValueError(f"starts do not ascend from 0 at range {i}")
            if i % DR_STEP == 0:
                (<uint32_t *> self.tops)[i // DR_STEP] = starts[i]
        return 0

    cdef int _take6(self, const uint64_t[::1] hi, const uint64_t[::1] lo) except -1:
        cdef dr_u128 *starts
        cdef size_t i
        self._room(sizeof(dr_u128))
        starts = <dr_u128 *> self.starts
        for i in range(self.count):
            starts[i] = dr_join(hi[i], lo[i])
            if starts[i] <= starts[i - 1] if i else hi[i] != 0 or lo[i] != 0:
                raise ValueError(f"starts do not ascend from 0 at range {i}")
            if i % DR_STEP == 0:
                (<dr_u128 *> self.tops)[i // DR_STEP] = starts[i]
        return 0

    def __dealloc__(self):
        free(self.starts)
        free(self.ids)

    cdef uint32_t look_up(self, const uint8_t *address, int *prefix) noexcept nogil:
        cdef size_t at
        cdef uint32_t narrow
        cdef dr_u128 wide
        if self.bits == 32:
            narrow = dr_load4(address)
            at = dr_search4_in_two(<uint32_t *> self.starts, self.count, <uint32_t *> self.tops, narrow)
            prefix[0] = dr_prefix4(<uint32_t *> self.starts, self.count, at, narrow)
        else:
            wide = dr_load6(address)
            at = dr_search6_in_two(<dr_u128 *> self.starts, self.count, <dr_u128 *> self.tops, wide)
            prefix[0] = dr_prefix6(<dr_u128 *> self.starts, self.count, at, wide)
        return self.ids[at]

    @property
    def size_bytes(self):
        return self.count * 4 + (self.count + self._tops()) * (self.bits // 8)

    def __len__(self):
        return self.count

    def find(self, bytes address not None):
        cdef int prefix
        cdef uint32_t number
        if len(address) * 8 != self.bits:
            raise ValueError(f"an address here has {self.bits} bits")
        number = self.look_up(<const uint8_t *> <const char *> address, &prefix)
        return number, prefix
