"""What compiled connections, bodies and answers hold: fields of C structs instead of slots found by name."""

from edgecache.http.wire cimport Wire

cdef class OriginConnection(Wire):
    cdef public object _decoder, _eof_told, _fault, _go_ahead, _head, _keep_alive, _keeper, _read_limit
    cdef public object _reading_head, _sender, _sent, _sweeper, _timeouts, _write_limit, busy, counted
    cdef public object deadline, received, reused, sent_at

cdef class OriginBody:
    cdef public object _connection, _error, _held
    cdef public object length, trailers

cdef class ClientResponse:
    cdef public object body, head, sent_at, upgraded
