import json
import re
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgecache import __version__
from edgecache.cli import cli
from edgecache.config.model import Config
from edgecache.config.options import options
from edgecache.purge.message import UrlPattern
from tests.admin.fake import TOKEN
from tests.cli.conftest import RunningEdge

AUTH = {"EDGECACHE_TOKEN": TOKEN}
COMMANDS = ["serve", "demo", "purge", "purges", "explain", "stats", "check"]


def run(*args: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli, args, env=env, prog_name="edgecache")


def test_version() -> None:
    assert run("--version").output == f"edgecache {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    for flag in ("-h", "--help"):
        result = run(command, flag)
        assert result.exit_code == 0
        assert "Usage: edgecache " + command in result.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param(["nothing"], "No such command", id="command"),
        pytest.param(["purge"], "name what to purge", id="nothing-to-purge"),
        pytest.param(["purge", "--kee", "a"], "No such option", id="option"),
        pytest.param(["explain"], "Missing argument", id="no-url"),
        pytest.param(["check"], "Missing argument", id="no-file"),
    ],
)
def test_a_wrong_command_line_exits_with_2(args: list[str], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert words in result.output


# --- serve ---


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that would have been served."""
    found: list[Config] = []

    def serve(config: Config, load: object) -> int:
        found.append(config)
        return 0

    monkeypatch.setattr("edgecache.supervisor.serve", serve)
    return found


def test_serve_hands_over_what_was_asked(served: list[Config]) -> None:
    result = run(
        *("serve", "--origin", "http://o:1", "--listen", ":80", "--listen", "[::1]:81", "--admin", "127.0.0.1:9"),
        *("--workers", "0", "--memory", "64MiB"),
    )
    assert (result.exit_code, result.output) == (0, "")
    (config,) = served
    assert config.sites[0].origin.url == "http://o:1"
    assert [str(listen.address) for listen in config.listen] == [":80", "[::1]:81"]
    assert str(config.admin.address) == "127.0.0.1:9"
    assert (config.workers, config.memory.size_bytes) == (0, 64 << 20)


def test_serve_reads_the_file_then_the_environment_then_the_command_line(served: list[Config], tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text("origin: http://file\nname: file\nmemory: {size: 16MiB}\nlog: {level: error}\n")
    env = {"EDGECACHE_CONFIG": str(file), "EDGECACHE_MEMORY_SIZE": "32MiB", "EDGECACHE_NAME": "env"}
    assert run("serve", "--memory", "64MiB", env=env).exit_code == 0
    (config,) = served
    assert (config.log.level, config.name, config.memory.size_bytes) == ("error", "env", 64 << 20)


def test_serve_exits_as_the_edge_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecache.supervisor.serve", lambda config, load: 1)
    assert run("serve", "--origin", "http://o").exit_code == 1


def test_serve_names_everything_that_is_wrong_and_starts_nothing(served: list[Config]) -> None:
    env = {"EDGECACHE_LOG_LEVEL": "loud"}
    result = run("serve", "--listen", "nowhere", "--memory", "1M", "--workers", "400", env=env)
    assert result.exit_code == 2
    for word in ("--listen", "--memory", "--workers", "EDGECACHE_LOG_LEVEL", "4 problems"):
        assert word in result.output
    assert served == []


def test_serve_without_an_origin_says_how_to_give_one(served: list[Config]) -> None:
    result = run("serve")
    assert result.exit_code == 2
    assert "--origin URL" in result.output


def test_a_mistyped_variable_is_pointed_out(served: list[Config]) -> None:
    result = run("serve", "--origin", "http://o", env={"EDGECACHE_MEMORY_SIZ": "1GiB"})
    assert result.exit_code == 0
    assert "did you mean EDGECACHE_MEMORY_SIZE?" in result.stderr


def test_help_shows_defaults_keys_and_variables() -> None:
    text = " ".join(run("serve", "--help").output.split())
    named = dict(re.findall(r"\[key: ([a-z.]+); env: (\w+)", text))
    variables = {".".join(option.path): option.variable for option in options()} | {"origin": "EDGECACHE_ORIGIN"}
    assert named == {key: variables[key] for key in named}
    assert set(named) == {
        *("origin", "listen", "admin.address", "workers", "memory.size", "disk.path", "disk.size"),
        "purge.coordinator",
    }
    for words in ("127.0.0.1:8080", "127.0.0.1:8081", "256MiB", "EDGECACHE_MEMORY_SIZE", "key: memory.size"):
        assert words in text


# --- demo ---


def test_demo_hands_over_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []
    module = types.ModuleType("edgecache.demo.run")
    module.run = lambda listen, admin, say: found.append((str(listen), str(admin))) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edgecache.demo.run", module)
    assert run("demo").exit_code == 0
    assert run("demo", "--listen", ":9", "--admin", "[::1]:8").exit_code == 0
    assert found == [("127.0.0.1:8080", "127.0.0.1:8081"), (":9", "[::1]:8")]


def test_demo_refuses_what_is_no_address() -> None:
    result = run("demo", "--listen", "here")
    assert result.exit_code == 2
    assert "an address and port such as" in result.output


# --- check ---


def test_check(tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text("sites:\n  - {name: a, hosts: [a.example], origin: http://o}\n  - {origin: http://p}\n")
    result = run("check", str(file), env={"EDGECACHE_LOG_LEVEL": "loud"})
    assert result.exit_code == 0
    assert result.output == f"{file}: valid, 2 sites\n  a: a.example -> http://o\n  default: every host -> http://p\n"


def test_check_shows_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text("origin: http://o\nmemroy: {}\nlog:\n  level: loud\n")
    result = run("check", str(file))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{file}:2  memroy: expected a known key; did you mean memory?",
        f"{file}:4  log.level = loud: expected debug, info, warning or error",
        "edgecache: the configuration cannot be used: 2 problems",
    ]


def test_check_of_nothing() -> None:
    result = run("check", "/nowhere/edge.yaml")
    assert result.exit_code == 2
    assert "/nowhere/edge.yaml" in result.stderr


# --- clients ---


def test_purge_and_wait(edge: RunningEdge) -> None:
    result = run("purge", "--key", "news", "--url", "http://a/2", "--soft", "--wait", "--to", edge.url, env=AUTH)
    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()] == [
        ["purge", "1"],
        ["edge", "applied", "took"],
        ["edge-1", "yes", "1.2", "ms"],
    ]
    order, wait = edge.node.orders[0]
    assert (order.keys, order.urls, order.kind, wait) == (("news",), ("http://a/2",), "soft", True)


def test_purge_without_waiting(edge: RunningEdge) -> None:
    result = run("purge", "--all", "--site", "default", "--to", edge.url, env=AUTH)
    assert (result.exit_code, result.output) == (0, "purge 1 taken\n")
    order, wait = edge.node.orders[0]
    assert (order.everything, order.site, wait) == (True, "default", False)


def test_an_edge_that_does_not_confirm(edge: RunningEdge) -> None:
    edge.node.silent = True
    result = run("purge", "--all", "--wait", "--to", edge.url, env=AUTH)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].split()[:2] == ["edge-1", "no"]
    assert run("purge", "--all", "--to", edge.url, env=AUTH).exit_code == 0


def test_purge_as_json(edge: RunningEdge) -> None:
    result = run("purge", "--host", "a", "--prefix", "a/b/", "--json", "--to", edge.url, env=AUTH)
    assert json.loads(result.stdout)["sequence"] == 1
    assert (edge.node.orders[0][0].hosts, edge.node.orders[0][0].prefixes) == (("a",), ("a/b/",))


def test_who_purged_what(edge: RunningEdge) -> None:
    row = {"time": 1_800_000_000.5, "token": "deploy", "address": "192.0.2.1", "kind": "hard", "targets": 2}
    edge.node.audited = [
        {"sequence": 8, **row, "summary": "keys: a\x1b[2J, b"},
        {"sequence": 7, **row, "token": "", "summary": "everything"},
    ]
    result = run("purges", "--to", edge.url, env=AUTH)
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.output.splitlines()] == [
        ["purge", "when", "(UTC)", "token", "from", "kind", "targets", "what"],
        ["8", "2027-01-15", "08:00:00", "deploy", "192.0.2.1", "hard", "2", "keys:", "a\\x1b[2J,", "b"],
        ["7", "2027-01-15", "08:00:00", "-", "192.0.2.1", "hard", "2", "everything"],
    ]
    result = run("purges", "--json", "--limit", "1", "--before", "9", "--to", edge.url, env=AUTH)
    found = json.loads(result.stdout)
    assert ([each["sequence"] for each in found["records"]], found["before"], found["limit"]) == ([8], 9, 1)


def test_who_purged_what_needs_the_token(edge: RunningEdge) -> None:
    result = run("purges", "--to", edge.url)
    assert result.exit_code == 1
    assert "needs its token" in result.stderr
    assert run("purges", "--limit", "0").exit_code == 2


@pytest.mark.parametrize("edge", [{"dialects": {"patterns": "match"}}], indirect=True)
def test_purge_by_pattern(edge: RunningEdge) -> None:
    given = ("--pattern", r"www.a~\.(png|gif)$", "--pattern", "~^/~user")
    assert run("purge", *given, "--to", edge.url, env=AUTH).exit_code == 0
    assert edge.node.orders[0][0].patterns == (UrlPattern(r"\.(png|gif)$", "www.a"), UrlPattern("^/~user"))


def test_purge_by_pattern_where_it_is_not_enabled(edge: RunningEdge) -> None:
    result = run("purge", "--pattern", "~a", "--to", edge.url, env=AUTH)
    assert result.exit_code == 1
    assert "set purge.dialects.patterns to match" in result.stderr
    assert not edge.node.orders


@pytest.mark.parametrize("given", ["a.b", "host~", "~"])
def test_purge_by_what_is_no_pattern(given: str) -> None:
    result = run("purge", "--pattern", given)
    assert result.exit_code == 2
    assert "HOST~REGEX" in result.output


def test_a_refusal_is_one_line(edge: RunningEdge) -> None:
    result = run("purge", "--url", "relative", "--to", edge.url, env=AUTH)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "edgecache: urls[0]: an absolute URL is needed\n"


@pytest.mark.parametrize(
    ("env", "words"), [({}, "needs its token"), ({"EDGECACHE_TOKEN": "x" * 20}, "does not accept this token")]
)
def test_the_token(edge: RunningEdge, env: dict[str, str], words: str) -> None:
    result = run("purge", "--all", "--to", edge.url, env=env)
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert edge.node.orders == []


def test_a_token_file(edge: RunningEdge, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert run("purge", "--all", "--to", edge.url, "--token-file", str(file)).exit_code == 0
    result = run("purge", "--all", "--to", edge.url, "--token-file", str(tmp_path / "other"))
    assert result.exit_code == 1
    assert "other" in result.stderr


@pytest.mark.parametrize(
    "command", [["stats"], ["stats", "--watch"], ["explain", "http://a/"], ["purge", "--all"], ["purges"]]
)
def test_no_edge(command: list[str]) -> None:
    result = run(*command, "--to", "http://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "edgecache: no edge answers at http://127.0.0.1:1; is it running? (--to names another)\n"


@pytest.mark.parametrize("to", ["http://", "ftp://a", "http://a/path", "http://a:x", "", "http://[::1"])
def test_what_is_no_edge(to: str) -> None:
    result = run("stats", "--to", to)
    assert result.exit_code == 1
    assert "is not the URL of an edge" in result.stderr


def test_to_may_leave_out_the_scheme(edge: RunningEdge) -> None:
    assert run("stats", "--json", "--to", edge.url.removeprefix("http://")).exit_code == 0


def test_to_from_the_environment(edge: RunningEdge) -> None:
    assert run("stats", "--json", env={"EDGECACHE_TO": edge.url}).exit_code == 0


def test_explain(edge: RunningEdge) -> None:
    result = run("explain", "http://a/1", "-X", "HEAD", "-H", "Accept-Language: de", "--to", edge.url)
    assert result.exit_code == 0
    rows = {line[:13].strip(): line[13:].strip() for line in result.output.splitlines()}
    assert rows["verdict"].startswith("serve")
    assert rows["cache key"] == "HEAD http://a/1"
    assert rows["Cache-Status"] == "edgecache; hit"
    assert "fresh for 48 s, usable stale for 1 h" in result.output
    assert "accept-language: de" in result.output
    assert "news front" in result.output
    assert "X-Odd: \\x9b31mred" in result.output
    assert "\x9b" not in result.output


def test_explain_what_is_not_there(edge: RunningEdge) -> None:
    result = run("explain", "http://a/9", "--to", edge.url)
    assert "nothing is stored under this key" in result.output
    found = json.loads(run("explain", "http://a/9", "--json", "--to", edge.url).stdout)
    assert found["verdict"] == "fetch"


@pytest.mark.parametrize("args", [["relative"], ["http://a/", "-H", "no colon"], ["http://a/", "-X", "G T"]])
def test_explain_what_makes_no_sense(edge: RunningEdge, args: list[str]) -> None:
    result = run("explain", *args, "--to", edge.url)
    assert result.exit_code == 1
    assert result.stderr.startswith("edgecache: ")


def test_stats(edge: RunningEdge) -> None:
    edge.node.figures = figures()
    result = run("stats", "--to", edge.url)
    assert result.exit_code == 0
    for words in ("1,234", "87.5 %", "hit 1,000", "5xx 4", "1.5 KiB", "p99 12.0 ms", "shop", "256.0 MiB", "sequence"):
        assert words in result.output, words
    assert "\x1b" not in result.output
    assert json.loads(run("stats", "--json", "--to", edge.url).stdout) == edge.node.figures


def figures() -> dict[str, object]:
    site = {
        "requests": {"total": 1234, "by_outcome": {"hit": 1000, "error": 4}, "by_status": {"2xx": 1230, "5xx": 4}},
        "hit_ratio": 0.875,
        "bytes": {"received": 0, "sent": 1536},
        "latency_ms": {"p50": 0.05, "p90": 1.0, "p99": 12.0},
        "origin_latency_ms": {"requests": 3, "p50": None, "p90": None, "p99": None},
    }
    return {
        "edge": "edge-1",
        "version": "0.1.0",
        "uptime_s": 3700.0,
        "fills": 3,
        **site,
        "sites": {"shop": site},
        "memory": {"size": 256 << 20, "objects": 12, "full": False},
        "purges": {"sequence": 7},
    }
