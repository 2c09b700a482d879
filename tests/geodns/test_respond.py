"""The protocol's tables: RFC 1034, 2308, 4592, 6891, 7871, 7873, 8482 and 8906, asked with dnspython."""

import struct

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from tests.geodns.world import RESOLVER, World, addresses, make, scope

SOA = "z.example. 30 IN SOA ns1. hostmaster.z.example. 1 86400 7200 1209600 30"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("geodns"))


def section(rrsets: list[dns.rrset.RRset]) -> list[str]:
    return sorted(line for rrset in rrsets for line in rrset.to_text().splitlines())


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "answer"),
    [
        pytest.param("txt.z.example", "TXT", "NOERROR", ['"hello"', '"world"'], id="txt"),
        pytest.param("caa.z.example", "CAA", "NOERROR", ['0 issue "ca.example"'], id="caa"),
        pytest.param("mail.z.example", "MX", "NOERROR", ["10 mx.other.example."], id="mx"),
        pytest.param("z.example", "NS", "NOERROR", ["ns.other.example.", "ns1.z.example."], id="ns"),
        pytest.param("ns1.z.example", "AAAA", "NOERROR", ["2001:db8::53"], id="aaaa"),
        pytest.param("away.z.example", "A", "NOERROR", ["www.other.example."], id="cname-out"),
        pytest.param("alias.z.example", "CNAME", "NOERROR", ["www.z.example."], id="cname-itself"),
        pytest.param("nowhere.z.example", "A", "NXDOMAIN", ["missing.z.example."], id="cname-to-nothing"),
        pytest.param("x.y.wild.z.example", "TXT", "NOERROR", ['"any"'], id="wildcard"),
        pytest.param("wild.z.example", "TXT", "NOERROR", [], id="wildcard-not-for-its-parent"),
        pytest.param("x.wild.z.example", "A", "NOERROR", [], id="wildcard-nodata"),
        pytest.param("ent.z.example", "A", "NOERROR", [], id="empty-non-terminal"),
        pytest.param("missing.z.example", "A", "NXDOMAIN", [], id="nxdomain"),
        pytest.param("x.txt.z.example", "A", "NXDOMAIN", [], id="below-a-leaf"),
        pytest.param("txt.z.example", "A", "NOERROR", [], id="nodata"),
        pytest.param("txt.z.example", "TYPE65280", "NOERROR", [], id="unknown-type"),
        pytest.param("txt.z.example", "ANY", "NOERROR", ['"RFC8482" ""'], id="any"),
        pytest.param("x.other.z.example", "A", "NXDOMAIN", [], id="deeper-zone"),
        pytest.param("www.elsewhere.example", "A", "REFUSED", [], id="no-zone-of-ours"),
        pytest.param("example", "A", "REFUSED", [], id="above"),
        pytest.param(".", "NS", "REFUSED", [], id="root"),
        pytest.param("z.example", "AXFR", "REFUSED", [], id="axfr"),
        pytest.param("z.example", "IXFR", "REFUSED", [], id="ixfr"),
        pytest.param("z.example", "MAILB", "NOTIMP", [], id="mailb"),
    ],
)
def test_zones(world: World, name: str, kind: str, rcode: str, answer: list[str]) -> None:
    got = world.ask(name, kind)
    assert dns.rcode.to_text(got.rcode()) == rcode
    assert sorted(rdata.to_text() for rrset in got.answer for rdata in rrset) == answer
    assert not got.flags & (dns.flags.RA | dns.flags.TC | dns.flags.AD)
    assert bool(got.flags & dns.flags.AA) == (rcode in ("NOERROR", "NXDOMAIN"))
    negative = rcode == "NXDOMAIN" or (rcode == "NOERROR" and not answer)
    assert [rrset.rdtype for rrset in got.authority] == ([dns.rdatatype.SOA] if negative else [])
    if negative and "other.z" not in name:
        assert got.authority[0].ttl == 30, "RFC 2308 §3"


def test_a_delegation(world: World) -> None:
    got = world.ask("a.b.sub.z.example")
    assert not got.flags & dns.flags.AA
    assert section(got.authority) == ["sub.z.example. 3600 IN NS ns1.sub.z.example."]
    assert section(got.additional) == ["ns1.sub.z.example. 3600 IN A 192.0.2.77"]
    assert world.ask("sub.z.example", "DS").flags & dns.flags.AA


def test_aliases_are_followed_within_the_zone(world: World) -> None:
    got = world.ask("alias.z.example", client="192.0.2.0/24")
    assert section(got.answer) == ["alias.z.example. 3600 IN CNAME www.z.example.", "www.z.example. 60 IN A 192.0.2.10"]
    assert scope(got) == 24
    assert len(world.ask("loop.z.example").answer) == 1


def test_the_case_of_the_question_comes_back(world: World) -> None:
    wire = make("wWw.Z.eXaMpLe").to_wire()
    got = world.responder.respond(wire, RESOLVER)
    assert got is not None
    assert got[12 : 12 + 15] == wire[12 : 12 + 15]
    assert b"Z\x07eXaMpLe" in got
    assert got.count(b"\xc0\x0c") == 1


@pytest.mark.parametrize(
    ("client", "name", "kind", "got", "wanted_scope"),
    [
        pytest.param("192.0.2.0/24", "www", "A", ["192.0.2.10"], 24, id="near"),
        pytest.param("192.0.2.0/25", "www", "AAAA", ["2001:db8:f::1"], 24, id="aaaa"),
        pytest.param("2001:db8:1::/56", "www", "A", ["192.0.2.10"], 48, id="client-of-ipv6"),
        pytest.param("198.51.100.0/24", "near", "A", ["198.51.100.10"], 24, id="pops-of-the-name"),
        pytest.param("198.51.100.0/24", "near", "AAAA", [], 24, id="no-ipv6-there"),
        pytest.param("192.0.2.0/24", "x.geo", "A", ["192.0.2.10", "NYC"], 24, id="two"),
        pytest.param("192.0.0.0/16", "www", "A", None, 24, id="less-than-a-network"),
        pytest.param("8.8.8.0/24", "www", "A", None, 24, id="unknown"),
        pytest.param("0.0.0.0/0", "www", "A", None, 0, id="rather-not-say"),
        pytest.param("192.0.2.0/24", "txt", "TXT", None, 0, id="same-for-everybody"),
        pytest.param("192.0.2.0/24", "missing", "A", [], 0, id="nothing-there"),
    ],
)
def test_client_subnets(
    world: World, client: str, name: str, kind: str, got: list[str] | None, wanted_scope: int
) -> None:
    answer = world.ask(f"{name}.z.example", kind, client=client)
    assert scope(answer) == wanted_scope
    if got is not None:
        found = addresses(answer)
        if got[-1:] == ["NYC"]:  # one of three there, by weight
            assert found.pop().startswith("198.51.100.")
            got = got[:-1]
        assert found == got


def option(code: int, data: bytes) -> dns.edns.GenericOption:
    return dns.edns.GenericOption(code, data)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([option(8, b"\0\1\x18\0\xc0\0\2\1")], id="too-long"),
        pytest.param([option(8, b"\0\1\x18\0\xc0\0")], id="too-short"),
        pytest.param([option(8, b"\0\1\x17\0\xc0\0\3")], id="bits-behind-the-prefix"),
        pytest.param([option(8, b"\0\1\x21\0\xc0\0\2\1\0")], id="prefix-of-33"),
        pytest.param([option(8, b"\0\1\x18\1\xc0\0\2")], id="scope-in-a-query"),
        pytest.param([option(8, b"\0\3\0\0")], id="unknown-family"),
        pytest.param([option(8, b"\0\1")], id="no-prefix"),
        pytest.param([option(8, b"\0\1\x18\0\xc0\0\2"), option(8, b"\0\1\x18\0\xc0\0\2")], id="two"),
        pytest.param([option(10, b"1234567")], id="cookie-of-7"),
        pytest.param([option(10, b"123456789")], id="cookie-of-9"),
        pytest.param([option(10, bytes(41))], id="cookie-of-41"),
    ],
)
def test_malformed_options(world: World, options: list[dns.edns.Option]) -> None:
    answer = world.ask("www.z.example", options=options)
    assert answer.rcode() == dns.rcode.FORMERR
    assert answer.edns == 0


def test_a_family_of_zero_says_nothing(world: World) -> None:
    query = make("www.z.example", options=[option(8, bytes(4))]).to_wire()
    wire = world.responder.respond(query, RESOLVER)
    assert wire is not None
    assert wire[3] & 15 == dns.rcode.NOERROR
    assert wire.endswith(b"\0\x08\0\x04" + bytes(4)), "as it came, scope 0"


QUERY = make("www.z.example").to_wire()
EDNS = make("www.z.example", use_edns=0).to_wire()
OPT = EDNS[len(QUERY) :]


def flags(wire: bytes, value: int) -> bytes:
    return wire[:2] + struct.pack(">H", value) + wire[4:]


def counts(wire: bytes, *values: int) -> bytes:
    return wire[:4] + struct.pack(">4H", *values) + wire[12:]


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        pytest.param(QUERY, 0, id="plain"),
        pytest.param(flags(QUERY, 0x0040), 0, id="reserved-bit"),
        pytest.param(flags(QUERY, 0x0030), 0, id="ad-and-cd"),
        pytest.param(flags(QUERY, 0x0200), 0, id="tc"),
        pytest.param(flags(QUERY, 0x0480), 0, id="aa-and-ra"),
        pytest.param(flags(QUERY, 0x000F), 0, id="an-rcode"),
        pytest.param(flags(QUERY, 0x0800), 4, id="iquery"),
        pytest.param(flags(QUERY, 0x1000), 4, id="status"),
        pytest.param(flags(QUERY, 0x2000), 5, id="notify"),
        pytest.param(flags(QUERY, 0x2800), 5, id="update"),
        pytest.param(flags(QUERY[:12], 0x7800), 4, id="opcode-15"),
        pytest.param(counts(QUERY, 0, 0, 0, 0), 1, id="no-question"),
        pytest.param(counts(QUERY + QUERY[12:], 2, 0, 0, 0), 1, id="two-questions"),
        pytest.param(counts(QUERY, 1, 1, 0, 0), 1, id="an-answer"),
        pytest.param(QUERY[:-1], 1, id="cut"),
        pytest.param(QUERY[:14], 1, id="cut-in-the-name"),
        pytest.param(QUERY[:12], 1, id="header-only"),
        pytest.param(QUERY + b"\0", 1, id="octets-behind"),
        pytest.param(QUERY[:12] + b"\xc0\x0c\0\1\0\1", 1, id="looping-pointer"),
        pytest.param(QUERY[:12] + b"\xc0\x00\0\1\0\1", 1, id="pointer-to-the-header"),
        pytest.param(QUERY[:12] + b"\x40" + QUERY[13:], 1, id="label-type-01"),
        pytest.param(QUERY[:12] + b"\x3f" + b"x" * 63 + (b"\x3f" + b"x" * 63) * 3 + b"\0\0\1\0\1", 1, id="name-of-257"),
        pytest.param(QUERY[:-1] + b"\3", 5, id="chaos"),
        pytest.param(QUERY[:-1] + b"\xff", 5, id="class-any"),
        pytest.param(QUERY[:-4] + b"\0\x29\0\1", 1, id="type-opt"),
        pytest.param(QUERY[:-4] + b"\0\0\0\1", 1, id="type-0"),
        pytest.param(EDNS, 0, id="edns"),
        pytest.param(counts(EDNS + OPT, 1, 0, 0, 2), 1, id="two-opts"),
        pytest.param(counts(EDNS, 1, 0, 1, 0), 1, id="opt-in-the-authority"),
        pytest.param(QUERY[:10] + b"\0\1" + QUERY[12:] + b"\1x" + OPT, 1, id="opt-with-an-owner"),
        pytest.param(EDNS[:-4] + b"\x80\0\0\0", 0, id="do"),
        pytest.param(EDNS[:-4] + b"\x40\0\0\0", 0, id="unknown-edns-flag"),
        pytest.param(EDNS[:-5] + b"\1\0\0\0\0", 16, id="edns-1"),
        pytest.param(EDNS[:-2] + b"\0\1", 1, id="options-cut"),
        pytest.param(EDNS[:-2] + b"\0\4\xff\xfe\0\0", 0, id="unknown-option"),
        pytest.param(EDNS[:-2] + b"\0\4\xff\xfe\0\1", 1, id="option-cut"),
    ],
)
def test_rfc_8906_and_worse(world: World, packet: bytes, rcode: int) -> None:
    wire = world.responder.respond(packet, RESOLVER)
    assert wire is not None
    assert wire[:2] == packet[:2]
    first, second = wire[2], wire[3]
    assert first & 0x80, "QR"
    assert first & 0x79 == packet[2] & 0x79, "opcode and RD come back"
    assert second & 0xF0 == 0, "RA, Z, AD, CD"
    answer = dns.message.from_wire(wire, ignore_trailing=False)
    assert int(answer.rcode()) == rcode
    assert len(wire) <= 3 * len(packet)
    if rcode != 0:
        assert not answer.flags & dns.flags.AA
        assert not answer.answer
    if answer.opt is not None:
        assert (answer.edns, answer.payload) == (0, 1232)


@pytest.mark.parametrize(
    ("packet", "edns"),
    [
        pytest.param(flags(EDNS, 0x7800), 0, id="opcode-15"),
        pytest.param(flags(EDNS, 0x2000), 0, id="notify"),
        pytest.param(counts(flags(EDNS, 0x7800), 1, 0, 0, 2), -1, id="sections-unlike-ours"),
        pytest.param(counts(flags(EDNS, 0x7800), 9, 0, 0, 1), -1, id="questions-that-are-not-there"),
        pytest.param(flags(QUERY, 0x7800), -1, id="without"),
    ],
)
def test_an_opt_record_is_answered_by_one_whatever_the_opcode(world: World, packet: bytes, edns: int) -> None:
    """RFC 6891 §6.1.1."""
    wire = world.responder.respond(packet, RESOLVER)
    assert wire is not None
    assert dns.message.from_wire(wire).edns == edns


@pytest.mark.parametrize(
    "packet",
    [b"", QUERY[:11], flags(QUERY, 0x8000), flags(QUERY[:12], 0x8180)],
    ids=["nothing", "less-than-a-head", "an-answer", "the-head-of-an-answer"],
)
def test_silence(world: World, packet: bytes) -> None:
    assert world.responder.respond(packet, RESOLVER) is None


def test_no_edns_in_the_answer_without_it_in_the_query(world: World) -> None:
    assert world.ask("www.z.example").edns == -1
    answer = world.ask("www.z.example", use_edns=0, want_dnssec=True)
    assert answer.ednsflags & dns.flags.DO


def test_truncation(world: World) -> None:
    """RFC 2181 §9: nothing of a set that does not fit."""
    cut = world.ask("big.z.example", "TXT", tcp=False)
    assert cut.flags & dns.flags.TC
    assert not cut.answer
    assert len(world.ask("big.z.example", "TXT").answer[0]) == 3


def test_an_address_that_has_not_proved_itself_gets_three_times_its_query(world: World) -> None:
    query = make("big.z.example", "TXT", options=[option(10, b"12345678")], payload=4096)
    first = world.responder.respond(query.to_wire(), RESOLVER)
    assert first is not None
    assert len(first) <= 3 * len(query.to_wire())
    cut = dns.message.from_wire(first)
    assert cut.flags & dns.flags.TC
    (cookie,) = (one for one in cut.options if int(one.otype) == 10)
    again = make("big.z.example", "TXT", options=[option(10, cookie.client + cookie.server)], payload=4096)
    whole = world.responder.respond(again.to_wire(), RESOLVER)
    assert whole is not None
    assert len(dns.message.from_wire(whole).answer[0]) == 3
    elsewhere = world.responder.respond(again.to_wire(), bytes((203, 0, 113, 54)))
    assert elsewhere is not None
    assert dns.message.from_wire(elsewhere).flags & dns.flags.TC, "the cookie is another address's"


def test_a_cookie_without_a_question(world: World) -> None:
    """RFC 7873 §5.4."""
    query = make("x", options=[option(10, b"12345678")]).to_wire()
    packet = counts(query[:12] + query[12 + 7 :], 0, 0, 0, 1)
    wire = world.responder.respond(packet, RESOLVER)
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert answer.rcode() == 0
    assert len(answer.options[0].to_wire()) == 24


def test_all_down(world: World) -> None:
    before = world.responder.snapshot
    try:
        world.responder.snapshot = world.with_health("fra", "nyc", "nyc-b", "sin")
        assert len(addresses(world.ask("www.z.example", client="192.0.2.0/24"))) == 5
        assert addresses(world.ask("one.z.example", client="192.0.2.0/24")) == ["192.0.2.99"]
        assert addresses(world.ask("near.z.example", client="192.0.2.0/24")) == ["198.51.100.10"]
        world.responder.snapshot = world.with_health("fra", settled_s=7.5)
        answer = world.ask("www.z.example", client="192.0.2.0/24")
        assert addresses(answer)[0].startswith("198.51.100.")
        assert answer.answer[0].ttl == 7, "as long as nothing can change"
        assert world.ask("www.z.example", "AAAA", client="192.0.2.0/24").authority[0].ttl == 7
    finally:
        world.responder.snapshot = before
