"""A fleet in one event loop: real logs, hubs, feeds, appliers, keepers, arenas and pipelines; the wires, the origin,
the clients and the disks' contents are the test's.
"""

import asyncio
import math
import os
import random
import shutil
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import Any

from edgecache._native.arena import Arena
from edgecache.config.model import Config
from edgecache.config.purge import PurgeConfig
from edgecache.config.site import site_policy
from edgecache.edge.forwarding import Hop
from edgecache.edge.lookup import Shelf
from edgecache.edge.pipeline import Pipeline
from edgecache.edge.sites import Site, Sites
from edgecache.http.headers import Headers
from edgecache.http.message import Request
from edgecache.purge.bus import Caller, FeedEvent, LogPosition, Purges, Welcome
from edgecache.purge.coordinator.hub import Hub
from edgecache.purge.coordinator.service import Coordinator
from edgecache.purge.coordinator.subscription import _hello, _listen
from edgecache.purge.coordinator.tokens import Grant, Scope
from edgecache.purge.following import Following, Turn, trust_at_start
from edgecache.purge.forgetting import Forgetting
from edgecache.purge.keeper import PurgeKeeper, restore
from edgecache.purge.ledger import Retention
from edgecache.purge.log import LocalLog
from edgecache.purge.message import PurgeKind, PurgeOrder, UrlPattern
from edgecache.purge.orderbook import SharedOrders
from edgecache.purge.sqlite_log import SqliteLog
from edgecache.purge.transport.pace import Pace
from edgecache.purge.transport.websocket import WebSocketFeed
from edgecache.store.lurker import Lurker
from edgecache.store.memory import MemoryStore
from edgecache.store.tiers import TieredStore
from tests.purge.simulated.parts import PATHS, SimConnection, SimDisk, SimExchange, SimOrigin, SimSocket, Versions, wall
from tests.purge.simulated.world import Machine, Threads, VirtualLoop, Wire

KINDS = ("url", "own", "prefix", "key", "host", "all", "site", "pattern", "pattern", "patterns")
"""What is purged by, as often as it stands here."""
HEARTBEAT_S = 0.5
MAX_SILENCE_S = 2.0
CONFIG = Config.model_validate(
    {"origin": "http://origin", "memory": {"size": "4MiB", "max_object": "64KiB"}, "cache": {"stale_if_error": 0}}
)
POLICY = site_policy(CONFIG.sites[0], CONFIG.memory)
GRANT = Grant("test", b"", frozenset({Scope.ADMIN}))


def clock() -> float:
    return asyncio.get_running_loop().time()


class SimFeed(WebSocketFeed):
    def __init__(self, edge: "SimEdge") -> None:
        pace = Pace(first_s=0.05, most_s=0.5, steady_s=5.0, connect_s=1.0)
        chance = random.Random(edge.chance.random())
        super().__init__("http://coordinator", edge=edge.name, token=lambda: None, pace=pace, chance=chance.random)
        self._sim = edge

    async def _open(self, session: Any, headers: Any, tls: Any) -> Any:
        edge, fleet = self._sim, self._sim.fleet
        await asyncio.sleep(edge.chance.random() * 0.05)
        if edge.partitioned or fleet.coordinator is None:
            raise ConnectionRefusedError("nobody is there")
        up, down = Wire(edge.chance.random(), fleet.slow_s), Wire(edge.chance.random(), fleet.slow_s)
        edge.wires = [wire for wire in edge.wires if not wire.cut] + [up, down]
        fleet.coordinator.accept(SimSocket(down, up), down, up)
        return SimSocket(up, down)

    async def events(self, position: Callable[[], LogPosition | None]) -> AsyncGenerator[FeedEvent, None]:
        async for event in super().events(position):
            yield event
            self._sim.dealt_with(event)


# --- machines ---


class SimLog(SqliteLog):
    """Also tells the test what is in it."""

    def __init__(self, folder: Path, fleet: "Fleet") -> None:
        super().__init__(folder, Retention(entries=4))
        self._fleet = fleet

    async def append(self, order: PurgeOrder, *, now: float, caller: Caller, key: str | None = None) -> Any:
        appended = await super().append(order, now=now, caller=caller, key=key)
        record = appended.record
        self._fleet.logged[self.state().log, record.sequence] = self._fleet.orders[order.keys[-1]]
        return appended

    def die(self) -> None:
        for con in (self._con, self._read_con):
            if con is not None:
                con.close()
        if self._lock is not None:
            os.close(self._lock)


class SimCoordinator(Machine):
    def __init__(self, fleet: "Fleet") -> None:
        super().__init__("coordinator", fleet.chance.random())
        self.fleet = fleet
        self.log = SimLog(fleet.folder / "log", fleet)
        self.service: Coordinator | None = None
        self.wires: list[Wire] = []

    async def start(self) -> None:
        await self.log.start()
        hub = Hub(self.log, wall=wall, heartbeat_s=HEARTBEAT_S, stall_s=2.0)
        self.service = Coordinator(self.log, None, hub, wall=wall, rate=0, burst=1, wait_s=2.0, match=True)  # type: ignore[arg-type]
        await hub.start()

    def accept(self, socket: SimSocket, down: Wire, up: Wire) -> None:
        self.wires = [wire for wire in self.wires if not wire.cut] + [down, up]
        self.begin(self._serve(socket, down, up))

    async def _serve(self, socket: SimSocket, down: Wire, up: Wire) -> None:
        assert self.service is not None
        subscriber = None
        try:
            hello = await _hello(socket)  # type: ignore[arg-type]
            if hello is not None:
                subscriber = await self.service.hub.join(hello, SimConnection(socket, down))
                await _listen(socket, self.service.hub, subscriber)  # type: ignore[arg-type]
        except (OSError, TimeoutError):
            pass
        finally:
            if subscriber is not None and self.alive:
                self.service.hub.leave(subscriber)
                await socket.close()

    async def die(self) -> None:
        await super().die()
        self.log.die()
        for wire in self.wires:
            wire.cut = True


class SimEdge(Machine):
    """One life of an edge. What outlives it: its directory, its disk, and what was promised in its name."""

    def __init__(
        self, fleet: "Fleet", name: str, *, when_silent: str, disk: SimDisk | None, least: Versions, told: Versions
    ) -> None:
        super().__init__(name, fleet.chance.random())
        self.fleet = fleet
        self.chance = random.Random(fleet.chance.random())
        self.when_silent = when_silent
        self.disk = disk
        self.least = least
        """What was promised in its name."""
        self.told = told
        """What it has been told of."""
        self.partitioned = False
        self.wires: list[Wire] = []
        self.pipelines: list[Pipeline] = []
        self.arena = Arena(1 << 20, max_object=8 << 10, purge_slots=fleet.purge_slots)
        self.following: Following | None = None
        self.trusted = 0
        """Times the deadline was moved on."""

    async def start(self) -> None:
        keeper = None
        if self.disk is not None:
            path = self.fleet.folder / f"{self.name}.db"
            if not restore(path, self.arena):
                self.disk.forget_all()
            self.disk.machine = self
            self.disk.purged, self.disk.proved = self.arena.purged, self.arena.proved
            keeper = PurgeKeeper(path, self.disk.forget_all, sequence=self.arena.sequence, retry_s=0.1)
            keeper.start()
        match = self.chance.random() < 0.7
        config = PurgeConfig.model_validate(
            {
                "coordinator": "http://c",
                "max_silence": MAX_SILENCE_S,
                "when_silent": self.when_silent,
                "dialects": {"patterns": "match" if match else "refuse"},
            }
        )
        trust_at_start(self.arena, config)
        sites = Sites([Site(policy=POLICY, origin=self.fleet.origin)])
        log = LocalLog(
            self.arena,
            edge=self.name,
            sites=sites.names,
            cache_keys=sites.cache_keys,
            clock=wall,
            book=SharedOrders(size=1 << 16),
            keeper=keeper,
        )
        store = memory = MemoryStore(self.arena, b"0" * 16)
        for _ in range(2):
            store = TieredStore(memory, self.disk, always=True, large=0) if self.disk is not None else memory  # type: ignore[arg-type]
            self.pipelines.append(
                Pipeline(
                    sites=sites,
                    shelf=Shelf(store, keep_urls=match and self.chance.random() < 0.9),
                    clock=wall,
                    hop=Hop(),
                    purge=log.append,
                    kept=keeper.kept if keeper is not None else None,
                    told=lambda _exchange, _story: None,
                    pass_when_silent=self.when_silent == "pass",
                )
            )
        self.following = Following(
            config,
            edge=self.name,
            arena=_Deadline(self),  # type: ignore[arg-type]
            turn=Turn(),
            sites=sites.names,
            cache_keys=sites.cache_keys,
            keeper=keeper,
            clock=clock,
            feed=lambda _config, _name: SimFeed(self),
        )
        await self.following.start()
        disk = self.disk
        scanned = (lambda: disk.clean_through) if disk is not None else None
        patience_s = self.chance.choice((0.3, 3.0, 30.0))
        lurker = Lurker(store, scanned=scanned, keeper=keeper, clock=clock, patience_s=patience_s)
        self.begin(lurker.run())
        self.begin(self._forget(lurker))

    async def _forget(self, lurker: Lurker) -> None:
        """What nothing stored needs, as the control process does, now and then."""
        disk = self.disk
        clean = None if disk is None else lambda: disk.clean_through
        forgetting = Forgetting(self.arena, clock=clock, disk_clean=clean, compare=lurker.round)
        while True:
            await asyncio.sleep(self.chance.random())
            if disk is not None and self.chance.random() < 0.7:
                disk.sweep(self.arena.sequence())
            self.fleet.forgotten += await forgetting.look()

    async def die(self) -> None:
        await super().die()
        for wire in self.wires:
            wire.cut = True

    def partition(self, apart: bool) -> None:
        self.partitioned = apart
        for wire in self.wires:
            wire.hold(apart)

    def dealt_with(self, event: FeedEvent) -> None:
        """From now on this edge has been told of these purges."""
        logged = self.fleet.logged
        match event:
            case Purges(entries):
                for entry in entries:
                    self.promise(self.fleet.orders[entry.order.keys[-1]])
            case Welcome(position=position, reset=True):
                for (log, number), versions in logged.items():
                    if log == position.log and number <= position.sequence:
                        self.promise(versions)
            case _:
                pass

    def promise(self, versions: Versions) -> None:
        for path, version in versions.items():
            self.told[path] = max(self.told[path], version)

    async def ask(self, path: str, method: str, language: str) -> None:
        """One request, and what must hold for its answer."""
        least, hard = (max(self.least[name], self.told[name]) for name in (path, f"!{path}"))
        silent, trusted = self.arena.silent(), self.trusted
        exchange = SimExchange(Request(method, "http", "h", path, Headers([("Accept-Language", language)])))
        await self.chance.choice(self.pipelines).handle(exchange)  # type: ignore[arg-type]
        if not exchange.whole or exchange.response is None or exchange.response.status != 200:
            return
        version, _, target = exchange.data.decode().partition(":")
        status = exchange.response.headers.get("cache-status") or ""
        self.fleet.served += 1
        self.fleet.hits += "; hit" in status
        assert target == path
        least = hard if "detail=stale-if-error" in status else least
        assert int(version) >= least, f"{self.name} served {path} in version {version}, {least} was promised: {status}"
        assert not (silent and trusted == self.trusted and "; hit" in status), (
            f"{self.name} was silent and served {path}: {status}"
        )


class _Deadline:
    """The arena, with its deadline by the test's clock."""

    def __init__(self, edge: SimEdge) -> None:
        self._edge = edge
        self._arena = edge.arena
        self._until = edge.arena.trusted_until()
        self.append_purge = edge.arena.append_purge
        self.silent = edge.arena.silent

    def trust(self, until: float) -> None:
        self._until = until
        self._edge.trusted += 1
        self._arena.trust(math.inf if until > clock() else 0.0)
        if math.isfinite(until):
            asyncio.get_running_loop().call_at(max(until, clock()), self._passed)

    def _passed(self) -> None:
        if clock() >= self._until:
            self._arena.trust(0.0)

    def trusted_until(self) -> float:
        return self._until


# --- one history ---


class Fleet:
    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.origin = SimOrigin(random.Random(self.chance.random()))
        self.orders: dict[str, Versions] = {}
        """By a key that each order carries for this: what it promises."""
        self.logged: dict[tuple[str, int], Versions] = {}
        self.coordinator: SimCoordinator | None = None
        self.edges: dict[str, SimEdge] = {}
        self.plans: dict[str, tuple[str, SimDisk | None, Versions, Versions]] = {}
        self.slow_s = self.chance.choice((0.01, 0.2, 1.0))
        self.purge_slots = self.chance.choice((16, 64, 256))
        self.served = self.hits = self.confirmed = self.purges = self.forgotten = 0
        self.doomed: list[str] = []

    @property
    def from_disk(self) -> int:
        return sum(disk.found for _, disk, *_ in self.plans.values() if disk is not None)

    async def run(self, steps: int) -> None:
        chance = self.chance
        await self.start_coordinator()
        for number in range(chance.choice((1, 2, 3))):
            disk = SimDisk(random.Random(chance.random())) if chance.random() < 0.6 else None
            policy = chance.choice(("revalidate", "revalidate", "pass", "serve"))
            least = dict.fromkeys((*PATHS, *(f"!{path}" for path in PATHS)), 0)
            self.plans[f"edge{number}"] = (policy, disk, least, dict(least))
        for name in self.plans:
            await self.start_edge(name)
        for _ in range(steps):
            await self.step()
            await asyncio.sleep(chance.expovariate(5))
        await self.come_to_rest()

    async def step(self) -> None:
        chance = self.chance
        edge = chance.choice(list(self.edges.values())) if self.edges else None
        if self.doomed and (doomed := self.edges.get(self.doomed.pop())) is not None:
            # Right after it has confirmed: what it said must be true of its next life too.
            await self.kill(doomed)
            await self.start_edge(doomed.name)
            for path in PATHS * 2:
                self.ask(self.edges[doomed.name], path)
            return
        dice = chance.random()
        if dice < 0.55 and edge is not None:
            self.ask(edge, chance.choice(PATHS))
        elif dice < 0.78:
            self.change_and_purge()
        elif dice < 0.81:
            self.origin.versions[chance.choice(PATHS)] += 1
        elif dice < 0.86 and edge is not None:
            await self.kill(edge)
        elif dice < 0.91:
            for name in self.plans:
                if name not in self.edges and chance.random() < 0.7:
                    await self.start_edge(name)
        elif dice < 0.95 and edge is not None:
            edge.partition(not edge.partitioned)
        elif dice < 0.97:
            if self.coordinator is not None:
                await self.kill_coordinator(loses_all=chance.random() < 0.1)
            else:
                await self.start_coordinator()
        elif dice < 0.985:
            if self.coordinator is not None:
                await self.coordinator.log.compact(wall())
        elif dice < 0.995:
            self.origin.down = not self.origin.down
        elif edge is not None:
            self.ask(edge, chance.choice(PATHS), method="POST")

    def ask(self, edge: SimEdge, path: str, method: str = "GET") -> None:
        edge.begin(edge.ask(path, method, self.chance.choice(("de", "en")))).add_done_callback(self._look)

    def change_and_purge(self) -> None:
        """The content first, then the purge; what is promised is what there was when it was asked for."""
        if self.coordinator is None:
            return
        chance = self.chance
        path = chance.choice(PATHS)
        kind = chance.choice(KINDS)
        covered = {
            "url": (path,),
            "own": (path,),
            "pattern": (path,),
            "prefix": tuple(p for p in PATHS if p[:3] == path[:3]),
        }
        mark = f"order-{len(self.orders)}"
        given: dict[str, dict[str, Any]] = {
            "url": {"urls": (f"http://h{path}",)},
            "prefix": {"prefixes": (f"h{path[:2]}",)},
            "host": {"hosts": ("h",)},
            "all": {"everything": True},
            "site": {"everything": True, "site": "default"},
            "pattern": {"patterns": (UrlPattern(f"^{path[:2]}.*[{path[3:]}]$", chance.choice((None, "h"))),)},
            "patterns": {"patterns": (UrlPattern("a"), UrlPattern("/[b-z]+/", "h"))},
        }
        keys = {"own": (path.replace("/", "-"),), "key": ("page",)}.get(kind, ())
        paths = covered.get(kind, PATHS)
        for each in paths:
            self.origin.versions[each] += 1
        how = chance.choice((PurgeKind.HARD, PurgeKind.HARD, PurgeKind.SOFT))
        self.orders[mark] = {each: self.origin.versions[each] for each in paths}
        if how is PurgeKind.HARD:
            self.orders[mark] |= {f"!{each}": self.origin.versions[each] for each in paths}
        order = PurgeOrder(keys=(*keys, mark), kind=how, **given.get(kind, {}))
        self.coordinator.begin(self._purge(self.coordinator, order, mark)).add_done_callback(self._look)

    async def _purge(self, coordinator: SimCoordinator, order: PurgeOrder, mark: str) -> None:
        assert coordinator.service is not None
        self.purges += 1
        timeout_s = self.chance.choice((0.3, 2.0))
        purged = await coordinator.service.purge(order, GRANT, "127.0.0.1", wait=True, timeout_s=timeout_s)
        assert purged.waited is not None
        for receipt in purged.waited.edges:
            if receipt.applied:
                self.confirmed += 1
                least = self.plans[receipt.edge][2]
                for path, version in self.orders[mark].items():
                    least[path] = max(least[path], version)
                if self.chance.random() < 0.25:
                    self.doomed.append(receipt.edge)

    def _look(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    async def start_edge(self, name: str) -> None:
        when_silent, disk, least, told = self.plans[name]
        if when_silent == "serve":
            told = dict(
                least
            )  # what it was told of and has not confirmed may be forgotten in a crash, and that is used
        edge = SimEdge(self, name, when_silent=when_silent, disk=disk, least=least, told=told)
        await edge.begin(edge.start())
        self.edges[name] = edge

    async def kill(self, edge: SimEdge) -> None:
        await edge.die()
        del self.edges[edge.name]

    async def start_coordinator(self) -> None:
        made = SimCoordinator(self)
        await made.begin(made.start())
        self.coordinator = made

    async def kill_coordinator(self, *, loses_all: bool) -> None:
        assert self.coordinator is not None
        await self.coordinator.die()
        self.coordinator = None
        if loses_all:
            shutil.rmtree(self.folder / "log")

    async def come_to_rest(self) -> None:
        """Everything is up and connected, and asked once more."""
        self.origin.down = False
        self.slow_s = 0.01
        for edge in self.edges.values():
            for wire in edge.wires:
                wire.slow_s = self.slow_s
        if self.coordinator is None:
            await self.start_coordinator()
        for name in self.plans:
            if name not in self.edges:
                await self.start_edge(name)
            self.edges[name].partition(False)
        for _ in range(2):
            for edge in self.edges.values():
                for path in PATHS:
                    self.ask(edge, path)
            await asyncio.sleep(5)
        for edge in self.edges.values():
            assert edge.following is not None
            stats = edge.following.stats()
            assert (stats["caught_up"], stats["lag"], stats["silent"]) == (True, 0, False), stats
        assert self.coordinator is not None
        for edge in list(self.edges.values()):
            await edge.die()
        await self.coordinator.die()

    @property
    def failures(self) -> list[BaseException]:
        return self.__dict__.setdefault("_failures", [])


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)


def play(seed: int, folder: Path, *, steps: int = 60) -> Fleet:
    """One history, always the same for a seed. Raises what went wrong first."""
    fleet = Fleet(seed, folder)
    loop = VirtualLoop()
    try:
        loop.run_until_complete(fleet.run(steps))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(_ended(left))
        loop.close()
    if fleet.failures:
        raise fleet.failures[0]
    return fleet


def threads(slow_s: float) -> Callable[..., Threads]:
    """In place of `ThreadPoolExecutor`."""
    return lambda *_args, **_kwargs: Threads(slow_s)
