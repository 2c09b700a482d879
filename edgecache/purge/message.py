"""What a purge says: the order somebody gives, and the numbered message that the log makes of it (DESIGN §7)."""

from dataclasses import dataclass
from enum import StrEnum


class PurgeKind(StrEnum):
    HARD = "hard"
    """What is purged is gone."""
    SOFT = "soft"
    """What is purged is stale from that moment: usable only where stale responses are."""


@dataclass(frozen=True, slots=True)
class UrlPattern:
    """A regular expression on URLs."""

    url: str
    """Found anywhere in path and query, unless it has anchors."""
    host: str | None = None
    """None: on every host."""


@dataclass(frozen=True, slots=True)
class PurgeOrder:
    """A purge as asked for, applied as one atomic step."""

    urls: tuple[str, ...] = ()
    """Absolute URLs: every variant of each."""
    keys: tuple[str, ...] = ()
    """Surrogate keys, compared octet for octet."""
    hosts: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    """`[scheme://]host[:port]/path/`: everything at or below the path, cut at segment boundaries."""
    everything: bool = False
    site: str | None = None
    """The site whose keys and groups (or whose everything) are meant; None: all sites."""
    kind: PurgeKind = PurgeKind.HARD
    source: str = "admin"
    """Who asked, for the audit record; never a secret."""
    caseless: tuple[str, ...] = ()
    """Surrogate keys, spaces allowed, that mean themselves and what they are in lower case (of ASCII): as Cloudflare
    compares tags, where `Cache-Tag` makes keys in lower case too."""
    groups: tuple[str, ...] = ()
    """Cache groups (RFC 9875): surrogate keys that may be any text, spaces included."""
    patterns: tuple[UrlPattern, ...] = ()

    @property
    def targets(self) -> int:
        """How many things it names, beside everything."""
        named = (self.urls, self.keys, self.caseless, self.groups, self.hosts, self.prefixes, self.patterns)
        return sum(map(len, named))


@dataclass(frozen=True, slots=True)
class PurgeMessage:
    """An order with its number: what is logged, broadcast and applied."""

    sequence: int
    time: float
    kind: PurgeKind
    tags: tuple[int, ...]
    everything: bool
    source: str
    patterns: tuple[UrlPattern, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeReceipt:
    """What one edge says of one purge."""

    edge: str
    applied: bool
    duration_s: float


@dataclass(frozen=True, slots=True)
class PurgeReceipt:
    sequence: int
    edges: tuple[EdgeReceipt, ...]
    away: tuple[str, ...] = ()
    """Edges that were connected lately and are not now: they hear of it when they are back."""
    time: float = 0.0
    """When it was logged, in seconds since the epoch."""
    again: bool = False
    """It came under an idempotency key that stands for an earlier call, and this is the answer to that one."""
    waited: bool = True
    """Were edges waited for? Else nothing is known of them."""

    @property
    def late(self) -> tuple[EdgeReceipt, ...]:
        """Edges that have not confirmed it in time."""
        return tuple(each for each in self.edges if not each.applied)

    @property
    def complete(self) -> bool:
        """Have all edges confirmed it that were connected?"""
        return self.waited and not self.late


class PurgeError(Exception):
    """An order that cannot be carried out; `path` names the part of it that is wrong."""

    def __init__(self, detail: str, *, path: str = "", status: int = 400, code: str = "") -> None:
        """`code`: a word for programs, where the status does not say it all."""
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.path = path
        self.status = status
