"""What the connections of the fast lane share: sites, answers of Python that are asked for once, and the account.

A connection asks here for what a request's octets alone do not say. What Python answers the first time is kept, in
memos that are emptied when they are full. What was answered is told here: the counters, and a line of the access log.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy
from edgecache._native.http1_scan cimport h1_init, h1_same
from edgecache._native.sync cimport add

h1_init()

cdef enum:
    MEMO = 4096                  # entries of each memo; full ones are emptied
    MEMO_ENTRY = 1024            # octets of a key: what longer ones lead to is worked out each time
    FILE_MAX = 8 * 1024 * 1024   # of a body in a file: of larger ones no more is read ahead than is being sent
    USES = 16384                 # files whose uses are counted until they are asked for
    MAX_NAME = 100               # of the cache in Cache-Status: with it, Age and ttl it fits a lane's GAP


cdef void remember(dict memo, bytes key, found):
    """A full memo is emptied; a key that is too long is not kept, so that strangers fill no memory."""
    if PyBytes_GET_SIZE(key) <= MEMO_ENTRY:
        if len(memo) >= MEMO:
            memo.clear()
        memo[key] = found


@cython.final
cdef class LaneSite:
    """What the lane must know of a site."""

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


@cython.final
cdef class Lane:
    """What all connections of a worker share."""

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
        cdef bytes key = PyBytes_FromStringAndSize(host, n)
        found = self.sites.get(key, self)
        if found is self:
            found = self.find_site(key.decode("latin-1"))
            remember(self.sites, key, found)
        return found

    cdef bytes secondary(self, const char *data, const pr_request *request, const char *meta, size_t meta_n):
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
        cdef bytes key = b"\r".join(parts)
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
            remember(self.variants, key, found)
        return found

    cdef bint is_date(self, const char *text, size_t n):
        cdef bytes key = PyBytes_FromStringAndSize(text, n)
        found = self.dates.get(key)
        if found is None:
            found = bool(self.readable_date(key.decode("latin-1")))
            remember(self.dates, key, found)
        return found

    cdef bytes without_secrets(self, const char *text, size_t n):
        cdef bytes key = PyBytes_FromStringAndSize(text, n)
        found = self.redacted.get(key)
        if found is None:
            found = self.redact(key.decode("latin-1")).encode("latin-1")
            remember(self.redacted, key, found)
        return found

    cdef bint passed_here(self, const char *data, const pr_request *request) noexcept:
        """Is this node named in Via? The ordinary path answers loops."""
        cdef const pr_field *field = &request.fields[request.via]
        cdef size_t n = PyBytes_GET_SIZE(self.received_by)
        cdef const char *name = PyBytes_AS_STRING(self.received_by)
        cdef size_t i
        if n > field.value_n:
            return False
        for i in range(field.value_n - n + 1):
            if h1_same(<const uint8_t *> data + field.value + i, n, name, n):
                return True
        return False

    cdef bint one_client(self, const char *data, const pr_request *request) noexcept:
        """Does X-Forwarded-For name a single address, which needs no walk along trusted proxies?"""
        cdef const pr_field *field = &request.fields[request.forwarded_for]
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
