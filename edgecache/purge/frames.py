"""The purge wire format, version 1: orders as canonical text, and the frames between coordinator and edge. Pure.

Each frame is one JSON object (RFC 8259) with a `type`; as a WebSocket message, text. Fields that are not known are
ignored, so that they can be added; a type that is not known, or a field that is missing or not of its kind, is
a `FrameError`, and the connection is closed with its reason. In an order nothing is ignored: what a newer version names
by a field that is not known here may be anything, so everything is purged.

    edge -> coordinator
      {"type": "hello", "format": 1, "edge": NAME, "instance": ID, "version": TEXT, "log": ID|null, "position": N,
       "time": T}
      {"type": "ack", "position": N}
    coordinator -> edge
      {"type": "welcome", "format": 1, "log": ID, "head": N, "from": N, "from_time": T, "reset": BOOL, "heartbeat_s": S}
      {"type": "purges", "entries": [{"seq": N, "time": T, "order": ORDER}, …]}
      {"type": "heartbeat", "head": N, "time": T}

    ORDER  {"kind": "hard"|"soft", "source": TEXT} and, where not empty, "urls", "keys", "caseless", "groups", "hosts",
           "prefixes" (lists of text), "patterns" (list of {"url": TEXT, "host": TEXT or left out}), "everything"
           (true), "site" (text)
"""

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from edgecache.purge.bus import Heartbeat, LogEntry, LogPosition, Purges, Record, Welcome
from edgecache.purge.message import PurgeKind, PurgeOrder, UrlPattern

_log = logging.getLogger("edgecache.purge")

FORMAT: Final = 1
MAX_ORDER_BYTES: Final = 1_000_000
"""Of an order's text: with an entry's head it fits into the 1 MiB that NATS carries in a message by default."""
MAX_PURGES_BYTES: Final = MAX_ORDER_BYTES + 1_000_000
"""Of a frame of entries, where more than one is in it."""
MAX_DOWN_BYTES: Final = 4 << 20
"""Of a frame an edge accepts."""
MAX_UP_BYTES: Final = 4096
"""Of a frame a coordinator accepts."""
MAX_NAME: Final = 200
MAX_SEQUENCE: Final = 1 << 53
"""Beyond which JSON numbers are not exact everywhere."""

IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
"""As a caller gives it: visible characters."""

_PLAIN_ACK: Final = re.compile(r'\{"type":"ack","position":(0|[1-9][0-9]{0,14})\}', re.ASCII)
"""An ack as `ack_frame` writes it: by far the most of what a coordinator hears."""
LISTS: Final = ("urls", "keys", "caseless", "groups", "hosts", "prefixes")
_ORDER_FIELDS: Final = frozenset({"kind", "source", "patterns", "everything", "site", *LISTS})
_PATTERN_FIELDS: Final = frozenset({"url", "host"})


class FrameError(Exception):
    """The peer has sent what is not a frame; the message is one line for the log and the peer."""


@dataclass(frozen=True, slots=True)
class Hello:
    edge: str
    instance: str
    version: str
    position: LogPosition | None


@dataclass(frozen=True, slots=True)
class Ack:
    position: int


def order_text(order: PurgeOrder) -> str:
    """The canonical text: the same order gives the same text."""
    body: dict[str, Any] = {"kind": order.kind.value, "source": order.source}
    for name in LISTS:
        if values := getattr(order, name):
            body[name] = list(values)
    if order.patterns:
        body["patterns"] = [
            {"url": pattern.url} if pattern.host is None else {"url": pattern.url, "host": pattern.host}
            for pattern in order.patterns
        ]
    if order.everything:
        body["everything"] = True
    if order.site is not None:
        body["site"] = order.site
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def order_of(text: str | bytes) -> PurgeOrder:
    """Raises `FrameError`."""
    return _order(_object(text))


def hello_frame(hello: Hello) -> str:
    position = hello.position or LogPosition("", 0, 0.0)
    return _text(
        type="hello",
        format=FORMAT,
        edge=hello.edge,
        instance=hello.instance,
        version=hello.version,
        log=position.log or None,
        position=position.sequence,
        time=position.time,
    )


def ack_frame(position: int) -> str:
    return f'{{"type":"ack","position":{position}}}'


def welcome_frame(welcome: Welcome) -> str:
    return _text(
        type="welcome",
        format=FORMAT,
        log=welcome.position.log,
        head=welcome.head,
        **{"from": welcome.position.sequence},
        from_time=welcome.position.time,
        reset=welcome.reset,
        heartbeat_s=welcome.heartbeat_s,
    )


def entry_text(record: Record) -> str:
    return f'{{"seq":{record.sequence},"time":{record.time!r},"order":{record.text}}}'


def purges_frame(entries: Iterable[str]) -> str:
    """`entries`: as `entry_text` gives them."""
    return f'{{"type":"purges","entries":[{",".join(entries)}]}}'


def heartbeat_frame(heartbeat: Heartbeat) -> str:
    return f'{{"type":"heartbeat","head":{heartbeat.head},"time":{heartbeat.time!r}}}'


def up(text: str) -> Hello | Ack:
    """What an edge says. Raises `FrameError`."""
    if (plain := _PLAIN_ACK.fullmatch(text)) is not None:
        return Ack(int(plain[1]))
    body = _object(text)
    match body.get("type"):
        case "ack":
            return Ack(_sequence(body, "position"))
        case "hello":
            _check_format(body)
            log = body.get("log")
            position = None
            if log is not None:
                position = LogPosition(_name(body, "log"), _sequence(body, "position"), _number(body, "time"))
            return Hello(_name(body, "edge"), _name(body, "instance"), _name(body, "version"), position)
        case other:
            raise FrameError(f"no frame of an edge: type {_shown(other)}")


def down(text: str | bytes) -> Welcome | Purges | Heartbeat:
    """What a coordinator says. Raises `FrameError`."""
    body = _object(text)
    match body.get("type"):
        case "purges":
            return Purges(_entries(body))
        case "heartbeat":
            return Heartbeat(_sequence(body, "head"), _number(body, "time"))
        case "welcome":
            _check_format(body)
            position = LogPosition(_name(body, "log"), _sequence(body, "from"), _number(body, "from_time"))
            reset = body.get("reset")
            if not isinstance(reset, bool):
                raise FrameError("reset is not true or false")
            heartbeat_s = _number(body, "heartbeat_s")
            if not 0 < heartbeat_s <= 3600:
                raise FrameError("heartbeat_s is not a number of seconds up to 3600")
            return Welcome(position, _sequence(body, "head"), reset, heartbeat_s)
        case other:
            raise FrameError(f"no frame of a coordinator: type {_shown(other)}")


def _entries(body: dict[str, Any]) -> tuple[LogEntry, ...]:
    values = body.get("entries")
    if not isinstance(values, list) or not values:
        raise FrameError("entries is not a list of some")
    found = []
    for value in values:
        if not isinstance(value, dict):
            raise FrameError("an entry is not an object")
        order = value.get("order")
        if not isinstance(order, dict):
            raise FrameError("an entry has no order")
        found.append(LogEntry(_sequence(value, "seq"), _number(value, "time"), _order(order)))
    first = found[0].sequence
    if any(entry.sequence != first + i for i, entry in enumerate(found)):
        raise FrameError("entries are not numbered one by one")
    return tuple(found)


def _order(body: dict[str, Any]) -> PurgeOrder:
    lists: dict[str, tuple[str, ...]] = {}
    for name in LISTS:
        values = body.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
            raise FrameError(f"{name} is not a list of texts")
        lists[name] = tuple(values)
    everything = body.get("everything", False)
    site = body.get("site")
    source = body.get("source")
    if not isinstance(everything, bool):
        raise FrameError("everything is not true or false")
    if not isinstance(site, str | None) or site == "":
        raise FrameError("site is not a text")
    if not isinstance(source, str):
        raise FrameError("source is not a text")
    try:
        kind = PurgeKind(str(body.get("kind")))
    except ValueError:
        raise FrameError("kind is neither hard nor soft") from None
    patterns = _patterns(body.get("patterns", []))
    unknown = _unknown(body)
    if not everything and not any(lists.values()) and not patterns and not unknown:
        raise FrameError("an order names nothing")
    texts = [value for values in lists.values() for value in values]
    texts += [text for pattern in patterns for text in (pattern.url, pattern.host or "")]
    try:
        "".join((source, site or "", *texts)).encode()
    except UnicodeEncodeError:
        raise FrameError("half a surrogate pair is no text") from None
    if unknown:
        _log.error(
            "a purge has %s, which is not known here: everything is purged instead",
            unknown,
            extra={"remedy": "run the version of the coordinators here too"},
        )
        return PurgeOrder(everything=True, source=source)
    return PurgeOrder(everything=everything, site=site, kind=kind, source=source, patterns=patterns, **lists)


def _unknown(order: dict[str, Any]) -> str:
    """A field of the order that is not known here; empty where there is none."""
    names = order.keys() - _ORDER_FIELDS
    patterns = order.get("patterns")
    for pattern in patterns if isinstance(patterns, list) else ():
        if isinstance(pattern, dict):
            names |= pattern.keys() - _PATTERN_FIELDS
    return _shown(min(names)) if names else ""


def _patterns(values: object) -> tuple[UrlPattern, ...]:
    if not isinstance(values, list):
        raise FrameError("patterns is not a list")
    found = []
    for value in values:
        url, host = (value.get("url"), value.get("host")) if isinstance(value, dict) else (None, None)
        if not isinstance(url, str) or not url or not isinstance(host, str | None) or host == "":
            raise FrameError("a pattern is not an object with url and host")
        found.append(UrlPattern(url, host))
    return tuple(found)


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise FrameError("not JSON") from None
    if not isinstance(value, dict):
        raise FrameError("not a JSON object")
    return value


def _no_constant(_text: str) -> NoReturn:
    raise ValueError("not JSON")


def _check_format(body: dict[str, Any]) -> None:
    if body.get("format") != FORMAT:
        raise FrameError(f"format {_shown(body.get('format'))} is not spoken here, but {FORMAT}")


def _sequence(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEQUENCE:
        raise FrameError(f"{name} is not a sequence number")
    return value


def _number(body: dict[str, Any], name: str) -> float:
    value = body.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_SEQUENCE:
        raise FrameError(f"{name} is not a number")
    return float(value)


def _name(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise FrameError(f"{name} is not a printable text of at most {MAX_NAME} characters")
    return value


def _text(**body: object) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _shown(value: object) -> str:
    return repr(value)[:40]
