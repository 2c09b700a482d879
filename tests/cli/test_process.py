"""The command as a user runs it: a process, its output and its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.admin.fake import TOKEN
from tests.cli.conftest import RunningEdge
from tests.cli.test_cli import figures


def edgecache(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecache", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("EDGECACHE_")}, **env},
    )


def test_exit_statuses(edge: RunningEdge, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("origin: http://o\n")
    bad.write_text("origin: [\n")
    assert edgecache("check", str(good)).returncode == 0
    assert edgecache("check", str(bad)).returncode == 2
    assert edgecache("stats", "--to", "http://127.0.0.1:1").returncode == 1
    assert edgecache("stats", "--nothing").returncode == 2
    done = edgecache("purge", "--key", "k", "--to", edge.url, EDGECACHE_TOKEN=TOKEN)
    assert (done.returncode, done.stdout, done.stderr) == (0, "purge 1 taken\n", "")


def test_piped_output_is_plain_and_unwrapped(edge: RunningEdge) -> None:
    edge.node.figures = figures()
    url = "http://a/" + "x" * 500
    done = edgecache("explain", url, "--to", edge.url, TERM="xterm-256color", COLUMNS="80")
    assert url in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(edgecache("stats", "--json", "--to", edge.url).stdout)["edge"] == "edge-1"


def test_a_watch_can_be_piped_and_cut(edge: RunningEdge) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecache", "stats", "--watch", "--json", "--to", edge.url], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["edge"] == "edge-1"
        process.stdout.close()
        assert process.wait(20) in (0, 1)
    finally:
        process.kill()
        process.wait()


def test_clients_start_without_the_server_s_libraries(edge: RunningEdge) -> None:
    code = (
        "import sys; from edgecache.cli import cli\n"
        f"cli(['purge', '--all', '--to', '{edge.url}'], standalone_mode=False)\n"
        "heavy = {'aiohttp', 'uvloop', 'prometheus_client', 'pydantic', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"EDGECACHE_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal(edge: RunningEdge, columns: int) -> None:
    """In a real terminal (a pty), coloured and never wider than it."""
    import pty
    import re

    edge.node.figures = figures()
    for args in (["stats"], ["explain", "http://a/1"], ["purge", "--all", "--wait"]):
        leader, follower = pty.openpty()
        env = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(columns), "EDGECACHE_TOKEN": TOKEN}
        process = subprocess.Popen(
            [sys.executable, "-m", "edgecache", *args, "--to", edge.url], stdout=follower, stderr=follower, env=env
        )
        os.close(follower)
        shown = b""
        try:
            while data := os.read(leader, 65536):
                shown += data
        except OSError:  # the other end is closed
            pass
        os.close(leader)
        assert process.wait(20) == 0
        text = shown.decode()
        assert "\x1b[" in text
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert max(len(line) for line in plain.splitlines()) <= columns
