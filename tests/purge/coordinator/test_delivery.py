"""Purges reach every edge: at once, after a partition, after a restart, and however slow it is."""

import asyncio

import pytest

from edgecache.purge import frames
from edgecache.purge.coordinator import hub
from edgecache.purge.frames import Hello
from edgecache.purge.transport.websocket import PATH
from tests.edge.world import until
from tests.purge.bus_contract import append
from tests.purge.coordinator.kit import LightEdge, Running, World


async def test_a_purge_reaches_every_edge_and_says_so(running: Running) -> None:
    token = running.tokens["edge"]
    async with LightEdge(running.url, "a", token) as a, LightEdge(running.url, "b", token) as b:
        for edge in (a, b):
            await edge.until(lambda e: e.welcomes)
        answer = await running.purge("k", wait=True)
        assert answer["sequence"] == 1
        assert answer["complete"]
        assert [(edge["edge"], edge["applied"]) for edge in answer["edges"]] == [("a", True), ("b", True)]
        assert all(0 <= edge["duration_s"] < 5 for edge in answer["edges"])
        assert a.keys == b.keys == ["k"]


async def test_many_purges_come_in_order(running: Running) -> None:
    async with LightEdge(running.url, "a", running.tokens["edge"]) as edge:
        await edge.until(lambda e: e.welcomes)
        answers = await asyncio.gather(*(running.purge(f"k{i}") for i in range(200)))
        await edge.at(200)
        by_number = {answer["sequence"]: f"k{i}" for i, answer in enumerate(answers)}
        assert edge.keys == [by_number[number] for number in range(1, 201)]


async def test_a_new_edge_begins_at_the_head(running: Running) -> None:
    for i in range(3):
        await running.purge(f"k{i}")
    async with LightEdge(running.url, "a", running.tokens["edge"]) as edge:
        await edge.until(lambda e: e.welcomes)
        assert edge.resets == 1
        assert edge.position == running.log.state().position
        await running.purge("next")
        await edge.at(4)
        assert edge.keys == ["next"]


async def test_an_edge_that_was_away_is_sent_what_it_lacks(running: Running) -> None:
    token = running.tokens["edge"]
    async with LightEdge(running.url, "a", token) as edge:
        await running.purge("before")
        await edge.until(lambda e: e.welcomes)
        await edge.at(1)
    for i in range(1200):
        await append(running.log, f"k{i}")
    again = LightEdge(running.url, "a", token)
    again.position = edge.position
    async with again:
        await again.at(1201)
        assert again.resets == 0
        assert again.keys == [f"k{i}" for i in range(1200)]


async def test_an_edge_outlives_a_restart_of_the_coordinator(world: World) -> None:
    async with world.coordinator() as first:
        port = first.server.address.port
        edge = LightEdge(first.url, "a", first.tokens["edge"])
        async with edge:
            await edge.until(lambda e: e.welcomes)
            await first.purge("one", wait=True)
            await first.server.close()
            await first.log.close()
            await edge.until(lambda e: e.lost)
            async with world.coordinator(port=port) as second:
                await edge.until(lambda e: e.welcomes == 2)
                answer = await second.purge("two", wait=True)
                assert answer["complete"]
                assert answer["sequence"] == 2
                assert edge.keys == ["one", "two"]
                assert edge.resets == 1  # only the first time


async def test_an_edge_behind_the_floor_is_reset(world: World) -> None:
    async with world.coordinator(entries=5) as running:
        token = running.tokens["edge"]
        async with LightEdge(running.url, "a", token) as edge:
            await edge.until(lambda e: e.welcomes)
        for i in range(20):
            await running.purge(f"k{i}")
        await running.log.compact(0.0)
        again = LightEdge(running.url, "a", token)
        again.position = edge.position
        async with again:
            await again.until(lambda e: e.welcomes)
            assert again.resets == 1
            assert again.position == running.log.state().position
            assert (await running.purge("next", wait=True))["complete"]
            assert again.keys == ["next"]


async def test_waiting_ends_at_its_time(running: Running) -> None:
    token = running.tokens["edge"]
    async with LightEdge(running.url, "good", token) as good, LightEdge(running.url, "deaf", token, acks=False) as deaf:
        await good.until(lambda e: e.welcomes)
        await deaf.until(lambda e: e.welcomes)
        answer = await running.purge("k", wait=True, timeout_s=0.2)
        assert not answer["complete"]
        assert {edge["edge"]: edge["applied"] for edge in answer["edges"]} == {"good": True, "deaf": False}
        [unsure] = [edge for edge in answer["edges"] if not edge["applied"]]
        assert unsure["duration_s"] > 0.19
        deaf.feed.ack(1)
        answer = await running.purge("l", wait=True, timeout_s=0.2)
        status, found = await running.ask("GET", "/v1/purge/1")
        assert status == 200
        assert {edge["edge"]: edge["applied"] for edge in found["edges"]} == {"good": True, "deaf": True}
        assert found["order"]["keys"] == ["k"]


async def test_an_edge_that_reconnects_while_somebody_waits_counts(running: Running) -> None:
    token = running.tokens["edge"]
    edge = LightEdge(running.url, "a", token, acks=False)
    async with edge:
        await edge.until(lambda e: e.welcomes)
        waiting = asyncio.ensure_future(running.purge("k", wait=True, timeout_s=10))
        await edge.at(1)
    assert not waiting.done()
    again = LightEdge(running.url, "a", token)
    again.position = edge.position  # what it has applied and kept
    async with again:
        answer = await waiting
        assert answer["complete"]


async def test_an_edge_that_dies_is_not_waited_for(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "GRACE_S", 0.1)
    token = running.tokens["edge"]
    dying = LightEdge(running.url, "dying", token, acks=False)
    async with LightEdge(running.url, "good", token) as good:
        async with dying:
            await good.until(lambda e: e.welcomes)
            await dying.until(lambda e: e.welcomes)
            waiting = asyncio.ensure_future(running.purge("k", wait=True, timeout_s=60))
            await dying.at(1)
        async with asyncio.timeout(10):
            answer = await waiting
        assert {edge["edge"]: edge["applied"] for edge in answer["edges"]} == {"good": True, "dying": False}
        assert answer["away"] == [], "it is named once"
        assert not answer["complete"]
        answer = await running.purge("l", wait=True, timeout_s=60)
        assert ([edge["edge"] for edge in answer["edges"]], answer["away"]) == (["good"], ["dying"])


async def test_who_comes_back_in_the_meantime_is_waited_for_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "GRACE_S", 0.1)
    token = running.tokens["edge"]
    async with LightEdge(running.url, "deaf", token, acks=False) as deaf:
        edge = LightEdge(running.url, "a", token, acks=False)
        async with edge:
            await edge.until(lambda e: e.welcomes)
            await deaf.until(lambda e: e.welcomes)
            waiting = asyncio.ensure_future(running.purge("k", wait=True, timeout_s=60))
            await edge.at(1)
            await deaf.at(1)
        [waiter] = running.coordinator.hub._waiting[1]
        await until(lambda: waiter.gone == {"a"})
        again = LightEdge(running.url, "a", token, acks=False)
        again.position = edge.position
        async with again:
            await again.until(lambda e: e.welcomes)
            deaf.feed.ack(1)
            async with asyncio.timeout(10):
                answer = await waiting
        assert answer["complete"], "its position, told when it came back, says that it has it"


async def test_a_run_that_does_not_answer_makes_way_for_the_next(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut: its connection is open still, and nobody is at the other end."""
    monkeypatch.setattr(hub, "GRACE_S", 0.1)
    running.coordinator.hub._heartbeat_s = 60  # not found by its silence
    token = running.tokens["edge"]
    headers = {"Authorization": f"Bearer {token}"}
    async with running.session.ws_connect(f"{running.url}{PATH}", headers=headers) as dead:
        await dead.send_str(frames.hello_frame(Hello("a", "before", "0", None)))
        await dead.receive()
        async with LightEdge(running.url, "a", token) as edge:
            await edge.until(lambda e: e.welcomes)
            answer = await running.purge("k", wait=True, timeout_s=60)
            assert (answer["complete"], [each["edge"] for each in answer["edges"]]) == (True, ["a"])
            [state] = running.coordinator.hub.edges()
            assert (state.instances, state.connected) == (1, True)


async def test_two_edges_by_one_name_must_both_have_it(running: Running) -> None:
    token = running.tokens["edge"]
    async with LightEdge(running.url, "a", token) as one, LightEdge(running.url, "a", token, acks=False) as two:
        await one.until(lambda e: e.welcomes)
        await two.until(lambda e: e.welcomes)
        waiting = asyncio.ensure_future(running.purge("k", wait=True, timeout_s=10))
        await one.at(1)
        await two.at(1)
        _, found = await running.ask("GET", "/v1/purge/1")
        assert found["edges"] == [{"edge": "a", "applied": False}]
        _, found = await running.ask("GET", "/v1/edges")
        [state] = found["edges"]
        assert (state["instances"], state["position"], state["lag"]) == (2, 0, 1)
        two.feed.ack(1)
        assert (await waiting)["complete"]


async def test_edges_are_listed_with_what_they_have(running: Running) -> None:
    token = running.tokens["edge"]
    async with LightEdge(running.url, "b", token) as b:
        async with LightEdge(running.url, "a", token) as a:
            await a.until(lambda e: e.welcomes)
            await b.until(lambda e: e.welcomes)
            await running.purge("k", wait=True)
        await b.until(lambda _: running.coordinator.hub.connected == 1)  # looked at with each heartbeat
        answer = await running.purge("l", wait=True)
        assert [edge["edge"] for edge in answer["edges"]] == ["b"]
        assert answer["away"] == ["a"]
        status, found = await running.ask("GET", "/v1/edges", "read")
        assert status == 200
        assert found["head"] == 2
        gone, here = found["edges"]
        assert (gone["edge"], gone["connected"], gone["position"], gone["lag"]) == ("a", False, 1, 1)
        assert (here["edge"], here["connected"], here["position"], here["lag"]) == ("b", True, 2, 0)
        assert here["address"] == "127.0.0.1"
        assert here["version"]


async def test_heartbeats_name_the_head(world: World) -> None:
    async with (
        world.coordinator(heartbeat_s=0.2) as running,
        LightEdge(running.url, "a", running.tokens["edge"]) as edge,
    ):
        await edge.until(lambda e: e.beats >= 1)
        await running.purge("k")
        await edge.at(1)
        beats = edge.beats
        await edge.until(lambda e: e.beats >= beats + 2 * hub.SILENT_BEATS)
        assert not edge.lost  # and its signs of life are heard


async def test_a_silent_coordinator_is_given_up(world: World) -> None:
    async with (
        world.coordinator(heartbeat_s=0.05) as running,
        LightEdge(running.url, "a", running.tokens["edge"]) as edge,
    ):
        await edge.until(lambda e: e.welcomes)
        for task in running.coordinator.hub._tasks:
            if "heartbeat" in task.get_name():
                task.cancel()
        await edge.until(lambda e: e.lost)
        assert "nothing heard" in edge.lost[0]
        await edge.until(lambda e: e.welcomes == 2)


async def test_ten_thousand_targets_are_one_step(world: World) -> None:
    async with (
        world.coordinator(heartbeat_s=5.0) as running,  # an edge that is slow to answer is not away
        LightEdge(running.url, "a", running.tokens["edge"]) as edge,
    ):
        await edge.until(lambda e: e.welcomes)
        urls = [f"https://www.example.com/shop/products/product-{i:05}/details" for i in range(10_000)]
        answer = await running.purge(urls=urls, keys=[], wait=True)
        assert answer["complete"]
        [entry] = edge.entries
        assert entry.order.urls == tuple(urls)
        status, body = await running.ask("POST", "/v1/purge", json={"urls": [*urls, "http://a/"]})
        assert status == 413, body
        assert running.log.state().head == 1


async def test_no_more_edges_than_allowed(world: World) -> None:
    async with world.coordinator(most=1) as running:
        token = running.tokens["edge"]
        async with LightEdge(running.url, "a", token) as a:
            await a.until(lambda e: e.welcomes)
            async with LightEdge(running.url, "b", token) as b:
                await b.until(lambda e: e.lost)
                assert "1 edges already" in b.lost[0]
                assert a.welcomes == 1


@pytest.mark.parametrize("token", [None, "wrong", "purge", "read"])
async def test_an_edge_without_the_right_token_is_told(running: Running, token: str | None) -> None:
    shown = running.tokens.get(token, token) if token else None
    async with LightEdge(running.url, "a", shown) as edge:
        await edge.until(lambda e: e.lost)
        assert "token" in edge.lost[0]
        assert not edge.welcomes
