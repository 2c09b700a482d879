"""An edge on its own remembers what it was asked to purge as a coordinator does: idempotency keys, orders, who it was.

Three places: with the disk tier, in a directory of the log's own, in memory.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edgecache.app import Shared, StartError
from edgecache.purge.durable import DurablePurges
from edgecache.store import node as store_node
from tests.edge.world import TOKEN, World, until, world

AUTH = {"Authorization": f"Bearer {TOKEN}"}


def disk(folder: Path) -> dict[str, object]:
    return {"disk": {"path": str(folder / "cache"), "size": "64MiB"}}


def own(folder: Path) -> dict[str, object]:
    return {"purge": {"log": {"path": str(folder / "log")}}}


def memory(_folder: Path) -> dict[str, object]:
    return {}


PLACES = [pytest.param(place, id=place.__name__) for place in (disk, own, memory)]
DURABLE = PLACES[:2]


async def ask(
    w: World, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, key: str | None = None
) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{w.edge.admin.address.port}{path}"
    given = {**(AUTH if headers is None else headers), **({} if key is None else {"Idempotency-Key": key})}
    async with w.client.request(method, url, json=body, headers=given) as response:
        return response.status, await response.json()


async def purge(w: World, *keys: str, key: str | None = None) -> tuple[int, dict[str, Any]]:
    return await ask(w, "POST", "/v1/purge", {"keys": keys}, key=key)


def applied(w: World) -> int:
    """The number of the last purge in force."""
    return w.edge._shared.arena.sequence()


@pytest.mark.parametrize("place", PLACES)
async def test_a_repeated_call_is_carried_out_once(tmp_path: Path, place: Any) -> None:
    async with world(**place(tmp_path)) as w:
        status, first = await purge(w, "a", key="deploy-1")
        assert (status, first["again"], first["complete"], first["waited"]) == (200, False, True, True)
        assert (first["edges"][0]["edge"], first["edges"][0]["applied"], first["away"]) == (w.edge.name, True, [])
        status, again = await purge(w, "a", key="deploy-1")
        assert status == 200
        assert again["again"] is True
        assert (again["sequence"], again["time"]) == (first["sequence"], first["time"])
        assert applied(w) == first["sequence"], "nothing was purged a second time"
        assert (await purge(w, "a", key="deploy-2"))[1]["sequence"] == first["sequence"] + 1


@pytest.mark.parametrize("place", PLACES)
async def test_a_key_stands_for_one_order(tmp_path: Path, place: Any) -> None:
    async with world(**place(tmp_path)) as w:
        await purge(w, "a", key="deploy-1")
        status, body = await purge(w, "b", key="deploy-1")
        assert (status, body["error"]["code"]) == (409, "idempotency-key-reused")
        assert applied(w) == 1, "nothing was purged"
        assert (await purge(w, "a", key="deploy-1"))[1]["sequence"] == 1


@pytest.mark.parametrize("place", PLACES)
async def test_calls_with_one_key_at_the_same_time_are_one(tmp_path: Path, place: Any) -> None:
    async with world(**place(tmp_path)) as w:
        answers = await asyncio.gather(*(purge(w, "a", key="k") for _ in range(10)))
        assert {body["sequence"] for _, body in answers} == {1}
        assert sum(not body["again"] for _, body in answers) == 1
        assert applied(w) == 1


@pytest.mark.parametrize("key", ["", "two words", "k" * 201, "ä"])
async def test_a_key_that_is_none(key: str) -> None:
    async with world() as w:
        status, body = await purge(w, "a", key=key)
        assert (status, body["error"]["path"]) == (400, "Idempotency-Key")
        assert applied(w) == 0


@pytest.mark.parametrize("place", DURABLE)
async def test_a_restart_forgets_nothing(tmp_path: Path, place: Any) -> None:
    async with world(**place(tmp_path)) as w:
        _, first = await purge(w, "a", key="deploy-1")
        await purge(w, "b")
    async with world(**place(tmp_path)) as w:
        _, again = await purge(w, "a", key="deploy-1")
        assert (again["again"], again["sequence"], again["time"]) == (True, first["sequence"], first["time"])
        assert (await purge(w, "b", key="deploy-1"))[0] == 409
        _, later = await purge(w, "c")
        assert later["sequence"] > 2, "numbers are not given twice"
        _, audit = await ask(w, "GET", "/v1/audit")
        assert [record["summary"] for record in audit["records"]] == ["keys: c", "keys: b", "keys: a"]
        status, found = await ask(w, "GET", "/v1/purge/2")
        assert (status, found["order"]) == (200, {"kind": "hard", "source": "admin", "keys": ["b"]})


@pytest.mark.parametrize("place", PLACES)
async def test_who_purged_what(tmp_path: Path, place: Any) -> None:
    settings = place(tmp_path)
    settings["purge"] = {**settings.get("purge", {}), "dialects": {"public": {"allow": ["127.0.0.1"]}}}
    async with world(**settings) as w:
        await ask(w, "POST", "/v1/purge", {"keys": ["a", "b"], "site": "default", "soft": True})
        async with w.client.request("PURGE", w.url + "/page", headers={"Host": "h"}) as response:
            assert response.status == 200
        headers = {"Fastly-Key": TOKEN}
        assert (await ask(w, "POST", "/service/default/purge_all", headers=headers))[0] == 200
        w.answers(b"done")
        await w.get("/page", "POST")
        _, audit = await ask(w, "GET", "/v1/audit")
        seen = [(r["token"], r["address"], r["kind"], r["targets"], r["summary"]) for r in audit["records"]]
        assert seen == [
            ("admin", "127.0.0.1", "hard", 1, "everything; site: default"),
            ("", "127.0.0.1", "hard", 1, "urls: http://h/page"),
            ("admin", "127.0.0.1", "soft", 2, "keys: a, b; site: default"),
        ], "orders, and not what a client's unsafe request has purged"
        numbers = [record["sequence"] for record in audit["records"]]
        _, page = await ask(w, "GET", f"/v1/audit?before={numbers[0]}&limit=1")
        assert [record["sequence"] for record in page["records"]] == [numbers[1]]


async def test_the_record_is_for_who_has_the_token() -> None:
    async with world() as w:
        assert (await ask(w, "GET", "/v1/audit", headers={}))[0] == 401
        status, body = await ask(w, "GET", "/v1/audit?limit=1001")
        assert (status, body["error"]["path"]) == (400, "limit")


@pytest.mark.parametrize("place", PLACES)
async def test_what_was_ordered(tmp_path: Path, place: Any) -> None:
    async with world(**place(tmp_path)) as w:
        await purge(w, "a")
        _, found = await ask(w, "GET", "/v1/purge/1")
        assert found["order"] == {"kind": "hard", "source": "admin", "keys": ["a"]}
        assert found["edges"] == [{"edge": w.edge.name, "applied": True}]
        assert (await ask(w, "GET", "/v1/purge/2"))[0] == 404


async def test_an_order_that_is_refused_is_not_logged() -> None:
    async with world() as w:
        status, _ = await ask(w, "POST", "/v1/purge", {"keys": ["a"], "site": "unknown"}, key="k")
        assert status == 404
        assert (await ask(w, "GET", "/v1/audit"))[1] == {"records": []}
        assert (await purge(w, "a", key="k"))[1]["again"] is False, "the key was not used"


async def test_a_log_of_its_own_is_one_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_node, "LOCK_PATIENCE_S", 0.1)
    async with world(**own(tmp_path)) as w:
        with pytest.raises(StartError, match="another edge uses this directory"):
            Shared(w.edge.config)


# --- a disk that fails ---


async def test_without_its_disk_an_edge_purges_and_logs_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with world(**own(tmp_path)) as w:
        monkeypatch.setattr(w.edge.worker._keeper, "_retry_s", 0.01)
        with monkeypatch.context() as patch:
            patch.setattr(DurablePurges, "append", fail)
            assert (await purge(w, "a"))[0] == 200
            assert applied(w) == 1
            status, body = await purge(w, "b", key="k")
            assert (status, body["error"]["code"]) == (503, "log-unavailable")
            assert "not purged" in body["error"]["message"]
            assert applied(w) == 1, "whether it was done before cannot be looked up"
        keeper = w.edge.worker._keeper
        assert keeper is not None
        await until(lambda: not keeper.failing)
        _, audit = await ask(w, "GET", "/v1/audit")
        assert [record["summary"] for record in audit["records"]] == ["keys: a"]
        assert (await purge(w, "b", key="k"))[1]["again"] is False


async def test_a_purge_that_a_restart_may_undo_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    async with world(**disk(tmp_path)) as w:
        monkeypatch.setattr(w.edge.worker._keeper, "_retry_s", 0.01)
        with monkeypatch.context() as patch:
            patch.setattr(DurablePurges, "append", fail)
            patch.setattr(w.edge.worker.purge_log.keeper, "_distrust", fail)
            status, body = await purge(w, "a")
            assert (status, body["error"]["code"]) == (500, "not-kept")
            assert "purge 1 is in force" in body["error"]["message"]
            assert applied(w) == 1
            assert (await purge(w, "b", key="k"))[0] == 503
        await until(lambda: w.edge.worker._keeper is not None and not w.edge.worker._keeper.failing)
        assert (await purge(w, "b", key="k"))[0] == 200


async def test_a_damaged_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(**own(tmp_path)) as w:
        await purge(w, "a", key="k")
    path = tmp_path / "log" / "purges.db"
    con = sqlite3.connect(path)
    [root] = con.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Audit'").fetchone()
    [size] = con.execute("PRAGMA page_size").fetchone()
    con.close()
    data = bytearray(path.read_bytes())
    data[(root - 1) * size : root * size] = b"\xff" * size
    path.write_bytes(data)
    async with world(**own(tmp_path)) as w:
        keeper = w.edge.worker._keeper
        assert keeper is not None
        monkeypatch.setattr(keeper, "_retry_s", 0.01)
        assert (await purge(w, "b"))[0] == 200
        assert path.with_name("purges.db.damaged").exists()
        await until(lambda: path.exists())
        await until(lambda: not keeper.failing)
        _, audit = await ask(w, "GET", "/v1/audit")
        assert [record["summary"] for record in audit["records"]] == ["keys: b"]
