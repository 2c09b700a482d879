"""`edgecache coordinator`: one process, its signals, and what it is built from.

SIGHUP reads the configuration, the tokens and the certificates again; SIGTERM and SIGINT end calls under way, tell the
edges and stop.
"""

import asyncio
import gc
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from edgecache.admin.dialects.build import fleet_desk
from edgecache.admin.tokens import default_path
from edgecache.config.coordinator import CoordinatorConfig, CoordinatorFile, CoordinatorTlsServerConfig
from edgecache.config.load import ConfigError
from edgecache.config.load_coordinator import LoadedCoordinator
from edgecache.edge.tls import CIPHERS
from edgecache.http.clock import wall_clock
from edgecache.observe import log
from edgecache.purge.bus import BusError, PurgeBus
from edgecache.purge.coordinator.hub import Hub
from edgecache.purge.coordinator.roster import EVERY_S, Roster
from edgecache.purge.coordinator.seldom import Seldom
from edgecache.purge.coordinator.server import CoordinatorServer
from edgecache.purge.coordinator.service import Coordinator
from edgecache.purge.coordinator.tokens import TokenBook, TokensError
from edgecache.purge.ledger import Retention
from edgecache.purge.sqlite_log import SqliteLog
from edgecache.supervisor import machine

_log = logging.getLogger("edgecache.purge")

_COLLECT = (50_000, 20, 100)
"""An answer for thousands of edges makes as many objects, and each subscription lives long: with Python's own
thresholds most of a purge's time went into looking for garbage."""
_RELOADED = {"rate", "burst", "wait_timeout_s", "tls"}
"""Keys that SIGHUP takes over; the others need a restart."""
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class StartError(Exception):
    """The coordinator cannot run; one line, and what to do."""


def serve(config: CoordinatorFile, load: Callable[[], LoadedCoordinator]) -> int:
    """Run a coordinator until SIGTERM or SIGINT. Returns the process's exit code.

    `load` reads the configuration again, for SIGHUP, and raises `ConfigError`.
    """
    log.set_up(config.log.level, config.log.format)
    machine.raise_file_limit()
    gc.freeze()  # what has been imported stays
    gc.set_threshold(*_COLLECT)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(config, load))
        except StartError as error:
            _log.error("%s", error)
            return 2
    return 0


def data_folder(config: CoordinatorConfig) -> Path:
    if config.data is not None:
        return Path(config.data)
    return default_path(os.environ, root=os.geteuid() == 0).parent / "coordinator"


def tokens_path(config: CoordinatorConfig) -> Path:
    return Path(config.tokens_file) if config.tokens_file is not None else data_folder(config) / "tokens.json"


def make_bus(config: CoordinatorConfig) -> PurgeBus:
    retention = Retention(
        age_s=config.keep_s, entries=config.keep_entries, keys_s=config.keep_keys_s, audit_s=config.keep_audit_s
    )
    if config.nats.servers:
        from edgecache.purge.transport.nats_bus import NatsBus
        from edgecache.purge.transport.nats_settings import nats_settings

        return NatsBus(nats_settings(config.nats), retention)
    return SqliteLog(data_folder(config), retention)


def make_coordinator(config: CoordinatorConfig, bus: PurgeBus) -> Coordinator:
    """Raises `TokensError`. In a running event loop."""
    hub = Hub(
        bus,
        wall=wall_clock,
        heartbeat_s=config.heartbeat_s,
        stall_s=config.stall_timeout_s,
        most=config.max_edges,
        remember_s=config.keep_away_s,
        clock=time.monotonic,
    )
    book = TokenBook(tokens_path(config), time.monotonic)
    return Coordinator(
        bus,
        book,
        hub,
        wall=wall_clock,
        rate=config.rate,
        burst=config.burst,
        wait_s=config.wait_timeout_s,
        match=config.dialects.patterns == "match",
    )


class _Handshake(ssl.SSLObject):
    """Says why an edge's certificate was refused. Nobody else would: the connection just ends, and with TLS 1.3 the
    edge may not hear why."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            line = f"an edge is turned away, its certificate is not trusted: {error.verify_message}"
            if _seldom.may(line):
                _log.warning(
                    "%s", line, extra={"remedy": "see to the edge's purge.tls.cert, or coordinator.tls.client_ca"}
                )
            raise


_seldom = Seldom()


def server_context(tls: CoordinatorTlsServerConfig) -> ssl.SSLContext:
    """Raises OSError and ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Handshake
    context.minimum_version = _VERSIONS[tls.min_version]
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: CoordinatorTlsServerConfig) -> None:
    """Also into a context that is in use: connections made from then on see the new files."""
    context.load_cert_chain(tls.cert, tls.key, password="")
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL  # callers that purge may come without: only edges must show one


async def _run(file: CoordinatorFile, load: Callable[[], LoadedCoordinator]) -> None:
    config = file.coordinator
    async with AsyncExitStack() as stack:
        bus = make_bus(config)
        try:
            await bus.start()
            stack.push_async_callback(bus.close)
            coordinator = make_coordinator(config, bus)
            tls = server_context(config.tls) if config.tls is not None else None
        except BusError as error:
            raise StartError(f"{error.detail}; {error.remedy}") from None
        except TokensError as error:
            raise StartError(str(error)) from None
        except (OSError, ValueError) as error:
            raise StartError(f"coordinator.tls: {error}") from None
        every_s = min(EVERY_S, 2 * config.heartbeat_s)
        roster = Roster(data_folder(config), coordinator.hub, log=lambda: bus.state().log, every_s=every_s)
        await roster.start()
        stack.push_async_callback(roster.close)
        await coordinator.start()
        server = CoordinatorServer(
            coordinator,
            config.listen,
            hosts=config.hosts,
            tls=tls,
            certificates=config.tls is not None and config.tls.client_ca is not None,
            desk=fleet_desk(config.dialects),
        )
        stack.push_async_callback(server.close)
        try:
            await server.start()
        except OSError as error:
            raise StartError(
                f"cannot listen on {config.listen}: {error.strerror}; choose another address with coordinator.listen"
            ) from None
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: _reload(file, load, coordinator, tls))
        _say_where(server, coordinator, config)
        await stop.wait()
        _log.info("stopping: edges connect again when there is a coordinator")


def _say_where(server: CoordinatorServer, coordinator: Coordinator, config: CoordinatorConfig) -> None:
    scheme = "http" if config.tls is None else "https"
    state = coordinator.bus.state()
    where = f"the stream {config.nats.stream} of NATS" if config.nats.servers else data_folder(config)
    _log.info("coordinator on %s://%s, log in %s at %d", scheme, server.address, where, state.head)
    if not len(coordinator.book):
        _log.warning(
            "there are no tokens yet: nobody may purge or subscribe",
            extra={"remedy": "edgecache coordinator token add NAME --scope purge (or edge, read, admin)"},
        )
    if config.tls is None and not config.listen.loopback:
        _log.warning(
            "tokens and purges cross the network unencrypted",
            extra={"remedy": "set coordinator.tls, or put it behind something that speaks TLS"},
        )


def _reload(
    before: CoordinatorFile, load: Callable[[], LoadedCoordinator], coordinator: Coordinator, tls: ssl.SSLContext | None
) -> None:
    try:
        file = load().config
        config = file.coordinator
        if tls is not None and config.tls is not None:
            _load(tls, config.tls)
        coordinator.book.read()
    except (ConfigError, TokensError, OSError, ValueError) as error:
        _log.error("the configuration was not taken over, nothing has changed: %s", error)
        return
    coordinator.configure(rate=config.rate, burst=config.burst, wait_s=config.wait_timeout_s)
    log.set_up(file.log.level, file.log.format)
    old = before.coordinator
    changed = [name for name in CoordinatorConfig.model_fields if getattr(config, name) != getattr(old, name)]
    if rest := [name for name in changed if name not in _RELOADED or (name == "tls" and tls is None)]:
        _log.warning("changed, and not taken over: %s", ", ".join(rest), extra={"remedy": "restart the coordinator"})
    _log.info("the configuration is read again, with %d tokens", len(coordinator.book))
