"""A process that stores, reads, evicts and removes as fast as it can, until it is killed. Run by `test_disk_crash`."""

import random
import sys
import time
from pathlib import Path

from edgecache.store.volume import Put, Volume
from tests.store.kit import NOW, Purges, body, key, record


def main(path: str, size: str, owner: str, seed: str) -> None:
    chance = random.Random(seed)
    volume = Volume(Path(path), int(size), owner=int(owner), purged=Purges())
    volume.open()
    print("ready", flush=True)
    worst = 0.0
    while True:
        began = time.perf_counter()
        jobs = []
        for _ in range(chance.randrange(1, 12)):
            name = chance.randrange(2000)
            length = chance.choice((10, 3000, 30_000, 40_000, 120_000, 1_200_000))
            jobs.append(Put(key(name), record(name), [body(name, length)], length))
        volume.put(jobs, NOW)
        volume.touch([(NOW + chance.random(), key(chance.randrange(2000))) for _ in range(5)])
        volume.remove(key(chance.randrange(2000)))
        for _ in range(10):
            entry = volume.get(key(chance.randrange(2000)))
            if entry is not None:
                entry.close()
        worst = max(worst, time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
