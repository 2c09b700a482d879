"""Which site a request belongs to. Exact hosts first, then the longest wildcard, then the site without hosts."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgecache.http.cachekey import cache_key
from edgecache.origin.api import Origin
from edgecache.policy.site import SitePolicy


@dataclass(frozen=True, slots=True)
class Site:
    """One site as the pipeline needs it."""

    policy: SitePolicy
    origin: Origin
    hosts: tuple[str, ...] = ()
    """Lower case; "*.example.com" covers every name below example.com; empty: every host."""
    hsts: str | None = None
    """The value of Strict-Transport-Security on answers over TLS (RFC 6797 §7.1)."""
    https_port: int | None = None
    """Where requests over plain HTTP are sent; None: they are answered."""

    @property
    def name(self) -> str:
        return self.policy.name


def unsliced(site: Site) -> Site:
    """The same site, its large objects passed through."""
    return replace(site, policy=replace(site.policy, slice_bytes=0)) if site.policy.slice_bytes else site


class Sites:
    """The sites of a node, by host."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self.all = tuple(sites)
        self._exact: dict[str, Site] = {}
        self._below: dict[str, Site] = {}
        self._default: Site | None = None
        for site in self.all:
            if not site.hosts:
                self._default = site
            for host in site.hosts:
                if host.startswith("*."):
                    self._below[host[2:]] = site
                else:
                    self._exact[host] = site

    def find(self, authority: str) -> Site | None:
        """The site of "host[:port]", or None where the host is nobody's."""
        host = authority.lower()
        if (site := self._exact.get(host)) is not None:
            return site
        host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0].rstrip(".")
        if (site := self._exact.get(host)) is not None:
            return site
        if self._below:
            rest = host
            while (dot := rest.find(".")) >= 0:
                rest = rest[dot + 1 :]
                if (site := self._below.get(rest)) is not None:
                    return site
        return self._default

    def names(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.all)

    def cache_keys(self, url: str) -> tuple[str, ...]:
        """The key texts that `url` may be stored under: by its site's recipe, or each site's if it is nobody's.

        The first is that of the URL itself.
        """
        scheme, _, location = url.partition("#")[0].partition("://")
        cut = min((i for i in (location.find("/"), location.find("?")) if i >= 0), default=len(location))
        authority, target = location[:cut], location[cut:] or "/"
        if target.startswith("?"):
            target = "/" + target
        site = self.find(authority)
        sites = self.all if site is None else (site,)
        scheme = scheme.lower()
        found: dict[str, None] = {}
        for site in sites:
            key = cache_key(scheme, authority, target, site.policy.query)
            found[key] = None
            if site.policy.no_vary_search:
                found[any_query(key)] = None
        return tuple(found)


def any_query(cache_key: str) -> str:
    """What stands for a path and all its queries among the keys to purge; no URI's key, since none has a fragment.

    A response with No-Vary-Search answers for more URIs than its own: whoever purges one of them means it too.
    """
    return cache_key.partition("?")[0] + "#"
