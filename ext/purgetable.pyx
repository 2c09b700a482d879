"""The purge table: tag -> numbers of its last hard and soft purge, in open addressing (DESIGN §7).

Who writes holds the mutex. Who reads holds nothing, in any process:

- A slot's numbers only grow, each in one store; a new slot's tag is stored after its numbers; slots do not move but in
  a rebuild. A reader so finds every purge whose stores came before its loads.
- A purge stores its slots, then the epoch, then the sequence. A reader loads the epoch first. If it sees the new one,
  it sees the slots; if the old one, the purge had not returned when the reader began. An object is held valid for
  exactly the epoch it was checked under, so whoever begins after `purges_apply` has returned checks it again, in all
  processes alike, and a put that raced with the purge has left an object checked under the old epoch.
- A purge of many tags is one step. A number above the sequence is of a purge whose tags are not all there yet: a reader
  that meets one waits for the mutex. So nobody finds anything purged by it before the epoch is stored, and after that
  nobody finds anything valid that it covers.
- While slots move `rebuild` is odd, and it differs afterwards: a reader that met that reads again under the mutex.

A writer that died leaves slots whose purge was not announced: they can only purge what the purge, which its log will
bring again, was to purge. One that died in a rebuild leaves a floor at the newest number begun with: everything older is
purged. More may be purged than was asked, never less; the same holds for folding when the table is full.

Before it is full, what nothing stored needs is forgotten (purge/forgetting.py): once every stored object has been compared
with all purges up to a number, and carries that as its `fill_seq`, their slots go and the floor passes beneath what is
stored. It meets only what was under way since before then, which is not stored, and so purged more and never less.

Patterns (docs/purging.md): what no tag says is kept as a text behind the slots, with its number. `patterns` is the newest
of them: an object filled before it is not used until somebody has compared its URL with the texts. What matches is then
purged by a tag of its own under the pattern's number, and what does not gets that number as its `fill_seq`: of two
compared fields this is still one. A pattern is forgotten when it is folded into its tag, for want of room, or by
`purges_retire`, once whoever calls has seen that nothing older is left; what was then still on its way is not stored.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset
from edgecache._native.extents cimport crash_point
from edgecache._native.layout cimport MAX_PATTERNS, PatternRecord, PurgeSlot, PurgeTable
from edgecache._native.sync cimport (
    EOWNERDEAD, coarse_ns, fence, load, mutex_create, pthread_mutex_consistent, pthread_mutex_lock,
    pthread_mutex_unlock, store,
)

cdef enum:
    FOLD_CLASSES = 64
    UNPUBLISHED = -1


cdef inline PurgeSlot *slots_of(PurgeTable *t) noexcept nogil:
    return <PurgeSlot *> (<char *> t + ((sizeof(PurgeTable) + 63) // 64) * 64)


cdef inline uint64_t newest(const PurgeSlot *slot) noexcept nogil:
    return slot.hard if slot.hard > slot.soft else slot.soft


cdef PatternRecord *pattern_first(PurgeTable *t) noexcept nogil:
    return <PatternRecord *> (slots_of(t) + t.capacity)


cdef PatternRecord *pattern_next(const PatternRecord *record) noexcept nogil:
    return <PatternRecord *> (<char *> record + pattern_size(record.length))


cdef inline uint32_t pattern_size(uint32_t length) noexcept nogil:
    return sizeof(PatternRecord) + (length + 7) // 8 * 8


cdef void purges_create(PurgeTable *t, uint32_t capacity, uint32_t pattern_room) noexcept nogil:
    """An empty table of `capacity` slots, a power of two, with this much room for patterns behind them."""
    t.capacity = capacity
    t.pattern_room = pattern_room
    t.trusted_until = <uint64_t> -1
    mutex_create(&t.mutex)


cdef bint purges_silent(PurgeTable *t) noexcept nogil:
    """Has the moment passed until which this node knows of every purge? The clock runs alike in all processes."""
    cdef uint64_t until = load(&t.trusted_until)
    return until != <uint64_t> -1 and coarse_ns() >= until


cdef void purges_lock(PurgeTable *t) noexcept nogil:
    cdef uint32_t i, used = 0
    cdef uint64_t floor
    cdef PurgeSlot *slots = slots_of(t)
    if pthread_mutex_lock(&t.mutex) != EOWNERDEAD:
        return
    if t.rebuild & 1:
        floor = t.pending if t.pending > t.sequence else t.sequence
        if floor > t.floor_hard:
            store(&t.floor_hard, floor)
        memset(slots, 0, <size_t> t.capacity * sizeof(PurgeSlot))
        store(&t.rebuild, t.rebuild + 1)
    if t.pattern_changes & 1:
        floor = t.pending if t.pending > t.sequence else t.sequence
        if floor > t.floor_hard:
            store(&t.floor_hard, floor)
        t.pattern_count = 0
        t.pattern_used = 0
        store(&t.patterns, 0)
        store(&t.pattern_changes, t.pattern_changes + 1)
    for i in range(t.capacity):
        used += slots[i].tag != 0
    t.used = used
    store(&t.epoch, t.epoch + 1)
    if t.pending > t.sequence:
        store(&t.sequence, t.pending)  # what there is of a purge that was not announced is in force from here on
    pthread_mutex_consistent(&t.mutex)


cdef inline PurgeSlot *find(PurgeTable *t, uint64_t tag) noexcept nogil:
    """The slot of the tag, or an empty one; NULL only where slots move under the reader."""
    cdef PurgeSlot *slots = slots_of(t)
    cdef uint32_t mask = t.capacity - 1, at = <uint32_t> tag & mask, i
    cdef uint64_t there
    for i in range(t.capacity):
        there = load(&slots[at].tag)
        if there == tag or there == 0:
            return &slots[at]
        at = (at + 1) & mask
    return NULL


cdef void fold(PurgeTable *t) noexcept nogil:
    """Raise the floors over the older purges and drop their slots: at least a sixteenth, as a rule about half.

    The line is drawn between classes of numbers of equal width, the first with half of the slots at or below it.
    """
    cdef PurgeSlot *slots = slots_of(t)
    cdef PurgeSlot *kept = <PurgeSlot *> malloc(<size_t> t.capacity * sizeof(PurgeSlot))
    cdef uint32_t classes[FOLD_CLASSES]
    cdef uint32_t i, below = 0
    cdef uint64_t low = <uint64_t> -1, high = 0, hard = 0, soft = 0, number, width, line
    memset(classes, 0, sizeof(classes))
    for i in range(t.capacity):
        if slots[i].tag:
            number = newest(&slots[i])
            low = number if number < low else low
            high = number if number > high else high
    width = (high - low) // FOLD_CLASSES + 1
    line = high
    if kept != NULL:
        for i in range(t.capacity):
            if slots[i].tag:
                classes[(newest(&slots[i]) - low) // width] += 1
        for i in range(FOLD_CLASSES):
            below += classes[i]
            if below * 2 >= t.used:
                line = low + (i + 1) * width - 1
                break
    for i in range(t.capacity):
        if slots[i].tag and newest(&slots[i]) <= line:
            hard = slots[i].hard if slots[i].hard > hard else hard
            soft = slots[i].soft if slots[i].soft > soft else soft
    store(&t.rebuild, t.rebuild + 1)
    fence()
    if hard > t.floor_hard:
        store(&t.floor_hard, hard)
    if soft > t.floor_soft:
        store(&t.floor_soft, soft)
    compact(t, kept, line, False)
    t.folds += 1
    fence()
    store(&t.rebuild, t.rebuild + 1)
    free(kept)


cdef void compact(PurgeTable *t, PurgeSlot *room, uint64_t line, bint keep_soft) noexcept nogil:
    """Drop the slots up to this number, in a rebuild; `room` for all others, or NULL where there are none."""
    cdef PurgeSlot *slots = slots_of(t)
    cdef PurgeSlot *slot
    cdef uint32_t i, keep = 0
    for i in range(t.capacity):
        if slots[i].tag and (newest(&slots[i]) > line or (keep_soft and slots[i].soft)):
            room[keep] = slots[i]
            keep += 1
    crash_point()
    memset(slots, 0, <size_t> t.capacity * sizeof(PurgeSlot))
    crash_point()
    for i in range(keep):
        slot = find(t, room[i].tag)
        slot.hard = room[i].hard
        slot.soft = room[i].soft
        store(&slot.tag, room[i].tag)
    t.used = keep


cdef uint32_t purges_newer(PurgeTable *t, uint64_t number) noexcept nogil:
    """How many slots have a newer purge."""
    cdef PurgeSlot *slots = slots_of(t)
    cdef uint32_t i, found = 0
    purges_lock(t)
    for i in range(t.capacity):
        found += slots[i].tag != 0 and newest(&slots[i]) > number
    pthread_mutex_unlock(&t.mutex)
    return found


cdef uint32_t purges_forget(PurgeTable *t, uint64_t through, bint soft) noexcept nogil:
    """Drop the slots of purges up to this number, with which everything stored has been compared (without `soft`, with
    the hard ones: then those with a soft purge stay). Returns how many went."""
    cdef PurgeSlot *room
    cdef uint32_t before
    purges_lock(t)
    before = t.used
    room = <PurgeSlot *> malloc(<size_t> (before + 1) * sizeof(PurgeSlot))
    if room == NULL or through > t.sequence or through <= t.proved:
        free(room)
        pthread_mutex_unlock(&t.mutex)
        return 0
    store(&t.rebuild, t.rebuild + 1)
    fence()
    store(&t.proved, through)
    if through > t.floor_hard:
        store(&t.floor_hard, through)
    compact(t, room, through, not soft)
    before -= t.used
    t.forgotten += before
    fence()
    store(&t.rebuild, t.rebuild + 1)
    pthread_mutex_unlock(&t.mutex)
    free(room)
    return before


cdef void note(PurgeTable *t, uint64_t tag, uint64_t sequence, bint soft) noexcept nogil:
    cdef PurgeSlot *slot
    if sequence <= t.floor_hard or (soft and sequence <= t.floor_soft):
        return
    slot = find(t, tag)
    if slot.tag == 0:
        if <uint64_t> t.used * 4 >= <uint64_t> t.capacity * 3:
            fold(t)
            note(t, tag, sequence, soft)
            return
        slot.hard = 0 if soft else sequence
        slot.soft = sequence if soft else 0
        t.used += 1
        crash_point()
        store(&slot.tag, tag)
    elif soft:
        if sequence > slot.soft:
            store(&slot.soft, sequence)
    elif sequence > slot.hard:
        store(&slot.hard, sequence)


cdef void widen(PurgeTable *t, uint64_t tag, uint64_t sequence, bint soft) noexcept nogil:
    """In place of a pattern: what surely covers it."""
    if tag:
        note(t, tag, sequence, soft)
    elif soft:
        if sequence > t.floor_soft:
            store(&t.floor_soft, sequence)
    elif sequence > t.floor_hard:
        store(&t.floor_hard, sequence)


cdef void forget(PurgeTable *t, uint32_t count) noexcept nogil:
    """Remove the oldest patterns."""
    cdef PatternRecord *record = pattern_first(t)
    cdef uint64_t newest = 0
    cdef uint32_t i, size
    if count == 0:
        return
    store(&t.pattern_changes, t.pattern_changes + 1)
    fence()
    for i in range(count):
        record = pattern_next(record)
    size = <uint32_t> (<char *> record - <char *> pattern_first(t))
    t.pattern_used -= size
    t.pattern_count -= count
    crash_point()
    memmove(pattern_first(t), record, t.pattern_used)
    record = pattern_first(t)
    for i in range(t.pattern_count):
        newest = record.number
        record = pattern_next(record)
    store(&t.patterns, newest)
    fence()
    store(&t.pattern_changes, t.pattern_changes + 1)


cdef void remember(PurgeTable *t, const Pattern *pattern, uint64_t sequence, bint soft) noexcept nogil:
    """Add a pattern as the newest. Where there is no room, the oldest become what surely covers them."""
    cdef uint32_t need = pattern_size(pattern.length)
    cdef PatternRecord *record
    if need > t.pattern_room or sequence < t.patterns:
        widen(t, pattern.tag, sequence, soft)
        return
    while t.pattern_used + need > t.pattern_room or t.pattern_count >= MAX_PATTERNS:
        record = pattern_first(t)
        widen(t, record.tag, record.number, record.soft)
        forget(t, 1)
        t.folds += 1
    store(&t.pattern_changes, t.pattern_changes + 1)
    fence()
    record = <PatternRecord *> (<char *> pattern_first(t) + t.pattern_used)
    record.number = sequence
    record.tag = pattern.tag
    record.length = pattern.length
    record.soft = soft
    crash_point()
    memcpy(record + 1, pattern.text, pattern.length)
    t.pattern_used += need
    t.pattern_count += 1
    store(&t.patterns, sequence)
    fence()
    store(&t.pattern_changes, t.pattern_changes + 1)


cdef void purges_retire(PurgeTable *t, uint64_t through, bint forgotten) noexcept nogil:
    """From now on nothing is stored any more that was filled before `through`; with `forgotten`, patterns up to it are
    no more: the caller has seen that nothing older is left uncompared since it asked for that first."""
    cdef PatternRecord *record
    cdef uint32_t count = 0
    purges_lock(t)
    if through > t.retired:
        store(&t.retired, through)
    record = pattern_first(t)
    while forgotten and count < t.pattern_count and record.number <= through:
        count += 1
        record = pattern_next(record)
    forget(t, count)
    pthread_mutex_unlock(&t.mutex)


cdef void purges_apply(
    PurgeTable *t, uint64_t sequence, const uint64_t *tags, size_t count, bint soft, const Pattern *patterns, size_t many
) noexcept nogil:
    purges_lock(t)
    spread(t, sequence, tags, count, soft, patterns, many)
    pthread_mutex_unlock(&t.mutex)


cdef void spread(
    PurgeTable *t, uint64_t sequence, const uint64_t *tags, size_t count, bint soft, const Pattern *patterns, size_t many
) noexcept nogil:
    """Note a purge under each of its tags, and its patterns. The mutex is held."""
    cdef size_t i
    if sequence > t.pending:
        t.pending = sequence
    for i in range(many):
        remember(t, &patterns[i], sequence, soft)
    for i in range(count):
        note(t, tags[i], sequence, soft)
    crash_point()
    store(&t.epoch, t.epoch + 1)
    if sequence > t.sequence:
        store(&t.sequence, sequence)


cdef void purges_raise(PurgeTable *t, uint64_t sequence, bint soft) noexcept nogil:
    purges_lock(t)
    lift(t, sequence, soft)
    pthread_mutex_unlock(&t.mutex)


cdef uint64_t purges_append(
    PurgeTable *t, const uint64_t *tags, size_t count, bint soft, bint floor, const Pattern *patterns, size_t many
) noexcept nogil:
    """Allot the next number and apply the purge under it, in one section: no other purge comes between.

    A number that a dead process had begun with is not given out again.
    """
    cdef uint64_t sequence
    purges_lock(t)
    sequence = (t.pending if t.pending > t.sequence else t.sequence) + 1
    if floor:
        lift(t, sequence, soft)
    else:
        spread(t, sequence, tags, count, soft, patterns, many)
    pthread_mutex_unlock(&t.mutex)
    return sequence


cdef void lift(PurgeTable *t, uint64_t sequence, bint soft) noexcept nogil:
    """Raise a floor. The mutex is held."""
    if sequence > t.pending:
        t.pending = sequence
    if soft:
        if sequence > t.floor_soft:
            store(&t.floor_soft, sequence)
    elif sequence > t.floor_hard:
        store(&t.floor_hard, sequence)
    crash_point()
    store(&t.epoch, t.epoch + 1)
    if sequence > t.sequence:
        store(&t.sequence, sequence)


cdef inline int judged(uint64_t number, uint64_t fill_seq, uint64_t published, int verdict) noexcept nogil:
    """`verdict` where this number covers the fill, else 0."""
    if number <= fill_seq:
        return 0
    return verdict if number <= published else UNPUBLISHED


cdef int scan(
    PurgeTable *t, uint64_t hard_seq, uint64_t soft_seq, const uint64_t *tags, size_t count, uint64_t published
) noexcept nogil:
    """Up to which hard and soft purges it is known to be valid. `published`: the last number whose purge is whole."""
    cdef int verdict = judged(load(&t.floor_hard), hard_seq, published, 2)
    cdef int found
    cdef size_t i
    cdef PurgeSlot *slot
    if verdict:
        return verdict
    verdict = judged(load(&t.floor_soft), soft_seq, published, 1)
    for i in range(count):
        if verdict == UNPUBLISHED:
            return verdict
        slot = find(t, tags[i])
        if slot == NULL or slot.tag == 0:
            continue
        found = judged(load(&slot.hard), hard_seq, published, 2)
        if found:
            return found
        found = judged(load(&slot.soft), soft_seq, published, 1)
        verdict = found if found else verdict
    return verdict


cdef int purges_verdict(PurgeTable *t, uint64_t fill_seq, const uint64_t *tags, size_t count) noexcept nogil:
    """0 valid, 1 soft-purged, 2 hard-purged. The caller loads the epoch before it asks."""
    return purges_verdict_stored(t, fill_seq, 0, tags, count)


cdef int purges_verdict_stored(
    PurgeTable *t, uint64_t fill_seq, uint64_t proved, const uint64_t *tags, size_t count
) noexcept nogil:
    """The same of what is stored elsewhere, and known not to be covered by a hard purge up to `proved`."""
    cdef uint64_t before = load(&t.rebuild)
    cdef uint64_t hard_seq = fill_seq if fill_seq > proved else proved
    cdef int verdict
    if not before & 1:
        verdict = scan(t, hard_seq, fill_seq, tags, count, load(&t.sequence))
        fence()
        if load(&t.rebuild) == before and verdict != UNPUBLISHED:
            return verdict
    purges_lock(t)
    verdict = scan(t, hard_seq, fill_seq, tags, count, <uint64_t> -1)
    pthread_mutex_unlock(&t.mutex)
    return verdict
