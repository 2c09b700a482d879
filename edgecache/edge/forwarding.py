"""What changes in a message because an intermediary passes it on, and nothing else.

Pure: a request or response goes in, a new one comes out; the node's own facts are a `Hop`. Fields that are not in
the tables below keep their name, value, order and repetition octet for octet. Whatever belongs to one connection
only ends here (RFC 9110 §7.6.1); who asked, and by which way, is written down for the origin.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial

from edgecache.http.headers import Headers
from edgecache.http.message import Request, Response
from edgecache.policy.verdicts import Reason, Reject

Lines = tuple[tuple[str, str], ...]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOP_BY_HOP: dict[str, str] = {
    "connection": "RFC 9110 §7.6.1: names what else belongs to this connection",
    "keep-alive": "RFC 9112 Appendix C.2.2: HTTP/1.0's persistence, never end to end",
    "proxy-connection": "RFC 9112 Appendix C.2.2: the same, misdirected",
    "te": "RFC 9110 §10.1.4: for the next hop only; `trailers` is asked for anew",
    "transfer-encoding": "RFC 9112 §6.1: framing of this connection",
    "upgrade": "RFC 9110 §7.8: an offer to the next hop only; made anew for tunnels",
    "http2-settings": "RFC 7540 §3.2.1: belongs to an h2c upgrade, which is never passed on",
    "proxy-authorization": "RFC 9110 §11.7.2: for the first proxy that asks; an edge is the origin to its clients",
    "proxy-authenticate": "RFC 9110 §11.7.1: a challenge to the next client on the way, us; we have no answer",
    "proxy-authentication-info": "RFC 9110 §11.7.3: goes with it",
}
"""Removed both ways."""

NEVER_OF_ONE_HOP: dict[str, str] = {
    "host": "the request's target",
    "content-length": "framing",
    "cache-control": "RFC 9110 §7.6.1 itself calls it never appropriate as a connection option",
    "cdn-cache-control": "the same, targeted",
    "surrogate-control": "the same, targeted",
    "expires": "the same, older",
    "pragma": "the same, oldest",
    "vary": "without it one client's variant would be given to another",
}
"""What `Connection` cannot name away: a shared cache that lost these would keep what it must not."""

TUNNELS: frozenset[str] = frozenset({"websocket"})
"""Protocols an Upgrade may be passed on for. Not h2c: a tunnel of requests nobody here reads is a smuggling path."""

MAX_FORWARDS_METHODS = frozenset({"TRACE", "OPTIONS"})  # RFC 9110 §7.6.2

SENSITIVE: frozenset[str] = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Left out when TRACE reflects a request (RFC 9110 §9.3.8)."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CLIENT_FACTS = frozenset({"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"})


@dataclass(frozen=True)
class Hop:
    """This node, as it appears in what it passes on."""

    node_id: str = ""
    """Unique among the edges a request may pass; a token. Empty: loops are not detected."""
    pseudonym: str = "edgecache"
    trusted: tuple[Network, ...] = ()
    """Peers whose X-Forwarded-* and Forwarded are believed and added to; any other's are replaced."""
    tunnels: frozenset[str] = TUNNELS
    untold: frozenset[str] = frozenset()
    """Of the fields that say who asked, in lower case, those the origin is not told."""
    received_by: str = field(init=False)
    """Our name in a request's Via: the pseudonym, and the node where it has an id (RFC 9110 §7.6.3)."""
    trusts: Callable[[str], bool] = field(init=False, compare=False, repr=False)
    """Is this peer address trusted?"""

    def __post_init__(self) -> None:
        name = f"{self.pseudonym}-{self.node_id}" if self.node_id else self.pseudonym
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"a node's name in Via must be a token, not {name!r}")
        object.__setattr__(self, "received_by", name)
        object.__setattr__(self, "trusts", lru_cache(maxsize=4096)(partial(_within, self.trusted)))

    def client_ip(self, request: Request) -> str:
        """Who asked: the last address of X-Forwarded-For that is no trusted proxy's, else the peer."""
        ip = request.peer.ip
        if not self.trusts(ip) or (chain := request.headers.get("x-forwarded-for")) is None:
            return ip
        for hop in reversed(chain.split(",")):
            ip = hop.strip(" \t")[:64]
            if not self.trusts(ip):
                break
        return ip


@dataclass(frozen=True, slots=True)
class FinalRecipient:
    """Max-Forwards ended here: the answer this node gives as if it were the origin (RFC 9110 §7.6.2)."""

    response: Response
    body: bytes


def stop_here(request: Request, hop: Hop) -> Reject | FinalRecipient | None:
    """Reasons for which a request must not be passed on at all; None: go on."""
    if hop.node_id and (via := request.headers.get("via")) is not None and _passed(via, hop.received_by):
        return Reject(508, Reason.LOOP, "the request has passed this node before")
    if request.method in MAX_FORWARDS_METHODS and _max_forwards(request.headers) == 0:
        return _answer_as_origin(request)
    return None


def request_to_origin(request: Request, hop: Hop) -> Request:
    """The request as this node sends it on. Framing is added by the client that sends it.

    `Upgrade` stays only where it offers a protocol of `hop.tunnels`; the caller then tunnels on a 101.
    """
    headers = request.headers
    via = ("Via", _via(headers.get("via"), request.version, hop.received_by))
    told = client_lines(request, trusted=hop.trusts(request.peer.ip))
    if hop.untold:
        told = tuple(line for line in told if line[0].lower() not in hop.untold)
    drop = _named_by_connection(headers.get_all("connection"))
    host = request.authority
    if not drop and headers.get("host") == host and not headers.touch(_TAKES_CARE):
        return request.with_headers(headers.without(_REQUEST_ENDS, (via, *told)))
    modern = request.version >= (1, 1)
    lines: list[tuple[str, str]] = []
    has_host = next_hop = False
    for name, line in zip(headers.names, headers.lines, strict=True):
        kind = _REQUEST_KIND.get(name)
        if kind is None:
            if name not in drop:
                lines.append(line)
        elif kind == _HOST:
            # RFC 9112 §3.2.2: the authority of an absolute-form target replaces what Host said.
            if not has_host:
                lines.append(line if line[1] == host else (line[0], host))
                has_host = True
        elif kind == _NEXT_HOP:
            next_hop = True
        elif kind == _EXPECT:
            if modern and name not in drop:  # RFC 9110 §10.1.1: ignored in HTTP/1.0
                lines.append(line)
        elif kind == _MAX_FORWARDS and name not in drop:
            lines.append(_one_less(request, line))
    if not has_host:
        lines.insert(0, ("Host", host))
    if next_hop and modern:
        lines += _connection_lines(request, hop)
    return request.with_headers(Headers((*lines, via, *told)))


def response_to_client(response: Response, hop: Hop) -> Response:
    """The response as this node sends it on (or stores it). 1xx responses too."""
    headers = response.headers
    via = ("Via", _via(headers.get("via"), response.version, hop.pseudonym))
    if (connection := headers.get_all("connection")) and (drop := _named_by_connection(connection)):
        headers = headers.without(drop)
    return response.with_headers(headers.without(_RESPONSE_ENDS, (via,)))


_RESPONSE_ENDS = frozenset({*HOP_BY_HOP, "via"})  # Via is written anew, with what was received in front


# --- Connection and what it names ---
_HOST, _EXPECT, _MAX_FORWARDS, _NEXT_HOP, _REMOVED = range(5)
_REQUEST_KIND: dict[str, int] = {
    **dict.fromkeys(HOP_BY_HOP, _REMOVED),
    **dict.fromkeys(_CLIENT_FACTS, _REMOVED),
    "via": _REMOVED,  # written anew, with what was received in front
    "te": _NEXT_HOP,
    "upgrade": _NEXT_HOP,
    "host": _HOST,
    "expect": _EXPECT,
    "max-forwards": _MAX_FORWARDS,
}
_REQUEST_ENDS = frozenset(name for name, kind in _REQUEST_KIND.items() if kind == _REMOVED)
_TAKES_CARE = frozenset(_REQUEST_KIND).difference(_REQUEST_ENDS, {"host"})
"""Fields that take more than leaving them out."""


def list_members(values: Iterable[str]) -> list[str]:
    """The members of a comma-separated list of tokens, lower case (RFC 9110 §5.6.1)."""
    return [word for value in values for member in value.split(",") if (word := member.strip(" \t").lower())]


def _named_by_connection(values: list[str]) -> frozenset[str]:
    if not values or values in (["keep-alive"], ["close"]):
        return frozenset()
    return frozenset(list_members(values)).difference(NEVER_OF_ONE_HOP)


def _connection_lines(request: Request, hop: Hop) -> list[tuple[str, str]]:
    """TE and Upgrade for the next hop, and the Connection line that must name them (RFC 9110 §7.6.1)."""
    options: list[str] = []
    lines: list[tuple[str, str]] = []
    headers = request.headers
    codings = list_members(headers.get_all("te"))
    if any(coding.split(";")[0].rstrip(" \t") == "trailers" for coding in codings):
        options.append("TE")
        lines.append(("TE", "trailers"))
    if (upgrade := tunnel_offered(request, hop)) is not None:
        options.append("Upgrade")
        lines.append(("Upgrade", upgrade))
    if options:
        lines.append(("Connection", ", ".join(options)))
    return lines


def tunnel_offered(request: Request, hop: Hop) -> str | None:
    """The Upgrade value to pass on: the protocols offered that this node tunnels; None where there is none."""
    headers = request.headers
    if "upgrade" not in headers or request.version < (1, 1):
        return None
    if "upgrade" not in list_members(headers.get_all("connection")):
        return None
    offered = [item.strip(" \t") for value in headers.get_all("upgrade") for item in value.split(",")]
    wanted = [item for item in offered if item.split("/")[0].lower() in hop.tunnels]
    return ", ".join(wanted) or None


# --- Via (RFC 9110 §7.6.3) ---
def _via(received: str | None, version: tuple[int, int], name: str) -> str:
    ours = _via_member(version, name)
    return f"{received}, {ours}" if received else ours


@lru_cache(maxsize=64)
def _via_member(version: tuple[int, int], name: str) -> str:
    return f"{version[0]}.{version[1]} {name}"


def _passed(via: str, name: str) -> bool:
    return any(len(words := member.split()) > 1 and words[1].lower() == name.lower() for member in via.split(","))


# --- Max-Forwards (RFC 9110 §7.6.2) ---
def _max_forwards(headers: Headers) -> int | None:
    values = headers.get_all("max-forwards")
    if len(values) == 1 and values[0].isascii() and values[0].isdigit() and len(values[0]) < 10:
        return int(values[0])
    return None  # absent or malformed: passed on as it came


def _one_less(request: Request, line: tuple[str, str]) -> tuple[str, str]:
    if request.method not in MAX_FORWARDS_METHODS or (left := _max_forwards(request.headers)) is None:
        return line
    return (line[0], str(left - 1)) if left > 0 else line


def _answer_as_origin(request: Request) -> FinalRecipient:
    if request.method == "OPTIONS":
        return FinalRecipient(Response(200, "OK", Headers()), b"")
    kept = (f"{name}: {value}" for name, value in request.headers.lines if name.lower() not in SENSITIVE)
    head = "\r\n".join((f"TRACE {request.target} HTTP/{request.version[0]}.{request.version[1]}", *kept, "", ""))
    fields = Headers([("Content-Type", "message/http"), ("X-Content-Type-Options", "nosniff")])
    return FinalRecipient(Response(200, "OK", fields), head.encode("latin-1"))


# --- who asked: X-Forwarded-* and Forwarded (RFC 7239) ---
def client_lines(request: Request, *, trusted: bool) -> Lines:
    """The fields that tell the origin who asked. What an untrusted peer claims is not repeated."""
    plain = _plain_lines(request.peer.ip or "unknown", request.authority, request.scheme)
    if not trusted:
        return plain
    headers = request.headers
    (_, address), (_, scheme), (_, authority), (_, element) = plain
    chain, before = headers.get("x-forwarded-for"), headers.get("forwarded")
    return (
        ("X-Forwarded-For", f"{chain}, {address}" if chain else address),
        # These two have no list form: the first trusted proxy saw the client, so its word stands.
        ("X-Forwarded-Proto", headers.get("x-forwarded-proto") or scheme),
        ("X-Forwarded-Host", headers.get("x-forwarded-host") or authority),
        ("Forwarded", f"{before}, {element}" if before else element),
    )


@lru_cache(maxsize=1024)
def _plain_lines(address: str, authority: str, scheme: str) -> Lines:
    """Of a client that came by no proxy; a client asks many times."""
    return (
        ("X-Forwarded-For", address),
        ("X-Forwarded-Proto", scheme),
        ("X-Forwarded-Host", authority),
        ("Forwarded", f"for={_node(address)};host={_value(authority)};proto={scheme}"),
    )


def _node(ip: str) -> str:
    """A node of RFC 7239 §6: IPv6 in brackets and therefore quoted."""
    return f'"[{ip}]"' if ":" in ip else ip


def _value(text: str) -> str:
    """A token, or a quoted-string (RFC 7239 §4): a port's colon is no token character."""
    if _TOKEN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _within(networks: tuple[Network, ...], ip: str) -> bool:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    return any(address in network for network in networks)
