/* The loop both C servers of the benchmark stand on: one thread, epoll, keep-alive, pipelining.
 *
 * A program that includes this header defines
 *     static void answer(const char *head, size_t length, const struct listener *from, struct reply *reply);
 * which is called once per complete request head and points `reply` at what to send: an optional head, built in the
 * reply's own buffer, and a body that outlives the connection. Requests with a body are not spoken here: this is a
 * measuring instrument for plain GETs, not a server for the world.
 */
#ifndef BENCH_EPOLL_SERVER_H
#define BENCH_EPOLL_SERVER_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { REPLIES = 32, HEAD_BYTES = 512, INPUT_BYTES = 16384, EVENTS = 512, BACKLOG = 4096 };

struct reply {
    char head[HEAD_BYTES];
    size_t head_length;
    const char *body;
    size_t body_length;
};

struct listener {
    int fd;             /* -1 for a connection: how the two are told apart in one epoll set */
    const char *canned; /* what the floor answers on this port */
    size_t canned_length;
};

struct connection {
    struct listener tag; /* must be first: epoll's pointer is read as a listener until `fd` says what it is */
    const struct listener *from;
    int socket;
    int waiting; /* EPOLLOUT is armed; nothing is read until the queue is sent */
    size_t filled;
    int first, count;  /* the reply queue: replies[first .. first+count) */
    size_t sent;       /* bytes of replies[first] that are gone */
    char input[INPUT_BYTES];
    struct reply replies[REPLIES];
};

static void answer(const char *head, size_t length, const struct listener *from, struct reply *reply);

static int epoll_fd;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(int fd, void *pointer, unsigned int events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = pointer};
    if (epoll_ctl(epoll_fd, operation, fd, &event) != 0)
        fail("epoll_ctl");
}

static void listen_on(struct listener *listener, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0)
        fail("socket");
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener->fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail("bind");
    if (listen(listener->fd, BACKLOG) != 0)
        fail("listen");
    watch(listener->fd, listener, EPOLLIN, EPOLL_CTL_ADD);
}

static void drop(struct connection *connection)
{
    close(connection->socket);
    free(connection);
}

static void take_connections(struct listener *listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = malloc(sizeof *connection);
        if (!connection) {
            close(fd);
            continue;
        }
        connection->tag.fd = -1;
        connection->from = listener;
        connection->socket = fd;
        connection->waiting = 0;
        connection->filled = 0;
        connection->first = connection->count = 0;
        connection->sent = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(fd, connection, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* Sends the queue in one writev. Returns -1 when the connection is dead, 1 when bytes remain, else 0. */
static int flush_replies(struct connection *connection)
{
    while (connection->count > 0) {
        struct iovec parts[2 * REPLIES];
        int used = 0;
        size_t skip = connection->sent;
        for (int i = 0; i < connection->count; i++) {
            struct reply *reply = &connection->replies[connection->first + i];
            if (skip < reply->head_length) {
                parts[used].iov_base = reply->head + skip;
                parts[used++].iov_len = reply->head_length - skip;
                skip = 0;
            } else {
                skip -= reply->head_length;
            }
            parts[used].iov_base = (char *)reply->body + skip;
            parts[used++].iov_len = reply->body_length - skip;
            skip = 0;
        }
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)used};
        ssize_t written = sendmsg(connection->socket, &message, MSG_NOSIGNAL);
        if (written < 0)
            return errno == EAGAIN ? 1 : -1;
        connection->sent += (size_t)written;
        while (connection->count > 0) {
            struct reply *reply = &connection->replies[connection->first];
            size_t whole = reply->head_length + reply->body_length;
            if (connection->sent < whole)
                break;
            connection->sent -= whole;
            connection->first++;
            connection->count--;
        }
    }
    connection->first = 0;
    return 0;
}

/* Answers every complete head in the input, at most REPLIES at a time. */
static void answer_input(struct connection *connection)
{
    char *start = connection->input, *end = connection->input + connection->filled;
    while (connection->first + connection->count < REPLIES) {
        char *stop = memmem(start, (size_t)(end - start), "\r\n\r\n", 4);
        if (!stop)
            break;
        stop += 4;
        struct reply *reply = &connection->replies[connection->first + connection->count];
        reply->head_length = 0;
        answer(start, (size_t)(stop - start), connection->from, reply);
        connection->count++;
        start = stop;
    }
    connection->filled = (size_t)(end - start);
    if (start != connection->input)
        memmove(connection->input, start, connection->filled);
}

static void serve_connection(struct connection *connection, unsigned int events)
{
    if (!(events & EPOLLOUT)) {
        ssize_t got = recv(connection->socket, connection->input + connection->filled,
                           INPUT_BYTES - connection->filled, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) { /* also a head that does not fit: recv of nothing returns 0 */
            drop(connection);
            return;
        }
        connection->filled += (size_t)got;
    }
    for (;;) {
        if (connection->count == 0)
            answer_input(connection);
        if (connection->count == 0)
            break;
        int left = flush_replies(connection);
        if (left < 0) {
            drop(connection);
            return;
        }
        if (left > 0) {
            if (!connection->waiting)
                watch(connection->socket, connection, EPOLLOUT, EPOLL_CTL_MOD);
            connection->waiting = 1;
            return;
        }
    }
    if (connection->waiting)
        watch(connection->socket, connection, EPOLLIN, EPOLL_CTL_MOD);
    connection->waiting = 0;
}

static void open_loop(void)
{
    signal(SIGPIPE, SIG_IGN);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        fail("epoll_create1");
}

static void run_loop(void)
{
    static struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct listener *tag = events[i].data.ptr;
            if (tag->fd >= 0)
                take_connections(tag);
            else
                serve_connection((struct connection *)tag, events[i].events);
        }
    }
}

/* The pattern every body is cut from; the Python side makes the same one (content.py). */
static char *pattern(size_t size)
{
    char *body = malloc(size ? size : 1);
    if (!body)
        fail("malloc");
    for (size_t i = 0; i < size; i++)
        body[i] = (char)('a' + i % 26);
    return body;
}

#endif
