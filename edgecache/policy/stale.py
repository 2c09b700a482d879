"""When a stale response may be used (RFC 9111 §4.2.4, RFC 5861)."""

from edgecache.http.stored import StoredFlag, StoredResponse
from edgecache.policy.directives import Directives
from edgecache.policy.freshness import Control
from edgecache.policy.site import SitePolicy

CLOCK_SLACK_S = 1.0
"""How far a clock may be corrected backwards without what was just stored counting as stale. `ext/shard.pyx` has the
same."""
FAILURES = frozenset({500, 502, 503, 504})
"""Statuses that count as an error (RFC 5861 §4)."""


def must_revalidate(directives: Directives, site: SitePolicy) -> bool:
    """Do the directives forbid any stale use (RFC 9111 §4.2.4, §5.2.2.2, §5.2.2.8, §5.2.2.10)?"""
    if directives.says("must-revalidate") or directives.says("proxy-revalidate"):
        return True
    if not directives.says("s-maxage"):
        return False
    windows = directives.says("stale-while-revalidate") or directives.says("stale-if-error")
    return not (site.stale_despite_s_maxage and windows)


def windows(control: Control, site: SitePolicy) -> tuple[float, float]:
    """Seconds after going stale for stale-while-revalidate and stale-if-error (RFC 5861 §3, §4)."""
    if must_revalidate(control.directives, site):
        return 0.0, 0.0
    revalidate = control.directives.seconds("stale-while-revalidate")
    error = control.directives.seconds("stale-if-error")
    return (
        site.stale_while_revalidate_s if revalidate is None else float(revalidate),
        site.stale_if_error_s if error is None else float(error),
    )


def forbidden(stored: StoredResponse) -> bool:
    """May it never be used stale, not even when the origin cannot be reached?"""
    return stored.unconfirmed or bool(stored.flags & (StoredFlag.MUST_REVALIDATE | StoredFlag.NO_CACHE))


def fresh(stored: StoredResponse, now: float) -> bool:
    """§4.2: freshness_lifetime > current_age; and a soft purge makes it stale from that moment, as silence does.

    What was born in the future shows that the clock was set back: nobody knows its age, so it is not fresh.
    """
    if stored.soft_purged or stored.unconfirmed:
        return False
    return stored.born_at - CLOCK_SLACK_S <= now < stored.fresh_until


def while_revalidating(stored: StoredResponse, now: float) -> bool:
    """RFC 5861 §3. What is soft-purged may be used so too, as long as it could have been without the purge."""
    return stored.fresh_until < stored.swr_until and now <= stored.swr_until and not forbidden(stored)


def on_error(stored: StoredResponse, now: float) -> bool:
    """RFC 5861 §4: the origin answered with an error. The same for what is soft-purged."""
    return stored.fresh_until < stored.sie_until and now <= stored.sie_until and not forbidden(stored)


def when_unreachable(stored: StoredResponse, now: float, site: SitePolicy) -> bool:
    """§4.2.4: the origin gave no answer, so the cache is disconnected; or stale-if-error allows it."""
    if forbidden(stored):
        return False
    return on_error(stored, now) or now <= stored.fresh_until + site.stale_when_unreachable_s


def within_max_stale(stored: StoredResponse, now: float, directives: Directives) -> bool:
    """§5.2.1.2: the client takes a stale response, up to so many seconds or of any age.

    Not what is soft-purged: its publisher has said that it is out of date, which no client can know.
    """
    if "max-stale" not in directives or forbidden(stored) or stored.soft_purged:
        return False
    if None in directives.arguments["max-stale"]:
        return True
    limit = directives.seconds("max-stale")
    return limit is not None and now - stored.fresh_until <= limit
