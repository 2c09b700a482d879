"""The coordinator's benchmark: its parsers, and one very short run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecache.purge.coordinator.hub import text_frame
from loadtests.bench import lightedge, purge

ROOT = Path(__file__).resolve().parents[2]


@given(st.lists(st.sampled_from([0, 1, 125, 126, 127, 65535, 65536]), max_size=5), st.integers(1, 70_000))
def test_frames_come_whole_however_they_arrive(sizes: list[int], step: int) -> None:
    texts = ["x" * size for size in sizes]
    stream = b"".join(map(text_frame, texts))
    buffer, found = bytearray(), []
    for at in range(0, len(stream), step):
        buffer += stream[at : at + step]
        found += lightedge.frames(buffer)
    assert [text.decode() for text in found] == texts
    assert not buffer


@pytest.mark.parametrize(("q", "value"), [(0.0, 1.0), (0.5, 6.0), (0.99, 10.0), (1.0, 10.0)])
def test_quantiles(q: float, value: float) -> None:
    assert purge.quantile([float(i) for i in range(10, 0, -1)], q) == value


@pytest.mark.fault
def test_a_short_run_measures_everything(tmp_path: Path) -> None:
    args = ["--seconds", "0.3", "--edges", "5", "--edges-rate", "20", "--fleet", "12", "--missed", "20", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.bench.purge", "--data", str(tmp_path), *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert set(figures) == {"sync_ms", "durable", "edges", "fleet"}
    assert figures["durable"]["purges_per_s"] > 0
    assert figures["edges"]["edges"] == 5
    assert figures["fleet"]["catch_up_entries"] == 20
    assert all(figures[name]["p99_ms"] >= figures[name]["p50_ms"] > 0 for name in ("durable", "edges", "fleet"))
