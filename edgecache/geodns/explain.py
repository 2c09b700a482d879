"""Why a client gets the answer it gets, worked out step by step from the configuration and databases."""

import ipaddress
from collections.abc import Iterable
from typing import Any

import dns.exception
import dns.name

from edgecache.config.load_geodns import LoadedGeo
from edgecache.geodns import plan
from edgecache.geodns.answer import AAAA, A, Choice, Health, client_key, scope_of
from edgecache.geodns.location import NOWHERE, locate, pick
from edgecache.geodns.mapping import Location, Mapping, Place, distance_km
from edgecache.geodns.mmdb import BadDatabase, Database
from edgecache.geodns.snapshot import Snapshot
from edgecache.geodns.zone import Zone, find


class ExplainError(Exception):
    """A client, name or database that cannot be used; one line."""


def explain(loaded: LoadedGeo, client: str, name: str, pops: dict[str, Any] | None) -> dict[str, Any]:
    """Plain values, ready for JSON. `pops`: what the admin API of a running server says of them; None: all are taken
    to be usable. Raises `ExplainError`."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        raise ExplainError(f"{client!r} is no IP address") from None
    try:
        asked = dns.name.from_text(name)
    except (dns.exception.DNSException, UnicodeError):
        raise ExplainError(f"{name!r} is no domain name") from None
    config = loaded.config
    try:
        databases = plan.databases(config.location)
        mapping = plan.mapping(config, databases)
    except BadDatabase as error:
        raise ExplainError(str(error)) from None
    told = {pop["name"]: pop for pop in pops["pops"]} if pops is not None else {}
    usable = tuple(not pop.drained and told.get(pop.name, {}).get("usable", True) for pop in config.pops)
    settled = tuple(_seconds(told.get(pop.name, {}).get("settled_s")) for pop in config.pops)
    snapshot = Snapshot(mapping, plan.pops(config), Health(0, usable, settled), plan.names(config, loaded.zones))
    zone = find([Zone(data) for data in loaded.zones], asked)
    number, found_scope = mapping.find(address.version, int(address))
    here = _location(loaded, databases, mapping, address)
    answers = {}
    for kind, text in ((A, "A"), (AAAA, "AAAA")):
        answers[text] = _ask(zone, asked, kind, snapshot, address, number, found_scope) if zone is not None else None
    order = mapping.lists[number]
    rows = []
    for pop, rank in zip(order.pops, order.ranks, strict=True):
        given = config.pops[pop]
        rows.append(
            {
                "name": given.name,
                "rank": rank,
                "distance_km": round(distance_km(here, Place(given.latitude, given.longitude)))
                if here.placed
                else None,
                "state": told.get(given.name, {}).get("why") or ("up" if usable[pop] else "drained by config"),
            }
        )
    return {
        "client": str(address),
        "name": str(asked),
        "zone": str(zone.origin) if zone is not None else None,
        "location": {
            "country": here.country or None,
            "subdivision": here.subdivision or None,
            "continent": here.continent or None,
            "latitude": here.latitude if here.placed else None,
            "longitude": here.longitude if here.placed else None,
        },
        "network": str(ipaddress.ip_network((address, found_scope), strict=False)),
        "list_by": order.why,
        "pops": rows,
        "health": "of the running server" if pops is not None else "unknown: no server answers, all are taken to be up",
        "answers": answers,
    }


def _seconds(value: float | None) -> float:
    return float("inf") if value is None else value


def _location(
    loaded: LoadedGeo,
    databases: list[Database],
    mapping: Mapping,
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> Location:
    """Where the client is: by the configured networks, else by the database."""
    version, number = address.version, int(address)
    bits = address.max_prefixlen
    own = [
        network
        for network in plan.networks(loaded.config)
        if network.version == version
        and network.location is not None
        and network.base >> (bits - network.length) == number >> (bits - network.length)
    ]
    if own:
        return max(own, key=lambda network: network.length).location or NOWHERE
    database = pick(version, databases)
    if database is not None:
        upper, lower, found = database.walk(version)
        starts: Iterable[int] = upper if lower is None else (a << 64 | b for a, b in zip(upper, lower, strict=True))
        place = 0
        for start, one in zip(starts, found, strict=True):
            if start > number:
                break
            place = one
        if place:
            return locate(database.record(place))
    return NOWHERE._replace(country=mapping.countries[mapping.country(version, number)])


def _ask(
    zone: Zone,
    asked: dns.name.Name,
    kind: int,
    snapshot: Snapshot,
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    number: int,
    found_scope: int,
) -> dict[str, Any]:
    key = client_key(address.version, int(address))

    def geo(owner: dns.name.Name, of: int) -> Choice:
        return snapshot.choice(snapshot.names[owner.canonicalize().to_wire() or b""], of, number, key)

    reply = zone.ask(asked, kind, geo)
    choice = reply.choice
    names = [pop.name for pop in snapshot.pops]
    return {
        "rcode": reply.rcode.name,
        "records": [line for rrset in reply.answer for line in rrset.to_text().splitlines()],
        "scope": scope_of(address.version, found_scope, choice) if choice is not None else 0,
        "reason": choice.reason.value if choice is not None else "the same for every client",
        "passed": [f"{names[pop]}: {why}" for pop, why in choice.passed] if choice is not None else [],
        "by_client": choice.by_client if choice is not None else False,
    }
