"""A node's part in a fleet, in its control process: it follows the coordinator, and knows how far it has come.

Of the control processes that there are for a moment during a reload, one follows at a time: `Turn`. What is remembered
in it lives as long as the arena, so that a control process that takes another's place goes on where that one was.
"""

import asyncio
import contextlib
import fcntl
import json
import math
import os
import ssl
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from edgecache._native.arena import Arena
from edgecache.config.purge import PurgeConfig
from edgecache.http.clock import wall_clock
from edgecache.http.tasks import spawn
from edgecache.purge.applier import Applier
from edgecache.purge.bus import Feed, LogPosition
from edgecache.purge.keeper import PurgeKeeper
from edgecache.purge.subscriber import Subscriber
from edgecache.purge.transport.client import CoordinatorClient, token_from
from edgecache.purge.transport.websocket import WebSocketFeed, client_context

TURN_S = 0.05
"""Between two tries to take the turn."""
BEAT_S = 1.0
"""How often the loop's own pulse is taken; ten times within `max_silence` at least."""
_NOTE = 512


class Turn:
    """Whose turn it is to follow, and up to where the arena has followed. Made before any fork.

    Whoever dies has given it up: the lock is the kernel's.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("edgecache-purge-turn")
        self._owner: object | None = None
        weakref.finalize(self, os.close, self._file)

    def take(self, owner: object) -> bool:
        """False where another has it, in this process or in another."""
        if self._owner is None:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            self._owner = owner
        return self._owner is owner

    def give(self, owner: object) -> None:
        if self._owner is owner:
            self._owner = None
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def note(self, position: LogPosition) -> None:
        text = json.dumps([position.log, position.sequence, position.time]).encode()
        os.pwrite(self._file, text.ljust(_NOTE), 0)

    def position(self) -> LogPosition | None:
        text = os.pread(self._file, _NOTE, 0)
        return LogPosition(*json.loads(text)) if text else None


def trust_at_start(arena: Arena, config: PurgeConfig) -> None:
    """An edge that has never heard of its coordinator knows nothing of the purges there were."""
    bound = config.coordinator is not None and config.when_silent != "serve"
    arena.trust(0.0 if bound else math.inf)


def coordinator_client(config: PurgeConfig) -> CoordinatorClient | None:
    """Where purges go on to; None: this edge is on its own."""
    if config.coordinator is None:
        return None
    return CoordinatorClient(config.coordinator, token=token_from(config.token_file), tls=_tls(config))


def make_feed(config: PurgeConfig, edge: str) -> Feed:
    """From NATS where it is configured, else from the coordinator."""
    if config.nats.servers:
        from edgecache.purge.transport.nats_feed import NatsFeed
        from edgecache.purge.transport.nats_settings import nats_settings

        return NatsFeed(nats_settings(config.nats), edge=edge, clock=wall_clock)
    return websocket_feed(config, edge)


def websocket_feed(config: PurgeConfig, edge: str) -> Feed:
    assert config.coordinator is not None
    return WebSocketFeed(config.coordinator, edge=edge, token=token_from(config.token_file), tls=_tls(config))


def _tls(config: PurgeConfig) -> Callable[[], ssl.SSLContext | None]:
    if config.coordinator is None or not config.coordinator.startswith("https:"):
        return lambda: None
    return lambda: client_context(config.tls.ca_file, config.tls.cert, config.tls.key)


class Following:
    """One control process's. Belongs to one event loop."""

    def __init__(
        self,
        config: PurgeConfig,
        *,
        edge: str,
        arena: Arena,
        turn: Turn,
        sites: Callable[[], Iterable[str]],
        cache_keys: Callable[[str], Iterable[str]],
        keeper: PurgeKeeper | None,
        clock: Callable[[], float] = time.monotonic,
        feed: Callable[[PurgeConfig, str], Feed] = make_feed,
    ) -> None:
        """`clock`: that of the arena's deadline."""
        self._config = config
        self._edge = edge
        self._arena = arena
        self._turn = turn
        self._sites = sites
        self._cache_keys = cache_keys
        self._keeper = keeper
        self._clock = clock
        self._feed = feed
        self._bound = config.coordinator is not None and config.when_silent != "serve"
        self._heard_at: float | None = None
        self._started_at = clock()
        self._pulse = self._pulse_before = clock()
        """When the loop was last seen to turn, and the time before."""
        self._beat_s = min(BEAT_S, config.max_silence_s / 10)
        self._beat: asyncio.TimerHandle | None = None
        self._subscriber: Subscriber | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Does not wait for the coordinator."""
        self._started_at = self._clock()
        if self._turn.take(self):
            await self._begin()
        else:
            self._waiting = spawn(self._wait(), "purge-turn")

    async def close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._waiting
        if self._subscriber is not None:
            await self._subscriber.close()
        if self._beat is not None:
            self._beat.cancel()
        self._turn.give(self)

    async def _wait(self) -> None:
        while not self._turn.take(self):  # noqa: ASYNC110 - the lock is another process's
            await asyncio.sleep(TURN_S)
        await self._begin()

    async def _begin(self) -> None:
        if not self._bound:
            self._arena.trust(math.inf)
        elif math.isinf(self._arena.trusted_until()):
            self._arena.trust(0.0)  # until now nobody followed, or nobody minded
        if self._config.coordinator is None:
            return
        position = self._turn.position()
        if position is None and self._keeper is not None:
            position = await self._keeper.position()
        applier = Applier(
            self._arena,
            sites=self._sites,
            cache_keys=self._cache_keys,
            trust=self._heard,
            position=position,
            match=self._config.dialects.patterns == "match",
        )
        feed = self._feed(self._config, self._edge)
        self._subscriber = Subscriber(
            feed,
            applier,
            keeper=self._keeper,
            note=self._turn.note,
            max_silence_s=self._config.max_silence_s if self._bound else math.inf,
        )
        self._pulse = self._clock()
        self.beat()
        self._subscriber.start()

    def beat(self) -> None:
        """Take the loop's pulse, and again in a while."""
        if self._beat is not None:
            self._beat.cancel()
        self._pulse_before, self._pulse = self._pulse, self._clock()
        self._beat = asyncio.get_running_loop().call_later(self._beat_s, self.beat)

    def _heard(self) -> None:
        """A process that was stopped for an hour finds its messages waiting, and each of them sounds alive: what is
        read now is known only to have come since the loop turned the last time but one."""
        self._heard_at = self._clock()
        if self._bound:
            self._arena.trust(self._pulse_before + self._config.max_silence_s)

    # --- how it stands ---

    def ready(self) -> tuple[bool, str]:
        """A start waits for what was missed, but not for a coordinator that does not answer."""
        if self._config.coordinator is None or not self._bound:
            return True, "serving"
        state = self._state()
        if not self._arena.silent():
            return True, "serving" if state == "caught up" else f"serving; purge coordinator: {state}"
        waited = self._clock() - self._started_at >= self._config.max_silence_s
        if self._heard_at is None and not waited:
            return False, f"purge coordinator: {state}"
        return True, f"serving, {self._config.when_silent}: purge coordinator: {state}"

    def _state(self) -> str:
        applier = self._subscriber.applier if self._subscriber is not None else None
        if applier is None or not applier.connected:
            silent = self.silent_s()
            return "no connection" + (f", nothing heard for {silent:.0f} s" if silent is not None else "")
        return "caught up" if applier.caught_up else f"{applier.head - applier.applied} purges behind"

    def silent_s(self) -> float | None:
        """Since it was last known that nothing is missing; None: never yet by this process."""
        return None if self._heard_at is None else max(0.0, self._clock() - self._heard_at)

    def stats(self) -> dict[str, Any]:
        """Nothing for an edge on its own."""
        if self._config.coordinator is None:
            return {}
        applier = self._subscriber.applier if self._subscriber is not None else None
        position = applier.position() if applier is not None else None
        return {
            "coordinator": self._config.coordinator,
            "connected": applier is not None and applier.connected,
            "caught_up": applier is not None and applier.caught_up,
            "position": position.sequence if position is not None else 0,
            "lag": max(0, applier.head - applier.applied) if applier is not None else 0,
            "applied": applier.purges if applier is not None else 0,
            "resets": applier.resets if applier is not None else 0,
            "heard_ago_s": self.silent_s(),
            "silent": self._arena.silent(),
        }
