"""Records that every request makes, where they are compiled: fields of C structs, filled without Python."""

cdef class Found:
    cdef public object primary, fill_key, candidates, missing, vary_miss, pass_until
