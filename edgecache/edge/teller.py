"""The end of every exchange: one record of what happened, for the counters and the access log."""

from collections.abc import Callable

from edgecache.edge.exchange import Exchange
from edgecache.edge.visit import Story
from edgecache.http.message import Request
from edgecache.observe.events import ExchangeFinished

Sink = Callable[[ExchangeFinished], None]


class Teller:
    """Makes the record and hands it on."""

    def __init__(
        self, sinks: tuple[Sink, ...], clock: Callable[[], float], client_ip: Callable[[Request], str]
    ) -> None:
        self._sinks = sinks
        self._clock = clock
        self._client_ip = client_ip

    def __call__(self, exchange: Exchange, story: Story) -> None:
        request = exchange.request
        headers = request.headers
        begun = exchange.received_at
        sent_at = exchange.started_at
        version = request.version
        record = ExchangeFinished(
            time=begun,
            site=story.site,
            client_ip=self._client_ip(request),
            method=request.method,
            scheme=request.scheme,
            host=request.authority,
            target=request.target,
            protocol="HTTP/1.1" if version == (1, 1) else f"HTTP/{version[0]}.{version[1]}",
            status=story.status if exchange.started else 0,
            bytes_in=exchange.bytes_in,
            bytes_out=story.body_bytes,
            outcome=story.outcome,
            reason=story.error or story.reason,
            duration_s=max(0.0, self._clock() - begun),
            ttfb_s=max(0.0, sent_at - begun) if sent_at else None,
            origin_s=story.origin_s or None,
            cache_status=story.cache_status,
            user_agent=headers.get("user-agent") or "",
            referer=headers.get("referer") or "",
            aborted=story.aborted,
        )
        for sink in self._sinks:
            sink(record)
