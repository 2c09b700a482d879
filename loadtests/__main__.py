"""Load tests: `python -m loadtests PROFILE`, or `make load PROFILE=…`. Each profile asserts a promise.

Exit codes: 0 the promise is kept; 1 it is broken, and a sentence says how; 2 it cannot be run as asked.
"""

from __future__ import annotations

import sys
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import click

from loadtests.bench.tracefile import BadTrace
from loadtests.ending import end_when_told
from loadtests.kit.processes import CannotRun
from loadtests.kit.run import Wish, perform, sentences
from loadtests.profiles import PROFILES, replay


def _fail(text: str) -> None:
    click.echo(f"load: {text}", err=True)
    sys.exit(2)


@click.command(
    epilog="Profiles: " + "; ".join(f"{name}: {profile.title}" for name, profile in PROFILES.items()),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("profile")
@click.option("--host", metavar="URL", help="Run against this URL instead of an edge of the run's own (steady only).")
@click.option("-u", "--users", type=click.IntRange(1, 100_000), help="Clients at once. Default: the profile's.")
@click.option("-t", "--seconds", type=click.IntRange(5, 86_400), help="How long. Default: the profile's.")
@click.option("--rate", type=click.FloatRange(0.1, 1e6), help="Requests per second at a fixed rate (open loop).")
@click.option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="locust processes.")
@click.option("--workers", type=click.IntRange(1, 30), default=2, show_default=True, help="Workers of the edge.")
@click.option("--memory", metavar="SIZE", help="The edge's memory.size. Default: the profile's.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of everything that is left to chance.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For replay: an access log in common log format (.gz too), or a NAME.req.xz.",
)
@click.option("--web", is_flag=True, help="With locust's own page, on port 8089.")
@click.option(
    "--report", type=click.Path(path_type=Path), default="load-report", show_default=True, help="Where the report goes."
)
def main(
    profile: str,
    host: str | None,
    users: int | None,
    seconds: int | None,
    rate: float | None,
    processes: int,
    workers: int,
    memory: str | None,
    seed: int,
    trace: Path | None,
    web: bool,
    report: Path,
) -> None:
    """Run the load profile PROFILE, check its promise, and leave a report."""
    if profile not in PROFILES:
        _fail(f"there is no profile {profile!r}; there are {', '.join(PROFILES)}")
    wish = Wish(users, seconds, processes, rate, host, web, seed, workers, memory, report, trace)
    promised = PROFILES[profile]
    click.echo(f"{profile}: {(promised.elsewhere if host else '') or promised.title}")
    if web:
        click.echo("locust's page: http://127.0.0.1:8089")
    try:
        if trace is not None:
            replay.trace_at(str(trace.resolve()))
        outcome = perform(PROFILES[profile], wish)
    except (CannotRun, BadTrace) as error:
        _fail(str(error))
        return
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        # What is done to the edge is done by its admin API, which is to answer whatever the load.
        click.echo(f"BROKEN  the edge does not answer its operator: {getattr(error, 'reason', error)}")
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return
    for line in sentences(outcome):
        click.echo(line)
    sys.exit(0 if outcome.kept else 1)


if __name__ == "__main__":
    end_when_told()
    main()
