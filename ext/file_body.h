/* A body that lies in a file: what stands for it in the arena, and how it is opened and sent.
 *
 * The reference, as edgecache/store/filebody.py writes it, in the machine's own order:
 *     u64 size | u64 offset in the file | u64 generation of the record on disk | char name[42] below the directory
 */
#ifndef EC_FILE_BODY_H
#define EC_FILE_BODY_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FB_NAME = 42, FB_SIZE = 24 + FB_NAME, FB_DIRECTORY = 3072, FB_PROBE = 256 * 1024 };

typedef struct {
    uint64_t size, offset, generation;
    char name[FB_NAME + 1];
} fb_ref;

/* 1 where these octets are a reference. */
static int fb_read(const char *p, size_t n, fb_ref *ref) {
    if (n != FB_SIZE)
        return 0;
    memcpy(&ref->size, p, 8);
    memcpy(&ref->offset, p + 8, 8);
    memcpy(&ref->generation, p + 16, 8);
    memcpy(ref->name, p + 24, FB_NAME);
    ref->name[FB_NAME] = 0;
    return 1;
}

/* The open file, or -1. `directory` ends with a slash; no link is followed in the file's place. */
static int fb_open(const char *directory, size_t n, const fb_ref *ref) {
    char path[FB_DIRECTORY + FB_NAME + 1];
    if (n > FB_DIRECTORY)
        return -1;
    memcpy(path, directory, n);
    memcpy(path + n, ref->name, FB_NAME + 1);
    return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
}

/* Does reading wait for a disk? 1 no (or nobody can say), 0 yes, -1 the file is too short or cannot be read.
 * Looks at some of the octets, the last among them: what is thrown out is thrown out in runs. */
static int fb_resident(int fd, uint64_t offset, uint64_t size) {
    char octet;
    struct iovec one = {&octet, 1};
    uint64_t at = offset + size;
    ssize_t got;
    if (size == 0)
        return 1;
    for (at--;; at -= FB_PROBE) {
        got = preadv2(fd, &one, 1, (off_t)at, RWF_NOWAIT);
        if (got == 0)
            return -1;
        if (got < 0)
            return errno == EAGAIN ? 0 : errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL ? 1 : -1;
        if (at < offset + FB_PROBE)
            return 1;
    }
}

#endif
