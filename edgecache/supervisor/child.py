"""What a forked process does, and what it and the supervisor say to each other.

They talk over a pair of sockets, one JSON object a message:

    child      {"ready": true} once it serves; {"failed": "why"} where it cannot start, and then it ends;
               {"shut": true} once it accepts no more
    supervisor {"drain": seconds, "idle": seconds}: finish and end; {"reopen": true}: open log files anew

Signals are the supervisor's affair: a terminal or a service manager may send them to all processes at once, and only
the supervisor knows in which order they are to end.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import uvloop

from edgecache.admin.tokens import TokenCheck
from edgecache.app import Control, Shared, StartError, Worker
from edgecache.observe import log
from edgecache.observe.tasks import TaskGauge
from edgecache.supervisor import machine
from edgecache.supervisor.setting import Setting

_log = logging.getLogger("edgecache")

OK, CUT, FAILED, BROKEN = 0, 3, 2, 70
"""Exit codes: ended when asked; ended, but some requests were cut; could not start; a bug."""

_MESSAGE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Role:
    """Which process it is."""

    name: str
    """"worker" or "control"."""
    index: int
    """Among the workers, from 0."""
    slot: int
    """In the arena."""

    def __str__(self) -> str:
        return f"worker {self.index}" if self.name == "worker" else "control process"

    @property
    def title(self) -> str:
        return f"edgecache-w{self.index}" if self.name == "worker" else "edgecache-ctl"


class Channel:
    """One end of the pair; never blocks."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end

    @classmethod
    def pair(cls) -> "tuple[Channel, Channel]":
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def send(self, message: dict[str, Any]) -> None:
        """A peer that is gone, or takes nothing, is found out by other means."""
        try:
            self.socket.send(json.dumps(message).encode())
        except OSError as error:
            _log.debug("nobody takes a message: %s", error)

    def receive(self) -> list[dict[str, Any]] | None:
        """What has come; None: the other end is closed, and nothing will come any more."""
        found: list[dict[str, Any]] = []
        while True:
            try:
                data = self.socket.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return found
            except OSError:
                data = b""
            if not data:
                return found or None
            found.append(json.loads(data))

    def close(self) -> None:
        self.socket.close()


def live(role: Role, setting: Setting, shared: Shared, channel: Channel) -> int:
    """The whole life of a forked process of an edge. Returns its exit code."""
    machine.set_name(role.title)
    log.set_up(setting.config.log.level, setting.config.log.format)
    shared.arena.attach(role.slot)
    work = _work if role.name == "worker" else _control
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_counted(work(role, setting, shared, channel), TaskGauge(shared.counters, role.slot)))


async def _counted(work: Coroutine[Any, Any, int], tasks: TaskGauge) -> int:
    tasks.start()
    try:
        return await work
    finally:
        tasks.stop()


async def _work(role: Role, setting: Setting, shared: Shared, channel: Channel) -> int:
    worker = Worker(
        setting.config,
        shared,
        process=role.slot,
        workers=setting.workers,
        leases=shared.leases(role.slot),
        token=TokenCheck(setting.token),
    )

    async def end(order: dict[str, Any]) -> bool:
        await worker.shut()
        channel.send({"shut": True})
        return await worker.close(order["drain"], order["idle"])

    start = worker.start(setting.doors.public[role.index], setting.contexts)
    return await obey(channel, start, end, worker.reopen_logs)


async def _control(role: Role, setting: Setting, shared: Shared, channel: Channel) -> int:
    control = Control(setting.config, shared, setting.token, process=role.slot)

    async def end(_: dict[str, Any]) -> bool:
        control.shut()
        channel.send({"shut": True})
        await control.close()
        return True

    return await obey(channel, control.start(setting.doors.admin), end, lambda: None)


async def obey(
    channel: Channel,
    start: Coroutine[Any, Any, None],
    end: Callable[[dict[str, Any]], Coroutine[Any, Any, bool]],
    reopen: Callable[[], None],
) -> int:
    """Start, do what the supervisor says, end when it says so."""
    loop = asyncio.get_running_loop()
    order: asyncio.Future[dict[str, Any]] = loop.create_future()
    try:
        await start
    except StartError as error:
        channel.send({"failed": str(error)})
        return FAILED

    def read() -> None:
        messages = channel.receive()
        if messages is None:
            loop.remove_reader(channel.socket)
            messages = [{"drain": 0.0, "idle": 0.0}]
        for message in messages:
            if "reopen" in message:
                reopen()
            if "drain" in message and not order.done():
                order.set_result(message)

    loop.add_reader(channel.socket, read)
    channel.send({"ready": True})
    whole = await end(await order)
    loop.remove_reader(channel.socket)
    return OK if whole else CUT


def leave(code: int) -> None:
    """End a forked process: what its parent would clean up at exit is not its own to clean up."""
    logging.shutdown()
    os._exit(code)
