"""The whole server: processes, reloads, databases that change, the admin API, and the command line."""

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from click.testing import CliRunner

from edgecache.cli import cli
from tests.conftest import require
from tests.e2e.edge import TOKEN, Process
from tests.geodns.mmdbfile import database
from tests.geodns.serving import Running, geodns
from tests.geodns.world import NETWORKS, addresses, make, scope

POPS = """
check: {type: none}
pops:
  - {name: fra, latitude: 50.1, longitude: 8.7, addresses: [192.0.2.10, "2001:db8:f::1"]}
  - {name: nyc, latitude: 40.7, longitude: -74.0, addresses: [198.51.100.10]}
  - {name: sin, latitude: 1.3, longitude: 103.8, addresses: [203.0.113.10]}
zones:
  - name: z.example
    nameservers: [ns1]
    records: [{name: ns1, type: A, data: 192.0.2.53}]
    geo: [{name: www, ttl: 30s}]
"""
NEARER = NETWORKS | {"192.0.2.0/24": {"country_code": "SG", "latitude": 1.0, "longitude": 104.0}}


def admin(
    running: Running, method: str, target: str, body: object = None, token: str | None = TOKEN
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.admin_port, timeout=10)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        connection.request(method, target, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def eventually(what: str, holds: object, timeout_s: float = 15.0) -> None:
    assert callable(holds)
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [0, 2])
def test_answers_over_udp_and_tcp(tmp_path: Path, workers: int) -> None:
    file = tmp_path / "geo.mmdb"
    file.write_bytes(database(NETWORKS))
    with geodns(f"workers: {workers}\nlocation: {{files: {file}}}\n{POPS}") as running:
        for tcp in (False, True):
            answer = running.ask("www.z.example", client="198.51.100.0/24", tcp=tcp)
            assert (addresses(answer), scope(answer)) == (["198.51.100.10"], 24)
            assert running.ask("missing.z.example", tcp=tcp).rcode() == dns.rcode.NXDOMAIN
        pipelined(running)
        assert admin(running, "GET", "/readyz")[0] == 200

        def counted() -> bool:
            stats = json.loads(admin(running, "GET", "/v1/stats")[1])
            return stats.get("country_answers", {}).get("US") == 2 and stats["pop_answers"]["nyc"] == 2

        eventually("both paths are counted", counted)
        metrics = admin(running, "GET", "/metrics")[1].decode()
        assert 'edgecache_geodns_pop_answers_total{pop="nyc"} 2.0' in metrics
        drain(running)


def pipelined(running: Running) -> None:
    """RFC 7766 §6.2.1: queries do not wait for answers."""
    queries = [make(f"{name}.z.example").to_wire() for name in ("www", "ns1", "missing") * 20]
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(b"".join(struct.pack(">H", len(query)) + query for query in queries))
        stream = connection.makefile("rb")
        for query in queries:
            (length,) = struct.unpack(">H", stream.read(2))
            assert stream.read(length)[:2] == query[:2]


def drain(running: Running) -> None:
    """By the API: at once, for those who have the token."""
    assert admin(running, "PUT", "/v1/pops/nyc/drained", {"drained": True}, token=None)[0] == 401
    assert admin(running, "PUT", "/v1/pops/none/drained", {"drained": True})[0] == 404
    assert admin(running, "PUT", "/v1/pops/nyc/drained", {"drained": "yes"})[0] == 400
    status, body = admin(running, "PUT", "/v1/pops/nyc/drained", {"drained": True})
    assert (status, json.loads(body)["why"]) == (200, "drained by api")
    eventually("drained", lambda: addresses(running.ask("www.z.example", client="198.51.100.0/24")) == ["192.0.2.10"])
    assert admin(running, "PUT", "/v1/pops/fra/health", {"up": False})[0] == 200
    eventually("down", lambda: addresses(running.ask("www.z.example", client="198.51.100.0/24")) == ["203.0.113.10"])
    running.process.process.send_signal(signal.SIGHUP)
    running.until("the new configuration is in use")
    assert addresses(running.ask("www.z.example", client="198.51.100.0/24")) == ["203.0.113.10"], "orders outlive it"
    assert admin(running, "PUT", "/v1/pops/fra/health", {"up": None})[0] == 200
    assert admin(running, "PUT", "/v1/pops/nyc/drained", {"drained": False})[0] == 200
    eventually("back", lambda: addresses(running.ask("www.z.example", client="198.51.100.0/24")) == ["198.51.100.10"])


def test_reloads_lose_no_query(tmp_path: Path) -> None:
    """A new configuration, a new database, a bad one of each, and a worker killed, under queries all the time."""
    file = tmp_path / "geo.mmdb"
    file.write_bytes(database(NETWORKS))
    with geodns(f"workers: 2\nrate_limit: {{responses: 0}}\nlocation: {{files: {file}}}\n{POPS}") as running:
        stop, lost, asked = threading.Event(), [], [0]

        def ask_on() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.connect(("127.0.0.1", running.port))
                while not stop.is_set():
                    query = make("www.z.example", client="192.0.2.0/24").to_wire()
                    client.send(query)
                    asked[0] += 1
                    try:
                        if client.recv(512)[:2] != query[:2]:
                            lost.append("another answer")
                    except TimeoutError:
                        lost.append(f"no answer at {time.strftime('%H:%M:%S')}")

        threads = [threading.Thread(target=ask_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            text = running.file.read_text()
            running.file.write_text(text.replace("ttl: 30s", "ttl: 40s"))
            running.process.process.send_signal(signal.SIGHUP)
            eventually("reloaded", lambda: running.ask("www.z.example").answer[0].ttl == 40)
            running.file.write_text(text.replace("ttl: 30s", "ttl: nonsense"))
            running.process.process.send_signal(signal.SIGHUP)
            running.until("nothing has changed")
            (tmp_path / "new").write_bytes(database(NEARER))
            (tmp_path / "new").rename(file)
            near = ["203.0.113.10"]
            eventually("new", lambda: addresses(running.ask("www.z.example", client="192.0.2.0/24")) == near)
            file.write_bytes(b"no database")
            running.until("location.files: ")
            assert addresses(running.ask("www.z.example", client="192.0.2.0/24")) == near
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not lost, running.process.lines
        assert asked[0] > 100


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with geodns(f"workers: 1\n{POPS}") as running:
        parent = running.process.process.pid
        children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        (worker,) = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "edgecache-dns-0\n"]
        os.kill(worker, signal.SIGKILL)
        assert running.ask("www.z.example").rcode() == 0, "the query waits for the next worker"
        running.until("ended: signal SIGKILL")


def test_a_taken_address_is_told_at_start(tmp_path: Path) -> None:
    with geodns(f"workers: 1\n{POPS}") as running:
        file = tmp_path / "geodns.yaml"
        file.write_text(f'listen: ["127.0.0.1:{running.port}"]\nadmin: {{address: "127.0.0.1:0"}}\n{POPS}')
        second = Process("geodns", "-c", str(file), signs=("admin API on",))
        assert second.process.wait(60) == 2
        second.stop()
        assert any("already in use" in line for line in second.lines)


def test_the_control_process_is_replaced_too() -> None:
    with geodns(f"workers: 1\n{POPS}") as running:
        parent = running.process.process.pid
        children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        (control,) = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "edgecache-dnsct\n"]
        assert admin(running, "PUT", "/v1/pops/fra/drained", {"drained": True})[0] == 200
        os.kill(control, signal.SIGKILL)
        pops = json.loads(admin(running, "GET", "/v1/pops")[1])["pops"]
        assert pops[0]["why"] == "drained by api", "orders outlive it"
        assert running.ask("www.z.example").rcode() == 0


def test_dig_understands_it(tmp_path: Path) -> None:
    dig = require("dig")
    file = tmp_path / "geo.mmdb"
    file.write_bytes(database(NETWORKS))
    with geodns(f"workers: 0\nlocation: {{files: {file}}}\n{POPS}") as running:
        command = [dig, "@127.0.0.1", "-p", str(running.port), "+subnet=192.0.2.0/24", "www.z.example", "A"]
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        assert "status: NOERROR" in out
        assert "CLIENT-SUBNET: 192.0.2.0/24/24" in out
        assert "(good)" in out, "the cookie"
        assert "192.0.2.10" in out
        assert "WARNING: Message parser" not in out


def test_many_from_one_network_are_limited() -> None:
    with geodns(f"workers: 0\nrate_limit: {{responses: 5, slip: 2}}\n{POPS}") as running:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect(("127.0.0.1", running.port))
            for _ in range(60):
                client.send(make("www.z.example").to_wire())
            got = []
            try:
                while True:
                    got.append(dns.message.from_wire(client.recv(512)))
            except TimeoutError:
                pass
        whole = [one for one in got if not one.flags & dns.flags.TC]
        assert 5 <= len(whole) <= 15
        assert len(got) < 45
        assert any(one.flags & dns.flags.TC for one in got), "who is real comes by TCP"
        assert addresses(running.ask("www.z.example", tcp=True))


def test_a_missing_database_is_told_at_start(tmp_path: Path) -> None:
    file = tmp_path / "geodns.yaml"
    file.write_text(f"location: {{files: {tmp_path}/none.mmdb}}\n{POPS}")
    done = CliRunner().invoke(
        cli, ["geodns", "-c", str(file), "--listen", "127.0.0.1:0"], env={"EDGECACHE_TOKEN": TOKEN}
    )
    assert done.exit_code == 2


def test_explain(tmp_path: Path) -> None:
    data, file = tmp_path / "geo.mmdb", tmp_path / "geodns.yaml"
    data.write_bytes(database(NETWORKS))
    file.write_text(f'admin: {{address: "127.0.0.1:1"}}\nlocation: {{files: {data}}}\n{POPS}')
    run = CliRunner()
    done = run.invoke(cli, ["geodns", "-c", str(file), "--explain", "198.51.100.7", "www.z.example", "--json"])
    found = json.loads(done.stdout)
    assert found["location"]["country"] == "US"
    assert found["network"] == "198.51.100.0/24"
    assert [pop["name"] for pop in found["pops"]] == ["nyc", "fra", "sin"]
    assert found["answers"]["A"]["records"] == ["www.z.example. 30 IN A 198.51.100.10"]
    assert found["answers"]["A"]["scope"] == 24
    done = run.invoke(cli, ["geodns", "-c", str(file), "--explain", "8.8.8.8", "www.z.example"])
    assert "default" in done.stdout
    assert run.invoke(cli, ["geodns", "-c", str(file), "--explain", "nonsense", "z.example"]).exit_code == 1
    done = run.invoke(cli, ["check", str(file)])
    assert "GeoDNS with 1 zone and 3 PoPs" in done.stdout
