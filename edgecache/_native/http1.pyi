"""HTTP/1.1 framing (RFC 9112), strict: bytes in, events out. No I/O, no clock, no policy.

What these decoders accept, every other reader of HTTP reads the same way; whatever two readers might read
differently (both lengths, bare LF, folded lines, space before a colon, odd chunk sizes) is an error. They never
repair. Feeding whole, byte by byte or with bytes after the end gives the same events (a body cut in other places).

Choices where the RFCs leave one:
- Host and the authority of a target: not empty; a port after ":" is 1 to 65535 in at most five digits; an address in
  brackets is IPv6 without zone; otherwise a reg-name of RFC 3986. Without Host, HTTP/1.0 has `host` "".
- Minor versions above 1 are read as 1.1 (RFC 9110 §2.5); a line without a version, other majors and lower-case names
  are 505, what is no version at all is 400. Two empty lines are tolerated before a request line (RFC 9112 §2.2).
- Content-Length: one line of at most 19 digits, up to 2^63-1 (beyond: 413); repeated is an error, equal or not.
- Chunk sizes have at most 16 digits and no white space behind them; extensions are checked by the grammar and
  dropped, and in all may be 64 KiB longer than the data.
- Trailers: Content-Length, Transfer-Encoding and Host are an error; connection options, Expect, Content-Type,
  -Encoding and -Range are left out, since they mean nothing there (RFC 9110 §6.5.1); the rest is handed on.
- Connection options are looked for; a member that is no token is passed over, as it cannot change the framing.
"""

from typing import Final, final

class FramingError(Exception):
    """The peer's octets break RFC 9112. Nothing that follows them can be trusted: close the connection."""

    status: int
    """For requests the status to answer (400, 413, 414, 417, 431, 501, 505); for responses always 502."""
    detail: str
    """One line that names what is wrong and the section, with no octet of the peer's in it."""
    def __init__(self, status: int, detail: str) -> None: ...

@final
class Limits:
    """Bounds on what a stranger can send; octets unless named otherwise."""

    def __init__(
        self,
        *,
        request_line: int = 16384,
        field_line: int = 16384,
        head: int = 65536,
        fields: int = 128,
        chunk_line: int = 256,
        trailer_fields: int = 32,
    ) -> None: ...

@final
class RequestHead:
    method: str
    target: str
    """As sent, Latin-1: origin form, absolute form, "*" or authority form; octets outside RFC 3986's set that
    cannot split anything (such as raw UTF-8) pass, CTLs and spaces do not."""
    version: tuple[int, int]
    """(1, 0) or (1, 1)."""
    lines: list[tuple[str, str]]
    """Field lines in order; names in the case sent, values less surrounding white space, Latin-1."""
    host: str
    """The one valid Host value, or the authority of an absolute-form target, which wins (RFC 9112 §3.2.2)."""
    scheme: str | None
    """Of an absolute-form target, lower case; else None."""
    path: str
    """The target in origin form ("/…?…"), or "*", or "" for CONNECT."""
    content_length: int | None
    """Octets of body that follow; 0 for none; None for chunked."""
    keep_alive: bool
    """May another request follow on this connection (RFC 9112 §9.3)?"""
    expect_continue: bool
    upgrade: str | None
    """The Upgrade value, only where Connection names it and the version is 1.1 (RFC 9110 §7.8)."""

@final
class ResponseHead:
    status: int
    reason: str
    version: tuple[int, int]
    lines: list[tuple[str, str]]
    content_length: int | None
    """Octets of body; 0 for none (HEAD, 1xx, 204, 304); None for chunked or until-close."""
    chunked: bool
    keep_alive: bool
    """May the connection be used again after this message? False for until-close bodies."""

@final
class End:
    """The end of a message."""

    trailers: list[tuple[str, str]]

@final
class RequestDecoder:
    """Reads requests, one after another. Pull: `feed` what arrived, then `next` until it returns None."""

    def __init__(self, limits: Limits) -> None: ...
    def feed(self, data: bytes) -> None: ...
    def next(self) -> RequestHead | bytes | End | None:
        """The next event, or None when more octets are needed.

        After `End` it returns None until `resume` is called, even if a pipelined request is buffered.
        Raises `FramingError`, and again on every later call.
        """

    def resume(self) -> None:
        """Go on to the next request on this connection. Raises RuntimeError before `End`; of no effect after an
        error."""

    @property
    def buffered(self) -> int:
        """Octets fed and not yet returned: pause reading when it is large."""

    @property
    def in_message(self) -> bool:
        """A request line has begun and its message has not ended: an EOF now is a cut-off request."""

    def take_rest(self) -> bytes:
        """All that is buffered, given up as raw octets: for tunnels (Upgrade, CONNECT)."""

@final
class ResponseDecoder:
    """Reads the responses of one origin connection. `begin` says which request the next one answers."""

    def __init__(self, limits: Limits) -> None: ...
    def begin(self, method: str) -> None:
        """The next response answers a request of this method. Octets that came before it make `next` raise: they
        cannot be its answer. Raises RuntimeError while a response is under way."""

    def feed(self, data: bytes) -> None: ...
    def feed_eof(self) -> None:
        """The origin closed. Ends an until-close body; cuts off any other (the next `next` raises)."""

    def next(self) -> ResponseHead | bytes | End | None:
        """As in `RequestDecoder`. An interim (1xx) head is returned and another head follows; after 101 the rest
        is raw octets (`take_rest`), as after 2xx to CONNECT: no `End` then. Octets that arrive with no request
        begun raise `FramingError`."""

    @property
    def buffered(self) -> int: ...
    @property
    def idle(self) -> bool:
        """No message under way, nothing buffered, not closed, and the last response let it: the connection may be
        used again."""

    def take_rest(self) -> bytes: ...

def encode_request_head(method: str, target: str, lines: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> bytes:
    """The wire form of a head. Raises ValueError for a name, value, method or target that would break framing."""

def encode_response_head(status: int, reason: str, lines: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> bytes:
    """The same for a response; HTTP/1.1, with the empty line at the end."""

def encode_chunk(data: bytes) -> bytes:
    """`data` as one chunk (RFC 9112 §7.1); never called with b""."""

def encode_last_chunk(trailers: list[tuple[str, str]] | tuple[tuple[str, str], ...] = ()) -> bytes: ...

MAX_EVENT: Final[int]
"""A body event holds at most this many octets (256 KiB)."""
