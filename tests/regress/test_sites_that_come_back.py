"""A purge that names no site means those too that are not configured now: what is stored of them may be used again."""

from pathlib import Path

from edgecache._native.arena import Arena
from edgecache.app import Control, Shared
from edgecache.config.model import Config
from edgecache.purge.bus import Caller
from edgecache.purge.message import PurgeOrder
from edgecache.purge.tags import object_tags
from tests.edge.world import TOKEN

OF_B = object_tags(cache_key="http://b/", site="b", surrogate_keys=["key"])


def config(folder: Path | None, *names: str) -> Config:
    sites = [{"name": name, "hosts": [name], "origin": "http://origin"} for name in names]
    disk = {"path": str(folder), "size": "64MiB"} if folder is not None else {}
    memory = {"size": "16MiB", "max_object": "256KiB"}
    return Config.model_validate({"sites": sites, "disk": disk, "memory": memory, "admin": {"address": "127.0.0.1:0"}})


async def purged_while_it_was_away(shared: Shared, without: Config) -> Arena:
    control = Control(without, shared, TOKEN)
    await control.start()
    try:
        before = shared.arena.sequence()
        assert not shared.arena.purged(before, OF_B)
        await control.purge(PurgeOrder(keys=("key",)), caller=Caller("", ""), wait=True)
        assert shared.arena.purged(before, OF_B)
    finally:
        await control.close()
    return shared.arena


async def test_a_site_that_a_reload_took_away() -> None:
    shared = Shared(config(None, "a", "b"))
    await purged_while_it_was_away(shared, shared.adopt(config(None, "a")))


async def test_a_site_that_a_restart_took_away(tmp_path: Path) -> None:
    for names in (("a", "b"), ("a",)):
        shared = Shared(config(tmp_path / "disk", *names))
        if names == ("a",):
            await purged_while_it_was_away(shared, config(tmp_path / "disk", *names))
        assert shared.disk is not None
        shared.disk.close()
