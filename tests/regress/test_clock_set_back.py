"""What was stored while the clock was two hours ahead stayed fresh for two hours more, once it had been set back."""

import pytest

from edgecache.http.clock import wall_clock
from edgecache.http.headers import Headers
from edgecache.policy.freshness import born_at
from tests.edge.world import world


@pytest.mark.parametrize("judged", [False, True], ids=["fast-lane", "ordinary-path"])
async def test_what_was_born_in_the_future_is_not_fresh(monkeypatch, judged: bool):
    fields = {"Cache_Control": "no-transform"} if judged else {}
    async with world() as w:
        ahead = 7200.0
        pipeline = w.edge.pipeline
        for part in (pipeline, pipeline.collapse):
            monkeypatch.setattr(part, "_clock", lambda: wall_clock() + ahead)
        w.answers(b"one", Cache_Control="max-age=600", Date="Thu, 01 Jan 2099 00:00:00 GMT")
        await w.get("/a", **fields)
        ahead = 0.0
        w.answers(b"two", Cache_Control="max-age=600")
        assert (await w.get("/a", **fields)).body == b"two"
        assert "; hit" in (await w.get("/a", **fields)).cache_status


@pytest.mark.parametrize(
    ("asked", "came", "date", "born"),
    [
        (100.9, 102.05, 101, 100.9),
        (100.9, 102.05, 100, 100.9),
        (100.9, 102.05, 99, 99.0),
        (100.9, 100.95, 90, 90.0),
    ],
    ids=["made-meanwhile", "made-in-the-second-of-the-request", "made-before", "long-before"],
)
def test_a_date_within_the_request_is_no_age(asked: float, came: float, date: int, born: float):
    """A Date a second and a bit before the answer came, made meanwhile, cost a response of max-age=1 all its life."""
    headers = Headers([("Date", f"Thu, 01 Jan 1970 00:01:{date - 60:02d} GMT" if date >= 60 else "")])
    assert born_at(headers, asked, came) == pytest.approx(born)
