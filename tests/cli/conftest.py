"""An admin API that runs in a thread, for commands that block while they ask it."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from edgecache.admin.server import AdminServer
from edgecache.config.listeners import AdminConfig
from edgecache.config.purge import PurgeConfig
from tests.admin.fake import TOKEN, DictNode


@dataclass
class RunningEdge:
    node: DictNode
    url: str


@pytest.fixture
def edge(request: pytest.FixtureRequest) -> Iterator[RunningEdge]:
    """By parameter, where there is one: its `purge` settings."""
    node = DictNode(objects={"http://a/1": ("news", "front")})
    purge = PurgeConfig.model_validate(getattr(request, "param", {}))
    server = AdminServer(node, AdminConfig.model_validate({"address": "127.0.0.1:0"}), purge, TOKEN)
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        await server.start()
        started.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(10)
    yield RunningEdge(node, f"http://127.0.0.1:{server.address.port}")
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    import os

    for name in os.environ:
        if name.startswith("EDGECACHE_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
