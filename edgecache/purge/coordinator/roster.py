"""The edges a coordinator knows, kept in a file, so that a restart does not forget who is away and since when.

A coordinator that has just started would otherwise answer a purge as if the edges that have not come back yet did not
exist. The file is replaced in one step every few seconds, and at the end; what a kill loses of it is those seconds. It
decides nothing: a file that is damaged, or cannot be written, costs the list and a line in the log.

    {"version": 1, "log": IDENTITY,
     "edges": [{"edge": …, "seen": SECONDS, "position": N, "version": …, "address": …}, …]}

`seen`: when it was last connected. Positions are of that log, and mean nothing in another.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgecache.http.tasks import spawn
from edgecache.purge.coordinator.attached import Seen
from edgecache.purge.coordinator.hub import MOST_SEEN, Hub

_log = logging.getLogger("edgecache.purge")

VERSION: Final = 1
FILE: Final = "edges.json"
MOST_TEXT: Final = 300
EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Known:
    """One edge."""

    edge: str
    seen: float
    position: int
    version: str
    address: str


class Roster:
    """Belongs to one event loop. Files are touched in its threads."""

    def __init__(self, folder: Path, hub: Hub, *, log: Callable[[], str], every_s: float = EVERY_S) -> None:
        """`log`: the identity of the log that positions are of."""
        self._path = folder / FILE
        self._hub = hub
        self._of = log
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    async def start(self) -> None:
        """Tell the hub of the edges there were. Before it is started."""
        loop = asyncio.get_running_loop()
        for known in await loop.run_in_executor(None, read, self._path, self._of()):
            self._hub.recall(known.edge, Seen(known.seen, known.position, known.version, known.address))
        self._task = spawn(self._keep(), "purge-edges-known")

    async def close(self) -> None:
        """After the hub: edges that were connected are away from now on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._write()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._write()

    async def _write(self) -> None:
        now = self._hub.now()
        rows = [
            Known(state.edge, now if state.connected else state.since, state.position, state.version, state.address)
            for state in self._hub.edges()
        ]
        try:
            await asyncio.get_running_loop().run_in_executor(None, write, self._path, self._of(), rows)
        except OSError as error:
            if not self._failing:
                _log.warning("%s: the edges known are not kept: %s", self._path, error.strerror)
            self._failing = True
        else:
            self._failing = False


def read(path: Path, log: str) -> list[Known]:
    """Longest away first; nothing where there is no file, or none that can be read."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["version"] != VERSION:
            raise ValueError(f"version {body['version']!r}")
        same = body["log"] == log
        found = [known for row in body["edges"][:MOST_SEEN] if (known := _known(row, same=same)) is not None]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.warning("%s cannot be read: %s; edges are listed again as they come", path, error)
        return []
    return sorted(found, key=lambda known: known.seen)


def _known(row: dict[str, Any], *, same: bool) -> Known | None:
    texts = [row[name] for name in ("edge", "version", "address")]
    if not all(isinstance(text, str) and len(text) <= MOST_TEXT for text in texts) or not row["edge"]:
        return None
    position = int(row["position"]) if same else 0
    return Known(row["edge"], float(row["seen"]), position, row["version"], row["address"])


def write(path: Path, log: str, rows: list[Known]) -> None:
    """In one step. Raises OSError."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    body = json.dumps({"version": VERSION, "log": log, "edges": [asdict(row) for row in rows]}, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as file:
            file.write(body)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
