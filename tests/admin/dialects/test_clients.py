"""Clients that people already have, unchanged, against a real edge: Fastly's, Cloudflare's, and Wagtail's two backends.

They are installed with the extra `clients`. Without it these tests are skipped; in CI they fail.
"""

import asyncio
import importlib.util
import os
import socket
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from edgecache.purge.message import EdgeReceipt, PurgeReceipt
from tests.conftest import self_signed
from tests.edge.world import TOKEN, World, world

SITE = "www.example.com"


@pytest.fixture(autouse=True, scope="module")
def installed() -> None:
    missing = [name for name in ("fastly", "cloudflare", "wagtail") if importlib.util.find_spec(name) is None]
    if missing:
        assert os.environ.get("CI") != "true", f"not installed: {missing}"
        pytest.skip(f"not installed: {', '.join(missing)}; pip install edgecache[clients]")


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(
        purge={
            "dialects": {
                "ids": [{"id": "SU1Z0isxPaozGVKXdv0eY", "site": "default"}, {"id": "023e105f", "site": "default"}],
                "public": {"allow": ["127.0.0.0/8"]},
            }
        }
    ) as made:
        made.answers(Cache_Control="max-age=600", Surrogate_Key="news tech/front", Cache_Tag="News")
        yield made


async def purges(here: World, call: Callable[[], object], path: str = "/a") -> Any:
    """What `call`, made in a thread of its own, returns; it has purged the path."""
    await here.get(path, Host=SITE)
    assert "hit" in (await here.get(path, Host=SITE)).cache_status
    result = await asyncio.to_thread(call)
    assert "hit" not in (await here.get(path, Host=SITE)).cache_status
    return result


async def test_fastly(here: World) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a client's own code does is its own affair
        import fastly
        from fastly.api import purge_api
        from fastly.exceptions import NotFoundException, UnauthorizedException
    service = "SU1Z0isxPaozGVKXdv0eY"

    def api(token: str = TOKEN) -> purge_api.PurgeApi:
        configuration = fastly.Configuration(host=f"http://127.0.0.1:{here.edge.admin.address.port}")
        configuration.api_token = token
        return purge_api.PurgeApi(fastly.ApiClient(configuration))

    one = api()
    done = await purges(here, lambda: one.purge_tag(service_id=service, surrogate_key="news"))
    assert (done.status, done.id) == ("ok", "1")
    done = await purges(
        here, lambda: one.purge_tag(service_id=service, surrogate_key="tech/front", fastly_soft_purge=1)
    )
    assert (done.status, done.id) == ("ok", "2")
    several = await purges(here, lambda: one.bulk_purge_tag(service_id=service, surrogate_key="news other"))
    assert dict(several.to_dict()) == {"news": "3", "other": "3"}
    done = await purges(here, lambda: one.purge_all(service_id=service))
    assert done.status == "ok"
    done = await purges(here, lambda: one.purge_single_url(cached_url=f"{SITE}/a"))
    assert (done.status, done.id) == ("ok", "5")
    with pytest.raises(NotFoundException):
        await asyncio.to_thread(one.purge_all, service_id="another")
    other = api("a-token-that-is-wrong")
    with pytest.raises(UnauthorizedException):
        await asyncio.to_thread(other.purge_all, service_id=service)
    for each in (one, other):
        each.api_client.rest_client.pool_manager.clear()
        each.api_client.close()


async def test_cloudflare(here: World) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cloudflare
    zone = "023e105f"
    base = f"http://127.0.0.1:{here.edge.admin.address.port}/client/v4"
    with (
        cloudflare.Cloudflare(base_url=base, api_token=TOKEN, max_retries=0) as client,
        cloudflare.Cloudflare(base_url=base, api_email="a@example.com", api_key=TOKEN, max_retries=0) as by_key,
        cloudflare.Cloudflare(base_url=base, api_token="a-token-that-is-wrong", max_retries=0) as stranger,
    ):
        calls: list[dict[str, Any]] = [
            {"tags": ["NEWS"]},
            {"files": [f"https://{SITE}/a"]},
            {"files": [{"url": f"https://{SITE}/a", "headers": {"CF-Device-Type": "mobile"}}]},
            {"hosts": [SITE]},
            {"prefixes": [f"{SITE}/"]},
            {"purge_everything": True},
        ]
        for call in calls:
            for one in (client, by_key):
                done = await purges(here, lambda one=one, call=call: one.cache.purge(zone_id=zone, **call))
                assert done is not None
                assert done.id == zone
        with pytest.raises(cloudflare.NotFoundError) as caught:
            await asyncio.to_thread(client.cache.purge, zone_id="another", tags=["a"])
        assert caught.value.errors[0].code == 7003
        with pytest.raises(cloudflare.BadRequestError) as refused:
            await asyncio.to_thread(client.cache.purge, zone_id=zone, tags=[])
        assert refused.value.errors[0].code == 1012
        with pytest.raises(cloudflare.AuthenticationError):
            await asyncio.to_thread(stranger.cache.purge, zone_id=zone, tags=["a"])


async def test_wagtail_http(here: World, caplog: pytest.LogCaptureFixture) -> None:
    """It knows no tokens: by the public listener, from a listed address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wagtail.contrib.frontend_cache.backends.http import HTTPBackend
    backend = HTTPBackend({"LOCATION": here.url})
    await purges(here, lambda: backend.purge(f"http://{SITE}/a"))
    await purges(here, lambda: backend.purge_batch([f"https://{SITE}/b", f"https://{SITE}/a?x=1"]), "/a?x=1")
    assert not [record for record in caplog.records if "Couldn't purge" in record.getMessage()]


async def test_wagtail_cloudflare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its address is written into it: the edge answers for that name, by TLS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wagtail.contrib.frontend_cache.backends.cloudflare import CloudflareBackend
    name = "api.cloudflare.com"
    cert, key = self_signed(tmp_path, name)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    async with world(
        listen=[
            "127.0.0.1:0",
            {"address": "127.0.0.1:0", "tls": {"certificates": [{"cert": str(cert), "key": str(key)}]}},
        ],
        purge={"dialects": {"public": {"allow": ["127.0.0.0/8"], "token": True}}},
    ) as made:
        made.answers(Cache_Control="max-age=600")
        port = made.edge.listeners[1].port
        resolve = socket.getaddrinfo

        def here_instead(host: Any, service: Any, *rest: Any, **named: Any) -> Any:
            return (
                resolve("127.0.0.1", port, *rest, **named) if host == name else resolve(host, service, *rest, **named)
            )

        monkeypatch.setattr(socket, "getaddrinfo", here_instead)
        for settings in ({"BEARER_TOKEN": TOKEN}, {"EMAIL": "a@example.com", "API_KEY": TOKEN}):
            backend = CloudflareBackend({"ZONEID": "023e105f", **settings})
            await purges(made, lambda backend=backend: backend.purge(f"http://{SITE}/a"))
            await purges(
                made, lambda backend=backend: backend.purge_batch([f"http://{SITE}/{i}" for i in range(40)]), "/39"
            )
        assert not [record for record in caplog.records if "Couldn't purge" in record.getMessage()]
        stranger = CloudflareBackend({"ZONEID": "023e105f", "BEARER_TOKEN": "a-token-that-is-wrong"})
        await asyncio.to_thread(stranger.purge, f"http://{SITE}/a")
        assert "Cloudflare errors 'Authentication error'" in caplog.text


async def test_none_of_them_hears_success_where_an_edge_is_late(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cloudflare
        import fastly
        from fastly.api import purge_api
        from fastly.exceptions import ServiceException
        from wagtail.contrib.frontend_cache.backends.http import HTTPBackend
        from wagtail.contrib.frontend_cache.backends.http import logger as wagtails

    async def late(*_: object, **__: object) -> PurgeReceipt:
        return PurgeReceipt(7, (EdgeReceipt("near", True, 0.01), EdgeReceipt("far", False, 10.0)))

    monkeypatch.setattr(here.edge.worker.purge_log, "purge", late)
    port = here.edge.admin.address.port
    configuration = fastly.Configuration(host=f"http://127.0.0.1:{port}")
    configuration.api_token = TOKEN
    api = purge_api.PurgeApi(fastly.ApiClient(configuration))

    def fastly_hears() -> tuple[int, str]:
        try:
            api.purge_tag(service_id="SU1Z0isxPaozGVKXdv0eY", surrogate_key="news")
        except ServiceException as error:  # which holds the connection as long as it lives
            return error.status, error.body
        raise AssertionError("success")

    status, body = await asyncio.to_thread(fastly_hears)
    assert status == 504
    assert "not confirmed after 10 s by far" in body
    api.api_client.rest_client.pool_manager.clear()
    api.api_client.close()
    base = f"http://127.0.0.1:{port}/client/v4"
    with cloudflare.Cloudflare(base_url=base, api_token=TOKEN, max_retries=0) as client:
        with pytest.raises(cloudflare.InternalServerError) as caught:
            await asyncio.to_thread(client.cache.purge, zone_id="023e105f", tags=["news"])
        assert "not confirmed after 10 s by far" in caught.value.errors[0].message
    said: list[str] = []  # the text alone: a record holds the answer, and that its connection
    monkeypatch.setattr(wagtails, "error", lambda text, *args, **_: said.append(text % args))
    await asyncio.to_thread(HTTPBackend({"LOCATION": here.url}).purge, f"http://{SITE}/a")
    [line] = said
    assert "Couldn't purge" in line
    assert "HTTPError: 504 Purge 7 is logged" in line
