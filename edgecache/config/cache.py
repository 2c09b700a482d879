"""What is stored, and for how long it is used: `cache`."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgecache.config.fields import (
    DAY_S,
    YEAR_S,
    Duration,
    FieldName,
    MediaRange,
    Parameter,
    Section,
    Size,
    Token,
    optional_duration,
    optional_size,
)
from edgecache.config.units import GIB, KIB, MIB, parse_size

SLICE_EXPECTED = "a size from 64KiB to 64MiB, such as 4MiB, or off"


def _slice(value: object) -> object:
    if value is False or value == "off":  # YAML 1.1 reads a bare `off` as false
        return 0
    size = parse_size(value)
    if size and not 64 * KIB <= size <= 64 * MIB:
        raise ValueError(SLICE_EXPECTED)
    return size


class QueryConfig(Section):
    """What of the query is part of the cache key. At most one of `drop` and `keep`."""

    drop: tuple[Parameter, ...] = Field(
        (), description="Parameters left out of the cache key: names, or beginnings with a trailing *, such as utm_*."
    )
    keep: tuple[Parameter, ...] | None = Field(
        None, description="The only parameters in the cache key; an empty list ignores the query."
    )
    sort: bool = Field(False, description="Order parameters by name in the cache key.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.drop and self.keep is not None:
            raise PydanticCustomError("drop_and_keep", "either drop or keep, not both")
        return self


class CompressConfig(Section):
    """Content codings that edgecache makes of stored responses, once, after they are stored, as variants beside the
    response as it came. Responses that the origin has encoded, lets vary by Accept-Encoding or marks no-transform stay
    as they are."""

    codings: tuple[Literal["br", "zstd", "gzip"], ...] = Field(
        (),
        max_length=3,
        description="Which to make: br, zstd, gzip; the first that a client prefers is sent. Empty: none.",
    )
    types: tuple[MediaRange, ...] = Field(
        (
            "text/*",
            "application/atom+xml",
            "application/javascript",
            "application/json",
            "application/ld+json",
            "application/manifest+json",
            "application/rss+xml",
            "application/xhtml+xml",
            "application/xml",
            "image/svg+xml",
        ),
        description="Media types to compress; text/* means all of a kind.",
    )
    min_size_bytes: Size = Field(KIB, ge=1, le=GIB, description="Smaller bodies stay as they are.")
    max_size_bytes: Size = Field(MIB, ge=1, le=64 * MIB, description="Larger bodies stay as they are.")


class CacheConfig(Section):
    """What is stored, and for how long it is used. At the top level: the defaults of every site."""

    target_fields: tuple[FieldName, ...] = Field(
        ("cdn-cache-control",),
        max_length=8,
        description="Targeted Cache-Control fields obeyed, most specific first (RFC 9213).",
    )
    surrogate_name: Token = Field(
        "edgecache", description="Name of this cache in the targets of Surrogate-Control, and in Surrogate-Capability."
    )
    surrogate_capability: bool = Field(
        True, description="Tell the origin, in Surrogate-Capability, that Surrogate-Control is understood here."
    )
    override_ttl_s: Annotated[float | None, BeforeValidator(optional_duration)] = Field(
        None,
        ge=0,
        le=10 * YEAR_S,
        description="A freshness lifetime for everything stored, whatever the origin says.",
    )
    heuristics: bool = Field(
        True, description="Guess a lifetime where the origin gives none but Last-Modified (RFC 9111 §4.2.2)."
    )
    heuristic_fraction: float = Field(
        0.1, gt=0, le=1, description="The guess as a part of the time since Last-Modified."
    )
    heuristic_cap_s: Duration = Field(DAY_S, ge=0, le=YEAR_S, description="The longest guess.")
    stale_while_revalidate_s: Duration = Field(
        0.0,
        ge=0,
        le=YEAR_S,
        description="How long a stale response may be used while it is revalidated, where the "
        "response does not say (RFC 5861 §3).",
    )
    stale_if_error_s: Duration = Field(
        0.0,
        ge=0,
        le=YEAR_S,
        description="How long a stale response may be used when the origin fails, where the "
        "response does not say (RFC 5861 §4).",
    )
    stale_when_unreachable_s: Duration = Field(
        DAY_S,
        ge=0,
        le=YEAR_S,
        description="How long after it went stale a response may be used when the origin gives no answer at all "
        "(RFC 9111 §4.2.4). Never where the response forbids it.",
    )
    retry_after_failure_s: Duration = Field(
        1.0,
        ge=0,
        le=3600,
        description="How long a stale response is used without asking again, once the origin has failed to renew it: "
        "one attempt for each URL in that time. 0: each request asks.",
    )
    stale_despite_s_maxage: bool = Field(
        False,
        description="Let stale-while-revalidate and stale-if-error of a response count beside its s-maxage, which by "
        "the letter forbids stale answers (RFC 9111 §5.2.2.10).",
    )
    store_set_cookie: bool = Field(
        False,
        description="Store responses that set cookies as if they did not. Off: only those explicitly allowed "
        "for shared caches.",
    )
    honour_request_directives: bool = Field(
        True, description="Obey Cache-Control and Pragma of requests (RFC 9111 §5.2.1)."
    )
    hit_for_pass_s: Duration = Field(
        120.0,
        ge=0,
        le=DAY_S,
        description="How long to remember that a URL's responses cannot be stored, so that nobody queues for them.",
    )
    query: QueryConfig = Field(QueryConfig(), description="What of the query is part of the cache key.")
    no_vary_search: bool = Field(
        False,
        description="Honour No-Vary-Search: a stored response answers for every URL whose query differs only in what "
        "the response says makes no difference.",
    )
    compress: CompressConfig = Field(CompressConfig(), description="Content codings made by edgecache.")
    early_hints: bool = Field(
        False,
        description="While a page whose stored copy is stale waits for the origin, send its preload and preconnect "
        "links as 103 Early Hints (RFC 8297). What the origin sends itself is passed on always.",
    )
    max_object_bytes: Annotated[int | None, BeforeValidator(optional_size)] = Field(
        None, ge=0, le=GIB, description="Largest body stored. Default: memory.max_object, which is also the most."
    )
    slice_bytes: Annotated[int, BeforeValidator(_slice)] = Field(
        4 * MIB,
        description="With a disk tier, larger bodies are stored on disk in slices of this size, so that a range takes "
        "no more of the origin than the slices it lies in. off: they are passed through.",
    )
    max_vary_fields: int = Field(16, ge=0, le=64, description="Responses that vary on more fields are not stored.")
    max_ranges: int = Field(16, ge=1, le=256, description="Ranges answered in one response; with more: the whole.")
    surrogate_keys_limit_bytes: Size = Field(
        16 * KIB, ge=0, le=MIB, description="Octets of surrogate keys a response may have; with more it is not stored."
    )
    cache_status_name: Token = Field(
        "edgecache", max_length=100, description="Name of this cache in the Cache-Status field (RFC 9211)."
    )
    cache_status_key: bool = Field(False, description="Show the cache key in Cache-Status.")
