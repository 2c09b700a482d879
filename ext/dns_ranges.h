/* Search in sorted range starts, two levels deep: every 64th start lies in a table of its own, small enough to stay in
 * the first-level cache, and one more search within 64 neighbours finds the range. Both searches are free of branches
 * that depend on the address.
 *
 * A family's ranges cover its whole space: the first starts at 0, each ends before the next, the last ends with all
 * bits set. IPv6 addresses are 128-bit numbers. */

#ifndef EC_DNS_RANGES_H
#define EC_DNS_RANGES_H

#include <stddef.h>
#include <stdint.h>

typedef unsigned __int128 dr_u128;

#define DR_STEP 64

#define DR_SEARCH(name, type)                                                                                       \
    static inline size_t name(const type *starts, size_t count, type address)                                      \
    { /* the last start at or below the address; starts[0] is */                                                   \
        const type *base = starts;                                                                                 \
        while (count > 1) {                                                                                        \
            size_t half = count / 2;                                                                               \
            base += base[half] <= address ? half : 0;                                                              \
            count -= half;                                                                                         \
        }                                                                                                          \
        return (size_t)(base - starts);                                                                            \
    }                                                                                                              \
    static inline size_t name##_in_two(const type *starts, size_t count, const type *tops, type address)           \
    {                                                                                                              \
        size_t block = name(tops, (count + DR_STEP - 1) / DR_STEP, address) * DR_STEP;                             \
        size_t rest = count - block;                                                                               \
        return block + name(starts + block, rest < DR_STEP ? rest : DR_STEP, address);                             \
    }

DR_SEARCH(dr_search4, uint32_t)
DR_SEARCH(dr_search6, dr_u128)

/* Leading bits two addresses have in common. */
static inline int dr_common4(uint32_t a, uint32_t b)
{
    return a == b ? 32 : __builtin_clz(a ^ b);
}

static inline int dr_common6(dr_u128 a, dr_u128 b)
{
    uint64_t high = (uint64_t)((a ^ b) >> 64), low = (uint64_t)(a ^ b);
    return high ? __builtin_clzll(high) : low ? 64 + __builtin_clzll(low) : 128;
}

/* RFC 7871 7.2.1: the shortest prefix of the address that lies wholly within its range: long enough to part it from
 * the address before the range and from the one after. */
static inline int dr_prefix4(const uint32_t *starts, size_t count, size_t at, uint32_t address)
{
    int prefix = 0, other;
    if (at > 0)
        prefix = dr_common4(address, starts[at] - 1) + 1;
    if (at + 1 < count && (other = dr_common4(address, starts[at + 1]) + 1) > prefix)
        prefix = other;
    return prefix;
}

static inline int dr_prefix6(const dr_u128 *starts, size_t count, size_t at, dr_u128 address)
{
    int prefix = 0, other;
    if (at > 0)
        prefix = dr_common6(address, starts[at] - 1) + 1;
    if (at + 1 < count && (other = dr_common6(address, starts[at + 1]) + 1) > prefix)
        prefix = other;
    return prefix;
}

static inline dr_u128 dr_join(uint64_t high, uint64_t low)
{
    return (dr_u128)high << 64 | low;
}

static inline dr_u128 dr_load6(const uint8_t *octets)
{
    uint64_t high, low;
    __builtin_memcpy(&high, octets, 8);
    __builtin_memcpy(&low, octets + 8, 8);
    return dr_join(__builtin_bswap64(high), __builtin_bswap64(low));
}

static inline uint32_t dr_load4(const uint8_t *octets)
{
    uint32_t value;
    __builtin_memcpy(&value, octets, 4);
    return __builtin_bswap32(value);
}

#endif
