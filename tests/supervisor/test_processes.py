"""A supervisor with its processes: who is there, what they share, how they end."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.supervisor import kit


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> object:
    with kit.origin() as origin, kit.node(tmp_path_factory.mktemp("node"), {"origin": origin.url}) as node:
        yield node, origin


Running = tuple[kit.Node, kit.Origin]


def test_there_is_a_worker_for_each_and_a_control_process(running: Running) -> None:
    node, _ = running
    assert sorted(process.name for process in node.processes()) == ["edgecache-ctl", "edgecache-w0", "edgecache-w1"]
    assert Path(f"/proc/{node.process.pid}/comm").read_text().strip() == "edgecache"
    assert node.ask("/readyz") == {"status": "ready", "detail": "serving"}
    figures = node.stats()["processes"]
    assert (figures["workers"], figures["ready"], figures["died"], figures["configuration"]) == (2, 2, 0, 1)


async def served_by(node: kit.Node, path: str, connections: int = 24) -> list[str]:
    """Cache-Status of so many answers, each on a connection of its own."""
    answers = [await kit.get(node.port, path) for _ in range(connections)]
    assert all(body == kit.body_of(path) for _, _, body in answers)
    return [fields["cache-status"] for _, fields, _ in answers]


def busy_ms(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


async def test_what_one_worker_filled_is_a_hit_in_all(running: Running) -> None:
    node, origin = running
    first, *rest = await served_by(node, "/shared")
    assert "fwd=uri-miss" in first
    assert all("; hit" in status for status in rest)
    assert origin.asked.count("/shared") == 1
    figures = node.stats()
    assert figures["requests"]["by_outcome"]["hit"] >= 23


async def test_workers_share_a_fetch(running: Running) -> None:
    """Many clients, many cold objects, all at once: one request to the origin for each."""
    node, origin = running
    paths = [f"/cold/{i}" for i in range(30)]
    async with asyncio.TaskGroup() as group:
        answers = [(path, group.create_task(kit.get(node.port, path))) for _ in range(6) for path in paths]
    assert all(answer.result()[2] == kit.body_of(path) for path, answer in answers)
    asked = [path for path in origin.asked if path.startswith("/cold/")]
    assert sorted(asked) == sorted(paths)


async def test_what_is_being_fetched_is_known_to_whoever_asks(running: Running) -> None:
    node, origin = running
    asking = asyncio.ensure_future(kit.get(node.port, "/slow/flight"))
    await asyncio.to_thread(origin.slow_under_way.wait, kit.PATIENCE_S)
    question = "/v1/explain?url=http://site/slow/flight"
    assert (await asyncio.to_thread(node.ask, question))["in_flight"] is True
    assert (await asyncio.to_thread(node.stats))["fills"] == 1
    origin.go_on.set()
    await asking
    assert (await asyncio.to_thread(node.ask, question))["in_flight"] is False
    assert (await asyncio.to_thread(node.stats))["fills"] == 0


async def test_a_purge_is_seen_by_all_workers_at_once(running: Running) -> None:
    node, origin = running
    await served_by(node, "/purged")
    assert node.ask("/v1/purge", {"keys": ["all-of-it"]})["edges"][0]["applied"]
    first, *rest = await served_by(node, "/purged")
    assert "; hit" not in first
    assert all("; hit" in status for status in rest)
    assert origin.asked.count("/purged") == 2


async def test_an_unsafe_method_in_one_worker_purges_for_all(running: Running) -> None:
    node, origin = running
    before = node.stats()["purges"]["sequence"]
    await served_by(node, "/changed")
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        status, _, _ = await kit.exchange(reader, writer, "/changed", "POST")
        writer.close()
        assert status == 204
    assert node.stats()["purges"]["sequence"] == before + 8
    first, *_ = await served_by(node, "/changed")
    assert "; hit" not in first
    assert origin.asked.count("/changed") == 2


async def test_what_is_open_is_counted_over_all_workers(running: Running) -> None:
    node, _ = running
    await asyncio.to_thread(kit.until, lambda: node.stats()["connections"] == 0)
    writers = [(await asyncio.open_connection("127.0.0.1", node.port))[1] for _ in range(12)]
    await asyncio.to_thread(kit.until, lambda: node.stats()["connections"] == 12)
    for writer in writers:
        writer.close()
    await asyncio.to_thread(kit.until, lambda: node.stats()["connections"] == 0)


async def test_all_workers_write_one_access_log_in_whole_lines(running: Running) -> None:
    node, _ = running
    async with kit.load(node.port, [f"/log/{i}" for i in range(8)]) as tally:
        await kit.warm(tally, 300)
    text = ""

    def written() -> bool:
        nonlocal text
        text = node.log.read_text()
        return text.count('"target":"/log/') == tally.whole

    await asyncio.to_thread(kit.until, written)
    assert text.endswith("\n")
    assert all(json.loads(line)["site"] == "default" for line in text.splitlines())


async def test_logs_are_reopened_everywhere(running: Running) -> None:
    node, _ = running
    moved = node.log.rename(node.log.with_suffix(".old"))
    node.signal(signal.SIGUSR1)
    await asyncio.to_thread(kit.until, node.log.exists)
    # Until the writer of the other worker has turned to the new file as well.
    while True:
        size = moved.stat().st_size
        await served_by(node, "/reopened", 8)
        kit.until(lambda: '"target":"/reopened"' in node.log.read_text())
        if moved.stat().st_size == size:
            break


def test_signals_to_a_worker_are_ignored(running: Running) -> None:
    node, _ = running
    before = sorted(node.workers())
    for pid in before:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(pid, number)
    assert node.ask("/readyz")["status"] == "ready"
    assert sorted(node.workers()) == before


@pytest.mark.parametrize("workers", [0, 1, 3])
async def test_any_number_of_workers(workers: int, tmp_path: Path) -> None:
    with kit.origin() as origin, kit.node(tmp_path, {"origin": origin.url, "workers": workers}) as node:
        assert len(node.workers()) == workers
        assert (await kit.get(node.port, "/a"))[2] == kit.body_of("/a")
        assert node.stats()["processes"]["workers"] == max(workers, 1)
        assert node.end() == 0
        assert not [text for text in node.texts() if re.search("cut|died|kill|Traceback", text)]


def test_nobody_outlives_the_supervisor(tmp_path: Path) -> None:
    with kit.node(tmp_path, {"origin": "http://127.0.0.1:1"}) as node:
        pids = [process.pid for process in node.processes()]
        assert len(pids) == 3
        node.process.kill()
        kit.until(lambda: not any(map(kit.alive, pids)), 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
async def test_the_end_cuts_nothing(number: signal.Signals, workers: int, tmp_path: Path) -> None:
    with kit.origin() as origin, kit.node(tmp_path, {"origin": origin.url, "workers": workers}) as node:
        port = node.port
        slow = asyncio.ensure_future(kit.get(port, "/slow"))
        await asyncio.to_thread(origin.slow_under_way.wait, kit.PATIENCE_S)
        async with kit.load(port, [f"/{i}" for i in range(20)] + ["/pass"]) as tally:
            await kit.warm(tally)
            node.signal(number)
            await asyncio.to_thread(node.said, "stopping")
            until_refused = asyncio.get_running_loop().time() + kit.PATIENCE_S
            while not tally.refused:
                assert asyncio.get_running_loop().time() < until_refused
                await asyncio.sleep(0.005)
            if workers:
                assert node.ask("/readyz") == {"status": "not ready", "detail": "shutting down"}
            origin.go_on.set()
        assert (await slow)[2] == kit.body_of("/slow")
        assert await asyncio.to_thread(node.process.wait, kit.PATIENCE_S) == 0
    assert (tally.wrong, tally.cut, tally.lost) == (0, 0, 0)
    assert node.log.read_text().count("\n") == tally.whole + 1


def test_what_does_not_end_is_cut(tmp_path: Path) -> None:
    """The drain's limit, with several processes."""
    with kit.origin() as origin:
        limits = {"drain_timeout": "100ms"}
        with kit.node(tmp_path, {"origin": origin.url, "limits": limits}) as node:

            async def ask() -> None:
                asking = asyncio.ensure_future(kit.get(node.port, "/slow"))
                await asyncio.to_thread(origin.slow_under_way.wait, kit.PATIENCE_S)
                assert node.end() == 0
                with pytest.raises((asyncio.IncompleteReadError, OSError)):
                    await asking

            asyncio.run(ask())
            assert any("cut off" in text for text in node.texts())


def failed_start(folder: Path, config: dict[str, object]) -> tuple[int, str]:
    node = kit.Node(folder, config)
    try:
        code = node.process.wait(kit.PATIENCE_S)
    finally:
        node.process.kill()
        node.close()
    return code, "\n".join(node.texts())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_address_that_is_taken(workers: int, tmp_path: Path) -> None:
    with kit.node(tmp_path, {"origin": "http://127.0.0.1:1", "workers": workers}) as first:
        taken = f"127.0.0.1:{first.port}"
        other = tmp_path / "other"
        other.mkdir()
        code, text = failed_start(other, {"origin": "http://127.0.0.1:1", "workers": workers, "listen": [taken]})
    assert (code, f"listen {taken}: Address already in use" in text) == (2, True), text


@pytest.mark.parametrize("workers", [0, 2])
def test_an_access_log_that_cannot_be_opened(workers: int, tmp_path: Path) -> None:
    log = {"access": {"path": str(tmp_path / "no" / "where")}}
    code, text = failed_start(tmp_path, {"origin": "http://127.0.0.1:1", "workers": workers, "log": log})
    assert (code, text.count("log.access.path: cannot open")) == (2, 1), text
