"""A body that fits, and a head that does not fit with it: it was said to be stored when it was passed, and the pass was
forgotten, so that every other request queued for nothing."""

from tests.edge.world import world

LIMIT = 256 * 1024


async def test_what_does_not_fit_with_its_head_is_not_said_to_be_stored() -> None:
    async with world() as w:
        w.answers(b"x" * (LIMIT - 600), Cache_Control="max-age=60", X_Long="l" * 5000)
        said = [(await w.get("/a")).cache_status for _ in range(4)]
        assert "detail=too-large" in said[0]
        assert not any("stored" in each for each in said)
        assert said[1] == said[2] == said[3], "it is remembered"
        assert "fwd=bypass" in said[1]


async def test_what_fits_is_stored_on_the_way() -> None:
    async with world() as w:
        w.answers(b"x", Cache_Control="no-store")
        await w.get("/a")
        w.answers(b"x" * 1000, Cache_Control="max-age=60")
        assert "stored" in (await w.get("/a")).cache_status
        assert "hit" in (await w.get("/a")).cache_status
