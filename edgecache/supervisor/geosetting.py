"""What processes of one GeoDNS configuration are started with, and what outlives it."""

import logging
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecache.admin import tokens
from edgecache.config.geodns import GeoDnsConfig
from edgecache.config.load import ConfigError
from edgecache.config.load_geodns import LoadedGeo
from edgecache.geodns import plan
from edgecache.geodns.blob import Blob
from edgecache.geodns.mmdb import BadDatabase
from edgecache.geodns.server import World
from edgecache.geodns.tally import Layout, Rows
from edgecache.http.clock import wall_clock
from edgecache.supervisor import machine
from edgecache.supervisor.geodoors import DoorError, GeoDoorKeeper, GeoDoors
from edgecache.supervisor.setting import SetupError

_log = logging.getLogger("edgecache")

_LOOK_S = 0.9
"""Between two looks at the databases' files."""

Load = Callable[[], LoadedGeo]


@dataclass(frozen=True, slots=True)
class GeoSetting:
    """A configuration and everything made for it before its processes."""

    world: World
    workers: int
    """0: all in one process."""
    doors: list[GeoDoors]
    admin: socket.socket
    token: str
    health: Blob
    watched: "Watched"
    """The databases' files as they were just before they were read."""

    @property
    def config(self) -> GeoDnsConfig:
        return self.world.loaded.config


class GeoShared:
    """Outlives configurations."""

    def __init__(self) -> None:
        self.layout = Layout()
        self.rows = Rows(self.layout)
        self.orders = Blob()
        self.keeper = GeoDoorKeeper()
        self._secret = secrets.token_bytes(16)

    def set_up(self, loaded: LoadedGeo) -> GeoSetting:
        """Reads the databases. Raises `SetupError`; then nothing has changed."""
        config = loaded.config
        workers = machine.workers(config.workers)
        started = wall_clock()
        try:
            keys = self._secrets(config)
            token = tokens.for_server(config.admin.token_file, os.environ, root=os.geteuid() == 0)
            watched = Watched(config)
            databases = plan.databases(config.location)
            mapping = plan.mapping(config, databases)
            world = World.of(loaded, mapping, self.layout, keys)
            doors, admin = self.keeper.open(config, max(workers, 1))
        except (tokens.TokenError, DoorError) as error:
            raise SetupError(str(error)) from error
        except BadDatabase as error:
            raise SetupError(f"location.files: {error}") from error
        if databases:
            _log.info(
                "%d ranges of IPv4 and %d of IPv6 in %d lists, made in %.1f s",
                *(len(mapping.v4), len(mapping.v6), len(mapping.lists), wall_clock() - started),
            )
        return GeoSetting(world, workers, doors, admin, token, Blob(), watched)

    def _secrets(self, config: GeoDnsConfig) -> list[bytes]:
        if config.cookie_secret_file is None:
            return [self._secret]
        try:
            lines = Path(config.cookie_secret_file).read_text(encoding="ascii").split()
            keys = [bytes.fromhex(line) for line in lines]
        except (OSError, ValueError) as error:
            raise SetupError(f"cookie_secret_file: {error}") from error
        if not 1 <= len(keys) <= 4 or any(len(key) != 16 for key in keys):
            raise SetupError("cookie_secret_file: one to four lines of 32 hexadecimal digits are needed")
        return keys

    def refresh(self, load: Load) -> GeoSetting:
        """Reads the configuration again. Raises `SetupError`; each problem has been logged."""
        try:
            loaded = load()
        except ConfigError as error:
            for problem in error.problems:
                _log.error("%s", problem)
            raise SetupError("see above") from None
        for warning in loaded.warnings:
            _log.warning("%s", warning)
        return self.set_up(loaded)

    def say_where(self, config: GeoDnsConfig, admin: socket.socket) -> None:
        for address in self.keeper.ports(config):
            _log.info("answering on dns://%s", address)
        _log.info("admin API on http://%s:%d", config.admin.address.host or "*", admin.getsockname()[1])


class Watched:
    """The databases' files: have they changed, and are they written to the end?"""

    def __init__(self, config: GeoDnsConfig) -> None:
        self._files = [Path(file) for file in config.location.files]
        self._used = self._look()
        self._last = self._used
        self._looked_at = 0.0

    def _look(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                stat = file.stat()
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
            except OSError:
                found.append(None)
        return found

    def changed(self, at: float) -> bool:
        """True once for each change, when two looks a second apart agree on it; a file that is away is waited for.
        `at`: the monotonic clock."""
        if at < self._looked_at + _LOOK_S:
            return False
        self._looked_at = at
        now = self._look()
        settled = now == self._last
        self._last = now
        if not settled or now == self._used or None in now:
            return False
        self._used = now
        return True
