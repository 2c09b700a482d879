"""Ready answers; see the stub, and dnstable.pxd for how they lie in memory. Packets are read by dns_packet.h."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset
from edgecache._native.dnsranges cimport Ranges

from typing import NamedTuple

cdef enum:
    TYPE_OPT = 41
    TYPE_ANY = 255                   # answered where it is in the table
    META_FIRST = 128                 # RFC 6895 3.1: QTYPEs and meta types are for Python
    META_LAST = 255
    CLIENTS = 1 << 15                # client networks remembered, direct-mapped
    UNASKED = 0
    SLOW = 1
    EACH_CLIENT = 2
    FIRST = 3
    OPT_N = 11
    SUBNET_N = 8                     # with an empty address
    COOKIE_N = 28
    PAYLOAD = 1232                   # what our OPT offers: DNS flag day 2020
    TC = 0x0200
    QR = 0x8000
    RD = 0x0100
    LEAST_4 = 24                     # answer.py's CLIENT_BITS_4 and _6
    LEAST_6 = 56
    NO_SCOPE = -1

BY_CLIENT = object()


class Answer(NamedTuple):
    records: bytes
    answers: int
    authority: int = 0
    flags: int = 0x0400
    patches: tuple = ()
    by_client: bool = False
    counted: tuple = (-1, -1)
    additional: int = 0


class Node(NamedTuple):
    zone: int
    kinds: object
    other: object
    slow: bool = False


def siblings(names, bytes apex not None):
    found = {apex}
    for name in names:
        while len(name) > len(apex):
            found.add(name)
            name = name[name[0] + 1 :]
    return found


@cython.final
cdef class Table:
    def __cinit__(
        self, nodes not None, absent not None, *, outside=None, Ranges ranges_4=None, Ranges ranges_6=None,
        uint32_t lists=0, ready=None, fill=None, size_t counters=0, Ranges places_4=None, Ranges places_6=None,
    ):
        cdef size_t room = 8
        for ranges, bits, most in (
            (ranges_4, 32, lists), (ranges_6, 128, lists), (places_4, 32, counters), (places_6, 128, counters)
        ):
            if ranges is not None and (ranges.bits != bits or ranges.largest >= most):
                raise ValueError(f"ranges of {ranges.bits} bits lead to number {ranges.largest} of {most}")
        self.bodies = []
        self.known = {}
        self.ranges_4 = ranges_4
        self.ranges_6 = ranges_6
        self.places_4 = places_4
        self.places_6 = places_6
        self.counter_count = counters
        self.counters = <uint64_t *> calloc(counters + 1, sizeof(uint64_t))
        self.lists = lists
        self.ready = ready
        self.fill = fill
        while room < 2 * len(nodes):
            room *= 2
        self.node_mask = room - 1
        self.nodes = <Owner *> calloc(room, sizeof(Owner))
        self.zone_count = len(absent)
        self.absent = <int32_t *> calloc(self.zone_count + 1, sizeof(int32_t))
        self.clients = <Remembered *> calloc(CLIENTS, sizeof(Remembered))
        if not (self.nodes and self.absent and self.clients and self.counters):
            raise MemoryError
        for i, answer in enumerate(absent):
            self.absent[<size_t> i] = self._answer(answer)
        self.outside = self._answer(outside)
        for name, node in nodes.items():
            if isinstance(node, int):
                self._owner(name, node).bare = True
            else:
                self._say(self._owner(name, node.zone), node)
        self._wildcards(nodes)

    def __dealloc__(self):
        cdef size_t i
        if self.nodes != NULL:
            for i in range(self.node_mask + 1):
                free(self.nodes[i].kind)
        free(self.nodes)
        for i in range(self.geo_count):
            free(self.geos[i].by_list)
        free(self.geos)
        for i in range(self.answer_count):
            free(self.answers[i].patch)
        free(self.answers)
        free(self.absent)
        free(self.clients)
        free(self.counters)

    cdef int32_t _answer(self, answer) except -2:
        """The number of an answer, new or known; -1 for None."""
        cdef Reply *a
        cdef void *grown
        cdef bytes records
        cdef size_t i, end
        if answer is None:
            return -1
        number = self.known.get(answer)
        if number is not None:
            return number
        records = answer[0]
        if self.answer_count == self.answer_room:
            end = 2 * self.answer_room if self.answer_room else 64
            grown = realloc(self.answers, end * sizeof(Reply))
            if grown == NULL:
                raise MemoryError
            self.answers = <Reply *> grown
            self.answer_room = end
        a = &self.answers[self.answer_count]
        memset(a, 0, sizeof(Reply))
        a.body = <const uint8_t *> PyBytes_AS_STRING(records)
        a.body_n = PyBytes_GET_SIZE(records)
        a.answers = answer[1]
        a.authority = answer[2]
        a.flags = answer[3]
        a.additional = answer[7]
        a.by_client = answer[5]
        for i in range(2):
            a.counted[i] = answer[6][i]
            if not -1 <= a.counted[i] < <int64_t> self.counter_count:
                raise ValueError(f"there is no counter {a.counted[i]}")
        if a.body_n > 65000 or a.flags & (QR | TC | RD):
            raise ValueError("an answer that cannot be sent")
        patches = answer[4]
        if patches:
            a.patch = <Patch *> malloc(len(patches) * sizeof(Patch))
            if a.patch == NULL:
                raise MemoryError
            for i, (at, more) in enumerate(patches):
                if not 0 <= at <= <int> a.body_n - 2:
                    free(a.patch)
                    raise ValueError("a pointer lies outside of its answer")
                a.patch[i].at = at
                a.patch[i].more = more
            a.patches = len(patches)
        self.bodies.append(records)
        self.known[answer] = self.answer_count
        self.answer_count += 1
        return <int32_t> (self.answer_count - 1)

    cdef Owner *_owner(self, bytes name, zone) except NULL:
        """A new node, of which nothing is said but the zone it is in."""
        cdef uint64_t hash = dp_hash_name(<const uint8_t *> PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        cdef size_t i = hash & self.node_mask
        cdef Owner *node
        if not 0 < len(name) <= 255 or not 0 <= zone < self.zone_count:
            raise ValueError(f"{name!r} is no name of zone {zone}")
        while self.nodes[i].used:
            i = (i + 1) & self.node_mask
        node = &self.nodes[i]
        self.bodies.append(name)
        node.hash = hash
        node.name = <const uint8_t *> PyBytes_AS_STRING(name)
        node.name_n = len(name)
        node.zone = zone
        node.wild = -1
        node.other = -1
        node.used = 1
        self.node_count += 1
        return node

    cdef int _say(self, Owner *node, what) except -1:
        """Everything else about a node."""
        cdef size_t k = 0
        kinds = what.kinds
        node.slow = what.slow
        node.other = self._answer(what.other)
        node.kinds = 0
        free(node.kind)
        node.kind = <Kind *> malloc((len(kinds) + 1) * sizeof(Kind))
        if node.kind == NULL:
            raise MemoryError
        for kind, answer in kinds.items():
            node.kind[k].type = kind
            if isinstance(answer, int):
                self._geo(answer)
                node.kind[k].answer = -2 - <int32_t> answer
            else:
                node.kind[k].answer = self._answer(answer)
            k += 1
            node.kinds = k
        return 0

    cdef int _met(self, Owner *node) except -1:
        """The first time."""
        if self.fill is None:
            raise ValueError("nobody says what is at a name")
        what = self.fill((<const char *> node.name)[: node.name_n])
        if what.zone != node.zone:
            raise ValueError(f"what is at a name of zone {node.zone} is of zone {what.zone}")
        self._say(node, what)
        node.bare = False
        return 0

    cdef int _geo(self, size_t number) except -1:
        """Room for a geo with this number."""
        cdef size_t more
        cdef void *grown
        if number >= 1 << 28 or self.ready is None:
            raise ValueError(f"nobody has answers for geo {number}")
        if number >= self.geo_count:
            more = max(number + 1, 2 * self.geo_count)
            grown = realloc(self.geos, more * sizeof(Geo))
            if grown == NULL:
                raise MemoryError
            self.geos = <Geo *> grown
            memset(&self.geos[self.geo_count], 0, (more - self.geo_count) * sizeof(Geo))
            self.geo_count = more
        return 0

    def _wildcards(self, nodes):
        cdef Owner *node
        cdef Owner *parent
        for name in nodes:
            if name[:2] == b"\1*":
                above = name[2:]
                node = self._find_node(
                    <const uint8_t *> <const char *> name, len(name),
                    dp_hash_name(<const uint8_t *> <const char *> name, len(name)),
                )
                parent = self._find_node(
                    <const uint8_t *> <const char *> above, len(above),
                    dp_hash_name(<const uint8_t *> <const char *> above, len(above)),
                )
                if parent == NULL:
                    raise ValueError(f"nothing is said of the name above {name!r}")
                parent.wild = <int32_t> (node - self.nodes)

    cdef Owner *_find_node(self, const uint8_t *name, size_t name_n, uint64_t hash) noexcept nogil:
        cdef size_t i = hash & self.node_mask
        cdef Owner *node
        while self.nodes[i].used:
            node = &self.nodes[i]
            if node.hash == hash and node.name_n == name_n and memcmp(node.name, name, name_n) == 0:
                return node
            i = (i + 1) & self.node_mask
        return NULL

    cdef int32_t _by_client(self, uint32_t geo, uint32_t number, int version, const uint8_t *address) except -2:
        """The answer for one client network of a list: -1 when it is for Python."""
        cdef uint64_t client = 0
        cdef uint32_t at
        cdef int32_t made
        cdef Remembered *r
        cdef int octets = LEAST_4 // 8 if version == 4 else LEAST_6 // 8
        memcpy(&client, address, octets)
        client |= <uint64_t> version << 56
        at = <uint32_t> (((client ^ number) * <uint64_t> 0x9E3779B97F4A7C15 ^ geo * <uint64_t> 0xC2B2AE3D27D4EB4F) >> 40)
        r = &self.clients[at % CLIENTS]
        if r.answer == UNASKED or r.client != client or r.geo != geo or r.number != number:
            key = (b"4" if version == 4 else b"6") + (<const char *> address)[:octets]
            answer = self.ready(geo, number, key)
            if answer is BY_CLIENT:
                raise ValueError("an answer for one client cannot be by client")
            made = self._answer(answer)
            r.client, r.geo, r.number = client, geo, number
            r.answer = SLOW if made < 0 else FIRST + <uint32_t> made
        return <int32_t> r.answer - FIRST if r.answer >= FIRST else -1

    cdef int find(self, dp_query *q, const uint8_t *peer, int version, Found *found) except -1:
        """1 and the answer, or 0 when it is not for this path. `peer` and `version`: who sent the packet."""
        cdef Owner *node
        cdef int32_t chosen
        cdef uint32_t i, number, geo
        cdef const uint8_t *address = peer
        cdef Ranges ranges
        cdef Geo *g
        cdef int prefix
        found.scope = NO_SCOPE
        found.place = -1
        found.error = False
        if q.kind == 0 or q.kind == TYPE_OPT or META_FIRST <= q.kind <= META_LAST and q.kind != TYPE_ANY:
            return 0
        node = self._find_node(q.name, q.name_n, q.hashes[0])
        if node == NULL:
            # RFC 4592 3.3.1: the closest encloser, then its wildcard.
            for i in range(1, q.labels + 1):
                number = q.label_at[i] if i < q.labels else q.name_n - 1
                node = self._find_node(q.name + number, q.name_n - number, q.hashes[i])
                if node != NULL:
                    break
            if node == NULL:
                found.error = True
                found.subject = 0xFFFFFFFF
                return self._given(self.outside, found)
            if node.bare:
                self._met(node)
            if node.slow:
                return 0
            if node.wild < 0:
                found.error = True
                found.subject = 0x80000000 | node.zone
                return self._given(self.absent[node.zone], found)
            node = &self.nodes[node.wild]
        if node.bare:
            self._met(node)
        if node.slow:
            return 0
        found.subject = <uint32_t> (node - self.nodes)
        chosen = node.other if q.kind != TYPE_ANY else -1
        for i in range(node.kinds):
            if node.kind[i].type == q.kind:
                chosen = node.kind[i].answer
                break
        else:
            return self._given(chosen, found)
        if chosen >= -1:
            return self._given(chosen, found)
        geo = <uint32_t> (-2 - chosen)
        # RFC 7871 7.2.1: the client's network where the resolver tells it, else the resolver's own address.
        if q.subnet and q.source:
            address = q.address
            version = 4 if q.family == 1 else 6
        ranges = self.ranges_4 if version == 4 else self.ranges_6
        number = 0
        prefix = 0
        if ranges is not None:
            number = ranges.look_up(address, &prefix)
        g = &self.geos[geo]
        if g.by_list == NULL:
            g.by_list = <uint32_t *> calloc(self.lists + 1, sizeof(uint32_t))
            if g.by_list == NULL:
                raise MemoryError
        if g.by_list[number] == UNASKED:
            answer = self.ready(geo, number, None)
            if answer is BY_CLIENT:
                g.by_list[number] = EACH_CLIENT
            else:
                chosen = self._answer(answer)
                g.by_list[number] = SLOW if chosen < 0 else FIRST + <uint32_t> chosen
        if g.by_list[number] == SLOW:
            return 0
        if g.by_list[number] == EACH_CLIENT:
            chosen = self._by_client(geo, number, version, address)
        else:
            chosen = <int32_t> (g.by_list[number] - FIRST)
        if chosen < 0:
            return 0
        found.answer = &self.answers[chosen]
        # RFC 7871 7.1.2: who asked with a prefix of 0 is told 0. Else never 0: this answer is for some.
        if not q.source:
            prefix = 0
        elif found.answer.by_client:
            prefix = max(prefix, LEAST_4 if version == 4 else LEAST_6)
        else:
            prefix = max(prefix, 1)
        found.scope = prefix
        ranges = self.places_4 if version == 4 else self.places_6
        if ranges is not None:
            found.place = <int32_t> ranges.look_up(address, &prefix)
        return 1

    cdef void count(self, const Found *found) noexcept nogil:
        if found.answer.counted[0] >= 0:
            self.counters[found.answer.counted[0]] += 1
        if found.answer.counted[1] >= 0:
            self.counters[found.answer.counted[1]] += 1
        if found.place >= 0:
            self.counters[found.place] += 1

    def counts(self):
        cdef size_t i
        return [self.counters[i] for i in range(self.counter_count)]

    cdef int _given(self, int32_t chosen, Found *found) noexcept:
        if chosen < 0:
            return 0
        found.answer = &self.answers[chosen]
        return 1

    def answer(self, bytes packet not None, bytes peer not None, bytes cookie not None=b"", size_t most=65535):
        cdef dp_query q
        cdef Found found
        cdef uint8_t out[65535 + 1024]
        cdef size_t n
        cdef const uint8_t *p = <const uint8_t *> PyBytes_AS_STRING(packet)
        if not self._read(packet, peer, &q, &found):
            return None
        if cookie and len(cookie) != 24:
            raise ValueError("a cookie of both sides has 24 octets")
        if found.answer.additional and length_of(&q, found.answer, cookie and q.cookie_n) > most:
            return None
        self.count(&found)
        n = put_together(
            &q, p, found.answer, found.scope,
            <const uint8_t *> PyBytes_AS_STRING(cookie) if cookie and q.cookie_n else NULL, most, out,
        )
        return PyBytes_FromStringAndSize(<const char *> out, n)

    def explain(self, bytes packet not None, bytes peer not None):
        cdef dp_query q
        cdef Found found
        if not self._read(packet, peer, &q, &found):
            return None
        return found.scope, found.subject

    cdef int _read(self, bytes packet, bytes peer, dp_query *q, Found *found) except -1:
        if len(peer) != 4 and len(peer) != 16:
            raise ValueError("an address has 4 or 16 octets")
        if dp_read(<const uint8_t *> PyBytes_AS_STRING(packet), len(packet), q) != 1:
            return 0
        return self.find(q, <const uint8_t *> PyBytes_AS_STRING(peer), 4 if len(peer) == 4 else 6, found)

    @property
    def size_bytes(self):
        cdef size_t i, total = (self.node_mask + 1) * sizeof(Owner) + self.answer_room * sizeof(Reply)
        total += CLIENTS * sizeof(Remembered) + self.geo_count * sizeof(Geo)
        for i in range(self.geo_count):
            if self.geos[i].by_list != NULL:
                total += (self.lists + 1) * sizeof(uint32_t)
        for ranges in (self.ranges_4, self.ranges_6):
            total += 0 if ranges is None else ranges.size_bytes
        return total + sum(map(len, self.bodies))


# --- onto the wire ---

cdef inline size_t put_front(const dp_query *q, const uint8_t *packet, uint16_t flags, uint8_t *out) noexcept nogil:
    """Header and question: the name in the octets it was asked with."""
    memcpy(out, packet, DP_HEADER + q.question_n)
    dp_put16(out + 2, QR | flags | (q.flags & RD))
    memset(out + 6, 0, 6)
    return DP_HEADER + q.question_n


cdef inline size_t put_opt(
    const dp_query *q, int scope, const uint8_t *cookie, uint8_t *out
) noexcept nogil:
    """RFC 6891 7: an OPT where there was one. RFC 7871 7.2.2: a client subnet likewise, as it came but for the scope."""
    cdef size_t at = OPT_N
    memset(out, 0, OPT_N)
    out[2] = TYPE_OPT
    dp_put16(out + 3, PAYLOAD)
    out[7] = q.dnssec_ok << 7
    if q.subnet:
        dp_put16(out + at, 8)
        dp_put16(out + at + 2, 4 + q.address_n)
        dp_put16(out + at + 4, q.family)
        out[at + 6] = q.source
        out[at + 7] = scope if scope > 0 else 0
        memcpy(out + at + 8, q.address, q.address_n)
        at += SUBNET_N + q.address_n
    if cookie != NULL:
        dp_put16(out + at, 10)
        dp_put16(out + at + 2, COOKIE_N - 4)
        memcpy(out + at + 4, cookie, COOKIE_N - 4)
        at += COOKIE_N
    dp_put16(out + 9, at - OPT_N)
    return at


cdef size_t put_cut(
    const dp_query *q, const uint8_t *packet, uint16_t flags, int scope, const uint8_t *cookie, uint8_t *out
) noexcept nogil:
    """Nothing but the word that there is more: TC (RFC 2181 9)."""
    cdef size_t at = put_front(q, packet, flags | TC, out)
    if q.edns:
        out[11] = 1
        at += put_opt(q, scope, cookie, out + at)
    return at


cdef size_t length_of(const dp_query *q, const Reply *answer, bint cookie) noexcept nogil:
    """Of the whole answer."""
    cdef size_t n = DP_HEADER + q.question_n + answer.body_n
    if q.edns:
        n += OPT_N
        n += SUBNET_N + q.address_n if q.subnet else 0
        n += COOKIE_N if cookie else 0
    return n


cdef size_t put_together(
    const dp_query *q, const uint8_t *packet, const Reply *answer, int scope, const uint8_t *cookie, size_t most,
    uint8_t *out
) noexcept nogil:
    """The whole answer in at most `most` octets, or cut. `out` has room for the body and 512 octets."""
    cdef size_t at = length_of(q, answer, cookie != NULL), i
    cdef uint8_t *body
    if at > most:
        return put_cut(q, packet, answer.flags, scope, cookie, out)
    at = put_front(q, packet, answer.flags, out)
    dp_put16(out + 6, answer.answers)
    dp_put16(out + 8, answer.authority)
    dp_put16(out + 10, answer.additional + q.edns)
    body = out + at
    memcpy(body, answer.body, answer.body_n)
    for i in range(answer.patches):
        dp_put16(body + answer.patch[i].at, 0xC000 | (q.name_n + answer.patch[i].more))
    at += answer.body_n
    if q.edns:
        at += put_opt(q, scope, cookie, out + at)
    return at
