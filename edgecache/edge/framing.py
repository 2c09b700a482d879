"""Which framing a response gets on its way to an HTTP/1 client, and the field lines that say so.

RFC 9112 §6.3 decides by method, status and version; the fields that belong to the connection are the listener's alone.
Pure: no I/O and no clock.
"""

import email.utils
from enum import IntEnum

from edgecache.http.headers import Headers
from edgecache.http.message import Response


class Framing(IntEnum):
    """How the client finds the end of the body."""

    NONE = 0
    """There is no body, whatever the fields say (HEAD, 1xx, 204, 304)."""
    LENGTH = 1
    CHUNKED = 2
    UNTIL_CLOSE = 3
    """HTTP/1.0 and no length: the end of the connection is the end of the body."""


_CONNECTION, _LENGTH, _DATE, _UPGRADE = range(4)
_OURS: dict[str, int] = {
    "connection": _CONNECTION,
    "keep-alive": _CONNECTION,
    "proxy-connection": _CONNECTION,
    "transfer-encoding": _CONNECTION,
    "content-length": _LENGTH,
    "date": _DATE,
    "upgrade": _UPGRADE,
}


def frame(
    response: Response,
    length: int | None,
    *,
    method: str,
    version: tuple[int, int],
    keep_alive: bool,
    date: str,
) -> tuple[list[tuple[str, str]], Framing, bool]:
    """The lines to send, the body's framing, and whether the connection may go on afterwards."""
    status = response.status
    if method == "HEAD" or status in {204, 304}:
        framing = Framing.NONE
    elif length is not None:
        framing = Framing.LENGTH
    elif version >= (1, 1):
        framing = Framing.CHUNKED
    else:
        framing = Framing.UNTIL_CLOSE
        keep_alive = False

    headers = response.headers
    if framing == Framing.LENGTH and keep_alive and version >= (1, 1) and _says_all(headers, str(length)):
        return list(headers.lines), framing, True
    lines: list[tuple[str, str]] = []
    length_line = dated = upgrade = False
    for name, line in zip(headers.names, headers.lines, strict=True):
        kind = _OURS.get(name)
        if kind is None:
            lines.append(line)
        elif kind == _LENGTH:
            # Kept where it is true, and as metadata where there is no body (RFC 9110 §8.6: never with 204).
            bodyless = framing == Framing.NONE and status != 204
            wanted = bodyless or (framing == Framing.LENGTH and line[1] == str(length))
            if wanted and not length_line:
                lines.append(line)
                length_line = True
        elif kind == _DATE:
            lines.append(line)
            dated = True
        elif kind == _UPGRADE:
            lines.append(line)
            upgrade = True
    if not dated:  # RFC 9110 §6.6.1: a recipient with a clock adds it
        lines.append(("Date", date))
    if framing == Framing.LENGTH and not length_line:
        lines.append(("Content-Length", str(length)))
    elif framing == Framing.CHUNKED:
        lines.append(("Transfer-Encoding", "chunked"))
    if upgrade:
        lines.append(("Connection", "Upgrade" if keep_alive else "Upgrade, close"))
    elif not keep_alive:
        lines.append(("Connection", "close"))
    elif version < (1, 1):
        lines.append(("Connection", "keep-alive"))
    return lines, framing, keep_alive


_FRAMES = frozenset(name for name, kind in _OURS.items() if kind in {_CONNECTION, _UPGRADE})


def _says_all(headers: Headers, length: str) -> bool:
    """Has the response the lines already that it needs, and no other of ours?"""
    return headers.get("content-length") == length and "date" in headers and not headers.touch(_FRAMES)


def switching_lines(response: Response) -> list[tuple[str, str]]:
    """The lines of a 101: Connection must name Upgrade (RFC 9110 §7.8); a body there is none."""
    kept = [line for line in response.headers.lines if _OURS.get(line[0].lower(), _UPGRADE) in {_UPGRADE, _DATE}]
    return [*kept, ("Connection", "Upgrade")]


# --- answers the listener makes itself ---
DETAIL_CODES: dict[int, tuple[str, str]] = {
    400: ("Bad Request", "malformed-request"),
    408: ("Request Timeout", "client-timeout"),
    413: ("Content Too Large", "content-too-large"),
    414: ("URI Too Long", "uri-too-long"),
    417: ("Expectation Failed", "expectation-failed"),
    421: ("Misdirected Request", "misdirected-request"),
    431: ("Request Header Fields Too Large", "fields-too-large"),
    500: ("Internal Server Error", "internal-error"),
    501: ("Not Implemented", "not-implemented"),
    502: ("Bad Gateway", "origin-error"),
    503: ("Service Unavailable", "overloaded"),
    504: ("Gateway Timeout", "origin-timeout"),
    505: ("HTTP Version Not Supported", "http-version"),
    508: ("Loop Detected", "loop"),
}
"""Reason phrase of the answers made here, and the word for `Cache-Status; detail=` where the pipeline gave none."""


def error_answer(status: int, detail: str, cache_status: str = "") -> tuple[Response, bytes]:
    """An answer made here: one line of plain text that says what is wrong (DESIGN §14)."""
    reason, code = DETAIL_CODES.get(status, ("Error", "error"))
    fields = Headers(
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Cache-Control", "no-store"),
            ("Cache-Status", cache_status or f"edgecache; detail={code}"),
        ]
    )
    return Response(status, reason, fields), f"{status} {reason}: {detail}\n".encode()


class _DateLine:
    """The Date value (RFC 9110 §6.6.1), made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def at(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = email.utils.formatdate(second, usegmt=True)
        return self._text


date_line = _DateLine()
