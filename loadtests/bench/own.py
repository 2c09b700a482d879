"""edgecache itself, and what stands beside it: the floor, the origin alone, and a bare aiohttp application."""

import functools
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from .rows import KIB, MIB, Row, Work
from .server import Command, Kind, Launch, Setup, floor_row

_ROOT = Path(os.environ.get("EDGECACHE_TREE") or Path(__file__).resolve().parents[2])
"""Where the edgecache lies that is measured: this checkout, unless something built from it is named."""

_EDGECACHE = """\
listen:
  - address: "127.0.0.1:{port}"
{tls}admin: {{address: "127.0.0.1:{admin_port}"}}
workers: {workers}
log: {{access: {{path: "{log}"}}}}
memory: {{size: {memory_mib}MiB, max_object: 4MiB}}
{disk}sites:
  - origin: {{url: "http://127.0.0.1:{origin_port}"}}
"""


_EDGECACHE_TLS = """\
  - address: "127.0.0.1:{tls_port}"
    tls: {{certificates: [{{cert: "{certificate}", key: "{key}"}}]}}
"""


_EDGECACHE_DISK = """\
disk: {{path: "{path}", size: {size_mib}MiB, admit: always}}
"""


class Edgecache:
    """edgecache as a user starts it: supervisor, workers and control process, all counted."""

    name = "edgecache"
    kind = Kind.CACHE
    forgets_memory = True
    settings = "defaults but memory.size and memory.max_object 4 MiB; access log and metrics on; all processes counted"

    def missing(self) -> str | None:
        """Imports it, so that a checkout that is not built is found here and not at the first row."""
        return _why_not()

    def version(self) -> str:
        """The package's."""
        import edgecache

        return edgecache.__version__

    def leaves_out(self, row: Row) -> str | None:  # noqa: ARG002
        """It does everything."""
        return None

    def prepare(self, setup: Setup) -> Launch:
        """A configuration file rather than options, for the TLS listener."""
        config = setup.directory / "edgecache.yaml"
        tls = _EDGECACHE_TLS.format(tls_port=setup.tls_port, certificate=setup.certificate, key=setup.key)
        config.write_text(
            _EDGECACHE.format(
                port=setup.port,
                tls=tls if setup.tls else "",
                disk=_EDGECACHE_DISK.format(path=setup.disk, size_mib=setup.disk_bytes // MIB)
                if setup.disk is not None
                else "",
                admin_port=setup.spare_ports[0],
                workers=setup.workers,
                log=setup.log,
                memory_mib=setup.memory_bytes // MIB,
                origin_port=setup.origin_port,
            )
        )
        start = (sys.executable, "-m", "edgecache", "serve", "--config", str(config))
        return Launch((Command(start, setup.directory / "output", {"PYTHONPATH": str(_ROOT)}),), setup.log)


@functools.cache
def _why_not() -> str | None:
    command = [sys.executable, "-c", "import edgecache.app"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)
    if done.returncode == 0:
        return None
    last = done.stderr.strip().rpartition("\n")[2]
    return f"this checkout has no `edgecache serve` that can be imported ({last}): make build"


class Floor:
    """The bare epoll loop: what a request costs when nothing is decided, looked up or logged."""

    name = "floor"
    kind = Kind.FLOOR
    forgets_memory = False
    settings = "bare epoll loop in C, a canned answer per port, no log"

    def missing(self) -> str | None:
        """It is compiled at start."""
        return None

    def version(self) -> str:
        """It has none."""
        return "-"

    def leaves_out(self, row: Row) -> str | None:
        """What a canned answer cannot stand beside."""
        return floor_row(row)

    def prepare(self, setup: Setup) -> Launch:
        """A port for each size; size 0 is the 304."""
        sizes = (0, KIB, 16 * KIB, 256 * KIB, MIB)
        ports = dict(zip(sizes, setup.spare_ports, strict=False))
        arguments = [str(number) for size, port in ports.items() for number in (port, size)]
        start = (str(setup.tools / "floor"), *arguments)
        return Launch((Command(start, setup.directory / "output"),), None, ports=ports)


class Origin:
    """The origin asked directly, for the rows where a cache has to ask it each time."""

    name = "origin"
    kind = Kind.ORIGIN
    forgets_memory = False
    settings = "the C origin asked directly, no log"

    def missing(self) -> str | None:
        """It is compiled at start."""
        return None

    def version(self) -> str:
        """It has none."""
        return "-"

    def leaves_out(self, row: Row) -> str | None:
        """It stands beside the pass-through only."""
        return None if row.work is Work.PASS else "the origin alone stands beside the pass-through only"

    def prepare(self, setup: Setup) -> Launch:
        """A second instance of it, on the core of the servers."""
        start = (str(setup.tools / "origin"), str(setup.port))
        return Launch((Command(start, setup.directory / "output"),), None)


_AIOHTTP = """\
import sys
import uvloop
from aiohttp import web

async def answer(request):
    kind, number = request.match_info["kind"], int(request.match_info["number"])
    if kind == "o":
        named = b"object %d\\n" % number
        body = named + PATTERN[: 1024 - len(named)]
    else:
        body = PATTERN[:number]
    return web.Response(body=body, headers={"Cache-Control": "max-age=86400", "ETag": '"s"'})

PATTERN = bytes(range(97, 123)) * (1 << 16)
application = web.Application()
application.router.add_get("/{kind}/{number}", answer)
loop = uvloop.new_event_loop()
web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=loop)
"""


class Aiohttp:
    """A bare aiohttp application on uvloop: what Python's usual server costs. Measured when named."""

    name = "aiohttp"
    kind = Kind.ORIGIN
    forgets_memory = False
    settings = "aiohttp application on uvloop answering from memory, no log"

    def missing(self) -> str | None:
        """aiohttp is a dependency of the package."""
        return None

    def version(self) -> str:
        """The library's."""
        return importlib.metadata.version("aiohttp")

    def leaves_out(self, row: Row) -> str | None:
        """It is there for the plain rows."""
        if row.tls or row.workers > 1 or row.work in {Work.NOT_MODIFIED, Work.DISK}:
            return "the aiohttp application answers plain 200s from one process"
        return None

    def prepare(self, setup: Setup) -> Launch:
        """One file of Python."""
        script = setup.directory / "application.py"
        script.write_text(_AIOHTTP)
        start = (sys.executable, "-W", "ignore", str(script), str(setup.port))
        return Launch((Command(start, setup.directory / "output"),), None)
