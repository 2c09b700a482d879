"""HTTP/1.1 framing (RFC 9112), strict. The documentation is in edgecache/_native/http1.pyi.

How it works: `feed` keeps the object it is given, and body octets are sliced from it; only where octets are left
over when more arrive are they copied, into a buffer that grows by doubling. A head is taken line by line as its
lines become complete, and the search for the end of a line goes on where it stopped, so the work is linear in the
octets fed however they are cut, and what is kept is bounded by `Limits`. Whether a line is too long depends only on
where it begins, never on how it arrived. An error is remembered as a status and a text, and raised anew each time.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove

import sys

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, uint32_t maxchar)
    void* PyUnicode_DATA(object text)
    int PyUnicode_KIND(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_1BYTE_KIND

cdef extern from "http1_scan.h":
    enum:
        H1_TOKEN, H1_TARGET
        H1_F_OTHER, H1_F_CONTENT_LENGTH, H1_F_TRANSFER_ENCODING, H1_F_HOST, H1_F_CONNECTION, H1_F_EXPECT
        H1_F_UPGRADE, H1_F_NOT_TRAILER
        H1_CLOSE, H1_KEEP_ALIVE, H1_UPGRADE
        H1_TE_SEEN, H1_TE_CHUNKED, H1_TE_LAST, H1_TE_AGAIN, H1_TE_OTHER, H1_TE_BAD
    const uint8_t H1_CLASS[256]
    void h1_init()
    bint h1_ows(uint8_t c)
    bint h1_is_token(const uint8_t* p, size_t n)
    int h1_check_value(const uint8_t* p, size_t n)
    bint h1_same(const uint8_t* p, size_t n, const char* word, size_t word_n)
    int h1_field(const uint8_t* p, size_t n)
    uint32_t h1_hash(const uint8_t* p, size_t n)
    int h1_length(const uint8_t* p, size_t n, int64_t* length)
    int h1_options(const uint8_t* p, size_t n)
    int h1_codings(const uint8_t* p, size_t n, int state)
    bint h1_authority(const uint8_t* p, size_t n, bint port_needed)
    bint h1_chunk_line(const uint8_t* p, size_t n, int64_t* size, size_t* extension)

h1_init()

# --- known names: no new str for a method or a field name that everybody sends ----------------------------------

cdef struct Known:
    PyObject* text  # never released
    const uint8_t* octets
    Py_ssize_t n
    int field  # H1_F_*

cdef enum:
    KNOWN_SLOTS = 2048  # a power of two, several times the number of names
    KNOWN_LONGEST = 40

cdef Known[KNOWN_SLOTS] KNOWN

METHODS = "GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PURGE BAN PROPFIND REPORT QUERY"

# RFC 9110, 9111, 9112 and what browsers, origins and CDNs send; also known in lower case.
NAMES = """
Accept Accept-Charset Accept-Encoding Accept-Language Accept-Ranges Access-Control-Allow-Credentials
Access-Control-Allow-Headers Access-Control-Allow-Methods Access-Control-Allow-Origin
Access-Control-Expose-Headers Access-Control-Max-Age Access-Control-Request-Headers
Access-Control-Request-Method Age Allow Alt-Svc Authorization CDN-Cache-Control Cache-Control Cache-Status
Cache-Tag Connection Content-Disposition Content-Encoding Content-Language Content-Length Content-Location
Content-Range Content-Security-Policy Content-Type Cookie Cross-Origin-Opener-Policy
Cross-Origin-Resource-Policy DNT Date ETag Expect Expires Forwarded From Host If-Match If-Modified-Since
If-None-Match If-Range If-Unmodified-Since Keep-Alive Last-Modified Link Location Max-Forwards Origin
Permissions-Policy Pragma Priority Proxy-Authenticate Proxy-Authorization Proxy-Connection Range Referer
Referrer-Policy Retry-After Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest Sec-Fetch-Mode
Sec-Fetch-Site Sec-Fetch-User Sec-WebSocket-Accept Sec-WebSocket-Extensions Sec-WebSocket-Key
Sec-WebSocket-Protocol Sec-WebSocket-Version Server Server-Timing Set-Cookie Strict-Transport-Security
Surrogate-Control Surrogate-Key TE Timing-Allow-Origin Trailer Transfer-Encoding Upgrade
Upgrade-Insecure-Requests User-Agent Vary Via WWW-Authenticate Warning X-Cache X-Content-Type-Options
X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Frame-Options X-Powered-By X-Real-IP X-Request-Id
X-Requested-With X-XSS-Protection sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform
"""


cdef Known* known(const uint8_t* p, Py_ssize_t n) noexcept:
    """The table's row for these octets, or NULL."""
    cdef uint32_t slot
    if n == 0 or n > KNOWN_LONGEST:
        return NULL
    slot = h1_hash(p, n) & (KNOWN_SLOTS - 1)
    while KNOWN[slot].text != NULL:
        if KNOWN[slot].n == n and memcmp(KNOWN[slot].octets, p, n) == 0:
            return &KNOWN[slot]
        slot = (slot + 1) & (KNOWN_SLOTS - 1)
    return NULL


cdef int learn(str name) except -1:
    cdef const uint8_t* p = <const uint8_t*> PyUnicode_DATA(name)
    cdef Py_ssize_t n = PyUnicode_GET_LENGTH(name)
    cdef uint32_t slot = h1_hash(p, n) & (KNOWN_SLOTS - 1)
    assert 0 < n <= KNOWN_LONGEST
    assert h1_is_token(p, n)
    if known(p, n) != NULL:
        return 0
    while KNOWN[slot].text != NULL:
        slot = (slot + 1) & (KNOWN_SLOTS - 1)
    name = sys.intern(name)
    Py_INCREF(name)
    KNOWN[slot].text = <PyObject*> name
    KNOWN[slot].octets = <const uint8_t*> PyUnicode_DATA(name)
    KNOWN[slot].n = n
    KNOWN[slot].field = h1_field(KNOWN[slot].octets, n)
    return 0


for _name in METHODS.split():
    learn(_name)
for _name in NAMES.split():
    learn(_name)
    learn(_name.lower())
del _name


cdef inline str ascii_text(const uint8_t* p, Py_ssize_t n):
    text = PyUnicode_New(n, 127)
    memcpy(PyUnicode_DATA(text), p, n)
    return <str> text


cdef inline str latin1_text(const uint8_t* p, Py_ssize_t n):
    return <str> PyUnicode_DecodeLatin1(<const char*> p, n, NULL)


# --- values ------------------------------------------------------------------------------------------------------

MAX_EVENT = 262144
cdef Py_ssize_t EVENT_MAX = MAX_EVENT
cdef int64_t EXTENSION_FREE = 65536

cdef tuple V10 = (1, 0)
cdef tuple V11 = (1, 1)


class FramingError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


@cython.final
cdef class Limits:
    cdef readonly Py_ssize_t request_line, field_line, head, fields, chunk_line, trailer_fields

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
@cython.freelist(32)
cdef class RequestHead:
    cdef readonly str method, target, host, scheme, path, upgrade
    cdef readonly tuple version
    cdef readonly list lines
    cdef readonly object content_length
    cdef readonly bint keep_alive, expect_continue

    def __repr__(self):
        return f"<RequestHead {self.method} {self.target} {self.lines!r}>"


@cython.final
@cython.freelist(32)
cdef class ResponseHead:
    cdef readonly int status
    cdef readonly str reason
    cdef readonly tuple version
    cdef readonly list lines
    cdef readonly object content_length
    cdef readonly bint chunked, keep_alive

    def __repr__(self):
        return f"<ResponseHead {self.status} {self.reason} {self.lines!r}>"


@cython.final
@cython.freelist(8)
cdef class End:
    cdef list _trailers

    @property
    def trailers(self):
        return self._trailers if self._trailers is not None else []

    def __repr__(self):
        return f"<End {self.trailers!r}>"


cdef End PLAIN_END = End.__new__(End)

# --- what both decoders share ------------------------------------------------------------------------------------

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


cdef class _Decoder:
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

    cdef inline void _take(self, Py_ssize_t n) noexcept:
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

    cdef int _field(self, const uint8_t* s, Py_ssize_t n, const uint8_t** value, Py_ssize_t* value_n, list into) \
            except -2:
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

    cdef int _chunk_frame(self) except -2:
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
                if n > self._left:
                    n = <Py_ssize_t> self._left
                self._left -= n
                if self._state == CHUNK_DATA:
                    if self._extension < INT64_MAX - n:
                        self._extension += n
                    if self._left == 0:
                        self._state = CHUNK_END
                elif self._left == 0:
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


# --- requests ----------------------------------------------------------------------------------------------------

cdef enum:
    EMPTY_LINES = 2  # tolerated before a request line (RFC 9112 §2.2)


@cython.final
cdef class RequestDecoder(_Decoder):
    cdef str _method, _target, _path, _scheme, _host, _authority, _upgrade
    cdef int _hosts, _expects, _empty

    def __init__(self, Limits limits not None):
        self._state = START

    def next(self):
        cdef int step
        if self._state == START:
            step = self._start()
            if step != DONE:
                return self._wait() if step == MORE else self._raise()
        if self._state == HEAD:
            step = self._head_fields()
            if step != DONE:
                return self._wait() if step == MORE else self._raise()
            return self._head()
        if self._state == IDLE or self._state == TUNNEL:
            return None
        if self._state == BROKEN:
            self._raise()
        return self._body()

    def resume(self):
        if self._state == IDLE:
            self._state = START
            self._empty = 0
        elif self._state != BROKEN:
            raise RuntimeError("resume before the end of a request")

    @property
    def in_message(self):
        cdef Py_ssize_t i
        if self._state == START:
            for i in range(self._pos, self._len):
                if self._p[i] != 13 and self._p[i] != 10:
                    return True
            return False
        return self._state != IDLE and self._state != TUNNEL and self._state != BROKEN

    cdef int _start(self) except -2:
        """Empty lines before it (RFC 9112 §2.2), then the request line."""
        cdef Limits limits = self._limits
        cdef Py_ssize_t n
        cdef bint short
        cdef const uint8_t* s
        while True:
            n = self._len - self._pos
            if n == 0:
                return MORE
            s = self._p + self._pos
            if s[0] != 13:
                break
            if n == 1:
                return MORE
            if s[1] != 10:
                return self._fail(400, "bare CR before a request line (RFC 9112 §2.2)")
            self._empty += 1
            if self._empty > EMPTY_LINES:
                return self._fail(400, "empty lines instead of a request line (RFC 9112 §2.2)")
            self._take(2)
        if s[0] == 22:
            return self._fail(400, "TLS on a port that does not speak it")
        if not H1_CLASS[s[0]] & H1_TOKEN:
            return self._fail(400, "request does not begin with a method (RFC 9112 §3)")
        short = limits.head < limits.request_line + 2
        n = self._line(limits.head if short else limits.request_line + 2)
        if n == 0:
            return MORE
        if n < 0:
            return self._fail(414, "request line too long (RFC 9112 §3)")
        if s[n - 2] != 13:
            return self._fail(400, "line ends in a bare LF (RFC 9112 §2.2)")
        self._take(n)
        self._new_head()
        self._taken = n
        self._authority = self._host = self._upgrade = self._scheme = None
        self._hosts = self._expects = 0
        if self._request_line(s, n - 2) == FAIL:
            return FAIL
        self._state = HEAD
        return DONE

    cdef int _request_line(self, const uint8_t* s, Py_ssize_t n) except -2:
        """method SP request-target SP HTTP-version, RFC 9112 §3."""
        cdef Py_ssize_t i = 0, j
        cdef uint8_t high = 0
        cdef Known* row
        cdef const uint8_t* v
        while i < n and H1_CLASS[s[i]] & H1_TOKEN:
            i += 1
        if i == n or s[i] != 32:
            return self._fail(400, "method is not a token followed by one space (RFC 9112 §3)")
        j = i + 1
        while j < n and H1_CLASS[s[j]] & H1_TARGET:
            high |= s[j]
            j += 1
        if j == i + 1:
            return self._fail(400, "no request target after the method (RFC 9112 §3)")
        if j == n:
            return self._fail(505, "request line without a version (RFC 9112 §2.3)")
        if s[j] == 35:
            return self._fail(400, "fragment in the request target (RFC 9112 §3.2)")
        if s[j] != 32:
            return self._fail(400, "control octet in the request target (RFC 9112 §3.2)")
        v = s + j + 1
        n -= j + 1
        if n != 8 or not h1_same(v, 5, b"http/", 5) or v[6] != 46 or not 48 <= v[5] <= 57 or not 48 <= v[7] <= 57:
            return self._fail(400, "malformed version, or a space in the request target (RFC 9112 §2.3, §3)")
        if v[5] != 49 or memcmp(v, b"HTTP", 4) != 0:
            return self._fail(505, "version other than HTTP/1.x (RFC 9112 §2.3)")
        self._http10 = v[7] == 48
        row = known(s, i)
        self._method = <str> row.text if row != NULL else ascii_text(s, i)
        s += i + 1
        n = j - i - 1
        self._target = ascii_text(s, n) if high < 128 else latin1_text(s, n)
        if s[0] == 47 and self._method != "CONNECT":  # origin-form, §3.2.1
            self._path = self._target
            return DONE
        return self._other_form(s, n)

    cdef int _other_form(self, const uint8_t* s, Py_ssize_t n) except -2:
        """RFC 9112 §3.2.2 to §3.2.4."""
        cdef Py_ssize_t start, end
        if self._method == "CONNECT":  # authority-form
            if not h1_authority(s, n, True):
                return self._fail(400, "target of CONNECT is not host:port (RFC 9112 §3.2.3)")
            self._path = ""
            return DONE
        if n == 1 and s[0] == 42:  # asterisk-form
            if self._method != "OPTIONS":
                return self._fail(400, 'target "*" is for OPTIONS only (RFC 9112 §3.2.4)')
            self._path = "*"
            return DONE
        if n > 7 and h1_same(s, 7, b"http://", 7):
            self._scheme = "http"
            start = 7
        elif n > 8 and h1_same(s, 8, b"https://", 8):
            self._scheme = "https"
            start = 8
        else:
            return self._fail(400, "request target in none of the four forms (RFC 9112 §3.2)")
        end = start
        while end < n and s[end] != 47 and s[end] != 63:
            end += 1
        if not h1_authority(s + start, end - start, False):
            return self._fail(400, "malformed authority in the request target (RFC 9110 §4.2)")
        self._authority = ascii_text(s + start, end - start)
        if end == n:
            # §3.2.4: OPTIONS on a URI without path and query is about the server itself.
            self._path = "*" if self._method == "OPTIONS" else "/"
        elif s[end] == 47:
            self._path = self._target[end:]
        else:
            self._path = "/" + self._target[end:]
        return DONE

    cdef int _note(self, int field, const uint8_t* v, Py_ssize_t n) except -2:
        cdef str value
        if field <= H1_F_TRANSFER_ENCODING or field == H1_F_CONNECTION:
            return self._framing(field, v, n)
        if field == H1_F_HOST:  # RFC 9112 §3.2
            self._hosts += 1
            if self._hosts > 1:
                return self._fail(400, "more than one Host (RFC 9112 §3.2)")
            if not h1_authority(v, n, False):
                return self._fail(400, "malformed or empty Host (RFC 9112 §3.2)")
            self._host = <str> (<tuple> self._lines[len(self._lines) - 1])[1]
        elif field == H1_F_EXPECT:  # RFC 9110 §10.1.1
            self._expects += 1
            if self._expects > 1 or not h1_same(v, n, b"100-continue", 12):
                return self._fail(417, "expectation other than 100-continue (RFC 9110 §10.1.1)")
        elif field == H1_F_UPGRADE:
            value = <str> (<tuple> self._lines[len(self._lines) - 1])[1]
            self._upgrade = value if self._upgrade is None else f"{self._upgrade}, {value}"
        return DONE

    cdef RequestHead _head(self):
        """The head is complete: the rules that look at more than one line."""
        cdef RequestHead head
        if self._hosts == 0 and not self._http10:
            self._fail(400, "no Host in HTTP/1.1 (RFC 9112 §3.2)")
        elif self._check_lengths() != FAIL:
            head = RequestHead.__new__(RequestHead)
            head.method = self._method
            head.target = self._target
            head.version = V10 if self._http10 else V11
            head.lines = self._lines
            if self._authority is not None:
                head.host = self._authority
            else:
                head.host = self._host if self._host is not None else ""
            head.scheme = self._scheme
            head.path = self._path
            # RFC 9112 §9.3
            head.keep_alive = not self._options & H1_CLOSE and (
                not self._http10 or self._options & H1_KEEP_ALIVE != 0
            )
            # RFC 9110 §10.1.1: ignored in HTTP/1.0; §7.8: Upgrade too
            head.expect_continue = self._expects == 1 and not self._http10
            if self._upgrade and self._options & H1_UPGRADE and not self._http10:
                head.upgrade = self._upgrade
            self._left = max(self._length, 0)
            head.content_length = None if self._codings else self._left
            self._lines = None
            self._taken = 0
            self._enter_body()
            return head
        return self._raise()


# --- responses ---------------------------------------------------------------------------------------------------


@cython.final
cdef class ResponseDecoder(_Decoder):
    cdef str _reason
    cdef int _code
    cdef bint _eof, _reusable, _to_head, _to_connect

    def __init__(self, Limits limits not None):
        self._state = IDLE
        self._blame = 502
        self._reusable = True

    def begin(self, str method not None):
        if self._state == BROKEN:
            return
        if self._state != IDLE:
            raise RuntimeError("begin before the end of the last response")
        if self._pos != self._len:
            self._fail(502, "octets before the request they answer")
            return
        self._to_head = method == "HEAD"
        self._to_connect = method == "CONNECT"
        self._state = START

    def feed_eof(self):
        self._eof = True

    @property
    def idle(self):
        return self._state == IDLE and self._pos == self._len and self._reusable and not self._eof

    def next(self):
        cdef int step
        event = None
        if self._state == START:
            step = self._start()
            if step == FAIL:
                self._raise()
        if self._state == HEAD:
            step = self._head_fields()
            if step == DONE:
                return self._head()
            if step == FAIL:
                self._raise()
        elif self._state == BROKEN:
            self._raise()
        elif self._state == TUNNEL:
            return None
        elif self._state == IDLE:
            if self._pos != self._len:
                self._fail(502, "octets that answer no request")
                self._raise()
            return None
        elif self._state != START:
            event = self._body()
        if event is None and self._eof:
            if self._state != UNTIL_CLOSE:
                self._fail(502, "connection closed before the end of the response (RFC 9112 §8)")
                self._raise()
            self._state = ENDING
            return self._body()
        return event if event is not None else self._wait()

    cdef int _start(self) except -2:
        """status-line, RFC 9112 §4: HTTP-version SP 3DIGIT [ SP [ reason-phrase ] ]."""
        cdef Limits limits = self._limits
        cdef Py_ssize_t n = self._len - self._pos
        cdef const uint8_t* s = self._p + self._pos
        cdef int high
        if n == 0:
            return MORE
        if s[0] != 72:
            return self._fail(502, "response does not begin with a status line (RFC 9112 §4)")
        n = self._line(min(limits.head, limits.field_line + 2))
        if n == 0:
            return MORE
        if n < 0:
            return self._fail(502, "status line too long (RFC 9112 §4)")
        if s[n - 2] != 13:
            return self._fail(502, "line ends in a bare LF (RFC 9112 §2.2)")
        self._take(n)
        self._new_head()
        self._taken = n
        n -= 2
        if n < 8 or memcmp(s, b"HTTP/1.", 7) != 0 or not 48 <= s[7] <= 57:
            return self._fail(502, "version other than HTTP/1.x (RFC 9112 §2.3)")
        self._http10 = s[7] == 48
        if n < 12 or s[8] != 32 or not (49 <= s[9] <= 53 and 48 <= s[10] <= 57 and 48 <= s[11] <= 57):
            return self._fail(502, "status is not three digits from 100 to 599 (RFC 9112 §4)")
        self._code = (s[9] - 48) * 100 + (s[10] - 48) * 10 + s[11] - 48
        s += 12
        n -= 12
        if n > 0:
            if s[0] != 32:
                return self._fail(502, "no space after the status (RFC 9112 §4)")
            s += 1
            n -= 1
        high = h1_check_value(s, n)
        if high < 0:
            return self._fail(502, "control octet in the reason phrase (RFC 9112 §4)")
        self._reason = REASONS.get(self._code) if n else ""
        if self._reason is None or PyUnicode_GET_LENGTH(self._reason) != n or (
            n and memcmp(PyUnicode_DATA(self._reason), s, n) != 0
        ):
            self._reason = latin1_text(s, n)
        self._state = HEAD
        return DONE

    cdef ResponseHead _head(self):
        """The head is complete. How its body ends, in the order of RFC 9112 §6.3."""
        cdef ResponseHead head
        cdef int code = self._code
        cdef bint until_close = False
        cdef bint tunnel = code == 101 or (self._to_connect and 200 <= code <= 299)
        if not (self._to_connect and 200 <= code <= 299) and self._check_lengths() == FAIL:
            return self._raise()
        if self._codings and (code < 200 or code == 204):
            self._fail(502, "Transfer-Encoding in a 1xx or 204 response (RFC 9112 §6.1)")
            return self._raise()
        if tunnel or self._to_head or code < 200 or code == 204 or code == 304:
            self._left = 0
            self._codings = 0
        elif self._length >= 0 or self._codings:
            self._left = max(self._length, 0)
        else:
            until_close = True
        head = ResponseHead.__new__(ResponseHead)
        head.status = code
        head.reason = self._reason
        head.version = V10 if self._http10 else V11
        head.lines = self._lines
        head.chunked = self._codings != 0
        head.content_length = None if head.chunked or until_close else self._left
        # RFC 9112 §9.3
        head.keep_alive = (
            not until_close
            and not tunnel
            and not self._options & H1_CLOSE
            and (not self._http10 or self._options & H1_KEEP_ALIVE != 0)
        )
        self._lines = None
        self._taken = 0
        if tunnel:
            self._state = TUNNEL
        elif code < 200:
            self._state = START
            return head
        elif until_close:
            self._state = UNTIL_CLOSE
        else:
            self._enter_body()
        self._reusable = head.keep_alive
        return head


cdef dict REASONS = {
    100: "Continue", 101: "Switching Protocols", 103: "Early Hints", 200: "OK", 201: "Created", 202: "Accepted",
    204: "No Content", 206: "Partial Content", 301: "Moved Permanently", 302: "Found", 303: "See Other",
    304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 410: "Gone",
    412: "Precondition Failed", 416: "Range Not Satisfiable", 429: "Too Many Requests",
    500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}

# --- encoders ----------------------------------------------------------------------------------------------------


cdef inline int octets_of(object text, const uint8_t** p, Py_ssize_t* n) except -1:
    """The Latin-1 octets of a str, in place."""
    if type(text) is not str:
        raise TypeError("names, values, methods, targets and reasons are str")
    if PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND:
        raise ValueError("not Latin-1")
    p[0] = <const uint8_t*> PyUnicode_DATA(text)
    n[0] = PyUnicode_GET_LENGTH(text)
    return 0


cdef inline tuple line_of(object item):
    cdef tuple line
    if type(item) is not tuple or len(<tuple> item) != 2:
        raise TypeError("a field line is a tuple of a name and a value")
    return <tuple> item


cdef Py_ssize_t measure(list lines, bint trailers) except -1:
    """Octets of these field lines on the wire, once each is known to be safe."""
    cdef const uint8_t* p
    cdef Py_ssize_t n = 0, total = 0
    cdef Known* row
    cdef tuple line
    for item in lines:
        line = line_of(item)
        octets_of(line[0], &p, &n)
        row = known(p, n)
        if row == NULL and not h1_is_token(p, n):
            raise ValueError("field name is not a token (RFC 9110 §5.1)")
        if trailers and H1_F_CONTENT_LENGTH <= h1_field(p, n) <= H1_F_HOST:
            raise ValueError("framing or routing field in a trailer section (RFC 9110 §6.5.1)")
        total += n + 4
        octets_of(line[1], &p, &n)
        if h1_check_value(p, n) < 0:
            raise ValueError("control octet in a field value (RFC 9110 §5.5)")
        total += n
    return total


cdef uint8_t* put_lines(uint8_t* to, list lines) noexcept:
    """Write lines that `measure` has passed, and the empty line."""
    cdef tuple line
    cdef Py_ssize_t n
    for item in lines:
        line = <tuple> item
        n = PyUnicode_GET_LENGTH(line[0])
        memcpy(to, PyUnicode_DATA(line[0]), n)
        memcpy(to + n, b": ", 2)
        to += n + 2
        n = PyUnicode_GET_LENGTH(line[1])
        memcpy(to, PyUnicode_DATA(line[1]), n)
        memcpy(to + n, b"\r\n", 2)
        to += n + 2
    memcpy(to, b"\r\n", 2)
    return to + 2


def encode_request_head(str method not None, str target not None, lines):
    cdef list fields = lines if type(lines) is list else list(lines)
    cdef const uint8_t* m
    cdef const uint8_t* t
    cdef Py_ssize_t m_n = 0, t_n = 0, i, total
    cdef bytes out
    cdef uint8_t* to
    octets_of(method, &m, &m_n)
    if known(m, m_n) == NULL and not h1_is_token(m, m_n):
        raise ValueError("method is not a token (RFC 9110 §9.1)")
    octets_of(target, &t, &t_n)
    if t_n == 0:
        raise ValueError("empty request target (RFC 9112 §3.2)")
    for i in range(t_n):
        if not H1_CLASS[t[i]] & H1_TARGET:
            raise ValueError("control octet, space or fragment in the request target (RFC 9112 §3.2)")
    total = m_n + t_n + 14 + measure(fields, False)
    out = PyBytes_FromStringAndSize(NULL, total)
    to = <uint8_t*> PyBytes_AS_STRING(out)
    memcpy(to, m, m_n)
    to += m_n
    to[0] = 32
    memcpy(to + 1, t, t_n)
    to += t_n + 1
    memcpy(to, b" HTTP/1.1\r\n", 11)
    put_lines(to + 11, fields)
    return out


def encode_response_head(int status, str reason not None, lines):
    cdef list fields = lines if type(lines) is list else list(lines)
    cdef const uint8_t* r
    cdef Py_ssize_t r_n = 0, total
    cdef bytes out
    cdef uint8_t* to
    if not 100 <= status <= 599:
        raise ValueError("status is from 100 to 599 (RFC 9110 §15)")
    octets_of(reason, &r, &r_n)
    if h1_check_value(r, r_n) < 0:
        raise ValueError("control octet in the reason phrase (RFC 9112 §4)")
    total = r_n + 17 + measure(fields, False)
    out = PyBytes_FromStringAndSize(NULL, total)
    to = <uint8_t*> PyBytes_AS_STRING(out)
    memcpy(to, b"HTTP/1.1 ", 9)
    to[9] = 48 + status // 100
    to[10] = 48 + status // 10 % 10
    to[11] = 48 + status % 10
    to[12] = 32
    memcpy(to + 13, r, r_n)
    to += 13 + r_n
    memcpy(to, b"\r\n", 2)
    put_lines(to + 2, fields)
    return out


def encode_chunk(bytes data not None):
    cdef Py_ssize_t n = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t left = n, digits = 0, i
    cdef bytes out
    cdef uint8_t* to
    if n == 0:
        raise ValueError("an empty chunk would end the body (RFC 9112 §7.1)")
    while left:
        digits += 1
        left >>= 4
    out = PyBytes_FromStringAndSize(NULL, digits + n + 4)
    to = <uint8_t*> PyBytes_AS_STRING(out)
    left = n
    for i in range(digits - 1, -1, -1):
        to[i] = b"0123456789abcdef"[left & 15]
        left >>= 4
    to += digits
    memcpy(to, b"\r\n", 2)
    memcpy(to + 2, PyBytes_AS_STRING(data), n)
    memcpy(to + 2 + n, b"\r\n", 2)
    return out


def encode_last_chunk(trailers=()):
    cdef list fields
    cdef bytes out
    cdef uint8_t* to
    if not trailers:
        return b"0\r\n\r\n"
    fields = trailers if type(trailers) is list else list(trailers)
    out = PyBytes_FromStringAndSize(NULL, 5 + measure(fields, True))
    to = <uint8_t*> PyBytes_AS_STRING(out)
    memcpy(to, b"0\r\n", 3)
    put_lines(to + 3, fields)
    return out
