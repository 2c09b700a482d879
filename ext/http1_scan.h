/* Scanners for HTTP/1.1 heads (RFC 9112, RFC 9110 §5, RFC 3986 §2-3): octets in, verdicts out.
 *
 * Nothing here allocates, knows of Python, or reads outside [p, p + n). h1_init() fills the class table once, at
 * import. The callers in http1.pyx hand in one line at a time, without its CRLF. */

#ifndef EDGECACHE_HTTP1_SCAN_H
#define EDGECACHE_HTTP1_SCAN_H

#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    H1_TOKEN = 1,   /* tchar, RFC 9110 §5.6.2 */
    H1_TARGET = 2,  /* what may stand in a request-target here: no CTL, no SP, no '#' */
    H1_HOST = 4,    /* unreserved, sub-delims: reg-name less pct-encoded, RFC 3986 §3.2.2 */
    H1_VALUE = 8,   /* field-vchar, SP, HTAB, RFC 9110 §5.5 */
};

static uint8_t H1_CLASS[256];
static int8_t H1_HEX[256]; /* value of a HEXDIG, else -1 */

static void h1_set(const char *octets, uint8_t cls) {
    for (; *octets; octets++) H1_CLASS[(uint8_t)*octets] |= cls;
}

static void h1_init(void) {
    memset(H1_CLASS, 0, sizeof H1_CLASS);
    memset(H1_HEX, -1, sizeof H1_HEX);
    for (int c = 0; c < 256; c++) {
        int alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (alnum) H1_CLASS[c] |= H1_TOKEN | H1_HOST;
        if (c > 0x20 && c != 0x7f && c != '#') H1_CLASS[c] |= H1_TARGET;
        if (c == '\t' || (c >= 0x20 && c != 0x7f)) H1_CLASS[c] |= H1_VALUE;
        if (c >= '0' && c <= '9') H1_HEX[c] = (int8_t)(c - '0');
        if (c >= 'A' && c <= 'F') H1_HEX[c] = (int8_t)(c - 'A' + 10);
        if (c >= 'a' && c <= 'f') H1_HEX[c] = (int8_t)(c - 'a' + 10);
    }
    h1_set("!#$%&'*+-.^_`|~", H1_TOKEN);
    h1_set("-._~!$&'()*+,;=", H1_HOST);
}

static inline int h1_ows(uint8_t c) { return c == ' ' || c == '\t'; }

static inline int h1_is_token(const uint8_t *p, size_t n) {
    if (n == 0) return 0;
    for (size_t i = 0; i < n; i++)
        if (!(H1_CLASS[p[i]] & H1_TOKEN)) return 0;
    return 1;
}

/* -1: a CTL other than HTAB; 0: fit, all ASCII; 1: fit, with obs-text (RFC 9110 §5.5). Without an early exit, so
 * that the compiler makes vector code of it. */
static inline int h1_check_value(const uint8_t *p, size_t n) {
    uint8_t bad = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = p[i];
        bad |= (uint8_t)((c < 0x20) & (c != '\t')) | (uint8_t)(c == 0x7f);
        high |= c;
    }
    return bad ? -1 : high >> 7;
}

/* Does [p, p + n) equal `word` (given in lower case, no NUL in it), letters of either case? */
static inline int h1_same(const uint8_t *p, size_t n, const char *word, size_t word_n) {
    if (n != word_n) return 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = p[i];
        if (c >= 'A' && c <= 'Z') c |= 0x20;
        if (c != (uint8_t)word[i]) return 0;
    }
    return 1;
}
#define H1_SAME(p, n, literal) h1_same((p), (n), literal, sizeof(literal) - 1)

/* Names that steer framing or routing, and those a trailer section may not carry on (RFC 9110 §6.5.1). */
enum {
    H1_F_OTHER = 0,
    H1_F_CONTENT_LENGTH,
    H1_F_TRANSFER_ENCODING,
    H1_F_HOST,
    H1_F_CONNECTION,
    H1_F_EXPECT,
    H1_F_UPGRADE,
    H1_F_NOT_TRAILER, /* means nothing to framing, yet is void in a trailer section */
};

static int h1_field(const uint8_t *p, size_t n) {
    switch (n) {
    case 2: return H1_SAME(p, n, "te") ? H1_F_NOT_TRAILER : H1_F_OTHER;
    case 4: return H1_SAME(p, n, "host") ? H1_F_HOST : H1_F_OTHER;
    case 6: return H1_SAME(p, n, "expect") ? H1_F_EXPECT : H1_F_OTHER;
    case 7:
        if (H1_SAME(p, n, "upgrade")) return H1_F_UPGRADE;
        return H1_SAME(p, n, "trailer") ? H1_F_NOT_TRAILER : H1_F_OTHER;
    case 10:
        if (H1_SAME(p, n, "connection")) return H1_F_CONNECTION;
        return H1_SAME(p, n, "keep-alive") ? H1_F_NOT_TRAILER : H1_F_OTHER;
    case 12: return H1_SAME(p, n, "content-type") ? H1_F_NOT_TRAILER : H1_F_OTHER;
    case 13: return H1_SAME(p, n, "content-range") ? H1_F_NOT_TRAILER : H1_F_OTHER;
    case 14: return H1_SAME(p, n, "content-length") ? H1_F_CONTENT_LENGTH : H1_F_OTHER;
    case 16:
        if (H1_SAME(p, n, "content-encoding")) return H1_F_NOT_TRAILER;
        return H1_SAME(p, n, "proxy-connection") ? H1_F_NOT_TRAILER : H1_F_OTHER;
    case 17: return H1_SAME(p, n, "transfer-encoding") ? H1_F_TRANSFER_ENCODING : H1_F_OTHER;
    default: return H1_F_OTHER;
    }
}

/* For the table of known names: a few loads and a multiplication, since the table is small and its keys are ours. */
static inline uint32_t h1_hash(const uint8_t *p, size_t n) {
    uint64_t a = 0, b = 0;
    if (n >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
    } else if (n) {
        a = (uint64_t)p[0] << 16 | (uint64_t)p[n >> 1] << 8 | p[n - 1];
    }
    a = (a ^ (b * UINT64_C(0x9E3779B97F4A7C15)) ^ n) * UINT64_C(0xD6E8FEB86659FD93);
    return (uint32_t)(a >> 48);
}

/* Content-Length, RFC 9110 §8.6: 1*DIGIT and nothing else. 0: fit; 1: malformed; 2: beyond 2^63-1, or more digits
 * than that number has (leading zeros too: readers with fixed-size numbers differ about those). */
static int h1_length(const uint8_t *p, size_t n, int64_t *length) {
    uint64_t value = 0;
    if (n == 0) return 1;
    for (size_t i = 0; i < n; i++)
        if (p[i] < '0' || p[i] > '9') return 1;
    if (n > 19) return 2;
    for (size_t i = 0; i < n; i++) value = value * 10 + (p[i] - '0');
    if (value > INT64_MAX) return 2;
    *length = (int64_t)value;
    return 0;
}

/* One member of a comma-separated list (RFC 9110 §5.6.1), less white space around it. Advances *at beyond it;
 * 0 at the end of the list. A member may be empty. */
static int h1_member(const uint8_t *p, size_t n, size_t *at, const uint8_t **member, size_t *member_n) {
    size_t from = *at, to;
    const uint8_t *comma;
    if (from > n) return 0;
    comma = memchr(p + from, ',', n - from);
    to = comma ? (size_t)(comma - p) : n;
    *at = to + 1;
    while (from < to && h1_ows(p[from])) from++;
    while (to > from && h1_ows(p[to - 1])) to--;
    *member = p + from;
    *member_n = to - from;
    return 1;
}

enum { H1_CLOSE = 1, H1_KEEP_ALIVE = 2, H1_UPGRADE = 4 };

/* Connection, RFC 9110 §7.6.1: which of the options that matter here it names. */
static int h1_options(const uint8_t *p, size_t n) {
    size_t at = 0, m_n;
    const uint8_t *m;
    int seen = 0;
    while (h1_member(p, n, &at, &m, &m_n)) {
        if (H1_SAME(m, m_n, "close")) seen |= H1_CLOSE;
        else if (H1_SAME(m, m_n, "keep-alive")) seen |= H1_KEEP_ALIVE;
        else if (H1_SAME(m, m_n, "upgrade")) seen |= H1_UPGRADE;
    }
    return seen;
}

enum {
    H1_TE_SEEN = 1,
    H1_TE_CHUNKED = 2, /* named */
    H1_TE_LAST = 4,    /* the last coding named so far is chunked */
    H1_TE_AGAIN = 8,   /* named twice */
    H1_TE_OTHER = 16,  /* another coding is named */
    H1_TE_BAD = 32,    /* an empty member, no token, or chunked with parameters (RFC 9112 §7.1) */
};

/* Transfer-Encoding, RFC 9112 §6.1: `state` of the lines before, and this line, in flags. */
static int h1_codings(const uint8_t *p, size_t n, int state) {
    size_t at = 0, m_n, name_n;
    const uint8_t *m;
    state |= H1_TE_SEEN;
    while (h1_member(p, n, &at, &m, &m_n)) {
        for (name_n = 0; name_n < m_n && (H1_CLASS[m[name_n]] & H1_TOKEN);) name_n++;
        if (name_n == 0) {
            state |= H1_TE_BAD;
        } else if (H1_SAME(m, name_n, "chunked")) {
            if (name_n != m_n) state |= H1_TE_BAD;
            if (state & H1_TE_CHUNKED) state |= H1_TE_AGAIN;
            state |= H1_TE_CHUNKED | H1_TE_LAST;
        } else {
            if (name_n != m_n && m[name_n] != ';' && !h1_ows(m[name_n])) state |= H1_TE_BAD;
            state = (state | H1_TE_OTHER) & ~H1_TE_LAST;
        }
    }
    return state;
}

/* uri-host [ ":" port ], RFC 3986 §3.2.2-3, RFC 9110 §4.2 and §7.2. Stricter in three places where readers differ:
 * not empty; a port after ":" is 1 to 65535 in at most five digits; no IPvFuture and no zone. 1: fit. */
static int h1_authority(const uint8_t *p, size_t n, int port_needed) {
    size_t i = 0;
    if (n == 0) return 0;
    if (p[0] == '[') {
        char text[INET6_ADDRSTRLEN + 1];
        struct in6_addr address;
        const uint8_t *end = memchr(p, ']', n);
        size_t text_n;
        if (!end) return 0;
        text_n = (size_t)(end - p) - 1;
        if (text_n == 0 || text_n >= sizeof text) return 0;
        for (i = 0; i < text_n; i++)
            if (H1_HEX[p[1 + i]] < 0 && p[1 + i] != ':' && p[1 + i] != '.') return 0;
        memcpy(text, p + 1, text_n);
        text[text_n] = 0;
        if (inet_pton(AF_INET6, text, &address) != 1) return 0;
        i = text_n + 2;
    } else {
        while (i < n && p[i] != ':') {
            if (H1_CLASS[p[i]] & H1_HOST) i++;
            else if (p[i] == '%' && n - i > 2 && H1_HEX[p[i + 1]] >= 0 && H1_HEX[p[i + 2]] >= 0) i += 3;
            else return 0;
        }
        if (i == 0) return 0;
    }
    if (i == n) return !port_needed;
    if (p[i] != ':' || n - i < 2 || n - i > 6) return 0;
    uint32_t port = 0;
    for (i++; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return 0;
        port = port * 10 + (p[i] - '0');
    }
    return port >= 1 && port <= 65535;
}

/* chunk-size [ chunk-ext ], RFC 9112 §7.1 and §7.1.1. 1: fit; *extension is the number of octets after the size.
 * White space right after the size is refused although the extension grammar has BWS there: readers differ. */
static int h1_chunk_line(const uint8_t *p, size_t n, int64_t *size, size_t *extension) {
    uint64_t value = 0;
    size_t i = 0, start;
    while (i < n && H1_HEX[p[i]] >= 0) {
        if (i == 16) return 0;
        value = value << 4 | (uint64_t)H1_HEX[p[i++]];
    }
    if (i == 0 || value > INT64_MAX) return 0;
    *size = (int64_t)value;
    *extension = n - i;
    if (i < n && p[i] != ';') return 0;
    while (i < n) {
        while (i < n && h1_ows(p[i])) i++;
        if (i == n || p[i] != ';') return 0;
        for (i++; i < n && h1_ows(p[i]);) i++;
        for (start = i; i < n && (H1_CLASS[p[i]] & H1_TOKEN);) i++;
        if (i == start) return 0;
        size_t j = i;
        while (j < n && h1_ows(p[j])) j++;
        if (j == n || p[j] != '=') continue;
        for (i = j + 1; i < n && h1_ows(p[i]);) i++;
        if (i < n && p[i] == '"') { /* quoted-string, RFC 9110 §5.6.4 */
            for (i++; i < n && p[i] != '"'; i++) {
                if (p[i] == '\\' && ++i == n) return 0;
                if (!(H1_CLASS[p[i]] & H1_VALUE)) return 0;
            }
            if (i == n) return 0;
            i++;
        } else {
            for (start = i; i < n && (H1_CLASS[p[i]] & H1_TOKEN);) i++;
            if (i == start) return 0;
        }
    }
    return 1;
}

#endif
