"""Orders remembered in memory by all processes of a node, and what compaction leaves of those on disk."""

import copy
import os
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.purge import ledger
from edgecache.purge.bus import Caller, KeyReused
from edgecache.purge.frames import order_text
from edgecache.purge.ledger import Entry, Retention
from edgecache.purge.message import PurgeKind, PurgeMessage, PurgeOrder
from edgecache.purge.orderbook import SharedOrders

NOW = 1_800_000_000.0


def entry(name: str, *, key: str | None = None, now: float = NOW) -> Entry:
    order = PurgeOrder(keys=(name,))
    return Entry(order, order_text(order), now, Caller("admin", "192.0.2.1"), key)


class Node:
    """Its purges, and the book as each of its processes sees it."""

    def __init__(self, processes: int = 2, **options: object) -> None:
        self.sequence = 0
        first = SharedOrders(**options)  # type: ignore[arg-type]
        self.books = [first]
        for _ in range(processes - 1):  # as after a fork: the same memory, and what was read of it by each on its own
            other = copy.copy(first)
            other._lines, other._keys = {}, {}
            self.books.append(other)

    def apply(self) -> PurgeMessage:
        self.sequence += 1
        return PurgeMessage(self.sequence, NOW, PurgeKind.HARD, (1,), False, "admin")

    async def purge(self, process: int, each: Entry) -> tuple[int, bool]:
        appended = await self.books[process].log(each, self.apply)
        return appended.record.sequence, appended.again


async def test_a_key_is_known_to_every_process() -> None:
    node = Node()
    assert await node.purge(0, entry("a", key="k")) == (1, False)
    assert await node.purge(1, entry("a", key="k")) == (1, True)
    with pytest.raises(KeyReused):
        await node.purge(1, entry("b", key="k"))
    assert node.sequence == 1


async def test_each_process_finds_what_the_others_did() -> None:
    node = Node(3)
    for number in range(9):
        await node.purge(number % 3, entry(f"k{number}"))
    for book in node.books:
        found = await book.find(5)
        assert found is not None
        assert found.text == entry("k4").text
        audit = await book.audit(before=8, limit=3)
        assert [(each.sequence, each.summary) for each in audit] == [(7, "keys: k6"), (6, "keys: k5"), (5, "keys: k4")]
        assert audit[0].address == "192.0.2.1"


async def test_what_is_too_old_is_not_told() -> None:
    node = Node(1, retention=Retention(age_s=10, entries=3, keys_s=5, audit_s=20))
    await node.purge(0, entry("a", key="k"))
    assert await node.purge(0, entry("a", key="k", now=NOW + 4)) == (1, True)
    assert await node.purge(0, entry("a", key="k", now=NOW + 6)) == (2, False)
    [book] = node.books
    await book.compact(NOW + 11)
    assert await book.find(1) is None
    assert await book.find(2) is not None
    await book.compact(NOW + 21)
    assert [each.sequence for each in await book.audit(before=None, limit=9)] == [2]
    for number in range(4):
        await node.purge(0, entry(f"{number}", now=NOW + 21))
    assert [each.sequence for each in await book.audit(before=None, limit=9)] == [6, 5, 4]


async def test_who_is_killed_while_writing_leaves_nothing_by_halves() -> None:
    node = Node()
    await node.purge(0, entry("a", key="k"))
    _, _, end = node.books[0]._header()
    os.pwrite(node.books[0]._file, b'[2, 1.0, "half of a li', end)
    assert await node.purge(1, entry("b")) == (2, False)
    assert [each.summary for each in await node.books[0].audit(before=None, limit=9)] == ["keys: b", "keys: a"]


async def test_a_long_order_is_remembered_without_its_text() -> None:
    node = Node(1, size=1 << 14)
    [book] = node.books
    long = entry("x" * 4000, key="k")
    await node.purge(0, long)
    found = await book.find(1)
    assert found is not None
    assert found.text == ""
    assert await node.purge(0, long) == (1, True)
    with pytest.raises(KeyReused):
        await node.purge(0, entry("x" * 3999 + "y", key="k"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(0, 12)), max_size=120))
async def test_it_says_what_a_list_would(calls: list[tuple[int, int, int]]) -> None:
    """As long as it goes back: the newest quarter at least is there, and never more than twice its size is used."""
    size = 1 << 13
    node = Node(3, size=size)
    names: list[str] = []
    first: dict[str, int] = {}
    for process, which, length in calls:
        name, key = f"{which}-" + "x" * length * 20, f"key-{which}-{length}"
        sequence, again = await node.purge(process, entry(name, key=key))
        if again:
            assert sequence == first[key]
        else:
            names.append(name)
            first[key] = len(names)
            assert sequence == len(names)
        audit = await node.books[(process + 1) % 3].audit(before=None, limit=1000)
        assert [each.sequence for each in audit] == list(range(len(names), len(names) - len(audit), -1))
        assert len(audit) == len(names) or len(audit) >= 3
        assert os.fstat(node.books[0]._file).st_size <= 2 * size + 4096


def test_compaction_counts_what_is_there_and_not_numbers() -> None:
    con = sqlite3.connect(":memory:", isolation_level=None)
    for statement in ledger.SCHEMA:
        con.execute(statement)
    for number in range(20):
        ledger.insert(con, number * 1000, entry(f"k{number}", key=str(number), now=NOW + number))
    keep = Retention(age_s=15, entries=12, keys_s=4, audit_s=18, audit_entries=10_000_000)

    def left(table: str) -> list[int]:
        return [row[0] // 1000 for row in con.execute(f"SELECT sequence FROM {table} ORDER BY sequence")]

    assert not ledger.compact(con, keep, NOW + 20)
    assert left("Log") == list(range(8, 20)), "the newest twelve"
    assert left("Used") == list(range(16, 20))
    assert left("Audit") == list(range(2, 20))
    ledger.compact(con, keep, NOW + 32)
    assert left("Log") == [17, 18, 19]
    ledger.compact(con, keep, NOW + 99)
    assert left("Log") == left("Used") == left("Audit") == []
    con.close()
