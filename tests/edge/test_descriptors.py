"""Clients are turned away while there are descriptors for that, and for what is under way."""

import logging

import pytest

from edgecache.edge.descriptors import LEAST, TELL_EVERY_S, Descriptors
from tests.wirekit import RawClient, answer, listening


@pytest.mark.parametrize(
    ("limit", "in_use", "clients", "with_answer"),
    [
        pytest.param(1024, 24, 774, 899, id="a quarter of what is free"),
        pytest.param(96, 80, 88, 92, id="few"),
        pytest.param(96, 95, 88, 92, id="fewer than are wanted"),
        pytest.param(1 << 62, 20, (1 << 62) - ((1 << 62) - 20) // 4, None, id="without limit"),
    ],
)
def test_how_many_clients_there_may_be(limit: int, in_use: int, clients: int, with_answer: int | None) -> None:
    descriptors = Descriptors(limit, in_use)
    assert not descriptors.short(-1)
    assert [descriptors.short(clients - 1), descriptors.short(clients)] == [False, True]
    assert limit - clients >= LEAST
    if with_answer is not None:
        assert [descriptors.very_short(with_answer - 1), descriptors.very_short(with_answer)] == [False, True]


def test_this_process_has_some() -> None:
    assert not Descriptors.of_this_process().short(50)


def test_it_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    descriptors = Descriptors(100, 50)
    with caplog.at_level(logging.WARNING):
        for now in (5.0, 6.0, 5.0 + TELL_EVERY_S - 0.1, 5.0 + TELL_EVERY_S):
            descriptors.tell(now)
    assert caplog.messages == ["file descriptors run out (100 for this process): clients are turned away"] * 2


@pytest.mark.parametrize("most", [pytest.param(0, id="closed"), pytest.param(1 << 20, id="answered")])
async def test_who_is_turned_away_is_told_and_counted(most: int, caplog: pytest.LogCaptureFixture) -> None:
    descriptors = Descriptors(0, 0)
    descriptors._last = most
    async with listening(answer, descriptors=descriptors) as listener:
        async with await RawClient.connect(listener.port) as client:
            got = await client.answer()
            assert (got.status, got.get("connection")) == (503, "close")
            assert await client.rest() == b""
        assert (listener.counters.no_descriptors, listener.requests) == (1, 0)
        assert "file descriptors run out (0 for this process): clients are turned away" in caplog.messages
