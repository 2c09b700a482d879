"""The compiled path beside the ordinary one: the same packets get the same answers, or none from the first."""

from pathlib import Path

import dns.edns
import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.geodns.world import RESOLVER, World, make

NAMES = ["z.example", "www", "txt", "caa", "mail", "alias", "away", "nowhere", "loop", "deep.ent", "ent", "x.wild"]
NAMES += ["wild", "x.y.wild", "sub", "a.sub", "ns1", "ns1.sub", "big", "x.geo", "geo", "one", "near", "missing"]
NAMES += ["a.missing", "*.wild", "other", "q.other", "elsewhere"]
KINDS = ["A", "AAAA", "TXT", "NS", "SOA", "CNAME", "MX", "CAA", "ANY", "TYPE65280", "DS", "AXFR", "HINFO", "PTR"]
SUBNETS = [
    "192.0.2.0/24",
    "192.0.0.0/15",
    "198.51.100.128/25",
    "203.0.113.7/32",
    "2001:db8:1::/56",
    "8.8.8.0/24",
    "0.0.0.0/0",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("geodns"))


def full(name: str) -> str:
    return name if name == "z.example" else "nothing.of.ours" if name == "elsewhere" else f"{name}.z.example"


def cased(text: str, bits: int) -> str:
    return "".join(c.upper() if bits >> (k % 24) & 1 else c for k, c in enumerate(text))


@settings(max_examples=400, deadline=None)
@given(
    name=st.builds(cased, st.sampled_from(NAMES).map(full), st.integers(0, (1 << 24) - 1)),
    kind=st.sampled_from(KINDS),
    client=st.none() | st.sampled_from(SUBNETS),
    resolver=st.sampled_from([RESOLVER, bytes((192, 0, 2, 1)), bytes.fromhex("20010db8000200000000000000000001")]),
    edns=st.sampled_from([-1, 0]),
    dnssec=st.booleans(),
    down=st.sets(st.sampled_from(["fra", "nyc", "nyc-b", "sin"])),
)
def test_both_paths_answer_alike(
    world: World, name: str, kind: str, client: str | None, resolver: bytes, edns: int, dnssec: bool, down: set[str]
) -> None:
    snapshot = world.with_health(*down, settled_s=33.0)
    world.responder.snapshot = snapshot
    packet = make(name, kind, client=client, use_edns=edns, want_dnssec=dnssec).to_wire()
    fast = world.table(snapshot).answer(packet, resolver, most=4096)
    slow = world.responder.respond(packet, resolver, tcp=True)
    assert slow is not None
    if fast is None:
        return
    one, other = dns.message.from_wire(fast), dns.message.from_wire(slow)
    # A name that ends in the zone's takes its case from the question, where it is compressed.
    assert sorted(str(rrset).lower() for rrset in one.answer) == sorted(str(rrset).lower() for rrset in other.answer)
    if one.answer and one.answer[0].rdtype in (1, 28):
        assert [str(rdata) for rdata in one.answer[0]] == [str(rdata) for rdata in other.answer[0]]
    assert [str(rrset).lower() for rrset in one.authority] == [str(rrset).lower() for rrset in other.authority]
    assert sorted(map(str, one.additional)) == sorted(map(str, other.additional))
    assert (one.id, one.flags, one.rcode(), one.edns, one.ednsflags, one.payload) == (
        other.id, other.flags, other.rcode(), other.edns, other.ednsflags, other.payload
    )  # fmt: skip
    assert [option.to_wire() for option in one.options] == [option.to_wire() for option in other.options]
    assert fast[12 : 12 + len(packet)][: len(name)] == slow[12:][: len(name)], "the case of the question"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[(name, kind) for name in ("www", "x.geo", "near") for kind in ("A", "AAAA")],
        *[
            ("one", "A"),
            ("txt", "TXT"),
            ("txt", "A"),
            ("missing", "A"),
            ("away", "A"),
            ("z.example", "SOA"),
            ("www", "ANY"),
        ],
    ],
)
def test_the_common_query_is_for_the_compiled_path(world: World, name: str, kind: str) -> None:
    packet = make(full(name), kind, client="192.0.2.0/24").to_wire()
    assert world.table().answer(packet, RESOLVER) is not None


def test_what_is_counted(world: World, tmp_path: Path) -> None:
    table = world.table()
    for subnet in ("192.0.2.0/24", "192.0.2.0/24", "8.8.8.0/24"):
        table.answer(make("one.z.example", client=subnet).to_wire(), RESOLVER)
    counts = table.counts()
    layout = world.tally.layout
    assert counts[layout.country("DE")] == 2
    assert counts[layout.pop("fra")] >= 2
    assert counts[layout.country("")] == 1
