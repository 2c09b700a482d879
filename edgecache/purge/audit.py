"""What the audit record says of a purge. Pure."""

from typing import Final

from edgecache.purge.message import PurgeOrder

SUMMARY_LENGTH: Final = 400
_SHOWN: Final = 10


def summary(order: PurgeOrder) -> tuple[str, int, str]:
    """Its kind, how many targets it names, and which, shortened."""
    parts = ["everything"] if order.everything else []
    count = len(parts)
    for name in ("keys", "caseless", "urls", "hosts", "prefixes", "groups"):
        values = getattr(order, name)
        count += len(values)
        if values:
            more = ", …" if len(values) > _SHOWN else ""
            parts.append(f"{name}: {', '.join(values[:_SHOWN])}{more}")
    count += len(order.patterns)
    if order.patterns:
        more = ", …" if len(order.patterns) > _SHOWN else ""
        shown = (f"{pattern.host or '*'} ~ {pattern.url}" for pattern in order.patterns[:_SHOWN])
        parts.append(f"patterns: {', '.join(shown)}{more}")
    if order.site is not None:
        parts.append(f"site: {order.site}")
    text = "; ".join(parts)
    if len(text) > SUMMARY_LENGTH:
        text = text[: SUMMARY_LENGTH - 1] + "…"
    return order.kind.value, count, text
