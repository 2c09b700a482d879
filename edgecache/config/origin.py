"""Where responses come from: `origin`."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgecache.config.fields import Duration, Section, authority, origin_url


class TlsClientConfig(Section):
    """How an https:// origin is verified."""

    verify: bool = Field(True, description="Verify the origin's certificate and name.")
    ca_file: str | None = Field(
        None, min_length=1, description="PEM file of the authorities to trust instead of the system's."
    )
    server_name: Annotated[str | None, BeforeValidator(authority)] = Field(
        None, description="Name to ask for (SNI) and to verify. Default: the host of `url`."
    )


class OriginConfig(Section):
    """Where a site's responses come from. `origin: URL` is short for `origin: {url: URL}`."""

    url: Annotated[str, BeforeValidator(origin_url)] = Field(
        description="Scheme, host and port of the origin, such as http://10.0.0.5:8000."
    )
    host: Annotated[str | None, BeforeValidator(authority)] = Field(
        None, description="Host to send to the origin instead of the one the client asked for."
    )
    tls: TlsClientConfig = Field(TlsClientConfig(), description="Verification of an https:// origin.")
    connect_timeout_s: Duration = Field(5.0, ge=0.05, le=300, description="Longest time to connect, TLS included.")
    first_byte_timeout_s: Duration = Field(
        60.0, ge=0.05, le=3600, description="Longest wait for the response head once the request is sent."
    )
    between_bytes_timeout_s: Duration = Field(
        30.0, ge=0.05, le=3600, description="Longest pause between two reads of a response body."
    )
    idle_timeout_s: Duration = Field(
        55.0, ge=0.1, le=3600, description="How long an unused connection is kept; less than the origin's own limit."
    )
    connections: int = Field(256, ge=1, le=100_000, description="Connections to this origin at once.")
    waiting: int = Field(
        1024, ge=0, le=1_000_000, description="Requests that may wait for a connection; more get 503 at once."
    )
