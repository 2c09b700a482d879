"""Turns: bounded, in order, and never a dead end."""

import asyncio

import pytest

from edgecache.edge.turns import Turns


async def test_so_many_at_once_and_then_in_order() -> None:
    turns = Turns(2, 60.0)
    order: list[int] = []

    async def one(number: int) -> None:
        assert await turns.take()
        order.append(number)

    await asyncio.gather(one(1), one(2))
    assert turns.none_left
    waiting = [asyncio.ensure_future(one(number)) for number in (3, 4, 5)]
    await asyncio.sleep(0)
    assert order == [1, 2]
    for expected in (3, 4, 5):
        turns.give_back()
        await waiting[expected - 3]
        assert order[-1] == expected
    turns.give_back()
    assert not turns.none_left
    turns.give_back()
    await asyncio.gather(one(6), one(7))
    assert turns.none_left


async def test_where_nothing_moves_one_goes_ahead_without() -> None:
    turns = Turns(1, 0.02)
    assert await turns.take()
    assert not await turns.take()
    turns.give_back()
    assert not turns.none_left


async def test_who_gives_up_keeps_no_turn() -> None:
    turns = Turns(1, 60.0)
    assert await turns.take()
    left = asyncio.ensure_future(turns.take())
    lucky = asyncio.ensure_future(turns.take())
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    turns.give_back()
    assert await lucky
    lucky_and_late = asyncio.ensure_future(turns.take())
    await asyncio.sleep(0)
    turns.give_back()
    lucky_and_late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lucky_and_late
    assert not turns.none_left
