"""Answers of an API that are fresh for one second and may be used while they are renewed. The origin takes 200 ms."""

from __future__ import annotations

import itertools
import random
import urllib.request
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loadtests.kit.content import octets, version_in
from loadtests.kit.profile import Check, Profile, Run, nothing_wrong
from loadtests.kit.tally import Tally, quantile

if TYPE_CHECKING:
    from loadtests.kit.client import Client

KEYS = 50
SIZE = 2_000
INTERVAL_S = 1.0
SENDING_S = 0.01
"""An age counts from the sending of a request; its arrival is noted by a kernel's clock of ticks (10 ms at most)."""


def ask(client: Client) -> None:
    number = random.Random(client.next()).randrange(KEYS)
    answer = client.get(f"/api/{number}-{SIZE}", name="api")
    if answer.status:
        right = version_in(answer.body) is not None and answer.body[16:] == octets(number, 16, SIZE)
        client.check(right, f"{answer.status} and {len(answer.body)} octets for {number}")
        if "; hit" not in answer.cache:
            client.tally.count(answer.at, "waited")
            client.tally.note(f"waited: {answer.cache}")


def prepare(run: Run) -> None:
    """Everything was asked for once before: the first ones have to wait."""
    for number in range(KEYS):
        with urllib.request.urlopen(f"{run.own.url}/api/{number}-{SIZE}", timeout=10) as response:
            response.read()


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    yield from nothing_wrong(seen)
    moments: dict[str, list[float]] = {}
    for at, path in run.origin.asked():
        if path.startswith("/api/"):
            moments.setdefault(path, []).append(at)
    gaps = [b - a for times in moments.values() for a, b in itertools.pairwise(sorted(times))]
    shortest = min(gaps, default=0.0)
    total, least = sum(map(len, moments.values())), INTERVAL_S - SENDING_S
    run.facts["requests to the origin"] = total
    run.facts["shortest time between two for one key"] = f"{shortest:.3f} s"
    yield Check(
        bool(gaps) and shortest >= least,
        f"the origin saw {total} requests for {len(moments)} keys, never two for one key within {INTERVAL_S:g} s "
        f"(closest: {shortest:.3f} s)",
        f"of {len(gaps)} times that the origin saw a key again, {sum(gap < least for gap in gaps)} came within "
        f"{INTERVAL_S:g} s; closest: {shortest:.3f} s",
    )
    waited, slowest = seen.total("waited"), quantile(seen.latencies("requests"), 0.999) or 0.0
    yield Check(
        waited == 0,
        f"none of {seen.total('requests')} clients waited for a revalidation (p99.9 {slowest * 1000:.1f} ms; the "
        "origin takes 200 ms)",
        f"{waited} of {seen.total('requests')} clients waited for the origin",
    )


PROFILE = Profile(
    name="api_microcache",
    title="at most one request per key and second at the origin; no client waits for a revalidation",
    ask=ask,
    prepare=prepare,
    judge=judge,
    users=40,
    seconds=25,
    think_s=0.02,
)
