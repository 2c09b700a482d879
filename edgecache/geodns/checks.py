"""Looking after PoPs: HTTP, HTTPS and TCP checks, the coordinator's list of edges, and the file of drained PoPs.

`Checker` runs them all and calls `changed` after whatever may alter an answer. Only one process of a node checks. A
check is one connection, closed at its end, that says in its User-Agent who asks.
"""

import asyncio
import contextlib
import errno
import json
import logging
import random
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgecache import __version__
from edgecache._native.http1 import End, FramingError, Limits, ResponseDecoder, ResponseHead, encode_request_head
from edgecache.config.geodns import CheckConfig, CoordinatorConfig, GeoDnsConfig, PopConfig
from edgecache.geodns.health import PopHealth, period_s, pop_health
from edgecache.http.tasks import spawn

_log = logging.getLogger("edgecache.geodns")

USER_AGENT = f"edgecache-geodns/{__version__} (health check)"
MOST_BODY = 65_536
_MOST_LIST = 8 << 20
_FILE_S = 1.0
_LIMITS = Limits()


class CheckFailed(Exception):
    """What was wrong, in a few words."""


class NoWay(CheckFailed):
    """This machine has no way there, such as no IPv6 at all: that says nothing of the PoP."""


_NO_WAY = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


async def get(
    host: str,
    port: int,
    target: str,
    authority: str,
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    most: int = MOST_BODY,
    whole: bool = False,
) -> tuple[int, bytes]:
    """One GET. The status and the first `most` octets of the body. Raises `CheckFailed`, OSError, `FramingError`.
    `whole`: a longer body is an error."""
    reader, writer = await asyncio.open_connection(
        host, port, ssl=tls, server_hostname=(server_name or host) if tls is not None else None
    )
    try:
        lines = [("Host", authority), ("User-Agent", USER_AGENT), ("Accept", "*/*"), ("Connection", "close"), *headers]
        writer.write(encode_request_head("GET", target, lines))
        decoder = ResponseDecoder(_LIMITS)
        decoder.begin("GET")
        status, body = 0, b""
        while True:
            event = decoder.next()
            if event is None:
                data = await reader.read(65_536)
                if data:
                    decoder.feed(data)
                else:
                    decoder.feed_eof()
            elif isinstance(event, ResponseHead):
                status = event.status
                if status == 101:
                    raise CheckFailed("status 101")
            elif isinstance(event, End):
                return status, body
            else:
                body += event
                if len(body) > most:
                    if whole:
                        raise CheckFailed("the answer is too long")
                    return status, body[:most]
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError, TimeoutError):
            writer.transport.abort()


async def check_address(address: str, check: CheckConfig) -> str:
    """One check of one address; what it saw. Raises `CheckFailed`."""
    port = check.port or (80 if check.type == "http" else 443)
    try:
        async with asyncio.timeout(check.timeout_s):
            if check.type == "tcp":
                _, writer = await asyncio.open_connection(address, port)
                writer.transport.abort()
                return "connected"
            bare = f"[{address}]" if ":" in address else address
            authority = check.host or bare
            if check.port is not None:
                authority += f":{port}"
            status, body = await get(address, port, check.path, authority, tls=_tls(check), server_name=check.host)
    except TimeoutError:
        raise CheckFailed(f"no answer within {check.timeout_s:g} s") from None
    except ssl.SSLError as error:
        raise CheckFailed(f"TLS: {error.reason or error}") from error
    except FramingError as error:
        raise CheckFailed(f"no HTTP: {error.detail}") from error
    except OSError as error:
        if error.errno in _NO_WAY:
            raise NoWay(error.strerror or "no way there") from error
        raise CheckFailed(error.strerror or str(error) or type(error).__name__) from error
    if not any(_within(status, accepted) for accepted in check.statuses):
        raise CheckFailed(f"status {status}")
    if check.body is not None and re.search(check.body, body.decode("utf-8", "replace")) is None:
        raise CheckFailed(f"status {status}, but the body does not match")
    return f"status {status}"


def judge(seen: "list[str | BaseException]") -> tuple[bool, str]:
    """Are all addresses good that could be looked at? And what was seen, the worst first."""
    bugs = [one for one in seen if isinstance(one, BaseException) and not isinstance(one, CheckFailed)]
    if bugs:
        raise bugs[0]
    failed = [one for one in seen if isinstance(one, CheckFailed) and not isinstance(one, NoWay)]
    good = [one for one in seen if isinstance(one, str)]
    return bool(good) and not failed, str([*failed, *good, *seen][0])


def _tls(check: CheckConfig) -> ssl.SSLContext | None:
    """Verified where there is a name to verify; a bare address has a certificate for none."""
    if check.type != "https":
        return None
    context = ssl.create_default_context()
    if check.host is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _within(status: int, accepted: str) -> bool:
    low, _, high = accepted.partition("-")
    return int(low) <= status <= int(high or low)


class Checker:
    """Keeps every PoP's health."""

    def __init__(self, config: GeoDnsConfig, changed: Callable[[], None]) -> None:
        """`changed`: something may have; called often, cheaply told apart by whoever is told."""
        self._config = config
        self._changed = changed
        self.pops = [pop_health(pop.name, pop.check or config.check, config.coordinator) for pop in config.pops]
        self._by_name = {pop.name: pop for pop in self.pops}
        self._api_drained: set[str] = set()
        self._file_drained: frozenset[str] = frozenset()
        self._file_told = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._random = random.Random()  # noqa: S311 - jitter

    def __getitem__(self, name: str) -> PopHealth:
        return self._by_name[name]

    def order(self, drained: set[str], pushed: dict[str, bool]) -> None:
        """What people said by the API, now or to a process before this one."""
        self._api_drained = drained
        for pop in self.pops:
            pop.pushed = pushed.get(pop.name)
        self._settle()

    def _settle(self) -> None:
        for pop, given in zip(self.pops, self._config.pops, strict=True):
            pop.drained = (
                "config" if given.drained
                else "file" if pop.name in self._file_drained
                else "api" if pop.name in self._api_drained
                else ""
            )  # fmt: skip
        self._changed()

    async def start(self) -> None:
        """Looks once at everything, and then goes on looking. Nothing is answered before the first look is done."""
        self._read_file()
        self._settle()
        first = []
        for pop, given in zip(self.pops, self._config.pops, strict=True):
            if pop.checked is not None:
                first.append(self._look(pop, given))
        coordinator = self._config.coordinator
        if coordinator is not None:
            first.append(self._ask(coordinator))
        await asyncio.gather(*first)
        self._changed()
        for pop, given in zip(self.pops, self._config.pops, strict=True):
            if pop.checked is not None:
                self._tasks.append(spawn(self._keep_looking(pop, given), f"checks of {pop.name}"))
        if coordinator is not None:
            self._tasks.append(spawn(self._keep_asking(coordinator), "the coordinator's edges"))
        if self._config.drain_file is not None:
            self._tasks.append(spawn(self._watch_file(), "the drain file"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- checks ---

    async def _look(self, pop: PopHealth, given: PopConfig) -> None:
        check = given.check or self._config.check
        before = pop.why
        assert pop.checked is not None
        looks = [check_address(one, check) for one in check.addresses or given.addresses]
        seen = await asyncio.gather(*looks, return_exceptions=True)
        good, pop.detail = judge(seen)
        pop.checked.seen(good)
        if pop.why != before:
            say = _log.info if pop.checked.up else _log.warning
            say("PoP %s: %s (%s)", pop.name, pop.why, pop.detail)
        self._changed()

    async def _keep_looking(self, pop: PopHealth, given: PopConfig) -> None:
        check = given.check or self._config.check
        period = period_s(check)
        loop = asyncio.get_running_loop()
        at = loop.time() + period * self._random.random()  # PoPs that start together do not stay together
        while True:
            await asyncio.sleep(max(0.0, at - loop.time()))
            at = loop.time() + period * (1 - check.jitter * self._random.random())
            await self._look(pop, given)

    # --- the coordinator ---

    async def _ask(self, coordinator: CoordinatorConfig) -> None:
        """A coordinator that does not answer says nothing of the edges: the checks go on alone."""
        try:
            async with asyncio.timeout(max(coordinator.interval_s, 1.0)):
                listed, current = await self._edges(coordinator)
        except (OSError, TimeoutError, CheckFailed, FramingError, ValueError, LookupError, TypeError) as error:
            _log.debug("the coordinator did not say which edges are there: %s", error or type(error).__name__)
            return
        for pop, given in zip(self.pops, self._config.pops, strict=True):
            if pop.connected is None:
                continue
            edges = set(given.edges or (given.name,))
            if not pop.connected.known and edges.isdisjoint(listed):
                continue  # it never heard of them: a PoP of another kind
            before = pop.why
            pop.connected.seen(not edges.isdisjoint(current))
            if pop.why != before:
                _log.info("PoP %s: %s", pop.name, pop.why)
        self._changed()

    async def _edges(self, coordinator: CoordinatorConfig) -> tuple[set[str], set[str]]:
        """Those it knows, and of them those that are connected and current."""
        url = urlsplit(coordinator.url)
        tls = ssl.create_default_context() if url.scheme == "https" else None
        headers: tuple[tuple[str, str], ...] = ()
        if coordinator.token_file is not None:
            token = await asyncio.to_thread(Path(coordinator.token_file).read_text, encoding="ascii")
            headers = (("Authorization", f"Bearer {token.strip()}"),)
        assert url.hostname is not None
        port = url.port or (443 if tls is not None else 80)
        status, body = await get(
            url.hostname,
            port,
            f"{url.path}/v1/edges",
            url.netloc,
            tls=tls,
            headers=headers,
            most=_MOST_LIST,
            whole=True,
        )
        if status != 200:
            raise CheckFailed(f"status {status}")
        answer: dict[str, Any] = json.loads(body)
        edges = answer["edges"]
        current = {edge["edge"] for edge in edges if edge["connected"] and int(edge["lag"]) <= coordinator.max_lag}
        return {edge["edge"] for edge in edges}, current

    async def _keep_asking(self, coordinator: CoordinatorConfig) -> None:
        while True:
            await asyncio.sleep(coordinator.interval_s)
            await self._ask(coordinator)

    # --- the file ---

    async def _watch_file(self) -> None:
        while True:
            await asyncio.sleep(_FILE_S)
            if self._read_file():
                self._settle()

    def _read_file(self) -> bool:
        """True where it says something else than before. No file: nobody is drained by it."""
        if self._config.drain_file is None:
            return False
        try:
            text = Path(self._config.drain_file).read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            if str(error) != self._file_told:
                self._file_told = str(error)
                _log.error("the drain file cannot be read, what it said before stays: %s", error)
            return False
        named = {line.partition("#")[0].strip() for line in text.splitlines()} - {""}
        found = frozenset(named & self._by_name.keys())
        unknown = ", ".join(sorted(named - self._by_name.keys()))
        if unknown and unknown != self._file_told:
            _log.warning("the drain file names PoPs that are not there: %s", unknown)
        self._file_told = unknown
        changed = found != self._file_drained
        if changed:
            _log.info("drained by file: %s", ", ".join(sorted(found)) or "nobody")
        self._file_drained = found
        return changed
