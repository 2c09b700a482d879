/* Recognises a plain request: what the fast lane may answer by itself (DESIGN §10).
 *
 * It accepts a subset of what ext/http1_frame.pyx accepts, and reads it the same way: one complete GET or HEAD over
 * HTTP/1.1 in one piece, in canonical spelling, with nothing in it that needs judgement. Whatever is odd is not for
 * it: 0, and the octets go untouched to the ordinary path, which has the errors. Nothing here allocates or knows of
 * Python; nothing reads outside [p, p + n). h1_init() must have run. */

#ifndef EDGECACHE_PLAIN_REQUEST_H
#define EDGECACHE_PLAIN_REQUEST_H

#include "http1_scan.h"

enum { PR_MAX_FIELDS = 64, PR_MAX_TARGET = 2000, PR_MAX_HOST = 255 };

typedef struct {
    uint32_t name, name_n;   /* offsets from the request's first octet, and sizes */
    uint32_t value, value_n; /* without white space around it */
} pr_field;

typedef struct {
    int head;                /* HEAD, else GET */
    uint32_t target, target_n;
    uint32_t query;          /* offset of '?', 0: none */
    uint32_t field_n;
    /* indices into fields, -1: not there. At most one of each, else the request is not plain. */
    int host, if_none_match, if_modified_since, user_agent, referer, via, forwarded_for;
    pr_field fields[PR_MAX_FIELDS];
} pr_request;

typedef struct {
    uint32_t request_line, field_line, head, fields; /* the listener's limits (http1.Limits) */
} pr_limits;

enum {
    PR_PATH = 1,  /* stands in a canonical path or query as itself: pchar, "/", "?" (RFC 3986 §3.3, §3.4) */
    PR_UNRESERVED = 2,
    PR_HOST = 4,  /* of a canonical reg-name: no upper case, no percent */
};

static uint8_t PR_CLASS[256];

static void pr_set(const char *octets, uint8_t cls) {
    for (; *octets; octets++) PR_CLASS[(uint8_t)*octets] |= cls;
}

static void pr_init(void) {
    memset(PR_CLASS, 0, sizeof PR_CLASS);
    for (int c = 0; c < 256; c++) {
        int lower = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (lower) PR_CLASS[c] |= PR_PATH | PR_UNRESERVED | PR_HOST;
        if (c >= 'A' && c <= 'Z') PR_CLASS[c] |= PR_PATH | PR_UNRESERVED;
    }
    pr_set("-._~", PR_PATH | PR_UNRESERVED);
    pr_set("!$&'()*+,;=:@/?", PR_PATH);
    pr_set("-._", PR_HOST);
}

/* "%XX" that cache_key (edgecache/http/cachekey.py) would leave as it is: upper-case digits, no unreserved octet. */
static inline int pr_canonical_escape(const uint8_t *p, size_t n) {
    if (n < 3) return 0;
    for (int i = 1; i < 3; i++)
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'A' && p[i] <= 'F'))) return 0;
    return !(PR_CLASS[(H1_HEX[p[1]] << 4) | H1_HEX[p[2]]] & PR_UNRESERVED);
}

/* Fields of a request that the cache or the framing has to judge: their mere presence sends it the ordinary way. */
static inline int pr_needs_judgement(const uint8_t *p, size_t n) {
    switch (n) {
    case 5: return H1_SAME(p, n, "range");
    case 6: return H1_SAME(p, n, "expect") || H1_SAME(p, n, "pragma");
    case 7: return H1_SAME(p, n, "upgrade");
    case 8: return H1_SAME(p, n, "if-match") || H1_SAME(p, n, "if-range");
    case 12: return H1_SAME(p, n, "max-forwards");
    case 13: return H1_SAME(p, n, "authorization") || H1_SAME(p, n, "cache-control");
    case 14: return H1_SAME(p, n, "content-length");
    case 17: return H1_SAME(p, n, "transfer-encoding");
    case 19: return H1_SAME(p, n, "if-unmodified-since");
    default: return 0;
    }
}

static inline int pr_once(int *slot, uint32_t index) {
    if (*slot >= 0) return 0;
    *slot = (int)index;
    return 1;
}

/* 1 when the field leaves the request plain. */
static inline int pr_note(pr_request *r, uint32_t index, const uint8_t *p, size_t n, const uint8_t *v, size_t v_n) {
    switch (n) {
    case 3: return H1_SAME(p, n, "via") ? pr_once(&r->via, index) : 1;
    case 4: return H1_SAME(p, n, "host") ? pr_once(&r->host, index) : 1;
    case 7:
        if (H1_SAME(p, n, "referer")) return pr_once(&r->referer, index);
        break;
    case 10:
        if (H1_SAME(p, n, "user-agent")) return pr_once(&r->user_agent, index);
        if (H1_SAME(p, n, "connection")) return H1_SAME(v, v_n, "keep-alive");
        break;
    case 13:
        if (H1_SAME(p, n, "if-none-match")) return pr_once(&r->if_none_match, index);
        break;
    case 15:
        if (H1_SAME(p, n, "x-forwarded-for")) return pr_once(&r->forwarded_for, index);
        break;
    case 17:
        if (H1_SAME(p, n, "if-modified-since")) return pr_once(&r->if_modified_since, index);
        break;
    default: break;
    }
    return !pr_needs_judgement(p, n);
}

static inline int pr_host_fit(const uint8_t *p, size_t n, int tls) {
    size_t i = 0;
    uint32_t port = 0;
    if (n == 0 || n > PR_MAX_HOST) return 0;
    while (i < n && p[i] != ':') {
        if (!(PR_CLASS[p[i]] & PR_HOST)) return 0;
        i++;
    }
    if (i == 0) return 0;
    if (i == n) return 1;
    if (n - i < 2 || n - i > 6 || p[i + 1] == '0') return 0;
    for (i++; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return 0;
        port = port * 10 + (p[i] - '0');
    }
    return port <= 65535 && port != (tls ? 443u : 80u);
}

static int pr_read(const uint8_t *p, size_t n, const pr_limits *limits, int tls, pr_request *r) {
    size_t at, end;
    if (n < 18 || n > limits->head || memcmp(p + n - 4, "\r\n\r\n", 4)) return 0;
    if (!memcmp(p, "GET /", 5)) {
        r->head = 0;
        at = 4;
    } else if (!memcmp(p, "HEAD /", 6)) {
        r->head = 1;
        at = 5;
    } else {
        return 0;
    }
    r->target = (uint32_t)at;
    r->query = 0;
    for (;; at++) {
        uint8_t c = p[at]; /* the last four octets are no path octets: the loop ends before the end */
        if (PR_CLASS[c] & PR_PATH) {
            if (c == '?' && !r->query) r->query = (uint32_t)at;
        } else if (c == '%' && pr_canonical_escape(p + at, n - at)) {
            at += 2;
        } else {
            break;
        }
    }
    r->target_n = (uint32_t)at - r->target;
    if (r->target_n > PR_MAX_TARGET || n - at < 13 || memcmp(p + at, " HTTP/1.1\r\n", 11)) return 0;
    if (at + 9 > limits->request_line) return 0;
    at += 11;
    r->field_n = 0;
    r->host = r->if_none_match = r->if_modified_since = r->user_agent = r->referer = r->via = r->forwarded_for = -1;
    end = n - 2;
    while (at < end) {
        const uint8_t *cr = memchr(p + at, '\r', end - at);
        size_t colon, from, to;
        if (!cr || cr[1] != '\n') return 0;
        to = (size_t)(cr - p);
        if (to - at > limits->field_line || r->field_n >= PR_MAX_FIELDS || r->field_n >= limits->fields) return 0;
        for (colon = at; colon < to && (H1_CLASS[p[colon]] & H1_TOKEN);) colon++;
        if (colon == at || colon == to || p[colon] != ':') return 0;
        from = colon + 1;
        const size_t next = to + 2;
        while (from < to && h1_ows(p[from])) from++;
        while (to > from && h1_ows(p[to - 1])) to--;
        if (h1_check_value(p + from, to - from) < 0) return 0;
        pr_field *f = &r->fields[r->field_n];
        f->name = (uint32_t)at;
        f->name_n = (uint32_t)(colon - at);
        f->value = (uint32_t)from;
        f->value_n = (uint32_t)(to - from);
        if (!pr_note(r, r->field_n, p + at, colon - at, p + from, to - from)) return 0;
        r->field_n++;
        at = next;
    }
    if (at != end || r->host < 0) return 0;
    const pr_field *host = &r->fields[r->host];
    return pr_host_fit(p + host->value, host->value_n, tls);
}

/* Does the list of If-None-Match hold `tag` (an entity-tag with its quotes, weak mark already dropped)? Weak
 * comparison, RFC 9110 §8.8.3.2. 1 yes, 0 no, -1: not a plain list. */
static int pr_tag_listed(const uint8_t *p, size_t n, const uint8_t *tag, size_t tag_n) {
    size_t at = 0;
    int found = 0;
    if (n == 0) return -1;
    while (at < n) {
        size_t start;
        if (n - at > 2 && p[at] == 'W' && p[at + 1] == '/') at += 2;
        if (p[at] != '"') return -1;
        start = at++;
        while (at < n && p[at] != '"') {
            if (p[at] < 0x21 || p[at] == '\\' || p[at] >= 0x7f) return -1;
            at++;
        }
        if (at == n) return -1;
        at++;
        if (at - start == tag_n && !memcmp(p + start, tag, tag_n)) found = 1;
        if (at == n) break;
        if (n - at < 3 || p[at] != ',') return -1;
        at++;
        while (at < n && h1_ows(p[at])) at++;
        if (at == n) return -1;
    }
    return found;
}

/* The field lines of a stored head, one after another: name [p, +name_n), value. 0 at the end. */
static inline int pr_head_line(const uint8_t *p, size_t n, size_t *at, pr_field *f) {
    const uint8_t *cr, *colon;
    if (*at >= n) return 0;
    cr = memchr(p + *at, '\r', n - *at);
    if (!cr) return 0;
    colon = memchr(p + *at, ':', (size_t)(cr - p) - *at);
    if (!colon) return 0;
    f->name = (uint32_t)*at;
    f->name_n = (uint32_t)((size_t)(colon - p) - *at);
    f->value = (uint32_t)(colon - p) + 2;
    f->value_n = (uint32_t)(cr - p) - f->value;
    *at = (size_t)(cr - p) + 2;
    return 1;
}

/* Fields that a 304 leaves out (policy/respond.py NOT_IN_304). */
static inline int pr_not_in_304(const uint8_t *p, size_t n, int has_etag) {
    switch (n) {
    case 11: return H1_SAME(p, n, "content-md5");
    case 12: return H1_SAME(p, n, "content-type");
    case 13: return H1_SAME(p, n, "content-range") || H1_SAME(p, n, "accept-ranges") ||
                    (has_etag && H1_SAME(p, n, "last-modified"));
    case 14: return H1_SAME(p, n, "content-length") || H1_SAME(p, n, "content-digest");
    case 16: return H1_SAME(p, n, "content-encoding") || H1_SAME(p, n, "content-language");
    default: return 0;
    }
}

#endif
