"""Ranges against a plain model: every address looked up by going through all networks."""

import ipaddress
import math
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgecache.geodns.location import build
from edgecache.geodns.mapping import (
    UNKNOWN,
    Location,
    Network,
    Orders,
    Override,
    Place,
    PopList,
    Ranges,
    distance_km,
    flat,
    overlay,
)
from edgecache.geodns.mmdb import Database
from tests.geodns.mmdbfile import database

FRA, NYC, SIN = Place(50.1, 8.7), Place(40.7, -74.0), Place(1.3, 103.8)


def networks(bits: int, low: int) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    """Crowded into a corner of the address space, so that they touch and contain each other."""

    def one(parts: tuple[int, int, int]) -> tuple[int, int, int]:
        where, length, number = parts
        shift = bits - length
        return where << low >> shift << shift, length, number

    return st.lists(
        st.tuples(st.integers(0, 255), st.integers(bits - low - 8, bits - low), st.integers(0, 3)).map(one), max_size=12
    )


def brute(layers: list[tuple[int, int, int]], address: int, bits: int, base: int) -> int:
    found, longest = base, -1
    for first, length, number in layers:
        if length >= longest and address >> (bits - length) == first >> (bits - length):
            found, longest = number, length
    return found


def is_uniform(ranges: Ranges, address: int, scope: int) -> bool:
    """Does the network of this length around the address lie in one range?"""
    shift = ranges.bits - scope
    first = address >> shift << shift
    return ranges.index(first) == ranges.index(first | ((1 << shift) - 1))


@pytest.mark.parametrize(("version", "bits", "low"), [(4, 32, 0), (4, 32, 12), (6, 128, 0), (6, 128, 60), (6, 128, 70)])
@settings(max_examples=30)
@given(data=st.data())
def test_an_overlay_is_what_a_walk_through_all_networks_finds(
    version: int, bits: int, low: int, data: st.DataObject
) -> None:
    layers = data.draw(networks(bits, low))
    over = data.draw(networks(bits, low))
    ranges = overlay(overlay(flat(version, 9), layers), over)
    edges = {first >> low for first, _, _ in (*layers, *over)}
    for k in {edge + by for edge in edges for by in (0, 1, 2, 4, 8, 16, 256)}:
        for address in {max(k << low, 1) - 1, k << low, (k << low) + 1}:
            if address >> bits:
                continue
            wanted = brute(over, address, bits, brute(layers, address, bits, 9))
            number, scope = ranges.find(address)
            assert number == wanted
            assert is_uniform(ranges, address, scope)
            assert scope == 0 or not is_uniform(ranges, address, scope - 1)
    ids = list(ranges.ids)
    assert all(a != b for a, b in pairwise(ids)), "equal neighbours are one"


def test_the_scope_of_the_last_and_first_address() -> None:
    ranges = overlay(flat(4, 1), [(0, 32, 2), ((1 << 32) - 1, 32, 3)])
    assert ranges.find(0) == (2, 32)
    assert ranges.find(1) == (1, 32)
    assert ranges.find((1 << 32) - 1) == (3, 32)
    assert ranges.find(1 << 31) == (1, 2)


@given(
    st.floats(-90, 90), st.floats(-180, 180), st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=1)
)
@example(0.0, 0.0, [(0.0, 0.0), (0.0, 0.0)])
def test_lists_are_in_order_of_distance(latitude: float, longitude: float, at: list[tuple[float, float]]) -> None:
    places = [Place(*one) for one in at]
    here = Location(latitude=latitude, longitude=longitude)
    made = Orders(places).by_distance(here)
    distances = [distance_km(here, places[pop]) for pop in made.pops]
    assert sorted(made.pops) == list(range(len(places)))
    assert all(b - a > -0.5 for a, b in pairwise(distances))
    assert list(made.ranks) == sorted(made.ranks)


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [
        pytest.param((51.5, -0.1), (40.7, -74.0), 5570, id="london-new-york"),
        pytest.param((-17.9, 178.2), (-13.8, -171.9), 1145, id="across-the-date-line"),
        pytest.param((90, 0), (-90, 50), math.pi * 6371, id="pole-to-pole"),
    ],
)
def test_distances(one: tuple[float, float], other: tuple[float, float], km: float) -> None:
    assert distance_km(Place(*one), Place(*other)) == pytest.approx(km, rel=0.01)


def test_pops_in_one_city_are_equally_good() -> None:
    made = Orders([FRA, NYC, Place(50.0, 8.3), Place(50.1, 8.7)], spread_km=50).by_distance(
        Location("DE", "", "", 52, 13)
    )
    assert dict(zip(made.pops, made.ranks, strict=True)) == {0: 0, 2: 0, 3: 0, 1: 1}
    made = Orders([FRA, NYC, Place(50.0, 8.3), Place(50.1, 8.7)]).by_distance(Location("DE", "", "", 52, 13))
    assert dict(zip(made.pops, made.ranks, strict=True)) == {0: 0, 3: 0, 2: 1, 1: 2}


@pytest.mark.parametrize(
    ("location", "pops", "why"),
    [
        pytest.param(Location("US", "NA", "US-CA", 37, -122), (2,), "subdivision:US-CA", id="subdivision-first"),
        pytest.param(Location("US", "NA", "US-NY", 41, -74), (0, 1, 2), "country:US", id="then-country"),
        pytest.param(Location("CA", "NA", "CA-QC", 45, -73), (2, 1, 0), "continent:NA", id="then-continent"),
        pytest.param(Location("US"), (0, 1, 2), "country:US", id="without-coordinates"),
        pytest.param(Location("BR", "SA", "", -23, -46), (1, 0, 2), "distance", id="none"),
        pytest.param(Location("ZZ"), (0, 1, 2), "default", id="unknown-country"),
    ],
)
def test_overrides(location: Location, pops: tuple[int, ...], why: str) -> None:
    orders = Orders(
        [FRA, NYC, SIN],
        overrides=[
            Override("country:US", (0,)),
            Override("subdivision:US-CA", (2,), only=True),
            Override("continent:NA", (2,)),
        ],
    )
    made = orders.lists()
    assert made == (PopList((0, 1, 2), (0, 0, 0), "default"),)
    number = orders.of_location(location)
    assert (orders.lists()[number].pops, orders.lists()[number].why) == (pops, why)


def test_a_standby_is_in_no_list_but_where_it_is_named() -> None:
    orders = Orders([FRA, NYC, Place(0, 0, standby=True)], default=(1,))
    assert orders.lists()[UNKNOWN].pops == (1, 0)
    assert orders.by_distance(Location("", "", "", 0, 0)).pops == (0, 1)
    number = orders.preferring((2,), None, only=False, why="x")
    assert orders.lists()[number].pops == (2, 1, 0)


RECORDS = {
    "192.0.2.0/24": {"country_code": "DE", "latitude": 50.0, "longitude": 8.0},
    "192.0.3.0/24": {"country_code": "DE", "latitude": 51.0, "longitude": 8.0},
    "198.51.100.0/25": {"country": {"iso_code": "US"}, "location": {"latitude": 41.0, "longitude": -74.0}},
    "2001:db8::/40": {"country_code": "SG"},
    "2001:db8:100::/40": {"country": {"iso_code": "US"}},
}


@pytest.mark.parametrize("size", [24, 28, 32])
def test_a_mapping_from_a_database_and_configured_networks(size: int) -> None:
    orders = Orders([FRA, NYC, SIN])
    own = Network(int(ipaddress.ip_address("198.51.100.16")), 28, 4, pops=(2,), only=True, label="198.51.100.16/28")
    place = Location("JP", "AS", "", 35.0, 139.0)
    own6 = Network(int(ipaddress.ip_address("fd00::")), 8, 6, location=place)
    mapping = build([Database(database(RECORDS, record_size=size))], [own, own6], orders)

    def found(text: str) -> tuple[tuple[int, ...], int, str, str]:
        address = ipaddress.ip_address(text)
        number, scope = mapping.find(address.version, int(address))
        made = mapping.lists[number]
        return made.pops, scope, made.why, mapping.countries[mapping.country(address.version, int(address))]

    assert found("192.0.2.77") == ((0, 1, 2), 23, "distance", "DE"), "two networks with one list are one"
    assert found("192.0.4.1") == ((0, 1, 2), 22, "default", "")
    assert found("198.51.100.20") == ((2,), 28, "network:198.51.100.16/28", "US")
    assert found("198.51.100.32")[:3] == ((1, 0, 2), 27, "distance")
    assert found("2001:db8:ff::1") == ((2, 0, 1), 40, "distance", "SG")
    assert found("2001:db8:1ff::1")[0] == (1, 0, 2)
    assert found("fd12::1") == ((2, 0, 1), 8, "distance", "JP")


def test_without_anything_everybody_gets_the_default() -> None:
    mapping = build([], [], Orders([FRA, NYC], default=(1, 0)))
    assert mapping.find(4, 12345) == (UNKNOWN, 0)
    assert mapping.lists[UNKNOWN] == PopList((1, 0), (0, 1), "default")
    assert mapping.countries == ("",)
