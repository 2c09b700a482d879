"""Zipf popularity, sizes of a published CDN, objects asked for once: is memory used as well as an LRU would use it?

Every response is computed and compared. At the end the positions that were asked for are played through a plain LRU of
as many octets, in the same order, and the hit ratios are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgecache.config.units import parse_size
from loadtests.bench.reference import Lru
from loadtests.kit.content import Sequence, octets, size_of
from loadtests.kit.profile import Check, Profile, Run, nothing_lost, nothing_wrong
from loadtests.kit.tally import Tally

if TYPE_CHECKING:
    from loadtests.kit.client import Client

MEMORY = "64MiB"
MOST = 1 << 20
OWN_BYTES = 100 << 20
"""What a process may have beside the memory that all share: the interpreter, code, connections, responses on their
way (memory.fills)."""
POINT = 0.01


def ask(client: Client) -> None:
    position = client.next()
    if paths := client.plan.get("paths"):
        answer = client.get(paths[Sequence(len(paths), 1)[position] % len(paths)], name="steady")
        client.check(answer.status < 500, f"{answer.status} for {paths[0]}")
        return
    sequence = client.memory.get("sequence")
    if sequence is None:
        sequence = client.memory["sequence"] = _sequence(client.plan["objects"], client.plan["seed"])
    number = sequence[position]
    size = size_of(number)
    answer = client.get(f"/o/{number}-{size}", name="steady")
    client.tally.count(answer.at, f"position {position % client.plan['processes']}")
    if answer.status:
        right = answer.status == 200 and answer.body == octets(number, 0, size)
        client.check(right, f"{answer.status} and {len(answer.body)} octets for object {number} of {size}")


_sequences: dict[tuple[int, int], Sequence] = {}


def _sequence(objects: int, seed: int) -> Sequence:
    """One for all users of a process."""
    if (objects, seed) not in _sequences:
        _sequences[objects, seed] = Sequence(objects, seed)
    return _sequences[objects, seed]


def asked(run: Run, seen: Tally) -> list[int]:
    """The objects that were asked for, in order, as far as several processes have one."""
    processes = run.plan["processes"]
    counts = [seen.total(f"position {index}") for index in range(processes)]
    sequence = _sequence(run.plan["objects"], run.plan["seed"])
    positions = sorted(at * processes + index for index, count in enumerate(counts) for at in range(count))
    return [sequence[position] for position in positions]


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    if run.edge is None:
        yield from nothing_lost(seen)
        failed = seen.total("wrong")
        said = f": {seen.notes[0]}" if seen.notes else ""
        yield Check(failed == 0, "no answer was a 5xx", f"{failed} answers were 5xx{said}")
        return
    yield from nothing_wrong(seen)
    numbers = asked(run, seen)
    capacity = parse_size(run.edge.config["memory"]["size"])
    lru, would = Lru(capacity), 0
    for number in numbers:
        size = size_of(number)
        would += size <= MOST and lru.ask(number, size)
    times = Counter(numbers)
    requests, hits = seen.total("requests"), seen.total("hits")
    measured, simulated = hits / max(requests, 1), would / max(len(numbers), 1)
    run.facts["hit ratio"] = f"{measured:.4f}"
    run.facts["hit ratio of the simulated LRU"] = f"{simulated:.4f}"
    run.facts["objects asked for once"] = f"{sum(n == 1 for n in times.values()) / max(len(times), 1):.1%}"
    run.facts["octets of all objects"] = f"{sum(map(size_of, times)) / (1 << 20):.0f} MiB"
    text = f"hit ratio {measured:.2%}, simulated LRU {simulated:.2%}, over {requests} requests"
    if sum(map(size_of, times)) <= capacity:
        text += " (all objects fit: this says nothing of what is evicted; run it for longer)"
    yield Check(abs(measured - simulated) <= POINT, text, f"the hit ratio is not within a point of the LRU's: {text}")
    most = max((sample.stats["memory"]["bytes_used"] for sample in run.samples), default=0)
    yield Check(
        0 < most <= capacity,
        f"the memory tier never held more than {most:,} octets of {capacity:,}",
        f"the memory tier held {most:,} octets, and its bound is {capacity:,}",
    )
    own = max((p.rss_bytes for sample in run.samples for p in sample.processes), default=0)
    yield Check(
        own <= OWN_BYTES,
        f"no process had more than {own / (1 << 20):.0f} MiB beside the shared memory of {MEMORY}",
        f"a process had {own / (1 << 20):.0f} MiB beside the shared memory; {OWN_BYTES >> 20} MiB are its bound",
    )


PROFILE = Profile(
    name="steady",
    title="the hit ratio is within 1 point of a simulated LRU on the same sequence; memory stays within its bound",
    ask=ask,
    judge=judge,
    config={"memory": {"size": MEMORY, "max_object": "1MiB"}},
    users=40,
    seconds=45,
    elsewhere="every request is answered, and no answer is a 5xx",
)
