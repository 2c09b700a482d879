"""locust's side of `make load`: users that do what the profile says, and tell what they saw.

Started by `python -m loadtests`, which writes the plan (EDGECACHE_LOAD_PLAN). Under locust alone,
`locust -f loadtests/locustfile.py --host URL`, it is the profile PROFILE (default: steady) against that URL.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.kit.board import Board
from loadtests.kit.client import Client, Pace
from loadtests.kit.tally import Tally
from loadtests.profiles import PROFILES


def _plan() -> dict[str, Any]:
    if file := os.environ.get("EDGECACHE_LOAD_PLAN"):
        plan: dict[str, Any] = json.loads(Path(file).read_text())
        return plan
    name = os.environ.get("PROFILE", "steady")
    if not PROFILES[name].elsewhere:
        raise SystemExit(f"the profile {name} runs its own edge and origin: make load PROFILE={name}")
    return {"profile": name, "processes": 1, "rate": None, "think_s": 0.05, "board": None, "paths": ["/"], "seed": 1}


PLAN = _plan()
PROFILE = PROFILES[PLAN["profile"]]
MINE = Tally()
"""What this process's users saw."""
_state: dict[str, Any] = {}


def _path(name: str) -> Path | None:
    return Path(PLAN["folder"]) / name if PLAN.get("folder") else None


class Visitor(FastHttpUser):
    """One client, on a connection that it keeps."""

    wait_time = constant(0)
    connection_timeout = 30.0
    network_timeout = 60.0

    def on_start(self) -> None:
        self.me = Client(self.client, MINE, _state["pace"], _state.get("board"), PLAN)

    @task
    def turn(self) -> None:
        if self.me.stopped():
            time.sleep(0.05)
        else:
            PROFILE.ask(self.me)


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, MasterRunner):
        if (file := _path("started")) is not None:
            file.write_text(str(time.monotonic()))
        return
    index = environment.runner.worker_index if isinstance(environment.runner, WorkerRunner) else 0
    _state["pace"] = Pace(max(index, 0), PLAN["processes"], PLAN["rate"])
    if PLAN["board"] and "board" not in _state:
        _state["board"] = Board(Path(PLAN["board"]))


@events.test_stop.add_listener
@events.quit.add_listener
def done(**_: Any) -> None:
    """Each process leaves a file of its own: a last report to the master may come too late."""
    if isinstance(_state.get("runner"), MasterRunner):
        return
    if (file := _path(f"seen-{os.getpid()}.json")) is not None:
        part = file.with_suffix(".part")
        part.write_text(json.dumps(MINE.as_json()))
        part.rename(file)


@events.init.add_listener
def know(environment: Environment, **_: Any) -> None:
    _state["runner"] = environment.runner
