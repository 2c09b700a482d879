"""What the demo runs beside its first edge, each a process of its own that may be killed to see what happens.

The purge coordinator, a second edge, and, where unbound is installed, a resolver that tells the demo's GeoDNS the
networks of its clients.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Final

from edgecache.config.units import Address
from edgecache.http.clock import wall_clock
from edgecache.purge.coordinator import tokens

SECOND: Final = "127.0.0.2"
"""The second edge's address: the same port as the first's, since an address is all that GeoDNS can say."""
START_S = 20.0
STOP_S = 5.0

_EDGE = """
name: new-york
workers: 0
listen: ["{address}"]
admin: {{address: "127.0.0.1:0"}}
memory: {{size: 64MiB}}
sites: [{{origin: "{origin}", expose_surrogate_keys: true}}]
cache: {{honour_request_directives: false}}
purge: {{coordinator: "{coordinator}", token_file: "{token_file}", max_silence: 5s}}
log: {{level: error, access: {{format: "off"}}}}
"""
RESOLVER = """
server:
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 0
  interface: 127.0.0.1
  port: {port}
  num-threads: 1
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  do-ip6: no
  module-config: "subnetcache iterator"
  send-client-subnet: 127.0.0.1
  max-client-subnet-ipv4: 24
  cache-min-ttl: 0
stub-zone:
  name: "{zone}"
  stub-addr: 127.0.0.1@{geodns}
remote-control:
  control-enable: no
"""
"""Configuration of unbound, which tells the name server the client's network: `folder`, `port`, `zone`, `geodns`."""


class Part:
    """A process of the demo."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *command: str, at: Address, told: int | None = None) -> "Part":
        """Returns once it accepts on `at`. `told`: where its messages go; None: to ours. Raises `OSError` where it does
        not."""
        # Its file says all: what the environment sets is meant for the first edge.
        env = {name: value for name, value in os.environ.items() if not name.startswith("EDGECACHE_")}
        nothing = asyncio.subprocess.DEVNULL
        part = cls(await asyncio.create_subprocess_exec(*command, stdin=nothing, stdout=told, stderr=told, env=env))
        try:
            async with asyncio.timeout(START_S):
                while not await _accepts(at):
                    if part._process.returncode is not None:
                        raise OSError(f"{Path(command[0]).name} ended with {part._process.returncode}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            await part.stop()
            raise OSError(f"{Path(command[0]).name} does not accept on {at}") from None
        except BaseException:
            await part.stop()
            raise
        return part

    @property
    def pid(self) -> int:
        return self._process.pid

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Fleet:
    """The coordinator, the second edge, the resolver. Files lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[Part] = []
        self.coordinator = ""
        """Its URL."""
        self.token_file = folder / "fleet.token"
        self.second_pid = 0
        self.resolver_port = 0
        """0: there is none."""

    async def coordinate(self) -> None:
        """Raises `OSError`."""
        data = self._folder / "coordinator"
        data.mkdir(mode=0o700)
        token = tokens.add(data / "tokens.json", "demo", [tokens.Scope.ADMIN], now=wall_clock())
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(token, encoding="ascii")
        at = Address("127.0.0.1", free_port("127.0.0.1"))
        config = self._folder / "coordinator.yaml"
        config.write_text(f'coordinator: {{listen: "{at}", data: "{data}", heartbeat: 1s}}\nlog: {{level: error}}\n')
        self._parts.append(await Part.start(*_OURSELVES, "coordinator", "-c", str(config), at=at))
        self.coordinator = f"http://{at}"

    async def second(self, port: int, origin: str) -> None:
        """Raises `OSError`."""
        at = Address(SECOND, port)
        config = self._folder / "second.yaml"
        config.write_text(
            _EDGE.format(address=at, origin=origin, coordinator=self.coordinator, token_file=self.token_file)
        )
        part = await Part.start(*_OURSELVES, "serve", "-c", str(config), at=at)
        self._parts.append(part)
        self.second_pid = part.pid

    async def resolve(self, zone: str, geodns: int) -> None:
        """Raises `OSError`. Nothing where unbound is not installed."""
        program = shutil.which("unbound", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None:
            return
        at = Address("127.0.0.1", free_port("127.0.0.1"))
        config = self._folder / "unbound.conf"
        config.write_text(RESOLVER.format(folder=self._folder, port=at.port, zone=zone, geodns=geodns))
        self._parts.append(await Part.start(program, "-d", "-c", str(config), at=at, told=asyncio.subprocess.DEVNULL))
        self.resolver_port = at.port

    async def close(self) -> None:
        await asyncio.gather(*(part.stop() for part in self._parts))


_OURSELVES = (sys.executable, "-m", "edgecache")


def free_port(host: str) -> int:
    """One that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


async def _accepts(at: Address) -> bool:
    try:
        _, writer = await asyncio.open_connection(at.host, at.port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
