"""Asking a coordinator on behalf of whoever asked this edge: purges go on to it, so that any edge purges the fleet.

A purge is sent under an idempotency key of its own, and once more where the connection broke before the answer: so it
is done once, or it is not known to be done and the error says so. Nothing is applied here; the feed brings it.
"""

import json
import secrets
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp

from edgecache.purge.frames import LISTS
from edgecache.purge.message import EdgeReceipt, PurgeError, PurgeKind, PurgeOrder, PurgeReceipt
from edgecache.purge.transport.trouble import trouble

CONNECT_S: Final = 3.0
ANSWER_S: Final = 60.0
"""The coordinator answers before that: it waits for edges as long as it is told to."""
_OUR_FAULT: Final = frozenset({401, 403})
"""What the coordinator says of this edge's token, and not of whoever has asked."""


class CoordinatorClient:
    def __init__(
        self,
        url: str,
        *,
        token: Callable[[], str | None],
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        connect_s: float = CONNECT_S,
    ) -> None:
        """`token` and `tls` are asked for each call; what they raise as OSError or ValueError is a 503."""
        self._url = url.rstrip("/")
        self._token = token
        self._tls = tls
        self._connect_s = connect_s

    async def purge(
        self, order: PurgeOrder, *, wait: bool, timeout_s: float | None = None, key: str | None = None
    ) -> PurgeReceipt:
        """Raises `PurgeError`: the coordinator's refusal, or 503 where it cannot be asked."""
        body = _body(order, wait=wait)
        if timeout_s is not None:
            body["timeout_s"] = timeout_s
        answer = await self._ask("POST", "/v1/purge", body, key=key or secrets.token_hex(16), answer_s=timeout_s)
        try:
            edges = tuple(
                EdgeReceipt(str(each["edge"]), each["applied"] is True, float(each["duration_s"]))
                for each in answer["edges"]
            )
            away = tuple(str(each) for each in answer.get("away", ()))
            return PurgeReceipt(
                int(answer["sequence"]),
                edges,
                away,
                time=float(answer["time"]),
                again=answer["again"] is True,
                waited=answer["waited"] is True,
            )
        except (KeyError, TypeError, ValueError):
            raise self._strange() from None

    async def purged(self, sequence: int) -> dict[str, Any]:
        """What became of a purge. Raises `PurgeError`."""
        return await self._ask("GET", f"/v1/purge/{sequence}")

    async def edges(self) -> dict[str, Any]:
        """Who is connected. Raises `PurgeError`."""
        return await self._ask("GET", "/v1/edges")

    async def _ask(
        self,
        method: str,
        target: str,
        body: dict[str, Any] | None = None,
        key: str | None = None,
        answer_s: float | None = None,
    ) -> dict[str, Any]:
        headers = {}
        try:
            token, tls = self._token(), self._tls()
        except (OSError, ValueError) as error:
            raise self._unreachable(method, str(error)) from None
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        timeout = aiohttp.ClientTimeout(total=ANSWER_S + (answer_s or 0.0), sock_connect=self._connect_s)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            for again in (False, True):
                try:
                    async with session.request(
                        method, self._url + target, json=body, headers=headers, ssl=tls if tls is not None else True
                    ) as response:
                        return self._read(response.status, await response.read())
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    never_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
                    why = trouble(error, tls=self._url.startswith("https:"))
                    if never_sent and not again:
                        raise self._unreachable(method, why) from None
                    if again:
                        unsure = ": whether it has taken the purge is not known" if method == "POST" else ""
                        raise PurgeError(
                            f"the coordinator at {self._url} gave no answer{unsure}: {why}", status=503
                        ) from None
        raise AssertionError("unreachable")

    def _read(self, status: int, data: bytes) -> dict[str, Any]:
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if status == 200 and isinstance(value, dict):
            return value
        error = value.get("error") if isinstance(value, dict) else None
        if not isinstance(error, dict):
            raise self._strange()
        message = str(error.get("message", "refused"))
        if status in _OUR_FAULT:
            raise PurgeError(f"the coordinator refuses this edge: {message} (purge.token_file)", status=502)
        code = str(error.get("code", ""))
        raise PurgeError(message, path=str(error.get("path", "")), status=status, code=code)

    def _unreachable(self, method: str, why: str) -> PurgeError:
        so = "nothing was purged: " if method == "POST" else ""
        return PurgeError(f"{so}the coordinator at {self._url} cannot be reached: {why}", status=503)

    def _strange(self) -> PurgeError:
        return PurgeError(f"what answers at {self._url} is no purge coordinator", status=502)


def token_from(path: str | None) -> Callable[[], str | None]:
    """Reads the token each time it is needed, so that a new one is taken up. None: no token is shown."""

    def read() -> str | None:
        if path is None:
            return None
        token = Path(path).read_text(encoding="ascii").strip()
        if not token.isprintable() or " " in token or not token:
            raise ValueError(f"the token file {path} holds no token")
        return token

    return read


def _body(order: PurgeOrder, *, wait: bool) -> dict[str, Any]:
    lists = {name: list(getattr(order, name)) for name in LISTS}
    body: dict[str, Any] = {name: values for name, values in lists.items() if values}
    if order.patterns:
        body["patterns"] = [{"url": pattern.url, "host": pattern.host} for pattern in order.patterns]
    body |= {"all": order.everything, "soft": order.kind is PurgeKind.SOFT, "wait": wait}
    return body if order.site is None else {**body, "site": order.site}
