"""Certificates and keys as files: what is wrong with them, whom they name, when they end."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecache.config.listeners import CertificateConfig
from edgecache.config.model import Config

SOON_S = 14 * 86_400.0
"""Who renews by itself has renewed by then."""


class CertificateError(Exception):
    """A file that cannot be used. `key` is the key that names it, `expected` what it should be."""

    def __init__(self, key: str, expected: str) -> None:
        super().__init__(f"{key}: expected {expected}")
        self.key = key
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself."""

    names: tuple[str, ...]
    """DNS names, lower case; "*.example.com" covers one label."""
    not_after: float
    """Seconds since the epoch."""


def read(certificate: CertificateConfig) -> Facts:
    """Raises `CertificateError` where the files are no certificate with its key."""
    try:
        Path(certificate.cert).read_bytes()
        # The one reader of certificates in the standard library; what it gives is documented at SSLSocket.getpeercert.
        found: dict[str, Any] = ssl._ssl._test_decode_cert(certificate.cert)  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CertificateError("cert", f"a PEM file with a certificate ({_why(error)})") from None
    key = "key" if certificate.key is not None else "cert"
    try:
        load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate)
    except (OSError, ValueError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise CertificateError(key, f"the private key of {certificate.cert}; this is another's") from None
        if getattr(error, "reason", "") in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            raise CertificateError("cert", f"a certificate that is strong enough ({_why(error)})") from None
        raise CertificateError(key, f"a PEM file with a private key without a pass phrase ({_why(error)})") from None
    return Facts(tuple(_names(found)), float(ssl.cert_time_to_seconds(found["notAfter"])))


def load_into(context: ssl.SSLContext, certificate: CertificateConfig) -> None:
    """Raises OSError or ValueError. Never asks anybody for a pass phrase."""
    context.load_cert_chain(certificate.cert, certificate.key, password="")


def ending(certificate: CertificateConfig, facts: Facts, now: float) -> str | None:
    """What to warn of, if it ends soon or has ended."""
    left = facts.not_after - now
    if left > SOON_S:
        return None
    when = f"expires in {left / 86_400:.0f} days" if left > 86_400 else "expires today" if left > 0 else "has expired"
    return f"the certificate {certificate.cert} {when}: renew it, then reload (SIGHUP)"


def watched(config: Config, now: float) -> tuple[float | None, list[str]]:
    """When the first certificate of this configuration ends, and what to warn of. Files that cannot be read now were
    good when they were loaded: they are left out."""
    ends: list[float] = []
    warnings = []
    for listen in config.listen:
        for certificate in listen.tls.certificates if listen.tls is not None else ():
            try:
                facts = read(certificate)
            except CertificateError:
                continue
            ends.append(facts.not_after)
            warning = ending(certificate, facts, now)
            warnings += [warning] if warning is not None else []
    return min(ends, default=None), warnings


def _names(found: dict[str, Any]) -> Iterator[str]:
    alternatives = [value for kind, value in found.get("subjectAltName", ()) if kind == "DNS"]
    if not alternatives:  # RFC 6125 §6.4.4: the common name only where there is no other
        alternatives = [value for part in found["subject"] for kind, value in part if kind == "commonName"]
    yield from (name.lower() for name in alternatives)


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or (error.strerror if isinstance(error, OSError) else None)
    return str(reason).lower().replace("_", " ") if reason else "there is none in it"
