"""One process that answers: UDP by the compiled path, TCP and whatever is uncommon by the ordinary one.

It is told of health through a `Blob` and looks at that often enough for the promise of `health`; what follows from it
is made whole and then put in use, so that no query meets half of a change. The sockets are the caller's: they outlive
the process, and what waits in them is answered by the next one.
"""

import asyncio
import logging
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from edgecache._native.dnsguard import Cookies, Limiter
from edgecache._native.dnsudp import COUNTERS
from edgecache._native.dnsudp import Responder as UdpResponder
from edgecache.config.load_geodns import LoadedGeo
from edgecache.geodns import plan
from edgecache.geodns.answer import Choice, Health
from edgecache.geodns.blob import Blob
from edgecache.geodns.mapping import Mapping
from edgecache.geodns.query import Rcode
from edgecache.geodns.respond import Responder
from edgecache.geodns.snapshot import Snapshot
from edgecache.geodns.table import Searched, TableMaker
from edgecache.geodns.tally import Layout, Rows, Tally
from edgecache.geodns.tcp import TcpService
from edgecache.geodns.zone import Zone
from edgecache.http.clock import wall_clock

_log = logging.getLogger("edgecache.geodns")

LOOK_S = 0.05
"""How often health is looked at."""
COUNT_S = 0.5
BACKLOG = 256
_TABLE_KEYS = 1000
"""From here on `Tally.follow` keys are a table's counters; below are those of UDP sockets."""


@dataclass(frozen=True, slots=True)
class World:
    """What all processes of one configuration share, made before they fork."""

    loaded: LoadedGeo
    mapping: Mapping
    searched: Searched
    cookies: Cookies

    @classmethod
    def of(cls, loaded: LoadedGeo, mapping: Mapping, layout: Layout, secrets: Sequence[bytes]) -> "World":
        countries = [layout.country(code) for code in mapping.countries]
        for pop in loaded.config.pops:
            layout.pop(pop.name)
        return cls(loaded, mapping, Searched.of(mapping, countries), Cookies(secrets))


class GeoServer:
    """Answers on the sockets it is given."""

    def __init__(self, world: World, health: Blob, rows: Rows, process: int) -> None:
        config = world.loaded.config
        self._world = world
        self._health = health
        self._pops = plan.pops(config)
        self._names = plan.names(config, world.loaded.zones)
        self._tally = Tally(rows.layout, rows.row(process), [pop.name for pop in self._pops], world.mapping.countries)
        zones = [Zone(zone) for zone in world.loaded.zones]
        self._maker = TableMaker(zones, self._tally)
        self._seen = 0
        self.snapshot = self._snapshot(None)
        self.responder = Responder(
            zones,
            self.snapshot,
            cookies=world.cookies,
            clock=wall_clock,
            udp_size=config.limits.udp_size,
            told=self._told,
        )
        self._table = self._maker.make(self.snapshot, world.searched)
        self._udp: list[tuple[UdpResponder, socket.socket]] = []
        self._tcp: TcpService | None = None
        self._servers: list[asyncio.Server] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def ready(self) -> None:
        """Until the first checks are done: before that there is nothing to answer by."""
        while not self._health.read():  # noqa: ASYNC110 - another process's memory: nothing wakes us
            await asyncio.sleep(LOOK_S)
        self._look()

    async def start(self, udp: Sequence[socket.socket], tcp: Sequence[socket.socket]) -> None:
        """On duplicates of these sockets."""
        loop = asyncio.get_running_loop()
        config = self._world.loaded.config
        limit = config.rate_limit
        limiter = Limiter(limit.responses, slip=limit.slip) if limit.responses else None
        for given in udp:
            door = given.dup()
            door.setblocking(False)
            responder = UdpResponder(
                door.fileno(),
                self._slow,
                self._failed,
                cookies=self._world.cookies,
                limiter=limiter,
                from_any=given.getsockname()[0] in ("0.0.0.0", "::"),  # noqa: S104 - compared
                most=config.limits.udp_size,
            )
            responder.use(self._table)
            self._udp.append((responder, door))
        self._tcp = TcpService(config.limits, self._by_tcp, self._tally.tcp)
        for given in tcp:
            server = await loop.create_server(self._tcp.protocol, sock=given.dup(), backlog=BACKLOG)
            self._servers.append(server)
        for responder, door in self._udp:
            loop.add_reader(door.fileno(), responder.read)
        self._look()
        self._count()

    async def shut(self) -> None:
        """Take nothing new: what waits in the sockets is for whoever has them next."""
        loop = asyncio.get_running_loop()
        for responder, door in self._udp:
            loop.remove_reader(door.fileno())
            responder.read()
        for server in self._servers:
            server.close()

    async def close(self) -> None:
        """Connections are told by their end."""
        if self._tcp is not None:
            self._tcp.leave()
        await asyncio.sleep(0)
        self._count(again=False)
        for timer in self._timers.values():
            timer.cancel()
        for _, door in self._udp:
            door.close()
        self._udp.clear()

    # --- answers ---

    def _slow(self, packet: bytes, client: bytes) -> bytes | None:
        return self.responder.respond(packet, client)

    def _by_tcp(self, packet: bytes, client: bytes) -> bytes | None:
        return self.responder.respond(packet, client, tcp=True)

    def _failed(self, error: Exception) -> None:
        _log.error("a packet could not be answered", exc_info=error)

    def _told(self, version: int, number: int, choice: Choice | None, rcode: Rcode) -> None:
        self._tally.answered(choice, self._world.mapping.country(version, number) if choice is not None else 0, rcode)

    # --- changes ---

    def _snapshot(self, value: dict[str, list[float | None]] | None) -> Snapshot:
        number = len(self._pops)
        usable = (True,) * number if value is None else tuple(map(bool, value["usable"]))
        settled: tuple[float, ...] = (math.inf,) * number
        if value is not None:
            settled = tuple(math.inf if one is None else one for one in value["settled_s"])
        return Snapshot(self._world.mapping, self._pops, Health(self._seen, usable, settled), self._names)

    def _look(self) -> None:
        """At health; what has changed is in use when this returns."""
        if self._health.count != self._seen and (found := self._health.read()) is not None:
            self._seen, value = found
            self.snapshot = self._snapshot(value)
            self.responder.snapshot = self.snapshot
            table = self._maker.make(self.snapshot, self._world.searched)
            for responder, _ in self._udp:
                responder.use(table)
            self._count_table()
            self._tally.forget(_TABLE_KEYS)
            self._table = table
        self._again("look", LOOK_S, self._look)

    def _again(self, name: str, delay_s: float, what: object) -> None:
        assert callable(what)
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, what)

    def _count(self, *, again: bool = True) -> None:
        """What the compiled path counted goes where everybody sees it."""
        for index, (responder, _) in enumerate(self._udp):
            counts = responder.counts()
            for k, name in enumerate(COUNTERS):
                self._tally.follow(index * len(COUNTERS) + k, self._tally.layout.udp + k, counts[name])
        self._count_table()
        if again:
            self._again("count", COUNT_S, self._count)

    def _count_table(self) -> None:
        for place, value in enumerate(self._table.counts()):
            if value:
                self._tally.follow(_TABLE_KEYS + place, place, value)
