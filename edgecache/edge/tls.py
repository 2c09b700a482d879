"""TLS towards clients: contexts made from the configuration, and the certificate a client asks for by name (SNI).

Contexts are made once for all workers, before they are forked: the keys of session tickets are a context's own, so that
a session begun with one worker is resumed by any other. A reload makes new ones.
"""

import ssl

from edgecache.config.certificates import CertificateError, load_into, read
from edgecache.config.listeners import TlsServerConfig
from edgecache.config.model import Config
from edgecache.config.options import spell

ALPN = ["http/1.1"]
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""For TLS 1.2: forward secrecy and authenticated encryption (RFC 9325 §4.2)."""
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsError(Exception):
    """TLS as configured cannot be had; the message names the key."""


class Chooser:
    """Picks a context by the name a client asks for: exact names first, then those with a wildcard."""

    def __init__(self) -> None:
        self._exact: dict[str, ssl.SSLContext] = {}
        self._below: dict[str, ssl.SSLContext] = {}

    def add(self, names: tuple[str, ...], context: ssl.SSLContext) -> None:
        """The first to name something keeps it."""
        for name in names:
            if name.startswith("*."):
                self._below.setdefault(name[2:], context)
            else:
                self._exact.setdefault(name, context)

    def find(self, name: str) -> ssl.SSLContext | None:
        """A wildcard stands for one label (RFC 6125 §6.4.3)."""
        name = name.lower()
        return self._exact.get(name) or self._below.get(name.partition(".")[2])

    def __call__(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name and (context := self.find(name)) is not None:
            connection.context = context


def server_contexts(config: Config) -> tuple[ssl.SSLContext | None, ...]:
    """One for each entry of `listen`; None where it speaks plain HTTP. Raises `TlsError`."""
    found: list[ssl.SSLContext | None] = []
    for index, listen in enumerate(config.listen):
        found.append(_listener(listen.tls, index) if listen.tls is not None else None)
    return tuple(found)


def _listener(tls: TlsServerConfig, index: int) -> ssl.SSLContext:
    chooser = Chooser()
    contexts = []
    for number, certificate in enumerate(tls.certificates):
        context = plain_context(tls)
        try:
            facts = read(certificate)
            load_into(context, certificate)
        except CertificateError as error:
            path = ("listen", index, "tls", "certificates", number)
            raise TlsError(f"{spell((*path, error.key))}: expected {error.expected}") from error
        chooser.add(facts.names, context)
        contexts.append(context)
    if len(contexts) > 1:
        contexts[0].sni_callback = chooser
    return contexts[0]


def plain_context(tls: TlsServerConfig) -> ssl.SSLContext:
    """Without a certificate yet. Raises ssl.SSLError for a list of ciphers that names none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.set_ciphers(tls.ciphers or CIPHERS)
    context.set_alpn_protocols(ALPN)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context
