"""When patterns end, by a clock of the test's own."""

import pytest

from edgecache._native.arena import Arena
from edgecache.purge.bans import carry_out
from edgecache.purge.message import PurgeMessage, PurgeOrder, UrlPattern
from edgecache.purge.tags import object_tags
from edgecache.store import lurker
from edgecache.store.lurker import PATIENCE_S, Lurker
from edgecache.store.memory import MemoryStore, Record


class World:
    def __init__(self, *, disk: bool = False) -> None:
        self.arena = Arena(4 << 20, max_object=8 << 10)
        self.store = MemoryStore(self.arena, bytes(16))
        self.store.stored_url = lambda meta: meta.decode()
        self.now = 100.0
        self.scanned = -1
        self.lurker = Lurker(self.store, clock=lambda: self.now, scanned=(lambda: self.scanned) if disk else None)

    def put(self, path: str) -> bool:
        url = f"http://h{path}"
        tags = object_tags(cache_key=url, site="default", surrogate_keys=())
        record = Record(b"", url.encode(), 1.0, 2e9, 0.0, 0, 200, self.arena.sequence(), tags)
        return self.store.put(self.store.key(url), record, [b"body"])

    def has(self, path: str) -> bool:
        return self.arena.get(self.store.key(f"http://h{path}")) is not None

    def ban(self, text: str) -> int:
        return carry_out(self.arena, PurgeOrder(patterns=(UrlPattern(text),)), (), now=0.0, match=True).sequence

    @property
    def in_force(self) -> list[int]:
        return [number for number, *_ in (self.arena.patterns() or (0, 0, []))[2]]


async def test_after_a_while_and_not_before() -> None:
    w = World()
    w.put("/a")
    w.put("/b")
    w.ban("a")
    assert not await w.lurker.look()
    w.now += PATIENCE_S - 1
    assert not await w.lurker.look()
    w.now += 1
    assert await w.lurker.look()
    assert w.in_force == []
    assert (w.has("/a"), w.has("/b")) == (False, True)


async def test_younger_ones_stay() -> None:
    w = World()
    w.ban("a")
    await w.lurker.look()
    w.now += PATIENCE_S - 1
    second = w.ban("b")
    await w.lurker.look()
    w.now += 1
    assert await w.lurker.look()
    assert w.in_force == [second]
    w.now += PATIENCE_S
    assert await w.lurker.look()
    assert w.in_force == []


async def test_one_that_the_disk_has_been_compared_with_ends_while_others_wait() -> None:
    w = World(disk=True)
    first = w.ban("a")
    await w.lurker.look()
    second = w.ban("b")
    await w.lurker.look()
    w.now += PATIENCE_S
    assert not await w.lurker.look()
    w.scanned = first
    assert await w.lurker.look()
    assert w.in_force == [second]
    w.scanned = second + 5
    assert await w.lurker.look()
    assert w.in_force == []


async def test_it_remembers_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lurker, "MOST_SEEN", 3)
    w = World(disk=True)
    for _ in range(20):
        newest = w.ban("a")
        await w.lurker.look()
        assert len(w.lurker._seen) <= 3
    w.now += PATIENCE_S
    w.scanned = newest
    while w.in_force:
        await w.lurker.look()
        w.now += PATIENCE_S


class Keeper:
    """Of a disk that takes everything."""

    def __init__(self) -> None:
        self.retired: list[int] = []

    def keep(self, *_: PurgeMessage) -> None:
        pass

    async def kept(self) -> bool:
        return True

    async def retire_patterns(self, through: int) -> None:
        self.retired.append(through)


async def test_not_before_what_the_disk_lost_by_it_is_lost_for_good() -> None:
    """A power cut may bring back records whose removal was not synced: the pattern must be there to judge them."""
    w, keeper, steady = World(), Keeper(), False

    async def synced() -> bool:
        return steady

    w.lurker = Lurker(
        w.store,
        scanned=lambda: w.arena.sequence(),
        synced=synced,
        keeper=keeper,  # type: ignore[arg-type]
        patience_s=0.0,
    )
    number = w.ban("a")
    assert not await w.lurker.look()
    assert (w.in_force, keeper.retired) == ([number], [])
    steady = True
    assert await w.lurker.look()
    assert (w.in_force, keeper.retired) == ([], [number])
