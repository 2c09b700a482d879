"""Cache directives (RFC 9111 §5.2): Cache-Control of requests and responses, and what is written like it.

Reading is safe rather than kind. A directive that forbids something counts whatever is wrong with its argument, and
also when it is found in an element nobody can read; one that allows something counts only when it is well-formed;
a lifetime that is malformed or given twice with different values is zero (§4.2.1: such a response is stale).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from edgecache.http.fields import is_token, parse_delta, split_lines, unquote
from edgecache.http.structured import Item, Member, Token

BROKEN = "\0"
"""The argument of a directive whose element breaks the grammar. No argument can be this text."""

_FORBIDS = frozenset({"no-store", "private", "no-cache"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDING_WORD = re.compile(r"(?<![0-9A-Za-z_-])(no-store|private|no-cache)(?![0-9A-Za-z_-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Directives:
    """Directives by lower-case name. Those nobody knows are there too, and change nothing (§5.2.3)."""

    arguments: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    """Every argument given, in order; None where there was none."""

    def __contains__(self, name: str) -> bool:
        return name in self.arguments

    def says(self, name: str) -> bool:
        """Is there a well-formed `name`, or a forbidding one in any shape? An argument too many changes nothing."""
        arguments = self.arguments.get(name, ())
        return bool(arguments) and (name in _FORBIDS or any(text != BROKEN for text in arguments))

    def seconds(self, name: str, *, invalid: int | None = 0) -> int | None:
        """The lifetime `name` gives; None where it is absent, `invalid` where it is malformed or contradicts itself."""
        arguments = self.arguments.get(name)
        if arguments is None:
            return None
        values = {None if text is None else parse_delta(text) for text in arguments}
        value = values.pop()
        return invalid if values or value is None else value

    def fields(self, name: str) -> frozenset[str] | None:
        """The field names `name` is limited to, lower case (§5.2.2.4, §5.2.2.7).

        None where it is absent; empty where it has no such limit or one that cannot be read, so that it holds for all.
        """
        arguments = self.arguments.get(name)
        if arguments is None:
            return None
        names: set[str] = set()
        for text in arguments:
            listed = [] if text is None else split_lines([text])
            if not listed or not all(is_token(each) for each in listed):
                return frozenset()
            names.update(each.lower() for each in listed)
        return frozenset(names)


_NONE = Directives()
_REMEMBERED_OCTETS = 256
"""Longer values are rare, and a stranger could make each one different."""


def parse_directives(lines: list[str]) -> Directives:
    """The directives of a field's lines (§5.2: 1#cache-directive)."""
    if not lines:
        return _NONE
    if len(lines) == 1 and len(lines[0]) <= _REMEMBERED_OCTETS:
        return _of_line(lines[0])
    return _parse(lines)


@lru_cache(maxsize=1024)
def _of_line(line: str) -> Directives:
    return _parse([line])


def _parse(lines: list[str]) -> Directives:
    arguments: dict[str, tuple[str | None, ...]] = {}
    for name, argument in _elements(split_lines(lines)):
        arguments[name] = (*arguments.get(name, ()), argument)
    return Directives(arguments)


def _elements(elements: Iterable[str]) -> Iterable[tuple[str, str | None]]:
    for element in elements:
        name, equals, text = element.partition("=")
        if is_token(name):
            if not equals:
                yield name.lower(), None
                continue
            # Both forms of argument are read for every directive (§5.2).
            argument = text if is_token(text) else unquote(text)
            if argument is not None:
                yield name.lower(), argument
                continue
        # Malformed. The name it begins with, and whatever in it forbids, still count.
        match = _NAME.match(element)
        broken = {match[0].lower()} if match is not None else set()
        broken.update(word.lower() for word in _FORBIDDING_WORD.findall(element))
        for each in sorted(broken):
            yield each, BROKEN


# --- targeted fields (RFC 9213 §2.1): the same directives as a Dictionary ---

_SECONDS = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
_FIELD_LISTS = frozenset({"no-cache", "private"})
_FLAGS = frozenset(
    {"no-store", "public", "must-revalidate", "proxy-revalidate", "must-understand", "no-transform", "immutable"}
)


def from_dictionary(members: Mapping[str, Member]) -> Directives | None:
    """The directives of a parsed targeted field; None where a directive we know has a value of the wrong type.

    Parameters are ignored. A false Boolean says that the directive is not given. A negative lifetime is of the right
    type and no lifetime: zero.
    """
    arguments: dict[str, tuple[str | None, ...]] = {}
    for name, member in members.items():
        value = member.value if isinstance(member, Item) else None
        if value is False:
            continue
        if name in _SECONDS:
            if not isinstance(value, int) or isinstance(value, bool):
                return None
            arguments[name] = (str(max(value, 0)),)
        elif name in _FIELD_LISTS and isinstance(value, str):
            arguments[name] = (value,)
        elif (name in _FIELD_LISTS or name in _FLAGS) and value is not True:
            return None
        else:
            arguments[name] = (str(value) if isinstance(value, Token | int) and value is not True else None,)
    return Directives(arguments)
