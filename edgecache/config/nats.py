"""NATS servers, as coordinators and edges reach them: `coordinator.nats`, `purge.nats`."""

import importlib.util
import re
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgecache.config.fields import Section

_URL = re.compile(r"(?:nats|tls)://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.\-_]+)(?::\d{1,5})?")


def _server(value: object) -> str:
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise ValueError("a nats:// or tls:// URL with a host, such as nats://10.0.0.7:4222; no user or password in it")
    return value


Server = Annotated[str, BeforeValidator(_server)]


class NatsTlsConfig(Section):
    """TLS towards NATS. Without any of these, tls:// URLs are verified by the system's authorities."""

    ca_file: str | None = Field(
        None, min_length=1, description="PEM file of the authorities to trust instead of the system's."
    )
    cert: str | None = Field(
        None, min_length=1, description="PEM file: the certificate to show, then the intermediate ones."
    )
    key: str | None = Field(None, min_length=1, description="PEM file of its private key. Default: in `cert` too.")


class NatsConfig(Section):
    """NATS JetStream as the bus of a fleet; see docs/fleet.md. It takes the extra `nats` (nats-py)."""

    servers: tuple[Server, ...] = Field(
        (),
        max_length=100,
        description="Servers of one cluster, or the leaf node nearby, such as nats://10.0.0.7:4222. Empty: NATS is not "
        "used.",
    )
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]{1,100}$")] = Field(
        "EDGECACHE_PURGES", description="Name of the stream that is the log. A coordinator makes it if it is not there."
    )
    subject: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+){0,8}$")] = Field(
        "edgecache.purges", max_length=100, description="What its subjects begin with."
    )
    replicas: int = Field(
        1,
        ge=1,
        le=5,
        description="Servers that keep the stream, where a coordinator makes it. 3 of three: one may fail.",
    )
    domain: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_\-]{1,100}$")] = Field(
        None,
        description="JetStream's domain, where the stream is in another one than the servers, as behind a leaf node.",
    )
    credentials_file: str | None = Field(None, min_length=1, description="NATS credentials (.creds).")
    user: str | None = Field(None, min_length=1, description="User name.")
    password_file: str | None = Field(None, min_length=1, description="File with that user's password.")
    token_file: str | None = Field(None, min_length=1, description="File with a token for NATS.")
    tls: NatsTlsConfig = Field(NatsTlsConfig(), description="TLS towards NATS.")

    @model_validator(mode="after")
    def _installed(self) -> Self:
        if self.servers and importlib.util.find_spec("nats") is None:
            raise PydanticCustomError("no_nats", "nats-py, which is not installed: pip install 'edgecache[nats]'")
        if (self.user is None) != (self.password_file is None):
            raise PydanticCustomError("nats_user", "user and password_file together")
        return self
