"""What the file says, as answers need it: PoPs on standby are used where they are named, and nowhere else."""

from pathlib import Path

import pytest

from edgecache.config.load_geodns import load_geodns
from edgecache.geodns.explain import explain

YAML = """
pops:
  - {name: a, latitude: 50, longitude: 8, addresses: [192.0.2.1], check: {type: none}}
  - {name: s, latitude: 50, longitude: 8, addresses: [192.0.2.9], standby: true, check: {type: none}}
location:
  networks:
    - {network: 10.0.0.0/8, pops: [s], only: true}
    - {network: 11.0.0.0/8, pops: [s]}
    - {network: 12.0.0.0/8, country: DE}
    - {network: 13.0.0.0/8, country: NZ}
  overrides: [{continent: OC, pops: [s]}]
zones: [{name: z.example, nameservers: [ns.z.example], geo: [{name: www, ttl: 60s}, {name: own, pops: [a]}]}]
"""


@pytest.mark.parametrize(
    ("client", "name", "address"),
    [
        pytest.param("10.0.0.1", "www", "192.0.2.9", id="network-only"),
        pytest.param("11.0.0.1", "www", "192.0.2.9", id="network"),
        pytest.param("13.0.0.1", "www", "192.0.2.9", id="override"),
        pytest.param("12.0.0.1", "www", "192.0.2.1", id="by-distance"),
        pytest.param("99.0.0.1", "www", "192.0.2.1", id="unknown"),
        pytest.param("11.0.0.1", "own", "192.0.2.1", id="name-with-its-own-pops"),
    ],
)
def test_a_standby_answers_where_it_is_named(tmp_path: Path, client: str, name: str, address: str) -> None:
    file = tmp_path / "geodns.yaml"
    file.write_text(YAML, encoding="utf-8")
    found = explain(load_geodns(file), client, f"{name}.z.example", None)
    assert found["answers"]["A"]["records"] == [f"{name}.z.example. 60 IN A {address}"]
