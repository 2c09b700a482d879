"""Batches of packets in, batches of answers out; see the stub. All of it holds the GIL: nothing here waits."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from edgecache._native.dnsguard cimport Cookies, Limiter
from edgecache._native.dnstable cimport DP_HEADER, Found, Table, dp_put16, dp_query, dp_read, length_of, put_cut, put_together
from edgecache._native.sync cimport iovec

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/socket.h>
    #include <netinet/in.h>
    #include <string.h>
    #include <time.h>

    /* From a datagram's control data to what makes the answer leave from the address that was asked: ip(7), ipv6(7).
     * Returns the length to send with. */
    static size_t du_from(struct msghdr *m)
    {
        struct cmsghdr *c;
        for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
            if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
                struct in_pktinfo info;
                memcpy(&info, CMSG_DATA(c), sizeof info);
                info.ipi_spec_dst = info.ipi_addr;
                info.ipi_ifindex = 0;
                memcpy(CMSG_DATA(c), &info, sizeof info);
                return CMSG_SPACE(sizeof info);
            }
            if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
                struct in6_pktinfo info;
                memcpy(&info, CMSG_DATA(c), sizeof info);
                if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
                    info.ipi6_ifindex = 0;
                memcpy(CMSG_DATA(c), &info, sizeof info);
                return CMSG_SPACE(sizeof info);
            }
        }
        return 0;
    }

    static int du_ask_for_addresses(int fd)
    {
        int on = 1;
        int four = setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
        int six = setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
        return four && six;
    }

    /* Where the sender's address is, and which version it is of: 0 for neither. */
    static int du_peer(const struct sockaddr_storage *from, const uint8_t **address)
    {
        if (from->ss_family == AF_INET) {
            *address = (const uint8_t *)&((const struct sockaddr_in *)from)->sin_addr;
            return 4;
        }
        if (from->ss_family == AF_INET6) {
            const struct in6_addr *six = &((const struct sockaddr_in6 *)from)->sin6_addr;
            *address = (const uint8_t *)six;
            if (!IN6_IS_ADDR_V4MAPPED(six))
                return 6;
            *address += 12;
            return 4;
        }
        return 0;
    }
    """
    cdef struct msghdr:
        void *msg_name
        uint32_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    cdef struct sockaddr_storage:
        pass
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int recvmmsg(int fd, mmsghdr *messages, unsigned int n, int flags, timespec *timeout)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int n, int flags)
    int clock_gettime(int clock, timespec *out)
    size_t du_from(msghdr *m)
    int du_ask_for_addresses(int fd)
    int du_peer(const sockaddr_storage *peer, const uint8_t **address)
    int MSG_DONTWAIT
    int MSG_TRUNC
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME

cdef enum:
    BATCH = 64
    ROUNDS = 16                      # batches before the loop has its turn
    SLOW_PACKETS = 128               # or so many packets for Python
    IN_ROOM = 1728                   # an odd number of cache lines: heads of packets lie in different sets
    OUT_ROOM = 4672
    MOST = 4096                      # of an answer; OUT_ROOM has 512 octets more, as `put_together` wants
    CONTROL = 64
    TC = 0x0200
    SUBJECT_ODD = 0xFFFFFFFE

    # indexes of COUNTERS
    RECEIVED = 0
    ANSWERED = 1
    BY_SLOW = 2
    SILENT = 3
    CUT = 4
    LIMITED = 5
    SLIPPED = 6
    COOKIE = 7
    BAD_COOKIE = 8
    SUBNET = 9
    ERRORS = 10
    UNSENT = 11
    COUNTERS_N = 12

COUNTERS = (
    "received", "answered", "slow", "silent", "cut", "limited", "slipped", "cookies", "bad_cookies", "subnets",
    "errors", "unsent",
)


cdef struct Slot:
    # What a packet of a batch needs; a batch of them is made once.
    sockaddr_storage peer
    uint8_t control[CONTROL]
    iovec into
    iovec out
    uint8_t packet[IN_ROOM]
    uint8_t answer[OUT_ROOM]


@cython.final
cdef class Responder:
    cdef int fd
    cdef size_t most
    cdef double amplification
    cdef bint from_any
    cdef Slot *slots
    cdef mmsghdr *received
    cdef mmsghdr *sent
    cdef Table table
    cdef Cookies cookies
    cdef Limiter limiter
    cdef object slow
    cdef object failed
    cdef list held                   # answers of `slow` until they are sent
    cdef uint64_t now_ns
    cdef uint32_t now_s
    cdef uint64_t counted[COUNTERS_N]
    cdef dp_query query

    def __cinit__(
        self, int fileno, slow not None, failed not None, *, Cookies cookies=None, Limiter limiter=None,
        bint from_any=False, size_t most=1232, double amplification=3.0,
    ):
        cdef size_t i
        if not 512 <= most <= MOST:
            raise ValueError(f"answers have 512 to {MOST} octets")
        if not 1 <= amplification <= 100:
            raise ValueError("an answer may be 1 to 100 times as long as its query")
        if from_any and du_ask_for_addresses(fileno):
            raise OSError(errno, "the socket does not tell which address was asked")
        self.fd = fileno
        self.slow = slow
        self.failed = failed
        self.cookies = cookies
        self.limiter = limiter
        self.from_any = from_any
        self.most = most
        self.amplification = amplification
        self.held = []
        self.slots = <Slot *> calloc(BATCH, sizeof(Slot))
        self.received = <mmsghdr *> calloc(BATCH, sizeof(mmsghdr))
        self.sent = <mmsghdr *> calloc(BATCH, sizeof(mmsghdr))
        if not (self.slots and self.received and self.sent):
            raise MemoryError
        for i in range(BATCH):
            self.slots[i].into.iov_base = self.slots[i].packet
            self.slots[i].into.iov_len = IN_ROOM
            self.received[i].msg_hdr.msg_iov = &self.slots[i].into
            self.received[i].msg_hdr.msg_iovlen = 1
            self.received[i].msg_hdr.msg_name = &self.slots[i].peer
            self.received[i].msg_hdr.msg_control = self.slots[i].control if from_any else NULL
            self.sent[i].msg_hdr.msg_iovlen = 1

    def __dealloc__(self):
        free(self.slots)
        free(self.received)
        free(self.sent)

    def use(self, Table table, Cookies cookies=None):
        self.table = table
        if cookies is not None:
            self.cookies = cookies

    def counts(self):
        return {name: self.counted[i] for i, name in enumerate(COUNTERS)}

    def read(self):
        cdef int n, i, total = 0, out, rounds
        cdef uint64_t slow_before = self.counted[BY_SLOW]
        cdef timespec t
        for rounds in range(ROUNDS):
            for i in range(BATCH):
                self.received[i].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
                self.received[i].msg_hdr.msg_controllen = CONTROL if self.from_any else 0
            n = recvmmsg(self.fd, self.received, BATCH, MSG_DONTWAIT, NULL)
            if n <= 0:
                # Nothing there, or the error an earlier answer met (ICMP): that is over with having been told.
                if n < 0 and errno != EAGAIN:
                    continue
                break
            clock_gettime(CLOCK_MONOTONIC, &t)
            self.now_ns = <uint64_t> t.tv_sec * 1000000000 + t.tv_nsec
            clock_gettime(CLOCK_REALTIME, &t)
            self.now_s = <uint32_t> t.tv_sec
            out = 0
            for i in range(n):
                out += self._one(i, &self.sent[out])
            self.counted[RECEIVED] += n
            total += n
            if out:
                self._send(out)
            if self.held:
                self.held.clear()
            if n < BATCH or self.counted[BY_SLOW] - slow_before >= SLOW_PACKETS:
                break
        return total

    cdef int _send(self, int n) except -1:
        cdef int done = 0, some, tries = 0
        while done < n:
            some = sendmmsg(self.fd, self.sent + done, n - done, MSG_DONTWAIT)
            if some > 0:
                done += some
            elif errno == EINTR or (errno == EAGAIN and tries < 3):
                tries += 1
            else:
                # Full, or this one cannot be sent (no route, a port of 0): a resolver asks again.
                done += 1
                self.counted[UNSENT] += 1
        return 0

    cdef int _one(self, int i, mmsghdr *message) except -1:
        """Answers one packet into `message`: 1 when there is something to send."""
        cdef Slot *slot = &self.slots[i]
        cdef msghdr *came = &self.received[i].msg_hdr
        cdef size_t n = self.received[i].msg_len, length = 0
        cdef const uint8_t *peer = NULL
        cdef int version = du_peer(&slot.peer, &peer)
        # A response must never be answered: two servers would keep each other busy.
        if version == 0 or n < DP_HEADER or slot.packet[2] & 0x80 or came.msg_flags & MSG_TRUNC:
            self.counted[SILENT] += 1
            return 0
        try:
            length = self._answer(slot, n, peer, version)
        except Exception as error:
            self.counted[ERRORS] += 1
            self.failed(error)
            return 0
        if length == 0:
            return 0
        slot.out.iov_len = length
        message.msg_hdr.msg_iov = &slot.out
        message.msg_hdr.msg_name = &slot.peer
        message.msg_hdr.msg_namelen = came.msg_namelen
        message.msg_hdr.msg_controllen = du_from(came) if self.from_any else 0
        message.msg_hdr.msg_control = slot.control if message.msg_hdr.msg_controllen else NULL
        message.msg_hdr.msg_flags = 0
        return 1

    cdef bint _find(self, dp_query *q, const uint8_t *peer, int version, Found *found) except -1:
        """In the table. What Python fails to make ready is left to the slow path."""
        try:
            return self.table.find(q, peer, version, found)
        except Exception as error:
            self.counted[ERRORS] += 1
            self.failed(error)
            return False

    cdef size_t _answer(self, Slot *slot, size_t n, const uint8_t *peer, int version) except? 0xFFFFFFFF:
        """Octets to send, at slot.out.iov_base; 0 for silence."""
        cdef dp_query *q = &self.query
        cdef Found found
        cdef uint8_t cookie[24]
        cdef const uint8_t *reply_cookie = NULL
        cdef int plain
        cdef bint proven = False, known = False
        cdef uint32_t subject = SUBJECT_ODD
        cdef bint error
        cdef int verdict
        cdef size_t most, length
        plain = dp_read(slot.packet, n, q)
        most = <size_t> (self.amplification * n)
        if plain:
            self.counted[SUBNET] += q.subnet
            if q.cookie_n and self.cookies is not None:
                proven = self.cookies.judge(q.cookie, q.cookie_n, peer, version, self.now_s, cookie)
                reply_cookie = cookie
                if proven:
                    self.counted[COOKIE] += 1
                elif q.cookie_n > 8:
                    self.counted[BAD_COOKIE] += 1
            known = plain == 1 and self.table is not None and self._find(q, peer, version, &found)
            subject = found.subject if known else <uint32_t> q.hashes[0] | 0x40000000
        error = found.error if known else not plain
        if not proven and self.limiter is not None:
            verdict = self.limiter.judge(peer, version, subject, error, self.now_ns)
            if verdict:
                if verdict == 2 and plain:
                    self.counted[SLIPPED] += 1
                    slot.out.iov_base = slot.answer
                    return put_cut(
                        q, slot.packet, found.answer.flags if known else 0, found.scope if known else 0, reply_cookie,
                        slot.answer,
                    )
                self.counted[LIMITED] += 1
                return 0
        if not known:
            return self._by_slow(slot, n, peer, version, self.most if proven else min(most, self.most))
        length = self.most if q.size > self.most else q.size if q.size > 512 else 512
        if not proven and most < length:
            length = most
        if found.answer.additional and length_of(q, found.answer, reply_cookie != NULL) > length:
            return self._by_slow(slot, n, peer, version, self.most if proven else min(most, self.most))
        slot.out.iov_base = slot.answer
        self.counted[ANSWERED] += 1
        self.table.count(&found)
        length = put_together(q, slot.packet, found.answer, found.scope, reply_cookie, length, slot.answer)
        self.counted[CUT] += (slot.answer[2] & 0x02) != 0
        return length

    cdef size_t _by_slow(self, Slot *slot, size_t n, const uint8_t *peer, int version, size_t most) except? 0xFFFFFFFF:
        cdef bytes answer
        cdef size_t length
        self.counted[BY_SLOW] += 1
        answer = self.slow(
            PyBytes_FromStringAndSize(<const char *> slot.packet, n),
            PyBytes_FromStringAndSize(<const char *> peer, 4 if version == 4 else 16),
        )
        if not answer:
            self.counted[SILENT] += 1
            return 0
        length = PyBytes_GET_SIZE(answer)
        if length > most:
            # Whoever answered did not keep the bound: a header alone says to come by TCP.
            if length < DP_HEADER or most < DP_HEADER:
                return 0
            self.counted[CUT] += 1
            memcpy(slot.answer, PyBytes_AS_STRING(answer), DP_HEADER)
            slot.answer[2] |= TC >> 8
            memset(slot.answer + 4, 0, 8)
            slot.out.iov_base = slot.answer
            return DP_HEADER
        self.held.append(answer)
        slot.out.iov_base = <void *> PyBytes_AS_STRING(answer)
        return length
