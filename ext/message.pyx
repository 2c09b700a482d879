"""Heads of messages as values. The documentation is in the .pyi beside it.

A request passes through a dozen hands that each look up a few fields or leave some out, so this is compiled: names in
lower case are worked out once and handed on to the heads made from this one, and a look-up compares pointers before
it compares octets. There are few lines in a head (the decoders see to that), so none are indexed.
"""

cimport cython

from edgecache._native.http1_text import NAMES

cdef dict LOWER = {name: name.lower() for name in NAMES.split()}
LOWER.update({name: name for name in list(LOWER.values())})


cdef inline str lower_of(str name):
    """In lower case; for names everybody sends always the same object."""
    cdef object found = LOWER.get(name)
    return <str> found if found is not None else name.lower()


cdef inline bint named(str have, str name) noexcept:
    return have is name or have == name


@cython.final
@cython.freelist(64)
cdef class Headers:
    cdef readonly tuple lines
    cdef tuple _names

    def __init__(self, lines=()):
        self.lines = lines if type(lines) is tuple else tuple(lines)

    @property
    def names(self):
        return self._lower()

    cdef inline tuple _lower(self):
        if self._names is None:
            self._names = tuple([lower_of(<str> (<tuple> line)[0]) for line in self.lines])
        return self._names

    def __iter__(self):
        return iter(self.lines)

    def __len__(self):
        return len(self.lines)

    def __contains__(self, name):
        cdef str have
        if type(name) is not str:
            return name in self._lower()
        for have in self._lower():
            if named(have, <str> name):
                return True
        return False

    def __eq__(self, other):
        return isinstance(other, Headers) and self.lines == (<Headers> other).lines

    def __hash__(self):
        return hash(self.lines)

    def __repr__(self):
        return f"Headers({list(self.lines)!r})"

    def get(self, str name not None):
        cdef tuple names = self._lower()
        cdef Py_ssize_t i
        cdef object found = None
        cdef list several = None
        for i in range(len(names)):
            if named(<str> names[i], name):
                if found is None:
                    found = (<tuple> self.lines[i])[1]
                elif several is None:
                    several = [found, (<tuple> self.lines[i])[1]]
                else:
                    several.append((<tuple> self.lines[i])[1])
        return found if several is None else ", ".join(several)

    def get_all(self, str name not None):
        cdef tuple names = self._lower()
        cdef Py_ssize_t i
        cdef list found = []
        for i in range(len(names)):
            if named(<str> names[i], name):
                found.append((<tuple> self.lines[i])[1])
        return found

    def touch(self, names):
        for have in self._lower():
            if have in names:
                return True
        return False

    def without(self, names, plus=()):
        cdef tuple have = self._lower()
        cdef list lines = [], kept = []
        cdef Py_ssize_t i
        for i in range(len(have)):
            if have[i] not in names:
                lines.append(self.lines[i])
                kept.append(have[i])
        return derived(lines, kept, plus)

    def plus(self, lines):
        return derived(list(self.lines), list(self._lower()), lines)

    def replaced(self, str name not None, str value not None, *, spell=str.title):
        cdef tuple have = self._lower()
        cdef list kept = []
        cdef Py_ssize_t i
        cdef bint done = False
        for i in range(len(have)):
            if not named(<str> have[i], name):
                kept.append(self.lines[i])
            elif not done:
                kept.append(((<tuple> self.lines[i])[0], value))
                done = True
        if not done:
            kept.append((spell(name), value))
        return Headers(tuple(kept))


cdef Headers derived(list lines, list names, more):
    """`lines`, whose names in lower case are known, and some more."""
    cdef Headers made = Headers.__new__(Headers)
    for line in more:
        lines.append(line)
        names.append(lower_of(<str?> (<tuple?> line)[0]))
    made.lines = tuple(lines)
    made._names = tuple(names)
    return made


@cython.final
cdef class Peer:
    cdef readonly object ip, port, tls

    def __init__(self, ip, port, tls=False):
        self.ip = ip
        self.port = port
        self.tls = tls

    def _facts(self):
        return self.ip, self.port, self.tls

    def __eq__(self, other):
        return isinstance(other, Peer) and self._facts() == other._facts()

    def __hash__(self):
        return hash(self._facts())

    def __repr__(self):
        return f"Peer(ip={self.ip!r}, port={self.port!r}, tls={self.tls!r})"


cdef tuple V11 = (1, 1)
cdef Peer NOBODY = Peer("127.0.0.1", 0)


@cython.final
@cython.freelist(64)
cdef class Request:
    cdef readonly object method, scheme, authority, target, headers, version, peer

    def __init__(self, method, scheme, authority, target, headers, version=V11, peer=NOBODY):
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.target = target
        self.headers = headers
        self.version = version
        self.peer = peer

    cdef inline Request _copy(self):
        cdef Request made = Request.__new__(Request)
        made.method = self.method
        made.scheme = self.scheme
        made.authority = self.authority
        made.target = self.target
        made.headers = self.headers
        made.version = self.version
        made.peer = self.peer
        return made

    def with_headers(self, headers):
        cdef Request made = self._copy()
        made.headers = headers
        return made

    def with_method(self, method):
        cdef Request made = self._copy()
        made.method = method
        return made

    def _facts(self):
        return self.method, self.scheme, self.authority, self.target, self.headers, self.version, self.peer

    def __eq__(self, other):
        return isinstance(other, Request) and self._facts() == other._facts()

    def __hash__(self):
        return hash(self._facts())

    def __repr__(self):
        return (
            f"Request(method={self.method!r}, scheme={self.scheme!r}, authority={self.authority!r}, "
            f"target={self.target!r}, headers={self.headers!r}, version={self.version!r}, peer={self.peer!r})"
        )


@cython.final
@cython.freelist(64)
cdef class Response:
    cdef readonly object status, reason, headers, version

    def __init__(self, status, reason, headers, version=V11):
        self.status = status
        self.reason = reason
        self.headers = headers
        self.version = version

    def with_headers(self, headers):
        cdef Response made = Response.__new__(Response)
        made.status = self.status
        made.reason = self.reason
        made.headers = headers
        made.version = self.version
        return made

    def _facts(self):
        return self.status, self.reason, self.headers, self.version

    def __eq__(self, other):
        return isinstance(other, Response) and self._facts() == other._facts()

    def __hash__(self):
        return hash(self._facts())

    def __repr__(self):
        return (
            f"Response(status={self.status!r}, reason={self.reason!r}, headers={self.headers!r}, "
            f"version={self.version!r})"
        )
