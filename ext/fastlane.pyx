"""The fast lane (DESIGN §10): a protocol in front of a client connection's that answers plain hits by itself.

It holds the GIL throughout and calls no Python on its way from the request's octets to the response's, but for what
it meets the first time (a host, a set of Vary values). What it declines goes on untouched. While the ordinary path
has a request under way, or octets of an answer still wait in the transport, the lane is closed.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, ENOTCONN, ECONNRESET, EPIPE, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset
from edgecache._native.arena cimport Arena
from edgecache._native.hashing cimport siphash
from edgecache._native.layout cimport View
from edgecache._native.purgetable cimport purges_silent
from edgecache._native.shard cimport (
    COPIED, PINNED, Found, Lookup, lookup, lookup_iovecs, lookup_unpin, object_remove,
)
from edgecache._native.sync cimport add, iovec

cdef extern from "http1_scan.h" nogil:
    void h1_init()
    bint h1_same(const uint8_t *p, size_t n, const char *word, size_t word_n)

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
    ssize_t sendfile(int target, int source, int64_t *offset, size_t size)
    ssize_t pread(int fd, void *data, size_t size, int64_t offset)
    int close(int fd)

cdef extern from "<sys/socket.h>" nogil:
    cdef struct msghdr:
        void *msg_name
        uint32_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_MORE
    int MSG_NOSIGNAL

cdef extern from *:
    """
    #define EC_MEMMEM(h, hn, n, nn) memmem((h), (hn), (n), (nn))
    """
    void *memmem "EC_MEMMEM"(const void *haystack, size_t n, const void *needle, size_t needle_n) nogil

h1_init()
pr_init()

cdef enum:
    GAP = 384                    # room between head and body for the lines of this one response
    ROOM = 128 * 1024            # of the buffer a response is put together in; larger heads take the ordinary path
    KEY_ROOM = 2400
    PIECE = 64 * 1024            # of a pinned body, copied for the transport when the socket is full
    TLS_PIECE = 128 * 1024
    IOVECS = 64
    MEMO = 4096                  # entries of each memo; full ones are emptied
    MEMO_ENTRY = 1024            # octets: longer ones are worked out each time, so that strangers fill no memory
    FILE_MAX = 8 * 1024 * 1024   # of a body in a file: of larger ones no more is read ahead than is being sent
    USES = 16384                 # files whose uses are counted until they are asked for
    MAX_NAME = 100               # of the cache in Cache-Status: with it, Age and ttl it fits GAP

    # StoredFlag (edgecache/http/stored.py)
    VARY_MARKER = 1
    HAS_ETAG = 256
    HAS_LAST_MODIFIED = 512
    BODY_IN_FILE = 32768
    # HIT_FOR_PASS, NO_CACHE, PARTIAL, HEAD_ONLY, UNSIZED, SLICED: never for the lane
    DENIED = 2 | 16 | 32 | 4096 | 8192 | 16384

cdef char[ROOM] buffer           # one response at a time: the GIL is held from its first octet to its last
cdef char[ROOM + 32] smaller     # a 304 made of it: its status line may be longer than the one it replaces
cdef pr_request request


cdef inline double wall(timespec *t) noexcept nogil:
    return t.tv_sec + t.tv_nsec * 1e-9


cdef inline uint64_t microseconds(const timespec *a, const timespec *b) noexcept nogil:
    cdef int64_t span = (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) // 1000
    return <uint64_t> span if span > 0 else 0


cdef class LaneSite:
    """What the lane must know of a site."""

    cdef bytes name
    cdef bytes scheme_status           # "Cache-Status: NAME; hit; ttl="
    cdef bytes hsts                    # "CRLF Strict-Transport-Security: …", or empty
    cdef bint only_tls
    cdef bint plain_query
    cdef Py_ssize_t block

    def __init__(
        self,
        name: str,
        cache_status_name: str,
        *,
        plain_query: bool,
        block: int,
        hsts: str = "",
        only_tls: bool = False,
    ) -> None:
        self.hsts = b"\r\nStrict-Transport-Security: %b" % hsts.encode("ascii") if hsts else b""
        if len(self.hsts) > 96:
            raise ValueError("no such Strict-Transport-Security")
        self.only_tls = only_tls
        if len(cache_status_name) > MAX_NAME:
            raise ValueError(f"a name in Cache-Status has at most {MAX_NAME} octets here")
        self.name = name.encode("latin-1", "replace")
        self.scheme_status = b"Cache-Status: %b; hit; ttl=" % cache_status_name.encode("ascii")
        self.plain_query = plain_query
        self.block = block


cdef class Lane:
    """What all connections of a worker share."""

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

    def __cinit__(self):
        self.log = NULL
        self.stamp_second = -1

    def __init__(
        self,
        Arena arena not None,
        bytes secret not None,
        *,
        find_site,
        secondary_key,
        readable_date,
        redact,
        trusts,
        received_by: str,
        request_line: int,
        field_line: int,
        head: int,
        fields: int,
        slots: tuple,
        log_form: str = "off",
        log_bytes: int = 1 << 20,
        log_full=None,
        stamp=None,
        files: str = "",
    ):
        if len(secret) != 16:
            raise ValueError("the secret has 16 octets")
        self.arena = arena
        self.view = &arena.view
        self.secret = secret
        self.find_site = find_site
        self.secondary_key = secondary_key
        self.readable_date = readable_date
        self.redact = redact
        self.trusts = trusts
        self.received_by = received_by.lower().encode("ascii")
        self.buckets, self.hit_cells, self.bytes_out, self.aborted = slots
        self.limits.request_line = request_line
        self.limits.field_line = field_line
        self.limits.head = head
        self.limits.fields = fields
        self.log_form = {"off": 0, "json": 1, "combined": 2}[log_form]
        self.log_full = log_full
        self.stamp_of = stamp
        self.files = files.encode() + b"/" if files else b""
        if len(self.files) > FB_DIRECTORY:
            self.files = b""
        self.uses = {}
        self.sites = {}
        self.variants = {}
        self.dates = {}
        self.redacted = {}
        self.open = True
        if self.log_form:
            self.log = <char *> malloc(log_bytes)
            if self.log == NULL:
                raise MemoryError
            self.log_room = log_bytes

    def __dealloc__(self):
        free(self.log)

    def drain_log(self):
        """(lines written since the last call, their number, how many had no room); for the access log."""
        data = PyBytes_FromStringAndSize(self.log, self.log_used) if self.log_used else b""
        found = data, self.log_lines, self.log_dropped
        self.log_used = 0
        self.log_lines = 0
        self.log_dropped = 0
        return found

    def take_uses(self):
        uses, self.uses = self.uses, {}
        return uses

    # --- bodies in files ---

    cdef int open_body(self, const char *data, size_t n, fb_ref *ref, bint *gone):
        """The open file; -1 where it is not for the lane, and `gone` where it is for nobody."""
        cdef int fd, resident
        gone[0] = False
        if not fb_read(data, n, ref) or ref.size > FILE_MAX or not self.files:
            return -1
        fd = fb_open(PyBytes_AS_STRING(self.files), PyBytes_GET_SIZE(self.files), ref)
        if fd < 0:
            gone[0] = True
            return -1
        resident = fb_resident(fd, ref.offset, ref.size)
        if resident == 1:
            return fd
        gone[0] = resident < 0
        close(fd)
        return -1

    cdef void used_file(self, const fb_ref *ref):
        cdef bytes name = ref.name
        times = self.uses.get(name)
        if times is not None or len(self.uses) < USES:
            self.uses[name] = 1 if times is None else times + 1

    # --- what is met for the first time ---

    cdef LaneSite site_of(self, const char *host, size_t n):
        key = PyBytes_FromStringAndSize(host, n)
        found = self.sites.get(key, self)
        if found is self:
            if len(self.sites) >= MEMO:
                self.sites.clear()
            found = self.sites[key] = self.find_site(key.decode("latin-1"))
        return found

    cdef bytes secondary(self, const char *data, const char *meta, size_t meta_n):
        """The secondary key for a marker's meta and this request's values, or None where that takes judgement."""
        cdef uint32_t i
        cdef size_t at = 0, end
        cdef const char *comma
        cdef list parts = [PyBytes_FromStringAndSize(meta, meta_n)]
        if memchr(meta, 10, meta_n) != NULL:
            return None
        while at <= meta_n:
            comma = <const char *> memchr(meta + at, 44, meta_n - at)
            end = <size_t> (comma - meta) if comma != NULL else meta_n
            for i in range(request.field_n):
                if h1_same(<const uint8_t *> data + request.fields[i].name, request.fields[i].name_n, meta + at, end - at):
                    parts.append(PyBytes_FromStringAndSize(data + request.fields[i].value, request.fields[i].value_n))
            parts.append(b"\n")
            at = end + 1
        key = b"\r".join(parts)
        found = self.variants.get(key, self)
        if found is self:
            lines = [
                (
                    PyBytes_FromStringAndSize(data + request.fields[i].name, request.fields[i].name_n).decode("latin-1"),
                    PyBytes_FromStringAndSize(data + request.fields[i].value, request.fields[i].value_n).decode("latin-1"),
                )
                for i in range(request.field_n)
            ]
            found = self.secondary_key(parts[0], lines)
            if PyBytes_GET_SIZE(key) <= MEMO_ENTRY:
                if len(self.variants) >= MEMO:
                    self.variants.clear()
                self.variants[key] = found
        return found

    cdef bint is_date(self, const char *text, size_t n):
        key = PyBytes_FromStringAndSize(text, n)
        found = self.dates.get(key)
        if found is None:
            found = bool(self.readable_date(key.decode("latin-1")))
            if n <= MEMO_ENTRY:
                if len(self.dates) >= MEMO:
                    self.dates.clear()
                self.dates[key] = found
        return found

    cdef bytes without_secrets(self, const char *text, size_t n):
        key = PyBytes_FromStringAndSize(text, n)
        found = self.redacted.get(key)
        if found is None:
            found = self.redact(key.decode("latin-1")).encode("latin-1")
            if n <= MEMO_ENTRY:
                if len(self.redacted) >= MEMO:
                    self.redacted.clear()
                self.redacted[key] = found
        return found

    cdef bint passed_here(self, const char *data) noexcept:
        """Is this node named in Via? The ordinary path answers loops."""
        cdef pr_field *field = &request.fields[request.via]
        cdef size_t n = PyBytes_GET_SIZE(self.received_by)
        cdef const char *name = PyBytes_AS_STRING(self.received_by)
        cdef size_t i
        if n > field.value_n:
            return False
        for i in range(field.value_n - n + 1):
            if h1_same(<const uint8_t *> data + field.value + i, n, name, n):
                return True
        return False

    cdef bint one_client(self, const char *data) noexcept:
        """Does X-Forwarded-For name a single address, which needs no walk along trusted proxies?"""
        cdef pr_field *field = &request.fields[request.forwarded_for]
        cdef uint32_t i
        cdef uint8_t c
        if not 0 < field.value_n <= 64:
            return False
        for i in range(field.value_n):
            c = <uint8_t> data[field.value + i]
            if not (c == 46 or c == 58 or 48 <= c <= 57 or 65 <= c <= 70 or 97 <= c <= 102):
                return False
        return True

    # --- what is told at the end ---

    cdef void tell(
        self, LaneSite site, const char *data, al_event *e, const timespec *begun, const timespec *first,
        const timespec *ended,
    ):
        cdef int64_t *cell
        cdef uint64_t us
        cdef int number
        cdef size_t n
        cdef bytes target, referer
        e.duration_us = microseconds(begun, ended)
        e.ttfb_us = microseconds(begun, first)
        self.served += 1
        cell = self.view.counters + site.block
        if e.bytes_out:
            add(cell + self.bytes_out, <int64_t> e.bytes_out)
        if e.aborted:
            add(cell + self.aborted, 1)
        cell += self.hit_cells + <Py_ssize_t> (e.status // 100) * (self.buckets + 1)
        us = e.duration_us
        number = 0
        if us > 1:
            us = (us - 1) >> 5
            while us:
                number += 1
                us >>= 1
        add(cell + (number if number < self.buckets - 1 else self.buckets - 1), 1)
        add(cell + self.buckets, <int64_t> e.duration_us)
        if not self.log_form:
            return
        if begun.tv_sec != self.stamp_second:
            text = self.stamp_of(begun.tv_sec).encode("ascii")[:63]
            self.stamp_second = begun.tv_sec
            self.stamp_n = len(text)
            memcpy(self.stamp, PyBytes_AS_STRING(text), self.stamp_n)
        e.stamp.p = self.stamp
        e.stamp.n = self.stamp_n
        e.milliseconds = begun.tv_nsec // 1000000
        if memchr(e.target.p, 63, e.target.n) != NULL:
            target = self.without_secrets(e.target.p, e.target.n)
            e.target.p = PyBytes_AS_STRING(target)
            e.target.n = PyBytes_GET_SIZE(target)
        if e.referer.n and memchr(e.referer.p, 63, e.referer.n) != NULL:
            referer = self.without_secrets(e.referer.p, e.referer.n)
            e.referer.p = PyBytes_AS_STRING(referer)
            e.referer.n = PyBytes_GET_SIZE(referer)
        if self.log_room - self.log_used < self.log_room // 4 and self.log_full is not None:
            self.log_full()
        if self.log_form == 1:
            n = al_json(self.log + self.log_used, self.log_room - self.log_used, e)
        else:
            n = al_combined(self.log + self.log_used, self.log_room - self.log_used, e)
        if n:
            self.log_used += n
            self.log_lines += 1
        else:
            self.log_dropped += 1


cdef class FastConnection:
    """The protocol of one accepted connection: answers what it can, and is otherwise not there."""

    cdef Lane lane
    cdef object slow                   # the ClientConnection behind
    cdef object transport
    cdef int fd                        # -1: TLS, or gone
    cdef bint tls
    cdef bint armed                    # the ordinary path waits for a request and has nothing of it yet
    cdef bint clean                    # nothing waits in the transport, so that the socket may be written to
    cdef bint trusted                  # the peer is a trusted proxy
    cdef readonly bint busy            # a pinned body is being sent
    cdef readonly bint used            # something was answered here
    cdef readonly double last_at       # the wall clock when that was
    cdef bytes client
    cdef LaneSite site
    cdef char[256] host
    cdef size_t host_n
    # the body being sent while busy
    cdef int file                      # it lies in this file, from file_at on; -1: in the arena
    cdef uint64_t file_at
    cdef uint64_t total
    cdef Found found
    cdef uint64_t offset
    cdef uint64_t first_sent
    cdef bytes front
    cdef size_t front_sent
    cdef bytes data
    cdef timespec begun
    cdef timespec first
    cdef al_event event
    cdef bytes event_status
    cdef list pending

    def __init__(self, Lane lane not None, slow) -> None:
        self.lane = lane
        self.slow = slow
        self.fd = -1
        self.file = -1
        self.pending = []
        slow.lane = self

    def __dealloc__(self):
        if self.file > 0:
            close(self.file)

    # --- events of the transport ---

    def connection_made(self, transport):
        self.transport = transport
        self.slow.connection_made(transport)
        self.tls = self.slow.peer.tls
        self.client = self.slow.peer.ip.encode("latin-1")
        self.trusted = self.lane.trusts(self.slow.peer.ip)
        if not self.tls:
            sock = transport.get_extra_info("socket")
            self.fd = sock.fileno() if sock is not None else -1

    def data_received(self, bytes data not None):
        if self.busy:
            self.pending.append(data)
            self.slow.pause_reading()
            return
        if self.armed and self.lane.open:
            if self.answer(data):
                return
        self.armed = False
        self.slow.data_received(data)

    def eof_received(self):
        self.armed = False
        return self.slow.eof_received()

    def connection_lost(self, error):
        self.fd = -1
        self.armed = False
        if self.busy:
            self.end_body(True)
        self.slow.connection_lost(error)
        self.slow = None

    def pause_writing(self):
        self.slow.pause_writing()

    def resume_writing(self):
        self.slow.resume_writing()
        if self.busy:
            self.send_body()

    # --- for the ordinary path ---

    def arm(self):
        """The ordinary path waits for a new request and holds nothing of it."""
        self.armed = not self.busy
        self.clean = self.transport.get_write_buffer_size() == 0

    def disarm(self):
        self.armed = False

    # --- one request ---

    cdef bint answer(self, bytes data) except -1:
        """True when it is answered; False, with nothing done, when it is not for the lane."""
        cdef Lane lane = self.lane
        cdef const char *p = PyBytes_AS_STRING(data)
        cdef size_t n = PyBytes_GET_SIZE(data)
        cdef char key[KEY_ROOM]
        cdef uint64_t hashed[2]
        cdef timespec now
        cdef Found found
        cdef Lookup outcome
        cdef pr_field *field
        cdef size_t size, front, tail
        cdef LaneSite site
        cdef bytes secondary
        cdef al_event event
        cdef bint not_modified = False
        cdef bint want_body
        cdef int listed, file = -1
        cdef bint gone
        cdef char *head
        cdef fb_ref ref
        if not self.clean:
            if self.transport.get_write_buffer_size():
                return False
            self.clean = True
        if not pr_read(<const uint8_t *> p, n, &lane.limits, self.tls, &request):
            return False
        clock_gettime(CLOCK_REALTIME, &now)
        field = &request.fields[request.host]
        if field.value_n != self.host_n or memcmp(p + field.value, self.host, self.host_n):
            self.site = lane.site_of(p + field.value, field.value_n)
            self.host_n = field.value_n
            memcpy(self.host, p + field.value, field.value_n)
        site = self.site
        if site is None or (request.query and not site.plain_query) or (site.only_tls and not self.tls):
            return False
        if request.via >= 0 and lane.passed_here(p):
            return False
        if self.trusted and request.forwarded_for >= 0 and not lane.one_client(p):
            return False

        # The key, as http/cachekey.py writes it for a canonical request.
        size = 8 if self.tls else 7
        memcpy(key, b"https://" if self.tls else b"http://", size)
        memcpy(key + size, self.host, self.host_n)
        size += self.host_n
        memcpy(key + size, p + request.target, request.target_n)
        size += request.target_n
        siphash(1, 3, <const uint8_t *> PyBytes_AS_STRING(lane.secret), <const uint8_t *> key, size, hashed, hashed + 1)

        if purges_silent(lane.view.purges):
            return False
        want_body = not request.head
        outcome = lookup(
            lane.view, hashed[0], hashed[1], wall(&now), DENIED, want_body, buffer, ROOM, GAP, &found
        )
        if outcome == COPIED and found.flags & VARY_MARKER:
            secondary = lane.secondary(p, buffer, found.meta_size)
            if secondary is None:
                return False
            memcpy(key, hashed, 16)
            size = PyBytes_GET_SIZE(secondary)
            if size > KEY_ROOM - 16:
                return False
            memcpy(key + 16, PyBytes_AS_STRING(secondary), size)
            siphash(
                1, 3, <const uint8_t *> PyBytes_AS_STRING(lane.secret), <const uint8_t *> key, size + 16, hashed, hashed + 1
            )
            outcome = lookup(
                lane.view, hashed[0], hashed[1], wall(&now), DENIED | VARY_MARKER, want_body, buffer, ROOM, GAP, &found
            )
        if outcome != COPIED and outcome != PINNED:
            return False
        if not answerable(found.status):
            if outcome == PINNED:
                lookup_unpin(lane.view, &found)
            return False

        head = buffer + found.meta_size
        if found.status < 300:
            if request.if_none_match >= 0:
                listed = 0
                if found.flags & HAS_ETAG:
                    listed = tag_listed(p, head, found.head_size)
                else:
                    field = &request.fields[request.if_none_match]
                    if pr_tag_listed(<const uint8_t *> p + field.value, field.value_n, <const uint8_t *> b'""', 2) < 0:
                        listed = -1
                if listed < 0:
                    if outcome == PINNED:
                        lookup_unpin(lane.view, &found)
                    return False
                not_modified = listed == 1
            elif request.if_modified_since >= 0:
                if not (found.flags & HAS_LAST_MODIFIED and since_then(lane, p, head, found.head_size)):
                    if outcome == PINNED:
                        lookup_unpin(lane.view, &found)
                    return False
                not_modified = True

        if found.flags & BODY_IN_FILE and want_body and not not_modified:
            file = lane.open_body(head + found.head_size + GAP, found.body_size, &ref, &gone)
            if file < 0:
                if gone:
                    object_remove(lane.view, hashed[0], hashed[1], found.generation)
                return False

        memset(&event, 0, sizeof(event))
        event.status = found.status
        if not_modified:
            if outcome == PINNED:
                lookup_unpin(lane.view, &found)
                outcome = COPIED
            event.status = 304
            front = not_modified_head(head, found.head_size)
            tail = self.own_lines(smaller + front, wall(&now), &found, &event)
            head = smaller
            size = front + tail
        else:
            front = found.head_size
            tail = self.own_lines(head + front, wall(&now), &found, &event)
            size = front + tail
            if file >= 0:
                event.bytes_out = ref.size
            elif want_body and outcome == COPIED:
                # Close the gap between the lines just written and the body behind it.
                memmove(head + GAP - tail, head, size)
                head += GAP - tail
                event.cache_status.p += GAP - tail
                size += found.body_size
                event.bytes_out = found.body_size
            elif outcome == PINNED:
                event.bytes_out = found.body_size

        self.describe(&event, p)
        self.begun = now
        if outcome == PINNED:
            self.total = found.body_size
            self.begin_body(data, head, size, 0, &found, &event)
            return True
        if file >= 0:
            lane.used_file(&ref)
            self.file = file
            self.file_at = ref.offset
            self.total = ref.size
            if self.send_whole_file(data, head, size, &found, &event):
                return True
        else:
            self.write(head, size)
        clock_gettime(CLOCK_REALTIME, &self.first)
        self.used = True
        self.last_at = wall(&now)
        lane.tell(site, p, &event, &self.begun, &self.first, &self.first)
        return True

    cdef size_t own_lines(self, char *o, double now, const Found *found, al_event *event) noexcept:
        """Age, Cache-Status, over TLS the site's own field, and the empty line; `event` learns what Cache-Status says."""
        cdef char *begin = o
        cdef char *status
        cdef double age = now - found.born_at
        cdef double ttl = found.fresh_until - now
        cdef size_t n = PyBytes_GET_SIZE(self.site.scheme_status)
        memcpy(o, b"Age: ", 5)
        o = al_number(o + 5, <uint64_t> age if age > 0 else 0)
        memcpy(o, b"\r\n", 2)
        o += 2
        memcpy(o, PyBytes_AS_STRING(self.site.scheme_status), n)
        status = o + 14
        o = al_number(o + n, <uint64_t> ttl if ttl < 999999999999999.0 else 999999999999999)
        event.cache_status.p = status
        event.cache_status.n = o - status
        if self.tls:
            n = PyBytes_GET_SIZE(self.site.hsts)
            memcpy(o, PyBytes_AS_STRING(self.site.hsts), n)
            o += n
        memcpy(o, b"\r\n\r\n", 4)
        return (o + 4) - begin

    cdef void describe(self, al_event *e, const char *p) noexcept:
        """What the log says of this request; texts stay where they are."""
        cdef pr_field *field
        e.site.p = PyBytes_AS_STRING(self.site.name)
        e.site.n = PyBytes_GET_SIZE(self.site.name)
        e.client.p = PyBytes_AS_STRING(self.client)
        e.client.n = PyBytes_GET_SIZE(self.client)
        if self.trusted and request.forwarded_for >= 0:
            field = &request.fields[request.forwarded_for]
            e.client.p = p + field.value
            e.client.n = field.value_n
        e.method.p = b"HEAD" if request.head else b"GET"
        e.method.n = 4 if request.head else 3
        e.scheme.p = b"https" if self.tls else b"http"
        e.scheme.n = 5 if self.tls else 4
        e.host.p = self.host
        e.host.n = self.host_n
        e.target.p = p + request.target
        e.target.n = request.target_n
        e.reason.p = b"fresh"
        e.reason.n = 5
        e.outcome.p = b"hit"
        e.outcome.n = 3
        if request.user_agent >= 0:
            field = &request.fields[request.user_agent]
            e.user_agent.p = p + field.value
            e.user_agent.n = field.value_n
        if request.referer >= 0:
            field = &request.fields[request.referer]
            e.referer.p = p + field.value
            e.referer.n = field.value_n

    cdef int write(self, const char *data, size_t size) except -1:
        """Send, past the transport where the socket takes it all at once."""
        cdef ssize_t sent = 0
        if self.fd >= 0:
            sent = send(self.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent == <ssize_t> size:
                return 0
            if sent < 0:
                sent = 0  # full, or broken: the transport finds out
        self.transport.write(PyBytes_FromStringAndSize(data + sent, size - sent))
        self.clean = False
        return 0

    # --- a body in a file ---

    cdef bint send_whole_file(
        self, bytes data, const char *head, size_t size, const Found *found, const al_event *event
    ) except -1:
        """False when all of it is sent, and the file closed; True when it goes on, or waits, as a large body."""
        cdef ssize_t sent = 0
        self.first.tv_sec = 0
        self.offset = 0
        if self.fd >= 0:
            sent = send(self.fd, head, size, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)
            if sent == <ssize_t> size and self.send_from_file() == 0 and self.offset == self.total:
                close(self.file)
                self.file = -1
                return False
            if sent < 0:
                sent = 0  # full, or broken: the transport finds out
        self.begin_body(data, head, size, sent, found, event)
        return True

    cdef int send_from_file(self) except -2:
        """0 when everything is sent, or never can be, -1 when the socket is full or broken."""
        cdef ssize_t sent
        cdef int64_t at
        while self.offset < self.total:
            at = self.file_at + self.offset
            sent = sendfile(self.fd, self.file, &at, self.total - self.offset)
            if sent > 0:
                self.note_first()
                self.offset += sent
            elif sent < 0 and errno == EINTR:
                continue
            elif sent < 0 and errno in (EAGAIN, EPIPE, ECONNRESET, ENOTCONN):
                return -1
            else:
                self.transport.abort()  # the file has no more: the client must see that this was not all
                return 0
        return 0

    cdef int send_front_and_file(self) except -2:
        cdef ssize_t sent
        while self.front_left():
            sent = send(
                self.fd, PyBytes_AS_STRING(self.front) + self.front_sent, self.front_left(),
                MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE,
            )
            if sent >= 0:
                self.note_first()
                self.front_sent += sent
            elif errno != EINTR:
                return -1
        return self.send_from_file()

    # --- a body too large to copy ---

    cdef int begin_body(
        self, bytes data, const char *head, size_t size, size_t sent, const Found *found, const al_event *event
    ) except -1:
        """Send it, of the head what follows the first `sent` octets, of the body what follows `offset`."""
        self.busy = True
        self.armed = False
        self.found = found[0]
        if self.file < 0:
            self.offset = 0
            self.first.tv_sec = 0
        self.event = event[0]
        self.data = data                                     # what the event's texts point into
        self.event_status = PyBytes_FromStringAndSize(event.cache_status.p, event.cache_status.n)
        self.event.cache_status.p = PyBytes_AS_STRING(self.event_status)
        self.front = PyBytes_FromStringAndSize(head, size)
        self.front_sent = sent
        return self.send_body()

    cdef int send_body(self) except -1:
        """As much as the socket takes now; the rest when the transport has drained (`resume_writing`).

        A piece given to the transport may go out at once, and then nobody calls back: only a transport that has
        paused us will. One that is closing takes nothing any more, and `connection_lost` follows.
        """
        while self.busy and (self.offset < self.total or self.front_left()):
            if self.slow.write_paused or self.transport.is_closing():
                return 0
            if self.fd < 0:
                self.transport.write(self.next_piece(TLS_PIECE))
            elif (self.send_from_arena() if self.file < 0 else self.send_front_and_file()) < 0:
                self.transport.set_write_buffer_limits(high=0)
                self.transport.write(self.next_piece(PIECE))
            self.clean = False
        if self.busy:
            self.end_body(False)
        return 0

    cdef inline size_t front_left(self) noexcept:
        return PyBytes_GET_SIZE(self.front) - self.front_sent if self.front is not None else 0

    cdef ssize_t send_from_arena(self) except -2:
        """0 when everything is sent, -1 when the socket is full or broken."""
        cdef iovec parts[IOVECS]
        cdef msghdr message
        cdef ssize_t sent
        cdef size_t rest
        cdef int count
        memset(&message, 0, sizeof(message))
        message.msg_iov = parts
        while True:
            count = 0
            rest = PyBytes_GET_SIZE(self.front) - self.front_sent
            if rest:
                parts[0].iov_base = PyBytes_AS_STRING(self.front) + self.front_sent
                parts[0].iov_len = rest
                count = 1
            count += lookup_iovecs(self.lane.view, &self.found, self.offset, parts + count, IOVECS - count)
            if count == 0:
                return 0
            message.msg_iovlen = count
            sent = sendmsg(self.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0:
                if errno == EINTR:
                    continue
                return -1
            self.note_first()
            if <size_t> sent < rest:
                self.front_sent += sent
            else:
                self.front_sent += rest
                self.offset += sent - rest

    cdef bytes next_piece(self, size_t most):
        """The next octets as an object of their own; counts them as sent."""
        cdef iovec parts[IOVECS]
        cdef int count, i
        cdef size_t rest = PyBytes_GET_SIZE(self.front) - self.front_sent
        cdef size_t size = 0, take
        cdef bytes piece
        cdef char *o
        self.note_first()
        if self.total - self.offset < most:
            most = self.total - self.offset
        piece = PyBytes_FromStringAndSize(NULL, rest + most)
        o = PyBytes_AS_STRING(piece)
        memcpy(o, PyBytes_AS_STRING(self.front) + self.front_sent, rest)
        o += rest
        self.front_sent += rest
        if self.file >= 0:
            return self.from_file(piece, rest, most)
        while size < most:
            count = lookup_iovecs(self.lane.view, &self.found, self.offset, parts, IOVECS)
            for i in range(count):
                take = parts[i].iov_len if parts[i].iov_len < most - size else most - size
                memcpy(o + size, parts[i].iov_base, take)
                size += take
                self.offset += take
        return piece

    cdef bytes from_file(self, bytes piece, size_t rest, size_t most):
        """`piece`, its first `rest` octets filled, with `most` octets of the file behind them."""
        cdef ssize_t got
        cdef size_t size = 0
        while size < most:
            got = pread(self.file, PyBytes_AS_STRING(piece) + rest + size, most - size, self.file_at + self.offset)
            if got <= 0:
                self.transport.abort()
                return piece[: rest + size]
            size += got
            self.offset += got
        return piece

    cdef inline void note_first(self) noexcept:
        if self.first.tv_sec == 0:
            clock_gettime(CLOCK_REALTIME, &self.first)

    cdef int end_body(self, bint cut) except -1:
        cdef timespec ended
        cdef list pending
        if self.file >= 0:
            close(self.file)
            self.file = -1
        else:
            lookup_unpin(self.lane.view, &self.found)
        self.busy = False
        self.used = True
        clock_gettime(CLOCK_REALTIME, &ended)
        self.last_at = wall(&ended)
        if self.first.tv_sec == 0:
            self.first = ended
        if cut:
            self.event.aborted = True
            self.event.bytes_out = self.offset
            self.event.reason.p = b"client-gone"
            self.event.reason.n = 11
        self.lane.tell(self.site, PyBytes_AS_STRING(self.data), &self.event, &self.begun, &self.first, &ended)
        self.front = self.data = self.event_status = None
        if cut:
            return 0
        self.slow.lane_done()
        self.armed = True
        pending, self.pending = self.pending, []
        if pending:
            self.slow.resume_reading()
            self.data_received(b"".join(pending))
        return 0


cdef inline bint answerable(uint32_t status) noexcept nogil:
    """Has a body framed by Content-Length, whole; and a class of its own in the counters."""
    return 200 <= status < 600 and status not in (204, 205, 206, 304)


cdef int tag_listed(const char *p, const char *head, size_t head_n) noexcept nogil:
    """Is the stored ETag in If-None-Match? As `pr_tag_listed`."""
    cdef pr_field line
    cdef pr_field *field = &request.fields[request.if_none_match]
    cdef size_t at = 0
    cdef const uint8_t *tag
    cdef size_t tag_n
    at = first_line(head, head_n)
    while pr_head_line(<const uint8_t *> head, head_n, &at, &line):
        if h1_same(<const uint8_t *> head + line.name, line.name_n, "etag", 4):
            tag = <const uint8_t *> head + line.value
            tag_n = line.value_n
            if tag_n > 2 and tag[0] == 87:
                tag += 2
                tag_n -= 2
            return pr_tag_listed(<const uint8_t *> p + field.value, field.value_n, tag, tag_n)
    return -1


cdef bint since_then(Lane lane, const char *p, const char *head, size_t head_n):
    """Is If-Modified-Since, octet for octet, the stored Last-Modified, and a date?"""
    cdef pr_field line
    cdef pr_field *field = &request.fields[request.if_modified_since]
    cdef size_t at = first_line(head, head_n)
    while pr_head_line(<const uint8_t *> head, head_n, &at, &line):
        if h1_same(<const uint8_t *> head + line.name, line.name_n, "last-modified", 13):
            return (
                line.value_n == field.value_n
                and memcmp(head + line.value, p + field.value, field.value_n) == 0
                and lane.is_date(p + field.value, field.value_n)
            )
    return False


cdef inline size_t first_line(const char *head, size_t head_n) noexcept nogil:
    """Where the field lines begin, behind the status line."""
    cdef const char *end = <const char *> memchr(head, 10, head_n)
    return <size_t> (end - head) + 1 if end != NULL else head_n


cdef size_t not_modified_head(const char *head, size_t head_n) noexcept nogil:
    """The head of a 304 into `smaller`: the field lines that RFC 9110 §15.4.5 leaves."""
    cdef pr_field line
    cdef size_t at = first_line(head, head_n)
    cdef size_t from_ = at
    cdef size_t out = 27
    cdef bint has_etag = False         # any, a malformed one too
    while not has_etag and pr_head_line(<const uint8_t *> head, head_n, &at, &line):
        has_etag = h1_same(<const uint8_t *> head + line.name, line.name_n, "etag", 4)
    at = from_
    memcpy(smaller, b"HTTP/1.1 304 Not Modified\r\n", 27)
    while pr_head_line(<const uint8_t *> head, head_n, &at, &line):
        if not pr_not_in_304(<const uint8_t *> head + line.name, line.name_n, has_etag):
            memcpy(smaller + out, head + from_, at - from_)
            out += at - from_
        from_ = at
    return out
