"""Everything at once, for long: does anything grow, and do the edge's counters say what its clients saw?

Mixed traffic, purges all the time, and every few minutes a reload, a killed worker, or an origin that is killed and
started again. After a first quarter to warm up, nothing may grow.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from loadtests.kit.content import Sequence as Objects
from loadtests.kit.content import octets, size_of, version_in
from loadtests.kit.processes import until
from loadtests.kit.profile import Check, Profile, Run, Sample, nothing_wrong
from loadtests.kit.tally import Tally

if TYPE_CHECKING:
    from loadtests.kit.client import Client

KEYS = 300
LARGEST = 200_000
GROWTH = 1.03
FLOOR_BYTES = 3 << 20
"""Growth below this is not one: a few more responses on their way at the moment of a look."""
EVENT_EVERY_S = 150.0

_objects: dict[int, Objects] = {}


def ask(client: Client) -> None:
    position = client.next()
    chance = random.Random(position)
    kind = chance.choices(("o", "v", "stale", "private", "film"), weights=(60, 25, 10, 3, 2))[0]
    seed = client.plan["seed"]
    if seed not in _objects:
        _objects[seed] = Objects(5_000, seed)
    headers = None
    match kind:
        case "o":
            number = _objects[seed][position]
            size = min(size_of(number), LARGEST)
        case "film":
            number, size = chance.randrange(4), 20 << 20
            begin = chance.randrange(size - 100_000)
            headers = {"Range": f"bytes={begin}-{begin + 99_999}"}
        case _:
            number = chance.randrange(KEYS)
            size = max(16, min(size_of(number), LARGEST))
    floor = client.board.floor(number % KEYS) if kind == "v" else 0
    answer = client.get(f"/{kind}/{number}-{size}", name=kind, kind=kind, headers=headers)
    if not answer.status:
        return
    if answer.status >= 500:
        client.tally.count(answer.at, "5xx")
        return
    if kind == "v":
        version = version_in(answer.body)
        right = version is not None and answer.body[16:] == octets(number, 16, size)
        if version is not None and version < floor:
            client.tally.count(answer.at, "outdated")
    elif kind == "film":
        right = answer.status == 206 and answer.body == octets(number, begin, begin + 100_000)
    else:
        right = answer.status == 200 and answer.body == octets(number, 0, size)
    client.check(right, f"{answer.status} and {len(answer.body)} octets for /{kind}/{number}-{size}")


def prepare(run: Run) -> None:
    run.facts["first"] = {"stats": run.own.stats(), "processes": run.own.processes()}


def direct(run: Run) -> None:
    chance = random.Random(run.plan["seed"])
    whole = run.left()
    every = min(EVENT_EVERY_S, whole / 8)
    events = ["reload", "kill", "origin"]
    at, number = time.monotonic() + every, 0
    done = dict.fromkeys(events, 0)
    unanswered = 0
    # The last part is left alone, so that all is still when the counters are compared.
    while run.left() > every / 2:
        key = chance.randrange(KEYS)
        version = run.board.publish(key)
        try:
            run.purge(keys=[f"key-{key}"])
            run.board.purged(key, version)
        except OSError:  # the control process may be changing over: then nothing was promised
            unanswered += 1
        run.sleep(0.2)
        if time.monotonic() < at:
            continue
        event = events[number % len(events)]
        number += 1
        at += every
        run.mark(event)
        done[event] += 1
        match event:
            case "reload":
                run.own.reload()
            case "kill":
                os.kill(chance.choice(run.own.workers()), signal.SIGKILL)
            case _:
                run.origin.kill()
                run.sleep(1.0)
                run.origin.start()
    run.facts |= {"events": done, "purges without an answer": unanswered}
    run.sleep(run.left())


def after(run: Run) -> None:
    """When everybody has gone, what is left?"""
    until(lambda: run.own.stats()["connections"] == 0, 60, "the end of all connections")
    until(lambda: run.own.stats()["fills"] == 0, 60, "the end of all fetches")
    # Generations that finish have `limits.drain_timeout` to.
    count = len(run.facts["first"]["processes"])
    until(lambda: len(run.own.processes()) == count, 60, "the end of old workers")
    run.facts["last"] = {"stats": run.own.stats(), "processes": run.own.processes()}


def _role(name: str) -> str:
    return "worker" if name.startswith("edgecache-w") else name


def _median(samples: Sequence[Sample], role: str, usual: int) -> float:
    """Of the sum over a role's processes, at moments when there are as many as there should be."""
    sums = [
        sum(p.rss_bytes for p in sample.processes if _role(p.name) == role)
        for sample in samples
        if sum(_role(p.name) == role for p in sample.processes) == usual
    ]
    return statistics.median(sums) if sums else 0.0


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    kills, users = run.facts["events"]["kill"], run.plan["users"]
    first, last = run.facts["first"], run.facts["last"]
    for check in nothing_wrong(seen):
        if "without an answer" not in check.sentence:
            yield check
    lost = seen.total("lost")
    yield Check(
        lost <= kills * users,
        f"{lost} requests were lost with {kills} killed workers, and none else",
        f"{lost} requests were lost, more than {kills} killed workers had connections",
    )
    yield Check(seen.total("outdated") == 0, f"nothing outdated after {len(run.purges)} purges", "outdated answers")
    # --- memory, descriptors, threads ---
    cut = run.began + (run.ends - run.began) / 4
    late = run.began + (run.ends - run.began) * 3 / 4
    early = [s for s in run.samples if cut <= s.at < cut + (late - cut) / 2]
    end = [s for s in run.samples if s.at >= late]
    for role in sorted({_role(p.name) for p in first["processes"]}):
        usual = sum(_role(p.name) == role for p in first["processes"])
        before, now = _median(early, role, usual), _median(end, role, usual)
        run.facts[f"resident, {role}: after warm-up, at the end"] = f"{before / 2**20:.1f}, {now / 2**20:.1f} MiB"
        yield Check(
            before > 0 and now > 0 and (now <= before * GROWTH or now - before <= FLOOR_BYTES),
            f"{role}: {before / 2**20:.1f} MiB after warm-up, {now / 2**20:.1f} MiB at the end",
            f"{role} grew from {before / 2**20:.1f} to {now / 2**20:.1f} MiB after warm-up",
        )
        files = [sum(p.files for p in at["processes"] if _role(p.name) == role) for at in (first, last)]
        threads = [sum(p.threads for p in at["processes"] if _role(p.name) == role) for at in (first, last)]
        run.facts[f"descriptors, {role}: before, after"] = f"{files[0]}, {files[1]}"
        run.facts[f"threads, {role}: before, after"] = f"{threads[0]}, {threads[1]}"
        # Idle connections to the origin stay open for a while, up to as many as were in use; the control process
        # opens its databases when they are first needed.
        spare = users if role == "worker" else 8
        yield Check(
            files[1] <= files[0] + spare and threads[1] <= threads[0] + 8 * usual,
            f"{role}: {files[0]} descriptors before, {files[1]} after; {threads[0]} and {threads[1]} threads",
            f"{role} has {files[1]} descriptors and {threads[1]} threads after it, {files[0]} and {threads[0]} before",
        )
    # --- counters ---
    stats, begun = last["stats"], first["stats"]
    doubt = lost + kills * users
    edge_requests = stats["requests"]["total"] - begun["requests"]["total"]
    client_requests = seen.total("requests")
    yield _same("requests", edge_requests, client_requests, doubt)
    edge_octets = stats["bytes"]["sent"] - begun["bytes"]["sent"]
    yield _same("octets", edge_octets, seen.total("octets"), doubt * LARGEST)
    served = ("hit", "stale", "revalidated", "collapsed")
    edge_hits = sum(stats["requests"]["by_outcome"][n] - begun["requests"]["by_outcome"][n] for n in served)
    yield _same("hits", edge_hits, seen.total("hits"), doubt)
    purges = stats["purges"]["sequence"] - begun["purges"]["sequence"]
    yield _same("purges", purges, len(run.purges), run.facts["purges without an answer"])
    died = stats["processes"]["died"]
    yield _same("processes that died", died, kills, 0)
    yield Check(
        stats["fills"] == 0 and stats["memory"]["pins"] == 0,
        "no fetch and no pin is left",
        f"{stats['fills']} fetches and {stats['memory']['pins']} pins are left",
    )


def _same(what: str, edge: int, clients: int, doubt: int) -> Check:
    text = f"{what}: the edge counted {edge:,}, the clients {clients:,}"
    more = f" ({doubt:,} in doubt)" if doubt else ""
    return Check(abs(edge - clients) <= doubt, text + more, f"{text}: more apart than the {doubt:,} that are in doubt")


PROFILE = Profile(
    name="soak",
    title="nothing grows, nothing is lost but with what is killed, and the counters say what the clients saw",
    ask=ask,
    direct=direct,
    prepare=prepare,
    after=after,
    judge=judge,
    config={
        "memory": {"size": "64MiB", "max_object": "1MiB"},
        "disk": {"size": "256MiB"},
        "limits": {"drain_timeout": "10s"},
    },
    users=30,
    seconds=1800,
    think_s=0.05,
    disk=True,
)
