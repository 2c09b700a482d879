"""Ready answers to plain queries, and the search for the one that fits (DESIGN §12).

A table belongs to one state of the world: one configuration, one database, one epoch of health. It is made whole and
put in use in place of the last one. What depends on the client is made when its list of PoPs is first asked for, and
kept: `ready` is called with (geo number, list number, client network or None) and returns an answer, None when such
queries are for the slow path, or `BY_CLIENT` to be asked again for each client network (as `client_key` writes them).

Names are in wire form and lower case. An answer is everything behind the question but the OPT record. Pointers within
it (RFC 1035 §4.1.4) may lead to octet 12, the question's name; one that leads farther is written down as a patch,
since its target moves with the length of the name that was asked for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias, final

from edgecache._native.dnsranges import Ranges

BY_CLIENT: Final[object]

class Answer(NamedTuple):
    """What follows a question."""

    records: bytes
    answers: int
    """Records in the answer section; those of the others follow them."""
    authority: int = 0
    flags: int = 0x0400
    """Of the header: AA and the RCODE. QR, RD and TC are seen to."""
    patches: tuple[tuple[int, int], ...] = ()
    """(offset in `records`, target less the length of the question's name) of pointers to be written."""
    by_client: bool = False
    """It holds for the client's network alone (answer.py's CLIENT_BITS_4 and _6): no scope is wider."""
    counted: tuple[int, int] = (-1, -1)
    """Numbers of the counters that each use of it adds to; -1 for none."""
    additional: int = 0
    """Records in the additional section, OPT apart. If all do not fit, the slow path leaves some of them out."""

Ready: TypeAlias = Callable[[int, int, bytes | None], Answer | object | None]

class Node(NamedTuple):
    """An owner name, or an empty non-terminal."""

    zone: int
    kinds: Mapping[int, Answer | int | None]
    """By type: an answer for everybody, the number of a geo, or None for the slow path."""
    other: Answer | None
    """For every type not in `kinds` that may be asked for: no data, or the CNAME. None: the slow path answers."""
    slow: bool = False
    """Queries for it and names below it are for the slow path."""

@final
class Table:
    """The answers of one state of the world."""

    lists: int

    def __init__(
        self,
        nodes: Mapping[bytes, Node | int],
        absent: Sequence[Answer | None],
        *,
        outside: Answer | None = None,
        ranges_4: Ranges | None = None,
        ranges_6: Ranges | None = None,
        lists: int = 0,
        ready: Ready | None = None,
        fill: Callable[[bytes], Node] | None = None,
        counters: int = 0,
        places_4: Ranges | None = None,
        places_6: Ranges | None = None,
    ) -> None:
        """`nodes` holds every zone's apex and every name from there down to its owners; "*" labels are wildcards
        (RFC 4592). Of a name with nothing but the number of its zone `fill` says the rest when it is first asked for.
        `absent`: by zone, the answer for a name that does not exist. `outside`: for one in no zone.
        None is the slow path. `counters`: how many; `places_4` and `places_6` lead to the one for clients there.
        ValueError when numbers do not fit together."""

    def answer(self, packet: bytes, peer: bytes, cookie: bytes = b"", most: int = 65535) -> bytes | None:
        """The answer to a packet from an address of 4 or 16 octets, or None when it is not for this path. `cookie`: 24
        octets to send where the query has a cookie. `most`: octets of the answer; a longer one is cut. Counted."""

    def counts(self) -> list[int]:
        """What each counter has come to."""

    def explain(self, packet: bytes, peer: bytes) -> tuple[int, int] | None:
        """For tests: (scope sent or -1, what response-rate limiting takes it for)."""

    @property
    def size_bytes(self) -> int:
        """Memory of its tables, answers and ranges, about."""

def siblings(names: Iterable[bytes], apex: bytes) -> set[bytes]:
    """`names` with all names between them and `apex`, which it holds too."""
