"""Tagged content changed and purged under load. A body says its version, so nothing outdated can hide.

The director publishes a version at the origin, purges the key and, when that has returned, raises the key's floor on
the board. A client reads the floor *before* it asks: what it gets must not be older.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loadtests.kit.content import octets, size_of, version_in
from loadtests.kit.profile import Check, Profile, Run, nothing_wrong
from loadtests.kit.tally import Tally

if TYPE_CHECKING:
    from loadtests.kit.client import Client

TAGS = 200
"""Surrogate keys, each on several objects."""
EACH = 5


def ask(client: Client) -> None:
    chance = random.Random(client.next())
    key = min(int(chance.expovariate(6 / TAGS)), TAGS - 1)
    number = key + 4096 * chance.randrange(EACH)
    size = max(size_of(number), 16)
    floor = client.board.floor(key)
    answer = client.get(f"/v/{number}-{size}", name="purge_storm")
    if not answer.status:
        return
    version = version_in(answer.body)
    whole = version is not None and answer.status == 200 and answer.body[16:] == octets(number, 16, size)
    client.check(whole, f"{answer.status} and {len(answer.body)} octets for object {number} of {size}")
    if version is not None and version < floor:
        client.tally.count(answer.at, "outdated")
        client.tally.note(f"version {version} of key {key}, although the purge for {floor} had returned")
    if floor:
        client.tally.count(answer.at, "checked")


def direct(run: Run) -> None:
    chance = random.Random(run.plan["seed"])
    while run.left() > 0:
        keys = {min(int(chance.expovariate(6 / TAGS)), TAGS - 1) for _ in range(chance.choice((1, 1, 1, 5, 20)))}
        versions = {key: run.board.publish(key) for key in keys}
        run.purge(keys=[f"key-{key}" for key in keys], soft=False)
        for key, version in versions.items():
            run.board.purged(key, version)
        run.facts["keys purged"] = run.facts.get("keys purged", 0) + len(keys)
        run.sleep(chance.random() * 0.06)


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    yield from nothing_wrong(seen)
    outdated, checked = seen.total("outdated"), seen.total("checked")
    said = next((note for note in seen.notes if note.startswith("version")), "")
    took = sorted(seconds for _, seconds in run.purges)
    if took:
        run.facts["a purge took, p50 and p99"] = (
            f"{took[len(took) // 2] * 1000:.1f} and {took[len(took) * 99 // 100] * 1000:.1f} ms"
        )
    yield Check(
        outdated == 0,
        f"{len(run.purges)} purges of {run.facts.get('keys purged', 0)} keys; none of {checked} bodies was older than "
        "a purge that had returned",
        f"{outdated} of {checked} bodies were older than a purge that had returned: {said}",
    )
    yield Check(
        len(run.purges) > 0 and checked > 0 and seen.total("hits") > 0,
        f"{seen.total('hits')} of the answers were hits",
        "nothing was purged, checked or hit: the run says nothing",
    )


PROFILE = Profile(
    name="purge_storm",
    title="no body is older than a purge that had returned",
    ask=ask,
    direct=direct,
    judge=judge,
    config={"memory": {"size": "64MiB"}},
    users=40,
    seconds=30,
)
