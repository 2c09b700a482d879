/* Access log lines of hits, octet for octet as edgecache/observe/accesslog.py writes them (a test compares both).
 * Nothing allocates; a line that might not fit `room` is not begun, and 0 is returned. */

#ifndef EDGECACHE_ACCESS_LINE_H
#define EDGECACHE_ACCESS_LINE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *p;
    size_t n;
} al_text;

typedef struct {
    al_text stamp;        /* the second, in the format's own form */
    uint32_t milliseconds;
    al_text site, client, method, scheme, host, target, reason, outcome, cache_status, user_agent, referer;
    uint32_t status;
    uint64_t bytes_out;
    uint64_t duration_us, ttfb_us;
    int aborted;
} al_event;

static char *al_put(char *o, const char *text, size_t n) {
    memcpy(o, text, n);
    return o + n;
}
#define AL_LITERAL(o, text) al_put((o), text, sizeof(text) - 1)

static char *al_number(char *o, uint64_t value) {
    char digits[20];
    int n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (n) *o++ = digits[--n];
    return o;
}

static char *al_seconds(char *o, uint64_t us) {
    uint64_t part = us % 1000000;
    o = al_number(o, us / 1000000);
    *o++ = '.';
    for (uint64_t unit = 100000; unit; unit /= 10) *o++ = (char)('0' + part / unit % 10);
    return o;
}

static char *al_quoted(char *o, al_text t) {
    static const char hex[] = "0123456789abcdef";
    *o++ = '"';
    for (size_t i = 0; i < t.n; i++) {
        uint8_t c = (uint8_t)t.p[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
            *o++ = (char)c;
        } else if (c == '"' || c == '\\') {
            *o++ = '\\';
            *o++ = (char)c;
        } else if (c >= 0x08 && c <= 0x0d && c != 0x0b) {
            *o++ = '\\';
            *o++ = "btn?fr"[c - 0x08];
        } else { /* other controls, and Latin-1 */
            o = AL_LITERAL(o, "\\u00");
            *o++ = hex[c >> 4];
            *o++ = hex[c & 15];
        }
    }
    *o++ = '"';
    return o;
}

static size_t al_most(const al_event *e) {
    return 512 + 6 * (e->site.n + e->client.n + e->method.n + e->scheme.n + e->host.n + e->target.n + e->reason.n +
                      e->outcome.n + e->cache_status.n + e->user_agent.n + e->referer.n);
}

static size_t al_json(char *out, size_t room, const al_event *e) {
    char *o = out;
    if (al_most(e) > room) return 0;
    o = AL_LITERAL(o, "{\"time\":\"");
    o = al_put(o, e->stamp.p, e->stamp.n);
    *o++ = '.';
    *o++ = (char)('0' + e->milliseconds / 100);
    *o++ = (char)('0' + e->milliseconds / 10 % 10);
    *o++ = (char)('0' + e->milliseconds % 10);
    o = AL_LITERAL(o, "Z\",\"site\":");
    o = al_quoted(o, e->site);
    o = AL_LITERAL(o, ",\"client\":");
    o = al_quoted(o, e->client);
    o = AL_LITERAL(o, ",\"method\":");
    o = al_quoted(o, e->method);
    o = AL_LITERAL(o, ",\"scheme\":");
    o = al_quoted(o, e->scheme);
    o = AL_LITERAL(o, ",\"host\":");
    o = al_quoted(o, e->host);
    o = AL_LITERAL(o, ",\"target\":");
    o = al_quoted(o, e->target);
    o = AL_LITERAL(o, ",\"protocol\":\"HTTP/1.1\",\"status\":");
    o = al_number(o, e->status);
    o = AL_LITERAL(o, ",\"bytes_in\":0,\"bytes_out\":");
    o = al_number(o, e->bytes_out);
    o = AL_LITERAL(o, ",\"outcome\":");
    o = al_quoted(o, e->outcome);
    o = AL_LITERAL(o, ",\"reason\":");
    o = al_quoted(o, e->reason);
    o = AL_LITERAL(o, ",\"duration\":");
    o = al_seconds(o, e->duration_us);
    o = AL_LITERAL(o, ",\"ttfb\":");
    o = al_seconds(o, e->ttfb_us);
    o = AL_LITERAL(o, ",\"cache_status\":");
    o = al_quoted(o, e->cache_status);
    o = AL_LITERAL(o, ",\"user_agent\":");
    o = al_quoted(o, e->user_agent);
    o = AL_LITERAL(o, ",\"referer\":");
    o = al_quoted(o, e->referer);
    if (e->aborted) o = AL_LITERAL(o, ",\"aborted\":true");
    o = AL_LITERAL(o, "}\n");
    return (size_t)(o - out);
}

/* Quotes, backslashes, controls and what is not ASCII become \xHH; `bare`: spaces are left out. */
static char *al_escaped(char *o, al_text t, int bare) {
    static const char hex[] = "0123456789abcdef";
    char *begin = o;
    for (size_t i = 0; i < t.n; i++) {
        uint8_t c = (uint8_t)t.p[i];
        if (c == ' ' && bare) continue;
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
            *o++ = (char)c;
        } else {
            o = AL_LITERAL(o, "\\x");
            *o++ = hex[c >> 4];
            *o++ = hex[c & 15];
        }
    }
    if (o == begin) *o++ = '-';
    return o;
}

static size_t al_combined(char *out, size_t room, const al_event *e) {
    char *o = out;
    if (al_most(e) > room) return 0;
    o = al_escaped(o, e->client, 1);
    o = AL_LITERAL(o, " - - [");
    o = al_put(o, e->stamp.p, e->stamp.n);
    o = AL_LITERAL(o, "] \"");
    o = al_escaped(o, e->method, 0);
    *o++ = ' ';
    o = al_escaped(o, e->target, 0);
    o = AL_LITERAL(o, " HTTP/1.1\" ");
    o = al_number(o, e->status);
    *o++ = ' ';
    o = al_number(o, e->bytes_out);
    o = AL_LITERAL(o, " \"");
    o = al_escaped(o, e->referer, 0);
    o = AL_LITERAL(o, "\" \"");
    o = al_escaped(o, e->user_agent, 0);
    o = AL_LITERAL(o, "\"\n");
    return (size_t)(o - out);
}

#endif
