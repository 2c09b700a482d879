"""The disk tier against a dictionary: whatever is done in whatever order, a look-up finds the newest valid record."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgecache.store.disksweep import Sweep, sweep_before_start
from edgecache.store.memory import Record
from edgecache.store.volume import MIN_SIZE, Put, Volume
from tests.store.kit import NOW, Purges, body, body_files, key, record

NAMES = st.integers(0, 5)
TAGS = st.lists(st.integers(1, 4), max_size=3, unique=True).map(tuple)
SIZES = st.sampled_from([0, 10, 32_768, 32_769, 90_000])


class DiskTier(RuleBasedStateMachine):
    """Two processes on one directory."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp()) / "cache"
        self.purges = Purges()
        self.stored: dict[int, tuple[Record, bytes]] = {}
        self.turn = 0
        self.volumes: list[Volume] = []

    @initialize()
    def start(self) -> None:
        self.volumes = [Volume(self.path, MIN_SIZE, owner=owner, purged=self.purges) for owner in (1, 2)]
        for volume in self.volumes:
            volume.open()

    @property
    def volume(self) -> Volume:
        """One, then the other."""
        self.turn += 1
        return self.volumes[self.turn % 2]

    @rule(names=st.lists(NAMES, min_size=1, max_size=4), size=SIZES, tags=TAGS, behind=st.integers(0, 2))
    def put(self, names: list[int], size: int, tags: tuple[int, ...], behind: int) -> None:
        fill_seq = max(self.purges.sequence - behind, 0)
        jobs = []
        for name in names:
            self.turn += 1
            data = body(self.turn, size)
            jobs.append(Put(key(name), record(self.turn, fill_seq=fill_seq, tags=tags), [data], size))
        self.volume.put(jobs, NOW)
        for name, job in zip(names, jobs, strict=True):
            assert job.outcome == (self.purges(fill_seq, tags) == 0)
            if job.outcome:
                self.stored[name] = (job.record, b"".join(job.body))
            elif name in self.stored and self.stored[name][0].fill_seq <= fill_seq:
                del self.stored[name]

    @rule(name=NAMES)
    def remove(self, name: int) -> None:
        assert self.volume.remove(key(name)) == (self.stored.pop(name, None) is not None)

    @rule(name=NAMES, tags=TAGS)
    def freshen(self, name: int, tags: tuple[int, ...]) -> None:
        entry = self.volume.get(key(name))
        if entry is not None:
            fresh = record(f"fresh {self.turn}", fill_seq=self.purges.sequence, tags=tags)
            assert self.volume.freshen(key(name), entry.generation, fresh)
            self.stored[name] = (fresh, self.stored[name][1])
            entry.close()

    @rule(tag=st.integers(1, 4), soft=st.booleans())
    def purge(self, tag: int, soft: bool) -> None:
        self.purges.purge(tag, soft=soft)

    @rule()
    def purge_all(self) -> None:
        self.purges.purge_all()

    @rule()
    def sweep(self) -> None:
        sweep = Sweep(self.volume, sequence=lambda: self.purges.sequence)
        for _ in range(256):
            sweep.step(NOW)
        self.stored = {n: (r, d) for n, (r, d) in self.stored.items() if self.purges(r.fill_seq, r.tags) != 2}

    @rule()
    def restart(self) -> None:
        for volume in self.volumes:
            volume.close()
        assert sweep_before_start(self.path, MIN_SIZE, purged=self.purges) == 0
        for volume in self.volumes:
            volume.open()

    @invariant()
    def found_is_what_was_stored(self) -> None:
        if not self.volumes:
            return
        for name in range(6):
            entry = self.volume.get(key(name))
            want = self.stored.get(name)
            state = 2 if want is None else self.purges(want[0].fill_seq, want[0].tags)
            if state == 2 or want is None:
                assert entry is None
                continue
            assert entry is not None
            assert (entry.record, entry.read(0, 1 << 20)) == want
            assert entry.soft_purged == (state == 1)
            entry.close()

    @invariant()
    def every_file_has_its_record(self) -> None:
        if self.volumes:
            in_files = sum(len(data) > 32_768 for _, data in self.stored.values())
            assert len(body_files(self.path)) == in_files
            assert self.volume.usage()["records"] == len(self.stored)

    def teardown(self) -> None:
        for volume in self.volumes:
            volume.close()
        shutil.rmtree(self.path.parent)


TestDiskTier = DiskTier.TestCase
TestDiskTier.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
