"""The in-flight table: one lease per key among processes, which ends by itself when its holder dies."""

import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache._native.arena import Arena
from edgecache._native.inflight import Leases


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def tables(count: int) -> list["Attached"]:
    """One process's view each; the slots are what tells processes apart."""
    arena = Arena(16 << 20, max_object=64 << 10)
    return [Attached(arena, slot) for slot in range(count)]


class Attached:
    """A `Leases` that attaches to its slot before each call, as its own process would have."""

    def __init__(self, arena: Arena, slot: int) -> None:
        self._arena = arena
        self._slot = slot
        self._leases = Leases(arena)

    def __getattr__(self, name):
        self._arena.attach(self._slot)
        return getattr(self._leases, name)

    def __len__(self) -> int:
        return len(self._leases)


def test_one_leads_and_the_others_are_told_to_wait():
    a, b, c = tables(3)
    token = a.acquire(key(7), 0, 0, 100.0, 30.0)
    assert token > 0
    assert b.acquire(key(7), 0, 0, 101.0, 30.0) == 0
    assert c.acquire(key(7), 0, 0, 102.0, 30.0) == 0
    assert c.acquire(key(8), 0, 0, 102.0, 30.0) > 0
    assert a.held(key(7), 103.0)
    assert a.release(key(7), token) == 0b110
    assert a.release(key(7), token) == 0
    assert not a.held(key(7), 103.0)
    assert b.acquire(key(7), 0, 0, 103.0, 30.0) > 0


def test_who_asks_whether_to_wait_takes_nothing():
    a, b, c = tables(3)
    token = a.acquire(key(7), 4, 4, 100.0, 30.0)
    assert not a.waits(key(7), 101.0), "it is its own"
    assert b.waits(key(7), 101.0)
    assert not b.waits(key(8), 101.0), "nobody's"
    assert not c.waits(key(7), 131.0), "its time is over"
    assert c.acquire(key(7), 4, 4, 101.0, 30.0) == 0, "and it is still held"
    assert a.release(key(7), token) == 0b110
    assert not b.waits(key(7), 101.0)
    assert len(a) == 0


def test_a_lease_from_before_a_purge_is_taken_over_and_its_end_wakes_nobody():
    a, b, c = tables(3)
    old = a.acquire(key(1), 4, 4, 100.0, 30.0)
    assert c.acquire(key(1), 4, 4, 100.0, 30.0) == 0
    new = b.acquire(key(1), 5, 5, 100.0, 30.0)
    assert new > 0
    assert a.release(key(1), old) == 0
    assert b.release(key(1), new) == 0b100, "who waited before the take-over is woken by its end"


def test_a_lease_whose_time_is_over_is_taken_over():
    a, b = tables(2)
    a.acquire(key(1), 0, 0, 100.0, 30.0)
    assert b.acquire(key(1), 0, 0, 129.9, 30.0) == 0
    assert b.acquire(key(1), 0, 0, 130.0, 30.0) > 0


def test_a_dead_process_gives_up_its_leases():
    a, b = tables(2)
    for number in range(5):
        a.acquire(key(number), 0, 0, 100.0, 30.0)
    assert b.acquire(key(3), 0, 0, 100.0, 30.0) == 0
    mine = b.acquire(key(9), 0, 0, 100.0, 30.0)
    assert b.release_process(0) == 0b10
    assert len(b) == 1
    assert b.acquire(key(3), 0, 0, 100.0, 30.0) > 0
    assert b.release(key(9), mine) == 0


def test_a_full_table_says_so_and_keeps_what_it_has():
    (a,) = tables(1)
    tokens = {}
    full = 0
    for number in range(100_000):
        token = a.acquire(key(number), 0, 0, 100.0, 30.0)
        if token == -1:
            full += 1
        else:
            tokens[number] = token
    assert full > 0
    assert len(a) == len(tokens) > 0
    for number, token in tokens.items():
        a.release(key(number), token)
    assert len(a) == 0


@pytest.mark.parametrize("wrong", [b"", b"x" * 15, b"x" * 17])
def test_a_key_has_16_octets(wrong):
    (a,) = tables(1)
    with pytest.raises(ValueError, match="16 octets"):
        a.acquire(wrong, 0, 0, 0.0, 1.0)


def test_a_process_that_dies_inside_leaves_an_empty_table_that_works():
    arena = Arena(16 << 20, max_object=64 << 10)
    arena.attach(0)
    leases = Leases(arena)
    assert leases.acquire(key(1), 0, 0, 100.0, 30.0) > 0
    child = os.fork()
    if child == 0:
        Leases(arena)._die_inside()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert leases.acquire(key(2), 0, 0, 100.0, 30.0) > 0
    assert len(leases) == 1


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["acquire", "release", "die"]), st.integers(0, 3), st.integers(0, 5), st.integers(0, 2)),
    max_size=60,
)


@given(ACTIONS)
@settings(max_examples=150, deadline=None)
def test_against_a_plain_model(actions):
    """key -> (holder, fill_seq, until, waiters), as a dictionary."""
    procs = tables(4)
    model: dict[int, dict] = {}
    tokens: dict[tuple[int, int], int] = {}
    now = 0.0
    for action, who, number, sequence in actions:
        now += 1.0
        if action == "acquire":
            entry = model.get(number)
            got = procs[who].acquire(key(number), sequence, sequence, now, 10.0)
            waits = entry and entry["until"] > now and entry["seq"] >= sequence and entry["holder"] != who
            if waits:
                assert got == 0
                entry["waiters"].add(who)
            else:
                assert got > 0
                waiters = entry["waiters"] if entry else set()
                model[number] = {"holder": who, "seq": sequence, "until": now + 10.0, "waiters": waiters, "token": got}
                tokens[who, number] = got
        elif action == "release":
            token = tokens.get((who, number), 1)
            entry = model.get(number)
            mask = procs[who].release(key(number), token)
            if entry and entry["token"] == token:
                assert mask == sum(1 << waiter for waiter in entry["waiters"])
                del model[number]
            else:
                assert mask == 0
        else:
            gone = [number for number, entry in model.items() if entry["holder"] == who]
            mask = procs[0].release_process(who)
            assert mask == sum(1 << w for w in set().union(*(model[number]["waiters"] for number in gone)))
            for number in gone:
                del model[number]
        assert len(procs[0]) == len(model)
