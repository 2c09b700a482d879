"""The wire format: what goes in comes out, and whatever else comes is a `FrameError`, never another exception."""

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecache.purge import frames
from edgecache.purge.bus import Heartbeat, LogEntry, LogPosition, Purges, Record, Welcome
from edgecache.purge.frames import Ack, FrameError, Hello
from edgecache.purge.message import PurgeKind, PurgeOrder

texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
lists = st.lists(texts, max_size=2).map(tuple)
numbers = st.integers(0, frames.MAX_SEQUENCE)
times = st.floats(0, 4e9)
positions = st.builds(LogPosition, texts, numbers, times)
orders = st.builds(
    PurgeOrder,
    urls=lists,
    keys=lists,
    groups=lists,
    caseless=lists,
    hosts=lists,
    prefixes=lists,
    everything=st.booleans(),
    site=st.none() | texts,
    kind=st.sampled_from(PurgeKind),
    source=texts,
).map(lambda o: o if o.targets else replace(o, everything=True))


@given(orders)
def test_an_order_comes_back(order: PurgeOrder) -> None:
    text = frames.order_text(order)
    assert frames.order_of(text) == order
    assert frames.order_text(frames.order_of(text)) == text


@given(st.builds(Hello, texts, texts, texts, st.none() | positions))
def test_a_hello_comes_back(hello: Hello) -> None:
    assert frames.up(frames.hello_frame(hello)) == hello


@given(numbers)
def test_an_ack_comes_back(position: int) -> None:
    assert frames.up(frames.ack_frame(position)) == Ack(position)


@given(st.builds(Welcome, positions, numbers, st.booleans(), st.floats(0.01, 3600)))
def test_a_welcome_comes_back(welcome: Welcome) -> None:
    assert frames.down(frames.welcome_frame(welcome)) == welcome


@given(st.builds(Heartbeat, numbers, times))
def test_a_heartbeat_comes_back(heartbeat: Heartbeat) -> None:
    assert frames.down(frames.heartbeat_frame(heartbeat)) == heartbeat


@given(st.integers(0, 1 << 50), st.lists(st.tuples(times, orders), min_size=1, max_size=4))
def test_entries_come_back(first: int, given_: list[tuple[float, PurgeOrder]]) -> None:
    entries = tuple(LogEntry(first + i, time, order) for i, (time, order) in enumerate(given_))
    records = [Record(entry.sequence, entry.time, frames.order_text(entry.order)) for entry in entries]
    frame = frames.purges_frame(frames.entry_text(record) for record in records)
    assert frames.down(frame) == Purges(entries)
    frame.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ORDER = {"kind": "soft", "source": "x", "keys": ["a"]}
ENTRY = {"seq": 7, "time": 1.5, "order": ORDER}
WELCOME = {"type": "welcome", "format": 1, "log": "l", "head": 9, "from": 7, "from_time": 1, "reset": False}
WELCOME["heartbeat_s"] = 5
HELLO = {"type": "hello", "format": 1, "edge": "e", "instance": "i", "version": "1", "log": "l", "position": 3}
HELLO["time"] = 2
FIELDS = {
    *HELLO,
    *WELCOME,
    *ENTRY,
    *ORDER,
    "entries",
    "urls",
    "groups",
    "caseless",
    "hosts",
    "prefixes",
    "everything",
    "site",
}
TYPES = st.sampled_from(["hello", "ack", "welcome", "purges", "heartbeat", "", "HELLO"])


@given(st.binary(max_size=40) | json_values.map(json.dumps))
@example(b"\xff\xfe")
@example("[" * 100_000)
@example('{"type":"ack","position":NaN}')
@example('{"type":"ack","position":1' + "0" * 5000 + "}")
@example('{"type":"heartbeat","head":1,"time":1e999}')
def test_anything_is_a_frame_or_an_error(text: str | bytes) -> None:
    if isinstance(text, str):
        with contextlib.suppress(FrameError):
            frames.up(text)
    for read in (frames.down, frames.order_of):
        with contextlib.suppress(FrameError):
            read(text)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), json_values), TYPES)
def test_fields_of_any_kind_are_a_frame_or_an_error(body: dict[str, object], kind: str) -> None:
    for read in (frames.up, frames.down):
        with contextlib.suppress(FrameError):
            read(json.dumps(body | {"type": kind}))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"type": "purges", "entries": [ENTRY]}, id="purges"),
        pytest.param(WELCOME, id="welcome"),
        pytest.param({"type": "heartbeat", "head": 1, "time": 1}, id="heartbeat"),
        pytest.param(HELLO, id="hello"),
        pytest.param({"type": "ack", "position": 1}, id="ack"),
    ],
)
def test_unknown_fields_are_ignored_and_missing_ones_are_not(body: dict[str, object]) -> None:
    read = frames.up if body["type"] in ("hello", "ack") else frames.down
    assert read(json.dumps(body | {"more": [1, {}]})) == read(json.dumps(body))
    for name in body:
        if name == "log" and body["type"] == "hello":
            continue  # none: the edge has no position yet
        with pytest.raises(FrameError):
            read(json.dumps({key: value for key, value in body.items() if key != name}))


@pytest.mark.parametrize(
    "more",
    [
        {"origins": ["o"]},
        {"patterns": [{"url": "^/a", "method": "GET"}]},
        {"site": "shop", "": None},
        {"keys": [], "origins": []},
    ],
)
def test_an_order_that_is_not_known_in_whole_purges_everything(more: dict[str, object]) -> None:
    """A newer coordinator may mean anything by it."""
    everything = PurgeOrder(everything=True, kind=PurgeKind.HARD, source="x")
    assert frames.order_of(json.dumps(ORDER | more)) == everything
    frame = {"type": "purges", "entries": [ENTRY | {"order": ORDER | more}]}
    assert frames.down(json.dumps(frame)) == Purges((LogEntry(7, 1.5, everything),))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"seq": -1}, id="negative"),
        pytest.param({"seq": True}, id="bool"),
        pytest.param({"seq": 1.0}, id="float"),
        pytest.param({"seq": 1 << 54}, id="huge"),
        pytest.param({"time": "1"}, id="time-text"),
        pytest.param({"order": None}, id="no-order"),
        pytest.param({"order": {"kind": "hard", "source": "x"}}, id="names-nothing"),
        pytest.param({"order": {"kind": "firm", "source": "x", "keys": ["a"]}}, id="kind"),
        pytest.param({"order": {"kind": "hard", "source": "x", "keys": "a"}}, id="keys-text"),
        pytest.param({"order": {"kind": "hard", "source": "x", "keys": [""]}}, id="empty-key"),
        pytest.param({"order": {"kind": "hard", "source": "x", "keys": [1]}}, id="key-number"),
        pytest.param({"order": {"kind": "hard", "source": "x", "keys": ["a"], "site": 1}}, id="site"),
        pytest.param({"order": {"kind": "hard", "source": "x", "everything": 1}}, id="everything"),
        pytest.param({"order": {"kind": "hard", "keys": ["a"]}}, id="no-source"),
    ],
)
def test_a_wrong_entry_is_refused(change: dict[str, object]) -> None:
    frames.down(json.dumps({"type": "purges", "entries": [ENTRY]}))
    with pytest.raises(FrameError):
        frames.down(json.dumps({"type": "purges", "entries": [ENTRY | change]}))


def test_a_gap_between_entries_is_refused() -> None:
    with pytest.raises(FrameError, match="one by one"):
        frames.down(json.dumps({"type": "purges", "entries": [ENTRY, ENTRY | {"seq": 9}]}))


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(FrameError, match="text"):
        frames.order_of('{"kind":"hard","source":"x","keys":["\\ud800"]}')
