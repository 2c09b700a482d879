"""What an unsafe request that succeeded makes invalid (RFC 9111 §4.4, RFC 9875 §3)."""

from edgecache.http.cachekey import Uri, parse_uri, resolve
from edgecache.http.message import Request, Response
from edgecache.policy import surrogate

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PRI", "PROPFIND", "QUERY", "REPORT", "SEARCH"})
"""Methods registered as safe (RFC 9110 §9.2.1, §16.1). Every other one is unsafe, known or not."""

MAX_GROUPS = 1000
"""Groups that one answer invalidates; far more than RFC 9875 asks for."""


def invalidated_uris(request: Request, response: Response) -> tuple[Uri, ...]:
    """The target URI, and those in Location and Content-Location of the same origin (§4.4).

    A response is a success when its status is 2xx or 3xx.
    """
    if not _invalidates(request, response):
        return ()
    target = parse_uri(request.scheme, request.authority, request.target)
    found = [target]
    for name in ("location", "content-location"):
        for reference in response.headers.get_all(name):
            uri = resolve(target, reference)
            if uri is not None and uri.same_origin(target) and uri not in found:
                found.append(uri)
    return tuple(found)


def invalidated_groups(request: Request, response: Response) -> tuple[str, ...]:
    """Cache-Group-Invalidation, which counts only in such an answer too (RFC 9875 §3)."""
    if not _invalidates(request, response):
        return ()
    return tuple(dict.fromkeys(surrogate.invalidated_groups(response.headers)))[:MAX_GROUPS]


def _invalidates(request: Request, response: Response) -> bool:
    """A non-error answer to an unsafe method."""
    return request.method not in SAFE and 200 <= response.status < 400
