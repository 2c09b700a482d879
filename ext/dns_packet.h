/* Reads a plain query in place: exactly one question of class IN, and at most an OPT with options that are known here.
 *
 * What is odd in any way is not for this reader: it says so, and somebody slower looks at the packet.
 * It never reads past the packet's end and follows no pointers. */

#ifndef EC_DNS_PACKET_H
#define EC_DNS_PACKET_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DP_HEADER 12
#define DP_LABELS 127
#define DP_RD 0x0100
#define DP_COOKIE_MOST 40

/* RFC 1035 4.1.1, RFC 4035 3.2: what a query's flags may be for us: RD, AD, CD and nothing else; opcode 0. */
#define DP_FLAGS_KNOWN (DP_RD | 0x0020 | 0x0010)

typedef struct {
    uint16_t flags;
    uint16_t kind;            /* QTYPE */
    uint16_t question_n;      /* octets of the question section */
    uint16_t name_n;          /* of them, the name with its root label */
    uint16_t labels;          /* without the root */
    uint16_t size;            /* the client's UDP payload size; 0 without OPT */
    uint8_t edns, dnssec_ok;
    uint8_t unknown;          /* there are options that are not known here */
    uint8_t subnet;           /* there is a client subnet option */
    uint8_t family, source;   /* 1 or 2; prefix length */
    uint8_t address_n;        /* octets of the address as sent */
    uint8_t cookie_n;         /* 0, 8, or 16 to 40 octets */
    const uint8_t *cookie;
    uint8_t address[16];      /* padded with zeros */
    uint8_t label_at[DP_LABELS];
    uint8_t name[256];        /* lower case */
    uint64_t hashes[DP_LABELS + 1]; /* of the name from each label on; the last is the root's */
} dp_query;

static inline unsigned dp_16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static inline void dp_put16(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* A name's hash grows from its end, so that one pass gives those of all its ancestors. Names are lower case. */
static inline uint64_t dp_hash_label(uint64_t hash, const uint8_t *label)
{
    unsigned n = label[0] + 1u, i = 0;
    for (; i < n; i++)
        hash = (hash ^ label[i]) * 0x9E3779B97F4A7C15ull, hash ^= hash >> 29;
    return hash;
}

static inline uint64_t dp_hash_name(const uint8_t *name, size_t n)
{
    uint8_t at[DP_LABELS + 1];
    unsigned labels = 0;
    size_t i = 0;
    uint64_t hash = 0;
    while (i < n && name[i] && labels < DP_LABELS) {
        at[labels++] = (uint8_t)i;
        i += name[i] + 1u;
    }
    while (labels)
        hash = dp_hash_label(hash, name + at[--labels]);
    return hash;
}

/* RFC 1035 3.1: labels of 1 to 63 octets, 255 in all, upper case folded. 0 when it is no such name. */
static inline int dp_name(const uint8_t *p, size_t n, dp_query *q)
{
    size_t at = 0, i;
    unsigned length;
    q->labels = 0;
    for (;;) {
        if (at >= n || at > 254)
            return 0;
        length = p[at];
        q->name[at] = (uint8_t)length;
        if (length == 0)
            break;
        if (length > 63 || at + length >= n || at + length > 253 || q->labels == DP_LABELS)
            return 0;
        q->label_at[q->labels++] = (uint8_t)at;
        for (i = at + 1; i <= at + length; i++)
            q->name[i] = (uint8_t)(p[i] + ((uint8_t)(p[i] - 'A') < 26 ? 32 : 0));
        at += length + 1;
    }
    q->name_n = (uint16_t)(at + 1);
    uint64_t hash = 0;
    q->hashes[q->labels] = 0;
    for (i = q->labels; i--;) {
        hash = dp_hash_label(hash, q->name + q->label_at[i]);
        q->hashes[i] = hash;
    }
    return 1;
}

/* RFC 7871 6: the address has just the octets its prefix needs, and no bit after it; a query's scope is 0. */
static inline int dp_subnet(const uint8_t *p, unsigned n, dp_query *q)
{
    unsigned family, source, octets;
    if (q->subnet || n < 4)
        return 0;
    family = dp_16(p);
    source = p[2];
    octets = (source + 7) / 8;
    if ((family != 1 && family != 2) || source > (family == 1 ? 32u : 128u) || p[3] != 0 || n != 4 + octets)
        return 0;
    memset(q->address, 0, sizeof q->address);
    memcpy(q->address, p + 4, octets);
    if (source % 8 && (q->address[octets - 1] & (0xFFu >> source % 8)))
        return 0;
    q->subnet = 1;
    q->family = (uint8_t)family;
    q->source = (uint8_t)source;
    q->address_n = (uint8_t)octets;
    return 1;
}

/* RFC 6891 6.1.2: the OPT record, alone and last. Version 0, no flag but DO. */
static inline int dp_opt(const uint8_t *p, size_t n, dp_query *q)
{
    size_t at = 11;
    unsigned code, length;
    if (n < 11 || p[0] != 0 || dp_16(p + 1) != 41 || p[5] != 0 || p[6] != 0 || (dp_16(p + 7) & 0x7FFF) != 0 ||
        dp_16(p + 9) != n - 11)
        return 0;
    q->edns = 1;
    q->size = (uint16_t)dp_16(p + 3);
    q->dnssec_ok = p[7] >> 7;
    while (at < n) {
        if (n - at < 4)
            return 0;
        code = dp_16(p + at);
        length = dp_16(p + at + 2);
        at += 4;
        if (length > n - at)
            return 0;
        switch (code) {
        case 8:
            if (!dp_subnet(p + at, length, q))
                return 0;
            break;
        case 10: /* RFC 7873 5.2: 8 octets of the client's, and none or 8 to 32 of the server's */
            if (q->cookie_n || (length != 8 && (length < 16 || length > DP_COOKIE_MOST)))
                return 0;
            q->cookie_n = (uint8_t)length;
            q->cookie = p + at;
            break;
        default:
            q->unknown = 1;
            break;
        }
        at += length;
    }
    return 1;
}

/* 1 when the packet is a plain query and `q` describes it; 2 when it would be one but for options that are not known
 * here, which RFC 6891 6.1.2 says to ignore. */
static inline int dp_read(const uint8_t *p, size_t n, dp_query *q)
{
    size_t at;
    if (n < DP_HEADER + 5)
        return 0;
    q->flags = (uint16_t)dp_16(p + 2);
    if ((q->flags & ~DP_FLAGS_KNOWN) != 0 || dp_16(p + 4) != 1 || dp_16(p + 6) != 0 || dp_16(p + 8) != 0 ||
        dp_16(p + 10) > 1 || !dp_name(p + DP_HEADER, n - DP_HEADER, q))
        return 0;
    at = DP_HEADER + q->name_n;
    if (n - at < 4 || dp_16(p + at + 2) != 1)
        return 0;
    q->kind = (uint16_t)dp_16(p + at);
    q->question_n = (uint16_t)(q->name_n + 4);
    at += 4;
    q->edns = q->dnssec_ok = q->unknown = q->subnet = q->cookie_n = 0;
    q->size = 0;
    if (dp_16(p + 10) == 0)
        return at == n;
    return dp_opt(p + at, n - at, q) ? 1 + q->unknown : 0;
}

#endif
