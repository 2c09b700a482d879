"""What Varnish's users have agreed upon in their VCL: PURGE and BAN, keys of the xkey module, patterns of tags.

Varnish bans by regular expressions on what is stored. Here they become purges of what they list (`patterns`): tags,
hosts, paths. Several conditions in one ban all have to hold there; here the narrowest of them that is a tag is purged,
which covers no less. A pattern that lists nothing is refused; widened where the configuration says so; or, if it is one
on URLs, compared with what is stored, as there (`purge.bans`). Objects are not counted, since nothing is searched for:
where a VCL says how many, the answers here count keys.

Tags in a purge belong to every site, since Varnish has no sites.
"""

from edgecache.admin.dialects import patterns
from edgecache.admin.dialects.patterns import NoListError
from edgecache.admin.dialects.spoken import (
    Answer,
    Ask,
    Deal,
    Dialect,
    Fault,
    Refused,
    bearer,
    page,
    quoted,
    route,
    tagged,
    url_of,
)
from edgecache.http.headers import Headers
from edgecache.purge.message import PurgeKind, PurgeOrder, UrlPattern

_SOURCE = "varnish"
_TAG_FIELDS = ("x-cache-tags", "cache-tags")
_UNTAGGED_CONDITIONS = ("x-content-type", "cookie")
"""Conditions on what no tag says."""
_STATUS = {
    Fault.NO_TOKEN: (405, "Not allowed"),
    Fault.BAD_TOKEN: (405, "Not allowed"),
    Fault.FORBIDDEN: (405, "Not allowed"),
    Fault.NO_SITE: (404, ""),
    Fault.BAD: (400, ""),
    Fault.TOO_LARGE: (413, ""),
    Fault.TOO_MANY: (429, "Too Many Requests"),
    Fault.UNAVAILABLE: (503, ""),
    Fault.INTERNAL: (503, "Internal error"),
    Fault.LATE: (504, ""),
}

# --- xkey ---


def _xkey(ask: Ask) -> Deal:
    """`xkey` and `xkey-purge` purge, `xkey-softpurge` makes stale."""
    orders, count = _key_orders(ask, ("xkey", "xkey-purge"))
    return Deal(orders, lambda numbers: synth(200, f"Invalidated {sum(count)} objects", numbers))


def _purgekeys(ask: Ask) -> Deal:
    if "xkey-purge" not in ask.headers and "xkey-softpurge" not in ask.headers:
        raise Refused(Fault.BAD, "Neither header XKey-Purge or XKey-SoftPurge set")
    orders, (gone, soft) = _key_orders(ask, ("xkey-purge",))
    return Deal(orders, lambda numbers: synth(200, f"Purged {gone} objects, expired {soft} objects", numbers))


def _key_orders(ask: Ask, hard: tuple[str, ...]) -> tuple[tuple[PurgeOrder, ...], tuple[int, int]]:
    gone = [key for name in hard for key in _keys(ask.headers, name)]
    soft = _keys(ask.headers, "xkey-softpurge")
    if not gone and not soft:
        raise Refused(Fault.BAD, "no keys")
    orders = [
        tagged(keys, site=None, kind=kind, source=_SOURCE)
        for keys, kind in ((gone, PurgeKind.HARD), (soft, PurgeKind.SOFT))
        if keys
    ]
    return tuple(orders), (len(gone), len(soft))


def _keys(headers: Headers, name: str) -> list[str]:
    """With spaces and commas between."""
    return [key for line in headers.get_all(name) for key in line.replace(",", " ").split()]


# --- URLs and bans ---


def _url(ask: Ask) -> Deal:
    return Deal((PurgeOrder(urls=(ask.url,), source=_SOURCE),), lambda numbers: synth(200, "Purged", numbers))


def _purge_method(ask: Ask) -> Deal:
    """X-Purge-Method, of a plug-in for WordPress: with `regex` the path is a pattern."""
    if (ask.headers.get("x-purge-method") or "").lower() != "regex":
        return _url(ask)
    order = _where(ask, hosts=(ask.request.authority,), url=ask.request.target)
    return Deal((order,), lambda numbers: synth(200, "Purged", numbers))


def _ban(ask: Ask) -> Deal:
    """By the request's own URL, where no header says what is meant."""
    headers = ask.headers
    named = [name for name in (*_TAG_FIELDS, "x-host", "x-url", *_UNTAGGED_CONDITIONS) if name in headers]
    if not named:
        path = ask.request.target
        order = (
            _where(ask, hosts=(ask.request.authority,), url=path)
            if any(c in path for c in "*^$()[]|\\")
            else PurgeOrder(urls=(ask.url,), source=_SOURCE)
        )
        return _banned(order)
    hosts = _hosts(ask, headers.get("x-host") or ".*")
    for name in _TAG_FIELDS:
        if name in headers and not patterns.is_all(headers.get(name) or ""):
            return _banned(_tags(ask, headers.get(name) or "", hosts))
    for name in _UNTAGGED_CONDITIONS:
        if name in headers and not patterns.is_all(headers.get(name) or "") and not ask.widen:
            raise _pattern(f"{name} is a condition on something that is not kept as a tag")
    return _banned(_where(ask, hosts=hosts, url=headers.get("x-url") or ".*"))


def _banned(order: PurgeOrder) -> Deal:
    return Deal((order,), lambda numbers: synth(200, "Ban added", numbers))


def _hosts(ask: Ask, pattern: str) -> tuple[str, ...] | None:
    """None: every host."""
    if patterns.is_all(pattern):
        return None
    try:
        return patterns.choices(pattern)
    except NoListError:
        if ask.widen:
            return None
        raise _pattern(f"X-Host: {pattern} lists no hosts") from None


def _tags(ask: Ask, pattern: str, hosts: tuple[str, ...] | None) -> PurgeOrder:
    try:
        return tagged(tag_list(pattern), site=None, kind=PurgeKind.HARD, source=_SOURCE)
    except NoListError:
        if ask.widen:
            return _whole(hosts)
        raise _pattern(f"{pattern} lists no tags") from None


def tag_list(pattern: str) -> tuple[str, ...]:
    """The tags a pattern lists: choices without separators in them, or just tags with spaces or commas between. Raises
    `NoListError`."""
    found = [tag for part in patterns.choices(pattern) for tag in part.replace(",", " ").split()]
    if not found:
        raise NoListError
    return tuple(dict.fromkeys(found))


def _where(ask: Ask, *, hosts: tuple[str, ...] | None, url: str) -> PurgeOrder:
    """A pattern on URLs of these hosts."""
    if patterns.is_all(url) or url in ("/.*", "^/.*", "^/", "/*"):
        return _whole(hosts)
    try:
        found = patterns.paths(url)
    except NoListError:
        found = None
    if ask.compare and (found is None or not found.exact or hosts is None or not url.startswith("^")):
        on = (None,) if hosts is None else hosts
        return PurgeOrder(patterns=tuple(UrlPattern(url, host) for host in on), source=_SOURCE)
    if (found is None or not found.exact or hosts is None) and not ask.widen:
        why = "names no host: add X-Host" if found is not None and found.exact else "is no path and no beginning of one"
        raise _pattern(f"{url} {why}", "purge.dialects.patterns to match or widen")
    if found is None or hosts is None:
        return _whole(hosts)
    if not found.below:
        return PurgeOrder(urls=tuple(url_of(host, found.text) for host in hosts), source=_SOURCE)
    return PurgeOrder(prefixes=tuple(url_of(host, found.text) for host in hosts), source=_SOURCE)


def _whole(hosts: tuple[str, ...] | None) -> PurgeOrder:
    if hosts is None:
        return PurgeOrder(everything=True, source=_SOURCE)
    return PurgeOrder(hosts=hosts, source=_SOURCE)


def _pattern(why: str, setting: str = "purge.dialects.patterns to widen") -> Refused:
    return Refused(
        Fault.BAD,
        f"{why}, and edgecache matches no such patterns against what is stored: name tags, hosts or paths, or set "
        f"{setting}",
    )


# --- Magento ---


def _magento(ask: Ask) -> Deal:
    """`X-Magento-Tags-Pattern`: a list of tags in the form of a pattern, or `.*`."""
    if "x-pool" in ask.headers:
        raise _pattern("X-Pool is a pattern on something that is not kept as a tag")
    pattern = ask.headers.get("x-magento-tags-pattern") or ""
    if not pattern.strip():
        raise Refused(Fault.BAD, "X-Magento-Tags-Pattern or X-Pool header required")
    if patterns.is_all(pattern):
        order = PurgeOrder(everything=True, source="magento")
    else:
        try:
            order = tagged(tag_list(pattern), site=None, kind=PurgeKind.HARD, source="magento")
        except NoListError:
            if not ask.widen:
                raise _pattern(f"{pattern[:200]} lists no tags") from None
            order = PurgeOrder(everything=True, source="magento")
    return Deal((order,), lambda numbers: synth(200, "Purged", numbers))


# --- answers ---


def synth(status: int, phrase: str, numbers: tuple[int, ...] = ()) -> Answer:
    """A page such as Varnish makes them; XID is the purge's number."""
    said = quoted(phrase)
    body = (
        f"<!DOCTYPE html>\n<html>\n  <head>\n    <title>{status} {said}</title>\n  </head>\n  <body>\n"
        f"    <h1>{'Error ' if status >= 400 else ''}{status} {said}</h1>\n    <p>{said}</p>\n"
        f"    <p>XID: {' '.join(map(str, numbers))}</p>\n  </body>\n</html>\n"
    )
    return page(status, phrase, body)


def _tokens(headers: Headers) -> tuple[str, ...]:
    return (*headers.get_all("x-purge-key"), *headers.get_all("x-purge-token"), *bearer(headers))


def _refuse(refused: Refused) -> Answer:
    status, text = _STATUS[refused.fault]
    return synth(status, text or refused.detail)


VARNISH = Dialect(
    "varnish",
    (
        route("PURGEKEYS", r"/.*|\*", _purgekeys),
        route("BAN", r"/.*", _ban),
        route("PURGE", r"/.*", _xkey, fields=("xkey", "xkey-purge", "xkey-softpurge")),
        route("PURGE", r"/.*", _purge_method, fields=("x-purge-method",)),
        route("PURGE", r"/.*", _url, plain=True),
    ),
    _tokens,
    _refuse,
)

MAGENTO = Dialect(
    "magento",
    (route("PURGE", r"/.*", _magento, fields=("x-magento-tags-pattern", "x-pool")),),
    _tokens,
    _refuse,
)
