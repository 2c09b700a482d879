"""The load tests' own parts: what is asked for, what is counted, what is shown; and a run of a few seconds."""

import gzip
import itertools
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.error import URLError

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from loadtests.__main__ import main
from loadtests.bench.procfs import read_tree
from loadtests.bench.tracefile import BadTrace
from loadtests.kit import accesslog
from loadtests.kit.board import KEYS, Board, Cell
from loadtests.kit.content import (
    PERIOD,
    QUANTILES,
    TAIL_FROM,
    Sequence,
    octets,
    size_at,
    size_of,
    version_in,
    versioned,
)
from loadtests.kit.plot import Series, lines, ticks
from loadtests.kit.processes import CannotRun, Origin, Process, until
from loadtests.kit.profile import Run, Sample, nothing_wrong
from loadtests.kit.tally import Tally, bucket, quantile, seconds_of
from loadtests.profiles import PROFILES, slow_readers
from tests.supervisor.kit import alive

ROOT = Path(__file__).resolve().parents[2]


# --- what is asked for ---


@pytest.mark.parametrize(("share", "size"), QUANTILES)
def test_sizes_are_the_published_ones(share: float, size: int) -> None:
    assert abs(size_at(share) - size) <= 1


def test_half_of_the_objects_are_below_the_median() -> None:
    median = sorted(map(size_of, range(4001)))[2000]
    assert 0.8 < median / 9_231 < 1.25


@given(st.integers(0, 1 << 40), st.integers(0, 3 * PERIOD), st.integers(0, 5000), st.integers(0, 5000))
def test_pieces_of_a_body_join(number: int, begin: int, first: int, second: int) -> None:
    middle, end = begin + first, begin + first + second
    assert octets(number, begin, middle) + octets(number, middle, end) == octets(number, begin, end)


def test_a_long_body_is_as_long_as_asked() -> None:
    body = octets(7, 0, 3 * PERIOD + 5)
    assert len(body) == 3 * PERIOD + 5
    assert body[PERIOD : PERIOD + 5] == body[:5]


def test_bodies_of_different_objects_differ() -> None:
    assert len({octets(number, 0, 64) for number in range(2000)}) == 2000


@pytest.mark.parametrize(("body", "version"), [(versioned(3, 41, 100), 41), (b"v12", None), (b"x" * 100, None)])
def test_versions(body: bytes, version: int | None) -> None:
    assert version_in(body) == version


def test_a_sequence_is_the_same_everywhere_and_seven_in_ten_are_asked_for_once() -> None:
    one, other = Sequence(8_000, 5), Sequence(8_000, 5)
    positions = random.Random(1).sample(range(40_000), 40_000)
    asked = {position: one[position] for position in positions}
    assert [other[position] for position in range(40_000)] == [asked[position] for position in range(40_000)]
    times = Counter(asked.values())
    assert 0.65 < sum(count == 1 for count in times.values()) / len(times) < 0.8
    assert sum(number >= TAIL_FROM for number in asked.values()) == pytest.approx(10_000, rel=0.05)


# --- what is counted ---


@given(st.lists(st.floats(1e-6, 100), min_size=1), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_right_to_a_bucket(values: list[float], share: float) -> None:
    found = quantile(Counter(map(bucket, values)), share)
    exact = sorted(values)[max(0, -(-int(share * len(values) * 1000) // 1000) - 1)]
    assert found is not None
    assert min(values) / 1.05 <= found <= max(values) * 1.05
    if len(values) == 1:
        assert found == pytest.approx(exact, rel=0.05)
    assert seconds_of(bucket(found)) == pytest.approx(found)


def test_tallies_add_up_through_json() -> None:
    whole, parts = Tally(), [Tally(), Tally()]
    for number in range(100):
        part = parts[number % 2]
        part.count(number / 10, "requests")
        part.took(number / 10, "requests", 0.001 * number)
    parts[0].note("wrong")
    for part in parts:
        whole.add(json.loads(json.dumps(part.take())))
        assert part.total("requests") == 0
    assert whole.total("requests") == 100
    assert whole.total("requests", range(3)) == 30
    assert sum(whole.latencies("requests").values()) == 100
    assert whole.notes == ["wrong"]


def test_a_wrong_body_breaks_every_promise() -> None:
    seen = Tally()
    seen.count(1, "requests", 5)
    assert all(check.holds for check in nothing_wrong(seen))
    seen.count(1, "wrong")
    seen.note("an octet was off")
    assert [str(check) for check in nothing_wrong(seen) if not check.holds] == [
        "1 answers were wrong: an octet was off"
    ]
    seen = Tally()
    for name in ("requests", "lost", "refused"):
        seen.count(1, name)
    assert [str(check) for check in nothing_wrong(seen) if not check.holds] == [
        "2 requests were left without an answer"
    ]
    assert not all(check.holds for check in nothing_wrong(Tally())), "nothing seen is nothing shown"


def test_a_board_is_shared(tmp_path: Path) -> None:
    with Board(tmp_path / "board", create=True) as mine, Board(tmp_path / "board") as other:
        assert mine.publish(KEYS - 1) == 1
        other.purged(KEYS - 1, 1)
        mine[Cell.ROUND] = 9
        assert (other.version(KEYS - 1), mine.floor(KEYS - 1), other[Cell.ROUND]) == (1, 1, 9)


# --- what is shown ---


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 12
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)


def test_a_plot_holds_no_script_and_nothing_from_elsewhere() -> None:
    svg = lines("a < b", [Series("one", [(0, 1), (1, float("nan")), (2, 3)])], marks=[(1, "<b>")])
    assert "a &lt; b" in svg
    assert "&lt;b&gt;" in svg
    assert "nan" not in svg
    assert "http" not in svg
    assert "nothing was measured" in lines("empty", [Series("one", [])])


# --- how it is run ---


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=100)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such"], "load: there is no profile 'no_such'; there are steady, "),
        (["steady", "--host", "http://127.0.0.1:1"], "load: http://127.0.0.1:1 does not answer: "),
        (["steady", "--users", "100000"], "load: steady with 100000 users needs 200200 file descriptors"),
        (["steady", "--memory", "1KiB"], "load: the edge ended: "),
        (["replay"], "load: replay needs a trace or an access log: --trace FILE"),
        (["video", "--host", "http://127.0.0.1:1"], "load: video has to steer the origin"),
    ],
    ids=["unknown", "unreachable", "descriptors", "memory", "no-trace", "own-origin-only"],
)
def test_what_cannot_be_run(arguments: list[str], said: str, tmp_path: Path) -> None:
    limit = ["sh", "-c", 'ulimit -Hn 4096 2>/dev/null; exec "$@"', "sh"] if "--users" in arguments else []
    done = subprocess.run(
        [*limit, sys.executable, "-m", "loadtests", *arguments, "--report", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)


def test_every_profile_names_its_promise() -> None:
    for name, profile in PROFILES.items():
        assert profile.name == name
        assert profile.title
        assert not profile.title.endswith(".")


@pytest.mark.parametrize(
    ("moments", "kept"),
    [
        pytest.param([0.0, 1.0, 2.5], True, id="a second apart"),
        pytest.param([0.0, 0.97, 2.5], False, id="less"),
        pytest.param([1.0, 0.0, 0.5, 9.0], False, id="noted out of order"),
        pytest.param([0.0], False, id="never renewed"),
    ],
)
def test_one_request_per_key_and_second(moments: list[float], kept: bool) -> None:
    """However few on average."""
    asked = [(at, f"/api/{key}-2000") for key in (1, 2) for at in moments]
    seen = Tally()
    seen.count(0.0, "requests")
    origin = SimpleNamespace(asked=lambda: asked)
    run = Run(Path(), {}, cast("Board", None), cast("Origin", origin), None)
    checks = list(PROFILES["api_microcache"].judge(run, seen))
    assert [check.holds for check in checks if "the origin saw" in check.sentence] == [kept]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            URLError(ConnectionRefusedError(111, "Connection refused")),
            1,
            "BROKEN  the edge does not answer its operator",
        ),
        (TimeoutError("timed out"), 1, "BROKEN  the edge does not answer its operator: timed out"),
        (PermissionError(13, "Permission denied", "/x/steady"), 2, "load: Permission denied: /x/steady"),
        (CannotRun("no"), 2, "load: no"),
    ],
    ids=["refused", "timeout", "report", "cannot"],
)
def test_what_goes_wrong_on_the_way_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("loadtests.__main__.perform", fail)
    done = CliRunner().invoke(main, ["steady"])
    assert done.exit_code == code
    assert said in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("alone_ms", "beside_ms", "kept"),
    [
        pytest.param([10, 10, 10, 10], [11, 11, 11, 11], True, id="a little slower"),
        pytest.param([3, 3, 3, 3], [4, 4, 4, 4], False, id="slower"),
        pytest.param([10, 10, 90, 10], [11, 90, 11, 11], True, id="the machine did something else twice"),
        pytest.param([10, 90, 10, 11, 10, 10], [14, 14, 15, 14, 14, 80], False, id="slower, and something else"),
        pytest.param([3, 9, 5, 20, 4, 5], [8, 3, 11, 4, 7, 21], False, id="perhaps by chance"),
        pytest.param([10, 10, 10], [10, 10, 10], False, id="too short a run"),
    ],
)
def test_slow_readers_are_judged_by_the_medians_of_turns(alone_ms: list[int], beside_ms: list[int], kept: bool) -> None:
    seen, turns = Tally(), []
    for turn, (there, took_ms) in enumerate((kind, ms) for kind in (False, True) for ms in (alone_ms, beside_ms)[kind]):
        begin = 10.0 * turn
        turns.append((there, begin, begin + 5))
        for _ in range(100):
            seen.took(begin + 2, "requests", took_ms / 1000)
    seen.count(0.0, "requests", 100)
    run = Run(Path(), {}, cast("Board", None), cast("Origin", None), None)
    run.facts |= {"turns": turns, "connections at once": 520}
    *others, last = PROFILES["slow_readers"].judge(run, seen)
    assert all(check.holds for check in others)
    assert last.holds == kept
    assert kept or ("try on a quieter machine" in last.broken) == (beside_ms[1] == 3)


@given(n=st.integers(1, 5), m=st.integers(1, 5), seed=st.integers())
def test_a_chance_is_the_share_of_all_orders(n: int, m: int, seed: int) -> None:
    values = [float(value) for value in random.Random(seed).sample(range(100), n + m)]
    above, below = values[:n], values[n:]

    def beyond(chosen: set[float]) -> int:
        return sum(a > b for a in chosen for b in values if b not in chosen)

    orders = [beyond(set(chosen)) for chosen in itertools.combinations(values, n)]
    share = sum(order >= beyond(set(above)) for order in orders) / len(orders)
    assert slow_readers.chance_of(above, below) == pytest.approx(share)


@pytest.mark.parametrize(
    ("across", "films", "sizes", "kept"),
    [
        pytest.param(5, 6, [50, 114], True, id="in slices and across them"),
        pytest.param(0, 6, [50, 114], False, id="never across"),
        pytest.param(5, 5, [50, 114], False, id="one of them not in slices"),
        pytest.param(5, 6, [50, 115], False, id="memory without bound"),
        pytest.param(5, 6, [], False, id="memory never looked at"),
    ],
)
def test_a_run_that_says_nothing_of_slices_keeps_no_promise(
    across: int, films: int, sizes: list[int], kept: bool
) -> None:
    seen = Tally()
    for name, number in (("requests", 10), ("ranges", 10), ("across", across)):
        seen.count(0.0, name, number)
    run = Run(Path(), {}, cast("Board", None), cast("Origin", None), None)
    run.facts["films in slices"] = films
    run.samples = [Sample(0.0, {}, (Process(1, "edgecache", size << 20, 1, 1),), 0) for size in sizes]
    assert all(check.holds for check in PROFILES["video"].judge(run, seen)) == kept


PHASES = ("well", "killed", "back from death", "frozen", "back from the cold", "erring", "back to order")


@pytest.mark.parametrize(
    ("probes", "silent", "at_once", "kept"),
    [
        pytest.param([0.5, 1.5, 2.5], "", 1, True, id="as promised"),
        pytest.param([0.5, 1.4, 2.5], "", 1, False, id="two probes within a second"),
        pytest.param([0.5], "", 1, False, id="no key probed twice"),
        pytest.param([0.5, 1.5], "frozen", 1, False, id="nobody asked while it was frozen"),
        pytest.param([0.5, 1.5], "", 3, False, id="a stampede"),
    ],
)
def test_an_outage_that_says_nothing_keeps_no_promise(
    probes: list[float], silent: str, at_once: int, kept: bool
) -> None:
    seen, asked, phases = Tally(), [], []
    for index, name in enumerate(PHASES):
        begin = 10.0 * index
        phases.append((name, begin, begin + 5))
        seen.count(begin + 2, "requests", 0 if name == silent else 9)
        moments = probes if name == "erring" else [0.5] * at_once if name.startswith("back") else []
        asked += [(begin + at, "/stale/1-5000") for at in moments]
    origin = SimpleNamespace(asked=lambda: asked)
    run = Run(Path(), {}, cast("Board", None), cast("Origin", origin), None)
    run.facts["phases"] = phases
    assert all(check.holds for check in PROFILES["origin_outage"].judge(run, seen)) == kept


@pytest.mark.parametrize("failed", [0, 2])
def test_against_another_target_no_more_is_said_than_was_checked(failed: int) -> None:
    seen = Tally()
    seen.count(0.0, "requests", 10)
    seen.count(0.0, "wrong", failed)
    run = Run(Path(), {}, cast("Board", None), cast("Origin", None), None)
    checks = list(PROFILES["steady"].judge(run, seen))
    assert all(check.holds for check in checks) == (not failed)
    assert not any("body" in check.sentence or "LRU" in check.sentence for check in checks)


class _Foreign(HTMLParser):
    found: list[str]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" or any(name in {"src", "href"} and "//" in (value or "") for name, value in attrs):
            self.found.append(tag)


@pytest.mark.slow
def test_a_run_keeps_its_promise_and_leaves_a_page(tmp_path: Path) -> None:
    if find_spec("locust") is None:  # not imported: it would patch this process's sockets
        pytest.skip("the extra `load` is not installed")
    done = load("flash_crowd", "-u", "30", "-t", "6", "--report", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 objects, each asked for by 30 to 30 clients at once, were fetched exactly once each" in done.stdout
    page = (tmp_path / "flash_crowd" / "report.html").read_text()
    reader = _Foreign()
    reader.found = []
    reader.feed(page)
    assert reader.found == []
    assert "<svg" in page
    assert (tmp_path / "flash_crowd" / "locust.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_a_run_has_started_ends_with_it(number: signal.Signals, tmp_path: Path) -> None:
    if find_spec("locust") is None:
        pytest.skip("the extra `load` is not installed")
    with subprocess.Popen(
        [sys.executable, "-m", "loadtests", "steady", "-t", "60", "--report", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # where these tests run, it may be ignored
    ) as run:  # fmt: skip
        try:
            until(lambda: any(tmp_path.glob("edgecache-load-*/started")), 60)
            tree = set(read_tree([run.pid]))
            assert len(tree) > 6, "itself, the origin, the edge's four or more, locust's three"
            run.send_signal(number)
            run.communicate(timeout=60)
        finally:
            for pid in read_tree([run.pid]):
                os.kill(pid, signal.SIGKILL)
    assert run.returncode == {signal.SIGTERM: 143, signal.SIGHUP: 129}.get(number, run.returncode)
    until(lambda: not any(map(alive, tree)), 30, "the end of all")
    assert not list(tmp_path.glob("edgecache-load-*"))


ENDING = """
import time
from loadtests.ending import end_when_told
end_when_told()
try:
    print("at work", flush=True)
    time.sleep(60)
finally:
    print("ending", flush=True)
    time.sleep(0.5)
    print("ended", flush=True)
"""


def test_who_is_told_again_ends_all_the_same() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDING], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "at work\n"
        run.terminate()
        assert run.stdout.readline() == "ending\n"
        run.terminate()
        run.send_signal(signal.SIGHUP)
        assert run.communicate(timeout=60)[0] == "ended\n"
    assert run.returncode == 128 + signal.SIGTERM


CUT = """
import gevent.monkey
gevent.monkey.patch_all()
import json, sys
from locust.env import Environment
from locust.contrib.fasthttp import FastHttpSession
from loadtests.kit.client import Client, Pace
from loadtests.kit.tally import Tally

session = FastHttpSession(sys.argv[1], Environment().events.request, None)
client = Client(session, Tally(), Pace(0, 1, None), None, {"think_s": 0})
answers = [client.get(path, name=path) for path in ("/whole", "/fin", "/reset", "/failed")]
names = ("requests", "octets", "lost", "status 206", "status 503")
print(json.dumps([[each.status for each in answers], [client.tally.total(name) for name in names], client.tally.notes]))
"""


def test_an_answer_that_is_cut_short_is_lost_not_wrong() -> None:
    """As when the origin, or a worker, dies in the middle of a body: who asked is told, by the connection's end."""
    if find_spec("locust") is None:
        pytest.skip("the extra `load` is not installed")

    def serve(door: socket.socket) -> None:
        for _ in range(4):
            peer, _ = door.accept()
            with peer:
                path = peer.recv(1000).split()[1]
                status = b"503 no" if path == b"/failed" else b"206 part"
                peer.sendall(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n" % status)
                peer.sendall(bytes(500 if path in (b"/fin", b"/reset") else 1000))
                if path == b"/reset":
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as door:
        server = threading.Thread(target=serve, args=(door,))
        server.start()
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", CUT, url], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
        )
        server.join(10)
    assert done.returncode == 0, done.stderr
    statuses, (requests, octets, lost, partial, failed), notes = json.loads(done.stdout)
    assert statuses == [206, 0, 0, 503]
    assert (requests, partial, failed, lost) == (4, 3, 1, 2)
    assert 2500 <= octets <= 3000
    assert len(notes) == 2
    assert all("cut short" in note for note in notes)


# --- access logs ---

LOG = b"""\
10.0.0.1 - - [22/Nov/2026:10:00:00 +0000] "GET /a HTTP/1.1" 200 1000
10.0.0.1 - bob [22/Nov/2026:10:00:01 +0000] "GET /b?x=1 HTTP/1.1" 200 70000 "http://a/" "Agent [x] \\"y\\""
10.0.0.2 - - [22/Nov/2026:10:00:02 +0000] "GET /a HTTP/1.1" 304 -
10.0.0.2 - - [22/Nov/2026:10:00:02 +0000] "POST /a HTTP/1.1" 200 5
10.0.0.2 - - [22/Nov/2026:10:00:02 +0000] "GET /gone HTTP/1.1" 404 5
10.0.0.2 - - [22/Nov/2026:10:00:02 +0000] "GET /never HTTP/1.1" 304 0
nonsense
10.0.0.2 - - [22/Nov/2026:10:00:03 +0000] "GET /a HTTP/1.1" 200 1200
"""


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_an_access_log_is_a_trace(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("access.log.gz" if packed else "access.log")
    path.write_bytes(gzip.compress(LOG) if packed else LOG)
    found = accesslog.read(path)
    assert list(found.trace.asked) == [0, 1, 0, 0]
    assert list(found.trace.sizes)[:2] == [1200, 70_000]
    assert found.left_out == 4


@pytest.mark.parametrize("text", [b"", b"nonsense\n", LOG.splitlines()[3] + b"\n"], ids=["empty", "nonsense", "posts"])
def test_a_log_with_nothing_to_play(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(text)
    with pytest.raises(BadTrace, match=r"access\.log: no line is a GET"):
        accesslog.read(path)
    with pytest.raises(BadTrace, match="No such file"):
        accesslog.read(tmp_path / "none")


@pytest.mark.slow
def test_a_log_is_replayed(tmp_path: Path) -> None:
    if find_spec("locust") is None:
        pytest.skip("the extra `load` is not installed")
    log = tmp_path / "access.log"
    line = '1.2.3.4 - - [22/Nov/2026:10:00:00 +0000] "GET /{} HTTP/1.1" 200 {}\n'
    log.write_text("".join(line.format(n % 40, 100 + n % 40) for n in range(400)))
    done = load("replay", "-u", "4", "-t", "6", "--trace", str(log), "--memory", "16MiB", "--report", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with 16MiB the hit ratio is 90.00%; an LRU of that size has 90.00%" in done.stdout
    assert "this edge, measured" in (tmp_path / "replay" / "report.html").read_text()
