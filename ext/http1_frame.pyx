"""What the decoders of requests and of responses share. The documentation is in edgecache/_native/http1.pyi.

How it works: `feed` keeps the object it is given, and body octets are sliced from it; only where octets are left
over when more arrive are they copied, into a buffer that grows by doubling. A head is taken line by line as its
lines become complete, and the search for the end of a line goes on where it stopped, so the work is linear in the
octets fed however they are cut, and what is kept is bounded by `Limits`. Whether a line is too long depends only on
where it begins, never on how it arrived. An error is remembered as a status and a text, and raised anew each time.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport INT64_MAX, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memmove

from edgecache._native.http1_scan cimport (
    H1_F_CONNECTION,
    H1_F_CONTENT_LENGTH,
    H1_F_HOST,
    H1_F_OTHER,
    H1_F_TRANSFER_ENCODING,
    H1_TE_AGAIN,
    H1_TE_BAD,
    H1_TE_CHUNKED,
    H1_TE_LAST,
    H1_TE_OTHER,
    h1_check_value,
    h1_chunk_line,
    h1_codings,
    h1_field,
    h1_init,
    h1_is_token,
    h1_length,
    h1_options,
    h1_ows,
)
from edgecache._native.http1_text cimport Known, ascii_text, known, latin1_text

cdef extern from "Python.h":
    PyObject* PyBytes_New "PyBytes_FromStringAndSize"(const char* octets, Py_ssize_t size)  # not yet anybody's

h1_init()

MAX_EVENT = 262144
cdef Py_ssize_t EVENT_MAX = MAX_EVENT
cdef int64_t EXTENSION_FREE = 65536

cdef enum:
    GATHER_BELOW = 4096  # chunks smaller than this are put together: an event costs more than their copy


class FramingError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


@cython.final
cdef class Limits:
    def __init__(
        self,
        *,
        Py_ssize_t request_line=16384,
        Py_ssize_t field_line=16384,
        Py_ssize_t head=65536,
        Py_ssize_t fields=128,
        Py_ssize_t chunk_line=256,
        Py_ssize_t trailer_fields=32,
    ):
        if min(request_line, field_line, head, chunk_line) < 1 or min(fields, trailer_fields) < 0:
            raise ValueError("limits are positive")
        if max(request_line, field_line, head, chunk_line) > 1 << 30:
            raise ValueError("limits are at most 1 GiB")
        self.request_line = request_line
        self.field_line = field_line
        self.head = head
        self.fields = fields
        self.chunk_line = chunk_line
        self.trailer_fields = trailer_fields


@cython.final
@cython.freelist(8)
cdef class End:
    @property
    def trailers(self):
        return self._trailers if self._trailers is not None else []

    def __repr__(self):
        return f"<End {self.trailers!r}>"


cdef End PLAIN_END = End.__new__(End)


cdef class Decoder:
    def __cinit__(self, Limits limits not None):
        self._limits = limits
        self._own = NULL
        self._p = NULL

    def __dealloc__(self):
        free(self._own)

    # buffer

    def feed(self, bytes data not None):
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data)
        if n == 0 or self._state == BROKEN:
            return
        if self._pos == self._len:
            self._drop()
            self._held = data
            self._p = <const uint8_t*> PyBytes_AS_STRING(data)
            self._len = n
        else:
            self._append(<const uint8_t*> PyBytes_AS_STRING(data), n)

    cdef void _drop(self) noexcept:
        self._held = None
        if self._own != NULL:
            free(self._own)
            self._own = NULL
        self._p = NULL
        self._cap = self._pos = self._len = self._scan = 0

    cdef int _append(self, const uint8_t* data, Py_ssize_t n) except -1:
        """Put `data` behind what is left, in our own memory; each octet is moved O(1) times on average."""
        cdef Py_ssize_t rest = self._len - self._pos
        cdef Py_ssize_t cap
        cdef uint8_t* new
        if self._own == NULL or self._cap - self._len < n:
            if self._own != NULL and rest <= self._pos and rest + n <= self._cap:
                memmove(self._own, self._own + self._pos, rest)
            else:
                cap = max(2 * rest, rest + n, 256)
                new = <uint8_t*> malloc(cap)
                if new == NULL:
                    raise MemoryError
                memcpy(new, self._p + self._pos, rest)
                free(self._own)
                self._own = new
                self._cap = cap
                self._held = None
                self._p = new
            self._scan -= self._pos
            self._len = rest
            self._pos = 0
        if n:
            memcpy(self._own + self._len, data, n)
            self._len += n
        return 0

    cdef void _take(self, Py_ssize_t n) noexcept:
        self._pos += n
        if self._scan < self._pos:
            self._scan = self._pos

    cdef object _wait(self):
        """None, to return from `next`; a short rest of a long object fed does not keep all of it alive."""
        cdef Py_ssize_t rest = self._len - self._pos
        if rest == 0:
            self._drop()
        elif self._held is not None and self._len > 4096 and rest < self._len >> 1:
            self._append(NULL, 0)
        return None

    cdef bytes _slice(self, Py_ssize_t n):
        """The next `n` octets; the object fed itself where they are all of it."""
        cdef bytes out
        if n == self._len and self._held is not None:
            out = self._held
            self._drop()
            return out
        out = PyBytes_FromStringAndSize(<const char*> self._p + self._pos, n)
        self._take(n)
        return out

    @property
    def buffered(self):
        return self._len - self._pos + self._taken

    def take_rest(self):
        cdef bytes out = PyBytes_FromStringAndSize(<const char*> self._p + self._pos, self._len - self._pos)
        self._drop()
        if self._state != BROKEN:
            self._state = TUNNEL
        return out

    # lines

    cdef int _fail(self, int status, str detail) noexcept:
        self._status = self._blame or status
        self._detail = detail
        self._state = BROKEN
        self._lines = None
        self._taken = 0
        self._drop()
        return FAIL

    cdef object _raise(self):
        raise FramingError(self._status, self._detail)

    cdef Py_ssize_t _line(self, Py_ssize_t most) noexcept:
        """Octets of the next line with its LF; 0 when it is not complete, -1 when it cannot end within `most`."""
        cdef Py_ssize_t have = self._len - self._pos
        cdef const uint8_t* lf
        cdef Py_ssize_t stop = self._pos + min(have, max(most, 0))
        if self._scan < stop:
            lf = <const uint8_t*> memchr(self._p + self._scan, 10, stop - self._scan)
            if lf != NULL:
                return lf - self._p - self._pos + 1
            self._scan = stop
        return -1 if have >= most else 0

    cdef int _field(self, const uint8_t* s, Py_ssize_t n, const uint8_t** value, Py_ssize_t* value_n, list into) except -2:
        """Parse one field line (RFC 9112 §5) and add it to `into`; its H1_F_* or FAIL."""
        cdef const uint8_t* colon
        cdef Known* row
        cdef Py_ssize_t name_n
        cdef int high, field
        cdef str name
        if h1_ows(s[0]):
            return self._fail(400, "white space at the start of a field line (RFC 9112 §2.2, §5.2)")
        colon = <const uint8_t*> memchr(s, 58, n)
        if colon == NULL:
            return self._fail(400, "field line without a colon (RFC 9112 §5)")
        name_n = colon - s
        row = known(s, name_n)
        if row != NULL:
            name = <str> row.text
            field = row.field
        elif h1_is_token(s, name_n):
            name = ascii_text(s, name_n)
            field = h1_field(s, name_n)
        elif name_n == 0:
            return self._fail(400, "empty field name (RFC 9110 §5.1)")
        elif h1_ows(s[name_n - 1]):
            return self._fail(400, "white space before the colon (RFC 9112 §5.1)")
        else:
            return self._fail(400, "field name is not a token (RFC 9110 §5.1)")
        s = colon + 1
        n -= name_n + 1
        while n > 0 and h1_ows(s[0]):
            s += 1
            n -= 1
        while n > 0 and h1_ows(s[n - 1]):
            n -= 1
        high = h1_check_value(s, n)
        if high < 0:
            return self._fail(400, "control octet in a field value (RFC 9110 §5.5)")
        into.append((name, ascii_text(s, n) if high == 0 else latin1_text(s, n)))
        value[0] = s
        value_n[0] = n
        return field

    cdef int _framing(self, int field, const uint8_t* v, Py_ssize_t n) noexcept:
        """What Content-Length, Transfer-Encoding and Connection say, in either kind of message."""
        cdef int verdict
        if field == H1_F_CONTENT_LENGTH:
            if self._length >= 0:
                return self._fail(400, "more than one Content-Length (RFC 9112 §6.3)")
            verdict = h1_length(v, n, &self._length)
            if verdict == 1:
                return self._fail(400, "Content-Length is not a plain number (RFC 9110 §8.6)")
            if verdict == 2:
                return self._fail(413, "Content-Length is beyond 2^63-1 (RFC 9110 §8.6)")
        elif field == H1_F_TRANSFER_ENCODING:
            self._codings = h1_codings(v, n, self._codings)
            if self._codings & H1_TE_BAD:
                return self._fail(400, "malformed Transfer-Encoding (RFC 9112 §6.1)")
        elif field == H1_F_CONNECTION:
            self._options |= h1_options(v, n)
        return DONE

    cdef int _check_lengths(self) noexcept:
        """RFC 9112 §6.1, §6.3: one length, in one way, and chunked the only coding."""
        cdef int codings = self._codings
        if codings == 0:
            return DONE
        if self._length >= 0:
            return self._fail(400, "both Content-Length and Transfer-Encoding (RFC 9112 §6.3)")
        if self._http10:
            return self._fail(400, "Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1)")
        if codings & H1_TE_AGAIN or (codings & H1_TE_CHUNKED and not codings & H1_TE_LAST):
            return self._fail(400, "chunked is repeated or not the last coding (RFC 9112 §6.1)")
        if codings & H1_TE_OTHER:
            return self._fail(501, "transfer coding other than chunked (RFC 9112 §6.1)")
        return DONE

    cdef int _head_fields(self) except -2:
        """Take field lines until the empty one: DONE, MORE or FAIL."""
        cdef Limits limits = self._limits
        cdef list lines = self._lines
        cdef Py_ssize_t n, value_n, most, count = len(lines)
        cdef const uint8_t* s
        cdef const uint8_t* value
        cdef int field
        while True:
            most = limits.head - self._taken
            if most > limits.field_line + 2:
                most = limits.field_line + 2
            n = self._line(most)
            if n == 0:
                return MORE
            if n < 0:
                return self._fail(431, "field line or head too long (RFC 6585 §5)")
            s = self._p + self._pos
            if n == 1 or s[n - 2] != 13:
                return self._fail(400, "line ends in a bare LF (RFC 9112 §2.2)")
            self._take(n)
            if n == 2:
                return DONE
            if count == limits.fields:
                return self._fail(431, "too many fields (RFC 6585 §5)")
            self._taken += n
            count += 1
            field = self._field(s, n - 2, &value, &value_n, lines)
            if field != H1_F_OTHER:
                if field == FAIL or self._note(field, value, value_n) == FAIL:
                    return FAIL

    cdef int _note(self, int field, const uint8_t* v, Py_ssize_t n) except -2:
        """A field of the head that means something to the framing or the routing."""
        return self._framing(field, v, n)

    cdef void _new_head(self) noexcept:
        self._lines = []
        self._taken = 0
        self._length = -1
        self._codings = self._options = 0

    # bodies

    cdef void _enter_body(self) noexcept:
        """After a head whose `_codings` and `_left` are set."""
        if self._codings:
            self._state = CHUNK_LINE
            self._extension = EXTENSION_FREE
        elif self._left > 0:
            self._state = FIXED
        else:
            self._state = ENDING

    cdef int _chunk_frame(self) noexcept:
        """Go from the end of a chunk's data to the data of the next, or to the trailer section."""
        cdef Py_ssize_t n
        cdef size_t extension = 0
        cdef const uint8_t* s
        if self._state == CHUNK_END:
            s = self._p + self._pos
            n = self._len - self._pos
            if n >= 1 and s[0] != 13 or n >= 2 and s[1] != 10:
                return self._fail(400, "chunk data is not followed by CRLF (RFC 9112 §7.1)")
            if n < 2:
                return MORE
            self._take(2)
            self._state = CHUNK_LINE
        n = self._line(self._limits.chunk_line + 2)
        if n == 0:
            return MORE
        if n < 0:
            return self._fail(400, "chunk size line too long (RFC 9112 §7.1.1)")
        s = self._p + self._pos
        if n == 1 or s[n - 2] != 13:
            return self._fail(400, "line ends in a bare LF (RFC 9112 §2.2)")
        if not h1_chunk_line(s, n - 2, &self._left, &extension):
            return self._fail(400, "malformed chunk size or extension (RFC 9112 §7.1)")
        self._take(n)
        if extension:
            # As much again as the data, and 64 KiB: a stranger may not send us mostly extensions (§7.1.1).
            self._extension -= extension
            if self._extension < 0:
                return self._fail(400, "too many octets of chunk extensions (RFC 9112 §7.1.1)")
        if self._left == 0:
            self._lines = None
            self._taken = 0
            self._state = TRAILERS
        else:
            self._state = CHUNK_DATA
        return DONE

    cdef Py_ssize_t _of_chunk(self, Py_ssize_t n) noexcept:
        """How many of the next `n` octets belong to this chunk; they are as good as taken."""
        if n > self._left:
            n = <Py_ssize_t> self._left
        self._left -= n
        if self._left == 0:
            self._state = CHUNK_END
        if self._extension < INT64_MAX - n:
            self._extension += n
        return n

    cdef bytes _gather(self, Py_ssize_t room):
        """One event out of many small chunks, as far as they are here. What fails behind them is raised next."""
        cdef PyObject* out = PyBytes_New(NULL, room)
        cdef char* to
        cdef Py_ssize_t n, size = 0
        cdef bytes done
        if out == NULL:
            raise MemoryError
        to = PyBytes_AS_STRING(<object> out)
        while True:
            n = min(self._len - self._pos, room - size)
            if n > 0:
                n = self._of_chunk(n)
                memcpy(to + size, self._p + self._pos, n)
                self._take(n)
                size += n
            if self._state == CHUNK_DATA or self._chunk_frame() != DONE or self._state != CHUNK_DATA:
                break
        _PyBytes_Resize(&out, size)
        done = <bytes> out
        Py_DECREF(done)
        return done

    cdef int _trailers(self) except -2:
        """RFC 9112 §7.1.2. Framing and routing fields are refused; those that are void there (RFC 9110 §6.5.1:
        connection options, content format) are left out."""
        cdef Limits limits = self._limits
        cdef Py_ssize_t n, value_n, most
        cdef const uint8_t* s
        cdef const uint8_t* value
        cdef int field
        while True:
            most = limits.head - self._taken
            if most > limits.field_line + 2:
                most = limits.field_line + 2
            n = self._line(most)
            if n == 0:
                return MORE
            if n < 0:
                return self._fail(431, "trailer line or section too long (RFC 6585 §5)")
            s = self._p + self._pos
            if n == 1 or s[n - 2] != 13:
                return self._fail(400, "line ends in a bare LF (RFC 9112 §2.2)")
            self._take(n)
            if n == 2:
                return DONE
            self._taken += n
            if self._lines is None:
                self._lines = []
            if len(self._lines) >= limits.trailer_fields:
                return self._fail(431, "too many trailer fields (RFC 6585 §5)")
            field = self._field(s, n - 2, &value, &value_n, self._lines)
            if field == FAIL:
                return FAIL
            if field == H1_F_CONTENT_LENGTH or field == H1_F_TRANSFER_ENCODING or field == H1_F_HOST:
                return self._fail(400, "framing or routing field in a trailer section (RFC 9110 §6.5.1)")
            if field != H1_F_OTHER:
                self._lines.pop()

    cdef object _body(self):
        """The next event of a body: octets, End, or None for more; sets BROKEN where it fails."""
        cdef Py_ssize_t n
        cdef int step
        cdef End end
        while True:
            if self._state == FIXED or self._state == CHUNK_DATA or self._state == UNTIL_CLOSE:
                n = self._len - self._pos
                if n == 0:
                    return self._wait()
                if n > EVENT_MAX:
                    n = EVENT_MAX
                if self._state == UNTIL_CLOSE:
                    return self._slice(n)
                if self._state == CHUNK_DATA:
                    if self._left < GATHER_BELOW and self._left < n:
                        return self._gather(n)
                    return self._slice(self._of_chunk(n))
                if n > self._left:
                    n = <Py_ssize_t> self._left
                self._left -= n
                if self._left == 0:
                    self._state = ENDING
                return self._slice(n)
            elif self._state == CHUNK_END or self._state == CHUNK_LINE:
                step = self._chunk_frame()
                if step != DONE:
                    return self._wait() if step == MORE else self._raise()
            elif self._state == TRAILERS:
                step = self._trailers()
                if step != DONE:
                    return self._wait() if step == MORE else self._raise()
                self._state = ENDING
            else:
                assert self._state == ENDING
                self._state = IDLE
                self._taken = 0
                if not self._lines:
                    return PLAIN_END
                end = End.__new__(End)
                end._trailers = self._lines
                self._lines = None
                return end
