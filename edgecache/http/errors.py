"""What can go wrong with a message, each error with the status it becomes (converted once, at the listener).

`HttpError` is the package's root. `detail` is one line of plain text for the client and the log; `code` is the
word of it in `Cache-Status; detail=` and in metrics.
"""


class HttpError(Exception):
    """Root of all message errors."""

    status: int = 500

    def __init__(self, detail: str, *, status: int | None = None, code: str = "error") -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        if status is not None:
            self.status = status


class RequestError(HttpError):
    """The client's message is at fault (4xx, 501, 505). The connection is closed after the answer."""

    status = 400


class ClientGone(HttpError):
    """The client closed or reset the connection; there is nobody to answer."""

    status = 499


class OriginError(HttpError):
    """The origin's side is at fault."""

    status = 502

    before_bytes: bool = False
    """True when no octet of the request can have reached an origin, so that another may be asked."""


class OriginRefused(OriginError):
    """No connection: refused, unreachable, unresolvable, TLS not verified (502)."""

    before_bytes = True


class OriginReset(OriginError):
    """The connection ended in the middle of an answer, or before one (502)."""


class OriginMalformed(OriginError):
    """The answer breaks RFC 9112 (502, never stored)."""


class OriginTimeout(OriginError):
    """Connecting, the first byte or the next one took too long (504)."""

    status = 504


class OriginUnavailable(OriginError):
    """Every origin is marked down, or the limit of connections and waiters is reached (503)."""

    status = 503
    before_bytes = True
