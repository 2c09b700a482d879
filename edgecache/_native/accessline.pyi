"""The JSON access log line of a finished exchange, written as `ext/access_line.h` writes those of the fast lane."""

from typing import Any

def json_line(event: Any, stamp: str, target: str, referer: str) -> str | None:
    """The line of an `observe.events.ExchangeFinished`, as `observe.accesslog.json_formatter` describes it.

    `stamp`: its second, formatted. `target` and `referer` as they may be logged. None where a text is not Latin-1.
    """
