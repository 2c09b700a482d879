"""Packets through a socket: batches, silence, bounds, cookies, rates, and Python behind it all."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing

import dns.edns
import dns.message
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecache._native.dnsguard import Cookies, Limiter
from edgecache._native.dnstable import Answer, Node, Table
from edgecache._native.dnsudp import COUNTERS, Responder
from edgecache.http.clock import wall_clock

A, TXT = 1, 16
WWW = b"\3www\7example\3com\0"
SECRET = bytes(range(16))
AMPLIFICATION = 3
SHORT = Answer(b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1", 1)
LONG = Answer(b"\xc0\x0c\0\x10\0\1\0\0\0\x3c\0\xc8\xc7" + b"t" * 199, 1)


def table() -> Table:
    return Table({WWW[4:]: Node(0, {}, None), WWW: Node(0, {A: SHORT, TXT: LONG}, None)}, [None])


def query(kind: int = A, *options: dns.edns.Option, name: str = "www.example.com", **more: object) -> bytes:
    if options:
        more["use_edns"] = 0
    return dns.message.make_query(name, kind, options=list(options), **more).to_wire()  # type: ignore[arg-type]


class Pair:
    """A responder's socket and a client's."""

    def __init__(self, host: str = "127.0.0.1", bound: str | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.server = socket.socket(family, socket.SOCK_DGRAM)
        self.server.bind((bound if bound is not None else host, 0))
        self.server.setblocking(False)
        self.client = socket.socket(family, socket.SOCK_DGRAM)
        self.client.settimeout(5)
        self.client.connect((host, self.server.getsockname()[1]))
        self.asked: list[tuple[bytes, bytes]] = []
        self.errors: list[Exception] = []
        self.answer: Callable[[bytes], bytes | None] = lambda packet: None

    def close(self) -> None:
        self.server.close()
        self.client.close()

    def slow(self, packet: bytes, address: bytes) -> bytes | None:
        self.asked.append((packet, address))
        return self.answer(packet)

    def responder(self, **more: object) -> Responder:
        made = Responder(self.server.fileno(), self.slow, self.errors.append, **more)  # type: ignore[arg-type]
        made.use(table())
        return made

    def exchange(self, responder: Responder, *packets: bytes) -> list[bytes]:
        """What comes back; loopback delivers at once."""
        for packet in packets:
            self.client.send(packet)
        while responder.read():
            pass
        self.client.setblocking(False)
        got = []
        try:
            while True:
                got.append(self.client.recv(65535))
        except BlockingIOError:
            return got
        finally:
            self.client.settimeout(5)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with closing(Pair()) as made:
        yield made


def test_answers_by_the_batch(pair: Pair) -> None:
    responder = pair.responder()
    packets = [struct.pack(">H", number) + query()[2:] for number in range(200)]
    for packet in packets:
        pair.client.send(packet)
    assert responder.read() == 200
    assert [pair.client.recv(512)[:2] for _ in packets] == [packet[:2] for packet in packets]
    assert responder.counts()["answered"] == 200
    assert responder.read() == 0
    assert set(responder.counts()) == set(COUNTERS)


@pytest.mark.parametrize(
    ("host", "bound", "asked"),
    [
        pytest.param("127.0.0.1", None, b"\x7f\0\0\1", id="IPv4"),
        pytest.param("::1", None, bytes(15) + b"\1", id="IPv6"),
        pytest.param("127.0.0.2", "", b"\x7f\0\0\1", id="any address, IPv4"),
        pytest.param("::1", "::", bytes(15) + b"\1", id="any address, IPv6"),
        pytest.param("::ffff:127.0.0.3", "::", b"\x7f\0\0\1", id="IPv4 on a socket of IPv6"),
    ],
)
def test_answers_leave_from_the_address_that_was_asked(host: str, bound: str | None, asked: bytes) -> None:
    """The client's socket is connected: it hears nobody else."""
    with closing(Pair(host, bound)) as pair:
        responder = pair.responder(from_any=bound is not None)
        (got,) = pair.exchange(responder, query())
        assert dns.message.from_wire(got).answer[0][0].address == "192.0.2.1"
        pair.exchange(responder, query(name="example.com"))
        assert pair.asked[0][1][-1:] == asked[-1:]
        assert len(pair.asked[0][1]) == len(asked)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(query()[:11], id="less than a header"),
        pytest.param(b"\0\0\x80\0" + query()[4:], id="a response"),
        pytest.param(query() + bytes(1800), id="longer than any query"),
    ],
)
def test_silence(pair: Pair, packet: bytes) -> None:
    responder = pair.responder()
    assert pair.exchange(responder, packet) == []
    assert pair.asked == []
    assert responder.counts()["silent"] == 1


def test_what_is_odd_goes_to_python_as_it_came(pair: Pair) -> None:
    responder = pair.responder()
    odd = query() + b"\0"
    pair.answer = lambda packet: packet[:2] + b"\x80\1" + bytes(8)
    got = pair.exchange(responder, odd, query())
    assert got[0] == odd[:2] + b"\x80\1" + bytes(8)
    assert dns.message.from_wire(got[1]).answer
    assert pair.asked == [(odd, b"\x7f\0\0\1")]
    assert responder.counts()["slow"] == 1


def test_without_a_table_all_is_pythons(pair: Pair) -> None:
    responder = pair.responder()
    responder.use(None)
    assert pair.exchange(responder, query()) == []
    assert len(pair.asked) == 1


def test_an_error_in_python_costs_one_answer(pair: Pair) -> None:
    responder = pair.responder()

    def fail(packet: bytes) -> bytes:
        raise LookupError("oh")

    pair.answer = fail
    got = pair.exchange(responder, query(name="example.com"), query())
    assert len(got) == 1
    assert [str(error) for error in pair.errors] == ["oh"]
    assert responder.counts()["errors"] == 1


def test_what_a_table_fails_to_make_goes_to_python(pair: Pair) -> None:
    responder = pair.responder()

    def fail(name: bytes) -> Node:
        raise LookupError("no such name")

    responder.use(Table({WWW: 0}, [None], fill=fail))
    pair.answer = lambda packet: packet[:2] + b"\x80\2" + bytes(8)
    assert len(pair.exchange(responder, query())) == 1
    assert [str(error) for error in pair.errors] == ["no such name"]


@pytest.mark.parametrize(
    ("packet", "cut"),
    [
        pytest.param(query(TXT), True, id="a short query"),
        pytest.param(query(TXT, dns.edns.CookieOption(b"client42", b"")), True, id="the client's cookie only"),
        pytest.param(query(TXT, dns.edns.CookieOption(b"client42", bytes(16))), True, id="a made up cookie"),
        pytest.param(
            query(TXT, dns.edns.CookieOption(b"client42", b"x" * 32), dns.edns.ECSOption("10.0.0.0", 24)), False,
            id="a query that is long itself",
        ),
    ],
)  # fmt: skip
def test_three_times_the_query_and_no_more(pair: Pair, packet: bytes, cut: bool) -> None:
    (got,) = pair.exchange(pair.responder(cookies=Cookies([SECRET])), packet)
    assert len(got) <= AMPLIFICATION * len(packet)
    assert bool(got[2] & 2) == cut


def test_a_cookie_opens_the_bound(pair: Pair) -> None:
    responder = pair.responder(cookies=Cookies([SECRET]), limiter=Limiter(1, slip=1))
    (got,) = pair.exchange(responder, query(TXT, dns.edns.CookieOption(b"client42", b"")))
    (told,) = dns.message.from_wire(got).options
    assert isinstance(told, dns.edns.CookieOption)
    for _ in range(5):  # nor is it limited
        (got,) = pair.exchange(responder, query(TXT, told))
        assert dns.message.from_wire(got).answer
    assert responder.counts()["cookies"] == 5


def test_python_cannot_break_the_bound(pair: Pair) -> None:
    responder = pair.responder(cookies=Cookies([SECRET]))
    packet = query(name="example.com")
    pair.answer = lambda packet: packet[:2] + b"\x84\0" + bytes(8) + bytes(1000)
    (got,) = pair.exchange(responder, packet)
    assert got == packet[:2] + b"\x86\0" + bytes(8)


@pytest.mark.parametrize("good", [True, False])
def test_a_cookie_counts_beside_options_nobody_here_knows(pair: Pair, good: bool) -> None:
    """Such queries are for Python, and its answers are bounded like any."""
    cookie, _ = Cookies([SECRET]).reply(b"client42", b"\x7f\0\0\1", int(wall_clock()))
    told = dns.edns.CookieOption(b"client42", cookie[8:] if good else b"x" * 16)
    packet = query(A, told, dns.edns.GenericOption(3, b""))
    long = packet[:2] + b"\x84\0" + bytes(8) + bytes(1000)
    pair.answer = lambda packet: long
    (got,) = pair.exchange(pair.responder(cookies=Cookies([SECRET])), packet)
    assert pair.asked[0][0] == packet
    assert got == (long if good else long[:2] + b"\x86\0" + bytes(8))


def test_a_client_that_takes_512_octets() -> None:
    big = Answer(b"\xc0\x0c\0\x10\0\1\0\0\0\x3c\2\x58\xff" + b"t" * 255 + b"\xff" + b"t" * 255 + b"\x57" + b"t" * 87, 1)
    with closing(Pair()) as pair:
        responder = pair.responder(cookies=Cookies([SECRET]))
        responder.use(Table({WWW: Node(0, {TXT: big}, None)}, [None]))
        for payload, cut in ((512, True), (600, True), (700, False), (4096, False), (0, True)):
            (got,) = pair.exchange(responder, query(TXT, dns.edns.CookieOption(b"client42", b"")))
            (told,) = dns.message.from_wire(got).options
            (got,) = pair.exchange(responder, query(TXT, told, payload=payload))
            assert bool(got[2] & 2) == cut, payload
            assert len(got) <= max(payload, 512)


def test_too_many_are_slipped_to_tcp(pair: Pair) -> None:
    responder = pair.responder(limiter=Limiter(3, slip=2))
    got = pair.exchange(responder, *[query() for _ in range(9)])
    assert [bool(one[2] & 2) for one in got] == [False] * 3 + [True] * 3
    assert responder.counts()["limited"] == 3
    assert responder.counts()["slipped"] == 3
    assert all(not dns.message.from_wire(one).answer for one in got[3:])


def test_a_flood_of_odd_packets_is_limited_too(pair: Pair) -> None:
    responder = pair.responder(limiter=Limiter(3, slip=2))
    pair.exchange(responder, *[query() + b"\0" for _ in range(9)])
    assert len(pair.asked) == 3


def test_a_table_is_changed_between_batches(pair: Pair) -> None:
    responder = pair.responder()
    for number in range(50):
        answer = Answer(b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2" + bytes([number]), 1)
        responder.use(Table({WWW: Node(0, {A: answer}, None)}, [None]))
        (got,) = pair.exchange(responder, query())
        assert dns.message.from_wire(got).answer[0][0].address == f"192.0.2.{number}"


def test_the_loop_gets_its_turn(pair: Pair) -> None:
    responder = pair.responder()
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    for _ in range(150):
        pair.client.send(query(name="example.com"))
    assert responder.read() == 128
    assert responder.read() == 22


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(packet=st.binary(max_size=200))
def test_any_octets(pair: Pair, packet: bytes) -> None:
    got = pair.exchange(pair.responder(), packet)
    assert all(len(one) <= AMPLIFICATION * len(packet) for one in got)
    assert not pair.errors


@pytest.mark.parametrize("most", [511, 4097])
def test_refuses_sizes(pair: Pair, most: int) -> None:
    with pytest.raises(ValueError, match="octets"):
        pair.responder(most=most)
