# For other compiled modules: an Arena's `view` is what the C functions of shard.pxd take. It is good in every process
# forked after the arena was made, as long as the Arena object lives.

cimport cython
from edgecache._native.layout cimport View
from edgecache._native.shard cimport Found

@cython.final
cdef class Arena:
    cdef View view
    cdef char *base
    cdef readonly size_t size
    cdef readonly object shards
    cdef readonly object max_object
    cdef readonly object pin_above
    cdef readonly object eviction


@cython.final
@cython.no_gc  # can be in no cycle, and closes itself when it goes
cdef class Entry:
    cdef Arena arena
    cdef Found found
    cdef bytes data              # tags, meta, head, and the body if it was copied
    cdef bytes _head
    cdef bytes _meta
    cdef bint copied
    cdef bint pinned
    cdef int pid
    cdef readonly bytes key
