"""Health: hysteresis on a faked sequence of looks, the promise of its clock, and each kind of check on real sockets."""

import asyncio
import json
import math
import ssl
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.config.geodns import CheckConfig, GeoDnsConfig
from edgecache.geodns.blob import Blob
from edgecache.geodns.checks import USER_AGENT, Checker, CheckFailed, NoWay, check_address, judge
from edgecache.geodns.health import PopHealth, Streak, period_s
from tests.geodns.serving import PopServer
from tests.ports import free_port

GOOD, BAD = True, False


@pytest.mark.parametrize(
    ("looks", "states"),
    [
        pytest.param([BAD], [BAD], id="the-first-decides"),
        pytest.param([GOOD, BAD, BAD, BAD], [GOOD, GOOD, GOOD, BAD], id="three-failures"),
        pytest.param([GOOD, BAD, BAD, GOOD, BAD, BAD], [GOOD] * 6, id="not-in-a-row"),
        pytest.param([BAD, GOOD, GOOD], [BAD, BAD, GOOD], id="two-successes"),
        pytest.param([BAD, GOOD, BAD, GOOD, BAD], [BAD] * 5, id="no-flapping"),
    ],
)
def test_hysteresis(looks: list[bool], states: list[bool]) -> None:
    streak = Streak(rise=2, fall=3, period_s=10.0)
    seen = []
    for look in looks:
        streak.seen(look)
        seen.append(streak.up)
    assert seen == states


def test_for_how_long_it_cannot_change() -> None:
    streak = Streak(rise=2, fall=3, period_s=10.0)
    streak.seen(GOOD)
    assert streak.settled_s == 20.0
    streak.seen(BAD)
    assert streak.settled_s == 10.0
    streak.seen(BAD)
    assert streak.settled_s == 0.0
    streak.seen(BAD)
    assert (streak.up, streak.settled_s) == (False, 10.0)


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_it_never_changes_sooner_than_it_says(looks: list[bool], rise: int, fall: int) -> None:
    streak = Streak(rise, fall, 1.0)
    streak.seen(GOOD)
    until, before = streak.settled_s, streak.up
    for at, look in enumerate(looks):  # a look a second, the next one at once
        streak.seen(look)
        if streak.up != before:
            assert at >= until
        until, before = at + 1 + streak.settled_s, streak.up


@given(st.floats(0.05, 60), st.floats(0.01, 1), st.integers(1, 10))
def test_a_dead_pop_is_out_within_interval_times_fall_and_a_second(interval: float, part: float, fall: int) -> None:
    """The worst: it dies right after a good look, and each look takes all of its timeout."""
    timeout = max(0.01, interval * part)
    check = CheckConfig.model_validate({"interval": interval, "timeout": timeout, "fall": fall})
    period = period_s(check)
    assert 0 < period <= interval
    now = period
    for _ in range(fall):
        begun, now = now, now + timeout
        now = max(now, begun + period)
    assert begun + timeout <= interval * fall + 1


@pytest.mark.parametrize(
    ("change", "usable", "settled", "why"),
    [
        pytest.param({}, True, 20.0, "up", id="up"),
        pytest.param({"drained": "api"}, False, math.inf, "drained by api", id="drained"),
        pytest.param({"pushed": False}, False, math.inf, "reported down", id="pushed-down"),
        pytest.param({"pushed": True}, True, 20.0, "up", id="pushed-up"),
        pytest.param({"checked": Streak(2, 3, 10.0, up=False, known=True)}, False, 10.0, "check fails", id="check"),
        pytest.param(
            {"connected": Streak(1, 2, 5.0, up=False, known=True)},
            False,
            0.0,
            "no edge connected and current",
            id="edges",
        ),
        pytest.param({"checked": None}, True, math.inf, "up", id="nobody-looks"),
    ],
)
def test_opinions(change: dict[str, object], usable: bool, settled: float, why: str) -> None:
    pop = PopHealth("a", Streak(2, 3, 10.0, known=True), None)
    for name, value in change.items():
        setattr(pop, name, value)
    assert (pop.usable, pop.settled_s, pop.why) == (usable, settled, why)


def check_of(port: int, **more: object) -> CheckConfig:
    return CheckConfig.model_validate({"port": port, "interval": 2, "timeout": 1, **more})


async def test_http_checks() -> None:
    pop = PopServer("127.0.0.1")
    await pop.start()
    try:
        assert await check_address("127.0.0.1", check_of(pop.port)) == "status 200"
        assert pop.agents == [USER_AGENT]
        assert "edgecache" in USER_AGENT
        assert await check_address("127.0.0.1", check_of(pop.port, body="fi.e")) == "status 200"
        with pytest.raises(CheckFailed, match="body does not match"):
            await check_address("127.0.0.1", check_of(pop.port, body="^ine"))
        pop.status = 503
        with pytest.raises(CheckFailed, match="status 503"):
            await check_address("127.0.0.1", check_of(pop.port))
        assert await check_address("127.0.0.1", check_of(pop.port, statuses=["200", "500-503"])) == "status 503"
        assert await check_address("127.0.0.1", check_of(pop.port, type="tcp")) == "connected"
    finally:
        await pop.stop()
    for kind in ("http", "https", "tcp"):
        with pytest.raises(CheckFailed, match="refused"):
            await check_address("127.0.0.1", check_of(pop.port, type=kind))


@pytest.mark.parametrize(
    ("seen", "good"),
    [
        pytest.param(["status 200", "status 200"], True, id="all-good"),
        pytest.param(["status 200", CheckFailed("no")], False, id="one-bad"),
        pytest.param(["status 200", NoWay("no route")], True, id="one-not-to-be-seen-from-here"),
        pytest.param([NoWay("no route"), CheckFailed("no")], False, id="the-other-bad"),
        pytest.param([NoWay("no route")], False, id="nothing-to-be-seen-from-here"),
    ],
)
def test_several_addresses(seen: list[str | BaseException], good: bool) -> None:
    assert judge(seen)[0] is good


async def test_a_check_of_silence_ends_in_time() -> None:
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side has had enough
        writer.close()
        over.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(CheckFailed, match="no answer within"):
        await check_address("127.0.0.1", check_of(port, timeout=0.1))
    async with asyncio.timeout(10):
        await over.wait()
    server.close()  # not before: what the kernel has connected would be lost with it


async def test_https_checks(certificate: tuple[Path, Path]) -> None:
    """With a host the certificate is verified; without one there is nothing to verify it by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    assert await check_address("127.0.0.1", check_of(port, type="https")) == "status 204"
    with pytest.raises(CheckFailed, match="TLS"):
        await check_address("127.0.0.1", check_of(port, type="https", host="localhost"))
    server.close()


def config(port: int, **more: object) -> GeoDnsConfig:
    pops = [{"name": n, "latitude": 0, "longitude": 0, "addresses": [f"127.0.0.{k}"]} for n, k in (("a", 2), ("b", 3))]
    check = {"port": port, "interval": 0.2, "timeout": 0.1, "fall": 2, "rise": 2}
    zones = [{"name": "z.example", "nameservers": ["ns"]}]
    return GeoDnsConfig.model_validate({"pops": pops, "check": check, "zones": zones, **more})


async def until(holds: object) -> None:
    assert callable(holds)
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - sockets and files, with no event of ours
            await asyncio.sleep(0.01)


async def test_the_coordinators_list_is_a_second_opinion() -> None:
    port = free_port("127.0.0.1")
    edges = [{"edge": "a", "connected": True, "lag": 0}]
    coordinator = PopServer("127.0.0.1", port)
    coordinator.body = json.dumps({"edges": edges}).encode()
    await coordinator.start()
    url = {"url": f"http://127.0.0.1:{port}", "interval": 0.1, "fall": 2, "max_lag": 5}
    checker = Checker(config(1, check={"type": "none"}, coordinator=url), lambda: None)
    await checker.start()
    try:
        assert [pop.usable for pop in checker.pops] == [True, True], "b was never heard of: a PoP of another kind"
        edges[0]["lag"] = 6
        coordinator.body = json.dumps({"edges": edges}).encode()
        await until(lambda: not checker["a"].usable)
        edges[0]["lag"] = 5
        coordinator.body = json.dumps({"edges": edges}).encode()
        await until(lambda: checker["a"].usable)
        coordinator.body = json.dumps({"edges": [edges[0] | {"connected": False}]}).encode()
        await until(lambda: not checker["a"].usable)
        assert checker["b"].usable
    finally:
        await checker.close()
        await coordinator.stop()


async def test_the_drain_file(tmp_path: Path) -> None:
    file = tmp_path / "drained"
    checker = Checker(config(1, check={"type": "none"}, drain_file=str(file)), lambda: None)
    file.write_text("a  # for the night\nnobody\n")
    await checker.start()
    try:
        assert (checker["a"].why, checker["b"].why) == ("drained by file", "up")
        file.unlink()
        await until(lambda: checker["a"].usable)
    finally:
        await checker.close()


@settings(max_examples=40)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.integers(0, 30))
def test_a_blob_is_read_whole_or_not_at_all(value: object, torn: int) -> None:
    blob = Blob(4096)
    assert blob.read() is None
    try:
        blob.write(value)
    except ValueError:
        return
    found = blob.read()
    assert found is not None
    assert found[1] == value
    blob._memory[16 + torn] = (blob._memory[16 + torn] + 1) % 256
    again = blob.read()
    assert again is None or again[1] == value
