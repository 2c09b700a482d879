"""Your traffic, or a trace, against an edge with so much memory: what is the hit ratio, and what would it be with more?

An origin gives each object its size. The same requests are played through a plain LRU at other sizes, for the plot.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgecache.config.units import format_size, parse_size
from loadtests.bench import reference, tracefile
from loadtests.bench.tracefile import Trace
from loadtests.kit import accesslog
from loadtests.kit.content import octets
from loadtests.kit.plot import Series, lines
from loadtests.kit.profile import Check, Profile, Run, nothing_wrong
from loadtests.kit.tally import Tally

if TYPE_CHECKING:
    from loadtests.kit.client import Client

MOST = 1 << 20
SIZES = 9
POINT = 0.01

_traces: dict[str, tuple[Trace, int]] = {}


def trace_at(path: str) -> tuple[Trace, int]:
    """The trace, and how many lines of a log were left out. Raises `BadTrace`."""
    if path not in _traces:
        if path.endswith(".req.xz"):
            _traces[path] = tracefile.read(Path(path)), 0
        else:
            found = accesslog.read(Path(path))
            _traces[path] = found.trace, found.left_out
    return _traces[path]


def ask(client: Client) -> None:
    trace, _ = trace_at(client.plan["trace"])
    position = client.next()
    if position >= len(trace.asked):
        time.sleep(0.2)  # everything was played: another process may still be at it
        return
    number = trace.asked[position]
    size = trace.sizes[number]
    answer = client.get(f"/o/{number}-{size}", name="replay")
    client.tally.count(answer.at, f"position {position % client.plan['processes']}")
    if answer.status:
        right = answer.status == 200 and answer.body == octets(number, 0, size)
        client.check(right, f"{answer.status} and {len(answer.body)} octets for object {number} of {size}")


def played(run: Run, seen: Tally) -> Trace:
    """What was asked for, as a trace of its own."""
    trace, _ = trace_at(run.plan["trace"])
    processes = run.plan["processes"]
    counts = [seen.total(f"position {index}") for index in range(processes)]
    positions = sorted(at * processes + index for index, count in enumerate(counts) for at in range(count))
    return Trace(trace.name, array("I", (trace.asked[position] for position in positions)), trace.sizes)


def capacities(part: Trace, measured: int) -> list[int]:
    """Powers of two about the memory there was, up to what everything takes."""
    everything = sum(part.sizes[number] for number in set(part.asked))
    found = [measured]
    while found[-1] < everything and len(found) < SIZES:
        found.append(found[-1] * 2)
    while len(found) < SIZES and found[0] > 1 << 20:
        found.insert(0, found[0] // 2)
    return found


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    yield from nothing_wrong(seen)
    part = played(run, seen)
    memory = parse_size(run.own.config["memory"]["size"])
    requests = max(len(part.asked), 1)
    curve = [(size, reference.play("lru", part, size, MOST).count / requests) for size in capacities(part, memory)]
    simulated = dict(curve)[memory]
    measured = seen.total("hits") / max(seen.total("requests"), 1)
    _, left_out = trace_at(run.plan["trace"])
    run.facts |= {
        "trace": part.name,
        "requests played, of the trace's": f"{len(part.asked):,} of {len(trace_at(run.plan['trace'])[0].asked):,}",
        "lines of the log left out": left_out,
        f"hit ratio with {format_size(memory)}": f"{measured:.2%}",
        **{f"an LRU of {format_size(size)} would have": f"{ratio:.2%}" for size, ratio in curve},
    }
    run.facts["curve"] = curve
    run.facts["measured"] = (memory, measured)
    text = f"with {format_size(memory)} the hit ratio is {measured:.2%}; an LRU of that size has {simulated:.2%}"
    yield Check(abs(measured - simulated) <= POINT, text, f"{text}: more than a point apart")


def sections(run: Run) -> Iterable[str]:
    curve = Series("LRU, simulated", run.facts["curve"])
    point = Series("this edge, measured", [run.facts["measured"]], dots=True)
    yield lines(
        "Hit ratio over memory", [curve, point], x_title="memory.size", high=1.0, shown=lambda v: f"{v:.0%}", log_x=True
    )


PROFILE = Profile(
    name="replay",
    title="the hit ratio of your own traffic is within 1 point of a simulated LRU's, which says what more memory gives",
    ask=ask,
    judge=judge,
    sections=sections,
    config={"memory": {"size": "64MiB", "max_object": "1MiB"}},
    users=30,
    seconds=60,
    trace=True,
)
