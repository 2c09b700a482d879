"""Invalidation: `purge`."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgecache.config.dialects import DialectsConfig
from edgecache.config.fields import Duration, Section, origin_url
from edgecache.config.nats import NatsConfig
from edgecache.config.purgelog import PurgeLogConfig


def _coordinator(value: object) -> object:
    return None if value is None else origin_url(value)


class CoordinatorTlsConfig(Section):
    """How an https:// coordinator is verified, and what is shown to it."""

    ca_file: str | None = Field(
        None, min_length=1, description="PEM file of the authorities to trust instead of the system's."
    )
    cert: str | None = Field(
        None, min_length=1, description="PEM file: the certificate this edge shows, then the intermediate ones."
    )
    key: str | None = Field(None, min_length=1, description="PEM file of its private key. Default: in `cert` too.")


class PurgeConfig(Section):
    """Invalidation."""

    coordinator: Annotated[str | None, BeforeValidator(_coordinator)] = Field(
        None,
        description="URL of the purge coordinator, such as http://purge.internal:8090. Without one, purges concern "
        "this edge alone.",
    )
    token_file: str | None = Field(
        None,
        min_length=1,
        description="File with the token that the coordinator asks this edge for. Default: none is shown.",
    )
    nats: NatsConfig = Field(
        NatsConfig(),
        description="Read the purge log from NATS directly, as from a leaf node nearby, and not through the "
        "coordinator, which is still asked for purges that come to this edge.",
    )
    tls: CoordinatorTlsConfig = Field(CoordinatorTlsConfig(), description="TLS towards an https:// coordinator.")
    max_silence_s: Duration = Field(
        30.0,
        ge=0.5,
        le=86_400,
        description="How long this edge may hear nothing of the coordinator before it no longer knows which purges "
        "there were.",
    )
    when_silent: Literal["revalidate", "serve", "pass"] = Field(
        "revalidate",
        description="What is done then, until all has been caught up: ask the origin about everything stored before it "
        "is used; go on as if nothing had been purged; or pass all requests through and store nothing.",
    )
    max_targets: int = Field(
        10_000, ge=1, le=10_000, description="URLs, keys, hosts and prefixes one purge may name; with more: 413."
    )
    table_slots: int = Field(
        0,
        ge=0,
        le=1 << 26,
        description="Tags whose last purge is remembered one by one; beyond that older purges are widened, never "
        "lost. 0: chosen from memory.size.",
    )
    log: PurgeLogConfig = Field(PurgeLogConfig(), description="What an edge on its own remembers of its purges.")
    dialects: DialectsConfig = Field(
        DialectsConfig(), description="Purge requests as clients of other products send them."
    )

    @model_validator(mode="after")
    def _whom_to_ask(self) -> Self:
        if self.nats.servers and self.coordinator is None:
            raise PydanticCustomError("nats_alone", "a coordinator beside nats: it is asked for this edge's own purges")
        return self
