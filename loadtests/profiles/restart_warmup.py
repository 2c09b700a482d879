"""The workers are replaced, several times, and then the whole node is stopped and started: the disk keeps it warm."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loadtests.kit.content import Sequence, octets, size_of
from loadtests.kit.profile import Check, Profile, Run, nothing_wrong
from loadtests.kit.tally import Tally

if TYPE_CHECKING:
    from loadtests.kit.client import Client

OBJECTS = 1_000
RELOADS = 3
POINTS = 0.05

_sequences: dict[int, Sequence] = {}


def ask(client: Client) -> None:
    position = client.next()
    seed = client.plan["seed"]
    if seed not in _sequences:
        _sequences[seed] = Sequence(OBJECTS, seed)
    number = _sequences[seed][position] % OBJECTS  # everything comes again: the tail is not what restarts are about
    size = min(size_of(number), 500_000)
    answer = client.get(f"/o/{number}-{size}", name="restart")
    if answer.status:
        right = answer.status == 200 and answer.body == octets(number, 0, size)
        client.check(right, f"{answer.status} and {len(answer.body)} octets for object {number} of {size}")


def direct(run: Run) -> None:
    whole = run.left()
    phases: dict[str, tuple[float, float]] = {}
    run.sleep(whole * 0.4)  # everything is in memory, and what was asked for again, on disk
    begun = time.monotonic()
    run.sleep(whole * 0.12)
    phases["before"] = (begun, time.monotonic())
    begun = run.mark("reload")
    for number in range(RELOADS):
        if number:
            run.mark("reload")
        run.own.reload()
        run.sleep(whole * 0.03)
    phases["reloads"] = (begun, time.monotonic())
    stopped = run.mark("stop")
    run.facts["exit code"] = run.own.stop()
    run.own.start()
    started = run.mark("started")
    phases["away"] = (stopped, started)
    run.facts["away"] = f"{started - stopped:.2f} s"
    run.sleep(whole * 0.15)
    phases["after"] = (started, time.monotonic())
    run.facts["phases"] = phases


def _offload(run: Run, seen: Tally, phase: str) -> tuple[float, int]:
    begin, end = run.facts["phases"][phase]
    # Whole seconds, as clients are counted; the first of them already belongs to it.
    seconds = range(int(begin) + (phase != "after"), int(end))
    requests = seen.total("requests", seconds)
    asked = sum(int(at) in seconds for at, _ in run.origin.asked())
    return 1 - asked / max(requests, 1), requests


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    begin, end = run.facts["phases"]["away"]
    away = range(int(begin) - 1, int(end) + 2)
    lost = seen.total("lost")
    excused = seen.total("lost", away)
    refused, excused_refused = seen.total("refused"), seen.total("refused", away)
    for check in nothing_wrong(seen):
        if "without an answer" not in check.sentence:
            yield check
    yield Check(
        lost == excused and refused == excused_refused,
        f"no request was dropped by {RELOADS} rolling restarts of the workers ({seen.total('requests')} requests)",
        f"{lost - excused} requests were dropped and {refused - excused_refused} refused while the node did not stop",
    )
    run.facts["refused while the node was away"] = refused
    yield Check(
        run.facts["exit code"] == 0 and excused == 0,
        "stopping the node cut no request",
        f"stopping the node cut {excused} requests (exit code {run.facts['exit code']})",
    )
    (before, n), (after, m) = _offload(run, seen, "before"), _offload(run, seen, "after")
    yield Check(
        n > 0 and m > 0 and after >= before - POINTS,
        f"origin offload {before:.2%} before the restart ({n} requests), {after:.2%} right after it ({m} requests)",
        f"origin offload fell from {before:.2%} before the restart to {after:.2%} after it",
    )


PROFILE = Profile(
    name="restart_warmup",
    title="no dropped request on reload; origin offload after a restart within 5 % of before",
    ask=ask,
    direct=direct,
    judge=judge,
    config={
        "memory": {"size": "128MiB"},
        "disk": {"size": "1GiB"},
        "limits": {"drain_timeout": "10s"},
    },
    users=30,
    seconds=60,
    think_s=0.03,
    disk=True,
)
