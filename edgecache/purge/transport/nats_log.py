"""The purge log as a stream of NATS JetStream: what the coordinators' bus and the edges' feed have in common.

One stream holds the log, and its sequence is the log's. The log's identity is in the stream's description: a stream
that was removed and made anew is another log.

    STREAM        subjects P.log, and P.log.KEY for an order with an idempotency key
    a message     {"format": 1, "time": T, "token": TEXT, "address": TEXT, "order": ORDER}, as in purge/frames
    P.edges       reports of edges, to all coordinators; not kept

After a compaction the stream's first message is the last one that is gone from the log: it stays for its time, by which
a position is known.

`nats-py` (the extra `nats`) is imported here and in the two modules beside this one only.
"""

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from edgecache.http.tasks import spawn
from edgecache.purge.bus import BusError, LogPosition, LogState, Record, Truncated
from edgecache.purge.frames import FrameError, order_of, order_text

_log = logging.getLogger("edgecache.purge")
T = TypeVar("T")

FORMAT: Final = 1
HEAD_BYTES: Final = 1024
"""Most that comes before the order in a message."""
PREFIX: Final = "edgecache log "
IDLE_BEAT_S: Final = 1.0
"""How often a consumer says that there is nothing new."""
SILENT_BEATS: Final = 3
RECONNECT_S: Final = 0.25
SEE_TO_NATS: Final = "see to the NATS servers: most of those that keep the log must run and reach each other"
TOGETHER: Final = 500
GETS: Final = 32
"""Messages asked for at the same time."""
PAGE_BYTES: Final = 8 << 20
_NOT_FOUND: Final = 10037
_STREAM_NOT_FOUND: Final = 10059
_NAME_IN_USE: Final = 10058


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Where the servers are, and how to be let in."""

    servers: tuple[str, ...]
    stream: str = "EDGECACHE_PURGES"
    subject: str = "edgecache.purges"
    domain: str | None = None
    """JetStream's domain, where the servers asked are in another one than the stream."""
    replicas: int = 1
    """Of the stream, where it is made here."""
    credentials_file: str | None = None
    user: str | None = None
    password: Callable[[], str | None] = lambda: None
    token: Callable[[], str | None] = lambda: None
    tls: Callable[[], ssl.SSLContext | None] = lambda: None
    """These are asked before each connection. What they raise as OSError or ValueError counts as no connection."""
    timeout_s: float = 5.0


class _Client(Client):
    """nats-py's, which closes half-way where it cannot send what it still holds: it counts as closed then, with its
    subscriptions running and its socket open, and whoever is to be told of the end is not."""

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if not self.is_connected:
            self._drop_unsent()
        try:
            await super()._close(status, do_cbs)
        except (nats.errors.Error, OSError, RuntimeError):
            self._drop_unsent()
            self._status = Client.DISCONNECTED
            await super()._close(status, do_cbs)

    def _drop_unsent(self) -> None:
        self._pending, self._pending_data_size = [], 0


class NatsLog:
    """A connection to the stream. Belongs to one event loop."""

    def __init__(self, settings: NatsSettings, *, name: str, reconnect: bool) -> None:
        """`reconnect`: go on trying by itself where the connection is lost."""
        self.settings = settings
        self._name = name
        self._reconnect = reconnect
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._tails: set[asyncio.Queue[Msg | None]] = set()
        self._calls: set[asyncio.Task[Any]] = set()
        self.state = LogState("", 0, 0, 0.0)
        self.histories = 1
        """One more each time the stream was found to have lost entries that it had confirmed."""
        self._anchor = 0
        self._said = ""

    # --- the connection ---

    async def connect(self) -> None:
        """Raises `BusError`."""
        settings = self.settings
        try:
            named: dict[str, Any] = {
                "user": settings.user,
                "password": settings.password(),
                "token": settings.token(),
                "user_credentials": settings.credentials_file,
                "tls": settings.tls(),
                "connect_timeout": settings.timeout_s,
                "reconnect_time_wait": RECONNECT_S,
            }
            client = _Client()
            connecting = client.connect(
                list(settings.servers),
                name=self._name,
                allow_reconnect=self._reconnect,
                max_reconnect_attempts=-1 if self._reconnect else 0,
                ping_interval=5,
                max_outstanding_pings=2,
                error_cb=self._told_of_error,
                disconnected_cb=self._interrupted,
                reconnected_cb=self._interrupted,
                closed_cb=self._interrupted,
                **{key: value for key, value in named.items() if value is not None},
            )
            try:
                async with asyncio.timeout(settings.timeout_s):  # it would try for ever
                    await connecting
            except BaseException:
                await self._close(client)
                raise
        except (nats.errors.Error, OSError, ValueError, TimeoutError) as error:
            raise BusError(
                f"no connection to NATS at {', '.join(settings.servers)}: {self._said or why(error)}",
                remedy="is the server running, and do the credentials fit?",
            ) from None
        self._client = client
        self._js = client.jetstream(domain=settings.domain, timeout=settings.timeout_s)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self._close(client)
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=self.settings.timeout_s)

    async def _close(self, client: Client) -> None:
        with contextlib.suppress(nats.errors.Error, OSError, RuntimeError, TimeoutError):
            await self.call(client.close())

    @property
    def client(self) -> Client:
        if self._client is None or self._client.is_closed:
            raise BusError("the connection to NATS is closed")
        return self._client

    @property
    def js(self) -> JetStreamContext:
        assert self.client is not None
        assert self._js is not None
        return self._js

    async def _told_of_error(self, error: Exception) -> None:
        said = why(error)
        if said != self._said:
            self._said = said
            _log.info("NATS: %s", said)

    async def _interrupted(self) -> None:
        """What was being delivered may have got lost."""
        for queue in self._tails:
            queue.put_nowait(None)

    async def call(self, question: Coroutine[Any, Any, T]) -> T:
        """In a task of its own: nats-py loses cancellations that reach it while it flushes."""
        task = spawn(_outcome(question), "nats")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        outcome: T | Exception = await asyncio.shield(task)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def ask(self, question: Coroutine[Any, Any, T]) -> T:
        """Of NATS. Raises `BusError`; `NotFoundError` of nats-py stays what it is."""
        try:
            return await self.call(question)
        except nats.js.errors.NotFoundError:
            raise
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BusError(f"NATS: {why(error)}", remedy=SEE_TO_NATS) from None

    # --- the stream ---

    async def make(self, identity: str) -> None:
        """Make the stream where it is not there. Raises `BusError`."""
        settings = self.settings
        config = api.StreamConfig(
            name=settings.stream,
            description=PREFIX + identity,
            subjects=[f"{settings.subject}.log", f"{settings.subject}.log.*"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            storage=api.StorageType.FILE,
            num_replicas=settings.replicas,
            duplicate_window=120,
        )
        try:
            await self.refresh()
        except StreamMissing:
            try:
                await self.ask(self.js.add_stream(config))
            except BusError:
                await self.refresh()  # another coordinator may have been quicker
                return
            await self.refresh()

    async def refresh(self) -> LogState:
        """Ask how far the log goes. Raises `BusError`, and `StreamMissing` where there is none."""
        before = self.state.head
        try:
            info = await self.ask(self.js.stream_info(self.settings.stream))
        except nats.js.errors.NotFoundError:
            raise StreamMissing(
                f"NATS has no stream {self.settings.stream}", remedy="start a coordinator, which makes it"
            ) from None
        description = info.config.description or ""
        if not description.startswith(PREFIX):
            raise BusError(
                f"the stream {self.settings.stream} of NATS is not a purge log",
                remedy="choose another purge.nats.stream",
            )
        identity, state = description.removeprefix(PREFIX), info.state
        if self.state.log and self.state.log != identity:
            raise BusError("the stream was made anew: it is another log now", remedy="start again")
        if state.messages == 0:
            self._anchor, floor = 0, state.last_seq
        else:
            self._anchor = floor = state.first_seq if state.first_seq > 1 else 0
        head, head_time = self.state.head, self.state.head_time
        if state.last_seq > head or state.last_seq < before or not self.state.log:
            head = state.last_seq
            head_time = (await self._get(head)).time if state.messages else 0.0
        if state.last_seq < before:
            self.lost_entries()
        elif self.state.head > head:
            head, head_time = self.state.head, self.state.head_time  # it has grown meanwhile
        self.state = LogState(identity, floor, head, head_time)
        return self.state

    def lost_entries(self) -> None:
        """What the stream had confirmed is no longer there: a single server's disk, or a backup."""
        self.histories += 1
        _log.error(
            "the stream %s has lost entries that it had confirmed; all edges begin again",
            self.settings.stream,
            extra={"remedy": "keep the stream on three servers that do not fail together"},
        )

    def grown(self, record: Record) -> None:
        """This one is in the log."""
        if record.sequence > self.state.head:
            self.state = LogState(self.state.log, self.state.floor, record.sequence, record.time)

    async def covers(self, position: LogPosition) -> bool:
        """Raises `BusError`."""
        if position.log != self.state.log:
            return False
        if not self.state.floor <= position.sequence <= self.state.head:
            await self.refresh()  # others append as well
        state = self.state
        if not state.floor <= position.sequence <= state.head:
            return False
        if position.sequence == 0:
            return position.time == 0
        if position.sequence == state.head:
            return position.time == state.head_time
        if position.sequence == state.floor and not self._anchor:
            return False
        try:
            return (await self._get(position.sequence)).time == position.time
        except Truncated:
            return False

    async def read(self, after: int, limit: int) -> list[Record]:
        """Without gap. Raises `Truncated`, `BusError`."""
        if after < self.state.floor:
            raise Truncated(f"entries up to {self.state.floor} are no longer kept")
        last = min(after + limit, self.state.head)
        found: list[Record] = []
        size = 0
        while after < last and size < PAGE_BYTES:
            numbers = range(after + 1, min(after + GETS, last) + 1)
            part = await asyncio.gather(*(self._get(number) for number in numbers))
            found += part
            size += sum(len(record.text) for record in part)
            after = numbers[-1]
        return found

    async def raw(self, sequence: int) -> dict[str, Any]:
        """A message's content. Raises `Truncated`, `BusError`."""
        try:
            message = await self.ask(self.js.get_msg(self.settings.stream, sequence))
        except nats.js.errors.NotFoundError:
            raise Truncated(f"entry {sequence} is no longer kept") from None
        return _content(sequence, message.data or b"")

    async def _get(self, sequence: int) -> Record:
        return record_of(sequence, await self.raw(sequence))

    async def by_key(self, key: str) -> Record | None:
        """The entry of an idempotency key."""
        subject = f"{self.settings.subject}.log.{key}"
        try:
            message = await self.ask(self.js.get_last_msg(self.settings.stream, subject))
        except nats.js.errors.NotFoundError:
            return None
        assert message.seq is not None
        return record_of(message.seq, _content(message.seq, message.data or b""))

    async def forget(self, through: int) -> None:
        """Entries up to this one; it stays itself, to be known by. Raises `BusError`."""
        if through > max(self.state.floor, 1):
            await self.ask(self.js.purge_stream(self.settings.stream, seq=through))
            await self.refresh()

    # --- following ---

    async def tail(self, after: int) -> AsyncGenerator[list[Record], None]:
        """Entries after this number as they come, without gap. Raises `Truncated`, and `BusError` where it is to be
        begun again: the connection was lost, or the server has fallen silent."""
        client, js, stream = self.client, self.js, self.settings.stream
        queue: asyncio.Queue[Msg | None] = asyncio.Queue()

        async def deliver(message: Msg) -> None:
            queue.put_nowait(message)

        inbox = client.new_inbox()
        subscription = await self.ask(client.subscribe(inbox, cb=deliver))
        self._tails.add(queue)
        consumer = ""
        try:
            config = api.ConsumerConfig(
                deliver_subject=inbox,
                ack_policy=api.AckPolicy.NONE,
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=after + 1,
                idle_heartbeat=IDLE_BEAT_S,
                flow_control=True,
                max_deliver=1,
                mem_storage=True,
                num_replicas=1,
                inactive_threshold=30,
            )
            try:
                consumer = (await self.ask(js.add_consumer(stream, config))).name
            except nats.js.errors.NotFoundError:
                raise StreamMissing(f"NATS has no stream {stream}") from None
            while True:
                batch = await self._batch(client, queue, after)
                if batch:
                    after = batch[-1].sequence
                    yield batch
        finally:
            self._tails.discard(queue)
            # Also where it is being connected again, when nats-py would subscribe again to what it still has.
            with contextlib.suppress(BusError):
                await self.ask(subscription.unsubscribe())
                if consumer:
                    await self.ask(client.publish(f"{js._prefix}.CONSUMER.DELETE.{stream}.{consumer}"))

    async def _batch(self, client: Client, queue: asyncio.Queue[Msg | None], after: int) -> list[Record]:
        """What has come, after waiting for something."""
        try:
            async with asyncio.timeout(IDLE_BEAT_S * SILENT_BEATS):
                message = await queue.get()
        except TimeoutError:
            raise BusError("nothing heard from NATS") from None
        found: list[Record] = []
        while True:
            if message is None:
                raise BusError("the connection to NATS was interrupted")
            if message.headers is not None and "Status" in message.headers:
                # Flow control asks for an answer; a stalled consumer says in its heartbeat where it waits for one.
                subject = message.reply or message.headers.get("Nats-Consumer-Stalled")
                if subject:
                    await self.ask(client.publish(subject))
            else:
                sequence = message.metadata.sequence.stream
                if sequence > after + 1:
                    await self.refresh()
                    if after < self.state.floor:
                        raise Truncated(f"entries up to {self.state.floor} are no longer kept")
                    raise BusError(f"entry {sequence} came instead of {after + 1}")
                if sequence == after + 1:
                    found.append(record_of(sequence, _content(sequence, message.data)))
                    after = sequence
            if queue.empty() or len(found) >= TOGETHER:
                return found
            message = queue.get_nowait()


async def _outcome(question: Coroutine[Any, Any, T]) -> T | Exception:
    """Whoever asked may be gone, and would not hear of an error."""
    try:
        return await question
    except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
        return error


class StreamMissing(BusError):
    """There is no log."""


def content(*, text: str, now: float, token: str, address: str) -> bytes:
    """Of a message; `text` is the order's."""
    head = json.dumps({"format": FORMAT, "time": now, "token": token, "address": address}, ensure_ascii=False)
    return f'{head[:-1]},"order":{text}}}'.encode()


def _content(sequence: int, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BusError(
            f"entry {sequence} of the stream was not written by a coordinator of this version",
            remedy="let nobody else publish to the stream's subjects",
        )
    return value


def record_of(sequence: int, value: dict[str, Any]) -> Record:
    try:
        order = order_of(json.dumps(value.get("order")))
        time = float(value["time"])
    except (FrameError, KeyError, TypeError, ValueError):
        raise BusError(f"entry {sequence} of the stream cannot be read") from None
    return Record(sequence, time, order_text(order))


def why(error: BaseException) -> str:
    """One line."""
    if isinstance(error, nats.js.errors.APIError) and error.description:
        return error.description
    if isinstance(error, nats.js.errors.ServiceUnavailableError | nats.js.errors.NoStreamResponseError):
        return "JetStream does not answer here: is it enabled, is its domain another one, has it a leader?"
    if isinstance(error, nats.errors.NoServersError):
        return "no server can be reached"
    if isinstance(error, TimeoutError | nats.errors.TimeoutError):
        return "no answer in time"
    text = str(error) or type(error).__name__
    return text.removeprefix("nats: ")
