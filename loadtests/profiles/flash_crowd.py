"""One cold object, then everybody: each round names an object that nobody has asked for, and all users ask at once,
or while its head and then its body come. Like most objects it has a Vary field, by which all clients select the same.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import gevent

from loadtests.kit.board import Cell
from loadtests.kit.content import octets
from loadtests.kit.profile import Check, Profile, Run, nothing_wrong
from loadtests.kit.tally import Tally

if TYPE_CHECKING:
    from loadtests.kit.client import Client

SIZE = 50_000
EVERY_S = 3.0
SPREAD_S = 0.9
"""Of every second crowd: a little longer than the object takes to come."""
CROWD = 0.9
"""Of the clients have to be there."""


def ask(client: Client) -> None:
    number = client.board[Cell.ROUND]
    if number == client.memory.get("round", 0):
        gevent.sleep(0.01)
        return
    client.memory["round"] = number
    if number % 2 == 0:
        gevent.sleep(random.uniform(0, SPREAD_S))
    answer = client.get(f"/cold/{number}-{SIZE}", name="crowd")
    client.tally.count(answer.at, f"round {number}")
    if answer.status:
        right = answer.status == 200 and answer.body == octets(number, 0, SIZE)
        client.check(right, f"{answer.status} and {len(answer.body)} octets for round {number}")


def direct(run: Run) -> None:
    time.sleep(2.0)  # until all users are there
    number = 0
    while run.left() > EVERY_S:
        number += 1
        run.board[Cell.ROUND] = number
        run.mark(f"round {number}")
        run.sleep(EVERY_S)
    run.facts["rounds"] = number


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    yield from nothing_wrong(seen)
    rounds = range(1, run.facts["rounds"] + 1)
    fetched = Counter(path for _, path in run.origin.asked())
    counts = [fetched[f"/cold/{number}-{SIZE}"] for number in rounds]
    crowd = [seen.total(f"round {number}") for number in rounds]
    yield Check(
        bool(counts) and set(counts) == {1},
        f"{len(counts)} objects, each asked for by {min(crowd, default=0)} to {max(crowd, default=0)} clients at once, "
        "were fetched exactly once each",
        f"fetches for each object of the crowd were {counts}, and exactly 1 is promised",
    )
    users = run.plan["users"]
    yield Check(
        min(crowd, default=0) >= users * CROWD,
        f"of {users} clients at least {min(crowd, default=0)} asked for each object",
        f"an object was asked for by {min(crowd, default=0)} of {users} clients: that is no crowd",
    )


PROFILE = Profile(
    name="flash_crowd",
    title="one cold object, then everybody: exactly one origin fetch",
    ask=ask,
    direct=direct,
    judge=judge,
    users=500,
    seconds=25,
)
