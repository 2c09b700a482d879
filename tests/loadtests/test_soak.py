"""What a long run is judged by: each of its checks can break, and says which."""

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loadtests.kit.processes import Process
from loadtests.kit.profile import Run, Sample
from loadtests.kit.rest import Held, Rest, clients_of, kinds_of, more_than, role
from loadtests.kit.tally import Tally
from loadtests.profiles.soakjudge import judge

SECONDS = 1000
NAMES = ("edgecache", "edgecache-ctl", "edgecache-w0", "edgecache-w1")
MIB = 1 << 20


def process(name: str, *, pid: int = 0, rss: int = 50 * MIB, threads: int = 1) -> Process:
    return Process(pid or NAMES.index(name) + 1, name, rss, 20, threads)


def rest(**changes: Any) -> Rest:
    stats = {
        "connections": 0,
        "fills": 0,
        "tasks": 16,
        "memory": {"pins": 0},
        "requests": {"total": 0, "by_outcome": {"hit": 0, "stale": 0, "revalidated": 0, "collapsed": 0}},
        "bytes": {"sent": 0},
        "purges": {"sequence": 1},
        "processes": {"died": 0, "configuration": 1},
    }
    return Rest(
        deepcopy(stats) | changes,
        tuple(Held(process(name), Counter({"socket": 4, "pipe": 5}), Counter({"cache.db": 1}), 3) for name in NAMES),
    )


def run() -> tuple[Run, Tally]:
    """One that keeps its promise: 100 requests, 60 hits, 9 purges, one reload, one killed worker."""
    last = rest(
        requests={"total": 100, "by_outcome": {"hit": 50, "stale": 4, "revalidated": 3, "collapsed": 3}},
        bytes={"sent": 5_000},
        purges={"sequence": 11},
        processes={"died": 1, "configuration": 2},
    )
    made = SimpleNamespace(
        began=0.0,
        ends=float(SECONDS),
        plan={"users": 30, "seconds": SECONDS},
        purges=[(0.0, 0.0)] * 9,
        samples=[Sample(at + 0.5, {}, tuple(map(process, NAMES)), 0) for at in range(SECONDS)],
        facts={
            "first": rest(),
            "last": last,
            "events": {"reload": 1, "kill": 1, "origin": 1},
            "purges without an answer": 0,
            "connections of killed workers": 2,
            "troubles": [(500.0, 503.0)],
        },
        table=[],
    )
    made.tabulate = lambda *cells: made.table.append(cells)
    seen = Tally()
    for name, amount in (("requests", 100), ("octets", 5_000), ("hits", 60)):
        seen.count(1.0, name, amount)
    return cast("Run", made), seen


def broken(made: Run, seen: Tally) -> list[str]:
    return [str(check) for check in judge(made, seen) if not check.holds]


def test_a_promise_that_is_kept_has_a_table() -> None:
    made, seen = run()
    assert broken(made, seen) == []
    assert {len(row) for row in made.table} == {5}
    assert ("requests: counted by the edge, by the clients", "100", "100", "+0", "2") in made.table


def grow(name: str, since: int, share: float) -> Callable[[Run, Tally], None]:
    def change(made: Run, _: Tally) -> None:
        made.samples[since:] = [
            Sample(
                sample.at,
                {},
                tuple(process(n, rss=int(50 * MIB * (share if n == name else 1))) for n in NAMES),
                0,
            )
            for sample in made.samples[since:]
        ]

    return change


def hold(kind: str) -> Callable[[Run, Tally], None]:
    return lambda made, _: made.facts["last"].held[2].kinds.update([kind])


def connect(made: Run, _: Tally) -> None:
    made.facts["last"].held[1].databases["purges.db"] += 2


def multiply(made: Run, _: Tally) -> None:
    made.samples[300] = Sample(300.5, {}, (process("edgecache-w1", threads=40),), 0)


def counted(name: str, amount: int, at: float = 1.0) -> Callable[[Run, Tally], None]:
    return lambda _, seen: seen.count(at, name, amount)


def stats(key: str, value: Any) -> Callable[[Run, Tally], None]:
    return lambda made, _: made.facts["last"].stats.__setitem__(key, value)


CASES: list[tuple[str, Callable[[Run, Tally], None], str]] = [
    ("supervisor", grow("edgecache", 750, 1.04), "supervisor grew: 50.0 MiB"),
    ("control process", grow("edgecache-ctl", 750, 1.04), "control process grew"),
    ("one of the last", grow("edgecache-w1", 850, 1.04), "the same worker (edgecache-w1) over its last"),
    ("socket", hold("socket"), "edgecache-w0 has 5 of socket instead of 4"),
    ("file", hold("/x/disk/12/34"), "edgecache-w0 has 1 of /x/disk/12/34 instead of 0"),
    ("database", connect, "edgecache-ctl has 2 connections to purges.db for 1 threads"),
    ("threads", multiply, "worker had 40 threads"),
    ("tasks", stats("tasks", 17), "17 tasks instead of 16"),
    ("fills", stats("fills", 1), "1 fetches and 0 pins are left"),
    ("pins", stats("memory", {"pins": 3}), "0 fetches and 3 pins are left"),
    ("requests", counted("requests", 3), "requests: the edge counted 100, the clients 103"),
    ("hits", counted("hits", -3), "hits: the edge counted 60, the clients 57"),
    ("octets", counted("octets", 400_001), "octets: the edge counted 5,000"),
    ("purges", stats("purges", {"sequence": 10}), "purges: the edge counted 9, the clients 10"),
    ("deaths", stats("processes", {"died": 2, "configuration": 2}), "processes that died: the edge counted 2"),
    ("reloads", stats("processes", {"died": 1, "configuration": 1}), "reloads: the edge counted 0"),
    ("lost in calm", counted("lost", 1, 700.0), "1 of 1 requests left without an answer when nothing had been killed"),
    ("too many lost", counted("lost", 40, 501.0), "40 requests were lost"),
    ("refused", counted("refused", 1, 501.0), "1 connections were refused"),
    ("5xx in calm", counted("5xx", 2, 700.0), "2 of 2 requests answered 5xx"),
    ("outdated", counted("outdated", 1), "outdated answers"),
    ("wrong", counted("wrong", 1), "1 answers were wrong"),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_promise_that_is_broken_says_so(change: Callable[[Run, Tally], None], said: str) -> None:
    made, seen = run()
    change(made, seen)
    assert any(said in text for text in broken(made, seen)), broken(made, seen)


@pytest.mark.parametrize("name", ["lost", "5xx"])
def test_what_happens_while_something_is_killed_is_excused(name: str) -> None:
    made, seen = run()
    seen.count(502.0, name)
    assert broken(made, seen) == []


def test_a_run_that_ended_early_shows_nothing() -> None:
    made, seen = run()
    del made.samples[740:]
    assert "worker: the run ended before its memory could be compared" in broken(made, seen)


def test_more_processes_than_before_are_told() -> None:
    first, last = rest(), rest()
    assert more_than(last, first) == []
    assert more_than(Rest(last.stats, (*last.held, last.held[3])), first) == ["5 processes instead of 4"]


def test_descriptors_are_told_apart() -> None:
    links = ["socket:[1]", "socket:[22]", "pipe:[3]", "anon_inode:[eventfd]", "/d/cache.db", "/d/cache.db-wal"]
    kinds, databases, files = kinds_of([*links, "/d/cache.db-shm", "/d/cache.db", "/d/lock.node", "/d/cache.db.bak"])
    assert kinds == {"socket": 2, "pipe": 1, "anon_inode:[eventfd]": 1, "/d/lock.node": 1, "/d/cache.db.bak": 1}
    assert databases == {"cache.db": 2}
    assert files == 4


@pytest.mark.parametrize(
    ("name", "known"),
    [("edgecache", "supervisor"), ("edgecache-ctl", "control process"), ("edgecache-w11", "worker")],
)
def test_processes_are_known_by_their_names(name: str, known: str) -> None:
    assert role(name) == known


def test_connections_of_clients_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door, contextlib.ExitStack() as open_:
        port = door.getsockname()[1]
        assert clients_of(os.getpid(), port) == 0
        for _ in range(3):
            open_.enter_context(socket.create_connection(("127.0.0.1", port)))
            open_.enter_context(door.accept()[0])
        assert clients_of(os.getpid(), port) == 3
