"""What an intermediary changes in a message, row by row."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.edge.forwarding import (
    HOP_BY_HOP,
    FinalRecipient,
    Hop,
    request_to_origin,
    response_to_client,
    stop_here,
)
from edgecache.http.headers import Headers
from edgecache.http.message import Peer, Request, Response
from edgecache.policy.verdicts import Reason, Reject

HOP = Hop()
ABOUT_CLIENT = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via"}


def request(
    *lines: tuple[str, str], method="GET", target="/", authority="h", scheme="http", version=(1, 1), ip="192.0.2.7"
):
    given_host = any(name.lower() == "host" for name, _ in lines)
    whole = lines if given_host else (("Host", authority), *lines)
    return Request(method, scheme, authority, target, Headers(whole), version, Peer(ip, 4711))


def kept(*lines: tuple[str, str], hop=HOP, **more) -> list[tuple[str, str]]:
    """What is left of these lines on the way to the origin."""
    out = request_to_origin(request(*lines, **more), hop).headers.lines
    return [line for line in out if line[0].lower() not in ABOUT_CLIENT and line != ("Host", "h")]


def told(out: Request, name: str) -> str | None:
    return out.headers.get(name)


# --- hop-by-hop fields (RFC 9110 §7.6.1) ---
@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_hop_by_hop_fields_end_here_both_ways(name) -> None:
    lines = [("A", "1"), (name.title(), "x"), ("B", "2")]
    assert kept(*lines) == [("A", "1"), ("B", "2")]
    out = response_to_client(Response(200, "OK", Headers(lines)), HOP)
    assert out.headers.lines == (("A", "1"), ("B", "2"), ("Via", "1.1 edgecache"))


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        pytest.param([("Connection", "x-a"), ("X-A", "1"), ("X-B", "2")], [("X-B", "2")], id="one"),
        pytest.param([("Connection", "x-a , X-B,close"), ("x-A", "1"), ("x-b", "2")], [], id="several, any case"),
        pytest.param([("Connection", "x-a"), ("Connection", "x-b"), ("X-A", "1"), ("X-B", "2")], [], id="two lines"),
        pytest.param([("X-A", "1"), ("Connection", "X-A"), ("X-A", "2")], [], id="before and after"),
        pytest.param([("Connection", "keep-alive"), ("X-A", "1")], [("X-A", "1")], id="keep-alive"),
        pytest.param([("Connection", "Cookie"), ("Cookie", "a")], [], id="cookie"),
        pytest.param([("Connection", "expect"), ("Expect", "100-continue")], [], id="expect"),
        pytest.param([("Connection", "max-forwards"), ("Max-Forwards", "3")], [], id="max-forwards"),
        pytest.param([("Connection", ",, ,"), ("X-A", "1")], [("X-A", "1")], id="empty members"),
    ],
)
def test_what_connection_names_ends_here(lines, left) -> None:
    assert kept(*lines) == left


@pytest.mark.parametrize("name", ["Cache-Control", "Vary", "Content-Length", "Expires", "Surrogate-Control"])
def test_what_others_decide_by_cannot_be_named_away(name) -> None:
    out = response_to_client(Response(200, "OK", Headers([("Connection", name), (name, "7")])), HOP)
    assert out.headers.lines[0] == (name, "7")


def test_host_cannot_be_named_away_and_follows_the_target() -> None:
    assert request_to_origin(request(("Connection", "host"), ("HOST", "h")), HOP).headers.lines[0] == ("HOST", "h")
    out = request_to_origin(request(("X", "y"), ("host", "other"), authority="real:81"), HOP)
    assert out.headers.lines[:2] == (("X", "y"), ("host", "real:81"))
    out = request_to_origin(Request("GET", "http", "real", "/", Headers([("X", "y")]), (1, 0)), HOP)
    assert out.headers.lines[:2] == (("Host", "real"), ("X", "y"))


NAMES = st.sampled_from(["A", "a", "Accept", "X-Y", "x-y", "Set-Cookie", "Content-Type", "Content-Length", "Trailer"])
LINES = st.lists(st.tuples(NAMES, st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=5)))


@given(LINES)
def test_everything_else_stays_octet_for_octet_in_order(lines) -> None:
    assert kept(*lines) == lines
    out = response_to_client(Response(200, "OK", Headers(lines)), HOP)
    assert list(out.headers.lines[:-1]) == lines


# --- TE and Upgrade ---
@pytest.mark.parametrize(
    ("lines", "version", "left"),
    [
        pytest.param([("TE", "trailers")], (1, 1), [("TE", "trailers"), ("Connection", "TE")], id="asked for"),
        pytest.param(
            [("Connection", "TE"), ("TE", "gzip;q=0.5, Trailers")],
            (1, 1),
            [("TE", "trailers"), ("Connection", "TE")],
            id="codings are for us only",
        ),
        pytest.param([("TE", "gzip")], (1, 1), [], id="not asked for"),
        pytest.param([("TE", "trailers")], (1, 0), [], id="HTTP/1.0"),
        pytest.param(
            [("Upgrade", "websocket"), ("Connection", "Upgrade")],
            (1, 1),
            [("Upgrade", "websocket"), ("Connection", "Upgrade")],
            id="websocket",
        ),
        pytest.param(
            [
                ("Upgrade", "h2c, WebSocket"),
                ("Connection", "keep-alive, upgrade, HTTP2-Settings"),
                ("HTTP2-Settings", ""),
            ],
            (1, 1),
            [("Upgrade", "WebSocket"), ("Connection", "Upgrade")],
            id="h2c is left out",
        ),
        pytest.param([("Upgrade", "h2c"), ("Connection", "Upgrade")], (1, 1), [], id="h2c alone"),
        pytest.param([("Upgrade", "websocket")], (1, 1), [], id="not named by Connection"),
        pytest.param([("Upgrade", "websocket"), ("Connection", "Upgrade")], (1, 0), [], id="upgrade in HTTP/1.0"),
        pytest.param(
            [("Upgrade", "websocket"), ("Connection", "Upgrade, TE"), ("TE", "trailers")],
            (1, 1),
            [("TE", "trailers"), ("Upgrade", "websocket"), ("Connection", "TE, Upgrade")],
            id="both",
        ),
    ],
)
def test_te_and_upgrade_are_made_anew(lines, version, left) -> None:
    assert kept(*lines, version=version) == left


def test_an_expectation_of_http_1_0_is_ignored() -> None:
    line = ("Expect", "100-continue")
    assert kept(line) == [line]
    assert kept(line, version=(1, 0)) == []


# --- Via and loops ---
def test_via_is_appended() -> None:
    hop = Hop("n1")
    assert told(request_to_origin(request(), hop), "via") == "1.1 edgecache-n1"
    lines = [("Via", "1.0 a"), ("X", "y"), ("via", "1.1 b")]
    assert told(request_to_origin(request(*lines, version=(1, 0)), hop), "via") == "1.0 a, 1.1 b, 1.0 edgecache-n1"
    out = response_to_client(Response(200, "OK", Headers(lines), (1, 0)), hop)
    assert out.headers.lines == (("X", "y"), ("Via", "1.0 a, 1.1 b, 1.0 edgecache"))


@pytest.mark.parametrize(
    ("node", "via", "loop"),
    [
        pytest.param("n1", "1.1 edgecache-n1", True, id="itself"),
        pytest.param("n1", "1.0 a (edgecache-n1), 1.1  EDGECACHE-N1 (x), 1.1 b", True, id="among others"),
        pytest.param("n1", "1.1 edgecache-n2, 1.1 edgecache", False, id="another edge"),
        pytest.param("n1", "1.1 a (edgecache-n1)", False, id="only a comment"),
        pytest.param("n1", "1.1 edgecache-n11", False, id="a longer name"),
        pytest.param("n1", ", edgecache-n1,", False, id="malformed"),
        pytest.param("", "1.1 edgecache", False, id="no id, no loops"),
    ],
)
def test_loops(node, via, loop) -> None:
    found = stop_here(request(("Via", via)), Hop(node))
    assert (found == Reject(508, Reason.LOOP, "the request has passed this node before")) is loop
    assert loop or found is None


def test_what_it_sends_it_recognises() -> None:
    hop = Hop("n1")
    assert isinstance(stop_here(request_to_origin(request(), hop), hop), Reject)
    assert stop_here(request_to_origin(request(), Hop("n2")), hop) is None


@pytest.mark.parametrize("node", ["a b", "a,b", "é", "a/b", "a:1"])
def test_a_node_id_must_be_a_token(node) -> None:
    with pytest.raises(ValueError, match="token"):
        Hop(node)


# --- Max-Forwards (RFC 9110 §7.6.2) ---
@pytest.mark.parametrize(
    ("method", "value", "passed"),
    [
        ("OPTIONS", "3", "2"),
        ("TRACE", "1", "0"),
        ("GET", "3", "3"),
        ("GET", "0", "0"),
        ("OPTIONS", "x", "x"),
        ("OPTIONS", "-1", "-1"),
        ("OPTIONS", "99999999999", "99999999999"),
    ],
)
def test_max_forwards_counts_down(method, value, passed) -> None:
    given_request = request(("Max-Forwards", value), method=method)
    assert stop_here(given_request, HOP) is None
    assert told(request_to_origin(given_request, HOP), "max-forwards") == passed


def test_max_forwards_ends_here() -> None:
    options = stop_here(request(("Max-Forwards", "0"), method="OPTIONS"), HOP)
    assert isinstance(options, FinalRecipient)
    assert (options.response.status, options.body) == (200, b"")
    lines = [("Max-Forwards", "0"), ("Cookie", "secret"), ("Authorization", "secret"), ("X", "\xe9")]
    trace = stop_here(request(*lines, method="TRACE", target="/a?b"), HOP)
    assert isinstance(trace, FinalRecipient)
    assert trace.response.headers.get("content-type") == "message/http"
    assert trace.body == b"TRACE /a?b HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nX: \xe9\r\n\r\n"


# --- who asked (RFC 7239 and the older fields) ---
CLAIMED = [
    ("X-Forwarded-For", "1.1.1.1"),
    ("X-Forwarded-For", "2.2.2.2"),
    ("x-forwarded-proto", "https"),
    ("X-Forwarded-Host", "outer"),
    ("Forwarded", "for=1.1.1.1;proto=https"),
]
PROXIES = Hop(trusted=(ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")))


@pytest.mark.parametrize(
    ("ip", "authority", "lines", "said"),
    [
        pytest.param(
            "192.0.2.7",
            "h",
            CLAIMED,
            (
                "1.1.1.1, 2.2.2.2, 192.0.2.7",
                "https",
                "outer",
                "for=1.1.1.1;proto=https, for=192.0.2.7;host=h;proto=http",
            ),
            id="a trusted peer is believed and added to",
        ),
        pytest.param(
            "198.51.100.1",
            "h",
            CLAIMED,
            ("198.51.100.1", "http", "h", "for=198.51.100.1;host=h;proto=http"),
            id="any other is replaced",
        ),
        pytest.param(
            "192.0.2.7",
            "h",
            [],
            ("192.0.2.7", "http", "h", "for=192.0.2.7;host=h;proto=http"),
            id="trusted, says nothing",
        ),
        pytest.param(
            "2001:db8::1",
            "[2001:db8::2]:80",
            [],
            ("2001:db8::1", "http", "[2001:db8::2]:80", 'for="[2001:db8::1]";host="[2001:db8::2]:80";proto=http'),
            id="IPv6",
        ),
        pytest.param(
            "",
            "h:80",
            CLAIMED,
            ("unknown", "http", "h:80", 'for=unknown;host="h:80";proto=http'),
            id="no address, a port",
        ),
    ],
)
def test_who_asked(ip, authority, lines, said) -> None:
    out = request_to_origin(request(*lines, ip=ip, authority=authority), PROXIES)
    names = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded")
    assert tuple(told(out, name) for name in names) == said


def test_the_fields_of_untrusted_peers_cannot_come_in_by_another_spelling() -> None:
    out = request_to_origin(request(("x-FORWARDED-for", "1.1.1.1"), ("FORWARDED", "for=1.1.1.1")), HOP)
    assert "1.1.1.1" not in str(out.headers.lines)
