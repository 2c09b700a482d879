"""Records that every request makes, where they are compiled: fields of C structs, filled without Python."""

cdef class Pass:
    cdef readonly object headers, reason

cdef class DoNotStore:
    cdef readonly object reason, hit_for_pass_s, drop_stored

cdef class Outgoing:
    cdef readonly object response, body
