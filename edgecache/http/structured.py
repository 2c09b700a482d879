"""Structured field values (RFC 9651): items, lists and dictionaries with parameters; strict, in linear time.

Whatever breaks the grammar makes the whole field unusable (§4.2): the public functions then return None, and the
caller goes on as if the field were not there. Bare items are Python values, with a type of its own where Python has
none: int, Decimal, str (String), Token, bytes (Byte Sequence), bool, Date, DisplayString.
"""

import binascii
import re
from dataclasses import dataclass, field
from decimal import Decimal


class Token(str):
    """A Token (§3.3.4)."""

    __slots__ = ()


class DisplayString(str):
    """Text beyond ASCII (§3.3.8)."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Date:
    """Seconds since the epoch (§3.3.7)."""

    seconds: int


BareItem = int | Decimal | str | bytes | bool | Date
Parameters = dict[str, BareItem]


@dataclass(frozen=True, slots=True)
class Item:
    value: BareItem
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InnerList:
    items: tuple[Item, ...]
    parameters: Parameters = field(default_factory=dict)


Member = Item | InnerList


class _Malformed(ValueError):
    """The field breaks the grammar; never leaves this module."""


_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_NUMBER = re.compile(r"-?([0-9]+)(?:\.([0-9]*))?")
_STRING = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_DISPLAY = re.compile(r'%"((?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*)"')
_SP = re.compile(" *")
_OWS = re.compile("[ \t]*")

_INTEGER_DIGITS = 15  # §3.3.1
_DECIMAL_WHOLE = 12  # §3.3.2
_DECIMAL_FRACTION = 3


def parse_item(value: str) -> Item | None:
    """§4.2, for a field defined as an Item."""
    try:
        reader = _Reader(value)
        item = reader.item()
        reader.end()
    except _Malformed:
        return None
    return item


def parse_list(value: str) -> list[Member] | None:
    """§4.2, for a field defined as a List; lines are joined with commas first. Empty: []."""
    try:
        return _Reader(value).list()
    except _Malformed:
        return None


def parse_dictionary(value: str) -> dict[str, Member] | None:
    """§4.2, for a field defined as a Dictionary; lines are joined with commas first. Empty: {}."""
    try:
        return _Reader(value).dictionary()
    except _Malformed:
        return None


class _Reader:
    """The algorithms of §4.2, one method each."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = len(text) - len(text.lstrip(" "))

    def end(self) -> None:
        """§4.2 steps 6 and 7: only spaces may be left."""
        if self._text[self._at :].strip(" "):
            raise _Malformed

    def list(self) -> list[Member]:
        """§4.2.1."""
        members: list[Member] = []
        while self._more(first=not members):
            members.append(self._member())
        return members

    def dictionary(self) -> dict[str, Member]:
        """§4.2.2. A repeated key takes the last value, and the place of the first."""
        members: dict[str, Member] = {}
        first = True
        while self._more(first=first):
            first = False
            key = self._key()
            members[key] = self._member() if self._take("=") else Item(True, self._parameters())
        return members

    def item(self) -> Item:
        """§4.2.3."""
        return Item(self._bare(), self._parameters())

    def _more(self, *, first: bool) -> bool:
        """Is there another member? Between members stands a comma, after the last one nothing."""
        if first:
            self._skip(_SP)
            return self._at < len(self._text)
        self._skip(_OWS)
        if self._at == len(self._text):
            return False
        if not self._take(","):
            raise _Malformed
        self._skip(_OWS)
        if self._at == len(self._text):
            raise _Malformed
        return True

    def _member(self) -> Member:
        return self._inner_list() if self._peek() == "(" else self.item()

    def _inner_list(self) -> InnerList:
        """§4.2.1.2."""
        self._at += 1
        items: list[Item] = []
        while True:
            self._skip(_SP)
            if self._take(")"):
                return InnerList(tuple(items), self._parameters())
            items.append(self.item())
            if self._peek() not in (" ", ")"):
                raise _Malformed

    def _parameters(self) -> Parameters:
        """§4.2.3.2. A repeated key takes the last value."""
        parameters: Parameters = {}
        while self._take(";"):
            self._skip(_SP)
            key = self._key()
            parameters[key] = self._bare() if self._take("=") else True
        return parameters

    def _key(self) -> str:
        return self._match(_KEY)[0]

    def _bare(self) -> BareItem:
        """§4.2.3.1."""
        first = self._peek()
        if first == "-" or first.isdecimal():
            return self._number()
        if first == '"':
            return re.sub(r"\\(.)", r"\1", self._match(_STRING)[1])
        if first == ":":
            return self._byte_sequence()
        if first == "?":
            return self._boolean()
        if first == "@":
            self._at += 1
            number = self._number()
            if not isinstance(number, int):
                raise _Malformed
            return Date(number)
        if first == "%":
            return self._display_string()
        return Token(self._match(_TOKEN)[0])

    def _number(self) -> int | Decimal:
        """§4.2.4."""
        match = self._match(_NUMBER)
        whole, fraction = match[1], match[2]
        if fraction is None:
            if len(whole) > _INTEGER_DIGITS:
                raise _Malformed
            return int(match[0])
        if len(whole) > _DECIMAL_WHOLE or not 1 <= len(fraction) <= _DECIMAL_FRACTION:
            raise _Malformed
        return Decimal(match[0])

    def _byte_sequence(self) -> bytes:
        """§4.2.7. Missing padding and stray bits at the end are tolerated, as recommended there."""
        text = self._match(_BYTES)[1].rstrip("=")
        try:
            return binascii.a2b_base64(text + "=" * (-len(text) % 4))
        except binascii.Error:
            raise _Malformed from None

    def _boolean(self) -> bool:
        """§4.2.8."""
        self._at += 1
        if self._take("1"):
            return True
        if self._take("0"):
            return False
        raise _Malformed

    def _display_string(self) -> DisplayString:
        """§4.2.10."""
        text = self._match(_DISPLAY)[1]
        octets = re.sub(rb"%(..)", lambda m: bytes.fromhex(m[1].decode()), text.encode("ascii"))
        try:
            return DisplayString(octets.decode("utf-8"))
        except UnicodeDecodeError:
            raise _Malformed from None

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, octet: str) -> bool:
        if self._peek() != octet:
            return False
        self._at += 1
        return True

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        assert match is not None  # both patterns match the empty text
        self._at = match.end()

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Malformed
        self._at = match.end()
        return match


def serialize_string(text: str) -> str:
    """A String (§4.1.6); what is outside printable ASCII becomes "?", since a log word is not worth an error."""
    kept = "".join(char if " " <= char <= "~" else "?" for char in text)
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"') + '"'


def serialize_token(text: str) -> str:
    """A Token where `text` is one (§4.1.7), else a String: RFC 9211 allows either where it uses this."""
    return text if _TOKEN.fullmatch(text) else serialize_string(text)
