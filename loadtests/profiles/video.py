"""Seeking in large files: ranges anywhere in them, many at once. Every range is computed and compared."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loadtests.kit.content import octets
from loadtests.kit.profile import Check, Profile, Run, nothing_wrong
from loadtests.kit.tally import Tally

if TYPE_CHECKING:
    from loadtests.kit.client import Client

FILMS = 6
SIZE = 200 << 20
LONGEST = 1 << 20
GROWTH_BYTES = 160 << 20
"""What all processes may grow by over their size after start, beside shared memory: responses on their way
(memory.fills is 64 MiB for each of two workers) and buffers of connections. The films have 1200 MiB."""


def ask(client: Client) -> None:
    chance = random.Random(client.next())
    memory = client.memory
    if "at" not in memory or chance.random() < 0.3:  # another place, perhaps in another film
        memory["film"] = chance.randrange(FILMS)
        memory["at"] = chance.randrange(SIZE)
    number, begin = memory["film"], memory["at"]
    end = min(begin + chance.randrange(1, LONGEST), SIZE)
    answer = client.get(
        f"/film/{number}-{SIZE}",
        name="range",
        headers={"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"},
    )
    memory["at"] = end if end < SIZE else 0
    if not answer.status:
        return
    right = (
        answer.status == 206
        and answer.fields.get("content-range") == f"bytes {begin}-{end - 1}/{SIZE}"
        and answer.body == octets(number, begin, end)
    )
    client.check(right, f"{answer.status} with {len(answer.body)} octets for {begin}-{end - 1} of film {number}")
    client.tally.count(answer.at, "ranges")


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    yield from nothing_wrong(seen)
    ranges = seen.total("ranges")
    yield Check(
        ranges > 0 and seen.total("wrong") == 0,
        f"{ranges} ranges, {seen.total('octets') / (1 << 20):.0f} MiB, each octet compared",
        "ranges were wrong",
    )
    run.facts["ranges answered without the origin"] = f"{seen.total('hits') / max(ranges, 1):.1%}"
    first = run.samples[0].own_bytes if run.samples else 0
    most = max((sample.own_bytes for sample in run.samples), default=0)
    yield Check(
        most - first <= GROWTH_BYTES,
        f"all processes grew by {(most - first) / (1 << 20):.0f} MiB over their start, beside shared memory",
        f"the processes grew by {(most - first) / (1 << 20):.0f} MiB; {GROWTH_BYTES >> 20} MiB is the bound",
    )


PROFILE = Profile(
    name="video",
    title="range seeking in large files: the right octets, in bounded memory",
    ask=ask,
    judge=judge,
    config={"memory": {"size": "256MiB"}, "disk": {"size": "1GiB"}},
    users=20,
    seconds=30,
    disk=True,
)
