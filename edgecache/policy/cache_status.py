"""The Cache-Status member this cache adds (RFC 9211): what it did with a request, in the words of the RFC."""

from functools import lru_cache

from edgecache.http.structured import serialize_string, serialize_token
from edgecache.policy.site import SitePolicy
from edgecache.policy.verdicts import Reason

FORWARDED = {
    # RFC 9211 §2.2: why the request went forward, for the reasons that make it
    Reason.URI_MISS: "uri-miss",
    Reason.VARY_MISS: "vary-miss",
    Reason.STALE: "stale",
    Reason.NO_CACHE: "stale",
    Reason.SOFT_PURGED: "stale",
    Reason.SILENT: "stale",
    Reason.PARTIAL_MISS: "partial",
    Reason.METHOD: "method",
    Reason.REQUEST_DIRECTIVE: "request",
    Reason.AUTHORIZATION: "request",
    Reason.PRECONDITION_FAILED: "request",
    Reason.HIT_FOR_PASS: "bypass",
    Reason.BYPASS: "bypass",
}


def member(
    site: SitePolicy,
    *,
    reason: Reason | None = None,
    hit: bool = False,
    fwd: str | None = None,
    fwd_status: int | None = None,
    ttl: float | None = None,
    stored: bool = False,
    collapsed: bool = False,
    key: str | None = None,
    detail: str | None = None,
) -> str:
    """The text of one member, parameters in the order of the RFC.

    `fwd` follows from `reason` where it is not given. `hit` and `fwd` exclude each other (§2.1): `fwd` wins. `detail`
    is the reason's word unless `fwd` already says it. `ttl` is what is left of freshness, negative when stale.
    """
    parts = [_token(site.cache_status_name)]
    if fwd is None and reason is not None and not hit:
        fwd = FORWARDED.get(reason)
    if fwd is not None:
        parts.append(f"fwd={fwd}")
    elif hit:
        parts.append("hit")
    if fwd is not None and fwd_status is not None:
        parts.append(f"fwd-status={fwd_status}")
    if ttl is not None:
        parts.append(f"ttl={_seconds(ttl)}")
    if fwd is not None and stored:
        parts.append("stored")
    if fwd is not None and collapsed:
        parts.append("collapsed")
    if key is not None and site.cache_status_key:
        parts.append(f"key={serialize_string(key)}")
    if detail is None and reason is not None and reason is not Reason.FRESH and reason != fwd:
        detail = reason
    if detail is not None:
        parts.append(f"detail={_token(detail)}")
    return "; ".join(parts)


_token = lru_cache(maxsize=256)(serialize_token)
"""Names and words come from the configuration and from fixed sets."""


def _seconds(ttl: float) -> int:
    limit = 999_999_999_999_999  # RFC 9651 §3.3.1
    return max(-limit, min(limit, int(ttl // 1)))
