"""The trace runner: what it reads, what it compares with, and a small run of both modes."""

import json
import lzma
import random
import subprocess
import sys
from array import array
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from edgecache._native.arena import Arena
from loadtests.bench import reference, traces
from loadtests.bench.tracefile import BadTrace, Trace, read, zipf

ROOT = Path(__file__).resolve().parents[2]
HEAD = {"name": "small", "requests": 3, "objects": 2}


def column(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


COLUMNS = column(5, 6, 7) + column(0, 1, 0) + column(100, 70_000)


def packed(head: object, columns: bytes) -> bytes:
    line = head if isinstance(head, bytes) else json.dumps(head).encode()
    return lzma.compress(line + b"\n" + columns)


def save(trace: Trace, path: Path) -> Path:
    head = {"name": trace.name, "requests": len(trace.asked), "objects": len(trace.sizes)}
    path.write_bytes(packed(head, column(*range(len(trace.asked)), *trace.asked, *trace.sizes)))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(traces.main, [str(argument) for argument in arguments])


# --- the format ---


def test_what_a_trace_says(tmp_path: Path) -> None:
    path = tmp_path / "small.req.xz"
    path.write_bytes(packed(HEAD, COLUMNS))
    trace = read(path)
    assert (trace.name, list(trace.asked), list(trace.sizes)) == ("small", [0, 1, 0], [100, 70_000])
    assert (trace.footprint, trace.octets) == (70_100, 70_200)


def test_a_trace_without_a_name_has_its_files(tmp_path: Path) -> None:
    path = tmp_path / "monday.req.xz"
    path.write_bytes(packed({"requests": 3, "objects": 2}, COLUMNS))
    assert read(path).name == "monday"


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    made = zipf(objects=50, requests=200)
    assert read(save(made, tmp_path / "x.req.xz")) == made


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (b"", "ended before the end-of-stream|Compressed file ended"),
        (b"plain text, not xz", "format not supported"),
        (packed(HEAD, COLUMNS)[:-20], "Compressed file ended|Corrupt"),
        (packed(b"not json", COLUMNS), "first line is not a JSON object"),
        (packed([1, 2], COLUMNS), "first line is not a JSON object"),
        (packed(b"\xff\xfe", b""), "first line is not a JSON object"),
        (packed({"objects": 2}, COLUMNS), '"requests" .* not None'),
        (packed({**HEAD, "objects": 0}, COLUMNS), '"objects" .* not 0'),
        (packed({**HEAD, "requests": True}, COLUMNS), '"requests" .* not True'),
        (packed({**HEAD, "requests": 1 << 40}, COLUMNS), '"requests" .* from 1 to 268435456'),
        (packed(HEAD, COLUMNS[:10]), "column time has 10 octets where 12 are due"),
        (packed(HEAD, COLUMNS[:-1]), "column size has 7 octets where 8 are due"),
        (packed(HEAD, COLUMNS + b"x"), "more after the last column"),
        (packed(HEAD, column(0, 0, 0, 0, 2, 0, 9, 9)), "object 2 is asked for, of 2"),
        (packed(HEAD, column(0, 0, 0, 0, 1, 0, 0, 0)), "no object has a size"),
    ],
    ids=[
        "empty", "not xz", "cut off", "no JSON", "no object", "no UTF-8", "missing", "zero", "true", "huge",
        "short", "one short", "long", "out of range", "weightless",
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path: Path, octets: bytes, message: str) -> None:
    path = tmp_path / "bad.req.xz"
    path.write_bytes(octets)
    with pytest.raises(BadTrace, match=f"{path}: .*({message})"):
        read(path)
    told = run(path)
    assert told.exit_code == 2
    assert str(path) in told.stderr
    assert not told.stdout


@pytest.mark.parametrize("octet", range(0, 200, 3))
def test_any_damage_is_an_error_or_the_same_trace(tmp_path: Path, octet: int) -> None:
    whole = packed(HEAD, COLUMNS)
    path = tmp_path / "bad.req.xz"
    place = octet % len(whole)
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
    with pytest.raises(BadTrace):
        read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    told = run(tmp_path / "none.req.xz")
    assert told.exit_code == 2
    assert "none.req.xz: No such file or directory" in told.stderr
    assert run(tmp_path).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [["--sizes", "0"], ["--sizes", "1,x"], ["--sizes", "101"], ["--max-object", "big"], ["--max-object", "0"]],
    ids=lambda arguments: " ".join(arguments),
)
def test_bad_options(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


# --- the references ---


def naive_lru(asked: list[int], sizes: list[int], capacity: int) -> int:
    cached: list[int] = []
    hits = 0
    for number in asked:
        if number in cached:
            hits += 1
            cached.remove(number)
        elif sizes[number] > capacity:
            continue
        cached.append(number)
        while sum(sizes[other] for other in cached) > capacity:
            del cached[0]
    return hits


@given(st.lists(st.integers(0, 9), min_size=1, max_size=80), st.integers(1, 60), st.integers(0, 5))
def test_the_reference_lru(asked: list[int], capacity: int, seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.randint(1, 30) for _ in range(10)]
    trace = Trace("x", array("I", asked), array("I", sizes))
    assert reference.play("lru", trace, capacity, 1 << 30).count == naive_lru(asked, sizes, capacity)


@pytest.mark.parametrize(("policy", "left"), [("lru", {5, 6, 7, 8}), ("sieve", {1, 6, 7, 8})])
def test_sieve_passes_over_what_was_used(policy: str, left: set[int]) -> None:
    """Four places. The hand clears 1 and takes 2, 3, 4 and then 5, where LRU takes 1."""
    cache = reference.POLICIES[policy](4)
    hits = [number for number in (1, 2, 3, 4, 1, 5, 6, 7, 8) if cache.ask(number, 1)]
    assert (hits, cache.used) == ([1], 4)
    assert {number for number in left if cache.ask(number, 1)} == left


def test_s3fifo_moves_on_what_was_used_twice_and_what_comes_back() -> None:
    cache = reference.S3Fifo(10)
    for number in (1, 1, 1, *range(2, 13)):
        cache.ask(number, 1)
    assert list(cache.main) == [1]
    assert (2 in cache.ghosts, 2 in cache.uses) == (True, False)
    assert not cache.ask(2, 1)
    assert list(cache.main) == [1, 2]
    assert cache.used == 10


@pytest.mark.parametrize("policy", traces.POLICIES)
def test_the_arena_is_the_reference_when_it_counts_as_that_does(policy: str) -> None:
    trace = zipf(objects=3000, requests=30_000)
    told: list[int] = []
    row = traces.measure(trace, [0.05], exact=True, max_object=1, told=told.append)[0]
    assert sum(told) == 30_000 * 6
    assert row.policies[policy] == pytest.approx(row.exact_policies[policy], abs=1e-4 if policy == "s3fifo" else 0)
    assert row.exact_policies["lru"] == row.exact_lru
    assert 0.1 < row.policies[policy][0] < 0.9


def test_a_tight_arena_holds_what_is_asked_of_it() -> None:
    """About the least size there is, with objects large and small."""
    trace = zipf(objects=3000, requests=20_000)
    for policy in traces.POLICIES:
        arena = Arena(9 << 20, eviction=policy)
        keys = random.Random(1).randbytes(16 * len(trace.sizes))
        hits = traces.play(arena, keys, trace, lambda _: None)
        arena.check()
        stats = arena.stats()
        assert stats["hits"] == hits.count > 1000
        assert stats["misses"] == len(trace.asked) - hits.count
        assert stats["evictions"] > 1000


# --- runs ---


def test_a_small_run_as_shipped(tmp_path: Path) -> None:
    path = save(zipf(objects=8000, requests=40_000), tmp_path / "small.req.xz")
    out = tmp_path / "out.json"
    told = run(path, "--sizes", "1,20", "--max-object", "256KiB", "--json", out)
    assert told.exit_code == 0, told.output
    assert "too small" in told.stdout
    assert "it needs at least" in told.stdout
    assert "larger than 256KiB, which never enter" in told.stdout
    result = json.loads(out.read_text())
    small, large = result["rows"]
    assert (small["policies"], large["impossible"]) == ({}, "")
    assert set(large["policies"]) == {"lru", "sieve", "s3fifo"}
    for i in (0, 1):
        below = large["exact_lru"][i] - large["policies"]["lru"][i]
        assert -0.001 < below < 0.02
    assert large["policies"]["s3fifo"][0] > large["policies"]["lru"][0]


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "loadtests.bench.traces", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert "--exact" in told.stdout


def test_an_exact_run_to_stdout(tmp_path: Path) -> None:
    path = save(zipf(objects=2000, requests=10_000), tmp_path / "small.req.xz")
    told = run(path, "--exact", "--sizes", "0.1,10", "--json", "-")
    assert told.exit_code == 0, told.output
    result = json.loads(told.stdout)
    assert result["exact"] is True
    assert [row["impossible"] for row in result["rows"]] == ["", ""]
    for row in result["rows"]:
        assert row["policies"]["lru"] == row["exact_lru"]
    assert "lru 0.000000, sieve 0.000000" in result["remarks"][-1]
