"""What is asked of the system: CPUs, files, a process's name, and that it dies with its parent."""

import ctypes
import os
import resource
import signal
from pathlib import Path

from edgecache.config.model import MAX_WORKERS

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")

_libc = ctypes.CDLL(None, use_errno=True)


def workers(asked: int | None) -> int:
    """How many workers to run. None: one for each CPU this process may use."""
    return asked if asked is not None else max(1, min(cpus(), MAX_WORKERS))


def cpus() -> int:
    """CPUs this process may use: by its affinity, and by the quota of its control group, rounded up."""
    number = len(os.sched_getaffinity(0))
    try:
        quota, period = _CGROUP_CPU.read_text(encoding="ascii").split()
        return min(number, -(-int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return number


def raise_file_limit() -> None:
    """Every connection is a file: use what the system grants, instead of the low default made for select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_name(name: str) -> None:
    """The name that `ps -o comm` and `top` show; at most 15 characters."""
    _libc.prctl(_PR_SET_NAME, name.encode("ascii")[:15], 0, 0, 0)


def die_with(parent: int) -> None:
    """The system ends this process with its parent, so that nobody is left who holds ports and is told nothing."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)  # it went before we could ask
