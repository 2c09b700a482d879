"""The bus for a fleet: the log in NATS JetStream, for several coordinators at once (DESIGN §7).

JetStream numbers what is published and says so when a majority of the stream's replicas has it. A coordinator that does
not hear of that publishes again with the same message id, by which the server knows it, so that an order is there
once. Each coordinator follows the stream and keeps its newest records in memory for the edges it serves.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from itertools import islice
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg

from edgecache.http.tasks import spawn
from edgecache.purge.audit import summary
from edgecache.purge.bus import (
    Appended,
    AuditRecord,
    BusError,
    Caller,
    EdgeReport,
    KeyReused,
    LogPosition,
    LogState,
    Record,
    TooLarge,
    Truncated,
)
from edgecache.purge.frames import MAX_ORDER_BYTES, order_of, order_text
from edgecache.purge.ledger import Retention
from edgecache.purge.message import PurgeOrder
from edgecache.purge.transport.nats_log import HEAD_BYTES, SEE_TO_NATS, TOGETHER, NatsLog, NatsSettings, content, why

_log = logging.getLogger("edgecache.purge")

IN_MEMORY: Final = 4096
IN_MEMORY_BYTES: Final = 16 << 20
PUBLISH_S: Final = 2.0
"""How long one attempt to publish may take."""
GIVE_UP_S: Final = 15.0
"""After which an order counts as not confirmed; well within the time in which the server knows its id again."""
RETRY_S: Final = 0.1
MOST_AT_ONCE: Final = 2000
"""Orders being published, before more are refused."""
_KEEP: Final = Retention()


class NatsBus:
    """Belongs to one event loop."""

    shared = True

    def __init__(self, settings: NatsSettings, retention: Retention = _KEEP) -> None:
        self.settings = settings
        self._retention = retention
        self._id = secrets.token_hex(8)
        self._log = NatsLog(settings, name=f"edgecache coordinator {self._id}", reconnect=True)
        self._recent: deque[Record] = deque()
        self._recent_bytes = 0
        self._seen = 0
        """The last number followed."""
        self._seen_time = 0.0
        self._histories = 1
        """Which of the log's histories `_recent` and `_seen` are of."""
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = True
        self._publishing = 0
        self.failing = ""

    async def start(self) -> None:
        await self._log.connect()
        try:
            await self._log.make(secrets.token_hex(16))
        except BusError:
            await self._log.close()
            raise
        self._closed = False
        self._seen, self._seen_time = self._log.state.head, self._log.state.head_time
        self._histories = self._log.histories
        self._task = spawn(self._keep_up(), "purge-stream")

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._log.close()
        self._grown.set()

    def state(self) -> LogState:
        return self._log.state

    # --- appending ---

    async def append(self, order: PurgeOrder, *, now: float, caller: Caller, key: str | None = None) -> Appended:
        if self._closed:
            raise BusError("the log is closed")
        text = order_text(order)
        body = content(text=text, now=now, token=caller.token, address=caller.address)
        if len(text.encode()) > MAX_ORDER_BYTES or len(body) + HEAD_BYTES > self._log.client.max_payload:
            most = min(MAX_ORDER_BYTES, self._log.client.max_payload - HEAD_BYTES)
            raise TooLarge(f"an order of more than {most} octets cannot be logged", remedy="purge in several calls")
        if self._publishing >= MOST_AT_ONCE:
            raise BusError("the log is slower than the purges that come in", remedy="purge at a lower rate")
        self._publishing += 1
        try:
            if key is None:
                sequence, _ = await self._publish(f"{self.settings.subject}.log", body, secrets.token_hex(12))
                return self._appended(Record(sequence, now, text), again=False)
            return await self._once(key, text, body, now)
        finally:
            self._publishing -= 1

    async def _once(self, key: str, text: str, body: bytes, now: float) -> Appended:
        """A key's entry has the key in its subject: it is found there for as long as it is kept."""
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        known = await self._log.by_key(name)
        if known is None or known.time < now - self._retention.keys_s:
            # Who is quicker with the same key is known by the id, for as long as the server remembers those.
            sequence, again = await self._publish(f"{self.settings.subject}.log.{name}", body, f"{name}.{_own(known)}")
            if not again:
                return self._appended(Record(sequence, now, text), again=False)
            known = await self._log.by_key(name)
            if known is None:
                raise BusError("the entry of this idempotency key is gone")
        if known.text != text:
            raise KeyReused("this idempotency key was used for another purge")
        return self._appended(known, again=True)

    async def _publish(self, subject: str, body: bytes, name: str) -> tuple[int, bool]:
        """Its number, and whether the server knew the id already: from somebody else, or from an attempt of ours whose
        confirmation got lost. Raises `BusError`."""
        clock = asyncio.get_running_loop().time
        until = clock() + GIVE_UP_S
        before, histories = self._log.state.head, self._log.histories
        unsure = False
        while True:
            try:
                stream = self.settings.stream
                publishing = self._log.js.publish(
                    subject, body, timeout=PUBLISH_S, stream=stream, headers={"Nats-Msg-Id": name}
                )
                done = await self._log.call(publishing)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                # Only where the stream has said no to every attempt is it known that none was stored.
                unsure = unsure or not isinstance(error, nats.errors.MaxPayloadError | nats.js.errors.APIError)
                if self._closed or _final(error) or clock() > until:
                    self.failing = why(error)
                    perhaps = ", which may have been logged" if unsure else ""
                    raise BusError(
                        f"NATS has not confirmed the purge{perhaps}: {why(error)}", remedy=SEE_TO_NATS, unsure=unsure
                    ) from None
                await asyncio.sleep(RETRY_S)
            else:
                self.failing = ""
                if not done.duplicate and done.seq <= before and self._log.histories == histories:
                    self._log.lost_entries()  # this number was another's
                    self._wake()
                if self._log.histories != histories:
                    raise BusError(
                        "the log has lost entries; this purge may have been logged, but what edges say is of before",
                        remedy="purge again",
                        unsure=True,
                    )
                return done.seq, bool(done.duplicate)

    def _appended(self, record: Record, *, again: bool) -> Appended:
        self._log.grown(record)
        return Appended(record, again)

    # --- following ---

    async def _keep_up(self) -> None:
        told = ""
        while True:
            try:
                await self._same_history()
                async with contextlib.aclosing(self._log.tail(self._seen)) as batches:
                    async for records in batches:
                        told = ""
                        self._remember(records)
                        if self._histories != self._log.histories:
                            break
            except Truncated:
                self._begin_again()
            except BusError as error:
                if told != error.detail:
                    told = error.detail
                    _log.warning("the purge log is not followed: %s", error, extra={"remedy": error.remedy})
                await asyncio.sleep(RETRY_S)

    async def _same_history(self) -> None:
        """Is what was followed so far still the log's past? It may not be, after a server has come back."""
        await self._log.refresh()
        known = LogPosition(self._log.state.log, self._seen, self._seen_time)
        if self._histories == self._log.histories and self._seen > self._log.state.floor:
            if await self._log.covers(known):
                return
            self._log.lost_entries()
        if self._histories != self._log.histories:
            self._begin_again()

    def _begin_again(self) -> None:
        """From the head, with nothing remembered. Whoever follows hears of it."""
        state = self._log.state
        self._histories = self._log.histories
        self._seen, self._seen_time = state.head, state.head_time
        self._recent.clear()
        self._recent_bytes = 0
        self._wake()

    def _remember(self, records: list[Record]) -> None:
        self._seen, self._seen_time = records[-1].sequence, records[-1].time
        self._log.grown(records[-1])
        self._recent.extend(records)
        self._recent_bytes += sum(len(record.text) for record in records)
        while len(self._recent) > IN_MEMORY or (self._recent_bytes > IN_MEMORY_BYTES and len(self._recent) > 1):
            self._recent_bytes -= len(self._recent.popleft().text)
        self._wake()

    def _forget(self, through: int) -> None:
        while self._recent and self._recent[0].sequence <= through:
            self._recent_bytes -= len(self._recent.popleft().text)

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def follow(self, after: int) -> AsyncGenerator[Sequence[Record], None]:
        histories = self._log.histories
        while not self._closed:
            grown = self._grown
            if self._log.histories != histories:
                raise Truncated("the log has lost entries")
            if after < self._log.state.floor:
                raise Truncated(f"entries up to {self._log.state.floor} are no longer kept")
            if after >= self._seen:
                await grown.wait()
                continue
            records = await self.read(after, min(TOGETHER, self._seen - after))
            after = records[-1].sequence
            yield records

    # --- reading ---

    async def read(self, after: int, limit: int) -> Sequence[Record]:
        if self._closed:
            raise BusError("the log is closed")
        floor = self._log.state.floor
        if after >= floor and self._recent and self._recent[0].sequence <= after + 1 <= self._seen:
            first = after + 1 - self._recent[0].sequence
            return list(islice(self._recent, first, first + limit))
        try:
            return await self._log.read(after, limit)
        except Truncated:
            await self._log.refresh()  # another coordinator has compacted it
            raise

    async def covers(self, position: LogPosition) -> bool:
        return await self._log.covers(position)

    async def audit(self, *, before: int | None, limit: int) -> Sequence[AuditRecord]:
        """As far as the log goes back."""
        state = self._log.state
        last = min(before - 1 if before is not None else state.head, state.head)
        found: list[AuditRecord] = []
        for sequence in range(last, max(last - limit, state.floor), -1):
            try:
                found.append(_audited(sequence, await self._log.raw(sequence)))
            except Truncated:
                break
        return found

    async def compact(self, now: float) -> LogState:
        state = await self._log.refresh()
        self.failing = ""
        through = max(state.head - self._retention.entries, await self._aged(now - self._retention.age_s))
        if through > state.floor:
            await self._log.forget(through)
            self._forget(self._log.state.floor)
        return self._log.state

    async def _aged(self, oldest: float) -> int:
        """The last entry before this time, found by halving; the floor where there is none."""
        low, high = self._log.state.floor, self._log.state.head
        probe = low + 1
        while low < high:
            try:
                [record] = await self._log.read(probe - 1, 1)
                old = record.time < oldest
            except Truncated:
                old = True
            low, high = (probe, high) if old else (low, probe - 1)
            probe = (low + high + 1) // 2
        return low

    # --- other coordinators ---

    async def report(self, report: EdgeReport) -> None:
        await self._log.ask(self._log.client.publish(edges_subject(self.settings), report_text(report, self._id)))

    async def reports(self) -> AsyncGenerator[EdgeReport, None]:
        queue: asyncio.Queue[Msg] = asyncio.Queue(10_000)

        async def heard(message: Msg) -> None:
            if not queue.full():  # said again with the edge's next sign of life
                queue.put_nowait(message)

        subscription = await self._log.ask(self._log.client.subscribe(edges_subject(self.settings), cb=heard))
        try:
            while True:
                report = report_of((await queue.get()).data, self._id)
                if report is not None:
                    yield report
        finally:
            with contextlib.suppress(BusError):
                await self._log.ask(subscription.unsubscribe())

    async def gone(self, report: EdgeReport, *, within_s: float) -> bool:
        """The servers know who subscribes. A run that is there answers by a report, not to the question: it may not
        write to our inboxes."""
        try:
            await self._log.call(self._log.client.request(inbox(report.instance), b"", timeout=within_s))
        except nats.errors.NoRespondersError:
            return True
        except (nats.errors.TimeoutError, TimeoutError):
            return False
        except (nats.errors.Error, OSError) as error:
            raise BusError(f"NATS: {why(error)}") from None
        return False


def inbox(instance: str) -> str:
    """Where a run of an edge is asked whether it is there. Edges may subscribe to inboxes."""
    return f"_INBOX.edgecache.{instance}"


def edges_subject(settings: NatsSettings) -> str:
    return f"{settings.subject}.edges"


_TOLD: Final = tuple(name for name in EdgeReport.__slots__ if name != "direct")


def report_text(report: EdgeReport, sender: str) -> bytes:
    body = {name: getattr(report, name) for name in _TOLD}
    return json.dumps({"from": sender, **body}, ensure_ascii=False).encode()


def report_of(data: bytes, own: str) -> EdgeReport | None:
    """None: our own, or nonsense."""
    try:
        value = json.loads(data)
        sender = value.pop("from", None)
        if sender == own:
            return None
        told = {name: value[name] for name in _TOLD}
        report = EdgeReport(**told, direct=sender == told["instance"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    kinds: dict[str, type | tuple[type, ...]] = {
        "edge": str,
        "instance": str,
        "version": str,
        "position": int,
        "connected": bool,
        "since": (int, float),
    }
    return report if all(isinstance(getattr(report, name), kind) for name, kind in kinds.items()) else None


def _own(known: Record | None) -> int:
    return known.sequence if known is not None else 0


def _final(error: BaseException) -> bool:
    """Will trying again not help?"""
    if isinstance(
        error, nats.errors.MaxPayloadError | nats.errors.ConnectionClosedError | nats.errors.AuthorizationError
    ):
        return True
    return isinstance(error, nats.js.errors.APIError) and error.code not in (503, 408, None)


def _audited(sequence: int, value: dict[str, Any]) -> AuditRecord:
    order = order_of(json.dumps(value["order"]))
    kind, targets, what = summary(order)
    return AuditRecord(sequence, float(value["time"]), str(value["token"]), str(value["address"]), kind, targets, what)
