"""From the configuration to the plain values that answering works with. Databases are read here, and nothing else."""

import ipaddress
import math
from collections.abc import Sequence
from pathlib import Path

from edgecache.config.geodns import GeoDnsConfig, GeoNameConfig, LocationConfig, NetworkConfig, PopConfig
from edgecache.config.zones import ZoneData
from edgecache.geodns.answer import GeoName, Pop
from edgecache.geodns.location import build, complete
from edgecache.geodns.mapping import Location, Mapping, Network, Orders, Override, Place
from edgecache.geodns.mmdb import BadDatabase, Database, read


def pops(config: GeoDnsConfig) -> tuple[Pop, ...]:
    return tuple(
        Pop(
            pop.name,
            tuple(packed for packed in map(_packed, pop.addresses) if len(packed) == 4),
            tuple(packed for packed in map(_packed, pop.addresses) if len(packed) == 16),
            pop.weight,
            pop.capacity_share,
        )
        for pop in config.pops
    )


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def numbers(config: GeoDnsConfig) -> dict[str, int]:
    """PoPs by name."""
    return {pop.name: number for number, pop in enumerate(config.pops)}


def names(config: GeoDnsConfig, zones: Sequence[ZoneData]) -> dict[bytes, GeoName]:
    """Every name that depends on the client, by its wire form in lower case."""
    known = numbers(config)
    every = frozenset(known.values())  # also those on standby: they are in no list but where they are named
    found = {}
    for zone in zones:
        for name, geo in zone.geo.items():
            owner = name.canonicalize().to_wire() or b""
            found[owner] = _geo_name(owner, geo, known, every)
    return found


def _geo_name(owner: bytes, geo: GeoNameConfig, known: dict[str, int], every: frozenset[int]) -> GeoName:
    named = geo.all_down not in ("every", "nearest")
    return GeoName(
        owner,
        frozenset(known[pop] for pop in geo.pops) if geo.pops else every,
        geo.answers,
        int(geo.ttl_s),
        int(geo.min_ttl_s),
        known[geo.all_down] if named else "nearest" if geo.all_down == "nearest" else "every",
    )


def orders(config: GeoDnsConfig) -> Orders:
    known = numbers(config)
    location = config.location
    return Orders(
        [_place(pop) for pop in config.pops],
        overrides=[Override(one.key, tuple(known[pop] for pop in one.pops), one.only) for one in location.overrides],
        default=tuple(known[pop] for pop in location.default),
        spread_km=location.spread_km,
    )


def _place(pop: PopConfig) -> Place:
    return Place(pop.latitude, pop.longitude, pop.standby)


def networks(config: GeoDnsConfig) -> list[Network]:
    known = numbers(config)
    return [_network(one, known) for one in config.location.networks]


def _network(one: NetworkConfig, known: dict[str, int]) -> Network:
    net = ipaddress.ip_network(one.network)
    location: Location | None = None
    if one.country is not None or one.latitude is not None:
        location = complete(
            one.country or "",
            "",
            "",
            math.nan if one.latitude is None else one.latitude,
            math.nan if one.longitude is None else one.longitude,
        )
    return Network(
        int(net.network_address),
        net.prefixlen,
        net.version,
        tuple(known[pop] for pop in one.pops),
        one.only,
        location,
        one.network,
    )


def databases(location: LocationConfig) -> list[Database]:
    """Raises `BadDatabase`, naming the file."""
    found = []
    for file in location.files:
        try:
            found.append(read(Path(file)))
        except BadDatabase as error:
            raise BadDatabase(f"{file}: {error}") from error
    return found


def mapping(config: GeoDnsConfig, read_already: Sequence[Database] | None = None) -> Mapping:
    """Raises `BadDatabase`."""
    found = databases(config.location) if read_already is None else read_already
    return build(found, networks(config), orders(config))
