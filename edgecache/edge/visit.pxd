"""Records that every request makes, where they are compiled: fields of C structs, filled without Python."""

cdef class Story:
    cdef public object site, outcome, reason, status, body_bytes, cache_status, error, origin_s, aborted

cdef class Visit:
    cdef public object exchange, site, key_text, primary, sequence, story, share, looked_again
