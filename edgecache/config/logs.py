"""What edgecache says: `log`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgecache.config.fields import Duration, Parameter, Section, log_format


class AccessLogConfig(Section):
    """One line per finished request, written in batches off the hot path."""

    format: Annotated[Literal["json", "combined", "off"], BeforeValidator(log_format)] = Field(
        "json", description="json (one object per line), combined (as Apache and nginx write it) or off."
    )
    path: str = Field("-", min_length=1, description='File to append to, or "-" for standard output.')
    flush_interval_s: Duration = Field(0.2, ge=0.01, le=60, description="How often lines are written.")
    buffer_lines: int = Field(
        65_536,
        ge=100,
        le=10_000_000,
        description="Lines that may wait to be written. More are dropped and counted; requests never wait.",
    )
    redact: tuple[Parameter, ...] = Field(
        (
            "access_token",
            "api_key",
            "apikey",
            "auth",
            "code",
            "id_token",
            "key",
            "password",
            "secret",
            "sig",
            "signature",
            "token",
            "x-amz-credential",
            "x-amz-security-token",
            "x-amz-signature",
        ),
        description="Query parameters whose values are never logged, compared without case; beginnings with a "
        "trailing * too. Authorization and Cookie fields are never logged.",
    )


class LogConfig(Section):
    """What edgecache says of itself (to standard error), and of each request."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least important message shown.")
    format: Literal["auto", "human", "json"] = Field(
        "auto", description="Form of messages. auto: human on a terminal, JSON elsewhere."
    )
    access: AccessLogConfig = Field(AccessLogConfig(), description="The access log.")
