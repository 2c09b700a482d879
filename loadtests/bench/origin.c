/* The origin all caches share: the same objects and the same fields for each of them, and a count of what was asked.
 *
 *     origin PORT
 *
 *     /s/BYTES     a cacheable object of that many bytes (up to 100 MiB)
 *     /o/N         a cacheable object of 1 KiB whose first bytes say which one it is
 *     /pass/BYTES  the same as /s, not cacheable (no-store)
 *     /count       how many requests for the others have come so far; how a hit is proved
 *
 * It ignores conditions on purpose: a cache that revalidates instead of hitting shows in the count.
 */
#include "epoll_server.h"

#include <time.h>

enum { LARGEST = 100 << 20, SMALL = 1024 };

static unsigned long asked;
static const char *bytes;

/* The Date field now, made once a second: a fixed one would make every answer stale (RFC 9111 4.2.3). */
static const char *date_now(void)
{
    static char date[64];
    static time_t made;
    time_t now = time(NULL);
    if (now != made) {
        struct tm utc;
        gmtime_r(&now, &utc);
        strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
        made = now;
    }
    return date;
}

static void plain(struct reply *reply, const char *status, const char *text)
{
    reply->head_length = (size_t)snprintf(reply->head, HEAD_BYTES,
        "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: %zu\r\n\r\n%s",
        status, strlen(text), text);
    reply->body = bytes;
    reply->body_length = 0;
}

static void answer(const char *head, size_t length, const struct listener *from, struct reply *reply)
{
    static const char common[] = "Server: origin\r\n"
                                 "Content-Type: application/octet-stream\r\n"
                                 "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    const char *path = memchr(head, ' ', length);
    char text[32];
    (void)from;
    path = path ? path + 1 : "";
    if (strncmp(path, "/count ", 7) == 0) {
        snprintf(text, sizeof text, "%lu", asked);
        plain(reply, "200 OK", text);
        return;
    }
    asked++;
    if (strncmp(path, "/o/", 3) == 0) {
        unsigned long number = strtoul(path + 3, NULL, 10);
        int named = snprintf(text, sizeof text, "object %lu\n", number);
        reply->head_length = (size_t)snprintf(reply->head, HEAD_BYTES,
            "HTTP/1.1 200 OK\r\n%sDate: %s\r\nCache-Control: max-age=86400\r\nETag: \"o-%lu\"\r\nContent-Length: %d\r\n\r\n%s",
            common, date_now(), number, SMALL, text);
        reply->body = bytes;
        reply->body_length = (size_t)(SMALL - named);
        return;
    }
    int pass = strncmp(path, "/pass/", 6) == 0;
    if (!pass && strncmp(path, "/s/", 3) != 0) {
        plain(reply, "404 Not Found", "no such object\n");
        return;
    }
    unsigned long size = strtoul(path + (pass ? 6 : 3), NULL, 10);
    if (size > LARGEST) {
        plain(reply, "400 Bad Request", "larger than the origin's largest object\n");
        return;
    }
    reply->head_length = (size_t)snprintf(reply->head, HEAD_BYTES,
        "HTTP/1.1 200 OK\r\n%sDate: %s\r\nCache-Control: %s\r\nETag: \"s-%lu\"\r\nContent-Length: %lu\r\n\r\n",
        common, date_now(), pass ? "no-store" : "max-age=86400", size, size);
    reply->body = bytes;
    reply->body_length = size;
}

int main(int argc, char **argv)
{
    static struct listener listener;
    if (argc != 2) {
        fprintf(stderr, "usage: origin PORT\n");
        return 2;
    }
    bytes = pattern(LARGEST);
    open_loop();
    listen_on(&listener, atoi(argv[1]));
    run_loop();
}
