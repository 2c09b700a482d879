"""NATS as the configuration says. Imports nats-py: only where it is used."""

import ssl
from collections.abc import Callable

from edgecache.config.nats import NatsConfig
from edgecache.purge.transport.client import token_from
from edgecache.purge.transport.nats_log import NatsSettings
from edgecache.purge.transport.websocket import client_context


def nats_settings(config: NatsConfig) -> NatsSettings:
    return NatsSettings(
        config.servers,
        stream=config.stream,
        subject=config.subject,
        domain=config.domain,
        replicas=config.replicas,
        credentials_file=config.credentials_file,
        user=config.user,
        password=token_from(config.password_file),
        token=token_from(config.token_file),
        tls=_tls(config),
    )


def _tls(config: NatsConfig) -> Callable[[], ssl.SSLContext | None]:
    tls = config.tls
    if tls.ca_file is None and tls.cert is None and not any(url.startswith("tls:") for url in config.servers):
        return lambda: None
    return lambda: client_context(tls.ca_file, tls.cert, tls.key)
