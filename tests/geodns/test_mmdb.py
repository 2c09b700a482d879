"""Databases: both layouts, one file or two, and what a careful reader must refuse."""

import contextlib
import ipaddress
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.geodns.location import NOWHERE, build, locate, pick
from edgecache.geodns.mapping import Location, Orders, Place
from edgecache.geodns.mmdb import BadDatabase, Database, read
from tests.geodns.mmdbfile import database

SHARED = Path(os.environ["MAXMIND_TEST_DATA"]) if "MAXMIND_TEST_DATA" in os.environ else None
"""A folder with databases of MaxMind's public repository, and `bad/` ones in it (maxmind/MaxMind-DB, test-data)."""

GOOD = database({"192.0.2.0/24": {"country_code": "DE"}, "2001:db8::/32": {"country": {"iso_code": "FR"}}})


def lookup(data: bytes, text: str) -> Any:
    address = ipaddress.ip_address(text)
    one = Database(data)
    upper, lower, found = one.walk(address.version)
    starts = list(upper) if lower is None else [a << 64 | b for a, b in zip(upper, lower, strict=True)]
    place = [p for start, p in zip(starts, found, strict=True) if start <= int(address)][-1]
    return one.record(place) if place else None


@pytest.mark.parametrize("size", [24, 28, 32])
@settings(max_examples=30)
@given(
    networks=st.dictionaries(
        st.tuples(st.integers(0, 15), st.integers(1, 32)).map(
            lambda one: str(ipaddress.ip_network((one[0] << 28, one[1]), strict=False))
        ),
        st.fixed_dictionaries({"country_code": st.sampled_from(["DE", "FR", "US"])}),
        max_size=8,
    )
)
def test_a_walk_finds_what_each_look_up_would(size: int, networks: dict[str, Any]) -> None:
    data = database(networks, record_size=size)
    for k in range(16):
        address = ipaddress.ip_address(k << 28)
        within = [text for text in networks if address in ipaddress.ip_network(text)]
        best = max(within, key=lambda text: ipaddress.ip_network(text).prefixlen, default=None)
        assert lookup(data, str(address)) == (networks[best] if best else None)


def test_ipv4_within_ipv6_is_not_walked_twice() -> None:
    data = database({"192.0.2.0/24": {"country_code": "DE"}, "2001:db8::/32": {"country_code": "FR"}}, alias=True)
    assert lookup(data, "::ffff:192.0.2.1") is None
    assert lookup(data, "2002:c000:201::") is None
    assert lookup(data, "2001:db8::1") == {"country_code": "FR"}
    assert lookup(data, "192.0.2.1") == {"country_code": "DE"}


def test_a_file_for_each_family() -> None:
    four = Database(database({"192.0.2.0/24": {"country_code": "DE"}}, ip_version=4))
    six = Database(database({"2001:db8::/32": {"country_code": "SG"}}))
    for files in ([four, six], [six, four]):
        assert pick(4, files) is four
        assert pick(6, files) is six
        mapping = build(files, [], Orders([Place(50, 8), Place(1, 103)]))
        number, _ = mapping.find(6, int(ipaddress.ip_address("2001:db8::1")))
        assert mapping.lists[number].pops == (1, 0)
    assert pick(4, [six]) is None


@pytest.mark.parametrize(
    ("record", "location"),
    [
        pytest.param(
            {
                "country": {"iso_code": "DE"},
                "continent": {"code": "EU"},
                "subdivisions": [{"iso_code": "BY"}],
                "location": {"latitude": 48.1, "longitude": 11.5},
            },
            Location("DE", "EU", "DE-BY", 48.1, 11.5),
            id="nested",
        ),
        pytest.param(
            {"country_code": "US", "latitude": 37.0, "longitude": -122.0, "region_code": "CA"},
            Location("US", "NA", "US-CA", 37.0, -122.0),
            id="flat",
        ),
        pytest.param(
            {"country": "JP", "continent_code": "AS", "latitude": "35.5", "longitude": "139.5"},
            Location("JP", "AS", "", 35.5, 139.5),
            id="flat-with-text",
        ),
        pytest.param(
            {"registered_country": {"iso_code": "BR"}}, Location("BR", "SA", "", -20.5, -46.2), id="country-only"
        ),
        pytest.param({"country_code": "ZZ"}, NOWHERE._replace(country="ZZ"), id="unknown-country"),
        pytest.param({"latitude": 91.0, "longitude": 0.0, "country_code": "de"}, NOWHERE, id="nonsense"),
        pytest.param({"asn": 64500}, NOWHERE, id="another-kind"),
        pytest.param(["DE"], NOWHERE, id="no-map"),
    ],
)
def test_layouts(record: Any, location: Location) -> None:
    found = locate(record)
    assert found[:3] == location[:3]
    assert found.placed == location.placed
    if location.placed:
        assert found == location
    assert math.isnan(found.latitude) == math.isnan(found.longitude)


def test_a_database_of_another_kind_is_refused() -> None:
    with pytest.raises(BadDatabase, match="neither country nor coordinates"):
        build([Database(database({"192.0.2.0/24": {"asn": 64500}}))], [], Orders([Place(0, 0)]))


def whole(data: bytes) -> None:
    one = Database(data)
    for version in (4, 6):
        for place in set(one.walk(version)[2]) - {0}:
            one.record(place)


@settings(max_examples=400)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(GOOD))))
    with contextlib.suppress(BadDatabase):
        whole(bytes(damaged[:cut]))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadDatabase, match="No such file"):
        read(tmp_path / "none.mmdb")


@pytest.mark.skipif(SHARED is None, reason="MAXMIND_TEST_DATA names no folder with the public test databases")
def test_the_public_test_databases() -> None:
    assert SHARED is not None
    city = (SHARED / "GeoLite2-City-Test.mmdb").read_bytes()
    location = locate(lookup(city, "81.2.69.160"))
    assert (location.country, location.continent, location.subdivision) == ("GB", "EU", "GB-ENG")
    assert location.latitude == pytest.approx(51.5, abs=0.1)
    assert locate(lookup((SHARED / "GeoLite2-Country-Test.mmdb").read_bytes(), "2001:218::1")).country == "JP"


@pytest.mark.skipif(SHARED is None, reason="MAXMIND_TEST_DATA names no folder with the public test databases")
@pytest.mark.parametrize("name", sorted(path.name for path in (SHARED / "bad").glob("*.mmdb")) if SHARED else [])
def test_the_public_bad_databases(name: str) -> None:
    assert SHARED is not None
    with contextlib.suppress(BadDatabase):
        whole((SHARED / "bad" / name).read_bytes())
