"""What goes over the admin API, both ways: the purge body as a strict model, answers as plain JSON values.

The server and the command line's client read and write through here, and the OpenAPI document is made from it.
"""

import re
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edgecache.admin.node import Explanation
from edgecache.purge.message import PurgeKind, PurgeOrder, PurgeReceipt, UrlPattern

MAX_BODY_BYTES = 1 << 20
MAX_TARGETS = 10_000
MAX_TARGET_LENGTH = 8192

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _clean(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("text without control characters")
    return text


Target = Annotated[str, Field(min_length=1, max_length=MAX_TARGET_LENGTH), AfterValidator(_clean)]


class PatternBody(BaseModel):
    """A regular expression on URLs, in RE2's syntax."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Target = Field(description="Found anywhere in path and query of a stored URL, unless it has anchors.")
    host: Target | None = Field(default=None, description="Only on this host. Default: on all.")


class PurgeBody(BaseModel):
    """The body of POST /v1/purge. At least one of urls, keys, hosts, prefixes, patterns and all must name something."""

    model_config = ConfigDict(extra="forbid", strict=True)

    urls: list[Target] = Field(default=[], description="Absolute URLs; every variant of each is purged.")
    keys: list[Target] = Field(default=[], description="Surrogate keys, compared octet for octet.")
    groups: list[Target] = Field(default=[], description="Keys that may hold spaces: cache groups (RFC 9875), tags.")
    caseless: list[Target] = Field(
        default=[], description="Keys that mean what they are in lower case (ASCII) too, as Cloudflare compares tags."
    )
    hosts: list[Target] = Field(default=[], description="Hosts with everything on them.")
    prefixes: list[Target] = Field(
        default=[],
        description="[scheme://]host[:port]/path/ with everything at or below it, cut at segment boundaries.",
    )
    patterns: list[PatternBody] = Field(
        default=[],
        description="Regular expressions, compared with stored URLs when they are next asked for; only where "
        "dialects.patterns is match.",
    )
    all: bool = Field(default=False, description="Everything: of the site, where one is named, else of the edge.")
    site: Target | None = Field(default=None, description="The site whose keys or whose everything are meant.")
    soft: bool = Field(default=False, description="Make stale what is purged, instead of removing it.")
    wait: bool = Field(default=True, description="Answer when every edge has applied it.")
    timeout_s: float | None = Field(
        default=None, gt=0, le=300, description="How long to wait for edges. Default: as configured."
    )

    @property
    def targets(self) -> int:
        named = (self.urls, self.keys, self.groups, self.caseless, self.hosts, self.prefixes)
        return sum(map(len, named)) + len(self.patterns) + self.all

    def order(self, source: str) -> PurgeOrder:
        return PurgeOrder(
            urls=tuple(self.urls),
            keys=tuple(self.keys),
            groups=tuple(self.groups),
            caseless=tuple(self.caseless),
            hosts=tuple(self.hosts),
            prefixes=tuple(self.prefixes),
            patterns=tuple(UrlPattern(pattern.url, pattern.host) for pattern in self.patterns),
            everything=self.all,
            site=self.site,
            kind=PurgeKind.SOFT if self.soft else PurgeKind.HARD,
            source=source,
        )


def receipt_json(receipt: PurgeReceipt) -> dict[str, Any]:
    """The same from an edge and from a coordinator."""
    return {
        "sequence": receipt.sequence,
        "time": receipt.time,
        "again": receipt.again,
        "waited": receipt.waited,
        "complete": receipt.complete,
        "edges": [  # asdict would take longer than all else, for thousands of them
            {"edge": edge.edge, "applied": edge.applied, "duration_s": edge.duration_s} for edge in receipt.edges
        ],
        "away": list(receipt.away),
    }


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    return asdict(explanation)


def error_json(code: str, message: str, path: str = "") -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "path": path}}
