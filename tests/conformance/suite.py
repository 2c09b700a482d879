"""Runs the public HTTP cache tests (npm package http-cache-tests) against a fresh edge with its default configuration.

    python -m tests.conformance.suite [--suite FOLDER] [--only ID…] [--update]

Prints the score by group, beside other caches', and every failing test with its reason. Exit status 1 when a test that
passed according to baseline.json fails, or a deliberate choice is another one now; --update writes that file, and the
table in docs/conformance.md, anew.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.conformance.score import Baseline, Report, Score, Suite

EDITION = "0.4.5"
"""Pinned: a new edition is taken on purpose, with a new baseline."""

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]
_DRIVER = _HERE / "driver.mjs"
BASELINE = _HERE / "baseline.json"
PAGE = _ROOT / "docs" / "conformance.md"
_BEGIN, _END = "<!-- score: written by make conformance ARGS=--update -->\n", "<!-- end of score -->"

INSTALL_S = 120.0
START_S = 30.0
RUN_S = 240.0
"""Limits on what must not hang: installing, starting a process, the suite itself (which takes about half a minute)."""


class CannotRun(Exception):
    """Something that the suite needs is missing or does not start."""


def missing_program() -> str | None:
    """What has to be installed first, if anything."""
    return next((name for name in ("node", "npm") if shutil.which(name) is None), None)


def install() -> Path:
    """The folder of the pinned package, installed if need be. Only what is asked for: no scripts are run.

    It appears whole or not at all, whoever else installs it at the same time.
    """
    home = _ROOT / ".cache" / "conformance"
    done = home / EDITION
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="installing-", dir=home, ignore_cleanup_errors=True) as scratch:
            _npm_install(Path(scratch))
            with contextlib.suppress(OSError):  # somebody else was quicker
                Path(scratch).rename(done)
    return done / "node_modules" / "http-cache-tests"


def _npm_install(folder: Path) -> None:
    (folder / "package.json").write_text('{"private": true}\n')
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"]
    try:
        installed = subprocess.run(
            [*command, f"http-cache-tests@{EDITION}"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotRun(f"npm has not installed the suite within {INSTALL_S:.0f} s") from error
    if installed.returncode != 0:
        raise CannotRun(f"npm could not install the suite:\n{installed.stderr.strip()}")


def run(package: Path, only: Sequence[str] = ()) -> Score:
    """One run of the suite, or of some of its tests, through an edge that has seen nothing yet."""
    with (
        tempfile.TemporaryDirectory(prefix="conformance-") as scratch,
        _origin(package, Path(scratch)) as origin,
        _edge(origin, Path(scratch)) as edge,
    ):
        found = _ask_driver(package, "run", edge, *only)
    return Score(Suite.read(found["suites"]), found["results"])


def others(package: Path) -> list[tuple[str, Score]]:
    """Results of other caches that the package carries, best first."""
    found = _ask_driver(package, "list")
    suite = Suite.read(found["suites"])
    scores = [(f"{other['name']} {other['version']}", Score(suite, other["results"])) for other in found["others"]]
    return sorted(scores, key=lambda named: -len([test for test in suite.tests if named[1].passed(test)]))


def settled(package: Path, score: Score, baseline: Baseline) -> Score:
    """The score after what got worse has been asked once more, alone.

    The suite waits three seconds where a second decides: on a machine that stalls, a test can fail for that alone.
    """
    suspects = [*baseline.lost(score), *baseline.changed(score)]
    if not suspects:
        return score
    tests = score.suite.tests
    wanted: dict[str, None] = {}
    queue = [test_id for test_id in suspects if test_id in tests]
    while queue:
        test_id = queue.pop()
        wanted[test_id] = None
        queue += [other for other in tests[test_id].needs if other not in wanted]
    again = run(package, list(wanted))
    return Score(score.suite, {**score.results, **again.results})


# --- processes ---


@contextlib.contextmanager
def _origin(package: Path, scratch: Path) -> Iterator[str]:
    command = ["node", "--no-warnings", str(_DRIVER), str(package.resolve()), "origin"]
    with _process(command, scratch / "origin", cwd=package) as output:
        (port,) = _wait_for(output, r"^(\d+)$", "the suite's origin")
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _edge(origin: str, scratch: Path) -> Iterator[str]:
    """`edgecache serve` as a user starts it; only addresses differ, and where the token lies."""
    command = [sys.executable, "-m", "edgecache", "serve", "--origin", origin]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("EDGECACHE_")}
    own |= {"EDGECACHE_ADMIN_TOKEN_FILE": str(scratch / "token"), "XDG_STATE_HOME": str(scratch)}
    with _process(command, scratch / "edge", cwd=_ROOT, env=own) as output:
        (address,) = _wait_for(output, r"listening on (http://[0-9.:]+)", "the edge")
        yield address


@contextlib.contextmanager
def _process(command: Sequence[str], output: Path, cwd: Path, env: dict[str, str] | None = None) -> Iterator[Path]:
    """A process that ends with the block; everything it says lands in the file `output`."""
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=cwd, env=env)
        try:
            yield output
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(output: Path, pattern: str, what: str) -> tuple[str, ...]:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if match := re.search(pattern, output.read_text(errors="replace"), re.MULTILINE):
            return match.groups()
        time.sleep(0.05)
    raise CannotRun(f"{what} has not started within {START_S:.0f} s:\n{output.read_text(errors='replace')[-2000:]}")


def _ask_driver(package: Path, *arguments: str) -> dict[str, list[dict[str, object]]]:
    command = ["node", "--no-warnings", str(_DRIVER), str(package.resolve()), *arguments]
    try:
        done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=RUN_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CannotRun(f"the suite has not ended within {RUN_S:.0f} s") from error
    if done.returncode != 0:
        raise CannotRun(f"the suite ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


# --- the page ---


def shown_score() -> str:
    """The table in docs/conformance.md."""
    return PAGE.read_text().partition(_BEGIN)[2].partition(_END)[0]


def _show_score(table: str) -> None:
    before, begin, rest = PAGE.read_text().partition(_BEGIN)
    _old, end, after = rest.partition(_END)
    if not end:
        raise CannotRun(f"{PAGE} has no place for the score")
    PAGE.write_text(before + begin + table + end + after)


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.suite", description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", type=Path, help="a checkout of another edition, instead of the pinned package")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="run these tests and say how each ended")
    parser.add_argument("--update", action="store_true", help="write baseline.json and the table in docs from this run")
    asked = parser.parse_args(arguments)
    if missing := missing_program():
        print(f"the public suite needs {missing}, which is not installed (Debian: apt-get install nodejs npm)")
        return 2
    try:
        package = asked.suite or install()
        score = run(package, asked.only)
        if asked.only:
            for test_id in asked.only:
                print(f"{test_id}: {'passed' if score.results.get(test_id) is True else score.why(test_id)}")
            return 0
        compared = asked.suite is None and not asked.update and BASELINE.exists()
        baseline = Baseline.load(BASELINE) if compared else Baseline(EDITION, frozenset(), {})
        score = settled(package, score, baseline)
        edition = EDITION if asked.suite is None else f"in {asked.suite.name}"
        report = Report(edition, score, others(package))
        for line in report.lines():
            print(line)
    except CannotRun as error:
        print(error)
        return 2
    if asked.update and asked.suite is None:
        Baseline.of(EDITION, score).save(BASELINE)
        _show_score(report.markdown())
    lost, changed = baseline.lost(score), baseline.changed(score)
    for test_id in lost:
        print(f"\nIt passed before: {test_id}: {score.why(test_id)}")
    for test_id in changed:
        print(f"\nChosen otherwise before (docs/conformance.md, then --update): {test_id}: {score.why(test_id)}")
    return 1 if lost or changed else 0


if __name__ == "__main__":
    sys.exit(main())
