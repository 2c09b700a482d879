"""Figures from /proc: CPU time of a process tree, its memory, and how busy a core was.

Parsing and arithmetic are functions of text and numbers; the few that read files say so. CPU time is utime + stime of
proc(5) ``/proc/PID/stat``, in ticks of 1/SC_CLK_TCK s: a turn of seconds is measured to a fraction of a percent.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S: int = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of ``/proc/PID/stat`` the benchmark uses. `start_ticks` tells a reused PID from the old one."""

    pid: int
    parent: int
    state: str
    cpu_ticks: int
    start_ticks: int


def parse_stat(text: str) -> ProcessStat:
    """One ``/proc/PID/stat`` line. The command in parentheses may itself hold spaces and parentheses."""
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(")")[2].split()
    # proc(5) numbers from 1 with pid and comm first: state is 3, ppid 4, utime 14, stime 15, starttime 22.
    return ProcessStat(int(pid), int(fields[1]), fields[0], int(fields[11]) + int(fields[12]), int(fields[19]))


def tree(stats: Iterable[ProcessStat], roots: Iterable[int]) -> set[int]:
    """The PIDs of `roots` and all their descendants among `stats`; zombies are left out."""
    children: dict[int, list[int]] = {}
    alive: set[int] = set()
    for stat in stats:
        if stat.state != "Z":
            alive.add(stat.pid)
        children.setdefault(stat.parent, []).append(stat.pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue.extend(children.get(pid, ()))
    return found & alive


def spent_ticks(before: Mapping[int, ProcessStat], after: Mapping[int, ProcessStat]) -> int:
    """Ticks used between two snapshots. One that began in between counts whole; one that ended counts for nothing."""
    total = 0
    for pid, stat in after.items():
        old = before.get(pid)
        same = old is not None and old.start_ticks == stat.start_ticks
        total += stat.cpu_ticks - (old.cpu_ticks if same and old is not None else 0)
    return total


def cpu_us_per_request(ticks: int, requests: float, ticks_per_s: int = TICKS_PER_S) -> float:
    """Microseconds of CPU per request; not a number when nothing was answered."""
    return ticks * 1e6 / ticks_per_s / requests if requests else float("nan")


@dataclass(frozen=True, slots=True)
class CoreTicks:
    """One ``cpuN`` line of /proc/stat."""

    total: int
    idle: int
    stolen: int

    def busy_since(self, before: "CoreTicks") -> float:
        """The share of the time since `before` the core was not idle, 0 to 1."""
        total = self.total - before.total
        return (total - (self.idle - before.idle)) / total if total > 0 else 0.0

    def stolen_since(self, before: "CoreTicks") -> float:
        """The share the hypervisor gave to others."""
        total = self.total - before.total
        return (self.stolen - before.stolen) / total if total > 0 else 0.0


def parse_cores(text: str) -> dict[int, CoreTicks]:
    """The per-core lines of /proc/stat. Waiting for a disk counts as idle."""
    cores = {}
    for match in re.finditer(r"^cpu(\d+) (.*)$", text, re.MULTILINE):
        user, nice, system, idle, iowait, irq, softirq, steal = (int(f) for f in match[2].split()[:8])
        total = user + nice + system + idle + iowait + irq + softirq + steal
        cores[int(match[1])] = CoreTicks(total, idle + iowait, steal)
    return cores


def parse_pss_kib(text: str) -> int:
    """The Pss line of smaps_rollup: memory shared with others is counted by its share."""
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    if match is None:
        raise ValueError("no Pss line in smaps_rollup")
    return int(match[1])


def read_cores() -> dict[int, CoreTicks]:
    """Reads /proc/stat."""
    return parse_cores((_PROC / "stat").read_text())


def read_stats() -> list[ProcessStat]:
    """Reads every process's stat; processes that end meanwhile are left out."""
    stats = []
    for directory in _PROC.iterdir():
        if directory.name.isdigit():
            try:
                stats.append(parse_stat((directory / "stat").read_text()))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return stats


def read_tree(roots: Iterable[int]) -> dict[int, ProcessStat]:
    """Reads the stats of `roots` and their descendants."""
    stats = read_stats()
    pids = tree(stats, roots)
    return {stat.pid: stat for stat in stats if stat.pid in pids}


def read_pss_bytes(pids: Iterable[int]) -> int:
    """Reads and sums the proportional set size of processes; one that has ended counts for nothing."""
    total = 0
    for pid in pids:
        try:
            total += parse_pss_kib((_PROC / str(pid) / "smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total * 1024


def waited_s(pid: int) -> float:
    """How long the threads that a process has now were ready to run and had no core: what its neighbours took from it.
    Reads /proc; 0 where the kernel does not count it."""
    total = 0
    for task in (_PROC / str(pid) / "task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return total / 1e9
