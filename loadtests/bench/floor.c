/* The floor: what answering a request costs when nothing is decided, looked up or logged.
 *
 *     floor PORT BODY_BYTES [PORT BODY_BYTES ...]
 *
 * Each port answers every request with one canned 200 of that size; size 0 is a canned 304. A recv, a search for the
 * end of the head and a send per request: no cache that reads the request can be cheaper.
 */
#include "epoll_server.h"

enum { PORTS = 16 };

static void answer(const char *head, size_t length, const struct listener *from, struct reply *reply)
{
    (void)head;
    (void)length;
    reply->body = from->canned;
    reply->body_length = from->canned_length;
}

static void can(struct listener *listener, size_t size)
{
    static const char common[] = "Server: floor\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: \"canned\"\r\n"
                                 "Cache-Control: max-age=86400\r\nAge: 1\r\n";
    char head[HEAD_BYTES];
    int head_length = size ? snprintf(head, sizeof head,
                                      "HTTP/1.1 200 OK\r\n%sContent-Type: application/octet-stream\r\n"
                                      "Content-Length: %zu\r\n\r\n", common, size)
                           : snprintf(head, sizeof head, "HTTP/1.1 304 Not Modified\r\n%s\r\n", common);
    char *body = pattern(size);
    char *whole = malloc((size_t)head_length + size);
    if (!whole)
        fail("malloc");
    memcpy(whole, head, (size_t)head_length);
    memcpy(whole + head_length, body, size);
    free(body);
    listener->canned = whole;
    listener->canned_length = (size_t)head_length + size;
}

int main(int argc, char **argv)
{
    static struct listener listeners[PORTS];
    if (argc < 3 || argc % 2 != 1 || (argc - 1) / 2 > PORTS) {
        fprintf(stderr, "usage: floor PORT BODY_BYTES [PORT BODY_BYTES ...]\n");
        return 2;
    }
    open_loop();
    for (int i = 0; i < (argc - 1) / 2; i++) {
        can(&listeners[i], strtoul(argv[2 + 2 * i], NULL, 10));
        listen_on(&listeners[i], atoi(argv[1 + 2 * i]));
    }
    run_loop();
}
