"""What an operator may decide about caching, one object per site: the policy's only view of the configuration."""

from dataclasses import dataclass, field

from edgecache.http.cachekey import QueryMode, QueryRecipe

__all__ = ["QueryMode", "QueryRecipe", "SitePolicy"]


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """Defaults: all that RFC 9111 lets a shared cache do for the hit ratio, nothing it forbids. Times in seconds."""

    name: str = "default"
    cache_status_name: str = "edgecache"
    """The member name in Cache-Status (RFC 9211 §2)."""
    cache_status_key: bool = False
    """Show the cache key in Cache-Status."""
    target_fields: tuple[str, ...] = ("cdn-cache-control",)
    """Targeted fields honoured, most specific first, lower case (RFC 9213)."""
    surrogate_name: str = "edgecache"
    """Who we are in the targets of Surrogate-Control, and in Surrogate-Capability."""
    surrogate_capability: bool = True
    """Tell the origin in Surrogate-Capability that Surrogate-Control is understood here."""
    override_ttl_s: float | None = None
    """The site's own freshness lifetime: before anything the origin says."""
    heuristic_fraction: float = 0.1
    heuristic_cap_s: float = 86_400.0
    heuristics: bool = True
    stale_while_revalidate_s: float = 0.0
    """Where the response does not say itself."""
    stale_if_error_s: float = 0.0
    """The same, for a failing origin."""
    store_set_cookie: bool = False
    """Store responses with Set-Cookie as if it were not there. Off: only with explicit permission for shared caches."""
    stale_when_unreachable_s: float = 86_400.0
    """How long after it went stale a response may stand in for an origin that gives no answer at all: the cache is
    then disconnected (RFC 9111 §4.2.4). Never against must-revalidate and the like; 0: never."""
    retry_after_failure_s: float = 1.0
    """How long after the origin failed a stale response is used without asking again. 0: each request asks."""
    stale_despite_s_maxage: bool = False
    """Let stale-while-revalidate and stale-if-error of the response count beside its s-maxage, which by the letter
    forbids stale answers (RFC 9111 §5.2.2.10)."""
    honour_request_directives: bool = True
    """Obey Cache-Control of requests (RFC 9111 §5.2.1) and Pragma."""
    hit_for_pass_s: float = 120.0
    query: QueryRecipe = field(default_factory=QueryRecipe)
    no_vary_search: bool = False
    max_vary_fields: int = 16
    max_ranges: int = 16
    max_object_bytes: int = 1 << 20
    """Larger responses are not stored in memory."""
    slice_bytes: int = 0
    """Larger ones are stored on disk in slices of this size; 0: not at all."""
    compress_types: tuple[str, ...] = ()
    """Media types that the edge compresses at fill time; empty: it does not."""
    compress_min_bytes: int = 1024
    compress_max_bytes: int = 1 << 20
    compress_codings: tuple[str, ...] = ()
    """The codings made, the one preferred among equals first."""
    early_hints: bool = False
    """Replay preload links of a stored response as 103."""
    strip_surrogate_keys: bool = False
    """Keep Surrogate-Key, Cache-Tag and the like from clients."""
    max_tag_bytes: int = 16_384
    """Octets of surrogate keys per response; with more it is not stored."""
