"""Sites that were configured and are not now: purges of a key mean them too, since what is stored of them may be used
again when they come back. Pure.

They cannot be remembered for ever. One that has been gone for long, or that more others have followed than are worth
remembering, is purged as a whole: then nothing is left that a purge could miss, and it may be forgotten.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from edgecache.config.fields import DAY_S
from edgecache.purge.message import PurgeOrder
from edgecache.purge.tags import order_tags

MOST: Final = 100
KEPT_S: Final = 30 * DAY_S


def to_forget(seen: Mapping[str, float], now_there: Collection[str], now: float) -> tuple[str, ...]:
    """The names to be purged and forgotten. `seen`: when each was last in a configuration that was read."""
    former = sorted(((at, name) for name, at in seen.items() if name not in now_there), reverse=True)
    return tuple(name for i, (at, name) in enumerate(former) if i >= MOST or at <= now - KEPT_S)


def whole(names: Iterable[str]) -> tuple[int, ...]:
    """The tags of everything that is stored of these sites."""
    return tuple(
        tag
        for name in names
        for tag in order_tags(PurgeOrder(everything=True, site=name), sites=(name,), cache_keys=lambda _: ())
    )
