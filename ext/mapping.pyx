"""The arena's mapping: how `size` is shared out, and one process's addresses of it. See layout.pxd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from edgecache._native.guard cimport shard_create
from edgecache._native.layout cimport (
    BUCKET_SPAN, LAYOUT_VERSION, LRU, MAX_UNITS, PIN_WAYS, S3FIFO, SIEVE, UNIT, BodyHeader, Bucket, GhostLine,
    InflightHeader, InflightSlot, ObjectHeader, PurgeSlot, PurgeTable, Root, Shard, ShardView, View,
)
from edgecache._native.purgetable cimport purges_create
from edgecache._native.sync cimport (
    MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_SHARED, PROT_READ, PROT_WRITE, getpid, madvise, mmap,
    munmap, mutex_create,
)

cdef enum:
    MAX_SHARDS = 4096
    SHARDS_BY_ITSELF = 64
    LARGEST_A_SHARD = 8

EVICTIONS = {"lru": LRU, "sieve": SIEVE, "s3fifo": S3FIFO}

cdef uint64_t MAGIC = 0x616E656172616365  # "ecaraena", little-endian


def _aligned(size):
    return (size + 63) // 64 * 64


def _power(value, least, most):
    """The power of two at or below `value`, within bounds that are powers of two."""
    return min(max(1 << max(value.bit_length() - 1, 0), least), most)


def _largest_units(max_object):
    """Units of the largest object, however it is split in two chains."""
    return -(-(max_object + sizeof(ObjectHeader) + sizeof(BodyHeader)) // UNIT) + 1


def _pattern_room(size):
    """For texts of patterns: 1,000 of a usual length, where the mapping is not small."""
    return min(max(size // 512 // 8 * 8, 4096), 256 << 10)


def _reserve(units):
    return units // 256


def _plan(size, max_object, shards, purge_slots, counters, processes, eviction):
    """Offsets and counts for a mapping of `size`, and how many units a shard lacks (0 or less: it fits)."""
    if not shards:
        shards = _power(size // (32 * max_object), 1, SHARDS_BY_ITSELF)
    purge_slots = _power(purge_slots, 8, 1 << 24) if purge_slots else _power(size // 8192, 64, 1 << 20)
    pin_slots = _power(size >> 18, 2 * PIN_WAYS, 4096)
    inflight = _power(size >> 18, 16, 4096)
    plan = {"shards": shards, "pin_slots": pin_slots, "inflight": inflight, "purge_slots": purge_slots}
    at = _aligned(sizeof(Root))
    for name, length in (
        ("purges_at", _aligned(sizeof(PurgeTable)) + purge_slots * sizeof(PurgeSlot) + _pattern_room(size)),
        ("counters_at", counters * 8),
        ("inflight_at", _aligned(sizeof(InflightHeader)) + inflight * sizeof(InflightSlot)),
        ("pins_at", processes * pin_slots * 8),
    ):
        plan[name] = at
        at = _aligned(at + length)
    plan["shards_at"] = at
    stride = max(size - at, 0) // shards // 64 * 64
    # Alignment between the parts takes at most 192 octets, a bucket more than its share 64.
    bucket = sizeof(Bucket) + (sizeof(GhostLine) if eviction == S3FIFO else 0)
    room = stride - _aligned(sizeof(Shard)) - 3 * 64 - bucket - 8
    units = max(room * BUCKET_SPAN // (BUCKET_SPAN * (UNIT + 4) + UNIT * bucket), 0)
    units = min(units, MAX_UNITS - 1)
    need = LARGEST_A_SHARD * _largest_units(max_object)
    need += _reserve(need * 65 // 64) + 1
    plan.update(shard_stride=stride, unit_count=units + 1, bucket_count=units * UNIT // BUCKET_SPAN + 1)
    plan.update(reserve=_reserve(units))
    return plan, need - units


def _least(size, *rest):
    """The smallest mapping that holds what is asked."""
    low = size
    high = max(size, 4096)
    while _plan(high, *rest)[1] > 0:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if _plan(middle, *rest)[1] > 0:
            low = middle
        else:
            high = middle
    return high


def plan_mapping(*, size, max_object, shards, purge_slots, counters, processes, pin_above, eviction):
    """What `mapping_create` needs; ValueError, naming the least, for what cannot be."""
    for name, value, least, most in (
        ("size", size, 1, 1 << 46),
        ("max_object", max_object, 1, (1 << 32) - 1),
        ("shards", shards, 0, MAX_SHARDS),
        ("purge_slots", purge_slots, 0, 1 << 24),
        ("counters", counters, 0, 1 << 24),
        ("processes", processes, 1, 4096),
        ("pin_above", pin_above, 0, (1 << 32) - 1),
    ):
        if not least <= value <= most:
            raise ValueError(f"{name} must be between {least} and {most}, not {value}")
    if eviction not in EVICTIONS:
        raise ValueError(f"eviction must be one of {', '.join(EVICTIONS)}, not {eviction!r}")
    policy = EVICTIONS[eviction]
    plan, lacking = _plan(size, max_object, shards, purge_slots, counters, processes, policy)
    if lacking > 0:
        least = _least(size, max_object, shards, purge_slots, counters, processes, policy)
        raise ValueError(
            f"{size} octets are too few for an arena with objects of up to {max_object}: "
            f"it needs at least {least} for its index and {LARGEST_A_SHARD} of the largest in a shard"
        )
    return {"size": size, "max_object": max_object, "counters": counters, "processes": processes,
            "pin_above": pin_above, "eviction": policy, **plan}


cdef char *mapping_create(dict plan) except NULL:
    """Map and lay out an empty arena."""
    cdef size_t size = plan["size"]
    cdef void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    cdef Root *root = <Root *> base
    cdef View view
    cdef uint32_t i
    if base == MAP_FAILED:
        raise MemoryError(f"no shared mapping of {size} octets to be had")
    madvise(base, size, MADV_HUGEPAGE)  # where the system allows it for shared memory; else nothing changes
    root.magic = MAGIC
    root.version = LAYOUT_VERSION
    root.size = size
    root.shards = plan["shards"]
    root.max_object = plan["max_object"]
    root.pin_above = plan["pin_above"]
    root.processes = plan["processes"]
    root.pin_slots = plan["pin_slots"]
    root.counters = plan["counters"]
    root.inflight = plan["inflight"]
    root.purges_at = plan["purges_at"]
    root.counters_at = plan["counters_at"]
    root.inflight_at = plan["inflight_at"]
    root.pins_at = plan["pins_at"]
    root.shards_at = plan["shards_at"]
    root.shard_stride = plan["shard_stride"]
    root.unit_count = plan["unit_count"]
    root.bucket_count = plan["bucket_count"]
    root.reserve = plan["reserve"]
    root.eviction = plan["eviction"]
    try:
        view_open(&view, <char *> base)
    except MemoryError:
        munmap(base, size)
        raise
    purges_create(view.purges, plan["purge_slots"], _pattern_room(size))
    view.inflight.capacity = root.inflight
    mutex_create(&view.inflight.mutex)
    for i in range(view.shard_count):
        shard_create(&view.shards[i])
    view_close(&view)
    return <char *> base


cdef int view_open(View *view, char *base) except -1:
    """Work out this process's addresses of the regions from the mapping's own root."""
    cdef Root *root = <Root *> base
    cdef ShardView *s
    cdef char *at
    cdef uint32_t i
    view.root = root
    view.purges = <PurgeTable *> (base + root.purges_at)
    view.counters = <int64_t *> (base + root.counters_at)
    view.inflight = <InflightHeader *> (base + root.inflight_at)
    view.pins = <uint64_t *> (base + root.pins_at)
    view.max_object = root.max_object
    view.pin_above = root.pin_above
    view.shard_count = root.shards
    view.pin_slots = root.pin_slots
    view.slot = 0
    view.pid = getpid()
    view.shards = <ShardView *> calloc(root.shards, sizeof(ShardView))
    if view.shards == NULL:
        raise MemoryError
    for i in range(root.shards):
        at = base + root.shards_at + i * root.shard_stride
        s = &view.shards[i]
        s.shard = <Shard *> at
        at += (sizeof(Shard) + 63) // 64 * 64
        s.buckets = <Bucket *> at
        at += root.bucket_count * sizeof(Bucket)
        if root.eviction == S3FIFO:
            at += root.bucket_count * sizeof(GhostLine)
        s.links = <uint32_t *> at
        at += ((root.unit_count + 1) * <size_t> 4 + 63) // 64 * 64
        s.units = at - UNIT
        s.unit_count = root.unit_count
        s.bucket_count = root.bucket_count
        s.reserve = root.reserve
        s.number = i
        s.eviction = root.eviction
        s.view = view
    return 0


cdef void view_close(View *view) noexcept:
    free(view.shards)
    view.shards = NULL
