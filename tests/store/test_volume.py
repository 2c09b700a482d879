"""The disk tier's directory as one process holds it: stores, look-ups, eviction, purges, what strangers leave there."""

import os
import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecache.store import volume as volumes
from edgecache.store.database import DatabaseLost
from edgecache.store.diskentry import BodyCorrupt, Seen
from edgecache.store.diskrecord import CHUNK, INLINE_MAX
from edgecache.store.disksweep import DirectoryInUse, NodeLock, Sweep, sweep_before_start
from edgecache.store.volume import MIN_SIZE, Put, Volume
from tests.store.kit import FAR, NOW, Purges, body, body_files, disk_usage, key, put, record

SIZES = [0, 1, INLINE_MAX, INLINE_MAX + 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1]


@pytest.fixture
def purges() -> Purges:
    return Purges()


@pytest.fixture
def volume(tmp_path: Path, purges: Purges) -> Iterator[Volume]:
    made = Volume(tmp_path / "cache", MIN_SIZE, owner=1, purged=purges)
    made.open()
    yield made
    made.close()


@pytest.mark.parametrize("size", SIZES)
def test_a_record_comes_back_whole(volume: Volume, size: int) -> None:
    data = body("a", size)
    stored = record("a", tags=(1, 2**64 - 1), fill_seq=3)
    volume.put([Put(key("a"), stored, [data[:7], b"", data[7:]], size)], NOW)
    entry = volume.get(key("a"))
    assert entry is not None
    assert entry.record == stored
    assert entry.body_size == size
    assert entry.in_file == (size > INLINE_MAX)
    assert entry.read(0, size + 10) == data
    assert entry.read(size, 10) == b""
    assert entry.read(max(size - 5, 0), 100) == data[-5:]
    entry.close()
    entry.close()


def test_ranges_are_offsets_into_the_file(volume: Volume, tmp_path: Path) -> None:
    data = body("a", 2 * CHUNK + 100)
    put(volume, "a", data)
    entry = volume.get(key("a"))
    assert entry is not None
    got, at = b"", 5
    while (span := entry.span(at, len(data))) is not None:
        fd, offset, size = span
        assert offset == at
        with (tmp_path / "out").open("wb") as out:
            assert os.sendfile(out.fileno(), fd, offset, size) == size
        got += (tmp_path / "out").read_bytes()
        at += size
    assert got == data[5:]
    entry.close()


def test_a_body_in_the_row_has_no_span(volume: Volume) -> None:
    put(volume, "a", b"small")
    entry = volume.get(key("a"))
    assert entry is not None
    assert entry.span(0, 5) is None


def test_a_body_outlives_its_record(volume: Volume) -> None:
    data = body("a", 200_000)
    put(volume, "a", data)
    entry = volume.get(key("a"))
    assert entry is not None
    assert volume.remove(key("a"))
    assert not body_files(volume.path)
    assert volume.get(key("a")) is None
    assert entry.read(0, 200_000) == data
    entry.close()


def test_replacing_leaves_one_file(volume: Volume) -> None:
    for name in ("first", "second"):
        volume.put([Put(key("a"), record(name), [body(name, 100_000)], 100_000)], NOW)
    entry = volume.get(key("a"))
    assert entry is not None
    assert entry.read(0, 100_000) == body("second", 100_000)
    entry.close()
    assert len(body_files(volume.path)) == 1
    put(volume, "a", b"now small")
    assert not body_files(volume.path)


def test_a_second_process_sees_it(volume: Volume, purges: Purges) -> None:
    other = Volume(volume.path, MIN_SIZE, owner=2, purged=purges)
    other.open()
    put(volume, "a", body("a", 100_000))
    entry = other.get(key("a"))
    assert entry is not None
    entry.close()
    other.close()


def test_it_is_there_after_a_restart(volume: Volume, purges: Purges) -> None:
    put(volume, "a", body("a", 100_000))
    put(volume, "b", b"small")
    volume.close()
    assert sweep_before_start(volume.path, MIN_SIZE, purged=purges) == 0
    volume.open()
    for name in ("a", "b"):
        entry = volume.get(key(name))
        assert entry is not None
        entry.close()


def test_remove_and_freshen_mind_the_generation(volume: Volume) -> None:
    put(volume, "a", body("a", 100_000))
    entry = volume.get(key("a"))
    assert entry is not None
    fresh = record("newer", fill_seq=4)
    assert not volume.freshen(key("a"), entry.generation + 1, fresh)
    assert volume.freshen(key("a"), entry.generation, fresh)
    assert not volume.remove(key("a"), entry.generation + 1)
    again = volume.get(key("a"))
    assert again is not None
    assert (again.record, again.generation) == (fresh, entry.generation)
    assert again.read(0, 100_000) == body("a", 100_000)
    entry.close()
    again.close()
    assert volume.remove(key("a"), entry.generation)
    assert not volume.remove(key("a"))
    assert not volume.freshen(key("a"), entry.generation, fresh)


# --- purges ---


def test_purged_records_are_not_there(volume: Volume, purges: Purges) -> None:
    put(volume, "a", b"1", record("a", tags=(1, 2)))
    put(volume, "b", b"2", record("b", tags=(3,)))
    purges.purge(2)
    assert volume.get(key("a")) is None
    assert volume.get(key("b")) is not None
    assert not put(volume, "a", b"filled before", record("a", tags=(1, 2)))
    assert put(volume, "a", b"filled after", record("a", tags=(1, 2), fill_seq=1))
    purges.purge_all()
    assert volume.get(key("a")) is None
    assert volume.get(key("b")) is None


def test_a_refused_body_leaves_nothing(volume: Volume, purges: Purges) -> None:
    purges.purge(1)
    assert not put(volume, "a", body("a", 100_000), record("a", tags=(1,)))
    assert not body_files(volume.path)
    assert volume.counters.refused == 1
    volume.settle()
    assert volume.usage()["bytes_journalled"] == 0


@pytest.mark.parametrize("size", [100, 100_000])
def test_what_a_refused_record_was_to_replace_does_not_come_back(volume: Volume, purges: Purges, size: int) -> None:
    put(volume, "a", body("older", size))
    purges.purge(1)
    assert not put(volume, "a", body("newer", size), record("a", tags=(1,)))
    assert volume.get(key("a")) is None
    assert not body_files(volume.path)
    put(volume, "a", body("newest", size), record("a", tags=(1,), fill_seq=1))
    assert not put(volume, "a", body("newer", size), record("a", tags=(1,)))
    entry = volume.get(key("a"))
    assert entry is not None, "not what was filled after the purge"
    entry.close()


def test_a_softly_purged_record_says_so(volume: Volume, purges: Purges) -> None:
    put(volume, "a", b"1", record("a", tags=(1,)))
    purges.purge(1, soft=True)
    entry = volume.get(key("a"))
    assert entry is not None
    assert entry.soft_purged


# --- the bound ---


@pytest.mark.parametrize(
    "sizes", [[2000], [3000, 20_000], [40_000, 300_000], [500, 30_000, 50_000, 2_000_000]], ids=str
)
def test_the_bound_holds_and_is_used(volume: Volume, sizes: list[int]) -> None:
    """What lies in the directory, log and spool included, against the limit, after every batch."""
    written = count = 0
    worst = 0
    while written < MIN_SIZE * 1.6:
        batch = [
            Put(key(count + i), record(count + i), [body(i, s)], s) for i, s in enumerate(sizes * (64 // len(sizes)))
        ]
        for half in (batch[:8], batch[8:]):
            volume.put(half, NOW)
            worst = max(worst, volume.usage()["bytes_used"])
        written += sum(put.size + 600 for put in batch)
        count += len(batch)
    worst = max(worst, disk_usage(volume.path))
    assert worst <= MIN_SIZE * 1.02
    assert disk_usage(volume.path) >= MIN_SIZE * 0.85  # the log's share is set aside: 2 MiB of these 32
    assert volume.counters.dropped == 0
    assert volume.counters.evicted > 0


def test_files_take_the_room_that_rows_had(volume: Volume) -> None:
    for i in range(0, 2000, 20):
        volume.put([Put(key(i + j), record(i), [body(i, 20_000)], 20_000) for j in range(20)], NOW)
    full = volume.usage()
    for i in range(120):
        assert put(volume, f"file {i}", body(i, 200_000))
    after = volume.usage()
    assert after["bytes_files"] > MIN_SIZE * 0.6
    assert after["bytes_database"] < full["bytes_database"] / 2
    assert disk_usage(volume.path) <= MIN_SIZE * 1.02


def test_what_was_used_last_stays_longest(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1_000_000
    for i in range(20):
        put(volume, i, body(i, size))
    volume.touch([(FAR + i, key(i)) for i in (3, 0)])
    for i in range(100, 118):
        put(volume, i, body(i, size))
    kept = {i for i in range(20) if volume.database.row(key(i)) is not None}
    assert {0, 3} <= kept
    assert kept - {0, 3} == set(range(20 - len(kept - {0, 3}), 20)), "the others went in the order they were stored"


def test_what_can_never_fit_is_dropped(volume: Volume) -> None:
    put(volume, "a", b"1")
    assert not put(volume, "big", bytes(MIN_SIZE))
    assert volume.counters.dropped == 1
    assert put(volume, "b", b"2"), "and nothing is left behind that would be in the way"
    assert not body_files(volume.path)


def test_too_small_a_tier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32 MiB"):
        Volume(tmp_path, MIN_SIZE - 1, owner=1, purged=Purges())


# --- sweeping ---


def run_out(sweep: Sweep, now: float = NOW, steps: int = 600) -> int:
    return sum(sweep.step(now) for _ in range(steps))


def test_expired_and_purged_records_go(volume: Volume, purges: Purges) -> None:
    import time

    now = time.time()  # noqa: TID251 - what diskcache compares with
    for i in range(300):
        size = 40_000 if i % 3 == 0 else 100
        until = now + 10 if i % 2 else now + 1e9
        put(volume, i, body(i, size), record(i, until=until, tags=(i % 5 + 1,)), now=now)
    purges.purge(2)
    sweep = Sweep(volume, sequence=lambda: purges.sequence)
    gone = run_out(sweep, now + 20 + volume.keep_s)
    left = [i for i in range(300) if volume.database.row(key(i)) is not None]
    assert left == [i for i in range(300) if i % 2 == 0 and i % 5 != 1]
    assert gone == 300 - len(left)
    assert sweep.clean_through == purges.sequence
    assert len(body_files(volume.path)) == sum(i % 3 == 0 for i in left)
    assert run_out(sweep, now) == 0
    purges.purge(1)
    assert run_out(sweep, now) == sum(i % 5 == 0 for i in left)


def test_one_step_is_bounded(volume: Volume, purges: Purges) -> None:
    for i in range(0, 2000, 50):
        volume.put([Put(key(i + j), record(tags=(1,)), [b"x"], 1) for j in range(50)], NOW)
    purges.purge(1)
    assert 0 < Sweep(volume, sequence=lambda: purges.sequence).step(NOW) <= 512


def test_orphans_of_dead_processes_go_before_the_start(volume: Volume, purges: Purges) -> None:
    put(volume, "kept", body("kept", 100_000))
    kept = body_files(volume.path)
    for i, folder in enumerate(("spool", "spool", "placed")):
        name = volumes.diskfiles.file_name(key(i))
        with volume.writing():
            volume.database.journal([(name, 4096, 7)])
        target = volume.path / name if folder == "placed" else Path(volumes.diskfiles.spool_path(volume.path, name))
        target.write_bytes(b"half")
    (volume.path / "spool" / "never journalled").write_bytes(b"")
    assert volume.usage()["bytes_journalled"] == 3 * 4096
    volume.close()
    assert sweep_before_start(volume.path, MIN_SIZE, purged=purges) == 4
    assert body_files(volume.path) == kept
    volume.open()
    assert volume.usage()["bytes_journalled"] == 0


def test_a_process_that_comes_back_sweeps_its_own(volume: Volume) -> None:
    mine, others = (volumes.diskfiles.file_name(key(i)) for i in range(2))
    with volume.writing():
        volume.database.journal([(mine, 4096, 1), (others, 4096, 2)])
    for name in (mine, others):
        (volume.path / name).write_bytes(b"half")
    volume.close()
    volume.open()
    assert body_files(volume.path) == {others}


def test_files_nobody_knows_are_found_by_walking(volume: Volume, purges: Purges) -> None:
    """What only a power cut leaves: the row is lost, its file is not."""
    put(volume, "a", body("a", 100_000))
    put(volume, "b", body("b", 100_000))
    kept = body_files(volume.path)
    stray = volume.path / volumes.diskfiles.file_name(key("lost"))
    old = volume.path / volumes.diskfiles.file_name(key("a"))
    foreign = volume.path / "00" / "readme.txt"
    for file in (stray, old, foreign):
        file.write_bytes(b"x")
    assert run_out(Sweep(volume, sequence=lambda: 0), steps=256) == 2
    assert body_files(volume.path) == kept | {"00/readme.txt"}


def test_one_directory_is_for_one_node(tmp_path: Path) -> None:
    first = NodeLock(tmp_path / "cache")
    with pytest.raises(DirectoryInUse):
        NodeLock(tmp_path / "cache")
    first.close()
    NodeLock(tmp_path / "cache").close()


# --- what strangers, rot and power cuts leave ---


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_in_the_directory_is_never_loaded(volume: Volume, purges: Purges, tmp_path: Path) -> None:
    """CVE-2025-69872: with diskcache's own Disk any of these rows runs code when it is read."""
    trap = tmp_path / "sprung"
    bomb = pickle.dumps(Bomb(trap))
    pickle.loads(bomb)
    assert trap.exists(), "the bomb works"
    trap.unlink()
    names = [f"bomb {i}" for i in range(4)]
    for name in names:
        put(volume, name, body(name, 100_000))
    file = next(iter(body_files(volume.path)))
    (volume.path / file).write_bytes(bomb)
    (volume.path / "bomb.val").write_bytes(bomb)
    with sqlite3.connect(volume.path / "cache.db") as con:
        con.execute("UPDATE Cache SET mode = 4, value = ?, filename = NULL WHERE key = ?", (bomb, key(names[0])))
        con.execute("UPDATE Cache SET mode = 4, value = NULL, filename = 'bomb.val' WHERE key = ?", (key(names[1]),))
        con.execute("UPDATE Cache SET mode = 1, value = ?, filename = NULL WHERE key = ?", (bomb, key(names[2])))
        con.execute("UPDATE Cache SET mode = 2, filename = ? WHERE key = ?", (file, key(names[3])))
        con.execute("INSERT INTO Cache (key, raw, mode, value, expire_time) VALUES (?, 0, 4, ?, 1)", (bomb, bomb))
        con.execute("UPDATE Settings SET value = 5 WHERE key = 'disk_pickle_protocol'")
    con.close()
    for _ in range(2):
        for name in names:
            assert volume.get(key(name)) is None
        run_out(Sweep(volume, sequence=lambda: 1))
        volume.close()
        sweep_before_start(volume.path, MIN_SIZE, purged=purges)
        volume.open()
    assert not trap.exists()
    assert volume.counters.corrupt >= 4
    assert volume.usage()["records"] == 0


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "00/../../secret", "00/x", ""])
def test_a_row_cannot_name_a_file_elsewhere(volume: Volume, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    put(volume, "a", body("a", 100_000))
    with sqlite3.connect(volume.path / "cache.db") as con:
        con.execute("UPDATE Cache SET filename = ?", (name,))
    con.close()
    assert volume.get(key("a")) is None
    assert (tmp_path / "secret").exists()
    assert volume.database.row(key("a")) is None


def test_a_link_in_the_place_of_a_body_is_not_followed(volume: Volume, tmp_path: Path) -> None:
    put(volume, "a", body("a", 100_000))
    place = volume.path / next(iter(body_files(volume.path)))
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert volume.get(key("a")) is None
    assert (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("harm", ["shorter", "longer", "changed", "gone"])
def test_a_harmed_body_is_a_miss_and_goes(volume: Volume, harm: str) -> None:
    put(volume, "a", body("a", 100_000))
    file = volume.path / next(iter(body_files(volume.path)))
    match harm:
        case "shorter":
            os.truncate(file, 99_999)
        case "longer":
            os.truncate(file, 100_001)
        case "changed":
            with file.open("r+b") as out:
                out.seek(50_000)
                out.write(b"?")
        case "gone":
            file.unlink()
    assert volume.get(key("a")) is None
    assert volume.database.row(key("a")) is None
    assert volume.counters.corrupt == (harm != "gone")
    assert not body_files(volume.path)


def test_rot_far_inside_a_large_body_is_seen_before_it_is_sent(volume: Volume) -> None:
    data = body("a", 3 * CHUNK)
    put(volume, "a", data)
    file = volume.path / next(iter(body_files(volume.path)))
    with file.open("r+b") as out:
        out.seek(2 * CHUNK + 7)
        out.write(b"?")
    entry = volume.get(key("a"))
    assert entry is not None
    assert entry.read(CHUNK, 10) == data[CHUNK : CHUNK + 10]
    with pytest.raises(BodyCorrupt):
        entry.read(3 * CHUNK - 10, 10)
    with pytest.raises(BodyCorrupt):
        entry.span(2 * CHUNK, 10)
    entry.close()


def test_a_body_is_compared_once_a_process(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    put(volume, "a", body("a", 100_000))
    for _ in range(2):
        entry = volume.get(key("a"))
        assert entry is not None
        entry.close()
        file = volume.path / next(iter(body_files(volume.path)))
        with file.open("r+b") as out:
            out.write(b"?")


def test_seen_is_bounded() -> None:
    seen = Seen(8)
    for i in range(100):
        seen.add(("name", i))
        assert ("name", i) in seen
    assert sum(("name", i) in seen for i in range(100)) <= 8


@pytest.mark.parametrize(
    "damage",
    [b"this is no database", b"", b"SQLite format 3\0" + bytes(5000)],
    ids=["text", "empty", "torn"],
)
def test_a_damaged_database_is_begun_anew(volume: Volume, damage: bytes) -> None:
    put(volume, "a", body("a", 100_000))
    volume.close()
    for suffix in ("-wal", "-shm"):
        (volume.path / f"cache.db{suffix}").unlink(missing_ok=True)
    (volume.path / "cache.db").write_bytes(damage)
    volume.open()
    assert volume.get(key("a")) is None
    assert not body_files(volume.path)
    assert put(volume, "a", b"again")


def test_another_layout_is_begun_anew(volume: Volume) -> None:
    put(volume, "a", body("a", 100_000))
    volume.close()
    with sqlite3.connect(volume.path / "cache.db") as con:
        con.execute("PRAGMA user_version = 99")
    con.close()
    volume.open()
    assert volume.get(key("a")) is None
    assert not body_files(volume.path)


def test_a_database_removed_under_it_is_noticed(volume: Volume) -> None:
    (volume.path / "cache.db").unlink()
    with pytest.raises(DatabaseLost):
        put(volume, "a", b"1")


def test_the_directory_is_for_the_owner_alone(volume: Volume) -> None:
    put(volume, "a", body("a", 100_000))
    assert volume.path.stat().st_mode & 0o777 == 0o700
    assert all((volume.path / name).stat().st_mode & 0o077 == 0 for name in body_files(volume.path))


def test_a_failure_in_the_middle_changes_nothing(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    put(volume, "a", body("a", 100_000))
    before = body_files(volume.path)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(volumes, "write_all", fail)
        with pytest.raises(OSError, match="Input/output"):
            put(volume, "b", body("b", 100_000))
    assert body_files(volume.path) == before
    row = volume.database.row(key("a"))
    assert row is not None

    def drop_and_fail() -> None:
        with volume.writing():
            volume.drop([row[:3]])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        drop_and_fail()
    entry = volume.get(key("a"))
    assert entry is not None
    entry.close()
    assert body_files(volume.path) == before
