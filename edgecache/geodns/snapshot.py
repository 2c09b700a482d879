"""Everything a server needs to answer, as one value that never changes: it is replaced as a whole.

Made anew when health, the configuration or the database changes. A server, compiled or not, that holds a snapshot needs
nothing else, and answers that it is given here need no more than to be put behind a question.
"""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from edgecache.geodns.answer import AAAA, A, Choice, GeoName, Health, Pop, choose
from edgecache.geodns.mapping import Mapping

COMPRESSED = b"\xc0\x0c"
"""A pointer to the question's name (RFC 1035 §4.1.4), which is always at octet 12."""


class Ready(NamedTuple):
    """An answer that needs only a header and a question in front."""

    records: bytes
    """The whole answer section; owners are pointers to the question's name."""
    number: int
    """Of records."""
    ttl_s: int
    pop: int
    """Whose address is the first."""
    reason: str


@dataclass(slots=True)
class Snapshot:
    """What there is to know at a moment."""

    mapping: Mapping
    pops: tuple[Pop, ...]
    health: Health
    names: dict[bytes, GeoName]
    """Geo names by owner, in wire form and lower case. Owners that begin with a * label stand for those below."""
    _ready: dict[tuple[bytes, int, int], Ready | None] = field(default_factory=dict)
    _built: dict[tuple[int, tuple[bytes, ...], int], bytes] = field(default_factory=dict)

    def choice(self, name: GeoName, kind: int, number: int, client: bytes) -> Choice:
        """For clients of the list with this number."""
        return choose(self.mapping.lists[number], name, kind, self.pops, self.health, client)

    def ready(self, owner: bytes, kind: int, number: int) -> Ready | None:
        """The answer for all clients of one list; None where it takes more to answer (weights, an empty answer,
        no such name). The scope to send is that of the list, at least 1. `owner`: exact, in lower case."""
        key = (owner, kind, number)
        if key not in self._ready:
            self._ready[key] = self._make(*key)
        return self._ready[key]

    def _make(self, owner: bytes, kind: int, number: int) -> Ready | None:
        name = self.names.get(owner)
        if name is None or kind not in (A, AAAA):
            return None
        choice = self.choice(name, kind, number, b"")
        if choice.by_client or not choice.addresses:
            return None
        records = self.records(kind, choice)
        return Ready(records, len(choice.addresses), choice.ttl_s, choice.pops[0], choice.reason.value)

    def records(self, kind: int, choice: Choice) -> bytes:
        """An answer section of addresses."""
        key = (kind, choice.addresses, choice.ttl_s)
        made = self._built.get(key)
        if made is None:
            head = COMPRESSED + struct.pack(">HHIH", kind, 1, choice.ttl_s, 4 if kind == A else 16)
            made = self._built[key] = b"".join(head + address for address in choice.addresses)
        return made
