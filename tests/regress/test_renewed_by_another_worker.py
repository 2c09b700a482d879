"""A worker that found something stale, and got the lease just after another had renewed it, asked the origin again."""

import pytest

from edgecache._native.inflight import Leases
from edgecache.edge.leases import FillLeases, make_bells
from edgecache.http.clock import wall_clock
from tests.edge.world import until, world

BEHIND = "max-age=0, stale-while-revalidate=60"


@pytest.mark.parametrize(
    "first", [BEHIND, "max-age=0, stale-if-error=60"], ids=["behind-the-clients-back", "with-the-client"]
)
async def test_what_was_renewed_meanwhile_is_not_asked_for_again(monkeypatch, first: str):
    async with world() as w:
        shelf = w.edge.pipeline.shelf
        leases = Leases(shelf.store.arena)
        w.edge.pipeline.collapse._leases = FillLeases(leases, make_bells(1), 0, wall_clock)
        w.answers(b"one", Cache_Control=first)
        await w.get("/a")
        w.answers(b"two", Cache_Control="max-age=60")
        find, seen = shelf.find, []

        def late(*args, **more):
            """The first look is what the worker saw before the other's answer was stored; so is one made later."""
            found = find(*args, **more)
            if not seen:
                seen.append(found)
                return find(*args, **more)
            return seen.pop() if hold else found

        hold = False
        monkeypatch.setattr(shelf, "find", late)
        await w.get("/a", Cache_Control="no-transform")  # the other worker's renewal
        await until(lambda: len(w.asked) == 2 and not len(leases))
        asked = len(w.asked)
        hold = True
        got = await w.get("/a", Cache_Control="no-transform")  # takes judgement: not for the fast lane
        monkeypatch.undo()
        await w.get("/b")  # what is to be asked behind the client's back is asked before this
        await until(lambda: not w.edge.pipeline.collapse.fills)
        assert got.status == 200
        assert asked == 2
        assert [path for _, path, _ in w.asked] == ["/a", "/a", "/b"]
        assert len(leases) == 0
