"""What keeps a DNS server from being used against others: cookies and response-rate limiting."""

from collections.abc import Sequence
from typing import final

from edgecache._native.dnsranges import Ranges

PASS: int
DROP: int
SLIP: int

@final
class Cookies:
    """DNS cookies (RFC 7873) that any server with the same secret makes and knows (RFC 9018)."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """1 to 4 secrets of 16 octets. The first makes cookies, all are accepted: so a secret is changed."""

    def reply(self, option: bytes, address: bytes, now: int) -> tuple[bytes, bool]:
        """The 24 octets to send for a query's cookie option (8 octets, or 16 to 40), and whether it proves that its
        sender is at `address` (4 or 16 octets). `now`: seconds since the epoch.

        A good server cookie is sent again until it is half an hour old (RFC 9018 §4.3)."""

@final
class Limiter:
    """Response-rate limiting: so many like answers a second to one network, a /24 or a /56."""

    slip: int

    def __init__(
        self,
        per_second: float,
        errors: float | None = None,
        *,
        window_s: float = 1.0,
        slip: int = 2,
        lines: int = 1 << 16,
        exempt_4: Ranges | None = None,
        exempt_6: Ranges | None = None,
    ) -> None:
        """So many answers a second, and so many errors (names that do not exist among them; as many as answers by
        default); 0 limits nothing. `window_s`: what may come at once is what falls due in this time. Of those above
        the limit every `slip`th is sent cut, so that a real client comes by TCP; 0 sends none. Who is led to list 1 by
        `exempt_4` or `exempt_6` is not limited."""

    def ask(self, address: bytes, subject: int, now_ns: int, error: bool = False) -> int:
        """PASS, DROP or SLIP for one more answer about `subject` to an address of 4 or 16 octets."""
