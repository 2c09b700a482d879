"""One request on its way through the pipeline: what stays from round to round, and what is told at the end."""

from dataclasses import dataclass

from edgecache.edge.exchange import Exchange
from edgecache.edge.sites import Site
from edgecache.http.message import Request
from edgecache.observe.events import Outcome
from edgecache.policy.verdicts import Reason


@dataclass
class Story:
    """What happened, gathered while it happens and told once to logs and metrics."""

    site: str = ""
    outcome: Outcome = Outcome.ERROR
    reason: Reason | str = ""
    status: int = 0
    body_bytes: int = 0
    cache_status: str = ""
    error: str = ""
    """The code of what went wrong, if something did."""
    origin_s: float = 0.0
    """Time until the origin's response head; 0 where the origin was not asked."""
    aborted: bool = False
    """The answer was cut off before its end, by either side."""

    def sent(self, octets: int) -> None:
        """Octets of the body have left."""
        self.body_bytes += octets


@dataclass
class Visit:
    """One exchange at one site."""

    exchange: Exchange
    site: Site
    key_text: str
    """The cache key in words: what the primary key is the hash of."""
    primary: bytes
    sequence: int
    """The newest purge when the request arrived: nothing fetched before it may be joined (DESIGN §7)."""
    story: Story
    share: bool = True
    """May it wait for another's fetch? Not once it was released from one."""
    looked_again: bool = False
    """It has looked once more, since what it was to fetch seemed to have been stored meanwhile."""

    @property
    def request(self) -> Request:
        return self.exchange.request
