"""Desks as the configuration wants them."""

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from edgecache.admin.dialects.desk import Admit, Desk, Perform
from edgecache.admin.dialects.public import PublicDesk
from edgecache.admin.dialects.spoken import SiteNames
from edgecache.admin.tokens import TokenCheck
from edgecache.config.purge import PurgeConfig
from edgecache.http.message import Request


def admin_desk(config: PurgeConfig, sites: Callable[[], Iterable[str]]) -> Desk:
    """`sites`: the names of all there are."""
    return _desk(config, config.dialects.speak, sites)


def public_desk(
    config: PurgeConfig,
    sites: Callable[[], Iterable[str]],
    client_ip: Callable[[Request], str],
    perform: Perform,
    token: TokenCheck | None,
) -> PublicDesk | None:
    """None where nobody may purge by the public listener. `token`: None: there is no right one."""
    public = config.dialects.public
    if not public.allow or not public.speak:
        return None
    networks = [ipaddress.ip_network(network) for network in public.allow]
    admit = by_token(token, perform) if public.token else lambda _tokens: perform
    return PublicDesk(_desk(config, public.speak, sites), networks, client_ip, admit)


def by_token(check: TokenCheck | None, perform: Perform) -> Admit:
    """Only for who shows the token."""

    def admit(tokens: tuple[str, ...]) -> Perform | None:
        return perform if check is not None and any(check(given) for given in tokens) else None

    return admit


def _desk(config: PurgeConfig, speak: Sequence[str], sites: Callable[[], Iterable[str]]) -> Desk:
    dialects = config.dialects
    names = SiteNames({entry.id: entry.site for entry in dialects.ids}, sites)
    return Desk(speak, names, widen=dialects.patterns == "widen", max_targets=config.max_targets)
