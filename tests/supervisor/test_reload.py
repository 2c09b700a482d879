"""SIGHUP: the next configuration beside the current one, and nobody notices; or nothing changes at all."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.supervisor import kit

PATHS = [f"/{i}" for i in range(40)] + ["/pass/1", "/pass/2"]


async def reload(node: kit.Node) -> None:
    await asyncio.to_thread(node.reload)


@pytest.mark.parametrize("workers", [0, 2])
async def test_reloads_under_load_drop_nothing(workers: int, tmp_path: Path) -> None:
    with kit.origin() as origin:
        config = {"origin": origin.url, "workers": workers}
        with kit.node(tmp_path, config) as node:
            old = set(node.workers())
            slow = asyncio.ensure_future(kit.get(node.port, "/slow"))
            await asyncio.to_thread(origin.slow_under_way.wait, kit.PATIENCE_S)
            async with kit.load(node.port, PATHS) as tally:
                await kit.warm(tally, 50)
                for number in range(3):
                    await reload(node)
                    await kit.warm(tally, 50)
                    assert len(node.workers()) >= workers
                    figures = (await asyncio.to_thread(node.stats))["processes"]
                    assert (figures["configuration"], figures["ready"]) == (number + 2, max(workers, 1))
                origin.go_on.set()
                assert (await slow)[2] == kit.body_of("/slow")
            if workers:  # those of before end by themselves, once nobody asks them any more
                await asyncio.to_thread(kit.until, lambda: not old & set(node.workers()))
                await asyncio.to_thread(kit.until, lambda: len(node.workers()) == workers)
            assert (await asyncio.to_thread(node.stats))["memory"]["pins"] == 0
            assert await asyncio.to_thread(node.end) == 0
    assert (tally.wrong, tally.cut, tally.lost, tally.refused) == (0, 0, 0, 0)
    asked = [path for path in origin.asked if not path.startswith("/pass")]
    if workers:  # alone, two configurations do not know of each other's fetches
        assert len(asked) == len(set(asked)), "what was stored was lost on the way"
    assert node.log.read_text().count("\n") == tally.whole + 1


@pytest.mark.parametrize("workers", [0, 2])
async def test_a_reload_takes_over_what_has_changed(workers: int, tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    with kit.origin() as origin:
        config = {"origin": origin.url, "workers": workers, "listen": [f"127.0.0.1:{first}"]}
        with kit.node(tmp_path, config) as node:
            assert (await kit.get(first, "/a"))[0] == 200
            more = workers + 1 if workers else 0
            site = {"hosts": ["site"], "origin": origin.url, "cache": {"cache_status_name": "renamed"}}
            other = {"origin": origin.url}
            listen = [f"127.0.0.1:{second}"]
            node.configure({"sites": [other, site], "workers": more, "listen": listen})
            await reload(node)
            assert (await kit.get(second, "/a"))[1]["cache-status"].startswith("renamed; hit")
            with pytest.raises(ConnectionRefusedError):
                await kit.get(first, "/a")
            figures = await asyncio.to_thread(node.stats)
            assert figures["sites"]["default"]["requests"]["total"] == 1
            assert figures["sites"]["site"]["requests"]["total"] == 1
            if workers:
                await asyncio.to_thread(kit.until, lambda: len(node.workers()) == more)


@pytest.mark.parametrize("workers", [0, 2])
async def test_the_operator_is_answered_by_the_new_configuration(workers: int, tmp_path: Path) -> None:
    with kit.origin() as origin, kit.node(tmp_path, {"origin": origin.url, "workers": workers}) as node:
        slow = asyncio.ensure_future(kit.get(node.port, "/slow"))
        await asyncio.to_thread(origin.slow_under_way.wait, kit.PATIENCE_S)
        for number in range(5):
            site = {"hosts": ["site"], "name": f"site{number}", "origin": origin.url}
            node.configure({"sites": [{"origin": origin.url}, site], "workers": workers})
            await reload(node)
            for _ in range(20):
                purged = await asyncio.to_thread(node.ask, "/v1/purge", {"keys": ["k"], "site": f"site{number}"})
                assert "error" not in purged, purged
        assert not slow.done(), "the first configuration had something left to do"
        origin.go_on.set()
        assert (await slow)[0] == 200


@pytest.mark.parametrize("workers", [0, 2])
async def test_what_cannot_change_is_named_and_stays(workers: int, tmp_path: Path) -> None:
    with kit.origin() as origin, kit.node(tmp_path, {"origin": origin.url, "workers": workers}) as node:
        before = (await asyncio.to_thread(node.stats))["memory"]["size"]
        memory = {"size": "64MiB", "max_object": "128KiB", "eviction": "sieve"}
        node.configure({"origin": origin.url, "workers": workers, "memory": memory, "purge": {"table_slots": 4096}})
        await reload(node)
        for key in ("memory.size stays", "memory.max_object stays", "memory.eviction stays", "purge.table_slots stays"):
            assert any(text.startswith(key) for text in node.texts())
        assert (await asyncio.to_thread(node.stats))["memory"]["size"] == before
        assert (await kit.get(node.port, "/a"))[0] == 200


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"listen": ["nowhere"], "limits": {"fields": 1}}, ["listen[0]", "limits.fields"], id="invalid"),
        pytest.param({"listen": ["192.0.2.1:80"]}, ["listen 192.0.2.1:80"], id="address"),
        pytest.param({"log": {"access": {"path": "/no/where"}}}, ["log.access.path: cannot open /no/where"], id="log"),
    ],
)
async def test_a_refused_configuration_changes_nothing(
    workers: int, change: dict[str, object], words: list[str], tmp_path: Path
) -> None:
    with kit.origin() as origin, kit.node(tmp_path, {"origin": origin.url, "workers": workers}) as node:
        processes = sorted(process.pid for process in node.processes())
        node.configure({"origin": origin.url, "workers": workers, **change})
        before = node.signal(signal.SIGHUP)
        await asyncio.to_thread(node.said, "not taken over, nothing has changed", before)
        text = "\n".join(node.texts()[before:])
        assert all(word in text for word in words)
        await asyncio.to_thread(kit.until, lambda: sorted(process.pid for process in node.processes()) == processes)
        figures = (await asyncio.to_thread(node.stats))["processes"]
        assert (figures["configuration"], figures["reloads_refused"]) == (1, 1)
        assert (await kit.get(node.port, "/a"))[0] == 200
        node.configure({"origin": origin.url, "workers": workers})
        await reload(node)


async def test_a_reload_while_the_last_drains_is_not_lost(tmp_path: Path) -> None:
    with kit.origin() as origin, kit.node(tmp_path, {"origin": origin.url}) as node:
        slow = asyncio.ensure_future(kit.get(node.port, "/slow"))
        await asyncio.to_thread(origin.slow_under_way.wait, kit.PATIENCE_S)
        for number in range(4):
            await reload(node)
            assert (await asyncio.to_thread(node.stats))["processes"]["configuration"] == number + 2
        origin.go_on.set()
        assert (await slow)[0] == 200
        await asyncio.to_thread(kit.until, lambda: len(node.processes()) == 3)
