"""The fast lane's share of a worker: what its connections ask, and where they tell what they have answered.

With the C of `ext/plain_request.h`, `ext/access_line.h` and `ext/file_body.h`; who reads requests calls `pr_init` once.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from edgecache._native.arena cimport Arena
from edgecache._native.layout cimport View

cdef extern from "plain_request.h" nogil:
    ctypedef struct pr_field:
        uint32_t name, name_n, value, value_n
    ctypedef struct pr_request:
        int head
        uint32_t target, target_n, query, field_n
        int host, if_none_match, if_modified_since, user_agent, referer, via, forwarded_for
        pr_field *fields
    ctypedef struct pr_limits:
        uint32_t request_line, field_line, head, fields
    void pr_init()
    int pr_read(const uint8_t *p, size_t n, const pr_limits *limits, int tls, pr_request *r)
    int pr_tag_listed(const uint8_t *p, size_t n, const uint8_t *tag, size_t tag_n)
    int pr_head_line(const uint8_t *p, size_t n, size_t *at, pr_field *f)
    int pr_not_in_304(const uint8_t *p, size_t n, int has_etag)

cdef extern from "access_line.h" nogil:
    ctypedef struct al_text:
        const char *p
        size_t n
    ctypedef struct al_event:
        al_text stamp
        uint32_t milliseconds
        al_text site, client, method, scheme, host, target, reason, outcome, cache_status, user_agent, referer
        uint32_t status
        uint64_t bytes_out, duration_us, ttfb_us
        int aborted
    char *al_number(char *o, uint64_t value)
    size_t al_json(char *out, size_t room, const al_event *e)
    size_t al_combined(char *out, size_t room, const al_event *e)

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *out)
    int CLOCK_REALTIME

cdef extern from "file_body.h" nogil:
    enum: FB_DIRECTORY
    ctypedef struct fb_ref:
        uint64_t size, offset, generation
        char *name
    int fb_read(const char *p, size_t n, fb_ref *ref)
    int fb_open(const char *directory, size_t n, const fb_ref *ref)
    int fb_resident(int fd, uint64_t offset, uint64_t size)
    int close(int fd)


cdef inline double wall(timespec *t) noexcept nogil:
    return t.tv_sec + t.tv_nsec * 1e-9


cdef inline uint64_t microseconds(const timespec *a, const timespec *b) noexcept nogil:
    cdef int64_t span = (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) // 1000
    return <uint64_t> span if span > 0 else 0


cdef class LaneSite:
    cdef bytes name
    cdef bytes scheme_status           # "Cache-Status: NAME; hit; ttl="
    cdef bytes hsts                    # "CRLF Strict-Transport-Security: …", or empty
    cdef bint only_tls
    cdef bint plain_query
    cdef Py_ssize_t block


cdef class Lane:
    cdef Arena arena
    cdef View *view
    cdef bytes secret
    cdef object find_site
    cdef object secondary_key
    cdef object readable_date
    cdef object redact
    cdef object trusts
    cdef object log_full
    cdef dict sites
    cdef dict variants
    cdef dict dates
    cdef dict redacted
    cdef pr_limits limits
    cdef bytes received_by
    cdef public bint open
    cdef int log_form                 # 0 off, 1 JSON, 2 combined
    cdef char *log
    cdef size_t log_room
    cdef size_t log_used
    cdef Py_ssize_t log_lines
    cdef Py_ssize_t log_dropped
    cdef long stamp_second
    cdef char[64] stamp
    cdef size_t stamp_n
    cdef public uint64_t served
    cdef object stamp_of
    cdef bytes files                  # the directory of bodies in files, with a slash; empty: none
    cdef dict uses
    # Where observe/slots.py has the figures of a site, from its block on.
    cdef Py_ssize_t buckets, hit_cells, bytes_out, aborted

    cdef int open_body(self, const char *data, size_t n, fb_ref *ref, bint *gone)
    cdef void used_file(self, const fb_ref *ref)
    cdef LaneSite site_of(self, const char *host, size_t n)
    cdef bytes secondary(self, const char *data, const pr_request *request, const char *meta, size_t meta_n)
    cdef bint is_date(self, const char *text, size_t n)
    cdef bytes without_secrets(self, const char *text, size_t n)
    cdef bint passed_here(self, const char *data, const pr_request *request) noexcept
    cdef bint one_client(self, const char *data, const pr_request *request) noexcept
    cdef void tell(
        self, LaneSite site, const char *data, al_event *e, const timespec *begun, const timespec *first,
        const timespec *ended,
    )
