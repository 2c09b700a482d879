"""A worker and the control part in one process."""

import ssl
from collections.abc import Sequence

from edgecache.admin.node import Explanation
from edgecache.admin.server import AdminServer
from edgecache.admin.tokens import TokenCheck
from edgecache.app.control import Control
from edgecache.app.shared import Shared, StartError
from edgecache.app.worker import Worker
from edgecache.config.model import Config
from edgecache.edge.doors import Doors
from edgecache.edge.listener import Listener
from edgecache.edge.pipeline import Pipeline
from edgecache.http.headers import Headers
from edgecache.observe.slots import (
    NodeSlot,
    put,
)
from edgecache.purge.bus import Caller
from edgecache.purge.message import PurgeOrder, PurgeReceipt


class Edge:
    """A worker and the control part in one process."""

    def __init__(self, config: Config, shared: Shared, token: str) -> None:
        self.config = config
        self._shared = shared
        self.worker = Worker(config, shared, token=TokenCheck(token))
        self.control = Control(
            config,
            shared,
            token,
            sites=self.worker.sites,
            purge_log=self.worker.purge_log,
            tiers=self.worker.tiers,
            in_flight=self.worker.pipeline.collapse.fills.__contains__,
        )

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def pipeline(self) -> Pipeline:
        return self.worker.pipeline

    @property
    def listeners(self) -> list[Listener]:
        return self.worker.listeners

    @property
    def admin(self) -> AdminServer:
        return self.control.admin

    async def start(self, doors: Doors | None = None, contexts: Sequence[ssl.SSLContext | None] | None = None) -> None:
        """Accept on these sockets, which are then the edge's to close, or bind. Raises `StartError`, with nothing left
        open."""
        await self.worker.start(doors.public[0] if doors is not None else None, contexts)
        try:
            await self.control.start(doors.admin if doors is not None else None)
        except StartError:
            await self.close(0.0)
            raise
        counters = self._shared.counters
        for slot in (NodeSlot.WORKERS, NodeSlot.WORKERS_READY):
            put(counters, slot, 1)
        counters.add(NodeSlot.GENERATION)

    async def shut(self) -> None:
        """Accept no more connections."""
        await self.worker.shut()
        self.control.shut()

    async def close(self, drain_s: float, idle_s: float = 0.0) -> bool:
        """Finish what is under way, up to `drain_s` seconds, then stop. True when nothing had to be cut."""
        whole = await self.worker.close(drain_s, idle_s)
        await self.control.close()
        return whole

    def reopen_logs(self) -> None:
        self.worker.reopen_logs()

    async def purge(self, order: PurgeOrder, *, wait: bool) -> PurgeReceipt:
        return await self.control.purge(order, caller=Caller("", ""), wait=wait)

    async def explain(self, method: str, url: str, headers: Headers) -> Explanation:
        return await self.control.explain(method, url, headers)

    def metrics(self) -> bytes:
        return self.control.metrics()

    def stats(self) -> dict[str, object]:
        return self.control.stats()
