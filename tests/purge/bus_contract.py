"""What every bus promises (purge/bus.PurgeBus), as tests: subclass `BusContract` and give it a `store`.

A store outlives the buses opened on it, one after the other, as a database outlives coordinators.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Protocol

import pytest

from edgecache.purge import frames
from edgecache.purge.bus import BusError, Caller, KeyReused, LogPosition, PurgeBus, Record, TooLarge, Truncated
from edgecache.purge.message import PurgeKind, PurgeOrder

CALLER = Caller("deploy", "192.0.2.1")
NOW = 1_800_000_000.0


class BusStore(Protocol):
    def open(self, *, entries: int = 1_000_000) -> AbstractAsyncContextManager[PurgeBus]:
        """`entries`: how many of them compaction leaves."""
        ...


def order(*keys: str, **more: object) -> PurgeOrder:
    return PurgeOrder(keys=keys, source="deploy", **more)  # type: ignore[arg-type]


async def append(bus: PurgeBus, name: str, *, key: str | None = None, now: float = NOW) -> Record:
    return (await bus.append(order(name), now=now, caller=CALLER, key=key)).record


async def everything(bus: PurgeBus, after: int = 0) -> list[Record]:
    found: list[Record] = []
    while page := await bus.read(after, 7):
        assert len(page) <= 7
        found += page
        after = page[-1].sequence
    return found


async def take(batches: AsyncIterator[Sequence[Record]], count: int) -> list[Record]:
    found: list[Record] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += await anext(batches)
    assert len(found) == count
    return found


def keys(records: Sequence[Record]) -> list[str]:
    return [frames.order_of(record.text).keys[0] for record in records]


class BusContract:
    async def test_it_begins_empty(self, store: BusStore) -> None:
        async with store.open() as bus:
            state = bus.state()
            assert (state.floor, state.head) == (0, 0)
            assert state.log
            assert await bus.read(0, 10) in ((), [])
            assert await bus.covers(state.position)

    async def test_what_is_appended_is_read(self, store: BusStore) -> None:
        given = PurgeOrder(
            urls=("http://a/ä",),
            keys=("k",),
            groups=("two words",),
            caseless=("Two Words",),
            hosts=("h",),
            prefixes=("h/p/",),
            everything=True,
            site="s",
            kind=PurgeKind.SOFT,
            source="ci",
        )
        async with store.open() as bus:
            appended = await bus.append(given, now=NOW + 0.123456, caller=CALLER)
            assert not appended.again
            [record] = await bus.read(0, 10)
            assert record == appended.record
            assert (record.sequence, record.time) == (1, NOW + 0.123456)
            assert frames.order_of(record.text) == given
            assert bus.state().head == 1
            assert bus.state().head_time == NOW + 0.123456

    async def test_numbers_follow_each_other_whoever_appends(self, store: BusStore) -> None:
        async with store.open() as bus:
            appended = await asyncio.gather(*(append(bus, f"k{i}") for i in range(100)))
            assert sorted(record.sequence for record in appended) == list(range(1, 101))
            assert sorted(appended, key=lambda record: record.sequence) == await everything(bus)

    async def test_a_later_append_has_a_larger_number(self, store: BusStore) -> None:
        async with store.open() as bus:
            numbers = [(await append(bus, f"k{i}")).sequence for i in range(5)]
            assert numbers == [1, 2, 3, 4, 5]

    async def test_it_is_all_there_when_opened_again(self, store: BusStore) -> None:
        async with store.open() as bus:
            for i in range(20):
                await append(bus, f"k{i}", now=NOW + i)
            before, state = await everything(bus), bus.state()
        async with store.open() as bus:
            assert bus.state() == state
            assert await everything(bus) == before
            assert (await append(bus, "next")).sequence == 21

    async def test_pages_have_no_gap(self, store: BusStore) -> None:
        async with store.open() as bus:
            await asyncio.gather(*(append(bus, f"k{i}") for i in range(30)))
        async with store.open() as bus:
            page = await bus.read(11, 5)
            assert [record.sequence for record in page] == [12, 13, 14, 15, 16]
            assert [record.sequence for record in await bus.read(28, 5)] == [29, 30]
            assert not await bus.read(30, 5)

    async def test_an_idempotency_key_logs_once(self, store: BusStore) -> None:
        async with store.open() as bus:
            first = await bus.append(order("a"), now=NOW, caller=CALLER, key="deploy:1")
            again = await bus.append(order("a"), now=NOW + 5, caller=CALLER, key="deploy:1")
            other = await bus.append(order("a"), now=NOW, caller=CALLER, key="deploy:2")
            assert (first.again, again.again, other.again) == (False, True, False)
            assert again.record == first.record
            assert other.record.sequence == 2
        async with store.open() as bus:
            again = await bus.append(order("a"), now=NOW + 9, caller=CALLER, key="deploy:1")
            assert again.again
            assert again.record == first.record
            assert bus.state().head == 2

    async def test_one_key_at_the_same_time_logs_once(self, store: BusStore) -> None:
        async with store.open() as bus:
            calls = (bus.append(order("a"), now=NOW, caller=CALLER, key="k") for _ in range(10))
            results = await asyncio.gather(*calls)
            assert {result.record.sequence for result in results} == {1}
            assert sum(not result.again for result in results) == 1
            assert bus.state().head == 1

    async def test_a_key_stands_for_one_order(self, store: BusStore) -> None:
        async with store.open() as bus:
            await append(bus, "a", key="k")
            with pytest.raises(KeyReused):
                await append(bus, "b", key="k")
            assert bus.state().head == 1

    async def test_which_positions_are_covered(self, store: BusStore) -> None:
        async with store.open() as bus:
            nothing = bus.state().position
            for i in range(4):
                await append(bus, f"k{i}", now=NOW + i)
            state = bus.state()
            assert await bus.covers(nothing)
            assert await bus.covers(state.position)
            assert await bus.covers(LogPosition(state.log, 2, NOW + 1))
            assert not await bus.covers(LogPosition("another", 2, NOW + 1))
            assert not await bus.covers(LogPosition(state.log, 5, NOW + 4))
            assert not await bus.covers(LogPosition(state.log, 2, NOW + 0.5))  # from before a restored backup

    async def test_following_gives_what_was_and_what_comes(self, store: BusStore) -> None:
        async with store.open() as bus:
            for i in range(3):
                await append(bus, f"k{i}")
            async with aclosing(bus.follow(1)) as batches:
                assert keys(await take(batches, 2)) == ["k1", "k2"]
                coming = asyncio.ensure_future(take(batches, 3))
                for i in range(3, 6):
                    await append(bus, f"k{i}")
                assert keys(await coming) == ["k3", "k4", "k5"]

    async def test_all_followers_see_one_order(self, store: BusStore) -> None:
        async with store.open() as bus, aclosing(bus.follow(0)) as one, aclosing(bus.follow(0)) as two:
            seen = asyncio.gather(take(one, 200), take(two, 200))
            appended = await asyncio.gather(*(append(bus, f"k{i}") for i in range(200)))
            first, second = await seen
            assert first == second == sorted(appended, key=lambda record: record.sequence)

    async def test_compaction_keeps_the_newest(self, store: BusStore) -> None:
        async with store.open(entries=10) as bus:
            for i in range(25):
                await append(bus, f"k{i}", now=NOW + i)
            state = await bus.compact(NOW + 25)
            assert state == bus.state()
            assert (state.floor, state.head) == (15, 25)
            assert keys(await everything(bus, 15)) == [f"k{i}" for i in range(15, 25)]
            assert await bus.covers(LogPosition(state.log, 15, NOW + 14))
            assert await bus.covers(LogPosition(state.log, 20, NOW + 19))
            assert not await bus.covers(LogPosition(state.log, 14, NOW + 13))
            with pytest.raises(Truncated):
                await bus.read(14, 5)
            with pytest.raises(Truncated):
                async with aclosing(bus.follow(3)) as batches:
                    await anext(batches)
        async with store.open(entries=10) as bus:
            assert bus.state() == state
            assert (await append(bus, "next")).sequence == 26

    async def test_an_order_too_large_is_refused(self, store: BusStore) -> None:
        large = PurgeOrder(urls=tuple(f"http://a/{'x' * 7000}{i}" for i in range(150)))
        async with store.open() as bus:
            with pytest.raises(TooLarge, match="octets"):
                await bus.append(large, now=NOW, caller=CALLER)
            assert bus.state().head == 0

    async def test_the_largest_order_goes_through(self, store: BusStore) -> None:
        large = PurgeOrder(urls=tuple(f"http://a/{'x' * 80}{i:05}" for i in range(9800)))
        assert 0.9 < len(frames.order_text(large)) / frames.MAX_ORDER_BYTES <= 1
        async with store.open() as bus, aclosing(bus.follow(0)) as batches:
            await bus.append(large, now=NOW, caller=CALLER)
            [record] = await take(batches, 1)
            assert frames.order_of(record.text) == large

    async def test_who_purged_what_is_kept(self, store: BusStore) -> None:
        async with store.open() as bus:
            await append(bus, "a")
            await bus.append(order(*(f"k{i}" for i in range(40))), now=NOW + 1, caller=Caller("ci", "::1"))
            newest, oldest = await bus.audit(before=None, limit=10)
            assert (newest.sequence, newest.token, newest.address, newest.targets) == (2, "ci", "::1", 40)
            assert (oldest.sequence, oldest.time, oldest.token, oldest.kind) == (1, NOW, "deploy", "hard")
            assert "a" in oldest.summary
            assert [record.sequence for record in await bus.audit(before=2, limit=10)] == [1]

    async def test_a_closed_bus_takes_nothing(self, store: BusStore) -> None:
        async with store.open() as bus:
            await append(bus, "a")
        with pytest.raises(BusError):
            await append(bus, "b")
