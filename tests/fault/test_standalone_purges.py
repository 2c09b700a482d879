"""An edge on its own is killed while it is asked to purge: its log has whatever it answered, and each of it once."""

import concurrent.futures
import http.client
import json
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.supervisor.kit import TOKEN, alive, node, until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]


def purge(url: str, name: str) -> dict[str, Any] | None:
    """The answer, or None where there was none."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Idempotency-Key": name}
    try:
        connection.request("POST", "/v1/purge", json.dumps({"keys": [name]}), headers)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    else:
        assert response.status == 200, answer
        return answer
    finally:
        connection.close()


def kill(processes: list[int]) -> None:
    """The supervisor first, so that it replaces nobody."""
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, processes[1:])))


@pytest.mark.parametrize("place", ["disk", "log"])
def test_what_was_answered_is_remembered_after_kill_9(tmp_path: Path, place: str) -> None:
    where = {"path": str(tmp_path / "place")}
    config = {"origin": "http://127.0.0.1:1", "workers": 1}
    config |= {"disk": where} if place == "disk" else {"purge": {"log": where}}
    answered: dict[str, int] = {}
    for run in range(2 if place == "disk" else 1):
        folder = tmp_path / str(run)
        folder.mkdir()
        with node(folder, config) as edge:
            url = edge.admin_url
            for name, number in answered.items():  # of the lives before
                again = purge(url, name)
                assert again is not None
                assert (again["again"], again["sequence"]) == (True, number)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                calls = {f"{run}-{i}": pool.submit(purge, url, f"{run}-{i}") for i in range(200)}
                for _, call in zip(range(20), concurrent.futures.as_completed(calls.values()), strict=False):
                    call.result()
                kill([edge.process.pid, *(process.pid for process in edge.processes())])
                found = {name: call.result() for name, call in calls.items()}
            answered |= {name: answer["sequence"] for name, answer in found.items() if answer is not None}
            assert len(answered) < 200 * (run + 1)
    assert len(set(answered.values())) == len(answered), "no number was given twice"
    (tmp_path / "last").mkdir()
    with node(tmp_path / "last", config) as edge:
        records = {each["sequence"]: each for each in edge.ask("/v1/audit?limit=1000")["records"]}
        for name, number in answered.items():
            assert records[number]["summary"] == f"keys: {name}"
        names = [each["summary"] for each in records.values()]
        assert len(set(names)) == len(names), "each order was logged once"
