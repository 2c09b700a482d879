"""Purge requests of other products on the admin listener: aiohttp's side of the dialects.

Their own methods and paths are theirs alone, and every one of them needs the token, so that the guard of the admin API,
which a `Host` from elsewhere does not pass, is not needed for them: in a PURGE, Host says which site is meant.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from edgecache.admin.dialects.desk import Admit, Desk
from edgecache.http.headers import Headers
from edgecache.http.message import Request


def speaks(desk: Desk, admit: Callable[[web.Request], Admit]) -> Middleware:
    """Answers what the desk finds to be one of its own, and leaves the rest alone. `admit`: by where it comes from."""

    @web.middleware
    async def speak(request: web.Request, handler: Handler) -> web.StreamResponse:
        ours = as_request(request)
        found = desk.find(ours)
        if found is None:
            return await handler(request)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            answer = desk.too_large(found)
        else:
            answer = await desk.answer(found, ours, body, admit(request))
        response = answer.response
        return web.Response(
            status=response.status, reason=response.reason or None, headers=list(response.headers), body=answer.body
        )

    return speak


def as_request(request: web.Request) -> Request:
    """The same request in our own terms; without an authority where Host is missing or there twice."""
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
    target = request.raw_path.encode("utf-8", "surrogateescape").decode("latin-1")
    hosts = headers.get_all("host")
    authority = hosts[0] if len(hosts) == 1 else ""
    if not target.startswith("/") and "://" in target:
        parts = urlsplit(target)
        authority = parts.netloc
        target = target.partition("://")[2].removeprefix(authority) or "/"
        if not target.startswith("/"):
            target = f"/{target}"
    return Request(request.method, "http", authority, target, headers)
