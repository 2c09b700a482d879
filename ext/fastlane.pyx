"""The fast lane (DESIGN §10): a protocol in front of a client connection's that answers plain hits by itself.

It holds the GIL throughout and calls no Python on its way from the request's octets to the response's, but for what
it meets the first time (a host, a set of Vary values). What it declines goes on untouched. While the ordinary path
has a request under way, or octets of an answer still wait in the transport, the lane is closed.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memmove, memset
from edgecache._native.hashing cimport siphash
from edgecache._native.http1_scan cimport h1_init, h1_same
from edgecache._native.lane cimport (
    CLOCK_REALTIME, Lane, LaneSite, al_event, al_number, clock_gettime, fb_ref, pr_field, pr_head_line, pr_init,
    pr_not_in_304, pr_read, pr_request, pr_tag_listed, timespec, wall,
)
from edgecache._native.lanebody cimport BodySender
from edgecache._native.purgetable cimport purges_silent
from edgecache._native.shard cimport (
    COPIED, PINNED, Found, Lookup, lookup, lookup_unpin, object_remove,
)

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *data, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

h1_init()
pr_init()

cdef enum:
    GAP = 384                    # room between head and body for the lines of this one response
    ROOM = 128 * 1024            # of the buffer a response is put together in; larger heads take the ordinary path
    KEY_ROOM = 2400

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


@cython.final
cdef class FastConnection(BodySender):
    """The protocol of one accepted connection: answers what it can, and is otherwise not there."""

    cdef bint tls
    cdef bint trusted                  # the peer is a trusted proxy
    cdef bytes client
    cdef char[256] host
    cdef size_t host_n

    def __init__(self, Lane lane not None, slow) -> None:
        self.lane = lane
        self.slow = slow
        slow.lane = self

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
        self.clean = not self.something_waits()

    def disarm(self):
        self.armed = False

    cdef bint something_waits(self) except -1:
        """Octets of the answer before, in the ordinary path until the loop comes round, or in the transport: what the lane
        sends, past both, would come before them."""
        return self.slow.unsent or self.transport.get_write_buffer_size() > 0

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
            if self.something_waits():
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
        if request.via >= 0 and lane.passed_here(p, &request):
            return False
        if self.trusted and request.forwarded_for >= 0 and not lane.one_client(p, &request):
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
            secondary = lane.secondary(p, &request, buffer, found.meta_size)
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
