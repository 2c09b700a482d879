"""What compiled connections hold: fields of C structs instead of slots found by name."""

cdef class Wire:
    cdef public object _drainer, _reader, eof, error, loop, lost, read_paused, transport, write_paused
