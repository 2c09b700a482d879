"""The file of `edgecache geodns`: what is read, and every error at once with its place."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import dns.name
import pytest
from pydantic import ValidationError

from edgecache.config.geodns import GeoDnsConfig
from edgecache.config.load import ConfigError, Override
from edgecache.config.load_geodns import LoadedGeo, is_geodns, load_geodns
from edgecache.config.options import spell

ROOT = Path(__file__).parents[2]
POPS = "pops: [{name: a, latitude: 50, longitude: 8, addresses: [192.0.2.1]}]\n"
ZONE = "zones: [{name: z.example, nameservers: [ns1.z.example], geo: [www]}]\n"


def loaded(tmp_path: Path, text: str, *overrides: Override) -> LoadedGeo:
    path = tmp_path / "geodns.yaml"
    path.write_text(text, encoding="utf-8")
    return load_geodns(path, overrides)


def wrong(tmp_path: Path, text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    return {problem.path: problem.expected for problem in caught.value.problems}


def records(made: LoadedGeo, name: str) -> list[str]:
    zone = made.zones[0]
    return [rdataset.to_text() for rdataset in zone.nodes[dns.name.from_text(name, zone.origin)].values()]


def test_the_example_is_valid() -> None:
    made = load_geodns(ROOT / "config/geodns.yaml")
    assert [pop.name for pop in made.config.pops] == ["fra1", "nyc1", "sin1", "reserve"]
    assert len(made.zones[0].geo) == 3
    assert is_geodns(ROOT / "config/geodns.yaml")
    assert not is_geodns(ROOT / "config/site.yaml")


def test_little_is_enough(tmp_path: Path) -> None:
    made = loaded(tmp_path, POPS + ZONE, Override(("listen",), ["127.0.0.1:0"], "--listen"))
    assert made.config.listen[0].port == 0
    assert made.config.check.fall == 3
    assert records(made, "@") == [
        "3600 IN NS ns1.z.example.",
        "3600 IN SOA ns1.z.example. hostmaster.z.example. 1 86400 7200 1209600 60",
    ]
    assert "no database" in made.warnings[0]


def test_all_errors_at_once_with_their_paths(tmp_path: Path) -> None:
    found = wrong(
        tmp_path,
        """
pops:
  - {name: a, latitude: 50, longitude: 8, addresses: [192.0.2.1]}
  - {name: a, latitude: 50, longitude: 8, addresses: [192.0.2.1]}
location: {default: [b], overrides: [{country: DE, pops: [a, a]}, {country: DE, pops: [a]}]}
zones:
  - name: z.example
    nameservers: [ns1.z.example]
    records:
      - {name: www, type: A, data: nonsense}
      - {name: www, type: SOA, data: x}
      - {name: www, type: BOGUS, data: x}
      - {name: www.other.example., type: A, data: 192.0.2.1}
      - {name: x.*, type: A, data: 192.0.2.1}
      - {name: alias, type: CNAME, data: [a, b]}
      - {name: both, type: CNAME, data: a}
      - {name: both, type: TXT, data: a}
      - {name: sub, type: NS, data: ns1}
      - {name: held, type: A, data: 192.0.2.1}
    geo: [{name: g, pops: [c], all_down: d}, {name: held}, {name: x.sub}, {name: g}]
  - {name: Z.example., nameservers: [ns1.z.example]}
  - {name: no.ns}
  - {name: "..", nameservers: [a.b]}
""",
    )
    assert set(found) == {
        "pops[1].name",
        "location.default[0]",
        "location.overrides[0].pops[1]",
        "location.overrides[1]",
        "zones[0]",
        "zones[0].records[0].data[0]",
        "zones[0].records[1].type",
        "zones[0].records[2].type",
        "zones[0].records[3].name",
        "zones[0].records[4].name",
        "zones[0].records[5].data",
        "zones[0].geo[0].pops[0]",
        "zones[0].geo[0].all_down",
        "zones[0].geo[1].name",
        "zones[0].geo[2].name",
        "zones[0].geo[3].name",
        "zones[1].name",
        "zones[2]",
        "zones[3].name",
    }


def test_wrong_keys_hide_no_wrong_names_and_zones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(
            tmp_path,
            """
pops:
  - {name: a, latitude: 91, longitude: 8, addresses: [192.0.2.1]}
  - {name: a, latitude: 50, longitude: 8, addresses: [192.0.2.1], standby: perhaps}
location:
  default: ["no word", b]
  networks: [{network: 10.0.0.0/8, latitude: 1, pops: [b]}]
zones:
  - name: z.example
    nameservers: [ns1.z.example]
    ttl: soon
    records:
      - {name: www, type: 5, data: x}
      - {name: www, type: A, data: nonsense}
    geo:
      - {name: g, ttl: 1s, min_ttl: 2s, pops: [c]}
      - {name: h, answers: 0, all_down: d}
  - {name: z.example, nameservers: 5}
""",
        )
    assert [problem.path for problem in caught.value.problems] == [
        "pops[0].latitude",
        "pops[1].standby",
        "pops[1].name",
        "location.default[0]",
        "location.default[1]",
        "location.networks[0]",
        "location.networks[0].pops[0]",
        "zones[0].ttl",
        "zones[0].records[0].type",
        "zones[0].records[1].data[0]",
        "zones[0].geo[0]",
        "zones[0].geo[0].pops[0]",
        "zones[0].geo[1].answers",
        "zones[0].geo[1].all_down",
        "zones[1].nameservers[0]",
        "zones[1].name",
    ]


WHOLE: dict[str, Any] = {
    "pops": [
        {"name": "a", "latitude": 50, "longitude": 8, "addresses": ["192.0.2.1"], "check": {"type": "tcp"}},
        {"name": "s", "latitude": 50, "longitude": 8, "addresses": ["192.0.2.9"], "standby": True},
        {"name": "t", "latitude": 50, "longitude": 8, "addresses": ["192.0.2.9"], "standby": True},
    ],
    "location": {
        "default": ["a"],
        "networks": [{"network": "10.0.0.0/8", "country": "DE", "pops": ["a", "t"]}],
        "overrides": [{"country": "DE", "pops": ["s"]}, {"continent": "EU", "pops": ["a"]}],
    },
    "zones": [
        {
            "name": "z.example",
            "nameservers": ["ns1"],
            "ttl": "1h",
            "records": [{"name": "w", "type": "CNAME", "data": ["x"]}, {"name": "m", "type": "TXT", "data": "t"}],
            "geo": [
                {"name": "g", "pops": ["s"]},
                {"name": "h", "pops": ["t"], "ttl": "9s", "all_down": "s"},
                {"name": "i", "pops": ["t"]},
            ],
        },
        {"name": "y.example", "nameservers": ["ns1.z.example"], "geo": ["www"]},
    ],
}
JUNK = ({}, [], [{}], ["a", 5], "", "no word", 5, None, {"no": "such"})


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


@pytest.mark.parametrize("place", list(places(WHOLE)), ids=spell)
def test_what_is_wrong_with_a_key_is_said_once(tmp_path: Path, place: tuple[Any, ...]) -> None:
    """A valid file with one broken place: no finding follows from what could not be read."""
    GeoDnsConfig.model_validate(WHOLE)
    broken = 0
    for junk in (*JUNK, "renamed"):
        data = deepcopy(WHOLE)
        holder: Any = data
        for step in place[:-1]:
            holder = holder[step]
        if junk == "renamed" and isinstance(holder, dict):
            holder["xyz"] = holder.pop(place[-1])
        else:
            holder[place[-1]] = junk
        try:
            GeoDnsConfig.model_validate(data)
        except ValidationError as error:
            broken += 1
            told = {spell(one["loc"]) for one in error.errors()}
            assert set(wrong(tmp_path, json.dumps(data))) <= told, junk
    assert broken


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        pytest.param(ZONE, "pops", "Points of presence", id="no-pops"),
        pytest.param(POPS, "zones", "Zones to answer for", id="no-zones"),
        pytest.param(ZONE + POPS.replace("50", "91"), "pops[0].latitude", "at most 90", id="latitude"),
        pytest.param(ZONE + POPS.replace("[192.0.2.1]", "[x]"), "pops[0].addresses[0]", "address", id="address"),
        pytest.param(ZONE + POPS + "check: {interval: 1s, timeout: 2s}", "check", "at most the interval", id="timeout"),
        pytest.param(ZONE + POPS + "check: {body: '('}", "check.body", "regular expression", id="pattern"),
        pytest.param(ZONE + POPS + "check: {statuses: [99]}", "check.statuses[0]", "a status", id="status"),
        pytest.param(ZONE + POPS + "chekc: {}", "chekc", "did you mean check?", id="unknown-key"),
        pytest.param(
            ZONE + POPS + "location: {networks: [{network: 10.0.0.0/8}]}",
            "location.networks[0]",
            "a country",
            id="empty",
        ),
        pytest.param(
            ZONE + POPS + "location: {overrides: [{country: DEU, pops: [a]}]}",
            "location.overrides[0].country",
            "ISO 3166-1",
            id="country",
        ),
        pytest.param(
            POPS + "zones: [{name: z.example, file: none.zone}]", "zones[0].file", "No such file", id="no-zone-file"
        ),
    ],
)
def test_errors(tmp_path: Path, text: str, path: str, expected: str) -> None:
    found = wrong(tmp_path, text)
    assert expected in found[path], found


STANDBY = """
pops:
  - {name: a, latitude: 50, longitude: 8, addresses: [192.0.2.1]}
  - {name: s, latitude: 50, longitude: 8, addresses: [192.0.2.9], standby: true}
"""


def test_a_name_that_no_client_would_be_given_an_address_of(tmp_path: Path) -> None:
    zone = ZONE.replace("[www]", "[{name: www, pops: [s]}]")
    assert "no standby" in wrong(tmp_path, STANDBY + zone)["zones[0].geo[0].pops"]
    assert loaded(tmp_path, STANDBY + zone + "location: {overrides: [{country: DE, pops: [s]}]}")
    assert loaded(tmp_path, STANDBY + zone.replace("[s]}", "[s], all_down: s}"))


def test_norway(tmp_path: Path) -> None:
    """YAML 1.1 reads NO as false."""
    made = loaded(tmp_path, POPS + ZONE + "location: {overrides: [{country: NO, pops: [a]}]}")
    assert made.config.location.overrides[0].key == "country:NO"


def test_a_zone_file(tmp_path: Path) -> None:
    file = tmp_path / "z.zone"
    file.write_text("@ 300 IN SOA ns hm 7 1 2 3 4\n@ 300 IN NS ns\nns 60 IN A 192.0.2.9\n", encoding="ascii")
    made = loaded(
        tmp_path,
        POPS + f"zones: [{{name: z.example, file: {file}, records: [{{name: t, type: TXT, data: a b}}], geo: [www]}}]",
    )
    assert records(made, "@")[0] == "300 IN SOA ns.z.example. hm.z.example. 7 1 2 3 4"
    assert records(made, "ns") == ["60 IN A 192.0.2.9"]
    assert records(made, "t") == ['3600 IN TXT "a b"']
    file.write_text("@ 300 IN SOA bad\n", encoding="ascii")
    found = wrong(tmp_path, POPS + f"zones: [{{name: z.example, file: {file}}}]")
    assert "a zone file" in found["zones[0].file"]


def test_a_long_text_is_cut_into_strings(tmp_path: Path) -> None:
    zone = ZONE.replace("geo:", f"records: [{{name: t, type: TXT, data: '{'x' * 300}\"'}}], geo:")
    (text,) = records(loaded(tmp_path, POPS + zone), "t")
    assert text == f'3600 IN TXT "{"x" * 255}" "{"x" * 45}\\""'
