"""Where a request of another product is recognised, checked, carried out and answered.

Whoever has a listener asks `find` for every request and, where it is one of these, `answer` with its body. Nothing is
carried out before everything about the request has been found right. A product's success is said only where every edge
that is connected has confirmed the purge; where one has not in time, the answer is 504 in the product's form.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from edgecache.admin.dialects.cloudflare import CLOUDFLARE
from edgecache.admin.dialects.fastly import FASTLY
from edgecache.admin.dialects.nginx import NGINX
from edgecache.admin.dialects.spoken import Answer, Ask, Deal, Dialect, Fault, Refused, Route, SiteNames
from edgecache.admin.dialects.varnish import MAGENTO, VARNISH
from edgecache.http.message import Request
from edgecache.purge.message import PurgeError, PurgeOrder, PurgeReceipt
from edgecache.purge.tags import check_order

_log = logging.getLogger("edgecache.admin")

DIALECTS: dict[str, Dialect] = {each.name: each for each in (VARNISH, FASTLY, CLOUDFLARE, MAGENTO, NGINX)}

MAX_BODY_BYTES = 1 << 20
_NAMES = 5
_NAME = 60
"""Edges named, and characters of each name."""

Patterns = Literal["refuse", "widen", "match"]
"""`purge.dialects.patterns`."""

Perform = Callable[[PurgeOrder], Awaitable[PurgeReceipt]]
"""Carries an order out, with the rights of whoever has asked. Raises `PurgeError`."""

Admit = Callable[[tuple[str, ...]], Perform | None]
"""What may be done by who shows these tokens (often none); None: nothing."""

_FAULTS = {
    401: Fault.BAD_TOKEN,
    403: Fault.FORBIDDEN,
    404: Fault.NO_SITE,
    413: Fault.TOO_LARGE,
    429: Fault.TOO_MANY,
    500: Fault.INTERNAL,
    503: Fault.UNAVAILABLE,
}
"""What a status of the purge API is to a dialect; any other is the client's mistake."""


@dataclass(frozen=True, slots=True)
class Found:
    """A request that is one of these."""

    dialect: Dialect
    route: Route


class Desk:
    """Answers in the dialects it is told to speak."""

    def __init__(
        self, speak: Iterable[str], names: SiteNames, *, patterns: Patterns = "refuse", max_targets: int | None = None
    ) -> None:
        """`speak`: in this order they are asked whose a request is. `max_targets`: fewer than an order may have."""
        dialects = [DIALECTS[name] for name in speak]
        self._names = names
        self._patterns = patterns
        self._max_targets = max_targets
        self._routes = [
            Found(dialect, route)
            for plain in (False, True)
            for dialect in dialects
            for route in dialect.routes
            if route.plain is plain
        ]
        self._methods = frozenset(method for found in self._routes for method in found.route.methods)

    def find(self, request: Request) -> Found | None:
        """By method, path and fields alone."""
        if request.method not in self._methods:
            return None
        return next((found for found in self._routes if found.route.match(request) is not None), None)

    async def answer(self, found: Found, request: Request, body: bytes, admit: Admit) -> Answer:
        """Never raises."""
        refuse = found.dialect.refuse
        try:
            tokens = found.dialect.tokens(request.headers)
            perform = admit(tokens)
            if perform is None:
                raise Refused(Fault.BAD_TOKEN if tokens else Fault.NO_TOKEN, "this needs the admin token")
            deal = self._read(found, request, body)
            receipts = [await perform(order) for order in deal.orders]
            if any(receipt.late for receipt in receipts):
                raise Refused(Fault.LATE, _late(receipts))
        except Refused as refused:
            return refuse(refused)
        except PurgeError as error:
            return refuse(_refused(error))
        except Exception:  # noqa: BLE001 - the boundary: whatever it was is logged and told in the dialect
            _log.exception("a %s purge failed: %s %s", found.dialect.name, request.method, request.target)
            return refuse(Refused(Fault.INTERNAL, "internal error; see the log"))
        return deal.reply(tuple(receipt.sequence for receipt in receipts))

    def too_large(self, found: Found) -> Answer:
        """For a body of more than `MAX_BODY_BYTES`."""
        return found.dialect.refuse(Refused(Fault.TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} octets"))

    def _read(self, found: Found, request: Request, body: bytes) -> Deal:
        match = found.route.match(request)
        assert match is not None  # it has been found by that
        deal = found.route.read(
            Ask(request, body, match, self._names, self._patterns == "widen", self._patterns == "match")
        )
        for order in deal.orders:
            check_order(order)
            if self._max_targets is not None and order.targets > self._max_targets:
                raise Refused(Fault.TOO_LARGE, f"more than {self._max_targets} targets in one purge")
        return deal


def _late(receipts: Iterable[PurgeReceipt]) -> str:
    """Which purge, and which edges. One line, short enough for a reason phrase."""
    told = [receipt for receipt in receipts if receipt.late]
    numbers = ", ".join(str(receipt.sequence) for receipt in told)
    names = sorted({each.edge for receipt in told for each in receipt.late})
    shown = ", ".join(name[:_NAME] for name in names[:_NAMES])
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    waited_s = max(each.duration_s for receipt in told for each in receipt.late)
    return (
        f"Purge {numbers} is logged and will be applied, but not confirmed after {waited_s:.3g} s by {shown}{more}; "
        "asking again does no harm"
    )


def _refused(error: PurgeError) -> Refused:
    fault = _FAULTS.get(error.status, Fault.BAD if error.status < 500 else Fault.UNAVAILABLE)
    return Refused(fault, f"{error.path}: {error.detail}" if error.path else error.detail)
