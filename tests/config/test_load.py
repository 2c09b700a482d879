from collections.abc import Mapping
from pathlib import Path

import pytest

from edgecache.config.load import ConfigError, Override, Problem, load
from edgecache.config.units import Address

ORIGIN = {"EDGECACHE_ORIGIN": "http://127.0.0.1:8000"}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "edge.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(
    file: Path | None, environ: Mapping[str, str] | None = None, overrides: list[Override] | None = None
) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load(file, environ=environ or {}, overrides=overrides or [])
    return caught.value.problems


def test_an_origin_is_enough(tmp_path: Path) -> None:
    config = load(written(tmp_path, "origin: http://10.0.0.5:8000/")).config
    assert [site.title for site in config.sites] == ["default"]
    assert config.sites[0].origin.url == "http://10.0.0.5:8000"
    assert config.listen[0].address == Address("127.0.0.1", 8080)
    assert config.admin.address == Address("127.0.0.1", 8081)
    assert config.memory.size_bytes == 256 << 20


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_no_origin_is_refused(tmp_path: Path, text: str) -> None:
    (problem,) = refused(written(tmp_path, text))
    assert "an origin" in problem.expected


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path, "origin: http://file\nmemory: {size: 16MiB, max_object: 64KiB}\nlog: {level: error, format: json}\n"
    )
    environ = {"EDGECACHE_MEMORY_SIZE": "32MiB", "EDGECACHE_LOG_LEVEL": "debug"}
    config = load(file, environ=environ, overrides=[Override(("memory", "size"), "64MiB", "--memory")]).config
    assert config.memory.size_bytes == 64 << 20
    assert config.memory.max_object_bytes == 64 << 10
    assert config.log.level == "debug"
    assert config.log.format == "json"


def test_a_section_in_short_form_can_be_added_to(tmp_path: Path) -> None:
    file = written(tmp_path, "origin: http://file\n")
    config = load(file, environ={"EDGECACHE_ORIGIN_CONNECT_TIMEOUT": "1s"}).config
    assert config.sites[0].origin.url == "http://file"
    assert config.sites[0].origin.connect_timeout_s == 1.0


def test_an_origin_from_outside_keeps_the_files_other_keys(tmp_path: Path) -> None:
    file = written(tmp_path, "origin: {url: http://file, connect_timeout: 1s}\n")
    config = load(file, environ=ORIGIN).config
    assert config.sites[0].origin.url == "http://127.0.0.1:8000"
    assert config.sites[0].origin.connect_timeout_s == 1.0


@pytest.mark.parametrize(
    ("variable", "text", "read"),
    [
        pytest.param(
            "LISTEN", ":80, [::1]:90", lambda c: [str(x.address) for x in c.listen] == [":80", "[::1]:90"], id="list"
        ),
        pytest.param("LISTEN", '[{address: ":9"}]', lambda c: c.listen[0].address.port == 9, id="yaml-list"),
        pytest.param(
            "SITES",
            "[{hosts: [a.example], origin: 'http://o'}]",
            lambda c: c.sites[0].hosts == ("a.example",),
            id="yaml-sites",
        ),
        pytest.param(
            "CACHE_QUERY_DROP",
            "utm_*, fbclid",
            lambda c: c.sites[0].cache.query.drop == ("utm_*", "fbclid"),
            id="words",
        ),
        pytest.param("CACHE_STALE_IF_ERROR", "1d", lambda c: c.sites[0].cache.stale_if_error_s == 86400, id="duration"),
        pytest.param("ORIGIN_TLS_VERIFY", "no", lambda c: c.sites[0].origin.tls.verify is False, id="bool"),
        pytest.param("LOG_ACCESS_FORMAT", "off", lambda c: c.log.access.format == "off", id="off"),
        pytest.param("LIMITS_REQUEST_BODY", "unlimited", lambda c: c.limits.request_body_bytes is None, id="unlimited"),
        pytest.param("LIMITS_REQUEST_BODY", "1MiB", lambda c: c.limits.request_body_bytes == 1 << 20, id="limited"),
        pytest.param("MEMORY_SIZE", "  ", lambda c: c.memory.size_bytes == 256 << 20, id="empty-is-not-given"),
    ],
)
def test_the_environment(variable: str, text: str, read: object) -> None:
    environ = {"EDGECACHE_" + variable: text}
    if variable != "SITES":
        environ |= ORIGIN
    assert read(load(environ=environ).config)  # type: ignore[operator]


def test_variables_of_others_are_left_alone() -> None:
    kubernetes = {
        "EDGECACHE_PORT": "tcp://10.0.0.1:80",
        "EDGECACHE_SERVICE_HOST": "10.0.0.1",
        "EDGECACHE_PORT_80_TCP_ADDR": "10.0.0.1",
        "EDGECACHE_TOKEN": "0123456789abcdef",
    }
    assert load(environ=ORIGIN | kubernetes).warnings == ()


def test_a_mistyped_variable_is_pointed_out() -> None:
    (warning,) = load(environ=ORIGIN | {"EDGECACHE_MEMORY_SZE": "1GiB"}).warnings
    assert "EDGECACHE_MEMORY_SZE" in warning
    assert "EDGECACHE_MEMORY_SIZE" in warning


def test_yaml_reads_a_bare_off_as_false_but_the_log_is_off(tmp_path: Path) -> None:
    config = load(written(tmp_path, "origin: http://o\nlog: {access: {format: off}}\n")).config
    assert config.log.access.format == "off"


def test_every_problem_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "\n".join(
            [
                "memori: 1",
                "memory: {size: 1M, max_object: 2GiB}",
                "limits:",
                "  header_timeout: 9d",
                "  fields: many",
                "listen: [x]",
                "sites:",
                "  - origin: {url: 'http://user:secret@host', conect_timeout: 3}",
                "    cache: {query: {drop: [a], keep: []}}",
                "  - hosts: ['*.a:80']",
            ]
        ),
    )
    found = refused(file, {"EDGECACHE_ADMIN_ADDRESS": "foo"}, [Override(("workers",), "700", "--workers")])
    table = [(problem.where.removeprefix(str(file)), problem.path, problem.value) for problem in found]
    assert table == [
        ("--workers", "workers", "700"),
        ("EDGECACHE_ADMIN_ADDRESS", "admin.address", "foo"),
        (":1", "memori", "1"),
        (":2", "memory.size", "1M"),
        (":2", "memory.max_object", "2GiB"),
        (":4", "limits.header_timeout", "9d"),
        (":5", "limits.fields", "many"),
        (":6", "listen[0].address", "x"),
        (":8", "sites[0].origin.url", "http://***@host"),
        (":8", "sites[0].origin.conect_timeout", "3"),
        (":9", "sites[0].cache.query", None),
        (":10", "sites[1].hosts[0]", "*.a:80"),
        (":10", "sites[1].origin", None),
    ]
    expected = {problem.path: problem.expected for problem in found}
    assert expected["memori"].endswith("did you mean memory?")
    assert expected["memory.max_object"] == "at most 1GiB"
    assert expected["limits.header_timeout"] == "at most 1h"
    assert expected["sites[0].origin.conect_timeout"].endswith("did you mean connect_timeout?")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        pytest.param("origin: http://a\nname: x\nname: y\n", 3, "each key once; it is also on line 2", id="duplicate"),
        pytest.param("origin: [\n", 2, "YAML", id="cut-off"),
        pytest.param("origin: http://a\n\tname: x\n", 2, "YAML", id="tab"),
        pytest.param("- a\n", 1, "keys and values", id="list"),
        pytest.param("x\n", 1, "keys and values", id="scalar"),
        pytest.param("[a]: 1\n", 1, "a key must be a plain word", id="complex-key"),
        pytest.param("a: &x [*x]\n", 1, "refers to itself", id="recursive"),
        pytest.param("origin: !!python/object/apply:os.system [x]\n", 1, "section", id="tag-on-list"),
        pytest.param("origin: !!python/name:os.system x\n", 1, "YAML", id="tag-on-scalar"),
        pytest.param("a: 1\n---\nb: 2\n", 2, "YAML", id="two-documents"),
        pytest.param("[" * 3000, 1, "nested too deeply", id="deep"),
        pytest.param("a: \x01\n", 1, "YAML", id="control-character"),
        pytest.param("name: 2026-99-99\n", 1, "YAML", id="impossible-date"),
    ],
)
def test_what_is_not_plain_yaml(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = written(tmp_path, text)
    assert any(p.where == f"{file}:{line}" and words in p.expected for p in refused(file)), refused(file)


def test_merged_keys_are_no_duplicates(tmp_path: Path) -> None:
    text = (
        "sites:\n"
        "  - &a {hosts: [a.example], origin: http://o, cache: {stale_if_error: 1d}}\n"
        "  - {<<: *a, hosts: [b.example]}\n"
    )
    config = load(written(tmp_path, text)).config
    assert [site.title for site in config.sites] == ["a.example", "b.example"]
    assert config.sites[1].cache.stale_if_error_s == 86400


def test_aliases_do_not_multiply(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert len(refused(written(tmp_path, "\n".join(lines)))) == 30


@pytest.mark.parametrize("missing", ["nowhere.yaml", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, missing: str) -> None:
    (problem,) = refused(tmp_path / missing)
    assert "a readable file" in problem.expected


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"origin: \xff\n")
    (problem,) = refused(file)
    assert "UTF-8" in problem.expected


@pytest.mark.parametrize("content", [None, b"no certificate\n"])
def test_a_ca_file_must_hold_certificates(tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    file = written(tmp_path, f"origin: {{url: https://o, tls: {{ca_file: {ca_file}}}}}\n")
    (problem,) = refused(file)
    assert problem.path == "origin.tls.ca_file"
    assert problem.where == f"{file}:1"
    assert "PEM" in problem.expected


def test_a_variable_that_is_not_yaml() -> None:
    (problem,) = refused(None, ORIGIN | {"EDGECACHE_LISTEN": "[:80"})
    assert problem.where == "EDGECACHE_LISTEN"
