"""The benchmark's arithmetic and parsers, and one short run against whatever is installed."""

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadtests.bench import content, generators, procfs, report, targets
from loadtests.bench.generators import BadTable, Load
from loadtests.bench.measure import Sample
from loadtests.bench.rows import GROUPS, ROWS, UnknownRow, Work, select
from loadtests.kit.processes import until
from tests.supervisor.kit import alive

ROOT = Path(__file__).resolve().parents[2]

WRK = """\
Running 2s test @ http://127.0.0.1:18003/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     6.92ms    3.73ms  77.20ms   86.90%
    Req/Sec     5.70k   433.04     6.23k    90.00%
  Latency Distribution
     50%    5.84ms
     75%    8.11ms
     90%   10.93ms
     99%   19.14ms
  11570 requests in 2.04s, 11.30GB read
{errors}Requests/sec:   5667.23
Transfer/sec:      5.54GB
"""

H2LOAD = """\
starting benchmark...
Application protocol: http/1.1

finished in 2.00s, 116046.50 req/s, 138.34MB/s
requests: 232093 total, 232157 started, 232093 done, 232080 succeeded, 13 failed, 2 errored, 1 timeout
status codes: 232070 2xx, 10 3xx, 4 4xx, 6 5xx
traffic: 276.68MB (290116250) total, 39.63MB (41550912) headers (space savings 0.00%), 226.69MB (237699072) data
                     min         max         mean         sd        +/- sd
time for request:      328us      3.27ms       550us        79us    90.95%
"""


def test_wrk_table() -> None:
    load = generators.parse_wrk(WRK.format(errors=""))
    assert load == Load(11570, 2.04, int(11.30 * 1024**3), 5840.0, 19140.0, 0, 0)
    assert load.per_second == pytest.approx(11570 / 2.04)


def test_wrk_pads_seconds_with_a_space() -> None:
    table = WRK.format(errors="").replace("5.84ms", "1.44s ").replace("19.14ms", "2.00m ")
    load = generators.parse_wrk(table)
    assert (load.p50_us, load.p99_us) == (1.44e6, 120e6)


def test_wrk_errors_are_kept() -> None:
    errors = "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 57\n"
    load = generators.parse_wrk(WRK.format(errors=errors))
    assert (load.errors, load.refused) == (4321, 57)


@pytest.mark.parametrize(
    "missing",
    ["requests in", "50%", "99%"],
    ids=["total", "median", "p99"],
)
def test_wrk_table_without_a_figure_is_an_error(missing: str) -> None:
    whole = WRK.format(errors="")
    cut = "\n".join(line for line in whole.splitlines() if missing not in line)
    with pytest.raises(BadTable, match="printed no"):
        generators.parse_wrk(cut)


@given(st.integers(0, len(WRK) - 60))
def test_wrk_table_cut_short_is_an_error(length: int) -> None:
    with pytest.raises(BadTable):
        generators.parse_wrk(WRK[: min(length, WRK.index("read\n"))])


def test_h2load_summary_and_log() -> None:
    log = "".join(f"1795380915622227\t200\t{took}\n" for took in range(100, 0, -1))
    load = generators.parse_h2load(H2LOAD, log)
    assert load == Load(232090, 2.0, 290116250, 50.0, 99.0, 3, 10)


def test_h2load_without_a_log_is_an_error() -> None:
    with pytest.raises(BadTable, match="no request"):
        generators.parse_h2load(H2LOAD, "")


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [("305.94us", 305.94), ("1.20ms", 1200), ("2.00s", 2e6), ("1.50m", 90e6)],
    ids=["us", "ms", "s", "m"],
)
def test_times(text: str, microseconds: float) -> None:
    assert generators.time_us(text) == pytest.approx(microseconds)


@pytest.mark.parametrize("text", ["", "12", "ms", "1.2 ms", "-1ms", "1.20msx"], ids=repr)
def test_what_is_not_a_time(text: str) -> None:
    with pytest.raises(BadTable):
        generators.time_us(text)


@given(st.lists(st.integers(0, 10**6), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentile_is_the_least_that_covers_the_share(values: list[int], share: float) -> None:
    ordered = sorted(values)
    got = generators.percentile(ordered, share)
    assert got in ordered
    assert sum(value <= got for value in ordered) >= share * len(ordered) - 1e-9
    assert sum(value < got for value in ordered) < share * len(ordered)


STAT = "{pid} ({name}) {state} {parent} 1 1 0 -1 4194560 10 0 0 0 {user} {system} 5 6 20 0 1 0 {start} 1000 2 3"


def stat(
    pid: int, parent: int, user: int = 0, system: int = 0, *, name: str = "x", state: str = "S", start: int = 7
) -> str:
    return STAT.format(pid=pid, name=name, state=state, parent=parent, user=user, system=system, start=start)


@pytest.mark.parametrize("name", ["nginx", "a b", ") S 1 (", "tab\tname", "((("], ids=repr)
def test_stat_line_with_any_name(name: str) -> None:
    assert procfs.parse_stat(stat(42, 7, 30, 12, name=name)) == procfs.ProcessStat(42, 7, "S", 42, 7)


def test_tree_is_the_roots_and_their_descendants_without_zombies() -> None:
    lines = [stat(1, 0), stat(10, 1), stat(11, 10), stat(12, 11), stat(13, 10, state="Z"), stat(20, 1), stat(21, 20)]
    stats = [procfs.parse_stat(line) for line in lines]
    assert procfs.tree(stats, [10]) == {10, 11, 12}
    assert procfs.tree(stats, [11, 20]) == {11, 12, 20, 21}
    assert procfs.tree(stats, [99]) == set()


def snapshot(*lines: str) -> dict[int, procfs.ProcessStat]:
    return {one.pid: one for one in map(procfs.parse_stat, lines)}


def test_spent_ticks() -> None:
    before = snapshot(stat(1, 0, 100, 50), stat(2, 1, 10, 0), stat(3, 1, 500, 0, start=7))
    after = snapshot(stat(1, 0, 130, 60), stat(3, 1, 4, 0, start=99), stat(4, 1, 2, 1))
    assert procfs.spent_ticks(before, after) == 40 + 4 + 3  # grown; a reused PID counts anew; one that began


def test_cpu_per_request() -> None:
    assert procfs.cpu_us_per_request(300, 500_000, ticks_per_s=100) == pytest.approx(6.0)
    assert procfs.cpu_us_per_request(300, 0) != procfs.cpu_us_per_request(300, 0)  # not a number


def test_core_shares() -> None:
    head = "cpu  1 2 3 4 5 6 7 8 0 0\n"
    before = procfs.parse_cores(head + "cpu0 100 0 50 800 10 0 40 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n")
    after = procfs.parse_cores(head + "cpu0 150 0 80 815 10 0 40 5 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 9\n")
    assert set(before) == {0, 1}
    assert after[0].busy_since(before[0]) == pytest.approx(0.85)
    assert after[0].stolen_since(before[0]) == pytest.approx(0.05)
    assert after[1].busy_since(before[1]) == 0.0


def test_pss() -> None:
    assert procfs.parse_pss_kib("00400000-7fff [rollup]\nRss:  900 kB\nPss:    321 kB\nPss_Anon: 300 kB\n") == 321
    with pytest.raises(ValueError, match="Pss"):
        procfs.parse_pss_kib("Rss: 1 kB\n")


def test_zipf_sequence_is_repeatable_and_within_bounds() -> None:
    one = content.zipf_sequence(1000, 0.9, 5000)
    assert one == content.zipf_sequence(1000, 0.9, 5000)
    assert one != content.zipf_sequence(1000, 0.9, 5000, seed=21)
    assert len(one) == 5000
    assert min(one) >= 0
    assert max(one) < 1000


def test_zipf_sequence_has_the_law_s_frequencies() -> None:
    objects, length, exponent = 1000, 200_000, 0.9
    counts = [count for _, count in Counter(content.zipf_sequence(objects, exponent, length)).most_common()]
    total = sum(rank**-exponent for rank in range(1, objects + 1))
    for rank in (1, 2, 4, 8, 16, 32):
        assert counts[rank - 1] == pytest.approx(length * rank**-exponent / total, rel=0.1)


def test_zipf_popularity_does_not_follow_the_numbers() -> None:
    popular = [number for number, _ in Counter(content.zipf_sequence(10_000, 0.9, 50_000)).most_common(10)]
    assert popular != sorted(popular)
    assert max(popular) > 1000


def test_bodies() -> None:
    assert content.sized_body(30) == b"abcdefghijklmnopqrstuvwxyzabcd"
    assert content.expected_body("/s/1048576") == content.expected_body("/pass/1048576")
    assert content.expected_body("/o/7").startswith(b"object 7\nabc")
    assert {len(content.expected_body(f"/o/{number}")) for number in (0, 10, 99_999)} == {1024}


def test_every_row_is_in_a_group_and_named_once() -> None:
    assert {row.group for row in ROWS} == set(GROUPS)
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert not {row.name for row in ROWS} & set(GROUPS)


def test_rows_are_chosen_by_row_and_by_group() -> None:
    assert select(()) == ROWS
    assert [row.name for row in select(("tls-1m", "hits"))] == ["hit-1k", "hit-16k", "hit-256k", "hit-1m", "tls-1m"]
    with pytest.raises(UnknownRow, match="'hit-2k'"):
        select(("hit-2k",))


def test_targets_name_rows_that_exist() -> None:
    names = {row.name for row in ROWS}
    assert {target.row for target in targets.TARGETS} <= names
    assert {target.against_row for target in targets.TARGETS} <= names | {""}


def sample(row: str, server: str, cpu_us: float, **changed: object) -> Sample:
    load = Load(100_000, 1.0, 130_000_000, 200.0, 900.0, 0, 0)
    fields: dict[str, object] = {
        "load": load,
        "memory_bytes": 10 << 20,
        "disk_bytes": 0,
        "origin_requests": 0,
        "log_lines": 100_000,
        "server_busy": 0.99,
        "load_busy": 0.80,
        "others": 0.0,
        "stolen": 0.0,
        "same_processes": True,
    }
    return Sample(row=row, server=server, cpu_us=cpu_us, **(fields | changed))  # type: ignore[arg-type]


def load(**changed: object) -> Load:
    fields: dict[str, object] = {
        "requests": 100_000,
        "seconds": 1.0,
        "bytes_read": 130_000_000,
        "p50_us": 1.0,
        "p99_us": 2.0,
        "errors": 0,
        "refused": 0,
    }
    return Load(**(fields | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"load": load(errors=3)}, "3 requests without an answer"),
        ({"load": load(refused=7)}, "7 of 100,000 answers 4xx or 5xx"),
        ({"load": load(bytes_read=20_000_000)}, "200 bytes per answer: bodies are missing"),
        ({"load": load(requests=0)}, "no request was answered"),
        ({"origin_requests": 5000}, "5,000 of 100,000 requests reached the origin"),
        ({"log_lines": 90_000}, "10.0% of the access log's lines are missing"),
        ({"server_busy": 0.7, "load_busy": 1.0}, "limited by the load generator, not the server"),
        ({"others": 0.2}, "others used 20% of its core"),
        ({"stolen": 0.05}, "the hypervisor took 5%"),
        ({"same_processes": False}, "processes came or went during a turn"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_went_wrong_is_said(changed: dict[str, object], said: str) -> None:
    (row,) = select(("hit-1k",))
    assert report.remarks(row, [sample("hit-1k", "nginx", 9.0)]) == ()
    (remark,) = report.remarks(row, [sample("hit-1k", "nginx", 9.0, **changed)])
    assert remark.startswith(said)


def test_a_body_in_a_304_row_is_said() -> None:
    (row,) = select(("not-modified",))
    assert row.work is Work.NOT_MODIFIED
    (remark,) = report.remarks(row, [sample("not-modified", "nginx", 9.0)])
    assert "not all were 304" in remark


def test_medians_and_ratios() -> None:
    turns = [sample("hit-1k", "edgecache", cpu) for cpu in (6.0, 60.0, 5.0)] + [sample("hit-1k", "nginx", 12.0)]
    own, nginx = report.cells(ROWS, turns)
    assert (own.cpu_us, nginx.cpu_us) == (6.0, 12.0)
    assert report.ratio(own.cpu_us, nginx.cpu_us) == pytest.approx(0.5)
    assert report.ratio(own.cpu_us, 0.0) is None
    assert report.ratio(float("nan"), 1.0) is None
    assert report.ratio(1.0, None) is None


def test_table_has_the_ratios_and_fits_into_100_columns() -> None:
    bases = ["floor", "haproxy", "nginx", "varnish"]
    turns = [sample("hit-1k", name, cpu) for name, cpu in zip(["edgecache", *bases], (6, 5, 8, 12, 24), strict=True)]
    console = Console(width=100, record=True, file=io.StringIO())
    report.show(console, {"machine": "one"}, report.cells(ROWS, turns), (), bases)
    lines = console.export_text().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    (own,) = (line for line in lines if line.strip().startswith("edgecache"))
    assert own.split()[2:7] == ["6.00", "1.20", "0.75", "0.50", "0.25"]


def test_json_has_no_word_for_not_a_number() -> None:
    turns = [sample("hit-1k", "nginx", float("nan"), load=load(requests=0))]
    written = json.dumps(report.as_json({}, report.cells(ROWS, turns), ()), allow_nan=False)
    (cell,) = json.loads(written)["cells"]
    assert cell["medians"]["cpu_us"] is None
    assert cell["turns"][0]["cpu_us"] is None
    assert cell["remarks"] == ["no request was answered"]


def test_targets_are_judged_against_the_best() -> None:
    figures = {
        ("hit-16k", "edgecache"): {"cpu_us": 8.0},
        ("hit-16k", "nginx"): {"cpu_us": 12.0},
        ("hit-16k", "varnish"): {"cpu_us": 10.0},
        ("workers-1", "edgecache"): {"cpu_us": 5.0},
        ("workers-2", "edgecache"): {"cpu_us": 6.0},
    }
    by_row = {outcome.target.row: outcome for outcome in targets.judge(figures)}
    assert set(by_row) == {"hit-16k", "workers-2"}
    assert (by_row["hit-16k"].against, by_row["hit-16k"].ratio, by_row["hit-16k"].met) == ("varnish", 0.8, True)
    assert by_row["workers-2"].ratio == pytest.approx(1.2)
    assert not by_row["workers-2"].met


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "hit-2k"], "no row or group is called 'hit-2k'"),
        (["--peers", "apache"], "no peer is called 'apache'"),
        (["--server-core", "0", "--load-core", "0"], "two different cores"),
        (["--worker-cores", "a"], "--worker-cores wants numbers"),
    ],
    ids=["row", "peer", "cores", "worker-cores"],
)
def test_what_cannot_be_run_as_asked(arguments: list[str], said: str) -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    done = run_bench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr.replace("\n", " ")


def test_a_missing_generator_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = run_bench("--generator", "wrk")
    assert done.returncode == 2
    assert "apt-get install wrk" in done.stderr


@pytest.mark.e2e
def test_short_run_against_what_is_installed(tmp_path: Path) -> None:
    peer = next((name for name in ("nginx", "haproxy", "varnishd") if shutil.which(name)), None)
    if not shutil.which("wrk") or peer is None:
        pytest.skip("wrk and one of nginx, haproxy and varnish are needed")
    peer = peer.removesuffix("d")
    written = tmp_path / "figures.json"
    done = run_bench("--quick", "--only", "hit-1k,pass", "--peers", peer, "--json", str(written))
    assert done.returncode == 0, done.stderr
    found = json.loads(written.read_text())
    figures = {(cell["row"], cell["server"]): cell for cell in found["cells"]}
    assert {("hit-1k", "floor"), ("hit-1k", peer), ("pass-1k", "origin"), ("pass-1k", peer)} <= set(figures)
    for (row, server), cell in figures.items():
        (turn,) = cell["turns"]
        assert turn["load"]["requests"] > 100, (row, server)
        assert (turn["load"]["errors"], turn["load"]["refused"]) == (0, 0)
        assert cell["medians"]["cpu_us"] > 0
    assert figures["hit-1k", peer]["turns"][0]["origin_requests"] == 0
    passed = figures["pass-1k", peer]["turns"][0]
    assert passed["origin_requests"] >= passed["load"]["requests"]
    assert peer in done.stdout


@pytest.mark.e2e
def test_what_a_benchmark_has_started_ends_with_it() -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is needed")
    with subprocess.Popen(
        [sys.executable, "-m", "loadtests.bench", "--only", "hit-1k", "--peers", "none", "--seconds", "30"],
        stderr=subprocess.DEVNULL, cwd=ROOT,
    ) as bench:  # fmt: skip
        try:
            until(lambda: "wrk" in _tree(bench.pid).values(), 60, "the load")
            tree = _tree(bench.pid)
            assert {"origin", "edgecache", "floor", "wrk"} <= set(tree.values())
            bench.terminate()
            assert bench.wait(60) == 128 + signal.SIGTERM
        finally:
            bench.kill()
    until(lambda: not any(map(alive, tree)), 30, "the end of all")


def _tree(root: int) -> dict[int, str]:
    """Who is there, by PID, and what it is called."""
    found: dict[int, str] = {}
    for pid in procfs.read_tree([root]):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
    return found
