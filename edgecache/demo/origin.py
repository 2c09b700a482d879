"""The demo's origin: an ordinary little web site that knows nothing of caches but the fields it sends.

It doubles as the content management system: *publish* changes a product and purges its surrogate key through the
edge's admin API. The browser never sees that API; what the edge has counted reaches the page through `/demo/feed`.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from edgecache.demo import pages
from edgecache.demo.catalogue import Catalogue, Product
from edgecache.http.clock import wall_clock

SLOW_S = 3.0
FEED_EVERY_S = 1.0
"""How often an open page's tally is brought up to date; events at the origin are sent at once."""
HEARTBEAT_S = 15.0
"""Less than the edge's patience between bytes (`origin.api.Timeouts`)."""

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Edge(Protocol):
    """What the shop needs of the edge in front of it."""

    async def purge(self, key: str) -> str:
        """Purge a surrogate key; one line that says what came of it. Never raises."""
        ...

    async def requests(self) -> int | None:
        """Requests the edge has answered so far; None while it cannot be asked."""
        ...


class Tally:
    """What the origin saw, and who wants to hear of it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.seen = 0
        self.own = 0
        """Requests of the panel itself, in neither figure."""
        self.log: deque[dict[str, str]] = deque(maxlen=12)
        self._changed = asyncio.Event()
        self._now = now

    def note(self, what: str, kind: str = "") -> None:
        self.log.appendleft({"at": pages.clock_face(self._now()), "what": what, "kind": kind})
        self.wake()

    def wake(self) -> None:
        """Everyone who waits now is woken; who comes later waits for the next."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, within_s: float) -> None:
        """Returns at the next change, or after `within_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()


class Shop:
    """The origin's handlers."""

    def __init__(self, edge: Edge, *, now: Callable[[], float] = wall_clock, slow_s: float = SLOW_S) -> None:
        self.catalogue = Catalogue()
        self.tally = Tally(now)
        self.site_url = "http://127.0.0.1:8080"
        """How people reach the shop: for the command lines it shows."""
        self._edge = edge
        self._now = now
        self._slow_s = slow_s
        self._closing = False

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._count])
        number = "{number:[0-9]{1,9}}"
        app.add_routes(
            [
                web.get("/", self._plain(pages.home)),
                web.get("/products", self._plain(lambda now: pages.products(self.catalogue, now))),
                web.get(f"/products/{number}", self._of_product(pages.product)),
                web.get(f"/products/{number}.svg", self._of_product(lambda item, _: pages.product_picture(item))),
                web.post(f"/products/{number}/publish", self._publish),
                web.get("/kiln", self._plain(pages.kiln)),
                web.get("/about", self._plain(pages.about)),
                web.get("/basket", self._plain(pages.basket)),
                web.get("/slow", self._slow),
                web.get("/hello", self._hello),
                web.get("/assets/{name}", self._asset),
                web.get("/demo/feed", self._feed),
            ]
        )
        return app

    def end_feeds(self) -> None:
        """End the open feeds, so that an edge that drains is not kept waiting for a stream without end."""
        self._closing = True
        self.tally.wake()

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/demo/"):
            try:
                return await handler(request)
            finally:
                self.tally.own += 1  # the edge counts a request when it has ended
        self.tally.seen += 1
        try:
            response = await handler(request)
        except web.HTTPNotFound:
            response = _reply(request, pages.missing(self._now()))
        self.tally.note(f"{request.method} {request.path} → {response.status}")
        return response

    def _plain(self, page: Callable[[float], pages.Page]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return _reply(request, page(self._now()))

        return handle

    def _of_product(self, page: Callable[[Product, float], pages.Page]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            item = self.catalogue.get(int(request.match_info["number"]))
            if item is None:
                raise web.HTTPNotFound
            return _reply(request, page(item, self._now()))

        return handle

    async def _publish(self, request: web.Request) -> web.StreamResponse:
        # A page of another site must not be able to press the button: browsers say where a request comes from.
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise web.HTTPForbidden(text="publish from the shop's own pages\n")
        number = int(request.match_info["number"])
        if self.catalogue.get(number) is None:
            raise web.HTTPNotFound
        item = self.catalogue.publish(number)
        self.tally.note(f"published version {item.version} of {item.title}", "purge")
        # Change first, purge after: a fetch that slips between the two is older than the purge, and never served.
        self.tally.note(await self._edge.purge(item.key), "purge")
        return web.Response(
            status=303, headers={**SECURITY, "Location": f"/products/{number}", "Cache-Control": "no-store"}
        )

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self._slow_s)
        return _reply(request, pages.slow(self._now(), self.site_url))

    async def _hello(self, request: web.Request) -> web.StreamResponse:
        language = pages.choose_language(request.headers.get("Accept-Language", ""))
        return _reply(request, pages.hello(language, self._now(), self.site_url))

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        page = pages.asset(request.match_info["name"])
        if page is None:
            raise web.HTTPNotFound
        return _reply(request, page)

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the tally whenever it changes. Streams through the edge like anything uncacheable."""
        response = web.StreamResponse(
            headers={**SECURITY, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        sent, quiet_s = "", 0.0
        # The browser may go at any time: then there is nobody to tell.
        with contextlib.suppress(ConnectionError):
            while not self._closing:
                state = await self._state()
                if state != sent:
                    await response.write(f"data: {state}\n\n".encode())
                    sent, quiet_s = state, 0.0
                elif quiet_s >= HEARTBEAT_S:
                    await response.write(b": still here\n\n")
                    quiet_s = 0.0
                await self.tally.changed(FEED_EVERY_S)
                quiet_s += FEED_EVERY_S
        return response

    async def _state(self) -> str:
        served = await self._edge.requests()
        edge = None if served is None else max(served - self.tally.own, 0)
        return json.dumps({"edge": edge, "origin": self.tally.seen, "log": list(self.tally.log)})


def _reply(request: web.Request, page: pages.Page) -> web.Response:
    """The page, or 304 where the asker has it already (RFC 9110 §13.1.2: weak comparison)."""
    headers = {**SECURITY, **page.headers}
    etag = page.headers.get("ETag", "").removeprefix("W/")
    asked = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    if etag and etag in asked:
        return web.Response(status=304, headers=headers)
    return web.Response(status=page.status, body=page.body, headers=headers | {"Content-Type": page.content_type})
