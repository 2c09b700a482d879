"""The in-flight table: who fetches what, across the processes of a node. See the stub.

A slot is changed under the table's robust mutex only. Whoever finds that its last owner died inside empties the table:
leases are lost, which costs a fetch, and nothing else; those who waited are woken by whoever buries the dead.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset
from edgecache._native.arena cimport Arena
from edgecache._native.layout cimport InflightHeader, InflightSlot, View
from edgecache._native.sync cimport EOWNERDEAD, pthread_mutex_consistent, pthread_mutex_lock, pthread_mutex_unlock

cdef enum:
    WINDOW = 16  # slots a key may lie in: a full window is a table too full to help


cdef int words_of(bytes key, uint64_t *words) except -1:
    if len(key) != 16:
        raise ValueError("a key has 16 octets")
    memcpy(words, <const char *> key, 16)
    return 0


cdef class Leases:
    cdef Arena arena
    cdef View *view
    cdef InflightSlot *slots
    cdef uint64_t last_token

    def __init__(self, Arena arena not None):
        self.arena = arena
        self.view = &arena.view
        self.slots = <InflightSlot *> (<char *> self.view.inflight + ((sizeof(InflightHeader) + 63) // 64) * 64)
        self.last_token = 0

    cdef void lock(self) noexcept nogil:
        cdef InflightHeader *header = self.view.inflight
        if pthread_mutex_lock(&header.mutex) == EOWNERDEAD:
            memset(self.slots, 0, header.capacity * sizeof(InflightSlot))
            header.used = 0
            pthread_mutex_consistent(&header.mutex)

    cdef InflightSlot *find(self, uint64_t low, uint64_t high, InflightSlot **free) noexcept nogil:
        """The key's slot, or NULL; `free` gets one it could take, or NULL."""
        cdef uint32_t mask = self.view.inflight.capacity - 1
        cdef InflightSlot *slot
        cdef uint32_t i
        free[0] = NULL
        for i in range(WINDOW):
            slot = &self.slots[(<uint32_t> low + i) & mask]
            if slot.token == 0:
                if free[0] == NULL:
                    free[0] = slot
            elif slot.key_low == low and slot.key_high == high:
                return slot
        return NULL

    def acquire(self, bytes key not None, uint64_t fill_seq, uint64_t sequence, double now, double lease_s):
        cdef uint64_t words[2]
        cdef InflightSlot *slot
        cdef InflightSlot *free
        cdef uint64_t token = 0
        words_of(key, words)
        self.last_token += 1
        self.lock()
        slot = self.find(words[0], words[1], &free)
        if slot != NULL and slot.lease_until > now and slot.fill_seq >= sequence and slot.holder != self.view.slot:
            slot.waiters |= <uint64_t> 1 << self.view.slot
            pthread_mutex_unlock(&self.view.inflight.mutex)
            return 0
        if slot == NULL:
            slot = free
            if slot == NULL:
                pthread_mutex_unlock(&self.view.inflight.mutex)
                return -1
            slot.waiters = 0
            self.view.inflight.used += 1
        token = (self.last_token << 8) | (self.view.slot + 1)
        slot.key_low = words[0]
        slot.key_high = words[1]
        slot.fill_seq = fill_seq
        slot.lease_until = now + lease_s
        slot.holder = self.view.slot
        slot.token = token
        pthread_mutex_unlock(&self.view.inflight.mutex)
        return token

    def waits(self, bytes key not None, double now):
        cdef uint64_t words[2]
        cdef InflightSlot *slot
        cdef InflightSlot *free
        cdef bint another
        words_of(key, words)
        self.lock()
        slot = self.find(words[0], words[1], &free)
        another = slot != NULL and slot.lease_until > now and slot.holder != self.view.slot
        if another:
            slot.waiters |= <uint64_t> 1 << self.view.slot
        pthread_mutex_unlock(&self.view.inflight.mutex)
        return another

    def release(self, bytes key not None, uint64_t token):
        cdef uint64_t words[2]
        cdef InflightSlot *slot
        cdef InflightSlot *free
        cdef uint64_t waiters = 0
        words_of(key, words)
        self.lock()
        slot = self.find(words[0], words[1], &free)
        if slot != NULL and slot.token == token:
            waiters = slot.waiters
            memset(slot, 0, sizeof(InflightSlot))
            self.view.inflight.used -= 1
        pthread_mutex_unlock(&self.view.inflight.mutex)
        return waiters

    def release_process(self, uint32_t process):
        cdef uint32_t i
        cdef uint64_t waiters = 0
        self.lock()
        for i in range(self.view.inflight.capacity):
            if self.slots[i].token and self.slots[i].holder == process:
                waiters |= self.slots[i].waiters
                memset(&self.slots[i], 0, sizeof(InflightSlot))
                self.view.inflight.used -= 1
        pthread_mutex_unlock(&self.view.inflight.mutex)
        return waiters

    def held(self, bytes key not None, double now):
        cdef uint64_t words[2]
        cdef InflightSlot *slot
        cdef InflightSlot *free
        cdef bint found
        words_of(key, words)
        self.lock()
        slot = self.find(words[0], words[1], &free)
        found = slot != NULL and slot.lease_until > now
        pthread_mutex_unlock(&self.view.inflight.mutex)
        return found

    def __len__(self):
        return self.view.inflight.used

    def _die_inside(self):
        """For tests: take the lock and never give it back."""
        self.lock()
        if self.view.inflight.capacity:
            self.slots[0].token = 1  # half a change
