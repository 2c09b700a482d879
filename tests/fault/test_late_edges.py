"""Clients of other products hear no success of a purge that an edge has not confirmed: here one that is frozen, in a
fleet of real processes, asked at the coordinator and through another edge.
"""

import concurrent.futures
import contextlib
import html
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fault.test_fleet_processes import ask, free_port, hits
from tests.supervisor.kit import TOKEN, Node, node, origin, until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

WAIT_S = 1.0
SAYS = re.compile(
    r"Purge \d+ is logged and will be applied, but not confirmed after [\d.]+ s by frozen; asking again does no harm"
)


@contextlib.contextmanager
def coordinator(folder: Path) -> Iterator[tuple[str, str]]:
    """Its URL, and a token."""
    port = free_port()
    config = {
        "listen": f"127.0.0.1:{port}",
        "data": str(folder / "data"),
        "wait_timeout": f"{WAIT_S}s",
        "dialects": {"ids": [{"id": "shop", "site": "default"}]},
    }
    file = folder / "coordinator.yaml"
    file.write_text(json.dumps({"coordinator": config}))
    command = [sys.executable, "-m", "edgecache", "coordinator", "-c", str(file)]
    made = subprocess.run(
        [*command, "token", "add", "all", "--scope", "admin"], check=True, capture_output=True, text=True
    )
    with (folder / "coordinator.out").open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield f"http://127.0.0.1:{port}", made.stdout.strip()
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Dialect:
    method: str
    target: str
    fields: dict[str, str]
    body: str | None = None

    def send(self, url: str, token: str) -> tuple[int, str, str]:
        """Status, reason phrase, body."""
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        fields = {name: value.replace("TOKEN", token) for name, value in self.fields.items()}
        try:
            connection.request(self.method, self.target, self.body, {"Host": "shop.example", **fields})
            response = connection.getresponse()
            return response.status, response.reason, response.read().decode()
        finally:
            connection.close()


DIALECTS = {
    "fastly": Dialect("POST", "/service/shop/purge/nothing", {"Fastly-Key": "TOKEN"}),
    "cloudflare": Dialect(
        "POST", "/client/v4/zones/shop/purge_cache", {"Authorization": "Bearer TOKEN"}, '{"tags": ["nothing"]}'
    ),
    "varnish": Dialect("PURGE", "/nothing", {"X-Purge-Key": "TOKEN"}),
    "varnish-keys": Dialect("PURGE", "/", {"X-Purge-Key": "TOKEN", "xkey": "nothing"}),
    "varnish-ban": Dialect("BAN", "/", {"X-Purge-Key": "TOKEN", "X-Host": "nothing.example", "X-Url": ".*"}),
    "magento": Dialect("PURGE", "/", {"X-Purge-Key": "TOKEN", "X-Magento-Tags-Pattern": "((^|,)nothing(,|$))"}),
    "nginx": Dialect("PURGE", "/nothing*", {"Authorization": "Bearer TOKEN"}),
}


def check(name: str, status: int, reason: str, body: str) -> None:
    """What a client of this product understands as no success, with its reason where it shows one."""
    assert status == 504, (name, status, body)
    match name:
        case "fastly":
            told = json.loads(body)
            assert told["msg"] == "Gateway timeout"
            assert "status" not in told
            assert SAYS.fullmatch(told["detail"])
        case "cloudflare":
            told = json.loads(body)
            assert (told["success"], told["result"], told["messages"]) == (False, None, [])
            [error] = told["errors"]
            assert error["code"] == 10001
            assert SAYS.fullmatch(error["message"])
        case "nginx":
            assert reason == "Gateway Time-out"
            assert SAYS.search(html.unescape(body))
            assert "Successful" not in body
        case _:
            assert SAYS.fullmatch(reason)
            assert SAYS.search(html.unescape(body))


def everybody(running: Node) -> list[int]:
    return [running.process.pid, *(process.pid for process in running.processes())]


def test_an_edge_that_does_not_confirm_is_told_in_every_dialect(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(origin())
        url, token = stack.enter_context(coordinator(tmp_path))
        (tmp_path / "token").write_text(token)
        edges = []
        for name in ("awake", "frozen"):
            folder = tmp_path / name
            folder.mkdir()
            purge = {"coordinator": url, "token_file": str(tmp_path / "token")}
            config = {"origin": source.url, "name": name, "workers": 1, "purge": purge}
            edges.append(stack.enter_context(node(folder, config)))
        awake, frozen = edges
        for edge in edges:
            until(lambda edge=edge: edge.stats()["purges"]["caught_up"])  # type: ignore[misc]
        ask(frozen, ["/1"])
        until(lambda: hits(ask(frozen, ["/1"])) == 1)
        asleep = everybody(frozen)
        places = {"coordinator": (url, token), "edge": (awake.admin_url, TOKEN)}
        try:
            for pid in asleep:
                os.kill(pid, signal.SIGSTOP)
            url_of_it = Dialect("PURGE", "/1", {"X-Purge-Key": "TOKEN", "Host": "site"})
            with concurrent.futures.ThreadPoolExecutor(20) as pool:
                calls = {
                    (name, place): pool.submit(dialect.send, *where)
                    for name, dialect in {**DIALECTS, "url": url_of_it}.items()
                    for place, where in places.items()
                }
            for (name, _), call in calls.items():
                check(name, *call.result())
        finally:
            for pid in asleep:
                os.kill(pid, signal.SIGCONT)
        until(lambda: hits(ask(frozen, ["/1"])) == 0)  # it is applied, as was said
        for where in places.values():
            status, reason, body = DIALECTS["varnish"].send(*where)
            assert (status, reason) == (200, "Purged"), body
        for pid in everybody(frozen):
            os.kill(pid, signal.SIGSTOP)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            call = pool.submit(awake.ask, "/v1/purge", {"keys": ["k"], "timeout_s": 60})
            until(lambda: awake.ask("/v1/edges")["head"] > len(calls) + 2)
            for pid in everybody(frozen):
                os.kill(pid, signal.SIGKILL)
            answer = call.result(timeout=30)
        assert {each["edge"]: each["applied"] for each in answer["edges"]} == {"awake": True, "frozen": False}
        assert (answer["complete"], answer["away"]) == (False, [])
