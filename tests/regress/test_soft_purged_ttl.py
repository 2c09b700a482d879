"""What a soft purge made stale has no freshness left to announce (RFC 9211 §2.3), though its lifetime is not over."""

from edgecache.purge.message import PurgeKind, PurgeOrder
from tests.edge.world import world


async def test_a_soft_purged_response_announces_no_freshness():
    async with world() as w:
        w.answers(b"old", Cache_Control="max-age=600, stale-while-revalidate=60", Surrogate_Key="k")
        await w.get("/a")
        await w.edge.purge(PurgeOrder(keys=("k",), kind=PurgeKind.SOFT), wait=True)
        got = await w.get("/a")
        assert (got.body, got.cache_status) == (b"old", "edgecache; hit; ttl=0; detail=stale-while-revalidate")
