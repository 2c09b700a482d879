"""What a wrong value is answered with, one row per kind of mistake."""

import pytest
import yaml

from edgecache.config.load import ConfigError, load


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        pytest.param("limits: {fields: 1.5}", "limits.fields", "a whole number", id="int"),
        pytest.param("limits: {fields: 7}", "limits.fields", "at least 8", id="ge"),
        pytest.param("limits: {idle_timeout: 2d}", "limits.idle_timeout", "at most 1d", id="le-duration"),
        pytest.param("limits: {head: 1KiB}", "limits.head", "at least 2KiB", id="ge-size"),
        pytest.param("cache: {heuristic_fraction: 0}", "cache.heuristic_fraction", "more than 0", id="gt"),
        pytest.param("cache: {heuristic_fraction: 2}", "cache.heuristic_fraction", "at most 1", id="le"),
        pytest.param("cache: {heuristic_fraction: x}", "cache.heuristic_fraction", "a number", id="float"),
        pytest.param("cache: {heuristics: maybe}", "cache.heuristics", "true or false", id="bool"),
        pytest.param("cache: {target_fields: x}", "cache.target_fields", 'a list: ["x"]', id="list"),
        pytest.param("cache: {target_fields: [a b]}", "cache.target_fields[0]", "a header field's name", id="field"),
        pytest.param("cache: {target_fields: [1]}", "cache.target_fields[0]", "a header field's name", id="field-type"),
        pytest.param(
            "cache: {target_fields: [a, b, c, d, e, f, g, h, i]}", "cache.target_fields", "at most 8 entries", id="many"
        ),
        pytest.param("cache: {query: {drop: [a*b]}}", "cache.query.drop[0]", "a query parameter's name", id="star"),
        pytest.param("cache: {query: {drop: ['*']}}", "cache.query.drop[0]", "a query parameter's name", id="all"),
        pytest.param("cache: {query: {drop: [3]}}", "cache.query.drop[0]", "a query parameter's name", id="parameter"),
        pytest.param("cache: {compress: {codings: [deflate]}}", "cache.compress.codings[0]", "br, zstd", id="coding"),
        pytest.param("cache: {compress: {types: [html]}}", "cache.compress.types[0]", "a media type", id="media"),
        pytest.param("cache: {compress: {types: [3]}}", "cache.compress.types[0]", "a media type", id="media-type"),
        pytest.param("cache: {cache_status_name: a b}", "cache.cache_status_name", "a word of letters", id="token"),
        pytest.param("cache: 3", "cache", "a section with keys", id="section"),
        pytest.param("listen: []", "listen", "at least 1 entries", id="empty-list"),
        pytest.param("listen: ':80'", "listen", 'a list: [":80"]', id="no-list"),
        pytest.param("listen: 80", "listen", "a list", id="no-list-of-words"),
        pytest.param("admin: {token_file: ''}", "admin.token_file", "at least 1 characters", id="empty-text"),
        pytest.param("admin: {token_file: 3}", "admin.token_file", "text", id="text"),
        pytest.param("admin: {hosts: [3]}", "admin.hosts[0]", "a host name", id="host"),
        pytest.param(
            "forwarding: {trusted_proxies: [10.0.0.0/33]}", "forwarding.trusted_proxies[0]", "an address", id="net"
        ),
        pytest.param("forwarding: {trusted_proxies: [null]}", "forwarding.trusted_proxies[0]", "an address", id="null"),
        pytest.param("log: {level: loud}", "log.level", "debug, info, warning or error", id="choice"),
        pytest.param(
            "origin: {url: 'http://o', host: 'a b'}", "origin.host", "a host with an optional port", id="authority"
        ),
        pytest.param("origin: {}", "origin.url", "a value", id="missing"),
        pytest.param("sites: [{name: 'a b', origin: 'http://o'}]", "sites[0].name", "letters, digits", id="pattern"),
        pytest.param("max_object: 1MiB", "max_object", "memory.max_object", id="elsewhere"),
        pytest.param("tls: {}", "tls", "a known key: one of name", id="not-there-yet-first"),
        pytest.param("geodns: {}", "geodns", "a known key: one of name", id="not-there-yet"),
        pytest.param("disk: {size: 1MiB}", "disk.size", "at least 32MiB", id="disk"),
        pytest.param("coordinator: x", "coordinator", "purge.coordinator", id="elsewhere-too"),
        pytest.param("workers: 31", "workers", "at most 30", id="workers"),
    ],
)
def test_expectations(tmp_path, text: str, path: str, expected: str) -> None:
    file = tmp_path / "edge.yaml"
    if not {"origin", "sites"} & set(yaml.safe_load(text)):
        text += "\norigin: http://o"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert expected in problem.expected
    assert str(problem).startswith(f"{file}:1: {path}")


def test_what_is_written_in_another_way_is_understood(tmp_path) -> None:
    file = tmp_path / "edge.yaml"
    file.write_text(
        "sites:\n"
        "  - hosts: ['[2001:DB8::1]', WWW.Example.COM.]\n"
        "    origin: {url: 'HTTPS://O.example', host: null}\n"
        "    cache: {override_ttl: null, max_object: null, target_fields: []}\n"
        "forwarding: {trusted_proxies: [10.1.2.3/8, '::1']}\n"
    )
    config = load(file).config
    assert config.sites[0].hosts == ("[2001:db8::1]", "www.example.com")
    assert config.sites[0].origin.url == "https://o.example"
    assert config.forwarding.trusted_proxies == ("10.0.0.0/8", "::1/128")
