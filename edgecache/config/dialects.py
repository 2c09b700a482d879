"""Purge requests as the clients of other products send them: `purge.dialects`."""

import importlib.util
import ipaddress
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from edgecache.config.fields import Network, Section

Speech = Literal["varnish", "fastly", "cloudflare", "magento", "nginx"]
_ALL: tuple[Speech, ...] = ("varnish", "fastly", "cloudflare", "magento", "nginx")


class SiteIdConfig(Section):
    """Which site a service of Fastly's or a zone of Cloudflare's is."""

    id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")] = Field(description="The id that clients send.")
    site: str = Field(min_length=1, description="The site's name.")


class PublicDialectsConfig(Section):
    """Purges on the public listeners. From any address that is not listed these requests are the site's own, and go to
    its origin."""

    allow: tuple[Network, ...] = Field(
        (),
        description="Addresses and networks that may purge there. Behind a trusted proxy it is the client's address "
        "that counts. Empty: nobody.",
    )
    token: bool = Field(False, description="Ask for the admin token there too.")
    speak: tuple[Speech, ...] = Field(_ALL, description="As above, for the public listeners.")

    @model_validator(mode="after")
    def _not_for_everybody(self) -> Self:
        widest = next((text for text in self.allow if ipaddress.ip_network(text).prefixlen == 0), None)
        if widest is not None and not self.token:
            raise PydanticCustomError(
                "open_purge", "narrower networks than {widest}, or token: true", {"widest": widest}
            )
        return self


class FleetDialectsConfig(Section):
    """Purge requests as clients of other products send them: see docs/dialects.md."""

    speak: tuple[Speech, ...] = Field(
        _ALL,
        description="What the admin API understands. Where a request fits several, such as a bare PURGE, the first of "
        "them answers. Empty: none.",
    )
    ids: tuple[SiteIdConfig, ...] = Field(
        (),
        max_length=10_000,
        description="Sites by the ids of services and zones. An edge takes an id that is not listed for a site's name, "
        "and for its only site where nothing is listed; a coordinator refuses it.",
    )
    patterns: Literal["refuse", "widen", "match"] = Field(
        "refuse",
        description="What to do with a regular expression that is no list of tags, hosts or paths: refuse it; purge "
        "the smallest thing that surely covers it, such as the host; or compare stored URLs with it when they are next "
        "asked for. An edge that is to match keeps the URL of what it stores; one that is not widens those that its "
        "coordinator sends. `match` also allows `patterns` in POST /v1/purge, and takes the extra `patterns` "
        "(google-re2).",
    )

    @model_validator(mode="after")
    def _can_match(self) -> Self:
        if self.patterns == "match" and importlib.util.find_spec("re2") is None:
            raise PydanticCustomError("no_re2", "google-re2, which is not installed: pip install 'edgecache[patterns]'")
        return self

    @model_validator(mode="after")
    def _one_site_for_each(self) -> Self:
        seen: set[str] = set()
        for entry in self.ids:
            if entry.id in seen:
                raise PydanticCustomError("id_twice", 'each id once; "{id}" is there twice', {"id": entry.id})
            seen.add(entry.id)
        return self


class DialectsConfig(FleetDialectsConfig):
    """Purge requests as clients of other products send them: see docs/dialects.md."""

    public: PublicDialectsConfig = Field(
        PublicDialectsConfig(), description="The same on the public listeners. Default: nowhere."
    )
