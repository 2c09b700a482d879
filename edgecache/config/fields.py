"""What the values of configuration keys are made of: types with their parsing and their bounds, and `Section`.

A key is an attribute's name less its unit: `memory.size_bytes` here is `memory: {size: 256MiB}` in the file and
EDGECACHE_MEMORY_SIZE in the environment.
"""

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict

from edgecache.config.units import Address, parse_address, parse_duration, parse_size


def key_of(attribute: str) -> str:
    """The file's key for an attribute: the attribute less its unit."""
    return attribute.removesuffix("_bytes").removesuffix("_s")


def unlimited(value: object) -> object:
    return None if value in (None, "unlimited") else parse_size(value)


def auto(value: object) -> object:
    return None if value in (None, "auto") else value


def optional_duration(value: object) -> object:
    return None if value is None else parse_duration(value)


def optional_size(value: object) -> object:
    return None if value is None else parse_size(value)


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?)*")
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9.\-_]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_MEDIA = re.compile(r"[!#$&^_.+\-0-9A-Za-z]{1,64}/(?:\*|[!#$&^_.+\-0-9A-Za-z]{1,64})")


def _field_name(value: object) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("a header field's name, such as CDN-Cache-Control")
    return value.lower()


def _token(value: object) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("a word of letters, digits and -._ without spaces")
    return value


def _host_pattern(value: object) -> str:
    expected = 'a host name such as www.example.com, or "*.example.com" for every name below it; no port'
    if not isinstance(value, str):
        raise ValueError(expected)
    host = value.lower().removesuffix(".")
    if not host.isascii():
        raise ValueError(expected + "; write international names in their xn-- form")
    if host.startswith("[") and host.endswith("]"):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            raise ValueError(expected) from None
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise ValueError(expected)
    return host


def origin_url(value: object) -> str:
    expected = "an http:// or https:// URL with a host and no path, such as http://127.0.0.1:8000"
    if not isinstance(value, str):
        raise ValueError(expected)
    try:
        parts = urlsplit(value.strip())
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(expected + "; no user or password in it")
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host or port == 0 or not host.isascii():
        raise ValueError(expected)
    if re.search(r"[\x00-\x20\x7f\\]", value.strip()):
        raise ValueError(expected)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(expected)
    bracketed = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{bracketed}" + (f":{port}" if port is not None else "")


def authority(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _AUTHORITY.fullmatch(value):
        raise ValueError("a host with an optional port, such as www.example.com")
    return value


def _network(value: object) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ValueError("an address or a network such as 10.0.0.0/8 or 2001:db8::/32") from None


def _parameter(value: object) -> str:
    if not isinstance(value, str) or not value or "*" in value[:-1] or value == "*" or re.search(r"[\s&=#]", value):
        raise ValueError("a query parameter's name, or the start of one with a trailing *, such as utm_*")
    return value


def version(value: object) -> object:
    return str(value) if isinstance(value, float) else value  # YAML reads a bare 1.3 as a number


def _media_range(value: object) -> str:
    if not isinstance(value, str) or not _MEDIA.fullmatch(value):
        raise ValueError("a media type such as text/html, or text/* for all of a kind; no parameters")
    return value.lower()


def log_format(value: object) -> object:
    return "off" if value is False else value  # YAML 1.1 reads a bare `off` as false


Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
AddressField = Annotated[Address, BeforeValidator(parse_address)]
FieldName = Annotated[str, BeforeValidator(_field_name)]
Token = Annotated[str, BeforeValidator(_token)]
HostPattern = Annotated[str, BeforeValidator(_host_pattern)]
Network = Annotated[str, BeforeValidator(_network)]
MediaRange = Annotated[str, BeforeValidator(_media_range)]
Parameter = Annotated[str, BeforeValidator(_parameter)]
DAY_S = 86_400.0
YEAR_S = 365 * DAY_S


class Section(BaseModel):
    """Unknown keys are refused; nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=key_of,
        validate_by_name=False,
        validate_by_alias=True,
    )


def from_word(model_key: str) -> BeforeValidator:
    """Lets a section be written as the value of its one important key: `origin: http://…`."""

    def expand(value: object) -> object:
        return {model_key: value} if isinstance(value, str) else value

    return BeforeValidator(expand)
