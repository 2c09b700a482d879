"""The client's side of a run: one greenlet's requests, checked and counted. Lives in locust's processes only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gevent
from geventhttpclient.response import HTTPParseError
from locust.contrib.fasthttp import FastHttpSession, LocustBadStatusCode

from loadtests.kit.board import Board, Cell
from loadtests.kit.tally import Tally


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: there was none, or it was cut short, and `error` says why."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    cache: str
    """The Cache-Status field."""
    position: int
    at: float
    error: str = ""

    @property
    def hit(self) -> bool:
        """The origin sent no body for it: from memory or disk, or from another request's fetch."""
        return (
            "; hit" in self.cache
            or "collapsed" in self.cache
            or "fwd-status=304" in self.cache
            or ("detail=stale-if-error" in self.cache)
        )


class Pace:
    """Positions of this process's part of the traffic, and, at a fixed rate, when each is due.

    With several processes, process i of n has the positions i, i + n, i + 2n, … . At a fixed rate the moments follow
    from the positions alone, so that a slow answer delays nobody's intended time: whoever sends late is measured from
    when it should have been sent.
    """

    def __init__(self, index: int, processes: int, rate: float | None) -> None:
        self._index, self._processes, self._rate = index, processes, rate
        self._taken = 0
        self._begun = time.monotonic()

    def take(self) -> tuple[int, float | None]:
        """The next position, and when it is due; None: now."""
        position = self._taken * self._processes + self._index
        self._taken += 1
        return position, None if self._rate is None else self._begun + position / self._rate


class Client:
    """One user."""

    def __init__(self, session: FastHttpSession, tally: Tally, pace: Pace, board: Board | None, plan: dict[str, Any]):
        self._session = session
        self.tally = tally
        self.pace = pace
        self._board = board
        self.plan = plan
        self.memory: dict[str, Any] = {}
        """The profile's own."""
        self.position = 0
        self._due: float | None = None

    @property
    def board(self) -> Board:
        assert self._board is not None, "this profile needs an origin of its own"
        return self._board

    def next(self) -> int:
        """Wait until the next request is due; its position."""
        self.position, self._due = self.pace.take()
        if self._due is not None and (early := self._due - time.monotonic()) > 0:
            gevent.sleep(early)
        elif self._due is None and (think := self.plan["think_s"]):
            gevent.sleep(think)
        return self.position

    def stopped(self) -> bool:
        return self._board is not None and self._board[Cell.STOP] == 1

    def get(
        self, path: str, *, name: str, kind: str = "requests", headers: dict[str, str] | None = None, count: bool = True
    ) -> Answer:
        """One request. `name`: under which locust shows it. `kind`: under which its latency is counted."""
        begun = time.monotonic()
        if self._due is not None:
            if begun - self._due > 0.1:
                self.tally.count(begun, "late")
            begun, self._due = self._due, None
        with self._session.get(path, name=name, headers=headers or {}, catch_response=True) as response:
            body = response.content or b""
            status = response.status_code or 0
            failure = response.request_meta["exception"]
            if 0 < status < 600:
                response.success()
        now = time.monotonic()
        fields = response.headers if response.headers is not None else {}
        error = "" if status else type(response.error).__name__ if response.error is not None else "no answer"
        answer = Answer(status, fields, body, fields.get("cache-status", "") or "", self.position, now, error)
        if count:
            self._count(answer, kind, now - begun)
        if status and isinstance(failure, HTTPParseError | OSError) and not isinstance(failure, LocustBadStatusCode):
            # Counted above, as the edge counts it; but nobody can use it.
            self.tally.count(now, "lost")
            self.tally.note(f"cut short after {len(body)} octets: {name}")
            answer = replace(answer, status=0, error="cut short")
        return answer

    def _count(self, answer: Answer, kind: str, seconds: float) -> None:
        tally, now = self.tally, answer.at
        if answer.status == 0:
            tally.count(now, "refused" if "Refused" in answer.error else "lost")
            if "Refused" not in answer.error:
                tally.note(f"no answer: {answer.error}")
            return
        tally.count(now, "requests")
        tally.count(now, f"status {answer.status}")
        tally.count(now, "octets", len(answer.body))
        if answer.hit:
            tally.count(now, "hits")
        tally.took(now, kind, seconds)

    def check(self, right: bool, what: str) -> None:
        """Count a body that is not what it has to be."""
        if not right:
            self.tally.count(time.monotonic(), "wrong")
            self.tally.note(what)
