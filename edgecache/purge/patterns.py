"""Regular expressions on URLs: what one may be, and how it is read. Pure.

They are RE2's: no look-around and no back references, and in exchange the time a match takes grows with the lengths of
pattern and URL alone, whatever they are. Nothing that a client sends can make one run away.
"""

import importlib.util
from functools import cache, lru_cache
from typing import Any, Final, Protocol

from edgecache.purge.message import PurgeError, PurgeOrder, UrlPattern

MAX_LENGTH: Final = 1024
MAX_PATTERNS: Final = 1000
"""In force at once, here as in the arena; beyond that the oldest purge their host, or everything."""
MAX_MEMORY: Final = 256 << 10
"""Octets that a compiled pattern may take; one that needs more to begin with is refused."""


class Matcher(Protocol):
    """What is used of RE2's compiled patterns."""

    @property
    def programsize(self) -> int: ...
    def search(self, text: bytes) -> object: ...


@cache
def installed() -> bool:
    return importlib.util.find_spec("re2") is not None


@lru_cache(maxsize=2 * MAX_PATTERNS)
def compiled(text: str) -> Matcher:
    """Raises `PurgeError`."""
    import re2  # an extra, wanted by those alone who enable patterns

    options: Any = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = MAX_MEMORY
    options.never_capture = True
    options.log_errors = False
    try:
        found: Matcher = re2.compile(text.encode("latin-1"), options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        why = said.decode("latin-1") if isinstance(said, bytes) else str(said)
        raise PurgeError(f"not a regular expression in RE2's syntax: {why}") from error
    return found


def check_pattern(pattern: UrlPattern, path: str) -> None:
    """Raises `PurgeError`."""
    text, host = pattern.url, pattern.host
    if not 0 < len(text) <= MAX_LENGTH:
        raise PurgeError(f"a pattern has 1 to {MAX_LENGTH} characters", path=f"{path}.url")
    if not text.isascii() or not text.isprintable():
        raise PurgeError("a pattern is printable ASCII; in URLs everything else is %-encoded", path=f"{path}.url")
    if host is not None and (not host or any(c in host for c in "/?#@ ") or not host.isascii()):
        raise PurgeError("a host is a name or an address, without scheme or path", path=f"{path}.host")
    if installed():
        try:
            compiled(text)
        except PurgeError as error:
            raise PurgeError(error.detail, path=f"{path}.url") from error


def check_enabled(order: PurgeOrder, *, enabled: bool, setting: str) -> None:
    """`setting`: the key that would enable them. Raises `PurgeError`."""
    if order.patterns and not enabled:
        raise PurgeError(
            f"purging by regular expression is not enabled here: set {setting} to match, or name URLs, keys, hosts or "
            "prefixes",
            path="patterns",
        )
