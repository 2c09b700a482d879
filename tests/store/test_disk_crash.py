"""kill -9 at any moment, two processes writing: the next start serves only what is whole, and leaves no file over."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecache.store.disksweep import sweep_before_start
from edgecache.store.volume import MIN_SIZE, Volume
from tests.store.kit import Purges, body, body_files, disk_usage, key

ROOT = Path(__file__).parents[2]


def kill_under_load(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.store.crash_writer", str(path), str(MIN_SIZE), str(owner), f"{seed}-{owner}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for owner in (1, 2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            if writer.stdout.readline() != b"ready\n":
                assert writer.stderr is not None
                raise AssertionError(writer.stderr.read().decode())
        time.sleep(chance.uniform(0.02, 0.5))
        for writer in writers:
            assert writer.poll() is None, writer.stderr and writer.stderr.read().decode()
            time.sleep(chance.uniform(0.0, 0.02))
            writer.kill()
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def check_whole(path: Path) -> tuple[int, int]:
    """(records found whole, files swept). Fails where one is not, or a file has no record."""
    swept = sweep_before_start(path, MIN_SIZE, purged=Purges())
    volume = Volume(path, MIN_SIZE, owner=1, purged=Purges())
    volume.open()
    found = 0
    with_files = 0
    for name in range(2000):
        entry = volume.get(key(name))
        if entry is None:
            continue
        found += 1
        with_files += entry.in_file
        assert f"x-name: {name}\r\n".encode() in entry.record.head
        assert entry.read(0, entry.body_size) == body(name, entry.body_size)
        entry.close()
    assert volume.counters.corrupt == 0
    usage = volume.usage()
    assert usage["records"] == found
    assert usage["bytes_journalled"] == 0
    assert len(body_files(path)) == with_files, "no orphan, no record without its file"
    assert volume.database._rows("PRAGMA integrity_check") == [("ok",)]
    volume.close()
    assert disk_usage(path) <= MIN_SIZE * 1.02
    return found, swept


def rounds(path: Path, count: int) -> tuple[int, int]:
    found = swept = 0
    for seed in range(count):
        kill_under_load(path, seed)
        more, gone = check_whole(path)
        found, swept = found + more, swept + gone
    assert found > 0
    return found, swept


@pytest.mark.fault
def test_killed_at_random_moments(tmp_path: Path) -> None:
    rounds(tmp_path / "cache", 4)


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif("EDGECACHE_CRASH_ROUNDS" not in os.environ, reason="minutes: EDGECACHE_CRASH_ROUNDS=100 runs it")
def test_killed_many_times(tmp_path: Path) -> None:
    count = int(os.environ["EDGECACHE_CRASH_ROUNDS"])
    found, swept = rounds(tmp_path / "cache", count)
    print(f"{2 * count} kills in {count} rounds: {found} records whole, {swept} files swept")
