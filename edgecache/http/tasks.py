"""Tasks that somebody holds: a background task is kept alive until it ends, and its error is logged once."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger("edgecache")
_held: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Run `work` in the background of the running loop. Cancelling it is the caller's affair."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _held.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[Any]) -> None:
    _held.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("background task %s failed", task.get_name(), exc_info=error)
