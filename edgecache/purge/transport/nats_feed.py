"""The feed of an edge that reads the purge log from NATS JetStream itself, often through a leaf node near it.

What a coordinator does for edges on a WebSocket is done here: is the position covered, what has come since, and from
when on is everything known. The stream's leader is asked for the newest number with each heartbeat; once everything up
to it has been read, the edge knows what there was at that moment. What the edge has applied it tells all coordinators,
so that each of them can answer a purge that waits for edges.
"""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Final

from nats.aio.msg import Msg

from edgecache import __version__
from edgecache.http.tasks import spawn
from edgecache.purge import frames
from edgecache.purge.bus import (
    BusError,
    EdgeReport,
    FeedEvent,
    Heartbeat,
    LogEntry,
    LogPosition,
    Purges,
    Record,
    Truncated,
    Welcome,
)
from edgecache.purge.transport.nats_bus import edges_subject, inbox, report_text
from edgecache.purge.transport.nats_log import NatsLog, NatsSettings
from edgecache.purge.transport.pace import PACE, Pace, reconnecting

_log = logging.getLogger("edgecache.purge")

HEARTBEAT_S: Final = 5.0


class NatsFeed:
    """Belongs to one event loop and one reader."""

    def __init__(
        self,
        settings: NatsSettings,
        *,
        edge: str,
        clock: Callable[[], float],
        pace: Pace = PACE,
        chance: Callable[[], float] = random.random,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """`clock`: the wall's. `heartbeat_s`: how often the stream is asked for its newest number; coordinators miss an
        edge after three times the interval of their own heartbeat."""
        self._settings = settings
        self._edge = edge
        self._instance = ""
        """Of one connection: what was said in the one before may be of another history."""
        self._clock = clock
        self._pace = pace
        self._chance = chance
        self._heartbeat_s = heartbeat_s
        self._closing = asyncio.Event()
        self._acked = 0
        self._to_tell = asyncio.Event()

    def ack(self, sequence: int) -> None:
        self._acked = sequence
        self._to_tell.set()

    async def close(self) -> None:
        self._closing.set()

    def events(self, position: Callable[[], LogPosition | None]) -> AsyncGenerator[FeedEvent, None]:
        return reconnecting(lambda: self._connection(position), self._closing, self._pace, self._chance)

    async def _connection(self, position: Callable[[], LogPosition | None]) -> AsyncGenerator[FeedEvent, None]:
        """One connection's events. Ends by `BusError`, or without where the feed is closed."""
        log = NatsLog(self._settings, name=f"edgecache edge {self._edge}", reconnect=False)
        try:
            await log.connect()
            state = await log.refresh()
            known = position()
            covered = known is not None and await log.covers(known)
            state = log.state
            begin = known if covered and known is not None else state.position
            self._acked = begin.sequence if covered else 0
            self._instance = secrets.token_hex(8)
            since = self._clock()
            await log.ask(log.client.subscribe(inbox(self._instance), cb=self._asked))
            telling = spawn(self._tell(log, since), "purge-acks")
            try:
                yield Welcome(begin, state.head, not covered, self._heartbeat_s)
                async for event in self._read(log, begin.sequence):
                    yield event
            finally:
                telling.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await telling
                with contextlib.suppress(BusError):
                    await self._report(log, since, connected=False)
        finally:
            await log.close()

    async def _read(self, log: NatsLog, after: int) -> AsyncGenerator[FeedEvent, None]:
        """Batches of entries, and a heartbeat where everything up to a head that was asked for has been given."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[list[Record] | int | BusError | None] = asyncio.Queue(8)
        tasks = [
            spawn(self._follow(log, after, queue), "purge-stream"),
            spawn(self._ask_head(log, queue), "purge-heartbeat"),
            spawn(self._end(queue), "purge-end"),
        ]
        goal: int | None = None
        heard = loop.time()
        try:
            while True:
                match await queue.get():
                    case None:
                        return
                    case BusError() as error:
                        raise error
                    case int() as head:
                        goal, heard = head, loop.time()
                    case records:
                        after = records[-1].sequence
                        yield Purges(tuple(_entry(record) for record in records))
                if goal is not None and after >= goal:
                    goal = None
                    self._to_tell.set()
                    # What was asked for has just been answered; where reading up to it took long, it is asked again.
                    if loop.time() - heard < self._heartbeat_s:
                        yield Heartbeat(after, self._clock())
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _follow(
        self, log: NatsLog, after: int, queue: asyncio.Queue[list[Record] | int | BusError | None]
    ) -> None:
        try:
            async with contextlib.aclosing(log.tail(after)) as batches:
                async for records in batches:
                    await queue.put(records)
        except Truncated as error:
            await queue.put(BusError(error.detail))
        except BusError as error:
            await queue.put(error)

    async def _ask_head(self, log: NatsLog, queue: asyncio.Queue[list[Record] | int | BusError | None]) -> None:
        try:
            while True:
                await queue.put((await log.refresh()).head)
                await asyncio.sleep(self._heartbeat_s)
        except BusError as error:
            await queue.put(error)

    async def _end(self, queue: asyncio.Queue[list[Record] | int | BusError | None]) -> None:
        await self._closing.wait()
        await queue.put(None)

    async def _asked(self, _message: Msg) -> None:
        """Whether this run is there still."""
        self._to_tell.set()

    async def _tell(self, log: NatsLog, since: float) -> None:
        """The newest only: it stands for those before it."""
        with contextlib.suppress(BusError):  # the reader hears of it
            while True:
                await self._report(log, since, connected=True)
                await self._to_tell.wait()
                self._to_tell.clear()

    async def _report(self, log: NatsLog, since: float, *, connected: bool) -> None:
        report = EdgeReport(self._edge, self._instance, __version__, self._acked, connected, since)
        client = log.client
        await log.ask(client.publish(edges_subject(self._settings), report_text(report, self._instance)))
        if not connected:
            await log.ask(client.flush(2))


def _entry(record: Record) -> LogEntry:
    return LogEntry(record.sequence, record.time, frames.order_of(record.text))
