"""What `edgecache coordinator` can be told. Its file has the section `coordinator`, by which `edgecache check` knows
it, and `log`.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgecache.config.dialects import FleetDialectsConfig
from edgecache.config.fields import DAY_S, AddressField, Duration, HostPattern, Section, from_word, version
from edgecache.config.nats import NatsConfig
from edgecache.config.units import Address


class CoordinatorTlsServerConfig(Section):
    """TLS towards edges and callers. The files are read at start and at each reload (SIGHUP)."""

    cert: str = Field(min_length=1, description="PEM file: the certificate, then the intermediate ones.")
    key: str | None = Field(
        None, min_length=1, description="PEM file of its private key, without a pass phrase. Default: in `cert` too."
    )
    client_ca: str | None = Field(
        None,
        min_length=1,
        description="PEM file of the authorities whose certificates edges must show, beside their token. Callers that "
        "purge may show one and need not. Default: no certificates are asked for.",
    )
    min_version: Annotated[Literal["1.2", "1.3"], BeforeValidator(version)] = Field(
        "1.2", description="The oldest version of TLS to speak."
    )


class CoordinatorConfig(Section):
    """The purge coordinator. `coordinator: ":8090"` is short for `coordinator: {listen: ":8090"}`."""

    listen: AddressField = Field(
        Address("127.0.0.1", 8090),
        description="Address and port for edges and callers. On any other than a loopback address reads need a token "
        "too, and TLS is advised.",
    )
    data: str | None = Field(
        None,
        min_length=1,
        description="Directory of the log and the tokens, made with mode 0700. Default: `coordinator` in the state "
        "directory (/var/lib/edgecache as root, else $XDG_STATE_HOME/edgecache or ~/.local/state/edgecache).",
    )
    tokens_file: str | None = Field(
        None, min_length=1, description="File with the hashes of tokens. Default: tokens.json in `data`."
    )
    tls: CoordinatorTlsServerConfig | None = Field(None, description="Speak TLS. Default: plain HTTP.")
    hosts: tuple[HostPattern, ...] = Field(
        (),
        description="Names by which a coordinator on a loopback address may be read without a token, beside IP "
        "addresses and localhost.",
    )
    heartbeat_s: Duration = Field(
        5.0,
        ge=0.1,
        le=300,
        description="How often edges hear the newest number. An edge that is not heard for three of these is cut off. "
        "Less than a third of the edges' `purge.max_silence`.",
    )
    stall_timeout_s: Duration = Field(
        30.0, ge=0.1, le=3600, description="How long an edge may take nothing of what it lacks before it is cut off."
    )
    wait_timeout_s: Duration = Field(
        10.0, ge=0.1, le=300, description="How long a purge waits for edges, where the caller does not say."
    )
    max_edges: int = Field(20_000, ge=1, le=1_000_000, description="Edges connected at once.")
    rate: float = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Purges per second for each token that has no rate of its own; with more: 429. A purge counts once "
        "more for every 100 targets. 0: no limit.",
    )
    burst: float = Field(5000, ge=1, le=10_000_000, description="Purges a token may save up, and then use at once.")
    keep_s: Duration = Field(
        7 * DAY_S,
        ge=1,
        le=3650 * DAY_S,
        description="How long entries of the log are kept. An edge that was away for longer takes all it has stored as "
        "purged.",
    )
    keep_entries: int = Field(1_000_000, ge=1, le=1_000_000_000, description="Entries of the log that are kept.")
    keep_keys_s: Duration = Field(DAY_S, ge=1, le=30 * DAY_S, description="How long idempotency keys are known.")
    keep_audit_s: Duration = Field(
        90 * DAY_S,
        ge=1,
        le=3650 * DAY_S,
        description="How long is kept who purged what. On NATS: as long as the log's entries.",
    )
    keep_away_s: Duration = Field(
        DAY_S,
        ge=1,
        le=365 * DAY_S,
        description="How long an edge that has gone is listed as away, restarts of the coordinator included. At most "
        "20,000 are.",
    )
    dialects: FleetDialectsConfig = Field(
        FleetDialectsConfig(), description="Purge requests as clients of other products send them."
    )
    nats: NatsConfig = Field(
        NatsConfig(), description="Keep the log in NATS JetStream, where several coordinators may share it."
    )


class CoordinatorLogConfig(Section):
    """What the coordinator says of itself, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least important message shown.")
    format: Literal["auto", "human", "json"] = Field(
        "auto", description="Form of messages. auto: human on a terminal, JSON elsewhere."
    )


class CoordinatorFile(Section):
    """The whole file."""

    coordinator: Annotated[CoordinatorConfig, from_word("listen")] = Field(
        CoordinatorConfig(), description="The purge coordinator."
    )
    log: CoordinatorLogConfig = Field(CoordinatorLogConfig(), description="Messages.")
