"""PURE. Which PoPs a client is given, for how long, and why.

`choose` is the whole decision: an ordered list of PoPs, what is known of their health, and what the name asks for go
in; a value comes out, which the answer on the wire, the metrics and `--explain` all read. No clock, no socket,
nothing of DNS but the two types of address.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final, Literal, assert_never

from edgecache.geodns.mapping import PopList

A: Final = 1
AAAA: Final = 28
CLIENT_BITS_4: Final = 24
CLIENT_BITS_6: Final = 56
"""Clients of one such network are one client where weights decide: RFC 7871 §11.1 has resolvers send no more."""


class Reason(StrEnum):
    """Why these PoPs."""

    NEAREST = "nearest"
    NEXT = "next-nearest"
    """A nearer one is not usable, or full."""
    OVERRIDE = "override"
    DEFAULT = "default"
    """Nothing is known of the client."""
    ALL_DOWN_EVERY = "all-down-every"
    ALL_DOWN_NEAREST = "all-down-nearest"
    ALL_DOWN_FALLBACK = "all-down-fallback"
    NO_ADDRESS = "no-address"
    """The PoP has none of the type that was asked for."""


@dataclass(frozen=True, slots=True)
class Pop:
    """A PoP as answers need it."""

    name: str
    addresses_4: tuple[bytes, ...]
    addresses_6: tuple[bytes, ...]
    weight: float = 1.0
    share: float = 1.0
    """The part of the clients for whom it is the best that it is given; the others go to the next."""

    def addresses(self, kind: int) -> tuple[bytes, ...]:
        return self.addresses_4 if kind == A else self.addresses_6


@dataclass(frozen=True, slots=True)
class GeoName:
    """What a name that depends on the client asks for."""

    owner: bytes
    """In wire form and lower case."""
    pops: frozenset[int]
    """Those that serve it."""
    answers: int = 1
    """Addresses to return, at most."""
    ttl_s: int = 60
    min_ttl_s: int = 5
    all_down: Literal["every", "nearest"] | int = "every"
    """A number: this PoP."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of the PoPs' health at a moment."""

    epoch: int
    """Another value means another state."""
    usable: tuple[bool, ...]
    settled_s: tuple[float, ...]
    """For each PoP for how long its state stays as it is for certain, as far as checks decide it; infinite where
    only a person can change it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The decision."""

    pops: tuple[int, ...]
    """Whose addresses are returned, the best first."""
    addresses: tuple[bytes, ...]
    ttl_s: int
    reason: Reason
    by_client: bool = False
    """It depends on more than the list: other clients with the same list may get another answer."""
    passed: tuple[tuple[int, str], ...] = ()
    """Who would have come first and was not taken, and why: "down", "full"."""


def choose(order: PopList, name: GeoName, kind: int, pops: tuple[Pop, ...], health: Health, client: bytes) -> Choice:
    """`kind`: A or AAAA. `client`: its network, see `client_key`."""
    mine = [(pop, rank) for pop, rank in zip(order.pops, order.ranks, strict=True) if pop in name.pops]
    live = [(pop, rank) for pop, rank in mine if health.usable[pop]]
    if not live:
        return _all_down(mine, name, kind, pops, health)
    sorted_, full, hashed = _for_client(live, pops, client)
    taken, addresses = _take([pop for pop in sorted_ if pop not in full] + full, name.answers, kind, pops)
    said = sorted_[: max(map(sorted_.index, taken)) + 1] if taken else sorted_[:1]
    by_client = not hashed.isdisjoint(said)
    passed = [(pop, "down") for pop, rank in mine if not health.usable[pop] and rank <= _worst(live, taken)]
    passed += [(pop, "full") for pop in full if pop in said and pop not in taken]
    ttl_s = _ttl(name, health, [*said, *(pop for pop, _ in passed)])
    if not addresses:
        reason = Reason.NO_ADDRESS
    elif order.why == "default":
        reason = Reason.DEFAULT
    elif passed:
        reason = Reason.NEXT
    else:
        reason = Reason.NEAREST if order.why == "distance" else Reason.OVERRIDE
    return Choice(taken, addresses, ttl_s, reason, by_client, tuple(passed))


def _all_down(mine: list[tuple[int, int]], name: GeoName, kind: int, pops: tuple[Pop, ...], health: Health) -> Choice:
    """Nobody is usable: what the operator chose for that."""
    candidates = [pop for pop, _ in mine]
    number = name.answers
    match name.all_down:
        case "every":
            reason, number = Reason.ALL_DOWN_EVERY, 1 << 30
        case "nearest":
            reason = Reason.ALL_DOWN_NEAREST
        case int(fallback):
            reason, candidates = Reason.ALL_DOWN_FALLBACK, [fallback]
        case _:
            assert_never(name.all_down)
    taken, addresses = _take(candidates, number, kind, pops)
    passed = tuple((pop, "down") for pop, _ in mine)
    ttl_s = _ttl(name, health, [pop for pop, _ in mine])
    return Choice(taken, addresses, ttl_s, reason if addresses else Reason.NO_ADDRESS, passed=passed)


def _for_client(
    live: list[tuple[int, int]], pops: tuple[Pop, ...], client: bytes
) -> tuple[list[int], list[int], set[int]]:
    """In this client's order; who is full for it, and so comes last; and whose place depends on the client."""
    hashed = {pop for pop, _ in live if pops[pop].share < 1}
    order: list[int] = []
    at = 0
    while at < len(live):
        rank = live[at][1]
        end = at
        while end < len(live) and live[end][1] == rank:
            end += 1
        group = [pop for pop, _ in live[at:end]]
        if len(group) > 1:
            hashed.update(group)
            group.sort(key=lambda pop: _score(client, pops[pop]), reverse=True)
        order += group
        at = end
    full = [pop for pop in order if pops[pop].share < 1 and _unit(b"share", client, pops[pop]) >= pops[pop].share]
    if len(full) == len(order):  # if all are full, none is
        full = []
    return order, full, hashed


def _take(order: list[int], number: int, kind: int, pops: tuple[Pop, ...]) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """Addresses of the first, then of the next, until there are enough.

    Without an IPv6 address at the first PoP the answer for AAAA is empty: it is nearer by IPv4 than any other by IPv6.
    IPv4 is what every client can fall back on, so for A whoever has none is passed over.
    """
    taken: list[int] = []
    found: list[bytes] = []
    for pop in order:
        some = pops[pop].addresses(kind)
        if kind == AAAA and not some and not found and pops[pop].addresses_4:
            return (), ()
        if some:
            taken.append(pop)
            found += some[: number - len(found)]
        if len(found) >= number:
            break
    return tuple(taken), tuple(found)


def _worst(live: list[tuple[int, int]], taken: tuple[int, ...]) -> int:
    """The rank of the last one taken: who comes later had no say."""
    ranks = [rank for pop, rank in live if pop in taken]
    return max(ranks) if ranks else live[0][1]


def _ttl(name: GeoName, health: Health, said: list[int]) -> int:
    """As long as nothing that the answer depends on can change, within the name's bounds."""
    settled = min((health.settled_s[pop] for pop in said), default=math.inf)
    return max(name.min_ttl_s, min(name.ttl_s, math.floor(settled) if settled < name.ttl_s else name.ttl_s))


def _unit(what: bytes, client: bytes, pop: Pop) -> float:
    """A number in [0, 1) that is the same for this client and PoP for ever, on every server."""
    digest = blake2b(client, digest_size=8, key=pop.name.encode()[:64], person=what).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def _score(client: bytes, pop: Pop) -> float:
    """Weighted rendezvous hashing: a PoP that goes or comes moves only its own clients."""
    return pop.weight / -math.log(_unit(b"weight", client, pop) or 2.0**-54)


def client_key(version: int, address: int) -> bytes:
    """A client's network, as weights know it."""
    if version == 4:
        return b"4" + (address >> 32 - CLIENT_BITS_4).to_bytes(3, "big")
    return b"6" + (address >> 128 - CLIENT_BITS_6).to_bytes(7, "big")


def scope_of(version: int, found: int, choice: Choice) -> int:
    """The scope to send (RFC 7871 §7.2.1), given that of the list.

    Never 0: resolvers hand an answer of scope 0 to everybody, and this one is for some. Where the client's network
    decided too, its length is the least.
    """
    if choice.by_client:
        return max(found, CLIENT_BITS_4 if version == 4 else CLIENT_BITS_6)
    return max(found, 1)
