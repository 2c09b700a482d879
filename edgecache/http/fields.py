"""The common shapes of field values (RFC 9110 §5.6, §8.3, §8.8.3, §12.4.2): lists, tokens, tags, weights, types.

Every function takes time linear in its input, never raises, and says None for what the grammar does not allow.
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED = re.compile(r'"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)"')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))+', re.DOTALL)
_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_QVALUE = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_DIGITS = re.compile(r"[0-9]+")
_OWS = " \t"

DELTA_MAX = 2**31
"""What a delta-seconds too large to represent counts as (RFC 9111 §1.2.2): 68 years, which is for ever."""


def is_token(text: str) -> bool:
    """RFC 9110 §5.6.2."""
    return _TOKEN.fullmatch(text) is not None


def split_list(value: str) -> list[str]:
    """The elements of a comma-separated list, trimmed, empty ones left out (RFC 9110 §5.6.1).

    A comma inside a quoted string does not separate. A quoted string that is not closed runs to the end.
    """
    if '"' not in value:
        return [text for element in value.split(",") if (text := element.strip(_OWS))]
    return [text for element in _ELEMENT.findall(value) if (text := element.strip(_OWS))]


def split_lines(values: list[str]) -> list[str]:
    """The elements of a list that came in several field lines. An open quote ends with its line."""
    return [element for value in values for element in split_list(value)]


def unquote(text: str) -> str | None:
    """The content of a quoted-string, escapes undone (RFC 9110 §5.6.4); None if it is not one."""
    match = _QUOTED.fullmatch(text)
    return None if match is None else _ESCAPE.sub(r"\1", match[1])


def parse_delta(text: str) -> int | None:
    """delta-seconds (RFC 9111 §1.2.2), at most `DELTA_MAX`."""
    number = parse_digits(text)
    return None if number is None else min(number, DELTA_MAX)


def parse_digits(text: str) -> int | None:
    """1*DIGIT; what has more than 18 significant digits counts as 10**18."""
    if _DIGITS.fullmatch(text) is None:
        return None
    text = text.lstrip("0")
    return 10**18 if len(text) > 18 else int(text or "0")


def parse_qvalue(text: str) -> int | None:
    """A weight in thousandths, 0 to 1000 (RFC 9110 §12.4.2)."""
    return round(float(text) * 1000) if _QVALUE.fullmatch(text) else None


# --- entity tags (RFC 9110 §8.8.3) ---


@dataclass(frozen=True, slots=True)
class EntityTag:
    opaque: str
    weak: bool = False

    def __str__(self) -> str:
        return f'W/"{self.opaque}"' if self.weak else f'"{self.opaque}"'

    def strongly_equals(self, other: "EntityTag") -> bool:
        """RFC 9110 §8.8.3.2: both strong, and the same octets."""
        return not self.weak and not other.weak and self.opaque == other.opaque

    def weakly_equals(self, other: "EntityTag") -> bool:
        """RFC 9110 §8.8.3.2: the same octets, whatever their weakness."""
        return self.opaque == other.opaque


def parse_entity_tag(text: str) -> EntityTag | None:
    match = _ENTITY_TAG.fullmatch(text)
    return None if match is None else EntityTag(match[2], match[1] is not None)


def parse_entity_tags(value: str) -> tuple[EntityTag, ...]:
    """The well-formed tags of a list; the others are left out, since they match nothing (not for "*")."""
    return tuple(tag for text in _split_tags(value) if (tag := parse_entity_tag(text)) is not None)


def _split_tags(value: str) -> list[str]:
    # An entity-tag knows no escapes, so a backslash before the closing quote does not make it part of the tag.
    return split_list(value) if "\\" not in value else [match[0] for match in _ENTITY_TAG.finditer(value)]


# --- media types (RFC 9110 §8.3.1) ---


@dataclass(frozen=True, slots=True)
class MediaType:
    type: str
    """Lower case, as is `subtype`."""
    subtype: str
    parameters: tuple[tuple[str, str], ...] = ()
    """(lower-case name, value)."""

    @property
    def essence(self) -> str:
        return f"{self.type}/{self.subtype}"


def parse_media_type(value: str) -> MediaType | None:
    essence, *rest = split_parameters(value)
    kind, _, subtype = essence.partition("/")
    if not is_token(kind) or not is_token(subtype):
        return None
    parameters = parse_parameters(rest)
    return None if parameters is None else MediaType(kind.lower(), subtype.lower(), parameters)


_PART = re.compile(r'(?:[^";]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))+', re.DOTALL)


def split_parameters(text: str) -> list[str]:
    """What stands between the semicolons, trimmed; the first is what the parameters belong to (RFC 9110 §5.6.6)."""
    if '"' not in text:
        first, *rest = (part.strip(_OWS) for part in text.split(";"))
    else:
        head, _, tail = text.partition(";")
        if '"' in head:
            head, tail = text, ""
        first, rest = head.strip(_OWS), [part.strip(_OWS) for part in _PART.findall(tail)]
    return [first, *(part for part in rest if part)]


def parse_parameters(parts: list[str]) -> tuple[tuple[str, str], ...] | None:
    """`name=value` of each part, value a token or a quoted-string (RFC 9110 §5.6.6); None if one is neither."""
    parameters: list[tuple[str, str]] = []
    for part in parts:
        name, equals, text = part.partition("=")
        value = text if is_token(text) else unquote(text)
        if not equals or not is_token(name) or value is None:
            return None
        parameters.append((name.lower(), value))
    return tuple(parameters)


# --- proactive negotiation (RFC 9110 §12.5) ---


def parse_weighted(value: str) -> list[tuple[str, int]] | None:
    """(lower-case element with its other parameters, weight in thousandths) of an Accept-like list; None if malformed.

    White space is normalised; the weight is the parameter `q` (RFC 9110 §12.4.2), 1000 where there is none.
    """
    found: list[tuple[str, int]] = []
    for element in split_list(value):
        item, *parts = split_parameters(element)
        if not item:
            return None
        weight = 1000
        kept = [item.lower()]
        for part in parts:
            if part[:2].lower() == "q=":
                number = parse_qvalue(part[2:])
                if number is None:
                    return None
                weight = number
            else:
                kept.append(part)
        found.append((";".join(kept), weight))
    return found
