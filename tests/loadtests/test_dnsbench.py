"""The DNS benchmark's data, its arithmetic, and a short run against whatever is installed."""

import io
import ipaddress
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.edns
import dns.message
import maxminddb
import pytest

from loadtests.bench import dnsdata, dnsreport
from loadtests.bench.dnsreport import DnsLoad, Turn, cells, judge, parse_dnsperf
from loadtests.bench.generators import BadTable

ROOT = Path(__file__).resolve().parents[2]
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

DNSPERF = """\
[Status] Testing complete (time limit)

Statistics:

  Queries sent:         305135
  Queries completed:    304902 (99.92%)
  Queries lost:         233 (0.08%)

  Response codes:       NOERROR 304900 (100.00%), SERVFAIL 2 (0.00%)
  Average packet size:  request 55, response 71
  Run time (s):         3.000733
  Queries per second:   101609.105769

  Average Latency (s):  0.002725 (min 0.000015, max 0.013256)
  Latency StdDev (s):   0.002345
"""


@pytest.fixture(scope="module")
def made() -> tuple[bytes, int]:
    return dnsdata.database(1, 3000)


def test_the_database_is_what_readers_expect(made: tuple[bytes, int], tmp_path: Path) -> None:
    data, count = made
    assert 2400 < count < 3600
    (tmp_path / "db").write_bytes(data)
    with maxminddb.open_database(str(tmp_path / "db")) as reader:
        about = reader.metadata()
        assert (about.database_type, about.ip_version, about.record_size) == ("GeoIP2-City", 6, 32)
        found: dict[int, int] = {4: 0, 6: 0}
        for network, record in reader:
            version = 4 if int(network.network_address) >> 32 == 0 else 6
            found[version] += 1
            here: Any = record
            assert set(here) == {"city", "continent", "country", "location"}
    assert sum(found.values()) == count
    assert 0.15 < found[6] / count < 0.35


def test_networks_are_in_it_as_they_were_made(made: tuple[bytes, int], tmp_path: Path) -> None:
    rng = random.Random(1)
    cities = dnsdata.places(rng)
    (tmp_path / "db").write_bytes(made[0])
    with maxminddb.open_database(str(tmp_path / "db")) as reader:
        before = -1
        for address, length, place in dnsdata.networks(rng, 3000, len(cities)):
            assert address > before
            before = address
            ip = ipaddress.ip_address(address if length < 96 or address >> 32 else address & 0xFFFFFFFF)
            if address < 1 << 32:
                ip = ipaddress.IPv4Address(address)
            record: Any = reader.get(ip)
            assert record["country"]["iso_code"] == cities[place].country
            assert record["location"]["latitude"] == cities[place].latitude


def packets(blob: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(blob):
        (length,) = struct.unpack_from(">H", blob, at)
        yield blob[at + 2 : at + 2 + length]
        at += 2 + length


@pytest.mark.parametrize(
    ("row", "family", "source"),
    [("subnet-4", 1, 24), ("subnet-6", 2, 56), ("plain", 0, 0), ("absent", 0, 0)],
)
def test_queries(row: str, family: int, source: int) -> None:
    seen = set()
    for packet in packets(dnsdata.queries(row, 200, 7)):
        message = dns.message.from_wire(packet)
        name = message.question[0].name.to_text(omit_final_dot=True)
        assert name.endswith(dnsdata.ZONE)
        if family:
            (option,) = message.options
            assert isinstance(option, dns.edns.ECSOption)
            assert (option.family, option.srclen, option.scopelen) == (family, source, 0)
            seen.add(option.address)
        else:
            assert not message.options
            assert (message.edns == -1) == (row == "plain")
            seen.add(name)
    assert len(seen) > 190 if row != "plain" else len(seen) == 1


def test_distance() -> None:
    pop = dnsdata.POPS[0]
    here = dnsdata.Place("DE", "EU", pop.latitude, pop.longitude)
    assert dnsdata.distance(here, pop) < 1e-6
    far = dnsdata.Place("", "", -pop.latitude, pop.longitude - 180)
    assert math.isclose(dnsdata.distance(far, pop), math.pi, rel_tol=1e-6)


def test_dnsperf_is_read() -> None:
    load = parse_dnsperf(DNSPERF)
    assert (load.sent, load.completed, load.lost) == (305135, 304902, 233)
    assert (load.seconds, round(load.mean_us)) == (3.000733, 2725)
    assert load.codes == (("NOERROR", 304900), ("SERVFAIL", 2))
    assert round(load.per_second) == 101609


@pytest.mark.parametrize(
    "missing", ["Queries sent", "Queries completed", "Queries lost", "Run time", "Average Latency"]
)
def test_a_figure_that_is_missing_is_an_error(missing: str) -> None:
    with pytest.raises(BadTable, match=missing):
        parse_dnsperf("\n".join(line for line in DNSPERF.splitlines() if missing not in line))


def turn(server: str, row: str = "subnet-4", cpu_us: float = 5.0, **more: Any) -> Turn:
    load = DnsLoad(**({"sent": 1000, "completed": 1000, "lost": 0, "seconds": 0.01, "mean_us": 1.0, "codes": ()}
                      | more.pop("load", {})))  # fmt: skip
    defaults = {"memory_bytes": 1 << 20, "server_own": 1.0, "load_own": 0.5, "others": 0.0}
    return Turn(row=row, server=server, load=load, cpu_us=cpu_us, **(defaults | more))


@pytest.mark.parametrize(
    ("own", "met"),
    [
        pytest.param({"cpu_us": 5.4}, [True, True, False], id="just so, but slow"),
        pytest.param({"cpu_us": 5.5}, [False, True, False], id="too dear"),
        pytest.param({"cpu_us": 6.1}, [False, False, False], id="much too dear"),
        pytest.param({"server_own": 0.5, "load_own": 0.95}, [True, True, True], id="the generator's limit"),
        pytest.param({"load": {"completed": 1500}}, [True, True, True], id="fast"),
    ],
)
def test_promises(own: dict[str, Any], met: list[bool]) -> None:
    turns = [turn("edgecache", **own), turn("gdnsd", cpu_us=4.0), turn("powerdns", cpu_us=12.0)]
    outcomes = judge(cells(turns), turns, {})
    assert [outcome.met for outcome in outcomes] == met


@pytest.mark.parametrize(
    ("load_s", "memory", "met"), [(4.9, 149 << 20, [True, True]), (5.0, 150 << 20, [False, False])], ids=str
)
def test_promises_of_loading(load_s: float, memory: int, met: list[bool]) -> None:
    assert [outcome.met for outcome in judge([], [], {"edgecache": (load_s, memory)})] == met


@pytest.mark.parametrize(
    ("row", "more", "said"),
    [
        pytest.param("plain", {"load": {"lost": 100}}, "10.0% of the queries were not answered", id="lost"),
        pytest.param("plain", {"load": {"codes": (("REFUSED", 9),)}}, "9 answers were not NOERROR", id="refused"),
        pytest.param("absent", {"load": {"codes": (("NOERROR", 9),)}}, "9 answers were not NXDOMAIN", id="found"),
        pytest.param("plain", {"others": 0.2}, "others used 20% of its core", id="disturbed"),
        pytest.param("plain", {}, "", id="nothing to say"),
    ],
)
def test_remarks(row: str, more: dict[str, Any], said: str) -> None:
    (cell,) = cells([turn("gdnsd", row, **more)])
    assert cell.remarks == ((said,) if said else ())


def test_the_report_is_printed() -> None:
    turns = [turn("edgecache"), turn("gdnsd", cpu_us=4.0)]
    started = {"edgecache": (3.0, 100 << 20), "gdnsd": (1.0, 9 << 20)}
    out = io.StringIO()
    console = dnsreport.Console(file=out, width=100)
    measured = cells(turns)
    dnsreport.show(console, {"a": "b"}, measured, judge(measured, turns, started), started, [("knot", "not there")])
    for said in ("1.25", "100,000", "knot: not there", "met", "3.00 s"):
        assert said in out.getvalue()


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests.bench.dns", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nothing"], "no row is called 'nothing'"),
        (["--peers", "bind"], "no peer is called 'bind'"),
        (["--server-core", "1", "--load-core", "1"], "two different cores"),
    ],
    ids=["row", "peer", "cores"],
)
def test_what_cannot_be_run_as_asked(arguments: list[str], said: str) -> None:
    done = run_bench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr or "dnsperf is not installed" in done.stderr


@pytest.mark.e2e
def test_a_short_run(tmp_path: Path) -> None:
    if not shutil.which("dnsperf") or not shutil.which("gdnsd", path=SBIN):
        if os.environ.get("CI") == "true":
            pytest.fail("dnsperf and gdnsd are needed")
        pytest.skip("dnsperf and gdnsd are needed")
    written = tmp_path / "figures.json"
    done = run_bench("--quick", "--only", "subnet-4", "--peers", "gdnsd", "--json", str(written))
    assert done.returncode == 0, done.stderr
    found = json.loads(written.read_text())
    assert {cell["server"] for cell in found["cells"]} == {"edgecache", "gdnsd"}
    for cell, turn_ in zip(found["cells"], found["turns"], strict=True):
        assert cell["cpu_us"] > 0
        assert turn_["load"]["completed"] > 100
        assert not any("not NOERROR" in remark for remark in cell["remarks"])
    assert set(found["started"]) == {"edgecache", "gdnsd"}
