"""The bus on NATS JetStream: the contract of every bus, and what only a shared one can show."""

import asyncio
import contextlib
import dataclasses
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from edgecache.config.nats import NatsConfig
from edgecache.http.clock import wall_clock
from edgecache.purge.bus import BusError, EdgeReport, LogPosition, PurgeBus
from edgecache.purge.coordinator.hub import Hub
from edgecache.purge.ledger import Retention
from tests.conftest import self_signed
from tests.ports import free_ports
from tests.purge.bus_contract import CALLER, NOW, BusContract, append, everything, keys, order, take
from tests.purge.coordinator.kit import QUICK, LightEdge
from tests.purge.natskit import DOMAIN, Cluster, Server, alone, cluster, leaf

nats = pytest.importorskip("nats", reason="nats-py is not installed: pip install edgecache[nats]")

from edgecache.purge.transport import nats_bus  # noqa: E402 - where there is nats-py
from edgecache.purge.transport.nats_bus import NatsBus  # noqa: E402
from edgecache.purge.transport.nats_feed import NatsFeed  # noqa: E402
from edgecache.purge.transport.nats_log import NatsLog, NatsSettings  # noqa: E402
from edgecache.purge.transport.nats_settings import nats_settings  # noqa: E402
from tests.purge.natscreds import credentials  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with alone(tmp_path_factory.mktemp("nats")) as made:
        yield made


class NatsStore:
    def __init__(self, server: Server) -> None:
        name = secrets.token_hex(4)
        self.settings = NatsSettings((server.url,), stream=f"S{name}", subject=f"purges.{name}")

    @asynccontextmanager
    async def open(self, *, entries: int = 1_000_000) -> AsyncIterator[PurgeBus]:
        bus = NatsBus(self.settings, Retention(age_s=1e12, entries=entries, keys_s=1e12))
        await bus.start()
        try:
            yield bus
        finally:
            await bus.close()


@pytest.fixture
def store(server: Server) -> NatsStore:
    return NatsStore(server)


class TestContract(BusContract):
    pass


async def test_two_coordinators_share_one_order(store: NatsStore) -> None:
    async with store.open() as a, store.open() as b, aclosing(a.follow(0)) as one, aclosing(b.follow(0)) as two:
        seen = asyncio.gather(take(one, 200), take(two, 200))
        appended = await asyncio.gather(*(append((a, b)[i % 2], f"k{i}") for i in range(200)))
        first, second = await seen
        assert first == second == sorted(appended, key=lambda record: record.sequence)
        assert [record.sequence for record in first] == list(range(1, 201))
        assert a.state().log == b.state().log
        assert a.state().head == b.state().head == 200


async def test_one_key_at_two_coordinators_logs_once(store: NatsStore) -> None:
    async with store.open() as a, store.open() as b:
        calls = (bus.append(order("a"), now=NOW, caller=CALLER, key="k") for bus in (a, b) * 5)
        results = await asyncio.gather(*calls)
        assert {result.record.sequence for result in results} == {1}
        assert sum(not result.again for result in results) == 1


async def test_a_position_that_only_another_coordinator_knows_of(store: NatsStore) -> None:
    """An edge may have come from there: it is not reset."""
    async with store.open() as a, store.open() as b:
        record = await append(a, "k", now=NOW + 7)
        assert await b.covers(LogPosition(a.state().log, 1, record.time))
        assert not await b.covers(LogPosition(a.state().log, 1, record.time + 1))
        assert not await b.covers(LogPosition(a.state().log, 2, record.time))


async def test_what_another_coordinator_compacted(store: NatsStore) -> None:
    async with store.open() as a, store.open(entries=3) as b:
        for i in range(10):
            await append(a, f"k{i}", now=NOW + i)
        assert (await b.compact(NOW + 10)).floor == 7
        assert (await a.compact(NOW + 10)).floor == 7
        assert keys(await everything(a, 7)) == ["k7", "k8", "k9"]


async def test_old_entries_are_forgotten_by_age(server: Server, store: NatsStore) -> None:
    bus = NatsBus(store.settings, Retention(age_s=5.5))
    await bus.start()
    try:
        for i in range(10):
            await append(bus, f"k{i}", now=NOW + i)
        assert (await bus.compact(NOW + 5)).floor == 0
        assert (await bus.compact(NOW + 10)).floor == 5
        assert keys(await everything(bus, 5)) == ["k5", "k6", "k7", "k8", "k9"]
    finally:
        await bus.close()


async def test_reports_reach_the_others(store: NatsStore) -> None:
    report = EdgeReport("edge", "i1", "1", 7, True, NOW)
    async with store.open() as a, store.open() as b, aclosing(a.reports()) as here, aclosing(b.reports()) as there:
        waiting = [asyncio.ensure_future(anext(reports)) for reports in (here, there)]
        while not waiting[1].done():  # a subscription takes a moment to be known everywhere
            await a.report(report)
            await asyncio.wait(waiting, timeout=0.05)
        assert waiting[1].result() == report
        assert not waiting[0].done()
        await b.report(report)
        assert await asyncio.wait_for(waiting[0], 10) == report


async def test_a_stream_of_somebody_else(server: Server, store: NatsStore) -> None:
    client = await nats.connect(server.url)
    await client.jetstream().add_stream(name=store.settings.stream, subjects=["other.>"])
    await client.close()
    with pytest.raises(BusError, match="not a purge log"):
        async with store.open():
            pass


async def test_a_stream_made_anew_is_another_log(server: Server, store: NatsStore) -> None:
    async with store.open() as bus:
        await append(bus, "a")
        position = bus.state().position
    client = await nats.connect(server.url)
    await client.jetstream().delete_stream(store.settings.stream)
    await client.close()
    async with store.open() as bus:
        await append(bus, "b", now=position.time)
        assert not await bus.covers(position)


async def test_no_server() -> None:
    bus = NatsBus(NatsSettings((f"nats://127.0.0.1:{free_ports(1)[0]}",), timeout_s=0.5))
    with pytest.raises(BusError, match="no connection to NATS"):
        await bus.start()


async def test_a_server_that_is_killed_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was confirmed is there, once; what is asked for meanwhile is confirmed when it is back, or refused."""
    with alone(tmp_path) as server:
        store = NatsStore(server)
        async with store.open() as bus, aclosing(bus.follow(0)) as batches:
            done = [await append(bus, f"k{i}") for i in range(50)]
            server.kill()
            waiting = [asyncio.ensure_future(append(bus, f"k{i}")) for i in range(50, 60)]
            await asyncio.sleep(0.3)
            assert not any(each.done() for each in waiting)
            server.start()
            done += await asyncio.gather(*waiting)
            assert sorted(record.sequence for record in done) == list(range(1, 61))
            assert sorted(await take(batches, 60), key=lambda record: record.sequence) == sorted(
                done, key=lambda record: record.sequence
            )
            server.kill()
            monkeypatch.setattr(nats_bus, "GIVE_UP_S", 0.5)
            with pytest.raises(BusError, match="has not confirmed the purge, which may have been logged") as caught:
                await append(bus, "refused")
            assert caught.value.unsure


@pytest.mark.parametrize("reconnect", [False, True])
async def test_a_server_that_dies_while_something_is_to_be_sent(tmp_path: Path, reconnect: bool) -> None:
    """The reader hears of it at once, and nothing goes on running for it."""
    with alone(tmp_path) as server:
        store = NatsStore(server)
        async with store.open() as bus:
            await append(bus, "a")
        log = NatsLog(store.settings, name="reader", reconnect=reconnect)
        await log.connect()
        await log.refresh()
        before = set(asyncio.all_tasks())
        async with aclosing(log.tail(0)) as batches:
            assert keys(await anext(batches)) == ["a"]
            server.pause()
            client = log.client
            async with asyncio.timeout(10):
                while client.pending_data_size < 200_000:  # more than the socket takes
                    await client.publish("elsewhere", bytes(100_000))
                    await asyncio.sleep(0)
            server.kill()
            with pytest.raises(BusError, match="interrupted"):
                await anext(batches)
        if reconnect:
            server.start()
            await refreshed(log)
            assert len(client._subs) == 1  # for the answers
            assert len(asyncio.all_tasks()) <= len(before)
        await log.close()


async def test_a_server_that_has_lost_what_it_confirmed(tmp_path: Path) -> None:
    """A single server after a power cut: its numbers are given out again. No edge takes them for those it knows."""
    with alone(tmp_path) as server:
        store = NatsStore(server)
        edge = direct_edge(store.settings, "edge")
        async with store.open() as bus, edge:
            await edge.until(lambda e: e.welcomes, 20)
            hub = Hub(bus, wall=wall_clock, heartbeat_s=0.5)
            await hub.start()
            for i in range(5):
                await append(bus, f"k{i}")
            server.kill()
            shutil.copytree(tmp_path / server.name, tmp_path / "kept")
            server.start()
            for i in range(5, 10):
                await append(bus, f"k{i}")
            await edge.at(10)
            old = bus.state().position
            assert await bus.covers(old)
            server.kill()
            shutil.rmtree(tmp_path / server.name)
            (tmp_path / "kept").rename(tmp_path / server.name)
            server.start()
            record = None
            async with asyncio.timeout(30):
                while record is None:
                    with contextlib.suppress(BusError):  # that it was lost may be found out by this very purge
                        record = await append(bus, "new", now=NOW + 99)
            assert record.sequence in (6, 7)
            await edge.until(lambda e: e.resets == 2, 20)
            assert not await bus.covers(old)
            last = await append(bus, "last")
            waited = await hub.wait(last.sequence, asyncio.get_running_loop().time(), 20)
            assert [(each.edge, each.applied) for each in waited.edges] == [("edge", True)]
            assert edge.keys[-1] == "last"
            await hub.close("done")


async def test_a_silent_server_is_no_sign_of_life(tmp_path: Path) -> None:
    """It takes the edge's questions, and answers none: no heartbeat comes of that."""
    with alone(tmp_path) as server:
        store = NatsStore(server)
        async with store.open() as bus:
            await append(bus, "a")
        settings = dataclasses.replace(store.settings, timeout_s=0.5)
        edge = direct_edge(settings, "edge")
        async with edge:
            await edge.until(lambda e: e.beats, 20)
            server.pause()
            beats = edge.beats
            await edge.until(lambda e: e.lost, 20)
            assert edge.beats <= beats + 1  # one may have been on its way
            server.resume()
            await edge.until(lambda e: e.welcomes == 2, 20)
            assert edge.resets == 1


async def test_an_edge_whose_place_was_compacted_is_reset(store: NatsStore) -> None:
    async with store.open(entries=3) as bus:
        for i in range(4):
            await append(bus, f"k{i}", now=NOW + i)
        state = bus.state()
        away, near = direct_edge(store.settings, "away"), direct_edge(store.settings, "near")
        away.position = LogPosition(state.log, 2, NOW + 1)
        near.position = LogPosition(state.log, 8, NOW + 8)
        for i in range(4, 12):
            await append(bus, f"k{i}", now=NOW + i)
        assert (await bus.compact(NOW + 12)).floor == 9
        near.position = LogPosition(state.log, 10, NOW + 9)
        async with away, near:
            await away.until(lambda e: e.welcomes, 20)
            await near.at(12)
            assert (away.resets, away.position) == (1, bus.state().position)
            assert (near.resets, near.keys) == (0, ["k10", "k11"])


@pytest.mark.parametrize("how", ["token", "tls", "credentials"])
async def test_how_it_is_let_in(how: str, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "localhost", "IP:127.0.0.1")
    creds, creds_file = credentials(tmp_path)
    words = {
        "credentials": creds,
        "token": 'authorization { token: "sesame-open" }',
        "tls": f'tls {{ cert_file: "{cert}", key_file: "{key}" }}',
    }
    token = tmp_path / "token"
    token.write_text("sesame-open\n")
    with alone(tmp_path, words[how]) as server:
        url = server.url.replace("nats:", "tls:") if how == "tls" else server.url
        config = {"servers": [url]}
        rights = {
            "credentials": {"credentials_file": str(creds_file)},
            "token": {"token_file": str(token)},
            "tls": {"tls": {"ca_file": str(cert)}},
        }
        right = rights[how]
        for more, allowed in (({}, False), (right, True)):
            settings = nats_settings(NatsConfig.model_validate(config | more))
            bus = NatsBus(dataclasses.replace(settings, timeout_s=5.0 if allowed else 0.7))
            if allowed:
                await bus.start()
                await append(bus, "a")
                await bus.close()
            else:
                with pytest.raises(BusError, match="no connection"):
                    await bus.start()


async def refreshed(log: NatsLog) -> None:
    """A question that was asked while the server was away may go unanswered."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(BusError):
                await log.refresh()
                return


def direct_edge(settings: NatsSettings, name: str) -> LightEdge:
    """One that reads the stream itself."""
    edge = LightEdge("http://127.0.0.1:9", name, None)
    edge.feed = NatsFeed(settings, edge=name, clock=wall_clock, pace=QUICK, heartbeat_s=0.2)  # type: ignore[assignment]
    return edge


# --- edges that die without a word ---

EDGE = """
import asyncio, sys
from edgecache.http.clock import wall_clock
from edgecache.purge.bus import LogPosition, Purges, Welcome
from edgecache.purge.transport.nats_feed import NatsFeed
from edgecache.purge.transport.nats_log import NatsSettings

async def follow():
    stream, subject, url = sys.argv[1:]
    feed = NatsFeed(NatsSettings((url,), stream=stream, subject=subject), edge="edge", clock=wall_clock)
    async for event in feed.events(lambda: None):
        match event:
            case Welcome():
                feed.ack(event.position.sequence)
            case Purges(entries):
                feed.ack(entries[-1].sequence)

asyncio.run(follow())
"""


@asynccontextmanager
async def run_of_an_edge(settings: NatsSettings) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-c", EDGE, settings.stream, settings.subject, *settings.servers)
    child = await asyncio.create_subprocess_exec(*command)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


@asynccontextmanager
async def hub_of(bus: PurgeBus) -> AsyncIterator[Hub]:
    hub = Hub(bus, wall=wall_clock)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.close("done")


async def instances(hub: Hub, count: int) -> None:
    async with asyncio.timeout(30):
        while sum(edge.instances for edge in hub.edges()) != count:  # noqa: ASYNC110 - it is told by a message
            await asyncio.sleep(0.01)


async def waited(hub: Hub, bus: PurgeBus, name: str) -> tuple[list[tuple[str, bool]], float]:
    begun = asyncio.get_running_loop().time()
    record = await append(bus, name)
    found = await hub.wait(record.sequence, begun, 10)
    return [(edge.edge, edge.applied) for edge in found.edges], asyncio.get_running_loop().time() - begun


@pytest.mark.fault
async def test_a_run_that_was_killed_is_not_waited_for(store: NatsStore) -> None:
    """Another by its name has come, as after a restart: the purge is confirmed as soon as that has it."""
    async with store.open() as bus, hub_of(bus) as hub, run_of_an_edge(store.settings) as first:
        await instances(hub, 1)
        assert (await waited(hub, bus, "a"))[0] == [("edge", True)]
        first.kill()
        await first.wait()
        edge = direct_edge(store.settings, "edge")
        async with edge:
            await edge.until(lambda e: e.beats, 20)
            found, took_s = await waited(hub, bus, "b")
            assert found == [("edge", True)]
            assert took_s < 5  # it is known dead within a moment; by its silence it would be after 15 s
            await instances(hub, 1)
            assert edge.keys == ["b"]


@pytest.mark.fault
async def test_an_edge_that_was_killed_is_away_in_a_moment(store: NatsStore) -> None:
    async with store.open() as bus, hub_of(bus) as hub, run_of_an_edge(store.settings) as only:
        await instances(hub, 1)
        only.kill()
        await only.wait()
        found, took_s = await waited(hub, bus, "a")
        assert found == [("edge", False)]
        assert took_s < 8  # half a second, a question, and two to come back; not the 10 of the timeout
        assert [(edge.edge, edge.connected) for edge in hub.edges()] == [("edge", False)]


@pytest.mark.fault
async def test_a_run_that_is_stopped_is_not_waited_for_where_another_is_there(store: NatsStore) -> None:
    """The servers take it for connected, as one whose machine has lost its power."""
    async with store.open() as bus, hub_of(bus) as hub, run_of_an_edge(store.settings) as first:
        await instances(hub, 1)
        first.send_signal(signal.SIGSTOP)
        try:
            edge = direct_edge(store.settings, "edge")
            async with edge:
                await edge.until(lambda e: e.beats, 20)
                found, took_s = await waited(hub, bus, "a")
                assert found == [("edge", True)]
                assert took_s < 8
        finally:
            first.send_signal(signal.SIGCONT)


async def test_of_two_that_live_by_one_name_both_must_have_it(store: NatsStore) -> None:
    one, two = direct_edge(store.settings, "edge"), direct_edge(store.settings, "edge")
    two.acks = False
    async with store.open() as bus, hub_of(bus) as hub, one, two:
        await instances(hub, 2)
        record = await append(bus, "a")
        found = await hub.wait(record.sequence, asyncio.get_running_loop().time(), 2.6)
        assert [(edge.edge, edge.applied) for edge in found.edges] == [("edge", False)]
        assert [edge.instances for edge in hub.edges()] == [2]
        assert one.keys == ["a"]


# --- a cluster ---

STORM = """
import asyncio, sys
from edgecache.purge.bus import Caller
from edgecache.purge.message import PurgeOrder
from edgecache.purge.transport.nats_bus import NatsBus
from edgecache.purge.transport.nats_log import NatsSettings

async def storm():
    stream, subject, *urls = sys.argv[1:]
    bus = NatsBus(NatsSettings(tuple(urls), stream=stream, subject=subject))
    await bus.start()
    async def one(i):
        for j in range(1_000_000):
            name = f"child-{i}-{j}"
            done = await bus.append(PurgeOrder(keys=(name,)), now=1.0, caller=Caller("storm", ""))
            print(done.record.sequence, name, flush=True)
    await asyncio.gather(*(one(i) for i in range(8)))

asyncio.run(storm())
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


async def replicated(fleet: Cluster) -> NatsBus:
    """A bus on a stream with three replicas, once the cluster can make one."""
    name = secrets.token_hex(4)
    settings = NatsSettings(fleet.urls, stream=f"S{name}", subject=f"purges.{name}", replicas=3, timeout_s=3.0)
    async with asyncio.timeout(60):
        while True:
            bus = NatsBus(settings, Retention(age_s=1e12))
            try:
                await bus.start()
            except BusError:
                await asyncio.sleep(0.2)
            else:
                return bus


@pytest.mark.fault
async def test_a_storm_with_a_coordinator_and_a_server_killed(fleet: Cluster) -> None:
    """None of the confirmed purges is lost, none is there twice, and every edge sees the one order."""
    bus = await replicated(fleet)
    settings = bus.settings
    direct = direct_edge(settings, "direct")
    try:
        async with direct:
            await direct.until(lambda edge: edge.welcomes, 30)
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                STORM,
                settings.stream,
                settings.subject,
                *settings.servers,
                stdout=asyncio.subprocess.PIPE,
            )
            assert child.stdout is not None
            confirmed: dict[int, str] = {}
            for _ in range(100):
                number, name = (await asyncio.wait_for(child.stdout.readline(), 30)).split()
                confirmed[int(number)] = name.decode()
            here = [asyncio.ensure_future(append(bus, f"here-{i}")) for i in range(200)]
            leader = await leader_of(bus, fleet)
            leader.kill()  # the stream chooses another
            child.kill()  # in the middle of what it was doing
            for line in (await child.stdout.read()).splitlines():
                if len(words := line.split()) == 2:
                    confirmed[int(words[0])] = words[1].decode()
            await child.wait()
            for record in await asyncio.wait_for(asyncio.gather(*here), 60):
                [name] = keys([record])
                confirmed[record.sequence] = name
            last = await append(bus, "last")
            await direct.until(lambda edge: "last" in edge.keys, 60)
            log = keys(await everything(bus, 0))
            assert {number: log[number - 1] for number in confirmed} == confirmed
            assert len(set(log)) == len(log)
            assert direct.keys == log[: last.sequence]
            assert direct.resets == 1  # only when it came for the first time
            leader.start()
    finally:
        await bus.close()


async def leader_of(bus: NatsBus, fleet: Cluster) -> Server:
    client = await nats.connect(list(fleet.urls))
    info = await client.jetstream().stream_info(bus.settings.stream)
    await client.close()
    assert info.cluster is not None
    return next(server for server in fleet.servers if server.name == info.cluster.leader)


@pytest.mark.fault
async def test_an_edge_behind_a_leaf_node(fleet: Cluster, tmp_path: Path) -> None:
    """It is named in the answers of a coordinator; cut off with its leaf node, it is sent what it lacks afterwards."""
    bus = await replicated(fleet)
    try:
        with leaf(tmp_path, fleet) as near:
            settings = dataclasses.replace(bus.settings, servers=(near.url,), domain=DOMAIN, timeout_s=2.0)
            hub = Hub(bus, wall=wall_clock, heartbeat_s=0.5)
            await hub.start()
            edge = direct_edge(settings, "far")
            try:
                async with edge:
                    await edge.until(lambda e: e.beats, 30)
                    async with asyncio.timeout(20):
                        while not hub.connected:  # noqa: ASYNC110 - it is told by a message
                            await asyncio.sleep(0.02)
                    record = await append(bus, "one")
                    waited = await hub.wait(record.sequence, asyncio.get_running_loop().time(), 20)
                    assert [(each.edge, each.applied) for each in waited.edges] == [("far", True)]
                    near.kill()
                    await edge.until(lambda e: e.lost, 20)
                    for i in range(20):
                        await append(bus, f"k{i}")
                    near.start()
                    await edge.at(21)
                    assert edge.keys == ["one", *(f"k{i}" for i in range(20))]
                    assert edge.resets == 1
            finally:
                await hub.close("done")
    finally:
        await bus.close()
