"""The DNS servers that are measured, each configured as somebody who knows it would for this work.

All serve one zone whose `www` goes to a PoP by the client's network, from one database, with one thread for UDP and no
log of queries. gdnsd and edgecache go by distance; Knot's and PowerDNS's modules look up the client's continent, which
is less work and merges nothing.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from .dnsdata import CONTINENTS, POPS, TTL_S, ZONE
from .own import _ROOT
from .process import first_line
from .server import Command, Kind, Launch, Setup, not_installed

DATABASE = "city.mmdb"
_FIRST = {continent: next((pop for pop in POPS if pop.continent == continent), POPS[0]) for continent in CONTINENTS}
"""Where servers that decide by continent send its clients."""
_SOA = f"ns1.{ZONE}. hostmaster.{ZONE}. 1 7200 3600 1209600 60"


class DnsServer(Protocol):
    """A server that can be measured."""

    name: str
    kind: Kind
    settings: str
    by_distance: bool

    def missing(self) -> str | None:
        """Why it cannot run here and what would change that, or None."""
        ...

    def version(self) -> str:
        """The version it reports."""
        ...

    def prepare(self, setup: Setup) -> Launch:
        """Writes its configuration into `setup.directory` and says what to start. The database is in `setup.tools`."""
        ...


def _database(setup: Setup) -> Path:
    return setup.tools / DATABASE


_EDGECACHE = """\
listen: ["127.0.0.1:{port}"]
admin: {{address: "127.0.0.1:{admin_port}"}}
workers: {workers}
check: {{type: none}}
rate_limit: {{responses: 0}}
location: {{files: ["{database}"]}}
pops:
{pops}
zones:
  - name: {zone}
    nameservers: [ns1.{zone}]
    contact: hostmaster@{zone}
    ttl: {ttl}s
    records:
      - {{name: ns1, type: A, data: 192.0.2.53}}
    geo:
      - {{name: www, ttl: {ttl}s}}
"""


class Edgecache:
    """`edgecache geodns` as a user starts it, all its processes counted."""

    name = "edgecache"
    kind = Kind.CACHE
    settings = "defaults, but no health checks and no rate limit, as the others; all processes counted"
    by_distance = True

    def missing(self) -> str | None:
        """Asks the command: a checkout that is not built cannot serve."""
        command = [sys.executable, "-m", "edgecache", "geodns", "--help"]
        environment = os.environ | {"PYTHONPATH": str(_ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode == 0:
            return None
        return f"edgecache geodns does not start: {done.stderr.strip().rpartition(chr(10))[2]}"

    def version(self) -> str:
        """The package's."""
        import edgecache

        return edgecache.__version__

    def prepare(self, setup: Setup) -> Launch:
        """One file of configuration."""
        config = setup.directory / "geodns.yaml"
        pops = "\n".join(
            f"  - {{name: {pop.name}, latitude: {pop.latitude}, longitude: {pop.longitude}, "
            f'addresses: ["{pop.address}", "{pop.address_6}"]}}'
            for pop in POPS
        )
        config.write_text(
            _EDGECACHE.format(
                port=setup.port,
                admin_port=setup.spare_ports[0],
                workers=setup.workers,
                database=_database(setup),
                pops=pops,
                zone=ZONE,
                ttl=TTL_S,
            )
        )
        start = (sys.executable, "-m", "edgecache", "geodns", "-c", str(config))
        return Launch((Command(start, setup.directory / "output", {"PYTHONPATH": str(_ROOT)}),), None)


_GDNSD = """\
options => {{
  listen => {{ 127.0.0.1:{port} => {{ udp_threads => {workers}, tcp_threads => 1 }} }}
  run_dir => {directory}/run
  state_dir => {directory}/state
}}
plugins => {{ geoip => {{
  maps => {{ near => {{
    geoip2_db => {database}
    datacenters => [ {names} ]
    auto_dc_coords => {{ {coordinates} }}
    auto_dc_limit => 3
  }} }}
  resources => {{ www => {{ map => near, service_types => up, dcmap => {{ {addresses} }} }} }}
}} }}
"""
_GDNSD_ZONE = """\
@ {ttl} SOA {soa_server} {soa_contact} ( 1 7200 3600 1209600 60 )
@ {ttl} NS ns1
ns1 {ttl} A 192.0.2.53
www {ttl} DYNA geoip!www
"""


class Gdnsd:
    """gdnsd with its geoip plugin choosing by distance."""

    name = "gdnsd"
    kind = Kind.CACHE
    settings = "plugin geoip, auto_dc_coords by distance, one UDP thread"
    by_distance = True

    def missing(self) -> str | None:
        """It is one program."""
        return not_installed("gdnsd", "gdnsd")

    def version(self) -> str:
        """``gdnsd version 3.8.1``, printed when it does not understand."""
        done = subprocess.run(["gdnsd"], capture_output=True, text=True, check=False)
        found = re.search(r"gdnsd version (\S+)", done.stdout + done.stderr)
        return found[1] if found else "-"

    def prepare(self, setup: Setup) -> Launch:
        """A directory with a configuration and a zone."""
        (setup.directory / "zones").mkdir()
        (setup.directory / "config").write_text(
            _GDNSD.format(
                port=setup.port,
                workers=setup.workers,
                directory=setup.directory,
                database=_database(setup),
                names=", ".join(pop.name for pop in POPS),
                coordinates=", ".join(f"{pop.name} => [ {pop.latitude}, {pop.longitude} ]" for pop in POPS),
                addresses=", ".join(f"{pop.name} => {pop.address}" for pop in POPS),
            )
        )
        (setup.directory / "zones" / ZONE).write_text(
            _GDNSD_ZONE.format(ttl=TTL_S, soa_server=f"ns1.{ZONE}.", soa_contact=f"hostmaster.{ZONE}.")
        )
        start = ("gdnsd", "-c", str(setup.directory), "start")
        return Launch((Command(start, setup.directory / "output"),), None)


_KNOT = """\
server:
  rundir: {directory}
  listen: 127.0.0.1@{port}
  udp-workers: {workers}
  tcp-workers: 1
  background-workers: 1
  edns-client-subnet: on
  automatic-acl: off
log:
  - target: stderr
    any: warning
database:
  storage: {directory}
mod-geoip:
  - id: near
    config-file: {directory}/geo.conf
    ttl: {ttl}
    mode: geodb
    geodb-file: {database}
    geodb-key: continent/code
template:
  - id: default
    storage: {directory}
    zonefile-sync: -1
    journal-content: none
zone:
  - domain: {zone}
    file: zone
    module: mod-geoip/near
"""


class Knot:
    """Knot with mod-geoip, by continent."""

    name = "knot"
    kind = Kind.CACHE
    settings = "mod-geoip on the database, key continent/code, one UDP worker"
    by_distance = False

    def missing(self) -> str | None:
        """The module is a package of its own on Debian."""
        if not_installed("knotd", "knot"):
            return not_installed("knotd", "knot knot-module-geoip")
        found = any(Path("/usr/lib").glob("*/knot/modules-*/geoip.so"))
        return None if found else "Knot's geoip module is not installed: apt-get install knot-module-geoip"

    def version(self) -> str:
        """``knotd (Knot DNS), version 3.2.6``."""
        return first_line(["knotd", "-V"]).rpartition(" ")[2]

    def prepare(self, setup: Setup) -> Launch:
        """Its configuration, the module's, and a zone."""
        (setup.directory / "knot.conf").write_text(
            _KNOT.format(
                directory=setup.directory,
                port=setup.port,
                workers=setup.workers,
                ttl=TTL_S,
                database=_database(setup),
                zone=ZONE,
            )
        )
        geo = "".join(f"  - geo: {key}\n    A: {pop.address}\n" for key, pop in _FIRST.items())
        (setup.directory / "geo.conf").write_text(f"www.{ZONE}:\n{geo}")
        (setup.directory / "zone").write_text(
            f"$ORIGIN {ZONE}.\n$TTL {TTL_S}\n@ SOA {_SOA}\n@ NS ns1\nns1 A 192.0.2.53\nwww A {POPS[0].address}\n"
        )
        start = ("knotd", "-c", str(setup.directory / "knot.conf"))
        return Launch((Command(start, setup.directory / "output"),), None)


_PDNS = """\
launch=geoip
geoip-database-files=mmdb:{database}
geoip-zones-file={directory}/zones.yml
edns-subnet-processing=yes
local-address=127.0.0.1
local-port={port}
receiver-threads={workers}
distributor-threads=1
daemon=no
guardian=no
socket-dir={directory}
loglevel=3
disable-syslog=yes
version-string=anonymous
"""


class PowerDns:
    """PowerDNS with its geoip backend, by continent."""

    name = "powerdns"
    kind = Kind.CACHE
    settings = (
        "backend geoip on the database, by continent, edns-subnet-processing, one receiver, its caches as they come"
    )
    by_distance = False

    def missing(self) -> str | None:
        """The backend is a package of its own on Debian."""
        if not_installed("pdns_server", "pdns-server"):
            return not_installed("pdns_server", "pdns-server pdns-backend-geoip")
        found = any(Path("/usr/lib").glob("*/pdns/libgeoipbackend.so"))
        return None if found else "PowerDNS's geoip backend is not installed: apt-get install pdns-backend-geoip"

    def version(self) -> str:
        """``… PowerDNS Authoritative Server 4.7.3 (C) …``."""
        words = first_line(["pdns_server", "--version"]).split()
        return words[words.index("Server") + 1] if "Server" in words else ""

    def prepare(self, setup: Setup) -> Launch:
        """Its configuration and a zone in the backend's own form."""
        (setup.directory / "pdns.conf").write_text(
            _PDNS.format(database=_database(setup), directory=setup.directory, port=setup.port, workers=setup.workers)
        )
        known = {key.lower(): pop for key, pop in _FIRST.items()} | {"unknown": POPS[0]}
        records = "".join(f"    {key}.pop.{ZONE}:\n      - a: {pop.address}\n" for key, pop in known.items())
        (setup.directory / "zones.yml").write_text(
            f"domains:\n- domain: {ZONE}\n  ttl: {TTL_S}\n  records:\n    {ZONE}:\n"
            f"      - soa: {_SOA.replace('. ', ' ')}\n      - ns: ns1.{ZONE}\n"
            f"{records}  services:\n    www.{ZONE}: ['%cn.pop.{ZONE}']\n"
        )
        start = ("pdns_server", f"--config-dir={setup.directory}")
        return Launch((Command(start, setup.directory / "output"),), None)


def path_with_sbin() -> None:
    """Debian keeps these servers where an ordinary user's PATH does not lead."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
