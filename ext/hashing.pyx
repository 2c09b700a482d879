"""SipHash; see the stub. Octets are read little-endian, as on every platform of DESIGN §16."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy


cdef const uint8_t *TAG_KEY = b"edgecache-tag-v1"


cdef inline uint64_t rotl(uint64_t x, int b) noexcept nogil:
    return (x << b) | (x >> (64 - b))


cdef inline void sip_round(uint64_t *v) noexcept nogil:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = rotl(v[1], 13) ^ v[0]
    v[3] = rotl(v[3], 16) ^ v[2]
    v[0] = rotl(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = rotl(v[1], 17) ^ v[2]
    v[3] = rotl(v[3], 21) ^ v[0]
    v[2] = rotl(v[2], 32)


cdef void siphash(
    int c_rounds, int d_rounds, const uint8_t *key, const uint8_t *data, size_t size, uint64_t *low, uint64_t *high
) noexcept nogil:
    """The hash of `size` octets; 64 bits when `high` is NULL, else 128 (which mixes in other constants)."""
    cdef uint64_t v[4]
    cdef uint64_t k0, k1, word
    cdef size_t done = 0
    cdef int i
    memcpy(&k0, key, 8)
    memcpy(&k1, key + 8, 8)
    v[0] = k0 ^ <uint64_t>0x736F6D6570736575
    v[1] = k1 ^ <uint64_t>0x646F72616E646F6D
    v[2] = k0 ^ <uint64_t>0x6C7967656E657261
    v[3] = k1 ^ <uint64_t>0x7465646279746573
    if high != NULL:
        v[1] ^= 0xEE
    while size - done >= 8:
        memcpy(&word, data + done, 8)
        v[3] ^= word
        for i in range(c_rounds):
            sip_round(v)
        v[0] ^= word
        done += 8
    word = 0
    if size > done:
        memcpy(&word, data + done, size - done)
    word |= <uint64_t>size << 56
    v[3] ^= word
    for i in range(c_rounds):
        sip_round(v)
    v[0] ^= word
    v[2] ^= 0xFF if high == NULL else 0xEE
    for i in range(d_rounds):
        sip_round(v)
    low[0] = v[0] ^ v[1] ^ v[2] ^ v[3]
    if high != NULL:
        v[1] ^= 0xDD
        for i in range(d_rounds):
            sip_round(v)
        high[0] = v[0] ^ v[1] ^ v[2] ^ v[3]


def hash_key(bytes secret not None, bytes data not None):
    cdef uint64_t out[2]
    if len(secret) != 16:
        raise ValueError("the secret of hash_key has 16 octets")
    siphash(1, 3, <const uint8_t *><const char *>secret, <const uint8_t *><const char *>data, len(data), out, out + 1)
    return (<const char *>out)[:16]


def hash_tag(bytes data not None):
    cdef uint64_t out
    siphash(2, 4, TAG_KEY, <const uint8_t *><const char *>data, len(data), &out, NULL)
    return out if out else 1


def siphash24(bytes key not None, bytes data not None):
    cdef uint64_t out
    if len(key) != 16:
        raise ValueError("the key of siphash24 has 16 octets")
    siphash(2, 4, <const uint8_t *><const char *>key, <const uint8_t *><const char *>data, len(data), &out, NULL)
    return out
