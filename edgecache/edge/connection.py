"""One client connection: octets in, exchanges for the handler out, strictly one after the other (RFC 9112 §9.3.2).

One task serves the connection for its whole life. The next request is not parsed before the answer to this one is
complete; what arrives meanwhile waits in the decoder, and beyond `READ_AHEAD` in the kernel. After the first octet
that breaks framing nothing more is parsed: one answer, then the connection ends so that the answer is not lost.
"""

import asyncio
import fcntl
import logging
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from edgecache._native.fastlane import FastConnection
from edgecache._native.http1 import FramingError, Limits, RequestDecoder, RequestHead, encode_response_head
from edgecache.edge.client_exchange import ClientExchange
from edgecache.edge.descriptors import Descriptors
from edgecache.edge.exchange import Handler
from edgecache.edge.framing import date_line, error_answer
from edgecache.http.clock import wall_clock
from edgecache.http.errors import ClientGone, HttpError, RequestError
from edgecache.http.message import Duplex, Peer
from edgecache.http.sweep import NEVER, Sweeper
from edgecache.http.tasks import spawn
from edgecache.http.wire import READ_AHEAD, RawDuplex, Round, Wire

_log = logging.getLogger("edgecache.listener")

WRITE_AHEAD = 128 * 1024
"""Octets of an answer that may wait in the transport before the handler's write waits too."""
FLUSH_BYTES = 32 * 1024
"""Octets gathered before they are given to the transport at once."""
JOIN_BYTES = 16 * 1024
"""Up to here pieces are joined by a copy; above it they go as a vector."""


class Phase(Enum):
    """What the time limit that is running means."""

    IDLE = auto()
    HEAD = auto()
    WORK = auto()
    BODY = auto()
    LINGER = auto()

    __hash__ = object.__hash__  # Enum's own hashes the name, in Python


_IDLE, _HEAD, _WORK = Phase.IDLE, Phase.HEAD, Phase.WORK
"""Found once: an enum's member takes four times as long to find as a global, and each request looks for these."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How long a client may take, seconds, and how much it may leave unread."""

    head_s: float = 10.0
    """From the first octet of a request to the end of its head."""
    idle_s: float = 75.0
    """Between requests, and before the first."""
    body_s: float = 30.0
    """Between octets of a body somebody is waiting for."""
    stall_s: float = 60.0
    """While octets are waiting for it, without taking any."""
    linger_s: float = 5.0
    """For reading the last answer, once it has been sent."""
    discard_bytes: int = 64 * 1024
    """Of a body nobody wanted, read and dropped to keep the connection."""

    of: dict[Phase, float] = field(init=False, compare=False, repr=False)
    """The same by phase."""

    def __post_init__(self) -> None:
        phases = [(Phase.IDLE, self.idle_s), (Phase.HEAD, self.head_s), (Phase.WORK, NEVER)]
        phases += [(Phase.BODY, self.body_s), (Phase.LINGER, self.linger_s)]
        object.__setattr__(self, "of", dict(phases))

    def period_s(self) -> float:
        return Sweeper.period_for(self.head_s, self.idle_s, self.body_s, self.stall_s, self.linger_s)


@dataclass(slots=True)
class Counters:
    """What the listener has seen since it started, beside requests."""

    accepted: int = 0
    over_limit: int = 0
    no_descriptors: int = 0
    malformed: int = 0
    timed_out: int = 0
    stalled: int = 0


@dataclass(slots=True)
class Shared:
    """What all connections of one listener have in common."""

    handler: Handler
    sweeper: Sweeper
    round: Round
    limits: ClientLimits
    decoder_limits: Limits
    max_connections: int
    descriptors: Descriptors
    on_lost: Callable[[], None]
    """Called when a connection has ended while draining."""
    counters: Counters = field(default_factory=Counters)
    changed: Callable[[int], None] = lambda _: None
    """Told how many more, or fewer, connections are open."""
    connections: set["ClientConnection"] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    requests: int = 0
    """How many have been read."""
    draining: bool = False
    """From now on answers close their connections."""
    idle_ends: bool = False
    """And those without a request end at once."""


class ClientConnection(Wire):
    """The protocol of one accepted connection.

    A fast lane stands in front of it: a protocol of its own that answers what it can and hands everything else,
    untouched, to `data_received`, and only while `quiet` says that no request is under way here.
    """

    __slots__ = (
        "_in_round",
        "_limit",
        "_mark",
        "_moved_at",
        "_out",
        "_out_size",
        "_phase",
        "_served",
        "_stall_check",
        "_timed_out",
        "deadline",
        "decoder",
        "lane",
        "peer",
        "scheme",
        "shared",
    )

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.shared = shared
        self.decoder = RequestDecoder(shared.decoder_limits)
        self.lane: FastConnection | None = None
        self.deadline = NEVER
        self._phase = Phase.IDLE
        self._limit = NEVER
        self._stall_check = NEVER
        self._mark = 0
        self._moved_at = 0.0
        self._served = False
        self._timed_out = False
        self._out: list[bytes] = []
        self._out_size = 0
        self._in_round = False

    # --- events ---
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        shared = self.shared
        tls = transport.get_extra_info("sslcontext") is not None
        name = transport.get_extra_info("peername")
        host, port = (name[0], name[1]) if isinstance(name, tuple) else ("", 0)
        self.peer = Peer(host.partition("%")[0].removeprefix("::ffff:") if ":" in host else host, port, tls)
        self.scheme = "https" if tls else "http"
        self.transport.set_write_buffer_limits(high=WRITE_AHEAD)
        shared.counters.accepted += 1
        shared.connections.add(self)
        shared.changed(1)
        shared.sweeper.add(self)
        if len(shared.connections) > shared.max_connections:
            shared.counters.over_limit += 1
            self.refuse(503, "too many connections")
            return
        if shared.descriptors.short(number := self._descriptor()):
            shared.counters.no_descriptors += 1
            shared.descriptors.tell(shared.sweeper.tick)
            self.refuse(503, "too many connections", linger=not shared.descriptors.very_short(number))
            return
        task: asyncio.Task[None] = spawn(self._serve(), "client-connection")
        shared.tasks.add(task)
        task.add_done_callback(shared.tasks.discard)

    def data_received(self, data: bytes) -> None:
        self.decoder.feed(data)
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)
        elif self.decoder.buffered > READ_AHEAD:
            self.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self in self.shared.connections:
            self.shared.connections.remove(self)
            self.shared.changed(-1)
        self.shared.sweeper.discard(self)
        if self.shared.draining:
            self.shared.on_lost()

    @property
    def quiet(self) -> bool:
        """No request is under way or half received: the next octet begins one."""
        return self._phase is _IDLE and self._reader is not None and not self._reader.done()

    # --- output ---
    @property
    def unsent(self) -> bool:
        """Something was sent that the transport has not been given yet."""
        return bool(self._out)

    def send(self, data: bytes) -> None:
        """Send soon: what one step of the handler sends leaves in one system call, when the loop comes round."""
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= FLUSH_BYTES:
            self.flush()
        elif not self._in_round:
            self._in_round = True
            self.shared.round.add(self._my_turn)

    def watermark(self, high: int = WRITE_AHEAD) -> None:
        """Octets that may wait in the transport from now on before writing pauses."""
        if not (self.lost or self.transport.is_closing()):
            self.transport.set_write_buffer_limits(high=high)

    def _my_turn(self) -> None:
        self._in_round = False
        self.flush()

    def flush(self) -> None:
        out = self._out
        if not out:
            return
        size, self._out_size = self._out_size, 0
        if not self.transport.is_closing():
            if len(out) == 1:
                self.transport.write(out[0])
            elif size < JOIN_BYTES:
                self.transport.write(b"".join(out))
            else:
                self.transport.writelines(out)
        out.clear()

    # --- requests, one after the other ---
    async def _serve(self) -> None:
        shared, decoder = self.shared, self.decoder
        try:
            while (head := await self._next_head()) is not None:
                shared.requests += 1
                self._served = True
                exchange = ClientExchange(self, head)
                try:
                    await shared.handler(exchange)
                except ClientGone:
                    exchange.abort()
                except HttpError as error:
                    exchange.fail(error.status, error.detail)
                except Exception:  # noqa: BLE001 - a bug of the handler's ends its request, not the process
                    _log.exception("the handler failed on a request")
                    exchange.fail(500, "internal error")
                if not await exchange.settle():
                    return
                decoder.resume()
                self._phase = _IDLE
        except FramingError as error:
            shared.counters.malformed += 1
            self.refuse(error.status, error.detail)
        except RequestError as error:
            self.refuse(error.status, error.detail)
        except BaseException:
            if not self.lost:
                self.transport.abort()
            raise

    async def _next_head(self) -> RequestHead | None:
        """The next request's head; None once there will be none, and then the connection is closing."""
        decoder = self.decoder
        while (event := decoder.next()) is None:
            if self.lost:
                return None
            if self._timed_out:
                raise RequestError("the request head took too long", status=408)
            if self.lane is not None and self.lane.busy:
                pass  # an answer is under way in front of us
            elif not (decoder.buffered or decoder.in_message):
                if self.eof or (self.shared.idle_ends and not self._input_waits()):
                    self.end(linger=False)
                    return None
                if self.lane is not None:
                    self.lane.arm()
                fresh_while_draining = self.shared.idle_ends and not self._answered_one()
                self.limit(_IDLE, min(1.0, self.shared.limits.idle_s) if fresh_while_draining else None)
            elif self.eof:
                self.end(linger=False)
                return None
            elif self._phase is not _HEAD:
                self.limit(_HEAD)
            await self.wait_for_data()
        assert isinstance(event, RequestHead)
        self._work()
        if event.method == "CONNECT":
            raise RequestError("CONNECT is for proxies a client has chosen (RFC 9110 §9.3.6)", status=501)
        if event.scheme is not None and event.scheme != self.scheme:
            raise RequestError("the target's scheme is not this connection's (RFC 9110 §7.4)", status=421)
        return event

    async def wait_for_body(self) -> None:
        """Wait for more of the body somebody is reading, for the limit between octets."""
        self.limit(Phase.BODY)
        try:
            await self.wait_for_data()
        finally:
            if self._reader is None:  # else this wait was cancelled, and the next one has set its limit already
                self._work()

    def _work(self) -> None:
        """The handler is at work: no limit runs, but that for what is being sent."""
        self._phase = _WORK
        self._limit = NEVER
        self.deadline = self._stall_check

    def give_up_http(self) -> Duplex:
        """The raw connection, with what was read already; this object only hears of its end."""
        self.flush()
        return RawDuplex(self, self.decoder.take_rest(), self.connection_lost)

    def _input_waits(self) -> bool:
        """A request is on its way: not read yet, or on a connection that has not had the time to send one."""
        return not self._answered_one() or self._kernel(termios.FIONREAD) > 0

    def _answered_one(self) -> bool:
        return self._served or (self.lane is not None and self.lane.used)

    # --- the fast lane in front ---
    def lane_done(self) -> None:
        """The lane has sent a long answer: from now on this is an idle connection again."""
        self.transport.set_write_buffer_limits(high=WRITE_AHEAD)
        self.limit(Phase.IDLE)
        if self.shared.draining or self.eof:
            self.wake()

    def _kept_by_lane(self) -> bool:
        """Has the fast lane used the connection since the idle limit began? Then the limit begins anew."""
        lane = self.lane
        if lane is None or not (lane.busy or lane.used):
            return False
        left = self.shared.limits.idle_s if lane.busy else self.shared.limits.idle_s - (wall_clock() - lane.last_at)
        if left <= 0:
            return False
        self.limit(Phase.IDLE, min(left, self.shared.limits.idle_s))
        return True

    def local_authority(self) -> str:
        """For requests without Host (HTTP/1.0): the address they came to."""
        name = self.transport.get_extra_info("sockname")
        host, port = (name[0], name[1]) if isinstance(name, tuple) else ("localhost", 80)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # --- time limits ---
    def limit(self, phase: Phase, limit_s: float | None = None) -> None:
        """Start the limit of a phase."""
        if limit_s is None:
            limit_s = self.shared.limits.of[phase]
        self._phase = phase
        self._limit = deadline = self.shared.sweeper.base + limit_s
        self.deadline = min(deadline, self._stall_check)

    def expire(self) -> None:
        now = self.shared.sweeper.tick
        if self._stall_check <= now and self._stalled(now):
            self.shared.counters.stalled += 1
            self.reset()
            self.deadline = NEVER
            return
        if self._limit <= now:
            self._limit = NEVER
            self._out_of_time()
        self.deadline = min(self._limit, self._stall_check)

    def _out_of_time(self) -> None:
        match self._phase:
            case Phase.IDLE if self._kept_by_lane():
                pass
            case Phase.IDLE:
                self.end(linger=False)
            case Phase.HEAD | Phase.BODY:
                self.shared.counters.timed_out += 1
                self._timed_out = True
                self.wake()
            case Phase.LINGER if self._outstanding():
                self.limit(Phase.LINGER)  # still sending: the stall limit decides
            case Phase.LINGER:
                self.transport.abort()
            case Phase.WORK:
                pass

    @property
    def timed_out(self) -> bool:
        """The client took too long over a head or a body."""
        return self._timed_out

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall_check = NEVER
        self.deadline = self._limit

    def _watch_writing(self) -> None:
        sweeper = self.shared.sweeper
        self._mark = self._outstanding()
        self._moved_at = sweeper.tick
        self._stall_check = sweeper.after(self.shared.limits.stall_s / 4)
        self.deadline = min(self.deadline, self._stall_check)

    def _stalled(self, now: float) -> bool:
        """Has the peer acknowledged nothing for `stall_s`? Looked at four times in that time."""
        outstanding = self._outstanding()
        if outstanding == 0 or outstanding < self._mark:
            self._moved_at = now
        elif now - self._moved_at >= self.shared.limits.stall_s:
            return True
        self._mark = outstanding
        self._stall_check = self.shared.sweeper.after(self.shared.limits.stall_s / 4)
        return False

    def _outstanding(self) -> int:
        """Octets given to the transport and not yet acknowledged by the peer's kernel.

        The kernel's own queue counts: it holds megabytes, and a slow reader who makes progress there lives.
        """
        return self.transport.get_write_buffer_size() + self._kernel(termios.TIOCOUTQ)

    def _descriptor(self) -> int:
        """-1 where there is none."""
        sock = self.transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def _kernel(self, question: int) -> int:
        if (fd := self._descriptor()) < 0:
            return 0
        try:
            answer: bytes = fcntl.ioctl(fd, question, b"\0\0\0\0")
        except OSError:
            return 0
        return int(struct.unpack("i", answer)[0])

    # --- the end ---
    def refuse(self, status: int, detail: str, *, linger: bool = True) -> None:
        """One line of text for a request that reaches no handler, and the end of the connection."""
        if self.lost:
            return
        response, body = error_answer(status, detail)
        lines = [("Date", date_line.at(wall_clock())), *response.headers.lines]
        lines += [("Content-Length", str(len(body))), ("Connection", "close")]
        self.send(encode_response_head(status, response.reason, lines) + body)
        self.end(linger=linger)

    def end(self, *, linger: bool) -> None:
        """Close when everything is sent. `linger`: the client may still be sending; read that and drop it for a
        while, since closing on unread octets resets the connection and loses the answer (RFC 9112 §9.6)."""
        if self.lost or self.transport.is_closing():
            return
        self.flush()
        if self.lane is not None:
            self.lane.disarm()
        if linger:
            self.transport.set_protocol(_Linger(self))
            self.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.limit(Phase.LINGER)
        else:
            self.transport.close()
        self.watch_the_rest()

    def watch_the_rest(self) -> None:
        """Nothing more will be written: see to it that what is left is taken in time."""
        if not self.lost and self.transport.get_write_buffer_size():
            self._watch_writing()


class _Linger(asyncio.Protocol):
    """Reads and drops until the client closes or its time is over."""

    __slots__ = ("_connection",)

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
