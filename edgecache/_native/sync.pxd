# What every process of the mapping relies on: libc and the compiler's atomics. No Python object anywhere.

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "<errno.h>" nogil:
    int EOWNERDEAD


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_mutexattr_t:
        pass
    int PTHREAD_PROCESS_SHARED
    int PTHREAD_MUTEX_ROBUST
    int pthread_mutexattr_init(pthread_mutexattr_t *attr)
    int pthread_mutexattr_setpshared(pthread_mutexattr_t *attr, int shared)
    int pthread_mutexattr_setrobust(pthread_mutexattr_t *attr, int robust)
    int pthread_mutexattr_destroy(pthread_mutexattr_t *attr)
    int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_consistent(pthread_mutex_t *mutex)


cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t length)
    int madvise(void *address, size_t length, int advice)
    int PROT_READ
    int PROT_WRITE
    int MAP_SHARED
    int MAP_ANONYMOUS
    int MAP_NORESERVE
    int MADV_HUGEPAGE
    void *MAP_FAILED


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cdef extern from "<unistd.h>" nogil:
    int getpid()


cdef extern from "<signal.h>" nogil:
    int SIGKILL
    int kill(int pid, int signal)


cdef extern from * nogil:
    """
    #define ec_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define ec_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define ec_add(p, v) __atomic_add_fetch((p), (v), __ATOMIC_RELAXED)
    #define ec_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    #define ec_prefetch(p) __builtin_prefetch((p), 1, 3)
    #define ec_likely(x) __builtin_expect(!!(x), 1)
    #include <time.h>
    /* CLOCK_MONOTONIC as of the last tick, some milliseconds ago at most: a quarter of the price. */
    static inline uint64_t ec_coarse_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
    }
    """
    uint64_t load "ec_load"(const uint64_t *address)
    void store "ec_store"(uint64_t *address, uint64_t value)
    int64_t add "ec_add"(int64_t *address, int64_t amount)
    void fence "ec_fence"()
    void prefetch "ec_prefetch"(const void *address)
    bint likely "ec_likely"(bint condition)
    uint64_t coarse_ns "ec_coarse_ns"()
    int clz "__builtin_clz"(uint32_t value)
    int ctz "__builtin_ctzll"(uint64_t value)


cdef inline int mutex_create(pthread_mutex_t *mutex) noexcept nogil:
    """A mutex for all processes of the mapping whose next owner learns when this one died (EOWNERDEAD)."""
    cdef pthread_mutexattr_t attr
    cdef int failed
    pthread_mutexattr_init(&attr)
    failed = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED)
    failed |= pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST)
    failed |= pthread_mutex_init(mutex, &attr)
    pthread_mutexattr_destroy(&attr)
    return failed
