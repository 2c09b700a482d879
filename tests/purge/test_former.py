"""Sites that are configured no more: purges name them for a while, then they are purged whole and forgotten."""

from pathlib import Path
from typing import Any

import pytest

from edgecache.app import Shared, shared
from edgecache.config.model import Config
from edgecache.purge import former
from edgecache.purge.tags import object_tags

DAY_S = 86_400.0
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("seen", "there", "gone"),
    [
        pytest.param({"a": NOW}, {"a"}, (), id="configured"),
        pytest.param({"a": 0.0}, {"a"}, (), id="configured, whatever its time"),
        pytest.param({"a": NOW - 29 * DAY_S}, set(), (), id="gone for a while"),
        pytest.param({"a": NOW - 30 * DAY_S, "b": NOW}, {"b"}, ("a",), id="gone for long"),
        pytest.param({f"s{i}": NOW - i for i in range(100)}, set(), (), id="as many as are kept"),
        pytest.param({f"s{i}": NOW - i for i in range(102)}, {"s0"}, ("s101",), id="one more"),
    ],
)
def test_who_is_forgotten(seen: dict[str, float], there: set[str], gone: tuple[str, ...]) -> None:
    assert former.to_forget(seen, there, NOW) == gone


class Node:
    """What of a node knows its sites, through reloads and restarts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, disk: Path | None) -> None:
        self.now = NOW
        self._disk = disk
        self._shared: Shared | None = None
        monkeypatch.setattr(shared, "wall_clock", lambda: self.now)

    def config(self, *names: str) -> Config:
        sites = [{"name": name, "hosts": [f"{name}.example"], "origin": "http://127.0.0.1:9"} for name in names]
        settings: dict[str, Any] = {"sites": sites, "memory": {"size": "16MiB", "max_object": "256KiB"}}
        if self._disk is not None:
            settings["disk"] = {"path": str(self._disk), "size": "64MiB"}
        return Config.model_validate(settings)

    def start(self, *names: str) -> Shared:
        self.stop()
        self._shared = Shared(self.config(*names))
        return self._shared

    def stop(self) -> None:
        if self._shared is not None and self._shared.disk is not None:
            self._shared.disk.close()
        self._shared = None

    def reload(self, *names: str) -> None:
        assert self._shared is not None
        self._shared.adopt(self.config(*names))


def purged(node: Shared, site: str) -> bool:
    """Is what was stored of it at the start?"""
    tags = object_tags(cache_key=f"http://{site}.example/", site=site, surrogate_keys=())
    return node.arena.purged(0, tags) == 2


def test_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch, None)
    made = node.start("a", "b")
    node.now += 400 * DAY_S
    node.reload("b")
    assert set(made.sites_ever()) == {"a", "b"}
    node.now += 29 * DAY_S
    node.reload("b")
    assert set(made.sites_ever()) == {"a", "b"}, "the days count from when it went"
    assert made.arena.sequence() == 0
    node.now += DAY_S
    node.reload("b")
    assert set(made.sites_ever()) == {"b"}
    assert (purged(made, "a"), purged(made, "b")) == (True, False)
    for i in range(150):
        node.now += 1
        node.reload(f"s{i}")
    assert len(set(made.sites_ever())) == former.MOST + 1
    assert [purged(made, f"s{i}") for i in (0, 48, 49, 149)] == [True, True, False, False]


def test_restarts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = Node(monkeypatch, tmp_path / "disk")
    node.start("a", "b")
    node.now += 10 * DAY_S
    made = node.start("b")
    assert set(made.sites_ever()) == {"a", "b"}
    node.now += 20 * DAY_S
    made = node.start("b")
    assert set(made.sites_ever()) == {"b"}
    assert (purged(made, "a"), purged(made, "b")) == (True, False)
    node.now += DAY_S
    made = node.start("a", "b")
    assert purged(made, "a"), "what is on disk of it may not come back with it"
    assert set(made.sites_ever()) == {"a", "b"}
    node.stop()


def test_one_that_cannot_be_forgotten_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = Node(monkeypatch, tmp_path / "disk")
    made = node.start("a", "b")
    node.reload("b")
    node.now += 31 * DAY_S
    assert made.disk is not None
    with monkeypatch.context() as patch:
        patch.setattr(made.disk, "forget_sites", lambda *_: False)
        node.reload("b")
    assert set(made.sites_ever()) == {"a", "b"}
    node.reload("b")
    assert set(made.sites_ever()) == {"b"}
    node.stop()
