"""What the decoders of requests and of responses share: the buffer, lines, fields, lengths, bodies."""

from libc.stdint cimport int64_t, uint8_t

cdef enum State:
    IDLE  # between messages: after End until `resume`, or no request begun
    START  # before the first octet of a head
    HEAD  # its first line is taken
    FIXED  # `_left` octets of body to come
    CHUNK_LINE
    CHUNK_DATA  # `_left` octets of this chunk to come
    CHUNK_END  # its CRLF
    TRAILERS
    UNTIL_CLOSE
    ENDING  # only the End event is left
    TUNNEL
    BROKEN

cdef enum:
    MORE = 0  # octets are needed
    DONE = 1
    FAIL = -1  # the error is set


cdef class Limits:
    cdef readonly Py_ssize_t request_line, field_line, head, fields, chunk_line, trailer_fields


cdef class End:
    cdef list _trailers


cdef class Decoder:
    cdef Limits _limits
    cdef bytes _held  # the object fed that the octets lie in; None when they lie in _own
    cdef uint8_t* _own
    cdef Py_ssize_t _cap
    cdef const uint8_t* _p  # the octets not yet taken are _p[_pos:_len]
    cdef Py_ssize_t _pos, _len
    cdef Py_ssize_t _scan  # no LF in _p[_pos:_scan]; never below _pos
    cdef Py_ssize_t _taken  # octets of this head or trailer section already taken
    cdef State _state
    cdef int _blame  # 502 in the reader of responses, else 0
    cdef int _status
    cdef str _detail
    cdef list _lines
    cdef int64_t _left, _length  # _length: Content-Length, -1 for none
    cdef int64_t _extension  # octets of chunk extensions still allowed
    cdef int _codings, _options  # H1_TE_*, and H1_CLOSE and its like
    cdef bint _http10

    cdef void _drop(self) noexcept
    cdef int _append(self, const uint8_t* data, Py_ssize_t n) except -1
    cdef void _take(self, Py_ssize_t n) noexcept
    cdef object _wait(self)
    cdef bytes _slice(self, Py_ssize_t n)
    cdef int _fail(self, int status, str detail) noexcept
    cdef object _raise(self)
    cdef Py_ssize_t _line(self, Py_ssize_t most) noexcept
    cdef int _field(self, const uint8_t* s, Py_ssize_t n, const uint8_t** value, Py_ssize_t* value_n, list into) except -2
    cdef int _framing(self, int field, const uint8_t* v, Py_ssize_t n) noexcept
    cdef int _check_lengths(self) noexcept
    cdef int _head_fields(self) except -2
    cdef int _note(self, int field, const uint8_t* v, Py_ssize_t n) except -2
    cdef void _new_head(self) noexcept
    cdef void _enter_body(self) noexcept
    cdef int _chunk_frame(self) noexcept
    cdef Py_ssize_t _of_chunk(self, Py_ssize_t n) noexcept
    cdef bytes _gather(self, Py_ssize_t room)
    cdef int _trailers(self) except -2
    cdef object _body(self)
