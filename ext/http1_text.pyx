"""Heads and chunks as octets, and the names everybody sends as ready-made str (RFC 9112 §2-5, §7.1).

The encoders are documented in edgecache/_native/http1.pyi, where users find them. They go over the lines twice: once
to check and measure, once to copy into an object of the right size. Nothing that could break framing passes them.
"""

import sys

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from edgecache._native.http1_scan cimport (
    H1_CLASS,
    H1_F_CONTENT_LENGTH,
    H1_F_HOST,
    H1_TARGET,
    h1_check_value,
    h1_field,
    h1_hash,
    h1_init,
    h1_is_token,
)
from edgecache._native.http1_text cimport (
    Known,
    PyUnicode_1BYTE_KIND,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_KIND,
)

h1_init()

# --- known names: no new str for a method or a field name that everybody sends ----------------------------------

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
