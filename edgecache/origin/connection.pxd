"""What compiled bodies and answers hold: fields of a C struct instead of slots found by name."""

cdef class OriginBody:
    cdef public object _connection, _error, _held
    cdef public object length, trailers

cdef class ClientResponse:
    cdef public object body, head, sent_at, upgraded
