"""Choosing among PoPs: weights, shares, health, time to live, and what is done when nobody is left."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.geodns.answer import (
    AAAA,
    A,
    Choice,
    GeoName,
    Health,
    Pop,
    Reason,
    choose,
    client_key,
    scope_of,
)
from edgecache.geodns.mapping import PopList

FOUR = tuple(Pop(name, (bytes((192, 0, 2, k)),), (bytes(15) + bytes((k,)),)) for k, name in enumerate("abcd"))
LIST = PopList((0, 1, 2, 3), (0, 1, 2, 3))
TIED = PopList((0, 1, 2, 3), (0, 0, 0, 1))


def health(*down: int, settled: float = math.inf) -> Health:
    return Health(0, tuple(k not in down for k in range(4)), (settled,) * 4)


def name(**more: object) -> GeoName:
    return GeoName(b"\1x\0", frozenset(range(4)), **more)  # type: ignore[arg-type]


def chosen(
    order: PopList = LIST, *down: int, kind: int = A, pops: tuple[Pop, ...] = FOUR, client: bytes = b"", **more: object
) -> Choice:
    return choose(order, name(**more), kind, pops, health(*down), client)


@pytest.mark.parametrize(
    ("order", "down", "more", "pops", "reason"),
    [
        pytest.param(LIST, (), {}, (0,), Reason.NEAREST, id="nearest"),
        pytest.param(LIST, (), {"answers": 3}, (0, 1, 2), Reason.NEAREST, id="three"),
        pytest.param(LIST, (), {"answers": 16}, (0, 1, 2, 3), Reason.NEAREST, id="all-there-are"),
        pytest.param(LIST, (0,), {}, (1,), Reason.NEXT, id="nearest-down"),
        pytest.param(LIST, (1,), {}, (0,), Reason.NEAREST, id="another-down"),
        pytest.param(LIST, (1,), {"answers": 2}, (0, 2), Reason.NEXT, id="second-down"),
        pytest.param(LIST._replace(why="country:DE"), (), {}, (0,), Reason.OVERRIDE, id="override"),
        pytest.param(LIST._replace(why="default"), (0,), {}, (1,), Reason.DEFAULT, id="default"),
        pytest.param(LIST, (0, 1, 2, 3), {}, (0, 1, 2, 3), Reason.ALL_DOWN_EVERY, id="every"),
        pytest.param(LIST, (0, 1, 2, 3), {"all_down": "nearest"}, (0,), Reason.ALL_DOWN_NEAREST, id="the-nearest"),
        pytest.param(LIST, (0, 1, 2, 3), {"all_down": 3}, (3,), Reason.ALL_DOWN_FALLBACK, id="fallback"),
        pytest.param(PopList((), ()), (), {"all_down": 3}, (3,), Reason.ALL_DOWN_FALLBACK, id="nobody-serves-it"),
    ],
)
def test_choices(
    order: PopList, down: tuple[int, ...], more: dict[str, object], pops: tuple[int, ...], reason: Reason
) -> None:
    choice = chosen(order, *down, **more)
    assert (choice.pops, choice.reason) == (pops, reason)
    assert choice.addresses == tuple(FOUR[pop].addresses_4[0] for pop in pops)
    assert not choice.by_client


def test_without_ipv6_at_the_nearest_there_is_no_answer_for_aaaa() -> None:
    pops = (Pop("a", FOUR[0].addresses_4, ()), *FOUR[1:])
    assert chosen(kind=AAAA, pops=pops).reason is Reason.NO_ADDRESS
    assert chosen(LIST, 0, kind=AAAA, pops=pops).pops == (1,)


def test_without_ipv4_a_pop_is_passed_over() -> None:
    pops = (Pop("a", (), FOUR[0].addresses_6), *FOUR[1:])
    assert chosen(pops=pops).pops == (1,)
    assert chosen(kind=AAAA, pops=pops).pops == (0,)


def clients(number: int = 4000) -> list[bytes]:
    return [client_key(4, k << 8) for k in range(number)]


def test_weights_are_kept_and_stable() -> None:
    pops = (FOUR[0], Pop("b", FOUR[1].addresses_4, (), weight=3.0), FOUR[2], FOUR[3])
    before = {client: chosen(TIED, pops=pops, client=client) for client in clients()}
    parts = Counter(choice.pops[0] for choice in before.values())
    assert parts[0] == pytest.approx(800, rel=0.15)
    assert parts[1] == pytest.approx(2400, rel=0.1)
    assert parts[3] == 0
    assert all(choice.by_client for choice in before.values())
    after = {client: chosen(TIED, 0, pops=pops, client=client).pops[0] for client in clients()}
    assert all(after[client] == choice.pops[0] for client, choice in before.items() if choice.pops[0] != 0)


def test_a_share_of_the_clients_goes_to_the_next() -> None:
    pops = (Pop("a", FOUR[0].addresses_4, (), share=0.25), *FOUR[1:])
    found = [chosen(pops=pops, client=client) for client in clients()]
    parts = Counter(choice.pops[0] for choice in found)
    assert parts[0] == pytest.approx(1000, rel=0.15)
    assert parts[0] + parts[1] == len(found)
    assert all(choice.by_client for choice in found)
    assert {choice.reason for choice in found if choice.pops[0] == 1} == {Reason.NEXT}
    assert not chosen(PopList((1, 0), (0, 1)), pops=pops, client=b"x").by_client, "it had no say"
    assert chosen(PopList((0,), (0,)), pops=pops, client=b"x").pops == (0,), "better full than nobody"


@pytest.mark.parametrize(("settled", "ttl"), [(math.inf, 60), (120.0, 60), (30.9, 30), (5.0, 5), (1.0, 5), (0.0, 5)])
def test_no_answer_outlives_the_next_change(settled: float, ttl: int) -> None:
    state = Health(0, (True,) * 4, (settled, math.inf, math.inf, math.inf))
    assert choose(LIST, name(), A, FOUR, state, b"").ttl_s == ttl


def test_only_those_who_had_a_say_shorten_it() -> None:
    later = Health(0, (True, True, True, True), (math.inf, 10.0, 10.0, 10.0))
    assert choose(LIST, name(), A, FOUR, later, b"").ttl_s == 60
    assert choose(LIST, name(answers=2), A, FOUR, later, b"").ttl_s == 10
    returning = Health(0, (False, True, True, True), (7.0, math.inf, math.inf, math.inf))
    assert choose(LIST, name(), A, FOUR, returning, b"").ttl_s == 7


@given(
    st.permutations(range(4)),
    st.lists(st.integers(0, 2), min_size=4, max_size=4).map(sorted),
    st.sets(st.integers(0, 3)),
    st.integers(1, 5),
    st.binary(min_size=4, max_size=4),
)
def test_what_always_holds(pops: list[int], ranks: list[int], down: set[int], answers: int, client: bytes) -> None:
    order = PopList(tuple(pops), tuple(ranks))
    choice = chosen(order, *down, client=client, answers=answers)
    rank = dict(zip(pops, ranks, strict=True))
    assert len(set(choice.pops)) == len(choice.pops)
    if len(down) == 4:
        assert set(choice.pops) == set(pops)
        return
    assert len(choice.pops) == min(answers, 4 - len(down))
    assert down.isdisjoint(choice.pops)
    assert [rank[pop] for pop in choice.pops] == sorted(rank[pop] for pop in choice.pops)
    left = set(pops) - down - set(choice.pops)
    assert all(rank[pop] >= rank[choice.pops[-1]] for pop in left)
    other = chosen(order, *down, client=b"other", answers=answers)
    assert choice.by_client or other.pops == choice.pops


@pytest.mark.parametrize(
    ("version", "found", "by_client", "scope"),
    [(4, 0, False, 1), (4, 20, False, 20), (4, 20, True, 24), (4, 30, True, 30), (6, 32, True, 56), (6, 0, False, 1)],
)
def test_scopes(version: int, found: int, by_client: bool, scope: int) -> None:
    assert scope_of(version, found, Choice((), (), 0, Reason.NEAREST, by_client)) == scope
