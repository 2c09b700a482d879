"""The load generators, wrk and h2load: how each is started for a row, and how the table it prints is read.

Parsers are fed text and return a `Load`; a table that lacks a figure the benchmark needs is an error, never a zero.
Neither checks a body: `verify` does that before, and `bytes_read` tells afterwards whether bodies kept coming.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .rows import Row, Work

_TIME_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}
_SIZE = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


class BadTable(ValueError):
    """The generator printed something else than its table; the message holds what it printed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a generator saw in one turn. `errors`: requests without an answer; `refused`: answers of 4xx, 5xx."""

    requests: int
    seconds: float
    bytes_read: int
    p50_us: float
    p99_us: float
    errors: int
    refused: int

    @property
    def per_second(self) -> float:
        """Requests completed per second."""
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Shot:
    """One turn to run: the row, where, for how long, and the files made for it in `work_dir`."""

    row: Row
    url: str
    seconds: int
    etag: str
    work_dir: Path


class Generator(Protocol):
    """A load generator that runs in one thread on one core."""

    name: str
    install: str

    def version(self) -> str:
        """The version it reports, or an empty string."""
        ...

    def command(self, shot: Shot) -> list[str]:
        """The command line for a turn."""
        ...

    def read(self, output: str, shot: Shot) -> Load:
        """The figures in what it printed."""
        ...


def time_us(text: str) -> float:
    """``305.94us``, ``1.20ms`` or ``2.00s`` in microseconds."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m|h)", text)
    if match is None:
        raise BadTable(f"not a time: {text!r}")
    return float(match[1]) * _TIME_US[match[2]]


def size_bytes(text: str) -> int:
    """``351.51MB`` in bytes; both generators mean powers of 1024."""
    match = re.fullmatch(r"([\d.]+)([KMGT]?)i?B", text)
    if match is None:
        raise BadTable(f"not a size: {text!r}")
    return int(float(match[1]) * _SIZE[match[2]])


def _find(pattern: str, output: str) -> re.Match[str]:
    match = re.search(pattern, output, re.MULTILINE)
    if match is None:
        raise BadTable(f"the load generator printed no {pattern!r} line:\n{output.strip()}")
    return match


def parse_wrk(output: str) -> Load:
    """The table of ``wrk --latency``. Error lines are printed only when there are errors."""
    total = _find(r"^\s*(\d+) requests in ([\d.]+\w+), ([\d.]+\w+) read$", output)
    socket = re.search(
        r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)$", output, re.MULTILINE
    )
    refused = re.search(r"^\s*Non-2xx or 3xx responses: (\d+)$", output, re.MULTILINE)
    return Load(
        requests=int(total[1]),
        seconds=time_us(total[2]) / 1e6,
        bytes_read=size_bytes(total[3]),
        p50_us=time_us(_find(r"^\s*50%\s+(\S+)\s*$", output)[1]),
        p99_us=time_us(_find(r"^\s*99%\s+(\S+)\s*$", output)[1]),
        errors=sum(int(count) for count in socket.groups()) if socket else 0,
        refused=int(refused[1]) if refused else 0,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of an ordered list, `share` of 0 to 1."""
    if not ordered:
        raise BadTable("the load generator logged no request")
    return float(ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))])


def parse_h2load(output: str, log: str) -> Load:
    """The summary of ``h2load --h1``; its ``--log-file`` (start, status, microseconds) has the percentiles."""
    finished = _find(r"^finished in ([\d.]+\w+),", output)
    counts = _find(r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    codes = _find(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    traffic = _find(r"^traffic: \S+ \((\d+)\) total", output)
    took = sorted(int(line.split("\t")[2]) for line in log.splitlines() if line)
    answered = sum(int(code) for code in codes.groups())
    return Load(
        requests=answered,
        seconds=time_us(finished[1]) / 1e6,
        bytes_read=int(traffic[1]),
        p50_us=percentile(took, 0.50),
        p99_us=percentile(took, 0.99),
        errors=int(counts[4]) + int(counts[5]),
        refused=int(codes[3]) + int(codes[4]),
    )


_ZIPF_LUA = """\
-- Asks for the paths of a file in turn, all made before the clock starts.
local requests, last, position = {}, 0, 0
init = function(arguments)
  local made = {}
  for path in io.lines(arguments[1]) do
    local request = made[path]
    if not request then
      request = wrk.format("GET", path)
      made[path] = request
    end
    last = last + 1
    requests[last] = request
  end
end
request = function()
  position = position % last + 1
  return requests[position]
end
"""


class Wrk:
    """wrk, one thread. It offers AES-256-GCM first for TLS 1.3, as OpenSSL does by default."""

    name = "wrk"
    install = "apt-get install wrk"

    def version(self) -> str:
        """Read from its usage text: it has no quiet way to say."""
        from .process import first_line

        return first_line(["wrk", "-v"]).removeprefix("wrk ").split(" [")[0]

    def command(self, shot: Shot) -> list[str]:
        """The latency table is asked for; a script only where paths differ, since it costs wrk time per request."""
        row = shot.row
        command = ["wrk", "-t1", f"-c{row.connections}", f"-d{shot.seconds}s", "--timeout", "10s", "--latency"]
        if row.work is Work.NOT_MODIFIED:
            command += ["-H", f"If-None-Match: {shot.etag}"]
        if row.work is Work.ZIPF:
            script = shot.work_dir / "zipf.lua"
            script.write_text(_ZIPF_LUA)
            return [*command, "-s", str(script), shot.url, "--", str(shot.work_dir / "zipf.paths")]
        return [*command, shot.url + row.path]

    def read(self, output: str, shot: Shot) -> Load:  # noqa: ARG002 - h2load needs the shot
        """The printed table has it all."""
        return parse_wrk(output)


class H2load:
    """h2load with HTTP/1.1, one thread: a second opinion on wrk's figures."""

    name = "h2load"
    install = "apt-get install nghttp2-client"

    def version(self) -> str:
        """As it prints it."""
        from .process import first_line

        return first_line(["h2load", "--version"]).removeprefix("h2load ")

    def command(self, shot: Shot) -> list[str]:
        """The log is written for the percentiles: the summary has only mean and spread."""
        row = shot.row
        log = shot.work_dir / "h2load.log"
        log.unlink(missing_ok=True)
        command = ["h2load", "--h1", "-t1", f"-c{row.connections}", f"-D{shot.seconds}", f"--log-file={log}"]
        if row.work is Work.NOT_MODIFIED:
            command += ["-H", f"if-none-match: {shot.etag}"]
        if row.work is Work.ZIPF:
            urls = shot.work_dir / "h2load.urls"
            paths = (shot.work_dir / "zipf.paths").read_text().split()
            urls.write_text("".join(f"{shot.url}{path}\n" for path in paths))
            return [*command, "-i", str(urls)]
        return [*command, shot.url + row.path]

    def read(self, output: str, shot: Shot) -> Load:
        """The summary, and the log for the percentiles."""
        return parse_h2load(output, (shot.work_dir / "h2load.log").read_text())


GENERATORS: dict[str, Generator] = {"wrk": Wrk(), "h2load": H2load()}


def for_conditional(chosen: Generator) -> Generator:
    """h2load where it is installed, else the one chosen.

    A 304 may carry the Content-Length its 200 would have (RFC 9110 8.6), and HAProxy's does. wrk then waits for a body
    that never comes.
    """
    h2load = GENERATORS["h2load"]
    return chosen if missing(h2load) else h2load


def missing(generator: Generator) -> str | None:
    """What to say when the generator is not installed."""
    if shutil.which(generator.name):
        return None
    return f"the load generator {generator.name} is not installed: {generator.install}"
