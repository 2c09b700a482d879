"""Purges that outlive a restart: what was purged stays so, judged against a plain model and the arena itself."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache._native.arena import Arena
from edgecache.purge.bans import cover
from edgecache.purge.durable import DurablePurges, PurgesLost
from edgecache.purge.message import PurgeKind, PurgeMessage, UrlPattern


class Table:
    """The purge table's rule, plainly."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[int, bool], int] = {}
        self.floors = {False: 0, True: 0}
        self.sequence = 0

    def apply_purge(self, sequence: int, tags: Sequence[int], *, soft: bool) -> None:
        for tag in tags:
            self.numbers[tag, soft] = max(self.numbers.get((tag, soft), 0), sequence)
        self.sequence = max(self.sequence, sequence)

    def raise_floor(self, sequence: int, *, soft: bool) -> None:
        self.floors[soft] = max(self.floors[soft], sequence)
        self.sequence = max(self.sequence, sequence)

    def purged(self, fill_seq: int, tags: Sequence[int]) -> int:
        for soft in (False, True):
            if self.floors[soft] > fill_seq or any(self.numbers.get((tag, soft), 0) > fill_seq for tag in tags):
                return 1 if soft else 2
        return 0


def message(sequence: int, *tags: int, soft: bool = False, everything: bool = False) -> PurgeMessage:
    return PurgeMessage(sequence, 0.0, PurgeKind.SOFT if soft else PurgeKind.HARD, tags, everything, "test")


def apply(table: Table, sent: PurgeMessage) -> None:
    soft = sent.kind is PurgeKind.SOFT
    if sent.everything:
        table.raise_floor(sent.sequence, soft=soft)
    else:
        table.apply_purge(sent.sequence, sent.tags, soft=soft)


TAGS = [1, 2, 3, 2**63, 2**64 - 1]
steps = st.lists(
    st.tuples(st.lists(st.sampled_from(TAGS), max_size=3, unique=True), st.booleans(), st.integers(0, 9)), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([3, 1000]))
def test_after_a_restart_the_same_is_purged(tmp_path_factory: pytest.TempPathFactory, steps: list, limit: int) -> None:  # type: ignore[type-arg]
    path = tmp_path_factory.mktemp("purges") / "purges.db"
    model, durable = Table(), DurablePurges(path, max_tags=limit)
    for number, (tags, soft, roll) in enumerate(steps, 1):
        sent = message(number, *tags, soft=soft, everything=roll == 0)
        apply(model, sent)
        durable.append([sent])
        durable.append([sent])
        if roll == 1:
            durable.close()
            durable = DurablePurges(path, max_tags=limit)
    assert len(durable) <= limit
    plain, arena = Table(), Arena(4 << 20, max_object=1 << 16)
    assert durable.restore(plain) == durable.restore(arena) == len(steps) == plain.sequence == arena.sequence()
    durable.close()
    for fill_seq in range(len(steps) + 1):
        for tag in TAGS:
            want = model.purged(fill_seq, [tag])
            got = plain.purged(fill_seq, [tag])
            assert got >= want if limit == 3 else got == want, "folded: more, never less"
            assert arena.purged(fill_seq, [tag]) == got


def test_pruning_keeps_what_may_still_be_stored(tmp_path: Path) -> None:
    durable = DurablePurges(tmp_path / "purges.db")
    durable.append([message(1, 10), message(2, 20, soft=True), message(3, 20), message(4, 30)])
    durable.prune(3)
    table = Table()
    assert durable.restore(table) == 4
    assert table.numbers == {(20, True): 2, (30, False): 4}
    durable.close()


def test_an_append_is_whole_or_not_at_all(tmp_path: Path) -> None:
    durable = DurablePurges(tmp_path / "purges.db")
    durable.append([message(1, 10)])
    with pytest.raises(OverflowError):
        durable.append([message(2, 20), message(3, 2**70)])
    table = Table()
    assert durable.restore(table) == 1
    assert table.numbers == {(10, False): 1}
    durable.close()


@pytest.mark.parametrize("content", [b"not a database at all, by any means", b"SQLite format 3\0" + bytes(200)])
def test_what_is_no_purge_database_is_lost(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "purges.db").write_bytes(content)
    with pytest.raises(PurgesLost):
        DurablePurges(tmp_path / "purges.db")


def test_an_unknown_version_is_lost(tmp_path: Path) -> None:
    DurablePurges(tmp_path / "purges.db").close()
    con = sqlite3.connect(tmp_path / "purges.db")
    con.execute("UPDATE State SET value = 2 WHERE name = 'version'")
    con.commit()
    con.close()
    with pytest.raises(PurgesLost, match="version 2"):
        DurablePurges(tmp_path / "purges.db")


def test_it_is_for_the_owner_alone(tmp_path: Path) -> None:
    DurablePurges(tmp_path / "purges.db").close()
    assert (tmp_path / "purges.db").stat().st_mode & 0o777 == 0o600


def test_the_sites_there_have_been_are_known(tmp_path: Path) -> None:
    durable = DurablePurges(tmp_path / "purges.db")
    assert durable.note_sites(["a", "b"], 10.0) == {"a": 10.0, "b": 10.0}
    assert durable.note_sites(["b"], 20.0) == {"a": 10.0, "b": 20.0}
    assert durable.note_sites(["c"], 15.0) == {"a": 10.0, "b": 15.0, "c": 15.0}, "the clock was put back"
    durable.forget_sites(["a", "nobody"])
    assert durable.note_sites([], 30.0) == {"b": 15.0, "c": 15.0}
    durable.close()


def test_sites_noted_by_an_earlier_release(tmp_path: Path) -> None:
    """It wrote no times: they count from now on."""
    DurablePurges(tmp_path / "purges.db").close()
    con = sqlite3.connect(tmp_path / "purges.db")
    con.execute("DROP TABLE Site")
    con.execute("CREATE TABLE Site (name TEXT PRIMARY KEY) WITHOUT ROWID")
    con.execute("INSERT INTO Site VALUES ('old')")
    con.commit()
    con.close()
    durable = DurablePurges(tmp_path / "purges.db")
    assert durable.note_sites(["a"], 10.0) == {"a": 10.0, "old": 10.0}
    assert durable.note_sites(["a"], 20.0) == {"a": 20.0, "old": 10.0}
    durable.close()


# --- patterns ---


def pattern(sequence: int, *given: UrlPattern, soft: bool = False) -> PurgeMessage:
    kind = PurgeKind.SOFT if soft else PurgeKind.HARD
    return PurgeMessage(sequence, 0.0, kind, (), False, "test", given)


def restored(path: Path) -> Arena:
    arena = Arena(64 << 20, max_object=8 << 10)  # with room for a thousand patterns
    durable = DurablePurges(path)
    durable.restore(arena)
    durable.close()
    return arena


def listed(path: Path) -> list[tuple[int, bool, bytes]]:
    found = restored(path).patterns()
    assert found is not None
    return [(number, soft, text) for number, _, soft, text in found[2]]


def test_patterns_are_in_force_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "purges.db"
    durable = DurablePurges(path)
    durable.append(
        [pattern(2, UrlPattern("b", "h"), UrlPattern("c")), message(3, 7), pattern(5, UrlPattern("a"), soft=True)]
    )
    durable.append([pattern(5, UrlPattern("a"), soft=True)])
    durable.close()
    assert listed(path) == [(2, False, b"h\0b"), (2, False, b"\0c"), (5, True, b"\0a")]
    assert restored(path).sequence() == 5


def test_retired_patterns_are_gone_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "purges.db"
    durable = DurablePurges(path)
    durable.append([pattern(number, UrlPattern(f"p{number}")) for number in (2, 4, 6)])
    durable.retire_patterns(4)
    durable.close()
    assert listed(path) == [(6, False, b"\0p6")]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("host", ["h", None])
def test_beyond_a_thousand_the_oldest_are_widened(tmp_path: Path, host: str | None, soft: bool) -> None:
    path = tmp_path / "purges.db"
    durable = DurablePurges(path)
    durable.append([pattern(2, UrlPattern("old", host), soft=soft)])
    durable.append([pattern(3, *(UrlPattern(str(i), "other") for i in range(999)))])
    assert restored(path).purged(1, [cover(UrlPattern("", "h"))]) == 0
    durable.append([pattern(4, UrlPattern("new", "other"))])
    durable.close()
    arena = restored(path)
    assert len((arena.patterns() or (0, 0, []))[2]) == 1000
    covered = 1 if soft else 2
    assert arena.purged(1, [cover(UrlPattern("", "h"))]) == covered
    assert arena.purged(2, [cover(UrlPattern("", "h"))]) == 0
    assert arena.purged(1, [cover(UrlPattern("", "elsewhere"))]) == (0 if host else covered)
