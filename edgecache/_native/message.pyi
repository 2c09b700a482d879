"""Heads of messages as values: immutable, equal when what they hold is equal. `edgecache.http` is where users find
them."""

from collections.abc import Callable, Container, Iterable, Iterator
from typing import final

@final
class Headers:
    """Header fields as they came: order, case and repetition kept, look-ups by lower-case name (RFC 9110 §5).

    An immutable list of field lines. Values are `str` decoded as Latin-1, so that every octet survives the way through
    (RFC 9110 §5.5). Look-up names are given in lower case.
    """

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """`(name, value)` in the order received; the name in the case received."""

    @property
    def names(self) -> tuple[str, ...]:
        """The lower-case name of each line."""

    def __init__(self, lines: Iterable[tuple[str, str]] = ()) -> None: ...
    def __iter__(self) -> Iterator[tuple[str, str]]: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: str) -> bool: ...
    def __hash__(self) -> int: ...
    def get(self, name: str) -> str | None:
        """The combined value: all lines of this name joined by ", " (RFC 9110 §5.3), or None."""

    def get_all(self, name: str) -> list[str]:
        """The values of all lines of this name, in order."""

    def touch(self, names: Container[str]) -> bool:
        """Is the lower-case name of any line in `names`?"""

    def without(self, names: Container[str], plus: Iterable[tuple[str, str]] = ()) -> Headers:
        """These fields less those whose lower-case name is in `names`, then `plus`."""

    def plus(self, lines: Iterable[tuple[str, str]]) -> Headers:
        """These fields, then `lines`."""

    def replaced(self, name: str, value: str, *, spell: Callable[[str], str] = ...) -> Headers:
        """These fields with one line for `name`, where the first was, or at the end where there was none."""

@final
class Peer:
    """Who sent a request: the address the connection came from, not what a header claims."""

    def __init__(self, ip: str, port: int, tls: bool = False) -> None: ...
    def __hash__(self) -> int: ...
    @property
    def ip(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> bool: ...

@final
class Request:
    """A request head (RFC 9110 §6, RFC 9112 §3)."""

    def __init__(
        self,
        method: str,
        scheme: str,
        authority: str,
        target: str,
        headers: Headers,
        version: tuple[int, int] = (1, 1),
        peer: Peer = ...,
    ) -> None: ...
    def __hash__(self) -> int: ...
    @property
    def method(self) -> str: ...
    @property
    def scheme(self) -> str:
        """ "http" or "https": how the client reached us."""

    @property
    def authority(self) -> str:
        """Host and optional port, as the client sent them; valid by RFC 3986 §3.2 and not empty."""

    @property
    def target(self) -> str:
        """Origin form ("/path?query") or "*", octet for octet as sent; absolute form is already resolved."""

    @property
    def headers(self) -> Headers: ...
    @property
    def version(self) -> tuple[int, int]: ...
    @property
    def peer(self) -> Peer: ...
    def with_headers(self, headers: Headers) -> Request: ...
    def with_method(self, method: str) -> Request: ...

@final
class Response:
    """A response head (RFC 9110 §15)."""

    def __init__(self, status: int, reason: str, headers: Headers, version: tuple[int, int] = (1, 1)) -> None: ...
    def __hash__(self) -> int: ...
    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def version(self) -> tuple[int, int]: ...
    def with_headers(self, headers: Headers) -> Response: ...
