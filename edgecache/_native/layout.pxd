# The layout of the arena's mapping. Everything in it is offsets and indices: no address, so that processes may differ
# in where they map it. One process's addresses of the regions are in its own View.
#
#   Root | purge table | counters | in-flight table | pin records | shard 0 | shard 1 | …       (each on 64 octets)
#   a shard:  Shard | Bucket[bucket_count] | GhostLine[bucket_count], S3-FIFO only | uint32 links[unit_count + 1]
#             | UNIT octets × (unit_count - 1)
#
# Memory of a shard is handed out in units of 192 octets, three cache lines, by runs as long as can be had (extents); an
# object is a chain of extents. Measured on traces/ that wastes half a unit an object, as small chunks do, and needs few
# copies, as large chunks do. What is known of a unit lies in the side array `links` (see ext/extents.pyx).

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from edgecache._native.sync cimport pthread_mutex_t


cdef enum:
    UNIT = 192
    LAYOUT_VERSION = 4
    BINS = 256
    BIN_WORDS = 4
    BUCKET_SLOTS = 10
    BUCKET_SPAN = 8192  # octets of units that share one bucket: 10 slots for 5 objects of 1 KiB
    MAX_TAGS = 1024
    MAX_UNITS = 0x3FFFFFFF
    PIN_WAYS = 8
    SOFT_PURGED = 1
    MAX_PATTERNS = 1000
    GHOST_WAYS = 8


cdef enum Eviction:
    # Which object goes when room is needed: see eviction.pxd.
    LRU = 0
    SIEVE = 1
    S3FIFO = 2


cdef struct Root:
    uint64_t magic
    uint32_t version
    uint32_t shards
    uint64_t size
    uint64_t max_object
    uint64_t pin_above           # a body larger than this has its own chain and is pinned, not copied
    uint32_t processes
    uint32_t pin_slots           # records per process
    uint32_t counters
    uint32_t inflight
    uint64_t purges_at           # offsets of the regions from the start of the mapping
    uint64_t counters_at
    uint64_t inflight_at
    uint64_t pins_at
    uint64_t shards_at
    uint64_t shard_stride
    uint32_t unit_count          # of each shard, the unused unit 0 included
    uint32_t bucket_count
    uint32_t reserve             # units a shard keeps free, so that runs join again and objects stay in few extents
    uint32_t eviction            # one of Eviction
    int64_t recovered


# --- purges (DESIGN §7) ---

cdef struct PurgeSlot:
    uint64_t tag                 # 0: empty. Written last when a slot is filled
    uint64_t hard                # numbers of the last purges of that tag; 0: none
    uint64_t soft


cdef struct PurgeTable:
    # First line: what every get reads and only a purge writes.
    uint64_t epoch               # counts changes
    uint64_t sequence            # the last number applied; the last thing a purge writes
    uint64_t floor_hard          # what was filled before this number is purged
    uint64_t floor_soft
    uint64_t rebuild             # odd while slots move: a reader then takes the mutex
    uint64_t pending             # the newest number a purge began with
    uint64_t trusted_until       # nanoseconds of CLOCK_MONOTONIC: until then every purge is known here; all ones: always
    uint32_t capacity            # slots, a power of two
    uint32_t used
    uint64_t folds
    uint64_t forgotten           # slots dropped since nothing needed them
    uint64_t proved              # whatever is stored has been compared with every hard purge up to this number
    uint64_t patterns            # the newest pattern in force; 0: none. What was filled before it must be compared
    uint64_t retired             # what was filled before it is not stored any more, since patterns up to it go or have gone
    uint64_t pattern_changes     # of the records below; odd while they are written
    uint32_t pattern_room        # octets behind the slots
    uint32_t pattern_used
    uint32_t pattern_count
    uint32_t spare
    pthread_mutex_t mutex        # for those who write, and for who reads patterns


cdef struct PatternRecord:
    # Oldest first, each on 8 octets. The text follows, and means nothing here.
    uint64_t number
    uint64_t tag                 # what surely covers all that it matches; 0: only everything does
    uint32_t length
    uint32_t soft


# --- the in-flight table: coalescing of fills across workers (DESIGN §8). Laid out here, filled by the edge ---

cdef struct InflightHeader:
    pthread_mutex_t mutex        # robust; a slot is 64 octets, `capacity` of them follow the header
    uint32_t capacity
    uint32_t used


cdef struct InflightSlot:
    uint64_t key_low             # 0, 0: free
    uint64_t key_high
    uint64_t waiters             # one bit for each process that waits to be woken
    uint64_t token               # drawn by the holder at its begin, so that a late release cannot end another's lease
    double lease_until
    uint32_t holder              # its process slot
    uint32_t state
    uint64_t fill_seq            # the holder's: who comes after a later purge must not join
    uint64_t spare


# --- shards ---

cdef struct Bucket:
    uint16_t marks[BUCKET_SLOTS] # 16 bits of the key, so that a wrong object is looked at once in 65536
    uint32_t slots[BUCKET_SLOTS] # first unit of the object; 0: empty
    uint32_t overflow            # first of a chain through ObjectHeader.hash_next


cdef struct Queue:
    uint32_t first               # what joined last; 0: none
    uint32_t last


cdef struct Ghost:
    uint32_t mark                # of the key: 32 bits that choose neither shard nor line
    uint32_t stamp               # Shard.ghosts when it was noted; 0: empty


cdef struct GhostLine:
    # What S3-FIFO remembers of objects that left its small queue; a key has one line. 64 octets, a cache line.
    Ghost ways[GHOST_WAYS]


cdef struct Shard:
    pthread_mutex_t mutex
    Queue queue                  # all objects; under S3-FIFO, those of the main queue
    int64_t hits
    int64_t misses
    uint64_t generation
    uint32_t objects
    uint32_t free_units
    uint64_t bytes_body
    uint64_t bytes_data          # header, tags, meta, head and body of all objects: what is used and not slack
    int64_t inserts
    int64_t evictions
    int64_t purged
    uint32_t pins
    uint32_t pinned_units        # in bodies with at least one pin, their objects removed or not
    uint64_t bin_map[BIN_WORDS]
    uint32_t bins[BINS]          # free runs by length
    uint32_t hand                # SIEVE: where the next search for a victim begins; 0: at the end
    uint32_t ghosts              # S3-FIFO: counts what was noted in the ghost lines
    Queue small                  # S3-FIFO: objects on probation
    uint64_t small_weight        # what they weigh, in units (or octets of body where those are what is bound)
    uint64_t body_bound          # for measuring: a bound on bytes_body beside the one on units; 0: none


cdef struct ObjectHeader:
    # First line: what a look-up decides on. 104 octets in all; then tags, meta, head, and the body if it is no larger
    # than pin_above, all in one chain. Tags lie on 8 octets, so none straddles two units.
    uint64_t key_low
    uint64_t key_high
    uint32_t previous            # in its queue, towards the first
    uint32_t next
    uint32_t hash_next
    uint32_t body                # first unit of the body's own chain; 0: the body is in this chain
    double fresh_until
    uint64_t checked             # PurgeTable.epoch when this was last compared with it
    uint32_t flags
    uint16_t status
    uint16_t tag_count
    uint32_t meta_size
    uint32_t head_size
    # Second line.
    uint32_t body_size
    uint16_t state               # SOFT_PURGED
    uint8_t uses                 # LRU: 1 if asked for; SIEVE: since the hand passed; S3-FIFO: how often, up to 3
    uint8_t small                # S3-FIFO: it is in the small queue
    double born_at
    double stale_until
    uint64_t fill_seq
    uint64_t generation


cdef struct BodyHeader:
    # Opens the chain of a body that can be pinned. The chain belongs to one object, or to nobody but its pins.
    uint32_t pins
    uint32_t orphan              # freed with its last pin
    uint32_t units
    uint32_t pad


# A pin record, one process's pins of one body, is one word so that it changes at once:
# count in bits 44-63, shard in 32-43, first unit in 0-31. A record lies in one of PIN_WAYS slots by shard and unit.


# --- one process's addresses; not in the mapping ---

cdef struct View:
    Root *root
    PurgeTable *purges
    int64_t *counters
    InflightHeader *inflight
    uint64_t *pins
    ShardView *shards
    uint64_t max_object
    uint64_t pin_above
    uint32_t shard_count
    uint32_t pin_slots
    uint32_t slot                # the process slot whose pins are ours
    int pid                      # the process that may write that slot's records


cdef struct ShardView:
    Shard *shard
    Bucket *buckets
    uint32_t *links
    char *units                  # unit 0 is not there: it lies before the first
    uint32_t unit_count
    uint32_t bucket_count
    uint32_t reserve
    uint32_t number
    uint32_t eviction
    View *view


cdef inline ObjectHeader *object_at(ShardView *s, uint32_t unit) noexcept nogil:
    return <ObjectHeader *> (s.units + <size_t> unit * UNIT)


cdef inline BodyHeader *body_at(ShardView *s, uint32_t unit) noexcept nogil:
    return <BodyHeader *> (s.units + <size_t> unit * UNIT)


cdef inline uint32_t bucket_number(ShardView *s, uint64_t key_low) noexcept nogil:
    return <uint32_t> ((<uint64_t> <uint32_t> key_low * s.bucket_count) >> 32)


cdef inline GhostLine *ghost_line(ShardView *s, uint32_t number) noexcept nogil:
    return <GhostLine *> (s.buckets + s.bucket_count) + number


cdef inline uint32_t units_for(uint64_t size) noexcept nogil:
    return <uint32_t> ((size + UNIT - 1) // UNIT)


cdef inline ShardView *shard_of(View *view, uint64_t key_high) noexcept nogil:
    return &view.shards[((key_high >> 32) * view.shard_count) >> 32]
