"""From databases and configured networks to a `Mapping`: the one slow step, done before anything is answered by it.

Databases come in two layouts. The nested one has `country.iso_code`, `continent.code`, `subdivisions[0].iso_code` and
`location.latitude`; the flat one `country_code` (or `country`), `continent_code`, `latitude`. A record without
coordinates is put in the middle of its country.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from edgecache.geodns.countries import CONTINENTS, COUNTRIES
from edgecache.geodns.mapping import UNKNOWN, Location, Mapping, Network, Numbers, Orders, Ranges, flat, overlay
from edgecache.geodns.mmdb import BadDatabase, Database

_COUNTRY = re.compile("[A-Z]{2}")
NOWHERE = Location()


def locate(record: Any) -> Location:
    """What a record says; `NOWHERE` where it is of neither layout."""
    if not isinstance(record, dict):
        return NOWHERE
    country = _code(record, "country", "registered_country")
    continent = record.get("continent")
    found = continent.get("code") if isinstance(continent, dict) else record.get("continent_code", continent)
    subdivisions = record.get("subdivisions")
    subdivision = record.get("region_code")
    if isinstance(subdivisions, list) and subdivisions and isinstance(subdivisions[0], dict):
        subdivision = subdivisions[0].get("iso_code")
    place = record.get("location")
    if not isinstance(place, dict):
        place = record
    latitude = _degrees(place.get("latitude", place.get("lat")), 90)
    longitude = _degrees(place.get("longitude", place.get("lng")), 180)
    return complete(
        country,
        found if isinstance(found, str) and found in CONTINENTS else "",
        f"{country}-{subdivision}" if country and isinstance(subdivision, str) and subdivision else "",
        latitude,
        longitude,
    )


def complete(country: str, continent: str, subdivision: str, latitude: float, longitude: float) -> Location:
    """What is missing taken from the country."""
    middle = COUNTRIES.get(country)
    if middle is not None:
        continent = continent or middle[0]
        if math.isnan(latitude) or math.isnan(longitude):
            latitude, longitude = middle[1], middle[2]
    if math.isnan(latitude) or math.isnan(longitude):
        latitude = longitude = math.nan
    return Location(country, continent, subdivision, latitude, longitude)


def _code(record: dict[Any, Any], *sections: str) -> str:
    candidates = []
    for section in sections:
        value = record.get(section)
        candidates.append(value.get("iso_code") if isinstance(value, dict) else value)
    candidates.append(record.get("country_code"))
    for value in candidates:
        if isinstance(value, str) and _COUNTRY.fullmatch(value):
            return value
    return ""


def _degrees(value: object, most: int) -> float:
    """Some flat databases write numbers as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= most:
        return float(value)
    return math.nan


class _Located(NamedTuple):
    """What a record came to."""

    number: int
    country: int
    told: bool
    """It says something of use."""


class _Countries:
    def __init__(self) -> None:
        self.numbers = {"": 0}

    def number(self, country: str) -> int:
        return self.numbers.setdefault(country, len(self.numbers))


def build(databases: Sequence[Database], networks: Iterable[Network], orders: Orders) -> Mapping:
    """`databases`: one with both families, or one for each (for each family the first that has it counts). Raises
    `BadDatabase`."""
    countries = _Countries()
    networks = tuple(networks)
    located: dict[int, dict[int, _Located]] = {}
    families = {version: _family(version, databases, orders, countries, located) for version in (4, 6)}
    made: dict[int, tuple[Ranges, Ranges]] = {}
    for version, (lists, where) in families.items():
        own, own_where = [], []
        for network in networks:
            if network.version != version:
                continue
            own.append((network.base, network.length, _own_list(network, orders)))
            if network.location is not None:
                own_where.append((network.base, network.length, countries.number(network.location.country)))
        made[version] = overlay(lists, own), overlay(where, own_where)
    (v4, country_4), (v6, country_6) = made[4], made[6]
    return Mapping(v4, v6, orders.lists(), country_4, country_6, tuple(countries.numbers))


def _own_list(network: Network, orders: Orders) -> int:
    if network.pops:
        return orders.preferring(network.pops, network.location, only=network.only, why=f"network:{network.label}")
    return orders.of_location(network.location) if network.location is not None else UNKNOWN


def _family(
    version: int,
    databases: Sequence[Database],
    orders: Orders,
    countries: _Countries,
    located: dict[int, dict[int, _Located]],
) -> tuple[Ranges, Ranges]:
    """`located`: by database and place of a record, what it came to; families share records."""
    database = pick(version, databases)
    if database is None:
        return flat(version), flat(version, 0)
    upper, lower, found = database.walk(version)
    all_ = located.setdefault(id(database), {})
    mine = set(found) - {0}
    for place in mine - all_.keys():
        location = locate(database.record(place))
        told = location is not NOWHERE and bool(location.country or location.placed)
        all_[place] = _Located(orders.of_location(location), countries.number(location.country), told)
    if mine and not any(all_[place].told for place in mine):
        raise BadDatabase("its records say neither country nor coordinates")
    lists = {0: UNKNOWN} | {place: all_[place].number for place in mine}
    where = {0: 0} | {place: all_[place].country for place in mine}
    return _merged(upper, lower, found, lists), _merged(upper, lower, found, where)


def pick(version: int, databases: Sequence[Database]) -> Database | None:
    """The database for a family. A tree of IPv6 may hold IPv4 as well, or nothing there."""
    having = [one for one in databases if one.version == version or (version == 4 and one.has_4())]
    return next((one for one in having if one.version == version == 4), None) or next(iter(having), None)


def _merged(upper: Numbers, lower: Numbers | None, found: Numbers, numbers: dict[int, int]) -> Ranges:
    made = Ranges.empty(4 if lower is None else 6)
    ids, add_hi, last = made.ids, made.hi.append, -1
    if lower is None or made.lo is None:
        for start, place in zip(upper, found, strict=True):
            if (number := numbers[place]) != last:
                add_hi(start)
                ids.append(number)
                last = number
        return made
    for high, low, place in zip(upper, lower, found, strict=True):
        if (number := numbers[place]) != last:
            add_hi(high)
            made.lo.append(low)
            ids.append(number)
            last = number
    return made
