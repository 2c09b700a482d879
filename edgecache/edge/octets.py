"""Octets of one version of a representation from its origin, in order, whatever becomes of connections meanwhile.

Where a transfer ends before its end it goes on with a request for the rest, under the version's validator (RFC 9110
§14.2, §13.1.5), a bounded number of times; another version is never mixed in.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from edgecache.edge.sites import Site
from edgecache.http.errors import HttpError, OriginError, OriginReset
from edgecache.http.message import BodyStream, EmptyBody, Request
from edgecache.http.stored import StoredResponse
from edgecache.policy import slices

PAUSES_S = (0.0, 0.2, 1.0)
"""Before each further try, while none brings an octet."""


class VersionChanged(HttpError):
    """The origin has another version by now, or none."""

    status = 502

    def __init__(self) -> None:
        super().__init__("the origin's content changed while it was being fetched", code="changed")


@dataclass(frozen=True, slots=True)
class Ask:
    """Whom to ask for octets of which version, and in whose words."""

    site: Site
    request: Request
    """A client's GET."""
    stored: StoredResponse
    """The manifest."""
    to_origin: Callable[[Request], Request]

    @property
    def resumable(self) -> bool:
        return self.stored.sliced is not None and self.stored.sliced.validated


class Octets:
    """Those from `at` to `last`, inclusive."""

    def __init__(self, ask: Ask, at: int, last: int, body: BodyStream | None = None) -> None:
        """`body`: what comes already, beginning with `at`."""
        self._ask = ask
        self.at = at
        self.last = last
        self._body = body
        self._rest = b""
        self._skip = 0
        self._tries = 0
        self.refuses_ranges = False
        """The origin has answered a range with the whole."""

    async def next(self, most: int) -> bytes:
        """At least one octet, at most `most`. Raises `HttpError`: `VersionChanged`, or what the origin's fault is."""
        while True:
            body = await self.open()
            try:
                data = await self._read(body, most)
            except OriginError as error:
                await self._pause(error)
                continue
            if data:
                self._tries = 0
                self.at += len(data)
                return data

    async def open(self) -> BodyStream:
        """Ask, unless it is being answered already. Raises as `next` does."""
        while self._body is None:
            try:
                self._body = await self._open()
            except OriginError as error:
                await self._pause(error)
        return self._body

    async def _pause(self, error: OriginError) -> None:
        """Before another try; raises `error` where there is to be none."""
        self.close()
        if not self._ask.resumable or self._tries >= len(PAUSES_S):
            raise error
        await asyncio.sleep(PAUSES_S[self._tries])
        self._tries += 1

    async def _read(self, body: BodyStream, most: int) -> bytes:
        data = self._rest or await body.read()
        if not data:
            raise OriginReset("the answer ended before its end", code="origin-short")
        if self._skip:
            cut = min(self._skip, len(data))
            self._skip -= cut
            data = data[cut:]
        data, self._rest = data[:most], data[most:]
        return data

    async def _open(self) -> BodyStream:
        ask = self._ask
        headers = slices.question(ask.request.headers, ask.stored, self.at, self.last)
        origin = await ask.site.origin.send(ask.to_origin(ask.request.with_headers(headers)), EmptyBody())
        judged = slices.judge(ask.stored, origin.head, self.at, self.last)
        match judged:
            case slices.Part():
                self._skip = 0
                return origin.body
            case slices.FromStart():
                self.refuses_ranges = True
                self._skip = self.at
                return origin.body
            case slices.Changed():
                origin.body.close()
                raise VersionChanged
            case slices.Refused(status, again):
                origin.body.close()
                raise (OriginError if again else HttpError)(
                    f"the origin answered {status} for a part of what it has", status=status, code="origin-status"
                )
            case _:
                assert_never(judged)

    def rewind(self) -> None:
        """Take what comes from its first octet on: the origin sends the whole, and nothing of it was read yet."""
        assert self.refuses_ranges
        self.at = self._skip = 0
        self.last = self._ask.stored.body_size - 1

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body, self._rest = None, b""
