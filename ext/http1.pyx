"""HTTP/1.1 requests and responses from octets (RFC 9112), strict. The documentation is in the .pyi beside it.

Here is what each kind of message has of its own: its first line, the fields that steer it, how its body is framed.
What they share is in http1_frame, the encoders are in http1_text, and the scanners in http1_scan.h.
"""

cimport cython
from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from edgecache._native.http1_frame import MAX_EVENT, End, FramingError, Limits
from edgecache._native.http1_text import encode_chunk, encode_last_chunk, encode_request_head, encode_response_head

from edgecache._native.http1_frame cimport (
    BROKEN,
    DONE,
    ENDING,
    FAIL,
    HEAD,
    IDLE,
    MORE,
    START,
    TUNNEL,
    UNTIL_CLOSE,
    Decoder,
    Limits as _Limits,
)
from edgecache._native.http1_scan cimport (
    H1_CLASS,
    H1_CLOSE,
    H1_F_CONNECTION,
    H1_F_EXPECT,
    H1_F_HOST,
    H1_F_TRANSFER_ENCODING,
    H1_F_UPGRADE,
    H1_KEEP_ALIVE,
    H1_TARGET,
    H1_TOKEN,
    H1_UPGRADE,
    h1_authority,
    h1_check_value,
    h1_init,
    h1_same,
)
from edgecache._native.http1_text cimport (
    Known,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    ascii_text,
    known,
    latin1_text,
)

__all__ = [
    "MAX_EVENT",
    "End",
    "FramingError",
    "Limits",
    "RequestDecoder",
    "RequestHead",
    "ResponseDecoder",
    "ResponseHead",
    "encode_chunk",
    "encode_last_chunk",
    "encode_request_head",
    "encode_response_head",
]

h1_init()

cdef tuple V10 = (1, 0)
cdef tuple V11 = (1, 1)


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


# --- requests ----------------------------------------------------------------------------------------------------

cdef enum:
    EMPTY_LINES = 2  # tolerated before a request line (RFC 9112 §2.2)


@cython.final
cdef class RequestDecoder(Decoder):
    cdef str _method, _target, _path, _scheme, _host, _authority, _upgrade
    cdef int _hosts, _expects, _empty

    def __cinit__(self, limits):
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
        cdef _Limits limits = self._limits
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
cdef class ResponseDecoder(Decoder):
    cdef str _reason
    cdef int _code
    cdef bint _eof, _reusable, _to_head, _to_connect

    def __cinit__(self, limits):
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
        cdef _Limits limits = self._limits
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
