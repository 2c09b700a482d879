"""The coordinator's API: what it takes, what it refuses, and that what is refused changes nothing."""

import asyncio
import contextlib
import io
import json
from typing import Any

import pytest

from edgecache.http.tasks import spawn
from edgecache.purge.bus import BusError
from edgecache.purge.coordinator import service
from edgecache.purge.coordinator.api import make_app
from edgecache.purge.coordinator.openapi import document
from edgecache.purge.sqlite_log import FILE
from tests.purge.coordinator.kit import LightEdge, Running, World


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        pytest.param({}, 400, "", id="nothing"),
        pytest.param({"keys": []}, 400, "", id="nothing-named"),
        pytest.param({"keys": ["a b"]}, 400, "keys[0]", id="key-with-space"),
        pytest.param({"keys": ["a", "\ud800"]}, 400, "keys[1]", id="half-a-pair"),
        pytest.param({"urls": ["/a"]}, 400, "urls[0]", id="url-relative"),
        pytest.param({"urls": ["http://a/", "ftp://a/"]}, 400, "urls[1]", id="url-scheme"),
        pytest.param({"hosts": ["http://a/"]}, 400, "hosts[0]", id="host"),
        pytest.param({"prefixes": ["a/?q"]}, 400, "prefixes[0]", id="prefix-query"),
        pytest.param({"prefixes": ["a" + "/b" * 40]}, 400, "prefixes[0]", id="prefix-deep"),
        pytest.param({"keys": "a"}, 400, "keys", id="not-a-list"),
        pytest.param({"keys": [1]}, 400, "keys[0]", id="not-a-text"),
        pytest.param({"keys": ["a"], "more": 1}, 400, "more", id="unknown-key"),
        pytest.param({"keys": ["a"], "timeout_s": 0}, 400, "timeout_s", id="timeout"),
        pytest.param({"keys": ["a"] * 10_001}, 413, "", id="too-many"),
        pytest.param({"urls": ["http://a/" + "x" * 7000] * 150}, 413, "", id="too-long"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_logged(
    running: Running, body: dict[str, Any], status: int, path: str
) -> None:
    got, answer = await running.ask(
        "POST", "/v1/purge", data=io.BytesIO(json.dumps(body).encode()), headers={"Content-Type": "application/json"}
    )
    assert (got, answer["error"]["path"]) == (status, path), answer
    assert running.log.state().head == 0


async def test_patterns_only_where_they_are_enabled(world: World) -> None:
    named = {"keys": ["k"], "patterns": [{"url": r"\.png$"}, {"url": "^/a", "host": "h"}]}
    async with world.coordinator() as running:
        status, answer = await running.ask("POST", "/v1/purge", json=named)
        assert (status, answer["error"]["path"]) == (400, "patterns")
        assert "coordinator.dialects.patterns to match" in answer["error"]["message"]
        assert running.log.state().head == 0
    async with world.coordinator(match=True) as running:
        status, answer = await running.ask("POST", "/v1/purge", json={"patterns": [{"url": "a"}, {"url": "("}]})
        assert (status, answer["error"]["path"]) == (400, "patterns[1].url")
        assert running.log.state().head == 0
        status, _ = await running.ask("POST", "/v1/purge", json=named)
        assert status == 200
        (record,) = await running.log.read(0, 10)
        assert json.loads(record.text)["patterns"] == named["patterns"]


async def test_other_media_types_and_broken_json(running: Running) -> None:
    json_type = {"Content-Type": "application/json"}
    for data, headers, status in (
        (b"{}", {}, 415),
        (b"{", json_type, 400),
        (b'{"keys":["a"],"keys":["b"]}', json_type, 400),
    ):
        got, answer = await running.ask("POST", "/v1/purge", data=data, headers=headers)
        assert got == status, answer
    assert (await running.ask("GET", "/v1/purge"))[0] == 405
    assert (await running.ask("GET", "/nothing"))[0] == 404


async def test_an_idempotency_key_purges_once(running: Running) -> None:
    first = await running.purge("k", key="deploy-1")
    again = await running.purge("k", key="deploy-1")
    assert (first["sequence"], first["again"]) == (1, False)
    assert (again["sequence"], again["again"]) == (1, True)
    assert (await running.purge("k", key="deploy-1", token="purge"))["sequence"] == 2  # each token's own
    status, answer = await running.ask(
        "POST", "/v1/purge", headers={"Idempotency-Key": "deploy-1"}, json={"keys": ["other"]}
    )
    assert (status, answer["error"]["code"]) == (409, "idempotency-key-reused")
    for key in ("", "a b", "x" * 201, "ä"):
        status, _ = await running.ask("POST", "/v1/purge", headers={"Idempotency-Key": key}, json={"keys": ["k"]})
        assert status == 400
    assert running.log.state().head == 2


async def test_a_repeated_call_waits_for_edges_too(running: Running) -> None:
    await running.purge("k", key="1")
    answer = await running.purge("k", key="1", wait=True)
    assert (answer["again"], answer["waited"], answer["complete"], answer["edges"]) == (True, True, True, [])


async def test_a_purge_is_found_by_its_number(world: World) -> None:
    async with world.coordinator(entries=2) as running:
        for i in range(4):
            await running.purge(f"k{i}", soft=True)
        await running.log.compact(0.0)
        status, found = await running.ask("GET", "/v1/purge/3")
        assert status == 200
        assert found["order"] == {"kind": "soft", "source": "admin", "keys": ["k2"]}
        for number in ("0", "2", "5", "9999999999999999"):
            status, answer = await running.ask("GET", f"/v1/purge/{number}")
            assert status == 404
        assert "3 to 4" in answer["error"]["message"]


async def test_the_audit_says_who_purged_what_when(running: Running) -> None:
    await running.purge("a", token="purge")
    await running.purge(keys=[], urls=["http://h/1", "http://h/2"], soft=True)
    await running.purge(keys=[], all=True, site="shop")
    status, found = await running.ask("GET", "/v1/audit")
    assert status == 200
    records = found["records"]
    assert [record["sequence"] for record in records] == [3, 2, 1]
    assert [record["token"] for record in records] == ["admin", "admin", "purge"]
    assert [record["kind"] for record in records] == ["hard", "soft", "hard"]
    assert [record["targets"] for record in records] == [1, 2, 1]
    assert records[0]["summary"] == "everything; site: shop"
    assert records[2]["address"] == "127.0.0.1"
    assert abs(records[0]["time"] - running.coordinator.wall()) < 60
    _, found = await running.ask("GET", "/v1/audit?before=3&limit=1")
    assert [record["sequence"] for record in found["records"]] == [2]
    for query in ("before=0", "before=x", "limit=0", "limit=1001", "limit=1&limit=2"):
        assert (await running.ask("GET", f"/v1/audit?{query}"))[0] == 400


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(BusError("no room", remedy="free space"), "not purged: no room; free space", id="refused"),
        pytest.param(
            BusError("no answer, it may be there", remedy="look", unsure=True),
            "no answer, it may be there; look",
            id="unsure",
        ),
    ],
)
async def test_not_purged_is_said_only_where_that_is_known(
    running: Running, monkeypatch: pytest.MonkeyPatch, error: BusError, said: str
) -> None:
    async def fails(*_args: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(running.coordinator.bus, "append", fails)
    status, answer = await running.ask("POST", "/v1/purge", json={"keys": ["k"]})
    assert (status, answer["error"]["code"], answer["error"]["message"]) == (503, "log-unavailable", said)


async def test_a_log_that_cannot_be_written_refuses_purges(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await running.purge("before")

    def fails(_batch: object) -> None:
        raise BusError("no room for purges.db", remedy="free space")

    with monkeypatch.context() as patch:
        patch.setattr(running.log, "_write", fails)
        status, answer = await running.ask("POST", "/v1/purge", json={"keys": ["k"]})
        assert (status, answer["error"]["code"]) == (503, "log-unavailable")
        assert answer["error"]["message"] == "not purged: no room for purges.db; free space"
        status, answer = await running.ask("GET", "/readyz", None)
        assert (status, answer["detail"]) == (503, "no room for purges.db")
    await running.purge("after")
    assert (await running.ask("GET", "/readyz", None))[0] == 200
    assert running.log.state().head == 2


async def test_a_log_whose_file_is_gone_refuses_purges_and_edges_hear_on(running: Running) -> None:
    async with LightEdge(running.url, "a", running.tokens["edge"]) as edge:
        await edge.until(lambda e: e.welcomes)
        await running.purge("before", wait=True)
        (running.folder / FILE).unlink()
        for _ in range(2):
            status, answer = await running.ask("POST", "/v1/purge", json={"keys": ["k"]})
            assert (status, answer["error"]["code"]) == (503, "log-unavailable")
            assert "purges.db has been removed; stop the coordinator" in answer["error"]["message"]
        status, answer = await running.ask("GET", "/readyz", None)
        assert (status, "has been removed" in answer["detail"]) == (503, True)
        assert (await running.ask("GET", "/healthz", None))[0] == 200
        assert "edgecache_coordinator_log_failing 1.0" in (await running.ask("GET", "/metrics"))[1]
        heard = edge.beats
        await edge.until(lambda e: e.beats > heard)
        assert edge.keys == ["before"]
        assert not edge.lost


async def test_whether_it_can_be_written_again_is_tried_without_a_purge(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer that looks at /readyz sends none."""
    monkeypatch.setattr(service, "TRY_S", 0.01)
    await running.log.compact(0)  # behind the one with which it starts
    running.log._refused = "no room"
    assert (await running.ask("GET", "/readyz", None))[0] == 503
    compacting = spawn(running.coordinator._compact(), "test-compaction")
    async with asyncio.timeout(10):
        while (await running.ask("GET", "/readyz", None))[0] != 200:
            pass
    compacting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await compacting


async def test_figures(running: Running) -> None:
    await running.purge("a")
    await running.purge("a", key="1")
    await running.purge("a", key="1")
    _, text = await running.ask("GET", "/metrics")
    assert "edgecache_coordinator_purges_total 2.0" in text
    assert "edgecache_coordinator_purges_repeated_total 1.0" in text
    assert "edgecache_coordinator_log_head 2.0" in text
    _, stats = await running.ask("GET", "/v1/stats")
    assert stats["coordinator"]["purges"]["purges"] == 2
    assert stats["coordinator"]["log"]["head"] == 2


async def test_the_document_names_every_route(running: Running) -> None:
    _, served = await running.ask("GET", "/v1/openapi.json")
    assert served == json.loads(json.dumps(document()))
    app = make_app(running.coordinator, open_reads=False)
    routes = {(route.resource.canonical, route.method) for route in app.router.routes() if route.resource}
    named = {(path, method.upper()) for path, methods in served["paths"].items() for method in methods}
    assert {route for route in routes if route[1] != "HEAD"} == named


async def test_stopping_takes_no_more(world: World) -> None:
    async with world.coordinator() as running:
        running.coordinator.draining = True
        assert (await running.ask("POST", "/v1/purge", json={"keys": ["k"]}))[0] == 503
        assert (await running.ask("GET", "/v1/subscribe", "edge"))[0] == 503
        assert (await running.ask("GET", "/readyz", None))[0] == 503
        assert running.log.state().head == 0


async def test_stopping_answers_calls_that_wait(world: World) -> None:
    async with (
        world.coordinator() as running,
        LightEdge(running.url, "deaf", running.tokens["edge"], acks=False) as edge,
    ):
        await edge.until(lambda e: e.welcomes)
        waiting = asyncio.ensure_future(running.purge("k", wait=True, timeout_s=100))
        await edge.at(1)
        closing = asyncio.ensure_future(running.server.close())
        async with asyncio.timeout(4):  # before calls under way are cut off
            answer = await waiting
        assert (answer["sequence"], answer["complete"]) == (1, False)
        assert [(each["edge"], each["applied"]) for each in answer["edges"]] == [("deaf", False)]
        await edge.until(lambda e: e.lost)
        assert "the coordinator stops" in edge.lost[0]
        await closing
