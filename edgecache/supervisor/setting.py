"""What processes of one configuration are started with: sockets, TLS contexts, the admin token."""

import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from edgecache.admin import tokens
from edgecache.app import Shared
from edgecache.config.load import ConfigError, Loaded
from edgecache.config.model import Config
from edgecache.config.units import Address
from edgecache.edge.doors import DoorError, DoorKeeper, Doors
from edgecache.edge.tls import TlsError, server_contexts

_log = logging.getLogger("edgecache")


class SetupError(Exception):
    """A configuration that cannot be put to use; the message says which key and why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A configuration and everything that was made for it before its processes."""

    config: Config
    workers: int
    doors: Doors
    contexts: tuple[ssl.SSLContext | None, ...]
    """For each entry of `listen`; None: plain HTTP."""
    token: str


def set_up(config: Config, keeper: DoorKeeper, workers: int) -> Setting:
    """Raises `SetupError`; then nothing has changed."""
    try:
        token = tokens.for_server(config.admin.token_file, os.environ, root=os.geteuid() == 0)
        contexts = server_contexts(config)
        return Setting(config, workers, keeper.open(config, workers), contexts, token)
    except (tokens.TokenError, TlsError, DoorError) as error:
        raise SetupError(str(error)) from error


def refresh(shared: Shared, load: Callable[[], Loaded]) -> Config | None:
    """Read the configuration again. None where it is wrong: every problem has been logged."""
    try:
        loaded = load()
    except ConfigError as error:
        for problem in error.problems:
            _log.error("%s", problem)
        return None
    for warning in loaded.warnings:
        _log.warning("%s", warning)
    return shared.adopt(loaded.config)


def say_where(setting: Setting) -> None:
    """Log where it listens."""
    for listen, address in zip(setting.config.listen, setting.doors.addresses(), strict=True):
        scheme = "https" if listen.tls is not None else "http"
        _log.info("listening on %s://%s", scheme, Address(listen.address.host or "*", address.port))
    port = setting.doors.admin.getsockname()[1]
    _log.info("admin API on http://%s", Address(setting.config.admin.address.host or "*", port))
