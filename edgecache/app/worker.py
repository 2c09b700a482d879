"""What serves clients."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from edgecache._native.lane import Lane, LaneSite
from edgecache.admin.dialects.build import public_desk
from edgecache.admin.tokens import TokenCheck
from edgecache.app.parts import (
    bind,
    client_limits,
    decoder_limits,
    make_access_log,
    make_hop,
    make_purge_log,
    make_sites,
    matches_patterns,
)
from edgecache.app.shared import Shared, StartError
from edgecache.config.model import Config
from edgecache.edge.buffer import Budget
from edgecache.edge.connection import Counters
from edgecache.edge.forwarding import Hop
from edgecache.edge.leases import FillLeases
from edgecache.edge.listener import Listener
from edgecache.edge.lookup import Shelf, only_secondary_key
from edgecache.edge.pipeline import Pipeline
from edgecache.edge.teller import Teller
from edgecache.edge.tls import TlsError, server_contexts
from edgecache.http.cachekey import QueryMode
from edgecache.http.clock import wall_clock
from edgecache.http.dates import parse_date
from edgecache.observe.accesslog import (
    Redactor,
    combined_second,
    json_second,
)
from edgecache.observe.events import Outcome
from edgecache.observe.metrics import Recorder
from edgecache.observe.slots import (
    ABORTED,
    BUCKETS,
    BYTES_OUT,
    OUTCOMES,
    Gauge,
    NodeSlot,
    ProcessGauges,
    cell,
)
from edgecache.purge.bus import Caller
from edgecache.purge.following import coordinator_client
from edgecache.purge.message import PurgeOrder, PurgeReceipt

SAVE_LEAST_S = 2.0
"""For writing to disk what only memory has, where draining has taken all its time: below the supervisor's patience
beyond that (`supervisor/watch.py`)."""


class _ListenerCounters(Counters):
    """A listener's counters, each change counted in the arena too."""

    _SLOTS: ClassVar[dict[str, NodeSlot]] = {
        "accepted": NodeSlot.CLIENT_ACCEPTED,
        "over_limit": NodeSlot.CLIENT_OVER_LIMIT,
        "no_descriptors": NodeSlot.CLIENT_NO_DESCRIPTORS,
        "malformed": NodeSlot.CLIENT_MALFORMED,
        "timed_out": NodeSlot.CLIENT_TIMED_OUT,
        "stalled": NodeSlot.CLIENT_STALLED,
    }

    def __init__(self, recorder: Recorder) -> None:
        object.__setattr__(self, "_recorder", recorder)
        super().__init__()

    def __setattr__(self, name: str, value: int) -> None:
        slot = self._SLOTS.get(name)
        if slot is not None and (by := value - getattr(self, name, 0)):
            self._recorder.count(slot, by)
        object.__setattr__(self, name, value)

    _recorder: Recorder


class Worker:
    """What serves clients: sites, pipeline, listeners, access log. One per process, or the only one."""

    def __init__(
        self,
        config: Config,
        shared: Shared,
        *,
        process: int = 0,
        workers: int = 1,
        leases: FillLeases | None = None,
        token: TokenCheck | None = None,
    ) -> None:
        """`process`: this process's slot in the arena. `workers`: how many share the work; with several there are
        `leases` for what they fetch. `token`: knows the admin token, where purges may come by the public listeners."""
        self.config = config
        gauges = ProcessGauges(shared.counters, process)
        recorder = Recorder(shared.counters, shared.layout)
        self._access_log = make_access_log(config.log.access, recorder, shared.log_lock)
        hop = make_hop(config)
        self.sites = make_sites(config)
        self._keeper = shared.orders.keeper()
        self.purge_log = make_purge_log(config, shared, self.sites, self._keeper)
        self._coordinator = coordinator_client(config.purge)
        self.tiers = (
            shared.disk.tiers(shared.store, process, sweeps=leases is None) if shared.disk is not None else None
        )
        self._leases = leases
        sinks = (recorder.record, *((self._access_log.add,) if self._access_log is not None else ()))
        self.pipeline = Pipeline(
            sites=self.sites,
            shelf=Shelf(self.tiers or shared.store, keep_urls=matches_patterns(config)),
            clock=wall_clock,
            hop=hop,
            purge=self.purge_log.append,
            kept=self.purge_log.keeper.kept if self.purge_log.keeper is not None else None,
            told=Teller(sinks, wall_clock, hop.client_ip),
            cache_name=config.cache.cache_status_name,
            max_request_body=config.limits.request_body_bytes,
            pass_when_silent=config.purge.when_silent == "pass",
            leases=self._leases,
            budget=Budget(config.memory.fills_bytes),
            fills_under_way=partial(gauges.set, Gauge.FILLS),
            side_door=public_desk(config.purge, self.sites.names, hop.client_ip, self.purge, token),
        )
        self._layout = shared.layout
        lane = self._lane(shared, hop)
        self.listeners = [
            Listener(
                self.pipeline.handle,
                limits=client_limits(config.limits),
                decoder_limits=decoder_limits(config.limits),
                max_connections=-(-config.limits.connections // workers),
                counters=_ListenerCounters(recorder),
                changed=partial(gauges.change, Gauge.CONNECTIONS),
                lane=lane,
            )
            for _ in config.listen
        ]

    async def purge(self, caller: Caller, order: PurgeOrder) -> PurgeReceipt:
        """One that came by a public listener. Raises `PurgeError`."""
        if self._coordinator is not None:
            return await self._coordinator.purge(order, wait=True)
        return await self.purge_log.purge(order, caller)

    def _lane(self, shared: Shared, hop: Hop) -> Lane:
        limits, access = self.config.limits, self.config.log.access
        lane = Lane(
            shared.arena,
            shared.store.secret,
            find_site=self._lane_site,
            secondary_key=only_secondary_key,
            readable_date=lambda text: parse_date(text, wall_clock()) is not None,
            redact=Redactor(access.redact),
            trusts=hop.trusts,
            received_by=hop.received_by,
            request_line=limits.request_line_bytes,
            field_line=limits.field_line_bytes,
            head=limits.head_bytes,
            fields=limits.fields,
            slots=(BUCKETS, cell(OUTCOMES.index(Outcome.HIT), 0), BYTES_OUT, ABORTED),
            log_form=access.format,
            log_full=self._access_log.flush if self._access_log is not None else None,
            stamp=json_second if access.format == "json" else combined_second,
            files=shared.store.directory,
        )
        if self.tiers is not None:
            self.tiers.uses = lane.take_uses
        if self._access_log is not None:
            self._access_log.add_source(lane.drain_log)
        return lane

    def _lane_site(self, authority: str) -> LaneSite | None:
        """What the fast lane needs of a site; None where every answer takes judgement."""
        site = self.sites.find(authority)
        if site is None or site.policy.cache_status_key:
            return None
        query = site.policy.query
        return LaneSite(
            site.name,
            site.policy.cache_status_name,
            plain_query=query.mode is QueryMode.ALL and not query.sort and not site.policy.no_vary_search,
            block=self._layout.block(site.name),
            hsts=site.hsts or "",
            only_tls=site.https_port is not None,
        )

    async def start(
        self,
        doors: Sequence[socket.socket] | None = None,
        contexts: Sequence[ssl.SSLContext | None] | None = None,
    ) -> None:
        """Accept on these sockets, with these contexts for TLS, or bind and make them. Raises `StartError`, with
        nothing left open."""
        if self._access_log is not None:
            try:
                self._access_log.start()
            except OSError as error:
                raise StartError(
                    f"log.access.path: cannot open {self.config.log.access.path}: {error.strerror}"
                ) from error
        if self._leases is not None:
            self._leases.start()
        if self._keeper is not None:
            self._keeper.start()
        if self.tiers is not None:
            await self.tiers.start()
        try:
            if contexts is None:
                contexts = server_contexts(self.config)
            for i, (listener, listen) in enumerate(zip(self.listeners, self.config.listen, strict=True)):
                door = (listen.address.host, listen.address.port) if doors is None else doors[i]
                await bind(listener.start(door, contexts[i]), f"listen {listen.address}")
        except (StartError, TlsError) as error:
            await self.close(0.0)
            raise StartError(str(error)) from error

    async def shut(self) -> None:
        """Accept no more connections."""
        await asyncio.gather(*(listener.shut() for listener in self.listeners))

    async def close(self, drain_s: float, idle_s: float = 0.0) -> bool:
        """Finish what is under way, up to `drain_s` seconds, then stop. True when nothing had to be cut.

        `idle_s`: how long connections without a request may stay. What is in memory only is written to disk in what is
        left of the time, or in `SAVE_LEAST_S`.
        """
        ends = asyncio.get_running_loop().time() + drain_s
        whole = all(await asyncio.gather(*(listener.drain(drain_s, idle_s) for listener in self.listeners)))
        if self._leases is not None:
            self._leases.stop()
        self.pipeline.codings.close()
        if self.pipeline.slicer is not None:
            await self.pipeline.slicer.close()
        await asyncio.gather(*(site.origin.close() for site in self.sites.all))
        if self.tiers is not None:
            await self.tiers.save(max(SAVE_LEAST_S, ends - asyncio.get_running_loop().time()))
            await self.tiers.close()
        if self._keeper is not None:
            await self._keeper.close()
        if self._access_log is not None:
            await self._access_log.close()
        return whole

    def reopen_logs(self) -> None:
        if self._access_log is not None:
            self._access_log.reopen()
