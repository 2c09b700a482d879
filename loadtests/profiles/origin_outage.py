"""The origin is killed, frozen, and answers errors; and comes back. What is stored goes on being served.

Everything is fresh for one second and may be used stale for an hour (stale-if-error).
"""

from __future__ import annotations

import itertools
import random
import urllib.request
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loadtests.kit.board import Cell
from loadtests.kit.content import octets
from loadtests.kit.profile import Check, Profile, Run, nothing_wrong
from loadtests.kit.tally import Tally

if TYPE_CHECKING:
    from loadtests.kit.client import Client

KEYS = 40
SIZE = 5_000
INTERVAL_S = 1.0
"""One probe per key and interval: `origin.retry_interval`."""
SLACK_S = 0.01
"""Arrivals are noted by the ticks of a kernel's clock."""
WAIT = "500ms"
"""For a frozen origin: `origin.first_byte_timeout`."""


def ask(client: Client) -> None:
    number = random.Random(client.next()).randrange(KEYS)
    answer = client.get(f"/stale/{number}-{SIZE}", name="outage")
    if answer.status >= 500:
        client.tally.count(answer.at, "5xx")
        client.tally.note(f"{answer.status} {answer.cache}")
    elif answer.status:
        right = answer.status == 200 and answer.body == octets(number, 0, SIZE)
        client.check(right, f"{answer.status} and {len(answer.body)} octets for {number}")


def prepare(run: Run) -> None:
    for number in range(KEYS):
        with urllib.request.urlopen(f"{run.own.url}/stale/{number}-{SIZE}", timeout=10) as response:
            response.read()


def direct(run: Run) -> None:
    part = max(run.left() / 7, 2.5)
    phases: list[tuple[str, float, float]] = []

    def phase(name: str) -> None:
        begun = run.mark(name)
        run.sleep(part)
        phases.append((name, begun, begun + part))

    phase("well")
    run.origin.kill()
    phase("killed")
    run.origin.start()
    phase("back from death")
    run.origin.freeze()
    phase("frozen")
    run.origin.thaw()
    phase("back from the cold")
    run.board[Cell.MODE] = 1
    phase("erring")
    run.board[Cell.MODE] = 0
    phase("back to order")
    run.facts["phases"] = phases


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    yield from nothing_wrong(seen)
    failed = seen.total("5xx")
    said = next((note for note in seen.notes if note.startswith("5")), "")
    yield Check(
        failed == 0,
        f"none of {seen.total('requests')} answers was a 5xx, while the origin was killed, frozen and erring",
        f"{failed} of {seen.total('requests')} answers were 5xx: {said}",
    )
    away = ("killed", "frozen", "erring")
    served = {n: seen.total("requests", run.seconds(a, b)) for n, a, b in run.facts["phases"] if n in away}
    yield Check(
        min(served.get(name, 0) for name in away) > 0,
        "answered meanwhile: " + ", ".join(f"{count} ({name})" for name, count in served.items()),
        f"nothing was answered while it was away: {served}",
    )
    asked = run.origin.asked()
    for name, begin, end in run.facts["phases"]:
        # Connections to a frozen origin wait in its queue: it sees them all when it comes back.
        if name in ("killed", "frozen"):
            continue
        margin = 0.3 if name == "back from the cold" else 0.0
        moments: dict[str, list[float]] = {}
        for at, path in asked:
            if begin + margin <= at < end:
                moments.setdefault(path, []).append(at)
        gaps = [b - a for times in moments.values() for a, b in itertools.pairwise(sorted(times))]
        total = sum(map(len, moments.values()))
        shortest = min(gaps, default=INTERVAL_S)
        run.facts[f"requests to the origin, {name}"] = total
        if name == "erring":
            yield Check(
                bool(gaps) and shortest >= INTERVAL_S - SLACK_S,
                f"while it erred, the origin saw {total} probes for {len(moments)} keys, never two for one key within "
                f"{INTERVAL_S:g} s",
                f"while it erred, the origin saw {total} probes for {len(moments)} keys, "
                + (f"two of one key within {shortest:.3f} s" if gaps else "no key twice: that says nothing"),
            )
        if name.startswith("back"):
            first = Counter(path for at, path in asked if begin + margin <= at < begin + margin + INTERVAL_S)
            most = max(first.values(), default=0)
            yield Check(
                total > 0 and most <= 2,
                f"{name}: {sum(first.values())} requests in the first second, {len(first)} keys, up to {most} each",
                f"{name}: no request reached the origin"
                if not total
                else f"{name}: {sum(first.values())} requests in the first second, up to {most} for one key",
            )


PROFILE = Profile(
    name="origin_outage",
    title="no 5xx for what is stored, one probe per key and interval, and no stampede when the origin is back",
    ask=ask,
    direct=direct,
    prepare=prepare,
    judge=judge,
    config={"sites": [{"origin": {"url": "ORIGIN", "first_byte_timeout": WAIT, "connect_timeout": WAIT}}]},
    users=40,
    seconds=35,
    think_s=0.03,
)
