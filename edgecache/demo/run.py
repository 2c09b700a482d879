"""`edgecache demo`: the shop, an edge in front of it and GeoDNS, in one process and one event loop, until Ctrl-C.

Beside them runs the rest of a small fleet (`fleet`): a coordinator, a second edge, and a resolver.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

from edgecache.admin import tokens
from edgecache.app import Edge, Shared, StartError
from edgecache.config.model import Config
from edgecache.config.units import Address
from edgecache.demo.directory import AMERICA, AMERICAN, EUROPE, EUROPEAN, NAME, ZONE, Directory
from edgecache.demo.fleet import SECOND, Fleet
from edgecache.demo.origin import Shop
from edgecache.observe import log

LISTEN = Address("127.0.0.1", 8080)
ADMIN = Address("127.0.0.1", 8081)
STOP_S = 5.0
"""How long a page under way may take to end after Ctrl-C; longer than the slow page takes."""
ASK_S = 5.0

Say = Callable[[str], object]


class AdminEdge:
    """The edge as the shop sees it: through its admin API, as any content management system would."""

    def __init__(self, session: aiohttp.ClientSession, token: str) -> None:
        self._session = session
        self._headers = {"Authorization": f"Bearer {token}"}
        self.url = ""

    async def purge(self, key: str) -> str:
        try:
            async with self._session.post(
                f"{self.url}/v1/purge", json={"keys": [key], "wait": True, "timeout_s": 2}, headers=self._headers
            ) as answer:
                said = await answer.json()
                if answer.status != 200:
                    return f"purge of {key} refused: {said['error']['message']}"
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
            return f"purge of {key} failed: {error or type(error).__name__}"
        slowest = max((edge["duration_s"] for edge in said["edges"]), default=0.0)
        applied = [edge["edge"] for edge in said["edges"] if edge["applied"]]
        return f"purged {key}: number {said['sequence']}, applied by {', '.join(applied)} in {slowest * 1000:.2f} ms"

    async def requests(self) -> int | None:
        try:
            async with self._session.get(f"{self.url}/v1/stats") as answer:
                total = (await answer.json())["requests"]["total"]
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError):
            return None
        return int(total)


def run(listen: Address = LISTEN, admin: Address = ADMIN, *, say: Say = print) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code: 0, or 2 where it could not start (and said why)."""
    log.set_up("warning", "human")
    try:
        token = tokens.for_server(None, os.environ, root=os.geteuid() == 0)
    except tokens.TokenError as error:
        say(f"edgecache demo: {error}")
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(listen, admin, token, say))


async def _run(listen: Address, admin: Address, token: str, say: Say) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecache-demo-")))
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)))
        behind = AdminEdge(session, token)
        shop = Shop(behind)
        runner = web.AppRunner(shop.app(), handle_signals=False, access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        origin_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        fleet = Fleet(folder)
        stack.push_async_callback(fleet.close)
        try:
            await fleet.coordinate()
            edge = await _edge(listen, admin, origin_url, token, fleet)
        except (StartError, OSError) as error:
            say(f"edgecache demo: {error}")
            say("Other ports can be chosen: edgecache demo --listen 127.0.0.1:9080 --admin 127.0.0.1:9081")
            return 2
        stack.push_async_callback(edge.close, STOP_S)
        stack.callback(shop.end_feeds)
        port = edge.listeners[0].port
        shop.site_url = _url(Address(listen.host, port))
        behind.url = _url(edge.admin.address)
        dns = Directory(_at_home(listen.host), SECOND, port)
        try:
            await fleet.second(port, origin_url)
            await dns.start()
            stack.push_async_callback(dns.close)
            await fleet.resolve(ZONE, dns.port)
        except OSError as error:
            say(f"edgecache demo: {error}")
            return 2
        say(greeting(shop.site_url, origin_url, behind.url, dns.port, fleet))
        await stop.wait()
        say("Stopping.")
    return 0


async def _edge(listen: Address, admin: Address, origin_url: str, token: str, fleet: Fleet) -> Edge:
    """An edge like any other, but for two things that let a person see what it does. Raises `StartError`.

    It shows surrogate keys; and the *reload* button, which makes browsers ask for `max-age=0`, does not send it to the
    origin (a cache may obey such a wish or not, RFC 9111 §5.2.1).
    """
    config = Config.model_validate(
        {
            "name": "frankfurt",
            "listen": [str(listen)],
            "admin": {"address": str(admin)},
            "memory": {"size": "64MiB"},
            "sites": [{"origin": origin_url, "expose_surrogate_keys": True}],
            "cache": {"honour_request_directives": False},
            "purge": {
                "coordinator": fleet.coordinator,
                "token_file": str(fleet.token_file),
                "max_silence": "5s",
            },
            "log": {"access": {"format": "off"}},
        }
    )
    edge = Edge(config, Shared(config), token)
    await edge.start()
    return edge


def _at_home(host: str) -> str:
    """The address of this machine under which it is reached here."""
    return "127.0.0.1" if host in {"", "0.0.0.0", "::", "::1", "localhost"} else host  # noqa: S104 - compared


def _url(address: Address) -> str:
    """How a browser on this machine reaches it."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - compared
    return f"http://{Address(host, address.port)}"


def _command() -> str:
    """How to call edgecache from another terminal in the same directory."""
    if shutil.which("edgecache"):
        return "edgecache"
    called, tail = (sys.argv[0], "") if sys.argv[0].endswith("/edgecache") else (sys.executable, " -m edgecache")
    near = os.path.relpath(called)
    return (called if near.startswith("..") else near) + tail


def greeting(site: str, origin: str, admin: str, dns: int, fleet: Fleet) -> str:
    """The first lines: where to point a browser, and what to try next."""
    command = _command()
    to = "" if admin == f"http://{ADMIN}" else f" --to {admin}"
    port = site.rpartition(":")[2]
    if fleet.resolver_port:
        resolver = f"127.0.0.1 port {fleet.resolver_port}: unbound, which tells GeoDNS where its clients are"
        ask = f"dig +short -p {fleet.resolver_port} @127.0.0.1 {NAME}"
        asked = (f"{ask} -b {EUROPEAN}", f"{ask} -b {AMERICAN}")
    else:
        resolver = "none: install unbound to see one between clients and GeoDNS"
        ask = f"dig +short -p {dns} @127.0.0.1 {NAME}"
        asked = (f"{ask} +subnet={EUROPE}", f"{ask} +subnet={AMERICA}")
    return f"""\
edgecache demo: listening on {site}

  Open        {site}/
  Origin      {origin}/   (the same shop without the edge)
  Admin API   {admin}/v1/stats
  Edges       frankfurt at {site}, new-york at http://{SECOND}:{port} (process {fleet.second_pid})
  Coordinator {fleet.coordinator}: what is purged at one edge is gone from both
  GeoDNS      127.0.0.1 port {dns}: {NAME} is the nearest edge that is well
  Resolver    {resolver}

To try in another terminal:

  curl -so /dev/null -D - {site}/products/42 | grep -i -e ^cache-status -e ^age    # twice: miss, hit
  {command} explain{to} {site}/products/42
  {command} purge{to} --key product-42 --wait    # a row for each edge
  {command} stats{to}
  {asked[0]}    # a client in Europe
  {asked[1]}    # a client in America
  kill -9 {fleet.second_pid}    # new-york is gone: three seconds later America is sent to frankfurt

Ctrl-C stops it."""
