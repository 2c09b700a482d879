"""A site's configuration as the policy sees it: plain values, all defaults filled in."""

from edgecache.config.model import SiteConfig
from edgecache.config.tiers import MemoryConfig
from edgecache.policy.site import QueryMode, QueryRecipe, SitePolicy


def site_policy(site: SiteConfig, memory: MemoryConfig, *, disk: bool = False) -> SitePolicy:
    """`site` as `Config.sites` holds it, that is with the top-level `cache` already filled in. `disk`: is there a disk
    tier, where slices of large responses lie?"""
    cache = site.cache
    most = memory.max_object_bytes
    return SitePolicy(
        name=site.title,
        cache_status_name=cache.cache_status_name,
        cache_status_key=cache.cache_status_key,
        target_fields=cache.target_fields,
        surrogate_name=cache.surrogate_name,
        surrogate_capability=cache.surrogate_capability,
        override_ttl_s=cache.override_ttl_s,
        heuristic_fraction=cache.heuristic_fraction,
        heuristic_cap_s=cache.heuristic_cap_s,
        heuristics=cache.heuristics,
        stale_while_revalidate_s=cache.stale_while_revalidate_s,
        stale_if_error_s=cache.stale_if_error_s,
        stale_when_unreachable_s=cache.stale_when_unreachable_s,
        retry_after_failure_s=cache.retry_after_failure_s,
        stale_despite_s_maxage=cache.stale_despite_s_maxage,
        store_set_cookie=cache.store_set_cookie,
        honour_request_directives=cache.honour_request_directives,
        hit_for_pass_s=cache.hit_for_pass_s,
        query=_recipe(site),
        no_vary_search=cache.no_vary_search,
        compress_types=cache.compress.types if cache.compress.codings else (),
        compress_codings=tuple(dict.fromkeys(cache.compress.codings)),
        compress_min_bytes=cache.compress.min_size_bytes,
        compress_max_bytes=cache.compress.max_size_bytes,
        early_hints=cache.early_hints,
        max_vary_fields=cache.max_vary_fields,
        max_ranges=cache.max_ranges,
        max_object_bytes=most if cache.max_object_bytes is None else min(cache.max_object_bytes, most),
        slice_bytes=cache.slice_bytes if disk else 0,
        strip_surrogate_keys=not site.expose_surrogate_keys,
        max_tag_bytes=cache.surrogate_keys_limit_bytes,
    )


def _recipe(site: SiteConfig) -> QueryRecipe:
    query = site.cache.query
    if query.keep is not None:
        return QueryRecipe(QueryMode.KEEP, query.keep, query.sort)
    if query.drop:
        return QueryRecipe(QueryMode.DROP, query.drop, query.sort)
    return QueryRecipe(sort=query.sort)
