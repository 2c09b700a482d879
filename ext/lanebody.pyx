"""Bodies that the fast lane sends from where they lie: pinned in the arena, or in a file; as fast as the client reads.

Nothing is copied as long as the socket takes it. What it does not take goes to the transport a piece at a time, and the
next when that has drained.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, ENOTCONN, ECONNRESET, EPIPE, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from edgecache._native.lane cimport CLOCK_REALTIME, al_event, clock_gettime, close, timespec, wall
from edgecache._native.shard cimport Found, lookup_iovecs, lookup_unpin
from edgecache._native.sync cimport iovec

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

cdef extern from "<sys/sendfile.h>" nogil:
    ssize_t sendfile(int target, int source, int64_t *offset, size_t size)

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void *data, size_t size, int64_t offset)

cdef enum:
    PIECE = 64 * 1024            # of a pinned body, copied for the transport when the socket is full
    TLS_PIECE = 128 * 1024
    IOVECS = 64


cdef class BodySender:
    """The part of a connection that sends bodies; `FastConnection` is the whole."""

    def __cinit__(self):
        self.fd = -1
        self.file = -1
        self.pending = []

    def __dealloc__(self):
        if self.file > 0:
            close(self.file)

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

    cdef size_t front_left(self) noexcept:
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

    cdef void note_first(self) noexcept:
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
