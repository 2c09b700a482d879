"""The JSON access log line of a finished exchange. The documentation is in the .pyi beside it."""

from libc.math cimport floor
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport strlen

from edgecache._native.http1_text cimport (
    PyUnicode_1BYTE_KIND,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_KIND,
    ascii_text,
)


cdef extern from "access_line.h":
    ctypedef struct al_text:
        const char *p
        size_t n
    char *al_put(char *o, const char *text, size_t n)
    char *al_number(char *o, uint64_t value)
    char *al_seconds(char *o, uint64_t us)
    char *al_quoted(char *o, al_text t)


cdef enum:
    TEXTS = 12  # of one line
    FIXED = 768  # more than the names, numbers and punctuation of a line take
    WIDEST = 6  # octets that one may become: \u00XX
    ON_STACK = 8192


cdef inline bint text_of(object value, al_text *text) except -1:
    """False: not Latin-1."""
    if not isinstance(value, str):
        raise TypeError("texts of a log line are str")
    if PyUnicode_KIND(value) != PyUnicode_1BYTE_KIND:
        return False
    text.p = <const char *> PyUnicode_DATA(value)
    text.n = PyUnicode_GET_LENGTH(value)
    return True


cdef inline char *literal(char *o, const char *text) noexcept:
    return al_put(o, text, strlen(text))


cdef inline uint64_t microseconds(double seconds) noexcept:
    return <uint64_t> (seconds * 1e6 + 0.5) if seconds > 0 else 0


def json_line(event, str stamp not None, str target not None, str referer not None):
    cdef al_text[TEXTS] texts
    cdef al_text when
    cdef char[ON_STACK] near
    cdef char *out = near
    cdef size_t most = FIXED
    cdef int i
    cdef double time = event.time
    cdef object ttfb = event.ttfb_s, origin = event.origin_s
    cdef str line
    # what the texts point into lives as long as `event`, and as these
    held = (
        event.site,
        event.client_ip,
        event.method,
        event.scheme,
        event.host,
        target,
        event.protocol,
        event.reason,
        event.cache_status,
        event.user_agent,
        referer,
        event.request_id,
    )
    for i in range(TEXTS):
        if not text_of(held[i], &texts[i]):
            return None
        most += WIDEST * texts[i].n
    if not text_of(stamp, &when):
        return None
    most += when.n
    if most > ON_STACK:
        out = <char *> malloc(most)
        if out == NULL:
            raise MemoryError
    try:
        line = ascii_text(
            <const unsigned char *> out,
            write(
                out,
                texts,
                when,
                <int> ((time - floor(time)) * 1000),
                event.status,
                event.bytes_in,
                event.bytes_out,
                event.outcome._value_,
                event.duration_s,
                -1.0 if ttfb is None else <double> ttfb,
                -1.0 if origin is None else <double> origin,
                event.aborted,
            ),
        )
    finally:
        if out != near:
            free(out)
    return line


cdef Py_ssize_t write(
    char *begin, al_text *texts, al_text when, int milliseconds, uint64_t status, uint64_t bytes_in,
    uint64_t bytes_out, str outcome, double duration, double ttfb, double origin, bint aborted,
) except -1:
    """The line, and how long it is. Times below 0 are left out; an outcome is a word of ours."""
    cdef char *o = literal(begin, b'{"time":"')
    cdef const char **names = [
        b',"client":', b',"method":', b',"scheme":', b',"host":', b',"target":', b',"protocol":',
    ]
    cdef int i
    o = al_put(o, when.p, when.n)
    o[0] = b"."
    o[1] = <char> (48 + milliseconds // 100)
    o[2] = <char> (48 + milliseconds // 10 % 10)
    o[3] = <char> (48 + milliseconds % 10)
    o = al_quoted(literal(o + 4, b'Z","site":'), texts[0])
    for i in range(6):
        o = al_quoted(literal(o, names[i]), texts[1 + i])
    o = al_number(literal(o, b',"status":'), status)
    o = al_number(literal(o, b',"bytes_in":'), bytes_in)
    o = al_number(literal(o, b',"bytes_out":'), bytes_out)
    o = literal(o, b',"outcome":"')
    o = al_put(o, <const char *> PyUnicode_DATA(outcome), PyUnicode_GET_LENGTH(outcome))
    o = al_quoted(literal(o, b'","reason":'), texts[7])
    o = al_seconds(literal(o, b',"duration":'), microseconds(duration))
    if ttfb >= 0:
        o = al_seconds(literal(o, b',"ttfb":'), microseconds(ttfb))
    if origin >= 0:
        o = al_seconds(literal(o, b',"origin":'), microseconds(origin))
    o = al_quoted(literal(o, b',"cache_status":'), texts[8])
    o = al_quoted(literal(o, b',"user_agent":'), texts[9])
    o = al_quoted(literal(o, b',"referer":'), texts[10])
    if texts[11].n:
        o = al_quoted(literal(o, b',"request_id":'), texts[11])
    if aborted:
        o = literal(o, b',"aborted":true')
    return literal(o, b"}\n") - begin
