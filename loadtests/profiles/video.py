"""Seeking in large files: ranges anywhere in them, many at once. Every range is computed and compared.

The films are larger than memory takes, so they lie on disk in slices, and do not all fit there: slices are evicted and
fetched again. A part of the seeks goes to a border between two slices.
"""

from __future__ import annotations

import json
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
SLICE = 4 << 20
"""The edge's `cache.slice`."""
LONGEST = 1 << 20
GROWTH_BYTES = 64 << 20
"""What all processes may grow by over their size after start, beside shared memory: slices on their way, buffers of
connections, what is known of the disk. The films have 1200 MiB."""


def ask(client: Client) -> None:
    chance = random.Random(client.next())
    memory = client.memory
    if "at" not in memory or chance.random() < 0.3:  # another place, perhaps in another film
        memory["film"] = chance.randrange(FILMS)
        memory["at"] = chance.randrange(SIZE)
        if chance.random() < 0.3:
            memory["at"] = max(SLICE, memory["at"] // SLICE * SLICE) - chance.randrange(1, LONGEST // 4)
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
    if begin // SLICE != (end - 1) // SLICE:
        client.tally.count(answer.at, "across")


def after(run: Run) -> None:
    """Does the edge say of each film that it lies in slices?"""
    texts = [json.dumps(run.own.ask(f"/v1/explain?url={run.own.url}/film/{number}-{SIZE}")) for number in range(FILMS)]
    run.facts["films in slices"] = sum(f"of {SIZE // SLICE} on disk" in text for text in texts)


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    yield from nothing_wrong(seen)
    ranges, across = seen.total("ranges"), seen.total("across")
    yield Check(
        ranges > 0 and across > 0 and seen.total("wrong") == 0,
        f"{ranges} ranges, {across} of them across slices, {seen.total('octets') / (1 << 20):.0f} MiB, each octet "
        "compared",
        "no range went across slices" if ranges and not across else "ranges were wrong",
    )
    yield Check(
        run.facts["films in slices"] == FILMS,
        f"all {FILMS} films were stored in slices",
        f"{run.facts['films in slices']} of {FILMS} films were stored in slices: the run says nothing of them",
    )
    run.facts["ranges answered without the origin"] = f"{seen.total('hits') / max(ranges, 1):.1%}"
    first = run.samples[0].own_bytes if run.samples else 0
    most = max((sample.own_bytes for sample in run.samples), default=0)
    yield Check(
        0 < most <= first + GROWTH_BYTES,
        f"all processes grew by {(most - first) / (1 << 20):.0f} MiB over their start, beside shared memory",
        f"the processes grew by {(most - first) / (1 << 20):.0f} MiB; {GROWTH_BYTES >> 20} MiB is the bound",
    )


SITE = {"origin": {"url": "ORIGIN"}, "cache": {"slice": "4MiB"}}
PROFILE = Profile(
    name="video",
    title="range seeking in large files: the right octets, in bounded memory",
    ask=ask,
    judge=judge,
    after=after,
    config={"memory": {"size": "256MiB"}, "disk": {"size": "1GiB"}, "sites": [SITE]},
    users=20,
    seconds=30,
    disk=True,
)
