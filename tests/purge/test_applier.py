"""What an edge does with what its coordinator says: applied in order, kept before it is acknowledged, trusted last."""

import pytest

from edgecache._native.arena import Arena
from edgecache.purge.applier import Applier, Work
from edgecache.purge.bus import Heartbeat, LogEntry, LogPosition, Lost, Purges, Welcome
from edgecache.purge.message import PurgeKind, PurgeOrder
from edgecache.purge.tags import object_tags

KEY_A = object_tags(cache_key="http://h/a", site="s", surrogate_keys=["a"])
KEY_B = object_tags(cache_key="http://h/b", site="gone", surrogate_keys=["b"])


class Edge:
    def __init__(self, position: LogPosition | None = None) -> None:
        self.arena = Arena(4 << 20, max_object=1 << 16)
        self.trusted = 0
        self.applier = Applier(
            self.arena, sites=lambda: ("s",), cache_keys=lambda url: (url,), trust=self.trust, position=position
        )

    def trust(self) -> None:
        self.trusted += 1

    def purged(self, fill_seq: int, tags: tuple[int, ...] = KEY_A) -> bool:
        return bool(self.arena.purged(fill_seq, tags))


def entry(number: int, time: float = 1.0, **order: object) -> LogEntry:
    return LogEntry(number, time, PurgeOrder(**(order or {"keys": ("a",)})))  # type: ignore[arg-type]


def welcome(number: int, head: int, *, log: str = "log", reset: bool = False, time: float = 1.0) -> Welcome:
    return Welcome(LogPosition(log, number, time), head, reset, 5.0)


def position(number: int, log: str = "log", time: float = 1.0) -> LogPosition:
    return LogPosition(log, number, time)


def test_the_first_connection_purges_everything_before_anything_is_trusted() -> None:
    edge = Edge()
    order: list[str] = []
    append = edge.arena.append_purge
    edge.applier._trust = lambda: order.append(f"trust {edge.arena.sequence()}")
    work = edge.applier.handle(welcome(7, 7, reset=True))
    assert order == ["trust 1"]
    assert work is not None
    assert edge.purged(0)
    assert not edge.purged(1)
    assert edge.applier.position() is None, "not before it is kept"
    assert edge.applier.kept(work) == 7
    assert edge.applier.position() == position(7)
    assert append([], soft=False) == 2


def test_it_is_trusted_only_once_it_has_what_there_was() -> None:
    edge = Edge(position(3))
    assert edge.applier.handle(welcome(3, 5)) is None
    assert (edge.trusted, edge.applier.caught_up) == (0, False)
    edge.applier.handle(Purges((entry(4),)))
    assert edge.trusted == 0
    edge.applier.handle(Purges((entry(5),)))
    assert (edge.trusted, edge.applier.caught_up, edge.applier.applied) == (1, True, 5)
    edge.applier.handle(Heartbeat(5, 9.0))
    assert edge.trusted == 2
    edge.applier.handle(Lost("gone", 1.0))
    assert edge.trusted == 2
    edge.applier.handle(welcome(5, 5))
    assert edge.trusted == 3


def test_nothing_is_told_before_it_is_kept() -> None:
    edge = Edge(position(0))
    edge.applier.handle(welcome(0, 0))
    works = [edge.applier.handle(Purges((entry(n, float(n)),))) for n in (1, 2)]
    assert edge.purged(1)
    assert edge.applier.position() == position(0)
    for number, work in enumerate(works, 1):
        assert isinstance(work, Work)
        assert edge.applier.kept(work) == number
        assert edge.applier.position() == position(number, time=float(number))


def test_what_is_sent_again_is_applied_once() -> None:
    edge = Edge(position(0))
    edge.applier.handle(welcome(0, 2))
    work = edge.applier.handle(Purges((entry(1), entry(2))))
    before = edge.arena.sequence()
    edge.applier.handle(Lost("gone", 1.0))
    edge.applier.handle(welcome(0, 3))
    assert edge.applier.handle(Purges((entry(1), entry(2)))) is None
    assert edge.arena.sequence() == before
    assert not edge.applier.caught_up
    assert edge.applier.handle(Purges((entry(2), entry(3)))) is not None
    assert edge.arena.sequence() == before + 1
    assert work is not None
    assert edge.applier.kept(work) == 2


def test_the_same_number_of_another_history_is_not_the_same() -> None:
    """A log restored from a backup between what is kept here and what is applied."""
    edge = Edge(position(0))
    edge.applier.handle(welcome(0, 1))
    edge.applier.handle(Purges((entry(1, 1.0),)))
    edge.applier.handle(Lost("gone", 1.0))
    edge.applier.handle(welcome(0, 1))
    assert edge.applier.handle(Purges((entry(1, 2.0),))) is not None
    assert edge.arena.sequence() == 2


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(welcome(1, 1, log="other", reset=True), id="another log"),
        pytest.param(welcome(1, 1, reset=True), id="compacted"),
        pytest.param(welcome(1, 1, log="other"), id="another log that does not say so"),
        pytest.param(welcome(5, 5, time=9.0), id="another history that does not say so"),
    ],
)
def test_a_position_that_is_not_covered_purges_everything(again: Welcome) -> None:
    edge = Edge(position(5))
    edge.applier.handle(welcome(5, 5))
    late = edge.applier.handle(Purges((entry(6),)))
    before = edge.arena.sequence()
    work = edge.applier.handle(again)
    assert edge.purged(before, KEY_B)
    assert edge.applier.resets == 1
    assert late is not None
    assert edge.applier.kept(late) is None, "a number of the last log means nothing in this one"
    assert edge.applier.position() is None
    assert work is not None
    assert edge.applier.kept(work) == again.position.sequence
    assert edge.applier.position() == again.position


def test_a_site_that_is_not_configured_now_is_purged_all_the_same() -> None:
    edge = Edge(position(0))
    edge.applier.handle(welcome(0, 1))
    edge.applier.handle(Purges((entry(1, keys=("b",), site="gone"),)))
    assert edge.purged(0, KEY_B)
    assert not edge.purged(0)


def test_what_cannot_be_read_purges_everything() -> None:
    edge = Edge(position(0))
    edge.applier.handle(welcome(0, 1))
    work = edge.applier.handle(Purges((entry(1, urls=("no url",)),)))
    assert edge.purged(0, KEY_B)
    assert work is not None
    assert work.messages[0].everything


@pytest.mark.parametrize(("kind", "verdict"), [(PurgeKind.HARD, 2), (PurgeKind.SOFT, 1)])
def test_kinds(kind: PurgeKind, verdict: int) -> None:
    edge = Edge(position(0))
    edge.applier.handle(welcome(0, 2))
    edge.applier.handle(Purges((entry(1, keys=("a",), kind=kind),)))
    assert edge.arena.purged(0, KEY_A) == verdict
    assert edge.arena.purged(0, KEY_B) == 0
    edge.applier.handle(Purges((entry(2, everything=True, kind=kind),)))
    assert edge.arena.purged(1, KEY_B) == verdict
