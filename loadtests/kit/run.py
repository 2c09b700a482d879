"""One run from its beginning to its report: the edge and its origin are started, locust is, the director does its part,
and what was seen is judged.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from loadtests.kit import page
from loadtests.kit.board import Board, Cell
from loadtests.kit.processes import ROOT, CannotRun, Edge, Origin, free_port, running
from loadtests.kit.profile import Check, Profile, Run, Sample
from loadtests.kit.tally import Tally

FILES_BASE = 200
SAMPLE_EVERY_S = 1.0
WEB_STAYS_S = 20
"""How long locust's page stays after the load has ended."""
END_LIMIT_S = 90.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line; None: the profile's own."""

    users: int | None = None
    seconds: int | None = None
    processes: int = 2
    rate: float | None = None
    host: str | None = None
    web: bool = False
    seed: int = 1
    workers: int = 2
    memory: str | None = None
    report: Path = Path("load-report")
    trace: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    checks: list[Check]
    page: Path
    table: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        return all(check.holds for check in self.checks)


def need_files(profile: Profile, users: int) -> None:
    """Raise this process's limit on descriptors to what the system grants. Raises `CannotRun` if that is too low."""
    least = FILES_BASE + profile.files
    needed = least + 2 * users
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise CannotRun(
            f"{profile.name} with {users} users needs {needed} file descriptors and the system grants {hard}: "
            f"raise it (ulimit -Hn)" + (", or ask for fewer with --users" if users > 1 and hard > least else "")
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if value and (tag, name) in _LINKS]


_LINKS = frozenset({("a", "href"), ("link", "href"), ("script", "src"), ("img", "src")})


def paths_of(host: str) -> list[str]:
    """The first page of a site and what it links to on the same host. Raises `CannotRun` if it does not answer."""
    try:
        with urllib.request.urlopen(host + "/", timeout=5) as response:
            text = response.read(1 << 20).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        error.close()
        return ["/"]
    except (OSError, ValueError) as error:
        raise CannotRun(f"{host} does not answer: {getattr(error, 'reason', error)}") from None
    links = _Links()
    links.feed(text)
    paths = ["/"]
    for link in links.found:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(host + "/", link))
        if f"{parts.scheme}://{parts.netloc}" == host and parts.path not in paths:
            paths.append(parts.path)
    return paths


def configuration(profile: Profile, wish: Wish, origin_url: str, folder: Path) -> dict[str, Any]:
    """The edge's, with what only this run knows."""
    config = deepcopy(profile.config)
    config.setdefault("workers", wish.workers)
    sites = config.setdefault("sites", [{"origin": {"url": "ORIGIN"}}])
    for site in sites:
        site["origin"]["url"] = origin_url
    if wish.memory is not None:
        config.setdefault("memory", {})["size"] = wish.memory
    if profile.disk:
        config.setdefault("disk", {})["path"] = str(folder / "disk")
    return config


def perform(profile: Profile, wish: Wish) -> Outcome:
    """Make the run. Raises `CannotRun`."""
    users = wish.users or profile.users
    seconds = wish.seconds or profile.seconds
    need_files(profile, users)
    host = wish.host.rstrip("/") if wish.host else None
    if host and not profile.elsewhere:
        raise CannotRun(f"{profile.name} has to steer the origin: it runs against its own edge only, without --host")
    if profile.trace and wish.trace is None:
        raise CannotRun(f"{profile.name} needs a trace or an access log: --trace FILE")
    paths = paths_of(host) if host else None
    report = wish.report / profile.name
    report.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgecache-load-") as name:
        folder = Path(name)
        with Board(folder / "board", create=True) as board:
            origin = Origin(folder, board.path)
            edge = None
            try:
                if host is None:
                    edge = Edge(folder, configuration(profile, wish, origin.url, folder))
            except BaseException:
                origin.kill()
                raise
            plan = {
                "profile": profile.name,
                "folder": name,
                "board": str(board.path),
                "users": users,
                "seconds": seconds,
                "processes": wish.processes,
                "rate": wish.rate,
                "think_s": profile.think_s,
                "seed": wish.seed,
                "paths": paths,
                "host": host or edge.url,  # type: ignore[union-attr]
                "trace": str(wish.trace.resolve()) if wish.trace else None,
                "objects": max(200, (wish.rate or 600) * seconds // 5),
                **profile.extra,
            }
            plan["objects"] = int(plan["objects"])
            run = Run(folder, plan, board, origin, edge)
            with running(origin, edge):
                seen = _load(profile, run, wish, report)
            checks = list(profile.judge(run, seen))
            written = report / "report.html"
            page.write(
                written, page.render(profile, run, seen, checks, profile.sections(run), html_of_locust="locust.html")
            )
            return Outcome(checks, written, run.table)


def _load(profile: Profile, run: Run, wish: Wish, report: Path) -> Tally:
    """Start locust, direct, wait, and read what was seen."""
    plan = run.plan
    profile.prepare(run)
    (run.folder / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py")]
    command += ["--host", plan["host"], "-u", str(plan["users"]), "-r", str(plan["users"])]
    command += ["-t", f"{plan['seconds']}s", "--stop-timeout", "20", "--processes", str(plan["processes"])]
    command += ["--html", str(report / "locust.html"), "--loglevel", "ERROR", "--only-summary"]
    command += (
        ["--autostart", "--autoquit", str(WEB_STAYS_S), "--web-host", "127.0.0.1"] if wish.web else ["--headless"]
    )
    port = str(free_port())
    command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    environment = os.environ | {"EDGECACHE_LOAD_PLAN": str(run.folder / "plan.json"), "PYTHONPATH": str(ROOT)}
    log = run.folder / "locust.log"
    output = None if wish.web else log.open("wb")
    locust = subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT if output else None, env=environment, start_new_session=True
    )
    try:
        _await_start(run, locust, log)
        run.over = lambda: locust.poll() is not None
        stop = threading.Event()
        sampler = threading.Thread(target=_sample, args=(run, stop), daemon=True)
        sampler.start()
        try:
            profile.direct(run)
            locust.wait(run.left() + END_LIMIT_S)
            _await_files(run)
        finally:
            stop.set()
            sampler.join(10)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"locust did not end within {END_LIMIT_S:g} s of its time") from None
    except KeyboardInterrupt:
        locust.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            locust.wait(30)
    finally:
        if output is not None:
            output.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(locust.pid, signal.SIGKILL)
        locust.wait()
    profile.after(run)
    seen = Tally()
    found = list(run.folder.glob("seen-*.json"))
    if len(found) < plan["processes"]:
        tail = log.read_text(errors="replace")[-400:] if log.exists() else ""
        raise CannotRun(f"a locust process ended without a word of what it saw: {' '.join(tail.split())}")
    for file in found:
        seen.add(json.loads(file.read_text()))
    return seen


def _await_files(run: Run) -> None:
    """What each of locust's processes saw: they end a little after the one that was waited for."""
    until = time.monotonic() + 30
    while len(list(run.folder.glob("seen-*.json"))) < run.plan["processes"] and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)


def _await_start(run: Run, locust: subprocess.Popen[bytes], log: Path) -> None:
    started = run.folder / "started"
    until = time.monotonic() + 60
    while not started.exists():
        if locust.poll() is not None or time.monotonic() > until:
            tail = log.read_text(errors="replace")[-400:] if log.exists() else ""
            raise CannotRun(f"locust did not start: {' '.join(tail.split())}")
        time.sleep(0.05)
    run.began = time.monotonic()
    run.ends = run.began + run.plan["seconds"]


def _sample(run: Run, stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_EVERY_S if run.samples else 0.1):
        if run.edge is None:
            continue
        try:
            stats = run.edge.stats()
        except (OSError, ValueError):
            continue  # it is being restarted
        processes = tuple(run.edge.processes())
        run.samples.append(Sample(time.monotonic(), stats, processes, run.board[Cell.ORIGIN_REQUESTS]))


def sentences(outcome: Outcome) -> Iterator[str]:
    if outcome.table:
        yield from (f"| {' | '.join(row)} |" for row in (page.GRID, ("---",) * len(page.GRID), *outcome.table))
    for check in outcome.checks:
        yield f"{'kept  ' if check.holds else 'BROKEN'}  {check}"
    yield f"report: {outcome.page}"
