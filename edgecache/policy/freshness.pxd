"""Records that every request makes, where they are compiled: fields of C structs, filled without Python."""

cdef class Control:
    cdef readonly object directives, source
