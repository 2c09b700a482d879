"""What compiled connections hold: fields of C structs instead of slots found by name."""

from edgecache.http.wire cimport Wire

cdef class ClientConnection(Wire):
    cdef public object _in_round, _limit, _mark, _moved_at, _out, _out_size, _phase, _served, _stall_check
    cdef public object _timed_out, deadline, decoder, lane, peer, scheme, shared
