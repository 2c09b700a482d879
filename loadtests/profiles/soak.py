"""Everything at once, for long: does anything grow, and do the edge's counters say what its clients saw?

Mixed traffic, purges all the time, and every few minutes a reload, a killed worker, or an origin that is killed and
started again. After a first quarter to warm up, nothing may grow.

A reload replaces workers and control process, so nobody would live long enough to show a slow leak: the last reload is
at three fifths of the time, and kills from then on are of the same worker. The others live to the end. They are warm
once they have been through such troubles: whoever takes over the clients of one that died grows by what that needs at
once, in steps that end after some ten of them. So a quick row of them follows the last reload, before anything is
compared.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from typing import TYPE_CHECKING

from loadtests.kit.content import TAIL_FROM, octets, size_of, version_in
from loadtests.kit.content import Sequence as Objects
from loadtests.kit.profile import Profile, Run
from loadtests.kit.rest import clients_of, come_to_rest, is_worker
from loadtests.profiles.soakjudge import LARGEST, judge

if TYPE_CHECKING:
    from loadtests.kit.client import Client

KEYS = 300
POPULAR, TAIL_OBJECTS = 5_000, 4_000
"""Twice and more what memory holds, and few enough that a worker has soon met them all. It remembers the 65,536 keys
that it met last (`store.tiers.KEYS_MAX`, up to 24 MiB with what is pending of them): at some hundred requests a second
and with new objects all the time, these would fill for an hour and hide what grows without end."""
EVENT_EVERY_S = 150.0
WARMING_EVERY_S = 8.0
"""Kills and origin restarts after the last reload, until `WARMED` of the time."""
WARMED = 0.68
LAST_RELOAD = 0.6
"""Of the time."""
AWAY_MORE_S = 2
"""For how long after an origin's return, or a worker's death, somebody may still notice."""

_objects: dict[int, Objects] = {}


def ask(client: Client) -> None:
    position = client.next()
    chance = random.Random(position)
    kind = chance.choices(("o", "v", "stale", "private", "film"), weights=(60, 25, 10, 3, 2))[0]
    seed = client.plan["seed"]
    if seed not in _objects:
        _objects[seed] = Objects(POPULAR, seed)
    headers = None
    match kind:
        case "o":
            number = _objects[seed][position]
            if number >= TAIL_FROM:
                number = TAIL_FROM + number % TAIL_OBJECTS
            size = min(size_of(number), LARGEST)
        case "film":
            number, size = chance.randrange(4), 20 << 20
            begin = chance.randrange(size - 100_000)
            headers = {"Range": f"bytes={begin}-{begin + 99_999}"}
        case _:
            number = chance.randrange(KEYS)
            size = max(16, min(size_of(number), LARGEST))
    floor = client.board.floor(number % KEYS) if kind == "v" else 0
    answer = client.get(f"/{kind}/{number}-{size}", name=kind, kind=kind, headers=headers)
    if not answer.status:
        return
    if answer.status >= 500:
        client.tally.count(answer.at, "5xx")
        return
    if kind == "v":
        version = version_in(answer.body)
        right = version is not None and answer.body[16:] == octets(number, 16, size)
        if version is not None and version < floor:
            client.tally.count(answer.at, "outdated")
    elif kind == "film":
        right = answer.status == 206 and answer.body == octets(number, begin, begin + 100_000)
    else:
        right = answer.status == 200 and answer.body == octets(number, 0, size)
    client.check(right, f"{answer.status} and {len(answer.body)} octets for /{kind}/{number}-{size}")


def prepare(run: Run) -> None:
    run.facts["first"] = come_to_rest(run.own, None)


class _Director:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._chance = random.Random(run.plan["seed"])
        self._unanswered = 0
        self._connections = 0
        """Of workers at the moment they were killed."""
        self._troubles: list[tuple[float, float]] = []
        """From when to when clients may have noticed something."""
        self._done = dict.fromkeys(("reload", "kill", "origin"), 0)

    def direct(self) -> None:
        run = self._run
        whole = run.left()
        every = min(EVENT_EVERY_S, whole / 8)
        events = itertools.cycle(("reload", "kill", "origin"))
        begun, late = time.monotonic(), False
        at, reloads_end, warmed = begun + every, begun + whole * LAST_RELOAD, begun + whole * WARMED
        # The last part is left alone, so that all is still when the counters are compared.
        while run.left() > every / 2:
            self._purge()
            run.sleep(0.2)
            if (now := time.monotonic()) < at:
                continue
            if not late and now + every > reloads_end:
                late, events = True, itertools.chain(("reload",), itertools.cycle(("kill", "origin")))
            self._do(next(events), late)
            warming = late and now + WARMING_EVERY_S < warmed
            at = now + WARMING_EVERY_S if warming else max(at + every, now)
        run.facts |= {
            "events": self._done,
            "purges without an answer": self._unanswered,
            "connections of killed workers": self._connections,
            "troubles": self._troubles,
        }
        run.sleep(run.left())

    def _purge(self) -> None:
        run, key = self._run, self._chance.randrange(KEYS)
        version = run.board.publish(key)
        try:
            run.purge(keys=[f"key-{key}"])
            run.board.purged(key, version)
        except OSError:  # the control process may be changing over: then nothing was promised
            self._unanswered += 1

    def _do(self, event: str, late: bool) -> None:
        run = self._run
        begun = run.mark(event)
        self._done[event] += 1
        if event == "reload":
            run.own.reload()
            return
        if event == "kill":
            workers = sorted((process.name, process.pid) for process in run.own.processes() if is_worker(process.name))
            _, pid = workers[0] if late else self._chance.choice(workers)
            self._connections += clients_of(pid, run.own.port)
            os.kill(pid, signal.SIGKILL)
        else:
            run.origin.kill()
            run.sleep(1.0)
            run.origin.start()
        self._troubles.append((begun, time.monotonic() + AWAY_MORE_S))


def direct(run: Run) -> None:
    _Director(run).direct()


def after(run: Run) -> None:
    """When everybody has gone, what is left?"""
    run.facts["last"] = come_to_rest(run.own, run.facts["first"])


PROFILE = Profile(
    name="soak",
    title="nothing grows, nothing is lost but with what is killed, and the counters say what the clients saw",
    ask=ask,
    direct=direct,
    prepare=prepare,
    after=after,
    judge=judge,
    config={
        "memory": {"size": "64MiB", "max_object": "1MiB"},
        "disk": {"size": "256MiB"},
        "limits": {"drain_timeout": "10s"},
        # Short, so that connections come and go, and none is left soon after the end.
        "sites": [{"origin": {"url": "ORIGIN", "idle_timeout": "5s"}}],
    },
    users=30,
    seconds=1800,
    think_s=0.05,
    disk=True,
)
