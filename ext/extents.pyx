"""Memory of a shard: units of UNIT octets, handed out as chains of extents. The shard's lock is held by the caller.

A free run joins its neighbours at once, and any free unit serves any object, so nothing needs compacting and an
object of n units fits exactly when n are free. `links[u]` says what is known of unit u:

    extent from u, used:  links[u] = first unit of the next extent (0: last) | SINGLE if it is one unit
                          links[u + 1] = its length, if more than one; links[last] = 0, if more than two
    run from u, free:     links[u] = links[last] = FREE | length; the unit itself holds the neighbours in its bin

so the unit before and the unit after an extent tell whether they are free. Units 0 and unit_count are never free.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from edgecache._native.layout cimport BIN_WORDS, BINS, MAX_UNITS, UNIT, Shard, ShardView
from edgecache._native.sync cimport SIGKILL, clz, ctz, getpid, iovec, kill

cdef enum:
    SCAN = 8  # runs looked at in the bin of the wanted length, before a longer one is cut


cdef extern from *:
    """
    #define EC_FREE 0x80000000u
    """
    uint32_t FREE "EC_FREE"


cdef struct FreeRun:
    uint32_t previous
    uint32_t next


crash_countdown = 0


cdef void crash_tick() noexcept nogil:
    global crash_countdown
    crash_countdown -= 1
    if crash_countdown == 0:
        kill(getpid(), SIGKILL)


# --- bins ---

cdef int bin_of(uint32_t length) noexcept nogil:
    """Runs shorter than 32 have a bin a length; longer ones eight to a power of two, the longest share the last."""
    cdef int power, number
    if length < 32:
        return <int> length
    power = 31 - clz(length)
    number = 32 + (power - 5) * 8 + <int> ((length >> (power - 3)) & 7)
    return number if number < BINS else BINS - 1


cdef inline FreeRun *run_at(ShardView *s, uint32_t unit) noexcept nogil:
    return <FreeRun *> (s.units + <size_t> unit * UNIT)


cdef void run_add(ShardView *s, uint32_t unit, uint32_t length) noexcept nogil:
    cdef Shard *shard = s.shard
    cdef int number = bin_of(length)
    cdef uint32_t next = shard.bins[number]
    s.links[unit] = FREE | length
    s.links[unit + length - 1] = FREE | length
    run_at(s, unit).previous = 0
    run_at(s, unit).next = next
    if next:
        run_at(s, next).previous = unit
    shard.bins[number] = unit
    shard.bin_map[number >> 6] |= <uint64_t> 1 << (number & 63)


cdef void run_drop(ShardView *s, uint32_t unit, uint32_t length) noexcept nogil:
    cdef Shard *shard = s.shard
    cdef int number
    cdef FreeRun *run = run_at(s, unit)
    if run.next:
        run_at(s, run.next).previous = run.previous
    if run.previous:
        run_at(s, run.previous).next = run.next
    else:
        number = bin_of(length)
        shard.bins[number] = run.next
        if run.next == 0:
            shard.bin_map[number >> 6] &= ~(<uint64_t> 1 << (number & 63))


cdef int bin_from(Shard *shard, int number) noexcept nogil:
    """The first bin that is not empty, from `number` on; BINS if there is none."""
    cdef int word = number >> 6
    cdef uint64_t bits
    if number >= BINS:
        return BINS
    bits = shard.bin_map[word] & (~(<uint64_t> 0) << (number & 63))
    while bits == 0:
        word += 1
        if word == BIN_WORDS:
            return BINS
        bits = shard.bin_map[word]
    return word * 64 + ctz(bits)


cdef uint32_t run_find(ShardView *s, uint32_t count) noexcept nogil:
    """A free run of at least `count` units, the shortest but for the width of a bin; else the longest there is."""
    cdef Shard *shard = s.shard
    cdef int number = bin_of(count)
    cdef int word, tries
    cdef uint32_t unit, best = 0, length, best_length = 0
    unit = shard.bins[number]
    if number < 32:
        if unit:
            return unit
    else:
        for tries in range(SCAN):
            if unit == 0:
                break
            length = s.links[unit] & MAX_UNITS
            if length >= count and (best == 0 or length < best_length):
                best = unit
                best_length = length
            unit = run_at(s, unit).next
        if best:
            return best
    number = bin_from(shard, number + 1)
    if number < BINS:
        return shard.bins[number]
    for word in range(BIN_WORDS - 1, -1, -1):
        if shard.bin_map[word]:
            number = word * 64 + 31
            if shard.bin_map[word] >> 32:
                number = word * 64 + 63 - clz(<uint32_t> (shard.bin_map[word] >> 32))
            else:
                number -= clz(<uint32_t> shard.bin_map[word])
            unit = shard.bins[number]
            for tries in range(SCAN):
                if unit == 0:
                    break
                length = s.links[unit] & MAX_UNITS
                if length > best_length:
                    best = unit
                    best_length = length
                unit = run_at(s, unit).next
            return best
    return 0


# --- chains ---

cdef void extents_reset(ShardView *s) noexcept nogil:
    """All units free, in one run."""
    cdef Shard *shard = s.shard
    memset(shard.bin_map, 0, sizeof(shard.bin_map))
    memset(shard.bins, 0, sizeof(shard.bins))
    s.links[0] = 0
    s.links[s.unit_count] = 0
    shard.free_units = s.unit_count - 1
    run_add(s, 1, s.unit_count - 1)


cdef void extents_reset_keeping(ShardView *s, const uint64_t *kept) noexcept nogil:
    """All units free but those whose bit is set in `kept`; the links of those are not touched."""
    cdef Shard *shard = s.shard
    cdef uint32_t unit = 1, start
    memset(shard.bin_map, 0, sizeof(shard.bin_map))
    memset(shard.bins, 0, sizeof(shard.bins))
    s.links[0] = 0
    s.links[s.unit_count] = 0
    shard.free_units = 0
    while unit < s.unit_count:
        start = unit
        while unit < s.unit_count and not (kept[unit >> 6] >> (unit & 63)) & 1:
            unit += 1
        if unit > start:
            run_add(s, start, unit - start)
            shard.free_units += unit - start
        while unit < s.unit_count and (kept[unit >> 6] >> (unit & 63)) & 1:
            unit += 1


cdef uint32_t extents_take(ShardView *s, uint32_t count) noexcept nogil:
    """The first unit of a new chain of `count` units; the caller has made sure that as many are free."""
    cdef Shard *shard = s.shard
    cdef uint32_t first = 0, last = 0, unit, length, rest
    shard.free_units -= count
    while count:
        unit = run_find(s, count)
        length = s.links[unit] & MAX_UNITS
        run_drop(s, unit, length)
        if length > count:
            rest = length - count
            length = count
            run_add(s, unit + length, rest)
        crash_point()
        if length == 1:
            s.links[unit] = SINGLE
        else:
            s.links[unit + length - 1] = 0
            s.links[unit] = 0
            s.links[unit + 1] = length
        if last:
            s.links[last] |= unit
        else:
            first = unit
        last = unit
        count -= length
    return first


cdef void extents_free(ShardView *s, uint32_t first) noexcept nogil:
    """Give back a whole chain."""
    cdef Shard *shard = s.shard
    cdef uint32_t unit = first, next, length, other
    while unit:
        next = extent_next(s, unit)
        length = extent_length(s, unit)
        shard.free_units += length
        if s.links[unit - 1] & FREE:
            other = s.links[unit - 1] & MAX_UNITS
            unit -= other
            run_drop(s, unit, other)
            length += other
        if s.links[unit + length] & FREE:
            other = s.links[unit + length] & MAX_UNITS
            run_drop(s, unit + length, other)
            length += other
        crash_point()
        run_add(s, unit, length)
        unit = next


cdef uint32_t extents_units(ShardView *s, uint32_t first) noexcept nogil:
    cdef uint32_t total = 0
    while first:
        total += extent_length(s, first)
        first = extent_next(s, first)
    return total


# --- cursors ---

cdef bint cursor_turn(Cursor *c) noexcept nogil:
    """On to the next extent, if there is one."""
    cdef uint32_t next = extent_next(c.s, c.unit)
    if next == 0:
        return False
    c.unit = next
    c.at = c.s.units + <size_t> next * UNIT
    c.left = <size_t> extent_length(c.s, next) * UNIT
    return True


cdef void cursor_write(Cursor *c, const char *source, size_t size) noexcept nogil:
    cdef size_t piece
    while size:
        if c.left == 0 and not cursor_turn(c):
            return
        piece = size if size < c.left else c.left
        memcpy(c.at, source, piece)
        source += piece
        c.at += piece
        c.left -= piece
        size -= piece


cdef void cursor_read(Cursor *c, char *target, size_t size) noexcept nogil:
    cdef size_t piece
    while size:
        if c.left == 0 and not cursor_turn(c):
            return
        piece = size if size < c.left else c.left
        memcpy(target, c.at, piece)
        target += piece
        c.at += piece
        c.left -= piece
        size -= piece


cdef void cursor_skip(Cursor *c, size_t size) noexcept nogil:
    cdef size_t piece
    while size:
        if c.left == 0 and not cursor_turn(c):
            return
        piece = size if size < c.left else c.left
        c.at += piece
        c.left -= piece
        size -= piece


cdef void cursor_copy(Cursor *source, Cursor *target, size_t size) noexcept nogil:
    cdef size_t piece
    while size:
        if source.left == 0 and not cursor_turn(source):
            return
        piece = size if size < source.left else source.left
        cursor_write(target, source.at, piece)
        source.at += piece
        source.left -= piece
        size -= piece


cdef int cursor_iovecs(Cursor *c, size_t size, iovec *out, int room) noexcept nogil:
    """Where the next `size` octets lie, as far as `room` goes; how many pieces that is."""
    cdef size_t piece
    cdef int count = 0
    while size and count < room:
        if c.left == 0 and not cursor_turn(c):
            break
        piece = size if size < c.left else c.left
        out[count].iov_base = c.at
        out[count].iov_len = piece
        c.at += piece
        c.left -= piece
        size -= piece
        count += 1
    return count
