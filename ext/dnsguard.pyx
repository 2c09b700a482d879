"""Cookies and response-rate limiting; see the stub."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from edgecache._native.dnsranges cimport Ranges
from edgecache._native.hashing cimport siphash

import os

cdef enum:
    CLIENT_N = 8
    BOTH_N = 24
    OLDEST_S = 3600                  # RFC 9018 4.3
    NEWEST_S = 300
    RENEW_S = 1800
    C_PASS = 0
    C_DROP = 1
    C_SLIP = 2

PASS, DROP, SLIP = C_PASS, C_DROP, C_SLIP


@cython.final
cdef class Cookies:
    def __cinit__(self, secrets not None):
        if not 1 <= len(secrets) <= 4 or any(len(secret) != 16 for secret in secrets):
            raise ValueError("cookies want 1 to 4 secrets of 16 octets")
        for secret in secrets:
            memcpy(self.secrets[self.count], <const char *> <bytes> secret, 16)
            self.count += 1

    cdef bint judge(
        self, const uint8_t *option, size_t n, const uint8_t *address, int version, uint32_t now, uint8_t *out
    ) noexcept nogil:
        """RFC 9018 4: client cookie, then version 1, three reserved octets, time, hash. Writes what to send to `out`."""
        cdef uint8_t text[32]
        cdef uint64_t hash
        cdef uint32_t stamp
        cdef int i, age
        cdef size_t address_n = 4 if version == 4 else 16
        memcpy(text, option, min(n, <size_t> 16))
        memcpy(text + 16, address, address_n)
        if n == BOTH_N and option[8] == 1:  # whatever is in the reserved octets, the hash is made with it
            stamp = <uint32_t> option[12] << 24 | <uint32_t> option[13] << 16 | <uint32_t> option[14] << 8 | option[15]
            age = <int> (now - stamp)  # serial numbers, RFC 1982
            if -NEWEST_S <= age <= OLDEST_S:
                for i in range(self.count):
                    siphash(2, 4, self.secrets[i], text, 16 + address_n, &hash, NULL)
                    if memcmp(&hash, option + 16, 8) == 0:
                        if i == 0 and age < RENEW_S:
                            memcpy(out, option, BOTH_N)
                        else:
                            self._make(text, address_n, now, out)
                        return True
        self._make(text, address_n, now, out)
        return False

    cdef void _make(self, uint8_t *text, size_t address_n, uint32_t now, uint8_t *out) noexcept nogil:
        cdef uint64_t hash
        text[8], text[9], text[10], text[11] = 1, 0, 0, 0
        text[12], text[13], text[14], text[15] = now >> 24 & 255, now >> 16 & 255, now >> 8 & 255, now & 255
        siphash(2, 4, self.secrets[0], text, 16 + address_n, &hash, NULL)
        memcpy(out, text, 16)
        memcpy(out + 16, &hash, 8)

    def reply(self, bytes option not None, bytes address not None, uint32_t now):
        cdef uint8_t out[BOTH_N]
        if len(address) not in (4, 16) or not (len(option) == CLIENT_N or 16 <= len(option) <= 40):
            raise ValueError("no cookie option, or no address")
        proven = self.judge(
            <const uint8_t *> <const char *> option, len(option), <const uint8_t *> <const char *> address,
            4 if len(address) == 4 else 6, now, out,
        )
        return (<const char *> out)[:BOTH_N], proven


@cython.final
cdef class Limiter:
    def __cinit__(
        self, double per_second, errors=None, *, double window_s=1.0, uint32_t slip=2, size_t lines=1 << 16,
        Ranges exempt_4=None, Ranges exempt_6=None,
    ):
        cdef double rate
        cdef int i
        if lines & (lines - 1) or not 2 <= lines <= 1 << 24:
            raise ValueError("lines are a power of two from 2 on")
        if not 0 < window_s <= 3600:
            raise ValueError("a window is longer than 0, and at most an hour")
        for i in range(2):
            rate = per_second if i == 0 or errors is None else errors
            if not 0 <= rate <= 1e9:
                raise ValueError("a rate is at least 0 and at most 10**9")
            self.step_ns[i] = max(<uint64_t> (1e9 / rate), <uint64_t> 1) if rate else 0
        self.slip = slip
        self.window_ns = <uint64_t> (window_s * 1e9)
        self.exempt_4 = exempt_4
        self.exempt_6 = exempt_6
        self.mask = lines - 1
        self.key = int.from_bytes(os.urandom(8), "little") | 1
        self.lines = <Line *> calloc(lines, sizeof(Line))
        if self.lines == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.lines)

    cdef int judge(
        self, const uint8_t *address, int version, uint32_t subject, bint error, uint64_t now_ns
    ) noexcept:
        """A line's next answer falls due one step after the last; who is ahead by more than a window has had enough."""
        cdef uint64_t who = 0, hash, step = self.step_ns[error]
        cdef uint32_t mark
        cdef Line *line
        cdef Line *other
        cdef Ranges exempt
        cdef int prefix
        if step == 0:
            return C_PASS
        memcpy(&who, address, 3 if version == 4 else 7)
        who |= <uint64_t> version << 56
        hash = (who ^ self.key) * <uint64_t> 0x9E3779B97F4A7C15
        hash ^= hash >> 32
        hash = (hash ^ subject ^ self.key >> 7) * <uint64_t> 0xC2B2AE3D27D4EB4F
        hash ^= hash >> 29
        mark = <uint32_t> (hash >> 32) | 1
        line = &self.lines[hash & self.mask]
        if line.mark != mark:
            other = &self.lines[(hash & self.mask) ^ 1]
            if other.mark == mark or other.due_ns < line.due_ns:
                line = other
            if line.mark != mark:  # nobody's, or whoever has waited longest: forgotten
                line.mark, line.refused, line.due_ns = mark, 0, 0
        if line.due_ns < now_ns:
            line.due_ns = now_ns
        if line.due_ns + step - now_ns <= max(self.window_ns, step) + step // 2:
            line.due_ns += step
            line.refused = 0
            return C_PASS
        exempt = self.exempt_4 if version == 4 else self.exempt_6
        if exempt is not None and exempt.look_up(address, &prefix) == 1:
            return C_PASS
        line.refused += 1
        return C_SLIP if self.slip and line.refused % self.slip == 0 else C_DROP

    def ask(self, bytes address not None, uint32_t subject, uint64_t now_ns, bint error=False):
        if len(address) not in (4, 16):
            raise ValueError("an address has 4 or 16 octets")
        return self.judge(
            <const uint8_t *> <const char *> address, 4 if len(address) == 4 else 6, subject, error, now_ns
        )
