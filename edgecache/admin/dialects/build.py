"""Desks as the configuration wants them."""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from edgecache.admin.dialects.desk import Admit, Desk, Perform
from edgecache.admin.dialects.public import PublicDesk
from edgecache.admin.dialects.spoken import SiteNames
from edgecache.admin.tokens import TokenCheck
from edgecache.config.dialects import FleetDialectsConfig
from edgecache.config.purge import PurgeConfig
from edgecache.http.message import Request
from edgecache.purge.bus import Caller
from edgecache.purge.message import PurgeOrder, PurgeReceipt


def admin_desk(config: PurgeConfig, sites: Callable[[], Iterable[str]]) -> Desk:
    """`sites`: the names of all there are."""
    return _desk(config.dialects, config.dialects.speak, sites, config.max_targets)


def fleet_desk(config: FleetDialectsConfig) -> Desk:
    """Of a coordinator, which knows no sites but those it is told of."""
    return _desk(config, config.speak, None, None)


def public_desk(
    config: PurgeConfig,
    sites: Callable[[], Iterable[str]],
    client_ip: Callable[[Request], str],
    perform: Callable[[Caller, PurgeOrder], Awaitable[PurgeReceipt]],
    token: TokenCheck | None,
) -> PublicDesk | None:
    """None where nobody may purge by the public listener. `token`: None: there is no right one."""
    public = config.dialects.public
    if not public.allow or not public.speak:
        return None
    networks = [ipaddress.ip_network(network) for network in public.allow]

    def admit(ip: str) -> Admit:
        if public.token:
            return by_token(token, partial(perform, Caller("admin", ip)))
        by_address = partial(perform, Caller("", ip))
        return lambda _tokens: by_address

    desk = _desk(config.dialects, public.speak, sites, config.max_targets)
    return PublicDesk(desk, networks, client_ip, admit)


def by_token(check: TokenCheck | None, perform: Perform) -> Admit:
    """Only for who shows the token."""

    def admit(tokens: tuple[str, ...]) -> Perform | None:
        return perform if check is not None and any(check(given) for given in tokens) else None

    return admit


def _desk(
    config: FleetDialectsConfig,
    speak: Sequence[str],
    sites: Callable[[], Iterable[str]] | None,
    max_targets: int | None,
) -> Desk:
    names = SiteNames({entry.id: entry.site for entry in config.ids}, sites)
    return Desk(speak, names, patterns=config.patterns, max_targets=max_targets)
