from libc.stdint cimport int64_t, uint64_t
from edgecache._native.lane cimport Lane, LaneSite, al_event, timespec
from edgecache._native.shard cimport Found


cdef class BodySender:
    cdef Lane lane
    cdef object slow                   # the ClientConnection behind
    cdef object transport
    cdef int fd                        # -1: TLS, or gone
    cdef bint armed                    # the ordinary path waits for a request and has nothing of it yet
    cdef bint clean                    # nothing waits in the transport, so that the socket may be written to
    cdef readonly bint busy            # a body is being sent
    cdef readonly bint used            # something was answered here
    cdef readonly double last_at       # the wall clock when that was
    cdef LaneSite site
    cdef timespec begun                # of the request, by the wall clock
    cdef timespec first                # when the first octet of its answer went out
    # the body being sent while busy
    cdef int file                      # it lies in this file, from file_at on; -1: in the arena
    cdef uint64_t file_at
    cdef uint64_t total
    cdef Found found
    cdef uint64_t offset
    cdef bytes front
    cdef size_t front_sent
    cdef bytes data
    cdef al_event event
    cdef bytes event_status
    cdef list pending                  # octets that came meanwhile

    cdef bint send_whole_file(
        self, bytes data, const char *head, size_t size, const Found *found, const al_event *event
    ) except -1
    cdef int send_from_file(self) except -2
    cdef int send_front_and_file(self) except -2
    cdef int begin_body(
        self, bytes data, const char *head, size_t size, size_t sent, const Found *found, const al_event *event
    ) except -1
    cdef int send_body(self) except -1
    cdef size_t front_left(self) noexcept
    cdef ssize_t send_from_arena(self) except -2
    cdef bytes next_piece(self, size_t most)
    cdef bytes from_file(self, bytes piece, size_t rest, size_t most)
    cdef void note_first(self) noexcept
    cdef int end_body(self, bint cut) except -1
