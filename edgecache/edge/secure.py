"""From plain HTTP to TLS: who is sent there, and with what words. Pure."""

from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response

HSTS = "strict-transport-security"


def over_tls(request: Request, *, believed: bool) -> bool:
    """Did the client ask over TLS: us, or a proxy before us that is `believed`?"""
    if request.scheme == "https":
        return True
    said = request.headers.get("x-forwarded-proto") if believed else None
    return said is not None and said.rpartition(",")[2].strip().lower() == "https"


def redirect(request: Request, port: int, cache_status: str) -> Response:
    """The same URL with https. A method that may carry a body is to be repeated as it is (RFC 9110 §15.4.9)."""
    host = request.authority
    bare = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    target = request.target if request.target.startswith("/") else "/"
    location = f"https://{bare}{'' if port == 443 else f':{port}'}{target}"
    status, reason = (301, "Moved Permanently") if request.method in ("GET", "HEAD") else (308, "Permanent Redirect")
    return Response(status, reason, Headers([("Location", location), ("Cache-Status", cache_status)]))
