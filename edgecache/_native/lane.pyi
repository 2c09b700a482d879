"""What the connections of the fast lane share: sites, answers of Python that are asked for once, and the account."""

from collections.abc import Callable
from typing import final

from edgecache._native.arena import Arena

@final
class LaneSite:
    """What the lane must know of a site."""

    def __init__(
        self,
        name: str,
        cache_status_name: str,
        *,
        plain_query: bool,
        block: int,
        hsts: str = "",
        only_tls: bool = False,
    ) -> None:
        """`plain_query`: the query is part of the cache key as it is. `block`: where its counters begin. `hsts`: value
        of Strict-Transport-Security over TLS, none if empty. `only_tls`: requests over plain HTTP take judgement."""

@final
class Lane:
    """What all connections of a worker share."""

    open: bool
    """Set to False to send every request the ordinary way."""
    served: int
    """Requests answered here."""

    def __init__(
        self,
        arena: Arena,
        secret: bytes,
        *,
        find_site: Callable[[str], LaneSite | None],
        secondary_key: Callable[[bytes, list[tuple[str, str]]], bytes | None],
        readable_date: Callable[[str], bool],
        redact: Callable[[str], str],
        trusts: Callable[[str], bool],
        received_by: str,
        request_line: int,
        field_line: int,
        head: int,
        fields: int,
        slots: tuple[int, int, int, int],
        log_form: str = "off",
        log_bytes: int = 1 << 20,
        log_full: Callable[[], None] | None = None,
        stamp: Callable[[int], str] | None = None,
        files: str = "",
    ) -> None:
        """The callables are asked once for what is met for the first time; their answers are kept.

        `find_site`: by authority. `secondary_key`: by a vary marker's meta and the request's lines; None where it
        takes judgement. `slots`: number of histogram buckets; offsets of the hits' cells, octets sent and aborted
        within a site's block (observe/slots.py). `stamp`: the access log's form of a second. `files`: the
        directory of bodies that stay on disk; none are sent from here, where it is empty.
        """

    def take_uses(self) -> dict[bytes, int]:
        """How often bodies in files were sent since the last call, by the file's name."""

    def drain_log(self) -> tuple[bytes, int, int]:
        """(log lines made since the last call, their number, how many had no room)."""
