"""The compiled path against the ordinary one in random worlds: whatever both are asked, the same message or none."""

import random

import dns.message
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache._native.dnstable import Table
from edgecache.geodns.query import read
from edgecache.geodns.respond import Responder
from tests.geodns import worlds
from tests.geodns.worlds import COOKIES, NOW, PEERS, World


def listed(wire: bytes) -> object:
    """A message as a value: records in their order, names in any case but the question's."""
    message = dns.message.from_wire(wire)
    sections = [
        [(rrset.name, rrset.ttl, int(rrset.rdtype), rdata.to_digestable()) for rrset in section for rdata in rrset]
        for section in (message.answer, message.authority, message.additional)
    ]
    options = sorted((int(one.otype), one.to_wire()) for one in message.options)
    question = [(rrset.name.to_text(), int(rrset.rdtype)) for rrset in message.question]
    edns = (message.edns, message.ednsflags, message.payload)
    return message.id, int(message.flags), int(message.rcode()), question, sections, options, edns


def native(table: Table, packet: bytes, peer: bytes) -> tuple[bytes | None, bytes | None]:
    """Bounded and signed as the responder of dnsudp does it, and without a bound."""
    asked = read(packet)
    edns = asked.edns if asked is not None else None
    proven, cookie = False, b""
    if edns is not None and edns.cookie is not None:
        cookie, proven = COOKIES.reply(edns.cookie, peer, NOW)
    most = min(1232, max(512, edns.size if edns is not None else 512))
    most = most if proven else min(most, 3 * len(packet))
    return table.answer(packet, peer, cookie, most), table.answer(packet, peer, cookie)


def made(seed: int) -> tuple[random.Random, World, Responder]:
    rng = random.Random(seed)
    world = World(rng)
    return rng, world, Responder(world.zones, world.snapshot, cookies=COOKIES, clock=lambda: NOW)


def compare(ordinary: Responder, table: Table, packet: bytes, peer: bytes) -> bool:
    """Whether the compiled path answered; it has to be right then."""
    mine, whole = native(table, packet, peer)
    if mine is None or whole is None:
        return False
    other = ordinary.respond(packet, peer)
    assert other is not None, packet.hex()
    if mine[2] & 2 and not other[2] & 2:
        # Behind a wildcard the other one may save some octets: it knows the question's whole name, and so it fits.
        assert len(other) < len(whole), packet.hex()
        mine = whole
    assert listed(mine) == listed(other), packet.hex()
    return True


SEEDS = st.integers(0, (1 << 64) - 1)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_both_paths_give_the_same_answers(seed: int) -> None:
    rng, world, ordinary = made(seed)
    for _ in range(2):
        ordinary.snapshot = world.other_health(rng)
        table = world.table(ordinary.snapshot)
        for _ in range(60):
            compare(ordinary, table, worlds.question(rng), rng.choice(PEERS))


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_odd_packets_are_declined_or_answered_alike(seed: int) -> None:
    rng, world, ordinary = made(seed)
    table = world.table(ordinary.snapshot)
    for _ in range(200):
        compare(ordinary, table, worlds.damaged(rng, worlds.question(rng)), rng.choice(PEERS))


def test_most_of_what_is_plain_is_answered_here() -> None:
    """Else the comparison above would compare nothing."""
    asked = answered = 0
    for seed in range(30):
        rng, world, ordinary = made(seed)
        table = world.table(ordinary.snapshot)
        for _ in range(40):
            asked += 1
            answered += compare(ordinary, table, worlds.question(rng), rng.choice(PEERS))
    assert answered > 0.6 * asked
