"""The promise of a fleet, as one property over random histories (DESIGN §7).

- After a purge call that waited has returned, no edge named in it as having applied it serves a body older than the
  purge, ever, also after restarts.
- An edge that was away never serves a body older than a purge that it has been told of since.
- An edge that has heard nothing for `max_silence` serves nothing without asking the origin.

EDGECACHE_HISTORIES says how many histories; each is the same for the same number. That the property can fail is shown
with mistakes put in on purpose.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecache._native.arena import Arena
from edgecache.edge.fill import Fill
from edgecache.edge.lookup import Shelf
from edgecache.purge import keeper, sqlite_log
from edgecache.purge.applier import Applier, Work
from edgecache.purge.bus import FeedEvent, LogPosition, Purges
from edgecache.purge.durable import DurablePurges
from edgecache.purge.keeper import PurgeKeeper
from edgecache.purge.message import PurgeKind, PurgeMessage
from edgecache.store.lurker import Lurker
from edgecache.store.memory import MemoryStore, Record
from tests.purge.coordinator.kit import memory_folder
from tests.purge.simulated import fleet
from tests.purge.simulated.fleet import play, threads

HISTORIES = int(os.environ.get("EDGECACHE_HISTORIES", "100"))
ENOUGH = 150
"""Histories within which a mistake must show."""


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(keeper, "ThreadPoolExecutor", threads(3.0))
    monkeypatch.setattr(sqlite_log, "ThreadPoolExecutor", threads(0.02))
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def histories(count: int) -> dict[str, int]:
    """Plays them; what there was of interest."""
    total = dict.fromkeys(("served", "hits", "from_disk", "confirmed", "purges", "forgotten"), 0)
    for seed in range(count):
        with memory_folder() as folder:
            try:
                played = play(seed, Path(folder))
            except BaseException as error:
                error.add_note(f"history {seed}")
                raise
        for name in total:
            total[name] += getattr(played, name)
    return total


@pytest.mark.timeout(max(120, HISTORIES // 4))
def test_nothing_older_than_a_purge_is_served() -> None:
    total = histories(HISTORIES)
    assert total["hits"] > HISTORIES
    assert total["from_disk"] > HISTORIES // 2
    assert total["confirmed"] > HISTORIES
    assert total["forgotten"] > HISTORIES


# --- mistakes, each of which must show ---


def acknowledged_before_it_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Applier.handle

    def late(self: Applier, event: FeedEvent) -> Work | None:
        if isinstance(event, Purges) and self._applied is not None:
            last = event.entries[-1]
            asyncio.get_running_loop().call_later(0.3, handle, self, event)
            return Work((), LogPosition(self._applied.log, last.sequence, last.time), self._history)
        return handle(self, event)

    monkeypatch.setattr(Applier, "handle", late)


def acknowledged_before_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: PurgeKeeper) -> bool:
        return True

    monkeypatch.setattr(PurgeKeeper, "kept", at_once)


def numbered_when_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every cache does that compares an object's age with the time of a purge."""
    record = Shelf.record
    monkeypatch.setattr(
        Shelf, "record", lambda self, *a, **k: record(self, *a, **{**k, "fill_seq": self.store.sequence()})
    )


def joined_whatever_was_purged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fill, "joinable", lambda *_: True)


def nothing_purged_at_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Applier, "_everything", lambda self, source: PurgeMessage(0, 0.0, PurgeKind.HARD, (), False, source)
    )


def purges_forgotten_at_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = keeper.restore

    def forgetful(path: Path, _: Arena) -> bool:
        return restore(path, Arena(1 << 20, max_object=8 << 10))

    monkeypatch.setattr(fleet, "restore", forgetful)


def patterns_for_what_is_in_memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a walk through the entries would that does not think of what is under way."""
    monkeypatch.setattr(Shelf, "record", _filled_now(Shelf.record))


def _filled_now(record: Callable[..., Record]) -> Callable[..., Record]:
    def made(self: Shelf, *args: object, **named: int) -> Record:
        newest = self.store.newest_pattern()
        return record(self, *args, **{**named, "fill_seq": max(named["fill_seq"], newest)})

    return made


def patterns_end_before_all_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: Lurker) -> None:
        pass

    monkeypatch.setattr(fleet, "KINDS", ("pattern", "patterns"))
    monkeypatch.setattr(Lurker, "round", nothing)


def patterns_forgotten_at_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    append = DurablePurges.append

    def forgetful(self: DurablePurges, messages: Iterable[PurgeMessage], position: LogPosition | None = None) -> None:
        append(self, [replace(message, patterns=()) for message in messages], position)

    monkeypatch.setattr(fleet, "KINDS", ("pattern", "patterns"))
    monkeypatch.setattr(DurablePurges, "append", forgetful)


def never_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "silent", lambda _: False)


def purges_forgotten_without_a_look_at_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.SimDisk, "sweep", lambda self, sequence: setattr(self, "clean_through", sequence))


@pytest.mark.parametrize(
    "mistake",
    [
        acknowledged_before_it_is_applied,
        acknowledged_before_it_is_kept,
        numbered_when_stored,
        joined_whatever_was_purged,
        nothing_purged_at_a_reset,
        purges_forgotten_at_a_restart,
        patterns_for_what_is_in_memory_alone,
        patterns_end_before_all_is_compared,
        patterns_forgotten_at_a_restart,
        never_silent,
        purges_forgotten_without_a_look_at_the_disk,
    ],
    ids=lambda mistake: mistake.__name__,
)
def test_a_mistake_shows(mistake: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    with pytest.raises(AssertionError, match="served"):
        histories(ENOUGH)
