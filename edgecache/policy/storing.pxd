"""Records that every request makes, where they are compiled: fields of C structs, filled without Python."""

cdef class Answer:
    cdef readonly object request, response, request_time, now, site
