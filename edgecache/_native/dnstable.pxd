# Ready answers by name, type and list, for the compiled responder. All is under the GIL: an answer that was never
# asked for is fetched from Python and kept.
#
#   node    one per owner name, empty non-terminals too: open addressing by the name's hash, at most half full
#   kind    (type, what answers it): rows of a node lie together
#   geo     a name and type that depend on the client: one number per list of PoPs, filled as lists come up
#   answer  the octets after the question, and how to put them there

cimport cython
from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from edgecache._native.dnsranges cimport Ranges

cdef extern from "dns_packet.h" nogil:
    enum:
        DP_HEADER
        DP_LABELS
    ctypedef struct dp_query:
        uint16_t flags, kind, question_n, name_n, labels, size
        uint8_t edns, dnssec_ok, unknown, subnet, family, source, address_n, cookie_n
        const uint8_t *cookie
        uint8_t address[16]
        uint8_t label_at[127]
        uint8_t name[256]
        uint64_t hashes[128]
    int dp_read(const uint8_t *p, size_t n, dp_query *q)
    void dp_put16(uint8_t *p, unsigned value)
    uint64_t dp_hash_name(const uint8_t *name, size_t n)


cdef struct Patch:
    uint16_t at                      # within the body
    int16_t more                     # what to add to the length of the question's name: the pointer's target


cdef struct Reply:
    const uint8_t *body
    uint32_t body_n
    uint16_t flags                   # of the header, without what is copied from the query
    uint16_t answers, authority, additional
    uint16_t patches
    Patch *patch
    int32_t counted[2]               # counters it adds to; -1: none
    uint8_t by_client                # the scope is the client network's at least


cdef struct Kind:
    uint16_t type
    int32_t answer                   # -1: Python answers; below: -2 - number of a geo


cdef struct Owner:
    uint64_t hash
    const uint8_t *name
    uint16_t name_n
    uint16_t kinds
    uint8_t slow                     # all of it, and what is below, is for Python
    uint8_t used
    uint8_t bare                     # only its zone is known: `fill` says the rest when it is first met
    uint32_t zone
    int32_t wild                     # the node of its "*" child, or -1
    int32_t other                    # the answer for any other type; -1: Python knows
    Kind *kind


cdef struct Geo:
    uint32_t *by_list                # 0 not asked yet, 1 Python answers, 2 by client, else 3 + answer


cdef struct Remembered:
    uint64_t client
    uint32_t geo, number
    uint32_t answer                  # 0 nothing here, 1 Python answers, else 3 + answer


cdef struct Found:
    Reply *answer
    int scope                        # -1: does not depend on the client
    bint error                       # a name that does not exist, or is not ours
    uint32_t subject                 # what is asked for, as response-rate limiting sees it
    int32_t place                    # of the client: a counter; -1: not looked up


@cython.final
cdef class Table:
    cdef Owner *nodes
    cdef size_t node_count, node_mask
    cdef Reply *answers
    cdef size_t answer_count, answer_room
    cdef Geo *geos
    cdef size_t geo_count
    cdef Remembered *clients
    cdef int32_t *absent             # by zone: the answer for a name that is not there
    cdef size_t zone_count
    cdef int32_t outside             # for a name in no zone; -1: Python answers
    cdef Ranges ranges_4
    cdef Ranges ranges_6
    cdef Ranges places_4
    cdef Ranges places_6
    cdef uint64_t *counters
    cdef readonly size_t counter_count
    cdef readonly uint32_t lists
    cdef object ready
    cdef object fill
    cdef list bodies                 # what the answers' octets lie in
    cdef dict known                  # answer as Python gave it -> number
    cdef int32_t _answer(self, answer) except -2
    cdef Owner *_owner(self, bytes name, zone) except NULL
    cdef int _say(self, Owner *node, what) except -1
    cdef int _met(self, Owner *node) except -1
    cdef int _geo(self, size_t number) except -1
    cdef Owner *_find_node(self, const uint8_t *name, size_t name_n, uint64_t hash) noexcept nogil
    cdef int32_t _by_client(self, uint32_t geo, uint32_t number, int version, const uint8_t *address) except -2
    cdef int _given(self, int32_t chosen, Found *found) noexcept
    cdef void count(self, const Found *found) noexcept nogil
    cdef int _read(self, bytes packet, bytes peer, dp_query *q, Found *found) except -1
    cdef int find(self, dp_query *q, const uint8_t *peer, int version, Found *found) except -1


cdef size_t length_of(const dp_query *q, const Reply *answer, bint cookie) noexcept nogil
cdef size_t put_together(
    const dp_query *q, const uint8_t *packet, const Reply *answer, int scope, const uint8_t *cookie, size_t most,
    uint8_t *out
) noexcept nogil
cdef size_t put_cut(
    const dp_query *q, const uint8_t *packet, uint16_t flags, int scope, const uint8_t *cookie, uint8_t *out
) noexcept nogil
