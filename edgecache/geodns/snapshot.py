"""Everything a server needs to answer, as one value that never changes: it is replaced as a whole.

Made anew when health, the configuration or the database changes. A server, compiled or not, that holds a snapshot needs
nothing else.
"""

from dataclasses import dataclass

from edgecache.geodns.answer import Choice, GeoName, Health, Pop, choose
from edgecache.geodns.mapping import Mapping


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is to know at a moment."""

    mapping: Mapping
    pops: tuple[Pop, ...]
    health: Health
    names: dict[bytes, GeoName]
    """Geo names by owner, in wire form and lower case. Owners that begin with a * label stand for those below."""

    def choice(self, name: GeoName, kind: int, number: int, client: bytes) -> Choice:
        """For clients of the list with this number."""
        return choose(self.mapping.lists[number], name, kind, self.pops, self.health, client)
