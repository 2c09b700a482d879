"""An origin that dies, freezes, lies or talks nonsense: nothing wrong is served, what is stored goes on being served,
each failure is counted, and all is normal again by itself.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.kit.board import Board
from loadtests.kit.content import octets
from loadtests.kit.processes import Origin
from tests.fault.wild import Wild, get, wild
from tests.supervisor import kit
from tests.supervisor.kit import body_of

pytestmark = pytest.mark.fault

LIMITS = {"connect_timeout": "500ms", "first_byte_timeout": "400ms", "between_bytes_timeout": "400ms"}
KEPT = [f"/kept/{number}" for number in range(4)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Wild, kit.Node]]:
    """One edge for all ways to fail: what one leaves behind shows in the next."""
    config = {"cache": {"retry_after_failure": "50ms"}}
    with wild() as origin:
        config["sites"] = [{"origin": {"url": origin.url, **LIMITS}}]  # type: ignore[assignment, list-item]
        with kit.node(tmp_path_factory.mktemp("edge"), config) as node:
            yield origin, node


# What a client may get for something that is not stored: a clear error, or, once octets have gone out, a cut answer.
ERROR, CUT, RIGHT = {502, 503, 504}, "cut", "right"
WAYS = [
    ("error", {503}),
    ("reset", ERROR),
    ("reset-in-the-middle", CUT),
    ("less-than-it-says", CUT),
    ("more-than-it-says", RIGHT),
    ("two-lengths", ERROR),
    ("length-and-chunked", ERROR),
    ("bad-chunk", CUT),
    ("garbage", ERROR),
    ("endless-head", ERROR),
    ("silent", ERROR),
    ("slow-head", ERROR),
    ("slow-body", CUT),
]


@pytest.mark.parametrize(("way", "expected"), WAYS, ids=[way for way, _ in WAYS])
def test_nothing_wrong_is_served_and_it_is_normal_again(
    place: tuple[Wild, kit.Node], way: str, expected: set[int] | str
) -> None:
    origin, node = place
    port = node.port
    chance = random.Random(way)
    for path in KEPT:
        assert get(port, path).body == body_of(path)
    time.sleep(1.1)  # all of it is stale now
    before = node.stats()
    origin.mode = way
    new = [f"/new/{way}/{number}" for number in range(2)]
    for path in chance.sample(KEPT + new, len(KEPT) + len(new)):
        got = get(port, path)
        if path in KEPT and (expected != CUT or got.whole):
            # Where nothing of an answer has come, the stored one stands in.
            assert (got.status, got.body) == (200, body_of(path)), path
        elif expected == RIGHT:
            assert (got.status, got.body) == (200, body_of(path))
        elif expected == CUT:
            assert got.status in {200, *ERROR}
            assert got.status != 200 or not got.whole, "nothing incomplete may look complete"
            assert got.status != 200 or body_of(path).startswith(got.body) or "chunked" in str(got.fields)
        else:
            assert got.status in expected
            assert "cache-status" in got.fields or way == "error"
    after = node.stats()
    total = after["requests"]["total"] - before["requests"]["total"]
    assert total == len(KEPT) + len(new), "each is counted once"
    if expected == ERROR:
        errors = after["requests"]["by_outcome"]["error"] - before["requests"]["by_outcome"]["error"]
        assert errors == len(new)
    origin.mode = "well"
    time.sleep(0.1)  # retry_after_failure, and no more
    for path in KEPT + new + [f"/then/{way}/{number}" for number in range(5)]:
        got = get(port, path)
        assert (got.status, got.body, got.whole) == (200, body_of(path), True), path
    kit.until(lambda: node.stats()["fills"] == 0 and node.stats()["connections"] == 0)
    assert node.stats()["processes"]["died"] == 0


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_an_origin_process_that_is_gone_for_a_while(tmp_path: Path, how: str) -> None:
    """What is stored is served; a request for something else gets an error in time; no restart is needed."""
    Board(tmp_path / "board", create=True).close()
    origin = Origin(tmp_path, tmp_path / "board")
    try:
        sites = [{"origin": {"url": origin.url, **LIMITS}}]
        with kit.node(tmp_path, {"sites": sites, "cache": {"retry_after_failure": "50ms"}}) as node:
            kept = [f"/stale/{number}-5000" for number in range(5)]
            for number, path in enumerate(kept):
                assert get(node.port, path).body == octets(number, 0, 5000)
            time.sleep(1.1)
            if how == "killed":
                origin.kill()
            else:
                origin.freeze()
            for number, path in enumerate(kept):
                got = get(node.port, path)
                assert (got.status, got.body) == (200, octets(number, 0, 5000))
            begun = time.monotonic()
            assert get(node.port, "/stale/77-100").status in ERROR
            assert time.monotonic() - begun < 3
            if how == "killed":
                origin.start()
            else:
                origin.thaw()
            kit.until(lambda: get(node.port, "/stale/78-100").body == octets(78, 0, 100))
            for number, path in enumerate(kept):
                assert get(node.port, path).body == octets(number, 0, 5000)
    finally:
        if origin.process is not None:
            origin.thaw()
        origin.kill()
