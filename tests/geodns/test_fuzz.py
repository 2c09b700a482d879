"""Any packet gets an answer that the RFCs allow, or silence: never an exception, never three times its size."""

import os
import struct

import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache._native.dnstable import Table
from tests.geodns.world import RESOLVER, World, make

EXAMPLES = 1_000_000 if os.environ.get("EDGECACHE_LONG") else 10_000 if os.environ.get("CI") else 1500

BASES = [
    make("www.z.example", client="192.0.2.0/24").to_wire(),
    make("big.z.example", "TXT", use_edns=0, payload=4096).to_wire(),
    make("alias.z.example", "AAAA").to_wire(),
    make("a.sub.z.example", "ANY", use_edns=0, want_dnssec=True).to_wire(),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("geodns"))


@pytest.fixture(scope="module")
def table(world: World) -> Table:
    return world.table()


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Noise, and queries with some of it."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=80))
    if kind == 1:
        header = struct.pack(">6H", draw(st.integers(0, 65535)), draw(st.sampled_from([0, 0x100, 0x2800])), *draw(
            st.tuples(*[st.integers(0, 2)] * 4)
        ))  # fmt: skip
        return header + draw(st.binary(max_size=60))
    wire = bytearray(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(0, 3))):
        wire[draw(st.integers(0, len(wire) - 1))] = draw(st.integers(0, 255))
    if kind == 3:
        at = draw(st.integers(0, len(wire)))
        wire[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=6))
    return bytes(wire)


@pytest.mark.timeout(EXAMPLES / 20 + 120)
@settings(max_examples=EXAMPLES, deadline=None)
@given(packet=packets())
def test_any_packet(world: World, table: Table, packet: bytes) -> None:
    answer = world.responder.respond(packet, RESOLVER)
    if len(packet) < 12 or packet[2] & 0x80:
        assert answer is None
        return
    assert answer is not None
    assert len(answer) <= max(12, 3 * len(packet))
    check(packet, answer)
    fast = table.answer(packet, RESOLVER)
    if fast is not None:
        check(packet, fast)


def check(packet: bytes, answer: bytes) -> None:
    """The header, and that a strict reader can read it all."""
    assert answer[:2] == packet[:2]
    assert answer[2] & 0xF9 == 0x80 | packet[2] & 0x79
    assert answer[3] & 0xF0 == 0
    rcode = answer[3] & 15
    assert rcode in (0, 1, 3, 4, 5), "never SERVFAIL"
    questions, answers, authority, _ = struct.unpack_from(">4H", answer, 4)
    if questions:
        assert questions == 1
        end = answer.index(b"\0", 12)
        assert answer[12:end] == packet[12:end]
    if rcode not in (0, 3):
        assert answers == authority == 0
    subnet_of_no_family = b"\0\x08\0\x04\0\0\0\0"  # dnspython reads families 1 and 2 only
    if subnet_of_no_family not in answer:
        dns.message.from_wire(answer, ignore_trailing=False)
