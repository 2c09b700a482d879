"""Numbers of purges, when several processes purge at once: each once, none left out, each applied when it is given."""

import os
import struct

import pytest

from edgecache._native.arena import Arena, hash_tag

TAG, OTHER = hash_tag(b"a"), hash_tag(b"b")


@pytest.mark.parametrize("soft", [False, True])
def test_a_number_is_given_and_applied_in_one_step(soft: bool) -> None:
    arena = Arena(8 << 20, max_object=64 << 10)
    verdict = 1 if soft else 2
    assert [arena.append_purge([TAG], soft=soft) for _ in range(2)] == [1, 2]
    assert arena.sequence() == 2
    assert [arena.purged(number, [TAG]) for number in (0, 1, 2)] == [verdict, verdict, 0]
    assert arena.purged(0, [OTHER]) == 0
    assert arena.append_purge([], soft=soft, everything=True) == 3
    assert [arena.purged(number, [OTHER]) for number in (2, 3)] == [verdict, 0]
    arena.apply_purge(10, [TAG], soft=soft)
    assert arena.append_purge([TAG], soft=soft) == 11


def test_processes_that_purge_at_once_get_numbers_of_their_own() -> None:
    arena = Arena(8 << 20, max_object=64 << 10)
    number, each = 4, 3000
    pipes = []
    for process in range(number):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            given = [arena.append_purge([hash_tag(b"%d" % process)], soft=False) for _ in range(each)]
            os.write(write, struct.pack(f"{each}Q", *given[:each]))
            os._exit(0)
        os.close(write)
        pipes.append((pid, read))
    found: list[int] = []
    for pid, read in pipes:
        with os.fdopen(read, "rb") as end:
            given = struct.unpack(f"{each}Q", end.read())
        assert os.waitpid(pid, 0)[1] == 0
        assert list(given) == sorted(given)
        found += given
    assert sorted(found) == list(range(1, number * each + 1))
    assert arena.sequence() == number * each
    arena.check()
