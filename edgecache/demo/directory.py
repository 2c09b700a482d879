"""The demo's GeoDNS, in the same process.

It knows two PoPs, the demo's edges, and networks that stand for continents: those that clients name (`+subnet=`), and
those that the demo's resolver tells of clients on 127.1.0.0/16 and so on. It looks after the edges as after any.
"""

import secrets
import socket
import tempfile
from pathlib import Path
from typing import Final

from edgecache.config.load_geodns import load_geodns
from edgecache.geodns import plan
from edgecache.geodns.blob import Blob
from edgecache.geodns.control import GeoControl
from edgecache.geodns.server import GeoServer, World
from edgecache.geodns.tally import Layout, Rows
from edgecache.http.sockets import bind_both

NAME: Final = "www.demo.example"
ZONE: Final = "demo.example"
EUROPE, AMERICA, ASIA = "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"
EUROPEAN, AMERICAN = "127.1.0.9", "127.2.0.9"
"""Addresses of this machine that stand for clients of the resolver."""

_FILE = """
location:
  networks:
    - {{network: {europe}, country: DE}}
    - {{network: {america}, country: US}}
    - {{network: {asia}, country: SG}}
    - {{network: 127.1.0.0/16, country: DE}}
    - {{network: 127.2.0.0/16, country: US}}
  default: [frankfurt]
check: {{type: tcp, port: {port}, interval: 1s, timeout: 500ms, fall: 2}}
pops:
  - {{name: frankfurt, latitude: 50.1, longitude: 8.7, addresses: ["{first}"]}}
  - {{name: new-york, latitude: 40.7, longitude: -74.0, addresses: ["{second}"]}}
zones: [{{name: {zone}, nameservers: [ns1], geo: [{{name: www, ttl: 10s, min_ttl: 1s}}]}}]
"""


class Directory:
    """A GeoDNS for two edges of this machine."""

    def __init__(self, first: str, second: str, port: int) -> None:
        """The addresses of the edges, and the port of both."""
        text = _FILE.format(europe=EUROPE, america=AMERICA, asia=ASIA, first=first, second=second, port=port, zone=ZONE)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "geodns.yaml")
            file.write_text(text, encoding="utf-8")
            loaded = load_geodns(file)
        layout, health = Layout(), Blob()
        rows = Rows(layout)
        world = World.of(loaded, plan.mapping(loaded.config), layout, [secrets.token_bytes(16)])
        self._control = GeoControl(loaded.config, world.mapping, health, Blob(), rows)
        self._server = GeoServer(world, health, rows, 0)
        self._doors: tuple[socket.socket, ...] = ()
        self.port = 0

    async def start(self) -> None:
        """On a port of the system's choice."""
        udp, tcp = self._doors = bind_both("127.0.0.1", 0)
        self.port = udp.getsockname()[1]
        await self._control.start()
        await self._server.ready()
        await self._server.start([udp], [tcp])

    async def close(self) -> None:
        await self._server.shut()
        await self._server.close()
        await self._control.close()
        for door in self._doors:
            door.close()
