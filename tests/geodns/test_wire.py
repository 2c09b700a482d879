"""Answers put together in advance: read by dnspython behind any question of their kind, and no longer than its own."""

import struct

import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache._native.dnstable import Answer, Node, Table
from edgecache.geodns.wire import Body, lower

ORIGIN = dns.name.from_text("Example.com.")
LABELS = st.sampled_from(["a", "b", "WWW", "x" * 63, "ns1"])
NAMES = st.builds(
    lambda labels, origin: dns.name.from_text(".".join([*labels, origin])),
    st.lists(LABELS, max_size=3),
    st.sampled_from(["example.com.", "sub.EXAMPLE.com.", "example.net.", "com."]),
)
RDATA = st.one_of(
    st.builds(lambda name: ("NS", f"{name}"), NAMES),
    st.builds(lambda name: ("CNAME", f"{name}"), NAMES),
    st.builds(lambda name: ("MX", f"10 {name}"), NAMES),
    st.builds(lambda name: ("SRV", f"1 2 3 {name}"), NAMES),
    st.builds(lambda one, two: ("SOA", f"{one} {two} 1 2 3 4 5"), NAMES, NAMES),
    st.just(("A", "192.0.2.1")),
    st.just(("TXT", '"text" "more"')),
    st.just(("CAA", '0 issue "ca.example"')),
)


def asked(body: Body, name: dns.name.Name, answers: int, authority: int = 0) -> dns.message.Message:
    """The message a client gets that asks for this name, over the compiled table."""
    zone = lower(dns.name.root)
    table = Table({zone: Node(0, {}, None), lower(name): Node(0, {1: body.answer(answers, authority)}, None)}, [None])
    answer = table.answer(dns.message.make_query(name, "A").to_wire(), b"\1\2\3\4")
    assert answer is not None
    return dns.message.from_wire(answer)


@given(st.lists(st.tuples(st.one_of(st.none(), NAMES), RDATA), min_size=1, max_size=8), st.data())
def test_reads_as_it_was_meant_and_is_no_longer_than_dnspythons(
    records: list[tuple[dns.name.Name | None, tuple[str, str]]], data: st.DataObject
) -> None:
    end = data.draw(NAMES)
    more = data.draw(st.lists(st.sampled_from(["q", "Longer"]), max_size=2))
    name = dns.name.from_text(".".join([*more, end.to_text()]))
    body = Body(end)
    plain = dns.message.make_response(dns.message.make_query(name, "A"))
    for owner, (kind, text) in records:
        rdataset = dns.rdataset.from_text("IN", kind, 300, text)
        body.add(owner, rdataset, 300)
        plain.answer.append(dns.rrset.from_rdata_list(owner or name, 300, list(rdataset)))
    message = asked(body, name, len(records))

    def listed(one: dns.message.Message) -> list[tuple[dns.name.Name, int, str]]:
        return [(rrset.name, rrset.ttl, rdata.to_text().lower()) for rrset in one.answer for rdata in rrset]

    assert sorted(listed(message)) == sorted(listed(dns.message.from_wire(plain.to_wire())))
    # What dnspython knows of the question beyond its end may save it a few octets more.
    if not more:
        assert len(body.answer(0).records) <= len(plain.to_wire()) - 12 - len(name.to_wire()) - 4  # type: ignore[arg-type]


def test_sections() -> None:
    body = Body(ORIGIN)
    body.add(None, dns.rdataset.from_text("IN", "A", 60, "192.0.2.1", "192.0.2.2"), 60)
    body.add(ORIGIN, dns.rdataset.from_text("IN", "NS", 60, "ns1.example.com."), 60)
    message = asked(body, dns.name.from_text("www.example.com"), 2, 1)
    assert [len(rrset) for rrset in message.answer] == [2]
    assert message.authority[0].to_text().lower() == "example.com. 60 in ns ns1.example.com."
    assert message.flags & dns.flags.AA


@pytest.mark.parametrize("count", [1, 500, 900])
def test_pointers_do_not_lead_where_they_cannot(count: int) -> None:
    """A pointer has 14 bits: what lies farther is written out."""
    body = Body(ORIGIN)
    names = [dns.name.from_text(f"name{number}.elsewhere.example.net") for number in range(count)]
    for name in names:
        body.add_one(ORIGIN, dns.rdatatype.NS, 60, dns.rdataset.from_text("IN", "NS", 60, name.to_text())[0])
    assert all(target < 0x3FFF - 255 for _, target in body.answer(0).patches)
    message = asked(body, dns.name.from_text("x" * 60 + ".example.com"), count)
    assert {rdata.target for rdata in message.answer[0]} == set(names)


def test_an_answer_of_octets() -> None:
    body = Body(ORIGIN)
    body.add_one(None, 1, 60, bytes([192, 0, 2, 1]))
    answer = body.answer(1)
    assert answer == Answer(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 1]), 1)
