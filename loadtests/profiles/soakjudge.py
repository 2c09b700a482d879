"""What a long run has to show, and the table of its figures: see `soak`."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from edgecache.store.disk import READERS
from loadtests.kit.profile import Check, Run, Sample, nothing_wrong
from loadtests.kit.rest import Held, Rest, is_worker, more_than, role
from loadtests.kit.tally import Tally

LARGEST = 200_000
"""Octets of an answer."""
GROWTH = 1.03
ROLES = ("supervisor", "control process", "worker")
THREADS = {"supervisor": 1, "control process": 1 + 2 * READERS + 2 + 4, "worker": 1 + 2 * READERS + 3 + 4}
"""All that a process may have, whenever: its own, the disk tier's readers, spoolers and writer, one to keep purges, one
for codings, libuv's four."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the run, in shares of its time."""

    begin: float
    end: float

    def of(self, run: Run) -> list[Sample]:
        whole = run.ends - run.began
        return [s for s in run.samples if self.begin * whole <= s.at - run.began < self.end * whole]


WARM, END = Window(0.25, 0.5), Window(0.75, 1.0)
"""For what is replaced now and then."""
YOUNG, OLD = Window(0.7, 0.775), Window(0.925, 1.0)
"""For who lives from the last reload to the end."""


def judge(run: Run, seen: Tally) -> Iterable[Check]:
    first, last = run.facts["first"], run.facts["last"]
    yield from _answers(run, seen)
    yield from _memory(run, first)
    yield from _held(run, first, last)
    yield from _counters(run, seen, first, last)


# --- answers ---


def _answers(run: Run, seen: Tally) -> Iterable[Check]:
    for check in nothing_wrong(seen):
        if "without an answer" not in check.sentence:
            yield check
    troubled = {second for begin, end in run.facts["troubles"] for second in range(int(begin), int(end) + 1)}
    calm = [second for second in seen.counts if second not in troubled]
    events = run.facts["events"]
    for name, what in (("lost", "left without an answer"), ("5xx", "answered 5xx")):
        total, excuse_less = seen.total(name), seen.total(name, calm)
        yield Check(
            excuse_less == 0,
            f"{total} requests were {what}, all while a worker ({events['kill']} times) or the origin "
            f"({events['origin']} times) had just been killed",
            f"{excuse_less} of {total} requests {what} when nothing had been killed",
        )
    refused = seen.total("refused")
    # A killed worker's queue is the supervisor's, too: who knocks meanwhile waits.
    yield Check(refused == 0, "no connection was refused", f"{refused} connections were refused")
    lost, most = seen.total("lost"), run.facts["connections of killed workers"] + run.plan["users"] * events["origin"]
    yield Check(
        lost <= most,
        f"{lost} requests were lost; those who were killed had {most} connections",
        f"{lost} requests were lost, and those who were killed had {most} connections only",
    )
    yield Check(seen.total("outdated") == 0, f"nothing outdated after {len(run.purges)} purges", "outdated answers")


# --- memory ---


def _memory(run: Run, first: Rest) -> Iterable[Check]:
    usual = len(first.held)
    survivors = _survivors(run)
    parts = [window.of(run) for window in (WARM, END)]
    for which in ROLES:
        # A worker that survives has been through more than those before it: it is compared with itself, below.
        old = [pid for pid, name in survivors if is_worker(name)]
        before, now = (_median(part, which, usual, old) or _median(part, which, usual) for part in parts)
        yield _flat(run, which, before, now)
    for pid, name in survivors:
        before, now = (_median_of(window.of(run), pid) for window in (YOUNG, OLD))
        minutes = (OLD.end - YOUNG.begin) * run.plan["seconds"] / 60
        yield _flat(run, f"the same {role(name)} ({name}) over its last {minutes:.0f} min", before, now)


def _flat(run: Run, what: str, before: float, now: float) -> Check:
    growth = now / before - 1 if before else 0.0
    text = f"{before / _MIB:.1f} MiB after warm-up, {now / _MIB:.1f} MiB at the end"
    run.tabulate(
        f"resident, {what}: MiB", f"{before / _MIB:.1f}", f"{now / _MIB:.1f}", f"{growth:+.1%}", f"{GROWTH - 1:.0%}"
    )
    if not before or not now:
        return Check(holds=False, sentence="", broken=f"{what}: the run ended before its memory could be compared")
    return Check(now <= before * GROWTH, f"{what}: {text}", f"{what} grew: {text}")


def _median(samples: Sequence[Sample], which: str, usual: int, but: Collection[int] = ()) -> float:
    """Of one process of its kind but these, at moments when there are as many as there should be."""
    sizes = [
        process.rss_bytes
        for sample in samples
        if len(sample.processes) == usual
        for process in sample.processes
        if role(process.name) == which and process.pid not in but
    ]
    return statistics.median(sizes) if sizes else 0.0


def _median_of(samples: Sequence[Sample], pid: int) -> float:
    sizes = [process.rss_bytes for sample in samples for process in sample.processes if process.pid == pid]
    return statistics.median(sizes) if sizes else 0.0


def _survivors(run: Run) -> list[tuple[int, str]]:
    """Control process and workers that were there before `YOUNG` and are there at the end."""
    samples = Window(YOUNG.begin, OLD.end).of(run)
    found = {process.pid: process.name for process in samples[0].processes} if samples else {}
    for sample in samples:
        alive = {process.pid for process in sample.processes}
        found = {pid: name for pid, name in found.items() if pid in alive}
    return [(pid, name) for pid, name in sorted(found.items()) if role(name) != "supervisor"]


# --- what processes hold ---


def _held(run: Run, first: Rest, last: Rest) -> Iterable[Check]:
    for which in ROLES:
        before, now = first.of(which), last.of(which)
        run.tabulate(f"descriptors at rest, {which}", _counts(before), _counts(now), "", "0")
        connections = [", ".join(str(held.databases.total()) for held in rest) or "0" for rest in (before, now)]
        run.tabulate(f"connections to databases, {which}", *connections, "", "a thread's own")
        early, late = (_most_threads(window.of(run), which) for window in (WARM, END))
        run.tabulate(f"threads, most at once, {which}", str(early), str(late), "", f"{THREADS[which]}")
        most = _most_threads(run.samples, which)
        yield Check(
            0 < most <= THREADS[which],
            f"{which}: never more than {most} threads, of {THREADS[which]} that it may have",
            f"{which} had {most} threads: it may have {THREADS[which]}",
        )
    tasks = [rest.stats["tasks"] for rest in (first, last)]
    run.tabulate("tasks at rest, all processes", *map(str, tasks), f"{tasks[1] - tasks[0]:+d}", "0")
    more = more_than(last, first)
    yield Check(
        not more,
        f"at rest no more descriptors, tasks or processes than before: {tasks[0]} tasks, {len(first.held)} processes",
        f"more is held at rest than before: {'; '.join(more)}",
    )
    memory, fills = last.stats["memory"], last.stats["fills"]
    yield Check(
        fills == 0 and memory["pins"] == 0,
        "no fetch and no pin is left",
        f"{fills} fetches and {memory['pins']} pins are left",
    )


def _counts(held: Sequence[Held]) -> str:
    return ", ".join(str(one.kinds.total()) for one in held)


def _most_threads(samples: Sequence[Sample], which: str) -> int:
    return max((p.threads for sample in samples for p in sample.processes if role(p.name) == which), default=0)


# --- counters ---


def _counters(run: Run, seen: Tally, first: Rest, last: Rest) -> Iterable[Check]:
    stats, begun, events = last.stats, first.stats, run.facts["events"]
    # What a killed worker was answering: each of its connections had one request under way at most.
    doubt = seen.total("lost") + run.facts["connections of killed workers"]
    served = ("hit", "stale", "revalidated", "collapsed")
    edge_requests = stats["requests"]["total"] - begun["requests"]["total"]
    edge_octets = stats["bytes"]["sent"] - begun["bytes"]["sent"]
    edge_hits = sum(stats["requests"]["by_outcome"][n] - begun["requests"]["by_outcome"][n] for n in served)
    edge_purges = stats["purges"]["sequence"] - begun["purges"]["sequence"]
    died = stats["processes"]["died"] - begun["processes"]["died"]
    reloads = stats["processes"]["configuration"] - begun["processes"]["configuration"]
    for what, edge, clients, doubtful in (
        ("requests", edge_requests, seen.total("requests"), doubt),
        ("octets", edge_octets, seen.total("octets"), doubt * LARGEST),
        ("hits", edge_hits, seen.total("hits"), doubt),
        # One more was sent to see the edge at rest.
        ("purges", edge_purges, len(run.purges) + 1, run.facts["purges without an answer"]),
        ("processes that died", died, events["kill"], 0),
        ("reloads", reloads, events["reload"], 0),
    ):
        run.tabulate(
            f"{what}: counted by the edge, by the clients",
            f"{edge:,}",
            f"{clients:,}",
            f"{edge - clients:+,}",
            f"{doubtful:,}",
        )
        text = f"{what}: the edge counted {edge:,}, the clients {clients:,}"
        more = f" ({doubtful:,} in doubt)" if doubtful else ""
        yield Check(
            abs(edge - clients) <= doubtful, text + more, f"{text}: more apart than the {doubtful:,} that are in doubt"
        )
