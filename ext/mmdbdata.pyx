"""Values of a MaxMind-format database; see the stub."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    C_MOST_VALUES = 4096
    C_MOST_DEPTH = 32
    KIND_POINTER = 1
    KIND_TEXT = 2
    KIND_DOUBLE = 3
    KIND_BYTES = 4
    KIND_UINT16 = 5
    KIND_UINT32 = 6
    KIND_MAP = 7
    KIND_INT32 = 8
    KIND_UINT64 = 9
    KIND_UINT128 = 10
    KIND_ARRAY = 11
    KIND_BOOL = 14
    KIND_FLOAT = 15

MOST_VALUES = C_MOST_VALUES
MOST_DEPTH = C_MOST_DEPTH


@cython.final
cdef class Records:
    cdef bytes data
    cdef const uint8_t *p
    cdef size_t n
    cdef dict shared                 # by offset: what pointers led to
    cdef int left                    # values this record may still hold

    def __cinit__(self, bytes data not None):
        self.data = data
        self.p = <const uint8_t *> PyBytes_AS_STRING(data)
        self.n = len(data)
        self.shared = {}

    def decode(self, size_t offset):
        cdef size_t at = offset
        self.left = C_MOST_VALUES
        return self._value(&at, 0)

    cdef int _need(self, size_t at, size_t count) except -1:
        if at > self.n or count > self.n - at:
            raise ValueError("a value leaves the file")
        return 0

    cdef uint64_t _number(self, size_t at, size_t count) noexcept:
        cdef uint64_t value = 0
        cdef size_t i
        for i in range(count):
            value = value << 8 | self.p[at + i]
        return value

    cdef object _value(self, size_t *at, int depth):
        """The value at `at`, which moves behind it."""
        cdef size_t here = at[0], size, width
        cdef int kind, control
        cdef uint64_t bits
        cdef uint32_t narrow
        cdef double wide
        cdef float small
        self._need(here, 1)
        control = self.p[here]
        here += 1
        kind = control >> 5
        if kind == KIND_POINTER:
            return self._pointed(control, here, at, depth)
        if kind == 0:
            self._need(here, 1)
            kind = self.p[here] + 7
            here += 1
        size = control & 31
        if size > 28:
            width = size - 28
            self._need(here, width)
            size = self._number(here, width) + (29 if width == 1 else 285 if width == 2 else 65821)
            here += width
        self.left -= 1
        if self.left < 0:
            raise ValueError("a record holds too many values")
        if kind == KIND_MAP or kind == KIND_ARRAY:
            at[0] = here
            return self._many(kind, size, at, depth)
        if kind == KIND_BOOL:
            at[0] = here
            return size != 0
        self._need(here, size)
        at[0] = here + size
        if kind == KIND_TEXT:
            return PyUnicode_DecodeUTF8(<const char *> self.p + here, size, NULL)
        if kind == KIND_BYTES:
            return PyBytes_FromStringAndSize(<const char *> self.p + here, size)
        if kind == KIND_DOUBLE and size == 8:
            bits = self._number(here, 8)
            memcpy(&wide, &bits, 8)
            return wide
        if kind == KIND_FLOAT and size == 4:
            narrow = <uint32_t> self._number(here, 4)
            memcpy(&small, &narrow, 4)
            return <double> small
        if kind == KIND_INT32 and size <= 4:
            # Fewer octets than four are the lower ones of a number that is not negative.
            return <int32_t> <uint32_t> self._number(here, size)
        if (kind == KIND_UINT16 or kind == KIND_UINT32 or kind == KIND_UINT64) and size <= 8:
            return self._number(here, size)
        if kind == KIND_UINT128 and size <= 16:
            return int.from_bytes(PyBytes_FromStringAndSize(<const char *> self.p + here, size), "big")
        raise ValueError(f"a value of the kind {kind} and size {size}")

    cdef object _pointed(self, int control, size_t here, size_t *at, int depth):
        cdef size_t width = (control >> 3 & 3) + 1, target
        self._need(here, width)
        target = self._number(here, width)
        if width < 4:
            target |= <size_t> (control & 7) << (8 * width)
            target += 0 if width == 1 else 2048 if width == 2 else 526336
        at[0] = here + width
        found = self.shared.get(target)
        if found is None:
            if depth >= C_MOST_DEPTH:
                raise ValueError("a record is nested too deeply")
            where = target
            found = self._value(&target, depth + 1)
            self.shared[where] = found
        return found

    cdef object _many(self, int kind, size_t size, size_t *at, int depth):
        cdef size_t i
        cdef dict found
        cdef list items
        if depth >= C_MOST_DEPTH:
            raise ValueError("a record is nested too deeply")
        if kind == KIND_ARRAY:
            items = []
            for i in range(size):
                items.append(self._value(at, depth + 1))
            return items
        found = {}
        for i in range(size):
            key = self._value(at, depth + 1)
            if type(key) is not str:
                raise ValueError("a key is no text")
            found[key] = self._value(at, depth + 1)
        return found
