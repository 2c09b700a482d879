"""`explain` against a running edge: what it says is what the edge then does."""

import aiohttp
import pytest

from tests.e2e.edge import Edge
from tests.e2e.nginx import Nginx

pytestmark = pytest.mark.e2e


async def explain(front: Edge, url: str, *fields: str) -> dict[str, object]:
    query = [("url", url), *(("header", field) for field in fields)]
    async with aiohttp.ClientSession() as session, session.get(f"{front.admin}/v1/explain", params=query) as answer:
        assert answer.status == 200, await answer.text()
        said: dict[str, object] = await answer.json()
        return said


async def test_it_says_beforehand_what_then_happens(www: Nginx, front: Edge) -> None:
    url = f"{front.url}/site/plate-5.png?explained"
    await www.asked()
    said = await explain(front, url)
    assert (said["verdict"], said["reason"], said["stored"]) == ("fetch", "uri-miss", [])
    assert await www.asked() == [], "explaining asks nobody"
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as first:
            assert str(said["cache_status"]) in first.headers["Cache-Status"]
            etag = first.headers["ETag"]
        said = await explain(front, url)
        assert (said["verdict"], said["reason"]) == ("serve", "fresh")
        assert str(said["detail"]).startswith("answered from the cache, fresh for another")
        (entry,) = said["stored"]  # type: ignore[misc]
        assert 590 < entry["fresh_for_s"] <= 600
        assert entry["stale_for_s"] == 0, "no window in which it may be used stale"
        said = await explain(front, url, f"If-None-Match: {etag}")
        assert "304 Not Modified" in str(said["detail"])
        async with session.get(url, headers={"If-None-Match": etag}) as second:
            assert second.status == 304
    await front.purge({"urls": [url], "soft": True})
    said = await explain(front, url)
    assert said["verdict"] == "revalidate"
