"""A control process that follows a coordinator, over a feed that the test speaks for."""

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from edgecache._native.arena import Arena
from edgecache.config.purge import PurgeConfig
from edgecache.purge.bus import FeedEvent, Heartbeat, LogEntry, LogPosition, Lost, Purges, Welcome
from edgecache.purge.durable import DurablePurges
from edgecache.purge.following import Following, Turn, trust_at_start
from edgecache.purge.keeper import PurgeKeeper, restore
from edgecache.purge.message import PurgeOrder
from tests.edge.world import until

HEAD = LogPosition("log", 4, 1.0)


class ScriptedFeed:
    """Says what the test puts in."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[FeedEvent | Exception] = asyncio.Queue()
        self.acked: list[int] = []
        self.named: list[LogPosition | None] = []
        self.closed = False

    async def events(self, position: Callable[[], LogPosition | None]) -> AsyncGenerator[FeedEvent, None]:
        self.named.append(position())
        while True:
            event = await self.queue.get()
            if isinstance(event, Exception):
                raise event
            yield event

    def ack(self, sequence: int) -> None:
        self.acked.append(sequence)

    async def close(self) -> None:
        self.closed = True


class Node:
    def __init__(self, *, when_silent: str = "revalidate", path: Path | None = None) -> None:
        self.config = PurgeConfig.model_validate(
            {"coordinator": "http://127.0.0.1:9", "max_silence": 30, "when_silent": when_silent}
        )
        self.arena = Arena(4 << 20, max_object=1 << 16)
        if path is not None:
            restore(path, self.arena)
        trust_at_start(self.arena, self.config)
        self.turn = Turn()
        self.path = path
        self.now = 1000.0
        self.feeds: list[ScriptedFeed] = []

    def following(self, config: PurgeConfig | None = None, keeper: PurgeKeeper | None = None) -> Following:
        return Following(
            config or self.config,
            edge="edge",
            arena=self.arena,
            turn=self.turn,
            sites=lambda: ("s",),
            cache_keys=lambda url: (url,),
            keeper=keeper,
            clock=lambda: self.now,
            feed=self.feed,
        )

    def feed(self, _config: PurgeConfig, _edge: str) -> ScriptedFeed:
        self.feeds.append(ScriptedFeed())
        return self.feeds[-1]

    def keeper(self) -> PurgeKeeper:
        assert self.path is not None
        keeper = PurgeKeeper(self.path, lambda: None, sequence=self.arena.sequence, retry_s=0.01)
        keeper.start()
        return keeper


def entry(number: int) -> LogEntry:
    return LogEntry(number, 1.0, PurgeOrder(keys=("a",)))


async def test_silent_until_it_has_heard_and_again_when_it_hears_no_more() -> None:
    node = Node()
    following = node.following()
    assert node.arena.silent()
    await following.start()
    assert following.ready() == (False, "purge coordinator: no connection")
    [feed] = node.feeds
    feed.queue.put_nowait(Welcome(HEAD, 4, True, 5.0))
    await until(lambda: feed.acked == [4])
    assert node.arena.trusted_until() == pytest.approx(1030)
    node.now = 1020
    for _ in range(2):
        following.beat()
    feed.queue.put_nowait(Heartbeat(4, 1.0))
    await until(lambda: node.arena.trusted_until() == pytest.approx(1050))
    feed.queue.put_nowait(Lost("gone", 1.0))
    node.arena.trust(0.0)  # as when the deadline has passed
    await until(lambda: "no connection" in following.ready()[1])
    assert following.ready()[0], "once it has served, it goes on by its policy"
    stats = following.stats()
    assert (stats["connected"], stats["caught_up"], stats["silent"], stats["position"]) == (False, False, True, 4)
    await following.close()
    assert feed.closed


async def test_what_a_stopped_process_finds_waiting_is_no_sign_of_life() -> None:
    node = Node()
    following = node.following()
    await following.start()
    [feed] = node.feeds
    feed.queue.put_nowait(Welcome(HEAD, 4, True, 5.0))
    await until(lambda: feed.acked == [4])
    node.now += 3600
    following.beat()  # the loop turns again, before or after it reads what waits
    feed.queue.put_nowait(Heartbeat(4, 1.0))
    await until(lambda: following.silent_s() == 0)
    assert node.arena.trusted_until() == pytest.approx(1030)
    node.now += 1
    following.beat()
    feed.queue.put_nowait(Heartbeat(4, 1.0))
    await until(lambda: node.arena.trusted_until() == pytest.approx(4630))
    await following.close()


async def test_a_start_does_not_wait_for_ever() -> None:
    node = Node()
    following = node.following()
    await following.start()
    node.now += 31
    assert following.ready()[0]
    await following.close()


@pytest.mark.parametrize(("when_silent", "silent"), [("serve", False), ("pass", True), ("revalidate", True)])
async def test_who_serves_on_is_never_silent(when_silent: str, silent: bool) -> None:
    node = Node(when_silent=when_silent)
    following = node.following()
    await following.start()
    assert node.arena.silent() is silent
    assert following.ready()[0] is not silent
    await following.close()


async def test_without_a_coordinator_nothing_is_silent() -> None:
    node = Node()
    following = node.following(PurgeConfig())
    await following.start()
    assert node.arena.trusted_until() == math.inf
    assert (following.stats(), node.feeds) == ({}, [])
    await following.close()


async def test_one_follows_at_a_time_and_the_next_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload: the next control process starts before the last one stops."""
    node = Node()
    first, second = node.following(), node.following()
    await first.start()
    node.feeds[0].queue.put_nowait(Welcome(HEAD, 4, True, 5.0))
    await until(lambda: node.feeds[0].acked == [4])
    tries, take = [], node.turn.take
    monkeypatch.setattr(node.turn, "take", lambda who: tries.append(who) or take(who))
    await second.start()
    await until(lambda: tries == [second] * 3)
    assert len(node.feeds) == 1
    await first.close()
    await until(lambda: len(node.feeds) == 2 and bool(node.feeds[1].named))
    assert node.feeds[1].named == [HEAD]
    await second.close()


async def test_a_reload_that_brings_a_coordinator_makes_silent_until_it_is_heard() -> None:
    node = Node()
    node.arena.trust(math.inf)
    alone, bound = node.following(PurgeConfig()), node.following()
    await alone.start()
    await bound.start()
    assert not node.arena.silent(), "not before the last one has gone"
    await alone.close()
    await until(node.arena.silent)
    await bound.close()


def test_the_turn_of_a_process_that_died_is_free() -> None:
    turn = Turn()
    pid = os.fork()
    if pid == 0:
        turn.take("child")
        turn.note(HEAD)
        os._exit(0)
    os.waitpid(pid, 0)
    assert turn.position() == HEAD
    assert turn.take("parent")


async def test_with_a_disk_it_is_acknowledged_once_it_is_kept(tmp_path: Path) -> None:
    node = Node(path=tmp_path / "purges.db")
    keeper = node.keeper()
    following = node.following(keeper=keeper)
    await following.start()
    [feed] = node.feeds
    seen = []

    def ack(sequence: int) -> None:
        durable = DurablePurges(tmp_path / "purges.db")
        seen.append((sequence, durable.position))
        durable.close()

    feed.ack = ack  # type: ignore[method-assign]
    feed.queue.put_nowait(Welcome(HEAD, 4, True, 5.0))
    await until(lambda: len(seen) == 1)
    feed.queue.put_nowait(Purges((entry(5), entry(6))))
    await until(lambda: len(seen) == 2)
    assert seen == [(4, HEAD), (6, LogPosition("log", 6, 1.0))]
    await following.close()
    await keeper.close()
    # After a restart, with another arena, it goes on from there, and what was purged is.
    again = Node(path=tmp_path / "purges.db")
    keeper = again.keeper()
    following = again.following(keeper=keeper)
    await following.start()
    await until(lambda: bool(again.feeds[0].named))
    assert again.feeds[0].named == [LogPosition("log", 6, 1.0)]
    assert again.arena.silent()
    await following.close()
    await keeper.close()


async def test_what_cannot_be_kept_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(path=tmp_path / "purges.db")
    broken, tries = [True], 0
    append = DurablePurges.append

    def failing(self: DurablePurges, messages: object, position: LogPosition | None = None) -> None:
        nonlocal tries
        tries += 1
        if broken[0]:
            raise OSError(28, "No space left on device")
        append(self, messages, position)  # type: ignore[arg-type]

    def distrust() -> None:
        if broken[0]:
            raise OSError(30, "Read-only file system")

    monkeypatch.setattr(DurablePurges, "append", failing)
    keeper = PurgeKeeper(node.path, distrust, sequence=node.arena.sequence, retry_s=0.01)  # type: ignore[arg-type]
    keeper.start()
    following = node.following(keeper=keeper)
    await following.start()
    following._subscriber._retry_s = 0.01  # type: ignore[union-attr]
    [feed] = node.feeds
    feed.queue.put_nowait(Welcome(HEAD, 4, True, 5.0))
    await until(lambda: node.arena.sequence() > 0)
    await until(lambda: tries > 3)
    assert feed.acked == []
    broken[0] = False
    await until(lambda: feed.acked == [4])
    await following.close()
    await keeper.close()


async def test_a_coordinator_that_speaks_too_rarely_is_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    following = node.following()
    await following.start()
    node.feeds[0].queue.put_nowait(Welcome(HEAD, 4, True, 20.0))
    await until(lambda: "too rarely" in caplog.text)
    await following.close()


async def test_a_bug_makes_silent_and_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    following = node.following()
    await following.start()
    following._subscriber._retry_s = 0.0  # type: ignore[union-attr]
    [feed] = node.feeds
    feed.queue.put_nowait(Welcome(HEAD, 4, True, 5.0))
    feed.queue.put_nowait(RuntimeError("a bug"))
    await until(lambda: len(feed.named) == 2)
    assert feed.named == [None, HEAD]
    assert not following.stats()["connected"]
    assert "the purge feed failed" in caplog.text
    await following.close()
