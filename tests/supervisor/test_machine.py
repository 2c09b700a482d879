"""What is asked of the system."""

import os
from pathlib import Path

import pytest

from edgecache.config.model import MAX_WORKERS
from edgecache.observe.slots import MAX_PROCESSES
from edgecache.supervisor import machine


@pytest.mark.parametrize(
    ("allowed", "quota", "number"),
    [
        (4, "max 100000\n", 4),
        (4, "200000 100000\n", 2),
        (4, "150000 100000\n", 2),
        (4, "50000 100000\n", 1),
        (2, "800000 100000\n", 2),
        (4, "nonsense\n", 4),
        (4, None, 4),
    ],
)
def test_cpus_one_may_use(
    allowed: int, quota: str | None, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    monkeypatch.setattr(machine, "_CGROUP_CPU", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)))
    assert machine.cpus() == number


@pytest.mark.parametrize(("asked", "number"), [(0, 0), (3, 3), (None, MAX_WORKERS)])
def test_workers(asked: int | None, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpus", lambda: 500)
    assert machine.workers(asked) == number


def test_two_generations_have_room_in_the_arena() -> None:
    assert 2 * (MAX_WORKERS + 1) < MAX_PROCESSES
