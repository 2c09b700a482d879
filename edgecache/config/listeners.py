"""Addresses, towards clients and the operator: `listen`, `hsts`, `admin`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgecache.config.fields import AddressField, Duration, HostPattern, Section, version
from edgecache.config.units import Address


class CertificateConfig(Section):
    """A certificate with its chain, and its key."""

    cert: str = Field(min_length=1, description="PEM file: the certificate, then the intermediate ones.")
    key: str | None = Field(
        None, min_length=1, description="PEM file of its private key, without a pass phrase. Default: in `cert` too."
    )


class TlsServerConfig(Section):
    """TLS towards clients. The files are read at start and at each reload (SIGHUP)."""

    certificates: tuple[CertificateConfig, ...] = Field(
        min_length=1,
        max_length=1000,
        description="The first that covers the name the client asks for is shown; the first of all where none does, "
        "or the client names none.",
    )
    min_version: Annotated[Literal["1.2", "1.3"], BeforeValidator(version)] = Field(
        "1.2", description="The oldest version of TLS to speak."
    )
    ciphers: str | None = Field(
        None,
        min_length=1,
        description="Ciphers for TLS 1.2, as OpenSSL writes lists of them. Default: those with forward secrecy and "
        "authenticated encryption.",
    )


class ListenConfig(Section):
    """A public address. `listen: [":80"]` is short for `listen: [{address: ":80"}]`."""

    address: AddressField = Field(description="Address and port to accept clients on.")
    tls: TlsServerConfig | None = Field(None, description="Speak TLS here. Default: plain HTTP.")


class HstsConfig(Section):
    """Strict-Transport-Security (RFC 6797): browsers use https:// only from then on. `hsts: 180d` is short for
    `hsts: {max_age: 180d}`."""

    max_age_s: Duration = Field(
        180 * 86_400.0, ge=0, le=10 * 365 * 86_400.0, description="How long browsers keep to it; 0 takes it back."
    )
    include_subdomains: bool = Field(False, description="For every name below the host's, too.")
    preload: bool = Field(False, description="Consent to the browsers' built-in lists. Hard to take back.")

    @property
    def value(self) -> str:
        """The field's value."""
        return (
            f"max-age={self.max_age_s:.0f}"
            + "; includeSubDomains" * self.include_subdomains
            + "; preload" * self.preload
        )


class AdminConfig(Section):
    """The operator's own listener: health, metrics, statistics, explain and purge. Never put it on a public address."""

    address: AddressField = Field(
        Address("127.0.0.1", 8081),
        description="Address and port of the admin API. On any other than a loopback address reads need the token too.",
    )
    token_file: str | None = Field(
        None,
        min_length=1,
        description="File that holds the token for whatever changes state. Made at first start if it is not there. "
        "Default: the token file in the state directory.",
    )
    hosts: tuple[HostPattern, ...] = Field(
        (),
        description="Names by which clients reach the admin API. IP addresses and localhost always work; any other "
        "Host is refused, so that a web page cannot reach it through DNS rebinding.",
    )
