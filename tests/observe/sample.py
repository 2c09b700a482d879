"""An ordinary finished exchange, with whatever a test wants different."""

from dataclasses import replace
from typing import Any

from edgecache.observe.events import ExchangeFinished, Outcome

SAMPLE = ExchangeFinished(
    time=1_700_000_000.25,
    site="shop",
    client_ip="192.0.2.7",
    method="GET",
    scheme="http",
    host="shop.example",
    target="/list?page=2",
    protocol="HTTP/1.1",
    status=200,
    bytes_in=0,
    bytes_out=1024,
    outcome=Outcome.HIT,
    reason="fresh",
    duration_s=0.0005,
    ttfb_s=0.0004,
    origin_s=None,
    cache_status="edgecache; hit",
    user_agent="curl/8",
    referer="",
)


def sample(**changes: Any) -> ExchangeFinished:
    return replace(SAMPLE, **changes)
