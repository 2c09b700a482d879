"""PURE. Where addresses go: ranges of addresses, each with the number of an ordered list of PoPs.

Everything that can be worked out before a query is worked out here: distances, overrides, configured networks. What is
left for a query is one search in a sorted array. Equal neighbours are one range, and the scope of an answer (RFC 7871
§7.2.1) is the widest network around the client's address that lies wholly in its range: nobody outside of
what an answer depended on is given it, and nobody in it has to ask again.

No file, clock, health or configuration model is known here.
"""

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    Numbers = array[int]
else:
    Numbers = array

BITS_4: Final = 32
BITS_6: Final = 128
_LOW: Final = (1 << 64) - 1
EARTH_KM: Final = 6371.0
"""Mean radius, IUGG."""

UNKNOWN: Final = 0
"""The number of the list for clients nobody knows anything of."""


class Location(NamedTuple):
    """What is known of a network."""

    country: str = ""
    """ISO 3166-1, "DE"."""
    continent: str = ""
    """"AF", "AN", "AS", "EU", "NA", "OC" or "SA"."""
    subdivision: str = ""
    """ISO 3166-2 with the country in front, "DE-BY"."""
    latitude: float = math.nan
    longitude: float = math.nan

    @property
    def placed(self) -> bool:
        return not math.isnan(self.latitude)


class PopList(NamedTuple):
    """PoPs in the order of preference for a client."""

    pops: tuple[int, ...]
    ranks: tuple[int, ...]
    """For each of them a number: those with the same one are equally good, and weights decide between them."""
    why: str = "distance"
    """What made the order: "distance", "default", or the override's name."""


@dataclass(frozen=True, slots=True)
class Place:
    """A PoP on the map."""

    latitude: float
    longitude: float
    standby: bool = False
    """In no list by distance: it is there to be named by an override or as a fallback."""


@dataclass(frozen=True, slots=True)
class Override:
    """Clients of one country, subdivision or continent go to these PoPs first."""

    key: str
    """"country:DE", "subdivision:US-CA" or "continent:EU"."""
    pops: tuple[int, ...]
    only: bool = False
    """And to no other."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network configured by hand: its PoPs, or where it is."""

    base: int
    length: int
    version: int
    pops: tuple[int, ...] = ()
    only: bool = False
    location: Location | None = None
    label: str = ""


class Orders:
    """Makes ordered lists and numbers them; equal lists get one number."""

    def __init__(
        self,
        places: Sequence[Place],
        *,
        overrides: Iterable[Override] = (),
        default: tuple[int, ...] = (),
        spread_km: float = 0.0,
    ) -> None:
        """`default`: for unknown clients, before the others in the order given. `spread_km`: PoPs that are farther
        than the nearest by no more than this are equally good."""
        self._vectors = [_vector(place.latitude, place.longitude) for place in places]
        self._near = [i for i, place in enumerate(places) if not place.standby]
        self._overrides = {override.key: override for override in overrides}
        self._spread_km = spread_km
        self._numbers: dict[PopList, int] = {}
        self._known: dict[Location, int] = {}
        rest = tuple(i for i in self._near if i not in default)
        order = (*default, *rest)
        # Nothing says which is better for a client nobody knows: weights decide among those not put in an order.
        ranks = (*range(len(default)), *([len(default)] * len(rest)))
        self.number(PopList(order, ranks, "default"))

    def number(self, made: PopList) -> int:
        return self._numbers.setdefault(made, len(self._numbers))

    def lists(self) -> tuple[PopList, ...]:
        return tuple(self._numbers)

    def of_location(self, location: Location) -> int:
        """The number of the list for clients there."""
        number = self._known.get(location)
        if number is None:
            number = self._known[location] = self._make(location)
        return number

    def _make(self, location: Location) -> int:
        override = None
        if self._overrides:
            for key in (
                f"subdivision:{location.subdivision}",
                f"country:{location.country}",
                f"continent:{location.continent}",
            ):
                if (override := self._overrides.get(key)) is not None:
                    break
        if override is None:
            return self.number(self.by_distance(location)) if location.placed else UNKNOWN
        return self.preferring(override.pops, location, only=override.only, why=override.key)

    def preferring(self, first: tuple[int, ...], location: Location | None, *, only: bool, why: str) -> int:
        """These first, then (unless `only`) the others by distance."""
        if only:
            return self.number(PopList(first, tuple(range(len(first))), why))
        base = self.by_distance(location) if location is not None and location.placed else self.lists()[UNKNOWN]
        rest = [(pop, rank) for pop, rank in zip(base.pops, base.ranks, strict=True) if pop not in first]
        pops = (*first, *(pop for pop, _ in rest))
        ranks = (*range(len(first)), *(rank + len(first) for _, rank in rest))
        return self.number(PopList(pops, ranks, why))

    def by_distance(self, location: Location) -> PopList:
        """Great circles: on a sphere of radius 1 the nearest has the largest inner product."""
        x, y, z = _vector(location.latitude, location.longitude)
        dots = [x * a + y * b + z * c for a, b, c in self._vectors]
        order = sorted(self._near, key=dots.__getitem__, reverse=True)
        ranks, rank, nearest = [], 0, 2.0
        for pop in order:
            dot = dots[pop]
            if nearest == 2.0:
                nearest = dot
            elif dot != nearest and not self._close(nearest, dot):
                rank, nearest = rank + 1, dot
            ranks.append(rank)
        return PopList(tuple(order), tuple(ranks))

    def _close(self, nearest: float, dot: float) -> bool:
        return self._spread_km > 0 and (_arc(dot) - _arc(nearest)) * EARTH_KM <= self._spread_km


def _vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    phi, lam = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def _arc(dot: float) -> float:
    return math.acos(min(1.0, max(-1.0, dot)))


def distance_km(one: Place | Location, other: Place | Location) -> float:
    """Along the great circle."""
    a, b = _vector(one.latitude, one.longitude), _vector(other.latitude, other.longitude)
    return _arc(sum(p * q for p, q in zip(a, b, strict=True))) * EARTH_KM


@dataclass(slots=True)
class Ranges:
    """All addresses of a family, cut into ranges: each begins at its start and ends before the next one's."""

    hi: Numbers
    """Starts. For IPv4 the address (type code I); for IPv6 its upper 64 bits (Q)."""
    lo: Numbers | None
    """For IPv6 the lower 64 bits (Q); None for IPv4."""
    ids: Numbers
    """The number of each range's list (I)."""

    @classmethod
    def empty(cls, version: int) -> "Ranges":
        return cls(array("I"), None, array("I")) if version == 4 else cls(array("Q"), array("Q"), array("I"))

    @property
    def bits(self) -> int:
        return BITS_4 if self.lo is None else BITS_6

    def __len__(self) -> int:
        return len(self.ids)

    def start(self, index: int) -> int:
        return self.hi[index] if self.lo is None else self.hi[index] << 64 | self.lo[index]

    def append(self, start: int, number: int) -> None:
        """In order of address; an equal neighbour is the same range."""
        if self.ids and self.ids[-1] == number:
            return
        if self.lo is None:
            self.hi.append(start)
        else:
            self.hi.append(start >> 64)
            self.lo.append(start & _LOW)
        self.ids.append(number)

    def index(self, address: int) -> int:
        """Of the range an address lies in."""
        if self.lo is None:
            return bisect_right(self.hi, address) - 1
        upper, lower = address >> 64, address & _LOW
        last = bisect_right(self.hi, upper)
        if last and self.hi[last - 1] == upper:  # several may begin in one /64
            first = last - 1
            while first and self.hi[first - 1] == upper:
                first -= 1
            return bisect_right(self.lo, lower, first, last) - 1
        return last - 1

    def find(self, address: int) -> tuple[int, int]:
        """The number of its list, and the length of the widest network around it that lies wholly in its range."""
        index = self.index(address)
        scope = 0
        start = self.start(index)
        if start:
            scope = self.bits - (address ^ (start - 1)).bit_length() + 1
        if index + 1 < len(self.ids):
            scope = max(scope, self.bits - (address ^ self.start(index + 1)).bit_length() + 1)
        return self.ids[index], scope


@dataclass(frozen=True, slots=True)
class Mapping:
    """Every address's list of PoPs."""

    v4: Ranges
    v6: Ranges
    lists: tuple[PopList, ...]
    """By their numbers."""
    country_4: Ranges
    """The same for countries, whose borders are not those of the lists: their ids count `countries`."""
    country_6: Ranges
    countries: tuple[str, ...] = ("",)
    """The first is for clients nobody knows anything of."""

    def find(self, version: int, address: int) -> tuple[int, int]:
        """(list number, scope) for an address given as a number."""
        return (self.v4 if version == 4 else self.v6).find(address)

    def country(self, version: int, address: int) -> int:
        """Which of `countries`."""
        ranges = self.country_4 if version == 4 else self.country_6
        return ranges.ids[ranges.index(address)]


def flat(version: int, number: int = UNKNOWN) -> Ranges:
    """One range for everybody."""
    ranges = Ranges.empty(version)
    ranges.append(0, number)
    return ranges


def overlay(below: Ranges, networks: Iterable[tuple[int, int, int]]) -> Ranges:
    """Ranges with networks laid over them: (first address, prefix length, list number). The longer prefix wins; of the
    same network the last."""
    pieces = _disjoint(networks, below.bits)
    if not pieces:
        return below
    made = Ranges.empty(4 if below.lo is None else 6)
    at = 0
    end = 1 << below.bits
    for first, last, number in pieces:
        at = _copy(below, made, at, first)
        made.append(first, number)
        at = last + 1
    if at < end:
        _copy(below, made, at, end)
    return made


def _copy(below: Ranges, made: Ranges, first: int, end: int) -> int:
    """What lies from `first` up to before `end`. Returns `end`."""
    if first >= end:
        return end
    index = below.index(first)
    made.append(first, below.ids[index])
    stop = below.index(end - 1) + 1
    if stop > index + 1:
        made.append(below.start(index + 1), below.ids[index + 1])
        made.hi.extend(below.hi[index + 2 : stop])
        if made.lo is not None and below.lo is not None:
            made.lo.extend(below.lo[index + 2 : stop])
        made.ids.extend(below.ids[index + 2 : stop])
    return end


def _disjoint(networks: Iterable[tuple[int, int, int]], bits: int) -> list[tuple[int, int, int]]:
    """(first, last, number) without overlap, in order, from networks of which one may lie in another."""
    unique = {(base >> (bits - length) << (bits - length), length): number for base, length, number in networks}
    pieces: list[tuple[int, int, int]] = []
    open_: list[tuple[int, int]] = []  # (last, number) of those we are inside of
    at = 0

    def close_until(first: int) -> None:
        nonlocal at
        while open_ and open_[-1][0] < first:
            last, number = open_.pop()
            if at <= last:
                pieces.append((at, last, number))
                at = last + 1

    for (first, length), number in sorted(unique.items()):
        close_until(first)
        if open_ and at < first:
            pieces.append((at, first - 1, open_[-1][1]))
        at = first
        open_.append((first | (1 << (bits - length)) - 1, number))
    close_until(1 << bits)
    return pieces
