"""Edges and how far each has come. No transport, no wall clock.

A subscriber is a cursor into the log and nothing more: what it lacks is read from the log when it can take it, so an
edge that is slow, or away, costs no memory here. Those that have everything are `current`: each batch of new
entries is encoded once and written to all of them. One that does not take it in time falls behind, catches up from
the log at its own pace, and is cut when it takes nothing at all.

**What a frame of entries may say** follows from the cursor: entries are sent in order, without gap, each once per
connection, and a heartbeat names the last one sent to *this* edge.
"""

import asyncio
import contextlib
import dataclasses
import logging
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Final

from edgecache.http.tasks import spawn
from edgecache.purge import frames
from edgecache.purge.bus import BusError, EdgeReport, Heartbeat, PurgeBus, Record, Truncated, Welcome
from edgecache.purge.coordinator.attached import (
    Attachment,
    Connection,
    EdgeState,
    Remote,
    Seen,
    Subscriber,
    Tally,
    Waited,
    Waiter,
)
from edgecache.purge.frames import Hello
from edgecache.purge.message import EdgeReceipt

_log = logging.getLogger("edgecache.purge")

PAGE: Final = 500
BACKLOG_BYTES: Final = 256 << 10
"""What may wait in a connection before its edge counts as behind."""
SILENT_BEATS: Final = 3
CALM_EDGES: Final = 500
CALM_S_PER_EDGE: Final = 50e-6
"""Between two rounds of sending, for each edge beyond the first so many: about twice what sending to one and hearing
its ack costs. Entries that come meanwhile go in one frame, so that thousands of edges do not take the whole of a core
for a few purges a second."""
RETRY_S: Final = 1.0
GRACE_S: Final = 2.0
"""How long an edge that has gone, or another run of which has come, has to come back or answer. A connection that has
broken is tried again within half a second."""
DOUBT_S: Final = 0.5
"""After so long a purge that waits has the bus asked whether the edges it waits for are there."""
MOST_ASKED: Final = 100
"""Questions of that kind at the same time."""
MOST_SEEN: Final = 20_000
"""Edges remembered after they have gone."""


class HubFull(Exception):
    """No more edges are taken."""


class Strange(Exception):
    """An edge has said what it cannot have meant; its connection ends with this reason."""


class Hub:
    """Belongs to one event loop."""

    def __init__(
        self,
        bus: PurgeBus,
        *,
        wall: Callable[[], float],
        heartbeat_s: float = 5.0,
        stall_s: float = 30.0,
        most: int = 20_000,
        remember_s: float = 86_400.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`stall_s`: how long an edge may take nothing of what it lacks. `most`: edges. `remember_s`: how long one that
        has gone is called away. `clock`: one that never goes back; by default the event loop's, which may count no
        finer than milliseconds."""
        self.clock = clock if clock is not None else asyncio.get_running_loop().time
        self._bus = bus
        self._wall = wall
        self._heartbeat_s = heartbeat_s
        self._stall_s = stall_s
        self._most = most
        self._remember_s = remember_s
        self.head = 0
        """Entries up to here have been sent to all who are current."""
        self._names: dict[str, dict[str, Attachment]] = {}
        self._current: set[Subscriber] = set()
        self._subscribers: set[Subscriber] = set()
        self._remote: dict[tuple[str, str], Remote] = {}
        self._asked: dict[tuple[str, str], asyncio.Task[None]] = {}
        """After whom it is being asked whether they are there."""
        self._waiting: dict[int, list[Waiter]] = {}
        self._seen: dict[str, Seen] = {}
        """Of those that are away; who went first comes first."""
        self._untold: dict[tuple[str, str], Subscriber] = {}
        self._to_tell = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.tally = Tally()

    async def start(self) -> None:
        self.head = self._bus.state().head
        self._tasks = [
            spawn(self._follow(), "purge-follow"),
            spawn(self._beat(), "purge-heartbeat"),
            spawn(self._hear(), "purge-reports-heard"),
            spawn(self._tell(), "purge-reports-told"),
        ]

    async def close(self, reason: str) -> None:
        self._tasks += self._asked.values()
        for task in self._tasks:
            task.cancel()
        for subscriber in tuple(self._subscribers):
            self._cut(subscriber, reason)
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.done.set()  # nobody will say more: the answer names those who have not
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # --- edges come and go ---

    async def join(
        self, hello: Hello, connection: Connection, allowed: Callable[[], bool] = lambda: True
    ) -> Subscriber:
        """Welcome it, and send what it lacks from now on, for as long as it is `allowed`: asked with each heartbeat.
        Raises `HubFull`, `BusError` and OSError."""
        if len(self._subscribers) >= self._most:
            raise HubFull(f"there are {self._most} edges already")
        subscriber = Subscriber(hello, connection, allowed, self._wall(), self.clock())
        covered = hello.position is not None and await self._bus.covers(hello.position)
        state = self._bus.state()
        position = hello.position if covered and hello.position is not None else state.position
        subscriber.sent = position.sequence
        subscriber.acked = position.sequence if covered else 0
        self._attach(subscriber)
        self.tally.joined += 1
        self.tally.reset += not covered
        try:
            await connection.send(frames.welcome_frame(Welcome(position, state.head, not covered, self._heartbeat_s)))
        except BaseException:
            self.leave(subscriber)
            raise
        self._catch_up(subscriber)
        self._advanced(subscriber.edge, 0, subscriber.acked)
        self._tell_others(subscriber)
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Again changes nothing."""
        if subscriber not in self._subscribers:
            return
        self._subscribers.discard(subscriber)
        self._current.discard(subscriber)
        if subscriber.catching is not None:
            subscriber.catching.cancel()
        self._detach(subscriber, subscriber.connection.address)
        self._tell_others(subscriber)

    def ack(self, subscriber: Subscriber, position: int) -> None:
        """Raises `Strange`."""
        if position > subscriber.sent:
            raise Strange(f"an ack of {position}, and {subscriber.sent} was the last sent")
        subscriber.heard = self.clock()
        subscriber.acks += 1
        before = subscriber.acked
        if position > before:
            subscriber.acked = position
            self._advanced(subscriber.edge, before, position)
            self._tell_others(subscriber)

    def _attach(self, subscriber: Subscriber) -> None:
        instances = self._names.setdefault(subscriber.edge, {})
        old = instances.get(subscriber.instance)
        if isinstance(old, Subscriber):
            self._cut(old, "the edge has connected again")
            instances = self._names.setdefault(subscriber.edge, {})
        elif instances:
            _log.info("edge %s is connected more than once, or its last connection has just died", subscriber.edge)
        for other in instances.values():
            self._probe(other)
        instances[subscriber.instance] = subscriber
        self._subscribers.add(subscriber)
        self._back(subscriber.edge)

    def _probe(self, other: Attachment) -> None:
        """Another run of its edge has connected: does this one still answer? One that is behind is left alone, since
        no heartbeat fits between what it is being sent; it has to take that in time."""
        if isinstance(other, Subscriber) and other.current:
            other.connection.write(text_frame(frames.heartbeat_frame(Heartbeat(other.sent, self._wall()))))
            asyncio.get_running_loop().call_later(GRACE_S, self._probed, other, other.acks)
        elif isinstance(other, Remote):
            self._ask_after(other)

    def _probed(self, other: Subscriber, acks: int) -> None:
        if other in self._subscribers and other.acks == acks:
            self._cut(other, "another run of this edge has connected, and this one does not answer")

    def _ask_after(self, remote: Remote) -> None:
        """The bus, where it may know."""
        key = (remote.edge, remote.instance)
        if remote.direct and key not in self._asked and len(self._asked) < MOST_ASKED:
            self._asked[key] = spawn(self._find_out(key, remote), "purge-edge-asked-after")

    async def _find_out(self, key: tuple[str, str], remote: Remote) -> None:
        asked = self.clock()
        try:
            gone = await self._bus.gone(remote.report(), within_s=GRACE_S)
        except BusError:
            return  # the next to wait asks again
        finally:
            del self._asked[key]
        if self._remote.get(key) is not remote or remote.heard >= asked:
            return
        if gone or len(self._names.get(remote.edge, ())) > 1:  # as with `_probed`
            del self._remote[key]
            self._detach(remote, "")

    def _doubt(self, waiter: Waiter) -> None:
        """It has waited for a while: are those it waits for still there?"""
        for name in waiter.pending - waiter.gone:
            for each in tuple(self._names.get(name, {}).values()):
                if isinstance(each, Remote) and each.acked < waiter.sequence:
                    self._ask_after(each)
        waiter.doubting = asyncio.get_running_loop().call_later(DOUBT_S, self._doubt, waiter)

    def _back(self, edge: str) -> None:
        """It is not away any more."""
        self._seen.pop(edge, None)
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.gone.discard(edge)

    def _detach(self, attachment: Attachment, address: str) -> None:
        instances = self._names.get(attachment.edge)
        if instances is None or instances.get(attachment.instance) is not attachment:
            return
        del instances[attachment.instance]
        if instances:
            self._recheck(attachment.edge)
            return
        del self._names[attachment.edge]
        self._gone(attachment.edge, Seen(self._wall(), attachment.acked, attachment.version, address))

    def _gone(self, edge: str, seen: Seen) -> None:
        if len(self._seen) >= MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[edge] = seen
        if self._waiting:
            asyncio.get_running_loop().call_later(GRACE_S, self._missed, edge, seen)

    def _missed(self, edge: str, seen: Seen) -> None:
        """It had time to come back: nobody waits for it any longer."""
        if self._seen.get(edge) is not seen:
            return
        for waiters in self._waiting.values():
            for waiter in waiters:
                if edge in waiter.pending:
                    waiter.gone.add(edge)
                    waiter.look()

    def recall(self, edge: str, seen: Seen) -> None:
        """Of an edge that was known before a restart, until it comes. Those longest away first, before `start`."""
        now = self._wall()
        if edge not in self._names and seen.at > now - self._remember_s:
            self._gone(edge, dataclasses.replace(seen, at=min(seen.at, now)))

    def now(self) -> float:
        return self._wall()

    def _cut(self, subscriber: Subscriber, reason: str) -> None:
        subscriber.connection.cut(reason)
        self.tally.cut += 1
        self.leave(subscriber)

    # --- sending ---

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._bus.follow(self.head)) as batches:
                    async for records in batches:
                        self._broadcast(records)
                        if (many := len(self._current) - CALM_EDGES) > 0:
                            await asyncio.sleep(many * CALM_S_PER_EDGE)
            except Truncated as error:
                _log.error("the log was cut behind its newest entries: %s; all edges begin again", error)
                for subscriber in tuple(self._subscribers):
                    self._cut(subscriber, "the log was cut")
                self.head = self._bus.state().head
            except BusError as error:
                _log.error("the log cannot be read: %s", error, extra={"remedy": error.remedy})
                await asyncio.sleep(RETRY_S)

    def _broadcast(self, records: Sequence[Record]) -> None:
        first, last = records[0].sequence, records[-1].sequence
        encoded = [text_frame(text) for text, _ in frames_of(records)] if self._current else []
        self.head = last
        for subscriber in tuple(self._current):
            if subscriber.sent >= last:
                continue  # it was told to begin further on
            if subscriber.sent != first - 1 or subscriber.connection.backlog() > BACKLOG_BYTES:
                self._current.discard(subscriber)
                subscriber.current = False
                self.tally.behind += 1
                self._catch_up(subscriber)
                continue
            for frame in encoded:
                subscriber.connection.write(frame)
            subscriber.sent = last
            self.tally.frames += len(encoded)

    def _catch_up(self, subscriber: Subscriber) -> None:
        """Make it current, now or later."""
        if subscriber.sent >= self.head and subscriber.connection.backlog() <= BACKLOG_BYTES:
            subscriber.current = True
            self._current.add(subscriber)
        else:
            subscriber.catching = spawn(self._send_lacking(subscriber), "purge-catch-up")

    async def _send_lacking(self, subscriber: Subscriber) -> None:
        try:
            while subscriber in self._subscribers:
                if subscriber.sent >= self.head:
                    subscriber.catching = None
                    subscriber.current = True
                    self._current.add(subscriber)
                    return
                for text, last in frames_of(await self._bus.read(subscriber.sent, PAGE)):
                    async with asyncio.timeout(self._stall_s):
                        await subscriber.connection.send(text)
                    subscriber.sent = last
                    self.tally.frames += 1
        except TimeoutError:
            self._cut(subscriber, f"it took nothing for {self._stall_s:g} s")
        except Truncated:
            self._cut(subscriber, "the log no longer has what it lacks")
        except BusError as error:
            self._cut(subscriber, f"the log cannot be read: {error}")
        except OSError:
            self.leave(subscriber)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            now = self._wall()
            late = self.clock() - self._heartbeat_s * SILENT_BEATS
            encoded: dict[int, bytes] = {}
            for subscriber in tuple(self._subscribers):
                if subscriber.heard < late:
                    self._cut(subscriber, "nothing was heard of it")
                elif not subscriber.allowed():
                    self._cut(subscriber, "its token was taken back")
                elif subscriber.current:
                    frame = encoded.get(subscriber.sent)
                    if frame is None:
                        frame = text_frame(frames.heartbeat_frame(Heartbeat(subscriber.sent, now)))
                        encoded[subscriber.sent] = frame
                    subscriber.connection.write(frame)
            for remote in tuple(self._remote.values()):
                if remote.heard < late:
                    self._remote.pop((remote.edge, remote.instance), None)
                    self._detach(remote, "")
            old = now - self._remember_s
            for name in [name for name, seen in self._seen.items() if seen.at < old]:
                del self._seen[name]
            for subscriber in self._subscribers:
                self._tell_others(subscriber)

    # --- other coordinators ---

    def _tell_others(self, subscriber: Subscriber) -> None:
        if self._bus.shared:
            self._untold[subscriber.edge, subscriber.instance] = subscriber
            self._to_tell.set()

    async def _tell(self) -> None:
        while True:
            await self._to_tell.wait()
            self._to_tell.clear()
            untold, self._untold = self._untold, {}
            for each in untold.values():
                connected = each in self._subscribers
                with contextlib.suppress(BusError):  # told again with the next heartbeat
                    await self._bus.report(
                        EdgeReport(each.edge, each.instance, each.version, each.acked, connected, each.since)
                    )

    async def _hear(self) -> None:
        async with aclosing(self._bus.reports()) as reports:
            async for report in reports:
                self._heard(report)

    def _heard(self, report: EdgeReport) -> None:
        key = (report.edge, report.instance)
        remote = self._remote.get(key)
        if not report.connected:
            if remote is not None:
                del self._remote[key]
                self._detach(remote, "")
            return
        if remote is None:
            instances = self._names.setdefault(report.edge, {})
            if isinstance(instances.get(report.instance), Subscriber):
                return  # it has come here since
            remote = Remote(report)
            for other in instances.values():
                self._probe(other)
            self._remote[key] = remote
            instances[report.instance] = remote
            self._back(report.edge)
        remote.heard = self.clock()
        if remote.since != report.since:  # it has connected again, and may have been reset: what it said counts no more
            remote.since, remote.acked = report.since, 0
        before, remote.acked = remote.acked, max(remote.acked, report.position)
        self._advanced(report.edge, before, remote.acked)

    # --- waiting ---

    async def wait(self, sequence: int, begun: float, timeout_s: float) -> Waited:
        """Until every edge that is connected now has acknowledged this entry, but no longer than `timeout_s`. One that
        has gone meanwhile is waited for a moment, and has not applied it unless it said so. `begun`: when it was
        logged, by `clock`."""
        now = self.clock()
        waiter = Waiter(sequence, begun, set(), {})
        names = tuple(self._names)
        for name in names:
            if self._has(name, sequence):
                waiter.durations[name] = now - begun
            else:
                waiter.pending.add(name)
        if waiter.pending:
            self._waiting.setdefault(sequence, []).append(waiter)
            waiter.doubting = asyncio.get_running_loop().call_later(DOUBT_S, self._doubt, waiter)
            try:
                async with asyncio.timeout(timeout_s):
                    await waiter.done.wait()
            except TimeoutError:
                pass
            finally:
                waiter.doubting.cancel()
                others = self._waiting[sequence]
                others.remove(waiter)
                if not others:
                    del self._waiting[sequence]
        return self._waited(names, waiter)

    def applied(self, sequence: int) -> Waited:
        """Who has it now."""
        receipts = tuple(EdgeReceipt(name, self._has(name, sequence), 0.0) for name in sorted(self._names))
        return Waited(receipts, tuple(sorted(self._seen)))

    def _waited(self, names: Iterable[str], waiter: Waiter) -> Waited:
        waited_s = self.clock() - waiter.begun
        receipts = tuple(
            EdgeReceipt(name, name in waiter.durations, waiter.durations.get(name, waited_s)) for name in sorted(names)
        )
        return Waited(receipts, tuple(sorted(self._seen.keys() - set(names))))

    def _has(self, name: str, sequence: int) -> bool:
        """Every run of the edge that is connected: one that is not dead may serve what it has not purged."""
        instances = self._names.get(name)
        return instances is not None and all(each.acked >= sequence for each in instances.values())

    def _advanced(self, name: str, before: int, after: int) -> None:
        if not self._waiting:
            return
        if after - before <= len(self._waiting):
            reached = [number for number in range(before + 1, after + 1) if number in self._waiting]
        else:
            reached = [number for number in self._waiting if before < number <= after]
        for number in reached:
            for waiter in self._waiting[number]:
                self._settle(waiter, name)

    def _recheck(self, name: str) -> None:
        for waiters in tuple(self._waiting.values()):
            for waiter in waiters:
                self._settle(waiter, name)

    def _settle(self, waiter: Waiter, name: str) -> None:
        if name in waiter.pending and self._has(name, waiter.sequence):
            waiter.pending.discard(name)
            waiter.durations[name] = self.clock() - waiter.begun
            waiter.look()

    # --- figures ---

    def edges(self) -> list[EdgeState]:
        head = self._bus.state().head
        found = []
        for name, instances in self._names.items():
            position = min(each.acked for each in instances.values())
            newest = max(instances.values(), key=lambda each: each.since)
            address = newest.connection.address if isinstance(newest, Subscriber) else ""
            lag = max(head - position, 0)
            found.append(EdgeState(name, True, len(instances), position, lag, newest.version, newest.since, address))
        for name, seen in self._seen.items():
            lag = max(head - seen.position, 0)
            found.append(EdgeState(name, False, 0, seen.position, lag, seen.version, seen.at, seen.address))
        return sorted(found, key=lambda state: state.edge)

    @property
    def connected(self) -> int:
        return len(self._names)

    @property
    def away(self) -> int:
        return len(self._seen)

    @property
    def behind(self) -> int:
        return len(self._subscribers) - len(self._current)

    def most_lag(self) -> int:
        head = self._bus.state().head
        return max((head - each.acked for each in self._subscribers), default=0)


def frames_of(records: Iterable[Record]) -> Iterator[tuple[str, int]]:
    """Frames of entries, none larger than an edge takes, each with the number of its last entry."""
    entries: list[str] = []
    size = last = 0
    for record in records:
        text = frames.entry_text(record)
        octets = len(text.encode())
        if entries and size + octets > frames.MAX_PURGES_BYTES:
            yield frames.purges_frame(entries), last
            entries, size = [], 0
        entries.append(text)
        size += octets
        last = record.sequence
    if entries:
        yield frames.purges_frame(entries), last


def text_frame(text: str) -> bytes:
    """A WebSocket text frame from a server: whole, not masked (RFC 6455 §5.2)."""
    data = text.encode()
    if len(data) < 126:
        return struct.pack("!BB", 0x81, len(data)) + data
    if len(data) < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, len(data)) + data
    return struct.pack("!BBQ", 0x81, 127, len(data)) + data
