"""Ready answers: which packets are answered, with what, for whom, and which are left alone."""

import struct
from array import array

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache._native.dnsranges import Ranges
from edgecache._native.dnstable import BY_CLIENT, Answer, Node, Table, siblings

A, AAAA, TXT, ANY = 1, 28, 16, 255
PEER = bytes([10, 0, 0, 1])
APEX = b"\7example\3com\0"
GEO_4, GEO_6, WEIGHED, SLOW_LIST, BROKEN = range(5)


def wire(name: str) -> bytes:
    return dns.name.from_text(name).to_wire()


def address(number: int, by_client: bool = False, counted: tuple[int, int] = (-1, -1)) -> Answer:
    return Answer(
        b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([192, 0, 2, number]), 1, by_client=by_client, counted=counted
    )


def negative(rcode: int, serial: int) -> Answer:
    """An SOA: its owner and the ends of its names are pointers that move with the question's name."""
    front = b"\3ns1??\4host??"
    rdata = front + struct.pack(">IIIII", serial, 2, 3, 4, 5)
    head = b"??" + struct.pack(">HHIH", 6, 1, 60, len(rdata))
    target = 12 - len(APEX)
    return Answer(
        head + rdata, 0, 1, flags=0x0400 | rcode,
        patches=((0, target), (len(head) + 4, target), (len(head) + 11, target)),
    )  # fmt: skip


NODATA, NXDOMAIN = negative(0, 1), negative(3, 2)
TEXT = Answer(b"\xc0\x0c\0\x10\0\1\0\0\0\x3c\0\xc8\xc7" + b"t" * 199, 1)
CNAME = Answer(b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\5\3www\0", 1)
REFUSED = Answer(b"", 0, flags=5)


def ready(geo: int, number: int, client: bytes | None) -> Answer | object | None:
    if geo == WEIGHED:
        return BY_CLIENT if client is None else address(100 + client[3], by_client=True)
    if geo == SLOW_LIST:
        return None
    if geo == BROKEN:
        raise LookupError("no such list")
    return address(number, counted=(number, 7))


def table(**more: object) -> Table:
    nodes = {
        wire("example.com."): Node(0, {TXT: TEXT}, NODATA),
        wire("www.example.com."): Node(0, {A: GEO_4, AAAA: GEO_6, ANY: TEXT}, NODATA),
        wire("weighed.example.com."): Node(0, {A: WEIGHED}, NODATA),
        wire("hard.example.com."): Node(0, {A: SLOW_LIST}, None),
        wire("broken.example.com."): Node(0, {A: BROKEN}, None),
        wire("alias.example.com."): Node(0, {}, CNAME),
        wire("cut.example.com."): Node(0, {}, None, slow=True),
        wire("*.wild.example.com."): Node(0, {A: GEO_4}, NODATA),
        wire("deep.under.example.com."): Node(0, {TXT: TEXT}, NODATA),
    }
    for name in siblings(nodes, APEX):
        nodes.setdefault(name, Node(0, {}, NODATA))
    ranges_4 = Ranges(array("I", [0, 10 << 24, 11 << 24]), None, array("I", [0, 1, 2]))
    ranges_6 = Ranges(array("Q", [0, 0x20010DB8 << 32]), array("Q", [0, 0]), array("I", [0, 3]))
    places = Ranges(array("I", [0, 10 << 24, 11 << 24]), None, array("I", [8, 9, 8]))
    settings: dict[str, object] = {
        "outside": REFUSED, "ranges_4": ranges_4, "ranges_6": ranges_6, "lists": 4, "ready": ready,
        "counters": 10, "places_4": places,
    }  # fmt: skip
    return Table(nodes, [NXDOMAIN], **(settings | more))  # type: ignore[arg-type]


def query(name: str, kind: str = "A", subnet: tuple[str, int] | None = None, **more: object) -> bytes:
    if subnet is not None:
        more["options"] = [dns.edns.ECSOption(*subnet)]
        more["use_edns"] = 0
    return dns.message.make_query(name, kind, **more).to_wire()  # type: ignore[arg-type]


def ask(packet: bytes, peer: bytes = PEER, **more: object) -> dns.message.Message:
    answer = table().answer(packet, peer, **more)  # type: ignore[arg-type]
    assert answer is not None
    return dns.message.from_wire(answer)


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "found"),
    [
        pytest.param("www.example.com", "A", "NOERROR", "192.0.2.1", id="by client"),
        pytest.param("WWW.eXaMple.COM", "A", "NOERROR", "192.0.2.1", id="case"),
        pytest.param("x.wild.example.com", "A", "NOERROR", "192.0.2.1", id="wildcard"),
        pytest.param("x.y.wild.example.com", "A", "NOERROR", "192.0.2.1", id="wildcard, two labels"),
        pytest.param("x.wild.example.com", "TXT", "NOERROR", None, id="wildcard without that type"),
        pytest.param("wild.example.com", "A", "NOERROR", None, id="what the wildcard hangs from"),
        pytest.param("under.example.com", "A", "NOERROR", None, id="empty non-terminal"),
        pytest.param("www.example.com", "MX", "NOERROR", None, id="no data"),
        pytest.param("x.example.com", "A", "NXDOMAIN", None, id="no such name"),
        pytest.param("a.b.c.under.example.com", "A", "NXDOMAIN", None, id="no such name, far below"),
        pytest.param("x.www.example.com", "A", "NXDOMAIN", None, id="no such name, below one with addresses"),
        pytest.param("example.org", "A", "REFUSED", None, id="not ours"),
        pytest.param("com", "A", "REFUSED", None, id="above ours"),
        pytest.param(".", "A", "REFUSED", None, id="the root"),
        pytest.param("www.example.com", "ANY", "NOERROR", "t" * 199, id="ANY where the table has it"),
        pytest.param("alias.example.com", "AAAA", "NOERROR", "www.", id="CNAME for every type"),
    ],
)
def test_names(name: str, kind: str, rcode: str, found: str | None) -> None:
    packet = query(name, kind)
    message = ask(packet)
    assert message.rcode() == dns.rcode.from_text(rcode)
    assert message.question[0].name.to_text(omit_final_dot=name != ".") == name  # its case too
    assert bool(message.flags & dns.flags.AA) == (rcode != "REFUSED")
    assert dns.message.from_wire(packet).is_response(message)
    if found is None:
        assert not message.answer
    else:
        assert found in message.answer[0].to_text()
    if rcode == "NXDOMAIN" or (rcode == "NOERROR" and found is None):
        (soa_set,) = message.authority
        assert soa_set.name == dns.name.from_text("example.com")
        assert soa_set[0].mname == dns.name.from_text("ns1.example.com")
        assert soa_set[0].rname == dns.name.from_text("host.example.com")


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(query("hard.example.com"), id="a list that is hard"),
        pytest.param(query("hard.example.com", "TXT"), id="a type nothing is said of"),
        pytest.param(query("cut.example.com"), id="a slow name"),
        pytest.param(query("x.y.cut.example.com"), id="below a slow name"),
        pytest.param(query("weighed.example.com", "ANY"), id="ANY"),
        pytest.param(query("www.example.com", "AXFR"), id="AXFR"),
        pytest.param(query("www.example.com", 41), id="OPT as a type"),
        pytest.param(query("www.example.com", 0), id="type 0"),
    ],
)
def test_left_to_python(packet: bytes) -> None:
    assert table().answer(packet, PEER) is None


PLAIN = query("www.example.com")
WITH_OPT = query("www.example.com", use_edns=0)
WITH_SUBNET = query("www.example.com", subnet=("10.1.2.0", 24))


def patched(packet: bytes, at: int, octets: bytes) -> bytes:
    return packet[:at] + octets + packet[at + len(octets) :]


def optioned(*options: bytes, ttl: int = 0, owner: bytes = b"\0", cut: int = 0) -> bytes:
    data = b"".join(options)
    head = owner + struct.pack(">HHIH", 41, 1232, ttl, len(data) + cut)
    return patched(PLAIN, 10, b"\0\1") + head + data


def option(code: int, data: bytes) -> bytes:
    return struct.pack(">HH", code, len(data)) + data


ODD = [
    pytest.param(b"", id="nothing"),
    pytest.param(PLAIN[:12], id="a header"),
    pytest.param(PLAIN[:-1], id="cut short"),
    pytest.param(PLAIN + b"\0", id="an octet more"),
    pytest.param(WITH_OPT + b"\0", id="an octet after OPT"),
    pytest.param(WITH_OPT[:-1], id="OPT cut short"),
    pytest.param(patched(PLAIN, 2, b"\x81\0"), id="a response"),
    pytest.param(patched(PLAIN, 2, b"\x28\0"), id="UPDATE"),
    pytest.param(patched(PLAIN, 2, b"\x04\0"), id="AA"),
    pytest.param(patched(PLAIN, 2, b"\x02\0"), id="TC"),
    pytest.param(patched(PLAIN, 2, b"\0\x80"), id="RA"),
    pytest.param(patched(PLAIN, 2, b"\0\x40"), id="Z"),
    pytest.param(patched(PLAIN, 2, b"\0\x01"), id="an RCODE"),
    pytest.param(patched(PLAIN, 4, b"\0\0"), id="no question counted"),
    pytest.param(patched(PLAIN, 4, b"\0\2") + PLAIN[12:], id="two questions"),
    pytest.param(patched(PLAIN, 6, b"\0\1"), id="an answer counted"),
    pytest.param(patched(PLAIN, 8, b"\0\1"), id="an authority counted"),
    pytest.param(patched(PLAIN, 10, b"\0\1"), id="an additional counted"),
    pytest.param(patched(WITH_OPT, 10, b"\0\0"), id="OPT not counted"),
    pytest.param(patched(PLAIN, len(PLAIN) - 1, b"\3"), id="class CH"),
    pytest.param(patched(PLAIN, len(PLAIN) - 1, b"\xff"), id="class ANY"),
    pytest.param(patched(PLAIN, 12, b"\xc0\x0c"), id="a name that points to itself"),
    pytest.param(patched(PLAIN, 12, b"\x40"), id="a label of another kind"),
    pytest.param(PLAIN[:12] + b"\x3f" + b"a" * 63 + PLAIN[12:-1], id="cut in the class"),
    pytest.param(PLAIN[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", id="a name of 257 octets"),
    pytest.param(optioned(ttl=1 << 16), id="EDNS version 1"),
    pytest.param(optioned(ttl=1 << 24), id="an extended RCODE"),
    pytest.param(optioned(ttl=1), id="an unknown EDNS flag"),
    pytest.param(optioned(owner=b"\1a\0"), id="an OPT with a name"),
    pytest.param(optioned(cut=1), id="an OPT that is shorter than it says"),
    pytest.param(patched(optioned(), 10, b"\0\2") + optioned()[len(PLAIN) :], id="two OPTs"),
    pytest.param(optioned(option(3, b"")), id="NSID"),
    pytest.param(optioned(option(65001, b"x")), id="an unknown option"),
    pytest.param(optioned(b"\0\x08\0"), id="an option's head cut short"),
    pytest.param(optioned(option(8, b"\0\1\0")), id="a subnet cut short"),
    pytest.param(optioned(option(8, b"\0\1\x18\0\x0a\0")), id="a subnet of too few octets"),
    pytest.param(optioned(option(8, b"\0\1\x18\0\x0a\0\0\0")), id="a subnet of too many octets"),
    pytest.param(optioned(option(8, b"\0\1\x17\0\x0a\0\1")), id="a subnet with a bit after its prefix"),
    pytest.param(optioned(option(8, b"\0\1\x18\1\x0a\0\0")), id="a subnet with a scope"),
    pytest.param(optioned(option(8, b"\0\1\x21\0\x0a\0\0\0\0")), id="IPv4 of 33 bits"),
    pytest.param(optioned(option(8, b"\0\2\x81\0" + bytes(17))), id="IPv6 of 129 bits"),
    pytest.param(optioned(option(8, b"\0\0\0\0")), id="a subnet of no family"),
    pytest.param(optioned(option(8, b"\0\3\0\0")), id="a subnet of family 3"),
    pytest.param(optioned(option(8, b"\0\1\0\0"), option(8, b"\0\1\0\0")), id="two subnets"),
    pytest.param(optioned(option(10, b"1234567")), id="a cookie of 7"),
    pytest.param(optioned(option(10, b"123456789012345")), id="a cookie of 15"),
    pytest.param(optioned(option(10, bytes(41))), id="a cookie of 41"),
    pytest.param(optioned(option(10, bytes(8)), option(10, bytes(8))), id="two cookies"),
]


@pytest.mark.parametrize("packet", ODD)
def test_odd_packets_are_left_alone(packet: bytes) -> None:
    assert table().answer(packet, PEER) is None


@given(st.data())
def test_any_octets(data: st.DataObject) -> None:
    """Whatever comes: an answer to just that question, or none."""
    packet = data.draw(st.sampled_from([PLAIN, WITH_OPT, WITH_SUBNET]))
    packet = bytearray(packet)
    for _ in range(data.draw(st.integers(0, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    packet = bytes(packet[: data.draw(st.one_of(st.just(len(packet)), st.integers(0, len(packet))))])
    answer = table(ready=lambda geo, number, client: address(1)).answer(packet, PEER)
    if answer is not None:
        message = dns.message.from_wire(answer)
        asked = dns.message.from_wire(packet)
        assert asked.is_response(message)
        assert len(asked.question) == 1
        assert (message.edns, message.payload) == ((0, 1232) if asked.edns == 0 else (-1, 0))
        assert message.ednsflags == asked.ednsflags


@pytest.mark.parametrize(
    ("subnet", "peer", "found", "scope"),
    [
        pytest.param(("10.1.2.0", 24), PEER, "192.0.2.1", 8, id="the range is wider"),
        pytest.param(("11.0.0.0", 24), PEER, "192.0.2.2", 8, id="the range has no end"),
        pytest.param(("128.0.0.0", 8), PEER, "192.0.2.2", 1, id="the upper half"),
        pytest.param(("0.0.0.0", 8), PEER, "192.0.2.0", 5, id="the first"),
        pytest.param(("8.0.0.0", 5), PEER, "192.0.2.0", 7, id="asked more widely than can be said"),
        pytest.param(("0.0.0.0", 0), PEER, "192.0.2.1", 0, id="who does not tell: the resolver counts"),
        pytest.param(("2001:db8::", 56), PEER, "192.0.2.3", 29, id="IPv6"),
        pytest.param(("::", 0), bytes([12, 0, 0, 1]), "192.0.2.2", 0, id="IPv6, does not tell"),
        pytest.param(("1.2.3.4", 32), PEER, "192.0.2.0", 5, id="a whole address"),
    ],
)
def test_subnets(subnet: tuple[str, int], peer: bytes, found: str, scope: int) -> None:
    message = ask(query("www.example.com", subnet=subnet), peer)
    assert message.answer[0][0].address == found
    (told,) = message.options
    assert isinstance(told, dns.edns.ECSOption)
    assert (told.address, told.srclen, told.scopelen) == (*subnet, scope)


def test_names_for_everybody_have_scope_0() -> None:
    (told,) = ask(query("example.com", "TXT", subnet=("10.1.2.0", 24))).options
    assert isinstance(told, dns.edns.ECSOption)
    assert told.scopelen == 0


@pytest.mark.parametrize(
    ("peer", "found"),
    [(PEER, "192.0.2.1"), (bytes([200] * 4), "192.0.2.2"), (b"\x20\1\x0d\xb8" + bytes(12), "192.0.2.3")],
)
def test_without_a_subnet_the_resolver_counts(peer: bytes, found: str) -> None:
    message = ask(query("www.example.com", use_edns=0), peer)
    assert message.answer[0][0].address == found
    assert not message.options


def test_weights_go_by_the_clients_network() -> None:
    t, seen = table(), []
    for third in (1, 2, 1, 2, 1):
        answer = t.answer(query("weighed.example.com", subnet=(f"10.0.{third}.0", 24)), PEER)
        assert answer is not None
        message = dns.message.from_wire(answer)
        seen.append((message.answer[0][0].address, message.options[0].scopelen))
    assert seen == [(f"192.0.2.{100 + third}", 24) for third in (1, 2, 1, 2, 1)]


def test_counts() -> None:
    t = table()
    for first in (10, 10, 200):
        t.answer(query("www.example.com"), bytes([first, 0, 0, 1]))
    assert t.counts() == [0, 2, 1, 0, 0, 0, 0, 3, 1, 2]


@pytest.mark.parametrize(
    ("packet", "most", "cut"),
    [
        pytest.param(query("example.com", "TXT"), 241, False, id="just fits"),
        pytest.param(query("example.com", "TXT"), 240, True, id="one octet too long"),
        pytest.param(query("example.com", "TXT", use_edns=0), 252, False, id="just fits with OPT"),
        pytest.param(query("example.com", "TXT", use_edns=0), 251, True, id="one octet too long with OPT"),
    ],
)
def test_cutting(packet: bytes, most: int, cut: bool) -> None:
    answer = table().answer(packet, PEER, most=most)
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert bool(message.flags & dns.flags.TC) == cut
    assert bool(message.answer) != cut
    assert len(answer) == (most if not cut else len(packet))
    assert message.edns == dns.message.from_wire(packet).edns


@pytest.mark.parametrize(("room", "here"), [(30, True), (29, False)])
def test_additional_records_that_do_not_fit_are_left_to_python(room: int, here: bool) -> None:
    glue = Answer(b"\xc0\x0c\0\2\0\1\0\0\0\x3c\0\2\xc0\x0c\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1", 1, additional=1)
    made = Table({APEX: Node(0, {2: glue}, None)}, [None])
    packet = query("example.com", "NS", use_edns=0)
    answer = made.answer(packet, PEER, most=len(packet) + room)
    assert (answer is not None) == here
    if answer is not None:
        message = dns.message.from_wire(answer)
        assert (len(message.answer), len(message.additional), message.edns) == (1, 1, 0)


def test_a_cookie_is_sent_where_there_was_one() -> None:
    cookie = bytes(range(24))
    message = ask(optioned(option(10, bytes(8)), option(8, b"\0\1\x18\0\x0a\0\0")), cookie=cookie)
    assert {int(told.otype) for told in message.options} == {8, 10}
    (told,) = [one for one in message.options if one.otype == 10]
    assert told.to_wire() == cookie
    assert not ask(WITH_OPT, cookie=cookie).options


def test_a_name_is_filled_in_when_it_is_first_asked_for() -> None:
    asked = []

    def fill(name: bytes) -> Node:
        asked.append(name)
        kinds: dict[int, Answer | int | None] = {A: 70, TXT: TEXT}
        return Node(0, {} if name == APEX else kinds, NODATA, slow=name == wire("slow.example.com."))

    bare: dict[bytes, Node | int] = dict.fromkeys([APEX, *map(wire, ("www.example.com.", "slow.example.com."))], 0)
    made = Table(bare, [NXDOMAIN], ready=lambda geo, number, client: address(geo), fill=fill, lists=1)
    assert asked == []
    for _ in range(2):
        answer = made.answer(query("www.example.com"), PEER)
        assert answer is not None
        assert dns.message.from_wire(answer).answer[0][0].address == "192.0.2.70"
    assert asked == [wire("www.example.com.")]
    assert made.answer(query("x.slow.example.com"), PEER) is None
    assert made.answer(query("x.example.com"), PEER) is not None
    assert asked[1:] == [wire("slow.example.com."), APEX]


@pytest.mark.parametrize(
    "fill", [None, lambda name: Node(1, {}, None), lambda name: None], ids=["nobody", "zone", "none"]
)
def test_a_name_that_cannot_be_filled_in(fill: object) -> None:
    made = Table({APEX: 0}, [NXDOMAIN], fill=fill)  # type: ignore[arg-type]
    with pytest.raises((ValueError, AttributeError)):
        made.answer(query("example.com"), PEER)


def test_an_error_of_ready_is_the_callers() -> None:
    with pytest.raises(LookupError):
        table().answer(query("broken.example.com"), PEER)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"lists": 2}, id="a range leads to no list"),
        pytest.param({"ready": None}, id="nobody to ask"),
        pytest.param({"counters": 2}, id="a place has no counter"),
        pytest.param({"ranges_4": Ranges(array("Q", [0]), array("Q", [0]), array("I", [0]))}, id="another family"),
        pytest.param({"outside": Answer(b"", 0, patches=((0, 0),))}, id="a pointer outside"),
        pytest.param({"outside": Answer(b"", 0, flags=0x8000)}, id="flags that are not the answer's"),
        pytest.param({"outside": Answer(b"", 0, counted=(10, -1))}, id="a counter that is not there"),
    ],
)
def test_refuses(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"list|geo|number|bits|pointer|sent|counter"):
        table(**arguments)
