"""The writer of purges: kept before it says so, many at once, tried again, and never trusted when it fails."""

import asyncio
import logging
import sqlite3
import threading
from pathlib import Path

import pytest

from edgecache._native.arena import Arena
from edgecache.purge import keeper as keepers
from edgecache.purge.bus import Caller, LogPosition
from edgecache.purge.durable import DurablePurges
from edgecache.purge.frames import order_text
from edgecache.purge.keeper import RESTART_GAP, PurgeKeeper, restore
from edgecache.purge.ledger import Entry
from edgecache.purge.message import PurgeKind, PurgeMessage, PurgeOrder
from tests.edge.world import until


def message(sequence: int, *tags: int) -> PurgeMessage:
    return PurgeMessage(sequence, 0.0, PurgeKind.HARD, tags, False, "test")


def written(path: Path) -> dict[int, int]:
    con = sqlite3.connect(path)
    found = dict(con.execute("SELECT tag, hard FROM Tag").fetchall())
    con.close()
    return found


def arena() -> Arena:
    return Arena(4 << 20, max_object=1 << 16)


def keeper(path: Path, distrusted: list[int], **options: float) -> PurgeKeeper:
    made = PurgeKeeper(path, lambda: distrusted.append(1), sequence=lambda: 0, **options)
    made.start()
    return made


async def test_it_is_written_when_it_says_so(tmp_path: Path) -> None:
    made = keeper(tmp_path / "purges.db", [])
    await made.kept()
    made.keep(message(1, 10))
    await made.kept()
    assert written(tmp_path / "purges.db") == {10: 1}
    await made.close()


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    made = keeper(tmp_path / "purges.db", [])
    made.keep(message(1, 10))
    await made.close()
    assert written(tmp_path / "purges.db") == {10: 1}


async def test_what_comes_meanwhile_is_written_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, sizes = threading.Event(), []
    append = DurablePurges.append

    def slow(self: DurablePurges, messages: list[PurgeMessage], position: LogPosition | None = None) -> None:
        sizes.append(len(messages))
        assert go_on.wait(20)
        append(self, messages, position)

    restore(tmp_path / "purges.db", arena())
    monkeypatch.setattr(DurablePurges, "append", slow)
    made = keeper(tmp_path / "purges.db", [])
    made.keep(message(1, 1))
    await until(lambda: bool(sizes))
    for number in range(2, 50):
        made.keep(message(number, number))
    waiting = asyncio.ensure_future(made.kept())
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    await waiting
    assert sizes == [1, 48]
    assert len(written(tmp_path / "purges.db")) == 49
    await made.close()


async def test_a_failure_is_tried_again_and_distrusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append, fails = DurablePurges.append, [3]

    def failing(self: DurablePurges, messages: list[PurgeMessage], position: LogPosition | None = None) -> None:
        if fails[0]:
            fails[0] -= 1
            raise OSError(28, "No space left on device")
        append(self, messages, position)

    restore(tmp_path / "purges.db", arena())
    monkeypatch.setattr(DurablePurges, "append", failing)
    distrusted: list[int] = []
    made = keeper(tmp_path / "purges.db", distrusted, retry_s=0.01)
    made.keep(message(1, 10))
    await made.kept()
    assert distrusted, "who waited learns nothing wrong: nothing on disk will be used"
    await until(lambda: not fails[0] and bool(written(tmp_path / "purges.db")))
    assert written(tmp_path / "purges.db") == {10: 1}
    assert sum(line.levelno >= logging.ERROR for line in caplog.records) == 1
    await made.close()


async def test_too_many_become_one_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "MOST_WAITING", 5)
    made = keeper(tmp_path / "purges.db", [])
    for number in range(1, 8):
        made.keep(message(number, number))
    await made.close()
    table = arena()
    assert restore(tmp_path / "purges.db", table)
    assert [table.purged(fill_seq, [99]) for fill_seq in (0, 5, 6)] == [2, 2, 0]


def test_a_restart_leaves_numbers_out(tmp_path: Path) -> None:
    first = arena()
    assert not restore(tmp_path / "purges.db", first), "nothing is known of what may lie there"
    assert first.sequence() == 0
    second = arena()
    assert restore(tmp_path / "purges.db", second)
    assert second.sequence() == RESTART_GAP
    third = arena()
    assert restore(tmp_path / "purges.db", third)
    assert third.sequence() == 2 * RESTART_GAP


async def test_who_asks_while_it_is_written_waits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, begun = threading.Event(), threading.Event()
    append = DurablePurges.append

    def slow(self: DurablePurges, messages: list[PurgeMessage], position: LogPosition | None = None) -> None:
        begun.set()
        assert go_on.wait(20)
        append(self, messages, position)

    restore(tmp_path / "purges.db", arena())
    monkeypatch.setattr(DurablePurges, "append", slow)
    made = keeper(tmp_path / "purges.db", [])
    made.keep(message(1, 1), position=LogPosition("log", 5, 2.0))
    await until(begun.is_set)
    waiting = asyncio.ensure_future(made.kept())
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    assert await waiting
    assert written(tmp_path / "purges.db") == {1: 1}
    assert await made.position() == LogPosition("log", 5, 2.0)
    await made.close()


async def test_what_nothing_stored_needs_is_forgotten(tmp_path: Path) -> None:
    restore(tmp_path / "purges.db", arena())
    made = keeper(tmp_path / "purges.db", [])
    await made.prune(1)
    made.keep(message(1, 10), message(2, 20))
    await made.kept()
    await made.prune(1)
    assert written(tmp_path / "purges.db") == {20: 2}
    await made.close()


async def test_a_file_that_was_removed_says_nothing_of_what_is_stored(tmp_path: Path) -> None:
    """What it said is lost: after a restart nothing from before may be used."""
    table = arena()
    restore(tmp_path / "purges.db", table)
    made = PurgeKeeper(tmp_path / "purges.db", lambda: None, sequence=table.sequence)
    made.start()
    made.keep(message(table.append_purge([10], soft=False), 10))
    await made.kept()
    (tmp_path / "purges.db").unlink()
    later = table.append_purge([11], soft=False)
    made.keep(message(later, 11))
    await made.close()
    again = arena()
    assert restore(tmp_path / "purges.db", again)
    assert again.purged(0, [10]) == 2


# --- orders with an idempotency key ---


async def test_two_processes_decide_a_key_once(tmp_path: Path) -> None:
    """As a reload has them for a moment, both writing to one file."""
    path, table = tmp_path / "purges.db", arena()
    restore(path, table)
    makers = [PurgeKeeper(path, lambda: None, sequence=table.sequence) for _ in range(2)]
    for made in makers:
        made.start()

    def apply() -> PurgeMessage:
        return message(table.append_purge([7], soft=False), 7)

    def entry(name: str) -> Entry:
        order = PurgeOrder(keys=(name,))
        return Entry(order, order_text(order), 1.0, Caller("admin", ""), name)

    calls = [(name, made) for name in map(str, range(40)) for made in makers]
    answers = await asyncio.gather(*(made.keep_once(entry(name), apply) for name, made in calls))
    numbers: dict[str, set[int]] = {}
    for (name, _), answer in zip(calls, answers, strict=True):
        numbers.setdefault(name, set()).add(answer.record.sequence)
    assert all(len(each) == 1 for each in numbers.values()), "both heard of the same purge"
    assert sum(answer.again for answer in answers) == 40
    assert table.sequence() == 40
    for made in makers:
        await made.close()
